//! An image as a file system, squashfs or erofs, made from its archive by the file systems' own tools and cut into
//! plain slices. The same archive gives the same bytes with the same version of the tool.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use rootstream::failure::{Advise, refuse};
use rootstream::image::manifest::{Chunk, Digest};
use sha2::{Digest as _, Sha256};

use super::pack::{Archive, Packed};
use crate::aside;

/// Bytes of a slice, but for the last.
const SLICE: u64 = 2 << 20;
/// What tar2sqfs says of an access control list, for which squashfs has no place.
const NO_ACL: &str = "squashfs does not support xattr prefix of system.posix_acl";

/// A kind of file system that an image can be published as, and how hard it is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// Small: zstd in blocks of 128 KiB, which is what a node decodes to read one page.
    Squashfs(i32),
    /// Quick to read: lz4 in clusters of 64 KiB, the strongest that the kernels of Debian 12 read.
    Erofs(i32),
}

/// Makes a file system of `archive` as the file `target`; `folder` is for temporary files. `progress` hears of what the
/// tool has taken in.
///
/// # Errors
/// The tool is missing or fails, the disk refuses, or erofs is asked for by anybody but root.
pub(super) fn pack(
    kind: FileSystem,
    archive: &Archive<'_>,
    folder: &Path,
    target: &File,
    progress: impl Fn(u64) + Sync,
) -> Result<Packed> {
    let scratch = tempfile::Builder::new().prefix(aside::PREFIX).tempdir_in(folder);
    let scratch = scratch.with_context(|| format!("making a folder in {}", folder.display()))?;
    let file = scratch.path().join("image");
    let source = |to: &mut dyn Write| archive.write(to, &progress);
    let pages = match kind {
        FileSystem::Squashfs(level) => squashfs(level, source, &file)?,
        FileSystem::Erofs(level) => erofs(level, source, &scratch.path().join("tree"), &file)?,
    };
    let mut file = File::open(&file).context("opening the file system")?;
    let (chunks, size, sha256) = slice(&mut file, target).context("copying the file system into the store")?;
    Ok(Packed { chunks, size, sha256, pages })
}

fn squashfs(level: i32, source: impl FnOnce(&mut dyn Write) -> Result<u64> + Send, file: &Path) -> Result<u64> {
    let mut tool = Command::new("tar2sqfs");
    tool.args(["--quiet", "--compressor", "zstd", "--comp-extra", &format!("level={level}"), "--block-size", "131072"]);
    let (pages, said) = feed(tool.arg(file), source, "squashfs-tools-ng")?;
    let (acls, rest): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.contains(NO_ACL));
    ensure!(rest.is_empty(), "tar2sqfs did not take all of the archive: {}", rest.join("; "));
    if !acls.is_empty() {
        log::warn!("{} access control lists are left out: squashfs has no place for them, erofs has", acls.len());
    }
    Ok(pages)
}

fn erofs(
    level: i32,
    source: impl FnOnce(&mut dyn Write) -> Result<u64> + Send,
    tree: &Path,
    file: &Path,
) -> Result<u64> {
    if !geteuid().is_root() {
        return Err(refuse(
            "an erofs image is made from an unpacked tree, with owners and devices that only root can set",
            "run this as root, or publish with --format squashfs",
        ));
    }
    fs::create_dir(tree).context("making a folder to unpack into")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions"]);
    tar.args(["--xattrs", "--xattrs-include=*", "--directory"]);
    let (pages, _) = feed(tar.arg(tree), source, "tar")?;
    // Later than every file, so that the tool, which lets no file be newer, changes no time.
    let time = newest(tree).context("looking through the unpacked tree")? + 1;
    let mut tool = Command::new("mkfs.erofs");
    tool.env("SOURCE_DATE_EPOCH", time.to_string());
    tool.args(["--quiet", &format!("-zlz4hc,{level}"), "-C65536", "-U00000000-0000-0000-0000-000000000000"]);
    feed(tool.arg(file).arg(tree), |_| Ok(()), "erofs-utils")?;
    Ok(pages)
}

/// Runs a tool whose input `write` makes; returns what that did and what the tool said on stderr.
fn feed<T: Send>(
    tool: &mut Command,
    write: impl FnOnce(&mut dyn Write) -> Result<T> + Send,
    package: &str,
) -> Result<(T, String)> {
    let name = tool.get_program().to_string_lossy().into_owned();
    tool.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = tool.spawn().advise(format!("starting {name}"), format!("install the package {package}"))?;
    let stdin = child.stdin.take().with_context(|| format!("{name} has no input"))?;
    let mut stderr = child.stderr.take().with_context(|| format!("{name} has no output"))?;
    let mut said = Vec::new();
    let (read, written) = thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut stdin = BufWriter::with_capacity(1 << 20, stdin);
            let written = write(&mut stdin)?;
            stdin.flush()?;
            Ok(written)
        });
        let read = stderr.read_to_end(&mut said);
        (read, writing.join().unwrap_or_else(|_| bail!("the thread that writes the archive panicked")))
    });
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    read.with_context(|| format!("listening to {name}"))?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    // A tool that ended early knows better why than whoever wrote to it.
    ensure!(status.success(), "{name} ended with {status}: {said}");
    Ok((written.with_context(|| format!("giving {name} the archive"))?, said))
}

/// The newest modification time in a tree, in seconds.
fn newest(tree: &Path) -> io::Result<i64> {
    let mut newest = fs::symlink_metadata(tree)?.mtime();
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        newest = newest.max(if metadata.is_dir() { self::newest(&entry.path())? } else { metadata.mtime() });
    }
    Ok(newest)
}

/// Copies a file and digests it, as a whole and slice by slice.
fn slice(from: &mut File, to: &File) -> Result<(Vec<Chunk>, u64, Digest)> {
    let (mut from, mut to) = (BufReader::new(from), BufWriter::new(to));
    let (mut chunks, mut whole, mut offset) = (Vec::new(), Sha256::new(), 0);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let size = from.by_ref().take(SLICE).read_to_end(&mut bytes)? as u64;
        if size == 0 {
            break;
        }
        to.write_all(&bytes)?;
        whole.update(&bytes);
        let sha256 = Digest(Sha256::digest(&bytes).into());
        chunks.push(Chunk { offset, size, unpacked: size, sha256, continues: None });
        offset += size;
    }
    to.flush()?;
    Ok((chunks, offset, Digest(whole.finalize().into())))
}

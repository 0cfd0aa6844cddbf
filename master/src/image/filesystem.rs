//! An image as a file system, squashfs or erofs, made from its archive by the file systems' own tools and cut into
//! plain slices. The same archive gives the same bytes with the same version of the tool.

use std::ffi::OsString;
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

/// Bytes of a slice, but for the last.
const SLICE: u64 = 2 << 20;
/// What tar2sqfs says of an access control list, for which squashfs has no place.
const NO_ACL: &str = "squashfs does not support xattr prefix of system.posix_acl";

/// A kind of file system that an image can be published as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// Small: zstd in blocks of 128 KiB, which is what a node decodes to read one page.
    Squashfs,
    /// Quick to read: lz4 in clusters of 64 KiB, the strongest that the kernels of Debian 12 read.
    Erofs,
}

/// What was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) chunks: Vec<Chunk>,
    pub(super) size: u64,
    pub(super) sha256: Digest,
    /// What the file system has no place for, one sentence each.
    pub(super) left_out: Vec<String>,
}

/// Makes a file system of the archive that `archive` writes, as the file `target`; `folder` is for temporary files.
///
/// # Errors
/// The tool is missing or fails, the disk refuses, or erofs is asked for by anybody but root.
pub(super) fn pack(
    kind: FileSystem,
    archive: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    folder: &Path,
    target: &File,
) -> Result<Made> {
    let scratch = tempfile::Builder::new().prefix(crate::aside::PREFIX).tempdir_in(folder);
    let scratch = scratch.with_context(|| format!("making a folder in {}", folder.display()))?;
    let file = scratch.path().join("image");
    let left_out = match kind {
        FileSystem::Squashfs => squashfs(archive, &file)?,
        FileSystem::Erofs => {
            erofs(archive, &scratch.path().join("tree"), &file)?;
            Vec::new()
        }
    };
    let mut file = File::open(&file).context("opening the file system")?;
    let (chunks, size, sha256) = slice(&mut file, target).context("copying the file system into the store")?;
    Ok(Made { chunks, size, sha256, left_out })
}

fn squashfs(archive: impl FnOnce(&mut dyn Write) -> Result<()> + Send, file: &Path) -> Result<Vec<String>> {
    let mut tool = Command::new("tar2sqfs");
    tool.args(["--quiet", "--compressor", "zstd", "--comp-extra", "level=9", "--block-size", "131072"]).arg(file);
    let said = feed(tool, archive, "squashfs-tools-ng")?;
    let (acls, rest): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.contains(NO_ACL));
    ensure!(rest.is_empty(), "tar2sqfs did not take all of the archive: {}", rest.join("; "));
    let sentence = format!("{} access control lists, which squashfs has no place for (erofs has)", acls.len());
    Ok(if acls.is_empty() { Vec::new() } else { vec![sentence] })
}

fn erofs(archive: impl FnOnce(&mut dyn Write) -> Result<()> + Send, tree: &Path, file: &Path) -> Result<()> {
    if !geteuid().is_root() {
        return Err(refuse(
            "an erofs image is made from an unpacked tree, with owners and devices that only root can set",
            "run this as root, or publish with --format squashfs",
        ));
    }
    fs::create_dir(tree).context("making a folder to unpack into")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions"]);
    tar.args(["--xattrs", "--xattrs-include=*", "--acls", "--directory"]).arg(tree);
    feed(tar, archive, "tar")?;
    // Later than every file, so that the tool, which lets no file be newer, changes no time.
    let time = newest(tree).context("looking through the unpacked tree")? + 1;
    let mut tool = Command::new("mkfs.erofs");
    tool.env("SOURCE_DATE_EPOCH", time.to_string());
    tool.args(["--quiet", "-zlz4hc", "-C65536", "-U00000000-0000-0000-0000-000000000000"]).arg(file).arg(tree);
    feed(tool, |_| Ok(()), "erofs-utils").map(drop)
}

/// Runs a tool whose input `write` makes; returns what it said on stderr.
fn feed(
    mut tool: Command,
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    package: &str,
) -> Result<String> {
    let name = tool.get_program().to_string_lossy().into_owned();
    tool.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = tool.spawn().advise(format!("starting {name}"), format!("install the package {package}"))?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let mut said = String::new();
    let written = thread::scope(|scope| {
        let writing = scope.spawn(move || match stdin {
            Some(stdin) => {
                let mut stdin = BufWriter::with_capacity(1 << 20, stdin);
                write(&mut stdin)?;
                Ok(stdin.flush()?)
            }
            None => bail!("{} has no input", "it"),
        });
        if let Some(mut stderr) = stderr {
            // Anything that is not text is of no use in a message.
            let _ = stderr.read_to_string(&mut said);
        }
        writing.join().unwrap_or_else(|_| bail!("the thread that writes the archive panicked"))
    });
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    // A tool that ended early knows better why than whoever wrote to it.
    ensure!(status.success(), "{name} ended with {status}: {}", said.trim());
    written.with_context(|| format!("giving {name} the archive"))?;
    Ok(said)
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

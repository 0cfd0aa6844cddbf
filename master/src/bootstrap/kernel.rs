//! A kernel and its modules, read out of an image's archive.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rootstream::failure::{Advise, refuse};
use tar::Archive;

use super::firmware::{self, Shelf};
use super::modprobe::{self, Modprobe};
use super::modules::expanded;
use crate::image::built::Built;
use crate::image::plain;

/// A kernel in the image, and what the image says about its modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    /// Its release, as `uname -r` says it.
    pub(super) release: String,
    /// Its build configuration, where the image has it.
    pub(super) config: String,
    /// modules.dep.
    pub(super) dep: String,
    /// modules.alias.
    pub(super) alias: String,
    /// modules.softdep.
    pub(super) softdep: String,
    /// modules.builtin.
    pub(super) builtin: String,
    /// What the image's modprobe.d says.
    pub(super) modprobe: Modprobe,
    /// The image's firmware files.
    pub(super) firmware: Shelf,
    /// All releases in the image.
    pub(super) releases: Vec<String>,
}

/// The files of a module folder that are read.
const INDEX: [&str; 4] = ["/modules.dep", "/modules.alias", "/modules.softdep", "/modules.builtin"];

/// Finds the newest kernel in the image.
///
/// # Errors
/// The archive is unreadable, holds no kernel, or holds one without an index of its modules.
pub(super) fn find(built: &Built) -> Result<Kernel> {
    let small = |path: &str| {
        path.starts_with("boot/config-")
            || (path.starts_with("lib/modules/") && INDEX.iter().any(|name| path.ends_with(name)))
            || modprobe::is_one(path)
    };
    let mut releases = BTreeSet::new();
    let mut firmware = Shelf::default();
    let mut texts = read(built, |path, link| {
        if let Some(release) = path.strip_prefix("boot/vmlinuz-").filter(|_| link.is_none()) {
            releases.insert(release.to_owned());
        }
        if path.strip_prefix(firmware::FOLDER).is_some_and(|rest| rest.starts_with('/')) {
            firmware.add(path, link.map(Path::to_owned));
        }
        small(path)
    })?;
    let mut releases: Vec<_> = releases.into_iter().collect();
    releases.sort_by_key(|release| age(release));
    let Some(release) = releases.last().cloned() else {
        return Err(refuse(
            format!("{} holds no kernel: there is no /boot/vmlinuz-*", built.path().display()),
            "add a kernel to the recipe's packages, such as linux-image-amd64, and build the image again",
        ));
    };
    let mut text = |path: String| texts.remove(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let folder = format!("lib/modules/{release}");
    let config = text(format!("boot/config-{release}")).unwrap_or_default();
    let dep = text(format!("{folder}/modules.dep")).ok_or_else(|| {
        refuse(
            format!("the kernel {release} in {} has no /{folder}/modules.dep", built.path().display()),
            "add kmod to the recipe's packages, or run depmod in the image",
        )
    })?;
    let mut index = |name: &str| text(format!("{folder}/{name}")).unwrap_or_default();
    let (alias, softdep, builtin) = (index("modules.alias"), index("modules.softdep"), index("modules.builtin"));
    let rest: Vec<(&str, Cow<'_, str>)> =
        texts.iter().map(|(path, bytes)| (path.as_str(), String::from_utf8_lossy(bytes))).collect();
    let modprobe = Modprobe::read(rest.iter().map(|(path, text)| (*path, text.as_ref())));
    Ok(Kernel { release, config, dep, alias, softdep, builtin, modprobe, firmware, releases })
}

/// Contents by path.
pub(super) type Contents = BTreeMap<String, Vec<u8>>;

/// The kernel's own file, and these module files, expanded, by their expanded names.
///
/// # Errors
/// One of them is missing in the archive or cannot be expanded.
pub(super) fn load(built: &Built, release: &str, modules: &BTreeSet<String>) -> Result<(Vec<u8>, Contents)> {
    let vmlinuz = format!("boot/vmlinuz-{release}");
    let folder = format!("lib/modules/{release}/");
    let mut files =
        read(built, |path, _| path == vmlinuz || path.strip_prefix(&folder).is_some_and(|m| modules.contains(m)))?;
    let missing = |path: &str| format!("{} holds no /{path} that is a file", built.path().display());
    let kernel = files.remove(&vmlinuz).with_context(|| missing(&vmlinuz))?;
    let mut expanded_modules = BTreeMap::new();
    for module in modules {
        let path = format!("{folder}{module}");
        let content = files.remove(&path).with_context(|| missing(&path))?;
        let content = expand(module, content).with_context(|| format!("expanding /{path}"))?;
        expanded_modules.insert(expanded(module).to_owned(), content);
    }
    Ok((kernel, expanded_modules))
}

/// Firmware files by the names that the kernel asks for, expanded; `files` says where in the image each is.
///
/// # Errors
/// One of them is missing in the archive or cannot be expanded.
pub(super) fn load_firmware(built: &Built, files: &BTreeMap<String, String>) -> Result<Contents> {
    if files.is_empty() {
        return Ok(Contents::new());
    }
    let paths: BTreeSet<&String> = files.values().collect();
    let contents = read(built, |path, _| paths.contains(&path.to_owned()))?;
    let mut firmware = Contents::new();
    for (name, path) in files {
        let content = contents.get(path).with_context(|| format!("{} holds no /{path}", built.path().display()))?;
        let content = expand(path, content.clone()).with_context(|| format!("expanding /{path}"))?;
        firmware.insert(name.clone(), content);
    }
    Ok(firmware)
}

/// The contents of the archive's files that `wanted` picks by their path, which is without a
/// leading `usr/`: Debian links `/lib` there. It is asked about symlinks too, with their targets.
fn read(built: &Built, mut wanted: impl FnMut(&str, Option<&Path>) -> bool) -> Result<Contents> {
    let failed = || format!("reading the archive {}", built.path().display());
    let mut tar = Archive::new(built.archive()?);
    let mut found = BTreeMap::new();
    for entry in tar.entries_with_seek().with_context(failed)? {
        let mut entry = entry.with_context(failed)?;
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_symlink() {
            continue;
        }
        let path = plain(&entry.path().with_context(failed)?);
        let path = path.strip_prefix("usr").unwrap_or(&path).to_string_lossy().into_owned();
        let link = if kind.is_symlink() { entry.link_name().with_context(failed)? } else { None };
        if wanted(&path, link.as_deref()) && kind.is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).with_context(failed)?;
            found.insert(path, content);
        }
    }
    Ok(found)
}

fn expand(name: &str, content: Vec<u8>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match name.rsplit('.').next() {
        Some("xz") => out = through_xz(&content)?,
        Some("zst") => {
            zstd::Decoder::new(content.as_slice())?.read_to_end(&mut out)?;
        }
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(content.as_slice()).read_to_end(&mut out)?;
        }
        _ => return Ok(content),
    }
    Ok(out)
}

fn through_xz(content: &[u8]) -> Result<Vec<u8>> {
    let mut xz = Command::new("xz")
        .args(["-dc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .advise("starting xz", "install it: apt-get install xz-utils")?;
    let mut stdin = xz.stdin.take().context("opening a pipe to xz")?;
    // Fed from the side: xz writes before it has read everything.
    let output = std::thread::scope(|scope| {
        let feeder = scope.spawn(move || stdin.write_all(content));
        let output = xz.wait_with_output();
        // A refused write means that xz ended early; its status and message say why.
        drop(feeder.join());
        output
    })
    .context("running xz")?;
    ensure!(output.status.success(), "xz: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

/// A key that sorts releases by age: 6.1.0-9 before 6.1.0-10.
fn age(release: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = release;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(word);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        parts.push((number.parse().unwrap_or(0), text.to_owned()));
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_is_newer_than_nine() {
        let mut releases = ["6.1.0-10-amd64", "6.12.1-amd64", "6.1.0-9-amd64", "5.10.0-1-amd64"];
        releases.sort_by_key(|r| age(r));
        assert_eq!(releases, ["5.10.0-1-amd64", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.12.1-amd64"]);
    }

    // F63
    #[test]
    fn every_compression_is_expanded() {
        let plain = b"module".repeat(100_000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        assert_eq!(expand("x.ko.gz", gz.finish().unwrap()).unwrap(), plain);
        assert_eq!(expand("x.ko.zst", zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap(), plain);
        assert_eq!(expand("x.ko", plain.clone()).unwrap(), plain);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.ko");
        std::fs::write(&file, &plain).unwrap();
        assert!(Command::new("xz").arg(&file).status().unwrap().success());
        let xz = std::fs::read(folder.path().join("x.ko.xz")).unwrap();
        assert_eq!(expand("x.ko.xz", xz).unwrap(), plain);
        assert!(expand("x.ko.xz", b"no xz at all".to_vec()).unwrap_err().to_string().contains("xz: "));
    }
}

//! Into the store: compressed, digested, and visible all at once.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::time::SystemTime;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use rootstream::image::hex;
use sha2::{Digest, Sha256};

use super::built::Built;
use super::manifest::{FORMAT, Latest, Manifest};
use super::{build, survey};
use crate::aside;
use crate::clock;
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::progress::{Progress, megabytes};

/// How an image is packed for the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Small and quick to unpack.
    #[value(name = "tar.zst")]
    TarZst,
    /// For tools that know nothing newer.
    #[value(name = "tar.gz")]
    TarGz,
    /// Not compressed.
    #[value(name = "tar")]
    Tar,
}

impl Format {
    fn suffix(self) -> &'static str {
        match self {
            Self::TarZst => "tar.zst",
            Self::TarGz => "tar.gz",
            Self::Tar => "tar",
        }
    }

    fn media(self) -> &'static str {
        match self {
            Self::TarZst => "tar+zstd",
            Self::TarGz => "tar+gzip",
            Self::Tar => "tar",
        }
    }
}

/// Publishes what was built last as a new build, and makes it the newest.
///
/// A kill at any moment leaves the older build the newest, whole.
///
/// # Errors
/// Nothing was built, the image holds secrets, or the disk refuses.
pub fn publish(site: &Site, name: &Name, format: Format, allow_secrets: bool) -> Result<Manifest> {
    publish_built(site, name, &Built::of(site, name)?, format, allow_secrets)
}

/// Publishes this archive: what is surveyed and what is packed are one open file, whatever a build
/// puts in its place meanwhile.
fn publish_built(site: &Site, name: &Name, built: &Built, format: Format, allow_secrets: bool) -> Result<Manifest> {
    let folder = site.folder(&format!("store/{name}"))?;
    // Held to the end.
    let _claim = aside::claim(&folder)?;
    let found = survey(built.archive()?).with_context(|| format!("reading the archive {}", built.path().display()))?;
    build::refuse_secrets(name, &found, allow_secrets)?;
    if found.init.is_none() {
        log::warn!("image {name}: no /sbin/init in it; its nodes need init= among their kernel parameters");
    }
    let total = built.bytes()?;
    let progress = Progress::bytes(format!("publishing {name}"), total);
    let source = progress.read(built.archive()?);
    let now = SystemTime::now();
    let data = aside::begin(&folder.join("build"))?;
    let (size, sha256) =
        pack(format, source, total, data.as_file()).with_context(|| format!("packing {}", built.path().display()))?;

    let build = format!("{}-{}", clock::compact(now), sha256.get(..8).unwrap_or_default());
    let manifest = Manifest {
        format: FORMAT,
        name: name.clone(),
        build: build.clone(),
        created: clock::rfc3339(now),
        arch: built.arch().to_owned(),
        kernels: found.kernels.into_iter().collect(),
        media: format.media().to_owned(),
        file: format!("{build}.{}", format.suffix()),
        size,
        sha256,
        unpacked_bytes: found.bytes,
        unpacked_pages: found.pages,
        inodes: found.inodes,
        largest_file: found.largest,
        init: found.init,
    };
    let manifest_name = format!("{build}.json");
    let latest = Latest { format: FORMAT, name: name.clone(), build: build.clone(), manifest: manifest_name.clone() };
    aside::finish(data, &folder.join(&manifest.file))?;
    aside::write(&folder.join(manifest_name), &json(&manifest)?)?;
    aside::write(&folder.join("latest.json"), &json(&latest)?)?;
    progress.done(&format!("build {build}, {} of {}", megabytes(size), megabytes(total)));
    Ok(manifest)
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).context("writing JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// Packs `source` into `target`; the same bytes come out for the same bytes in, whatever the
/// machine. Returns size and sha256 of what was written.
fn pack(format: Format, mut source: impl Read, total: u64, target: &File) -> io::Result<(u64, String)> {
    let mut target = Digested { inner: BufWriter::with_capacity(1 << 20, target), hash: Sha256::new(), size: 0 };
    match format {
        Format::TarZst => {
            let mut encoder = zstd::Encoder::new(&mut target, 9)?;
            // Any number of workers gives the same bytes, but none at all gives others.
            let workers = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 8);
            encoder.multithread(u32::try_from(workers).unwrap_or(1))?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(total))?;
            io::copy(&mut source, &mut encoder)?;
            encoder.finish()?;
        }
        Format::TarGz => {
            let mut encoder = GzBuilder::new().mtime(0).write(&mut target, Compression::new(6));
            io::copy(&mut source, &mut encoder)?;
            encoder.finish()?;
        }
        Format::Tar => {
            io::copy(&mut source, &mut target)?;
        }
    }
    target.flush()?;
    Ok((target.size, hex(&target.hash.finalize())))
}

/// A writer that digests and counts what goes through it.
struct Digested<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn archive(file: &str, content: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, file, content).unwrap();
        tar.into_inner().unwrap()
    }

    // Builder
    #[test]
    fn a_build_meanwhile_changes_nothing_about_what_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::write(at("site.toml"), "[network]\ninterface = 'br0'\naddress = '172.16.0.254/24'\n").unwrap();
        fs::create_dir(at("built")).unwrap();
        let harmless = archive("sbin/init", b"#!/bin/sh\n");
        fs::write(at("built/c.tar"), &harmless).unwrap();
        fs::write(at("built/c.json"), r#"{"inputs":"","created":"","arch":"arm64","bytes":0}"#).unwrap();
        let (site, name) = (Site::open(folder.path()).unwrap(), "c".parse().unwrap());
        let built = Built::of(&site, &name).unwrap();

        fs::write(at("other"), archive("etc/munge/munge.key", &[1; 5000])).unwrap();
        fs::rename(at("other"), at("built/c.tar")).unwrap();
        let manifest = publish_built(&site, &name, &built, Format::Tar, false).unwrap();
        assert_eq!(fs::read(at("store/c").join(&manifest.file)).unwrap(), harmless);
        assert_eq!((manifest.arch.as_str(), manifest.largest_file), ("arm64", 10));

        let refused = publish(&site, &name, Format::Tar, false).unwrap_err().to_string();
        assert!(refused.contains("/etc/munge/munge.key"), "{refused}");
    }
}

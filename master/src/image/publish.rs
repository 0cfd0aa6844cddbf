//! Into the store: canonical, in chunks, digested, signed, and visible all at once.

use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use libdeflater::CompressionLvl;
use rootstream::failure::refuse;
use rootstream::image::manifest::{FORMAT, Manifest, Media};

use super::built::Built;
use super::canon::{Entry, Tree};
use super::filesystem::{self, FileSystem};
use super::pack::{Archive, Codec};
use super::store;
use super::survey::survey;
use crate::aside;
use crate::clock;
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::keys::{self, Signer};
use crate::progress::{Progress, megabytes};

/// More chunks than this make a manifest that is too large: 128 GiB unpacked.
const MOST_CHUNKS: usize = 65_536;

/// How an image is packed for the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Small and quick to unpack.
    #[value(name = "tar.zst")]
    TarZst,
    /// For tools that know nothing newer.
    #[value(name = "tar.gz")]
    TarGz,
    /// A file system, mounted in the nodes' memory as it is: for nodes with little of it.
    Squashfs,
    /// The same, larger and quicker to read.
    Erofs,
}

/// What packs an image.
enum Packer {
    Chunks(Codec),
    FileSystem(FileSystem),
}

impl Format {
    fn media(self) -> Media {
        match self {
            Self::TarZst => Media::TarZstd,
            Self::TarGz => Media::TarGzip,
            Self::Squashfs => Media::Squashfs,
            Self::Erofs => Media::Erofs,
        }
    }

    fn packer(self, level: Option<i32>) -> Result<Packer> {
        let (usual, most) = match self {
            // Its longer matches also unpack a few parts in a hundred faster than those of level 9.
            Self::TarZst => (12, 22),
            Self::Squashfs => (9, 22),
            // The levels above take three times as long for one part in a hundred.
            Self::TarGz => (6, 12),
            Self::Erofs => (9, 12),
        };
        let level = level.unwrap_or(usual);
        if !(1..=most).contains(&level) {
            let what = format!("there is no level {level} of {}", self.media().suffix());
            return Err(refuse(what, format!("take one from 1 (quick) to {most} (small)")));
        }
        Ok(match self {
            Self::TarZst => Packer::Chunks(Codec::Zstd(level)),
            Self::TarGz => Packer::Chunks(Codec::Gzip(CompressionLvl::new(level).unwrap_or_default())),
            Self::Squashfs => Packer::FileSystem(FileSystem::Squashfs(level)),
            Self::Erofs => Packer::FileSystem(FileSystem::Erofs(level)),
        })
    }
}

/// How to publish.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the image is packed.
    pub format: Format,
    /// How hard it is compressed; what is usual when absent.
    pub level: Option<i32>,
    /// Publish an image that holds secrets.
    pub allow_secrets: bool,
    /// The secret key that signs; the only one when absent.
    pub key: Option<Name>,
}

/// Publishes what was built last as a new build, and makes it the newest.
///
/// A kill at any moment leaves the older build the newest, whole.
///
/// # Errors
/// Nothing was built, the image holds secrets, or the disk refuses.
pub fn publish(site: &Site, name: &Name, options: &Options) -> Result<Manifest> {
    publish_built(site, name, &Built::of(site, name)?, options)
}

/// Publishes this archive: what is surveyed and what is packed are one open file, whatever a build
/// puts in its place meanwhile.
fn publish_built(site: &Site, name: &Name, built: &Built, options: &Options) -> Result<Manifest> {
    let packer = options.format.packer(options.level)?;
    // What is wrong with the key is said before the work.
    let signer = Signer::of(site, options.key.as_ref())?;
    let folder = site.folder(&format!("store/{name}"))?;
    // Held to the end.
    let _claim = aside::claim(&folder)?;
    store::sweep(&folder)?;
    let reading = || format!("reading the archive {}", built.path().display());
    let tree = Tree::read(built.archive()?).with_context(reading)?;
    let found = survey(&tree, built.file()).with_context(reading)?;
    found.refuse_secrets(name, options.allow_secrets)?;
    if found.init.is_none() {
        log::warn!("image {name}: no /sbin/init in it; its nodes need init= among their kernel parameters");
    }
    let entries = Entry::all(&tree);
    let archive = Archive::new(&entries, built.file())?;
    if archive.chunks() > MOST_CHUNKS {
        let what = format!("the image {name} has {} GiB of files, which is too much", found.bytes >> 30);
        return Err(refuse(what, "make it smaller; holes in sparse files count"));
    }
    let progress = Progress::bytes(format!("publishing {name}"), found.bytes);
    let now = SystemTime::now();
    let data = aside::begin(&folder.join("build"))?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let advance = |bytes| progress.advance(bytes);
    let packed = match packer {
        Packer::Chunks(codec) => archive.pack(codec, workers, data.as_file(), advance),
        Packer::FileSystem(kind) => filesystem::pack(kind, &archive, &folder, data.as_file(), advance),
    };
    let packed = packed.with_context(|| format!("packing {}", built.path().display()))?;

    let media = options.format.media();
    let hash = packed.sha256.to_string();
    let build = format!("{}-{}", clock::compact(now), hash.get(..8).unwrap_or_default());
    let manifest = Manifest {
        format: FORMAT,
        name: name.to_string(),
        build: build.clone(),
        created: clock::rfc3339(now),
        arch: built.arch().to_owned(),
        kernels: found.kernels.into_iter().collect(),
        media,
        file: format!("{build}.{}", media.suffix()),
        size: packed.size,
        sha256: packed.sha256,
        unpacked_bytes: found.bytes,
        unpacked_pages: packed.pages,
        inodes: found.inodes,
        largest_file: found.largest,
        init: found.init,
        chunks: packed.chunks,
    };
    let text = store::json(&manifest)?;
    if let Err(error) = Manifest::parse(&text) {
        bail!("the manifest of {name} would be refused: {error:#}");
    }
    let signature = signer.as_ref().map(|signer| signer.sign(&text, &comment(&manifest))).transpose()?;
    aside::finish(data, &folder.join(&manifest.file))?;
    let manifest_path = folder.join(format!("{build}.json"));
    if let Some(signature) = signature {
        aside::write(&store::signature_of(&manifest_path), &signature)?;
    }
    aside::write(&manifest_path, &text)?;
    store::point_at(&folder, name, &build)?;
    let chunks = manifest.chunks.len();
    progress.done(&format!(
        "build {build}, {} in {chunks} chunks, {} unpacked, {}",
        megabytes(manifest.size),
        megabytes(found.bytes),
        signer.as_ref().map_or("not signed".to_owned(), |signer| format!("signed with keys/{}.key", signer.name))
    ));
    if signer.is_none() {
        say_unsigned(site, &manifest)?;
    }
    Ok(manifest)
}

/// What the signature says beside the bytes that it is of; minisign(1) writes and shows the file's name, too.
fn comment(manifest: &Manifest) -> String {
    format!("file:{}.json\tname:{}\tbuild:{}", manifest.build, manifest.name, manifest.build)
}

fn say_unsigned(site: &Site, manifest: &Manifest) -> Result<()> {
    let trusted = keys::trusted(site)?;
    let Manifest { name, build, .. } = manifest;
    if trusted.is_empty() {
        log::warn!(
            "the site has no key: anyone on the boot network can pass for the master; see rootstream key new --help"
        );
    } else {
        let trusted: Vec<String> = trusted.into_keys().map(|file| format!("keys/{file}")).collect();
        let trusted = trusted.join(", ");
        log::warn!(
            "nodes that trust {trusted} refuse it until store/{name}/{build}.json is signed: minisign -S -m FILE"
        );
    }
    Ok(())
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
        let options = Options { format: Format::TarZst, level: None, allow_secrets: false, key: None };
        let manifest = publish_built(&site, &name, &built, &options).unwrap();
        let packed = fs::read(at("store/c").join(&manifest.file)).unwrap();
        let unpacked = zstd::decode_all(packed.as_slice()).unwrap();
        assert!(unpacked.windows(10).any(|bytes| bytes == b"#!/bin/sh\n"));
        assert_eq!((manifest.arch.as_str(), manifest.largest_file), ("arm64", 10));

        let refused = publish(&site, &name, &options).unwrap_err().to_string();
        assert!(refused.contains("/etc/munge/munge.key"), "{refused}");
    }
}

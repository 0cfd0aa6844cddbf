//! Whether a published build is what its manifest says, to the last byte.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, ensure};
use rootstream::failure::Advise;
use rootstream::image::manifest::{Chunk, Digest, Manifest, Media};
use rootstream::image::trust::Keys;
use rootstream::image::{FILE_SYSTEM_HEAD, check_file_system};
use sha2::{Digest as _, Sha256};

use super::canon::check::check;
use super::store::Build;
use crate::config::site::Site;
use crate::keys;
use crate::progress::{Progress, megabytes};

/// Reads all of a build and compares it with its manifest, and that with its signature; returns whether it is signed
/// with a key of the site.
///
/// # Errors
/// Anything is not as it should be; the chunk or entry is named.
pub fn verify(site: &Site, build: &Build) -> Result<bool> {
    let Manifest { name, build: id, .. } = &build.manifest;
    let wrong = || format!("the build {id} of {name} is not what it should be");
    let todo = format!(
        "remove it (rootstream image rm {name} {id}), publish the image again (rootstream image publish {name}), and see to \
         the disk that it was on"
    );
    let trusted = Keys::parse(&keys::trusted(site)?)?;
    let signed = !trusted.is_empty();
    if signed {
        let path = build.path.display();
        build.check_signature(&trusted).with_context(|| format!("checking the signature of {path}")).advise(
            wrong(),
            format!("publish it again with a key of this site (rootstream image publish {name}); nodes refuse it"),
        )?;
    } else if build.signature.is_some() {
        log::warn!("{} is signed, but the site has no key in keys/*.pub to check that with", build.path.display());
    }
    let progress = Progress::bytes(format!("verifying {name}"), build.manifest.size);
    contents(build, &progress).advise(wrong(), todo)?;
    progress.done(&format!(
        "build {id}, {} in {} chunks, {}",
        megabytes(build.manifest.size),
        build.manifest.chunks.len(),
        if signed { "signed" } else { "not signed" }
    ));
    Ok(signed)
}

fn contents(build: &Build, progress: &Progress) -> Result<()> {
    let manifest = &build.manifest;
    let path = build.file();
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let size = file.metadata().with_context(|| format!("measuring {}", path.display()))?.len();
    ensure!(size == manifest.size, "{} has {size} bytes, its manifest says {}", path.display(), manifest.size);
    let mut chunks = Chunks {
        file: BufReader::with_capacity(1 << 20, file),
        manifest,
        next: 0,
        hash: Sha256::new(),
        packed: Vec::new(),
        unpacked: Vec::new(),
        used: 0,
        damaged: None,
        progress,
    };
    let read = match manifest.media {
        Media::TarZstd | Media::TarGzip => numbers(manifest, &mut chunks),
        Media::Squashfs | Media::Erofs => file_system(manifest, &mut chunks),
    };
    if let Some(damaged) = chunks.damaged {
        return Err(damaged);
    }
    read?;
    let sha256 = Digest(chunks.hash.finalize().into());
    ensure!(sha256 == manifest.sha256, "its sha256 is {sha256}, its manifest says {}", manifest.sha256);
    Ok(())
}

/// Checks that the file system is all there; what is in it, only its digests say.
fn file_system(manifest: &Manifest, chunks: &mut Chunks<'_>) -> Result<()> {
    let mut head = Vec::new();
    chunks.take(FILE_SYSTEM_HEAD as u64).read_to_end(&mut head)?;
    io::copy(chunks, &mut io::sink())?;
    check_file_system(manifest.media, &head, manifest.size)
}

/// Checks the archive, and that what the manifest says about it is true.
fn numbers(manifest: &Manifest, chunks: &mut Chunks<'_>) -> Result<()> {
    let is = check(&mut *chunks, &manifest.chunks)?;
    let kernels: Vec<String> = is.survey.kernels.into_iter().collect();
    ensure!(
        kernels == manifest.kernels,
        "it has modules for the kernels {kernels:?}, its manifest says {:?}",
        manifest.kernels
    );
    ensure!(is.survey.init == manifest.init, "its init is {:?}, its manifest says {:?}", is.survey.init, manifest.init);
    for (what, is, said) in [
        ("bytes unpacked", is.survey.bytes, manifest.unpacked_bytes),
        ("pages unpacked", is.pages, manifest.unpacked_pages),
        ("inodes", is.survey.inodes, manifest.inodes),
        ("bytes in its largest file", is.survey.largest, manifest.largest_file),
    ] {
        ensure!(is == said, "it has {is} {what}, its manifest says {said}");
    }
    Ok(())
}

/// The chunks unpacked, one after the other, each checked before anything of it is seen.
struct Chunks<'a> {
    file: BufReader<File>,
    manifest: &'a Manifest,
    next: usize,
    hash: Sha256,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    used: usize,
    /// Why there are no more.
    damaged: Option<anyhow::Error>,
    progress: &'a Progress,
}

impl Chunks<'_> {
    fn advance(&mut self) -> Result<()> {
        let manifest = self.manifest;
        let Some(chunk) = manifest.chunks.get(self.next) else { return Ok(()) };
        self.packed.resize(usize::try_from(chunk.size)?, 0);
        let next = self.next;
        self.next += 1;
        self.file.read_exact(&mut self.packed).with_context(|| format!("reading {}", manifest.file))?;
        self.hash.update(&self.packed);
        self.decode(chunk).with_context(|| {
            let end = chunk.offset + chunk.size - 1;
            format!("chunk {next}, bytes {}-{end} of {}", chunk.offset, manifest.file)
        })?;
        self.used = 0;
        self.progress.advance(chunk.size);
        Ok(())
    }

    fn decode(&mut self, chunk: &Chunk) -> Result<()> {
        let packed = self.packed.as_slice();
        let sha256 = Digest(Sha256::digest(packed).into());
        ensure!(sha256 == chunk.sha256, "its sha256 is {sha256}, the manifest says {}", chunk.sha256);
        self.unpacked.clear();
        // One byte more, so that what is too long shows.
        let most = usize::try_from(chunk.unpacked)? + 1;
        match self.manifest.media {
            Media::TarZstd => {
                let frame = zstd::zstd_safe::find_frame_compressed_size(packed).ok();
                ensure!(frame == Some(packed.len()), "it is not one zstd frame");
                self.unpacked = zstd::bulk::decompress(packed, most).context("decoding zstd")?;
            }
            Media::TarGzip => {
                let mut gzip = flate2::bufread::GzDecoder::new(packed);
                gzip.by_ref().take(most as u64).read_to_end(&mut self.unpacked).context("decoding gzip")?;
                ensure!(gzip.into_inner().is_empty(), "it is not one gzip member");
            }
            Media::Squashfs | Media::Erofs => self.unpacked.extend_from_slice(packed),
        }
        let is = self.unpacked.len() as u64;
        ensure!(is == chunk.unpacked, "it unpacks to {is} bytes, the manifest says {}", chunk.unpacked);
        Ok(())
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Chunks<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used >= self.unpacked.len() {
            self.unpacked.clear();
            if let Err(error) = self.advance() {
                self.damaged = Some(error);
                return Err(io::Error::other("a damaged chunk"));
            }
        }
        Ok(self.unpacked.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

//! Chunks of a canonical archive, compressed on all cores, one after the other into one file. The same bytes
//! come out for the same archive, whatever the machine: which core compresses a chunk makes no difference.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, ensure};
use libdeflater::{CompressionLvl, Compressor};
use rootstream::image::manifest::{self, Chunk, Continued, Digest};
use sha2::{Digest as _, Sha256};

use super::canon::cuts::cuts;
use super::canon::{Cut, END, Entry, Kind, filled_pages};

/// Chunks that a core may be ahead of the file.
const AHEAD: usize = 4;

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// zstd, with this level.
    Zstd(i32),
    /// gzip, with this level of libdeflate: its output, other than zlib-ng's and zlib-rs's, does not depend on
    /// the processor.
    Gzip(CompressionLvl),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) chunks: Vec<Chunk>,
    pub(super) size: u64,
    pub(super) sha256: Digest,
    /// Pages of 4 KiB that the files fill, but for those that are all zeros.
    pub(super) pages: u64,
}

/// An archive to be packed: its entries in order, where it is cut, and the file that the data comes from.
pub(super) struct Archive<'a> {
    entries: &'a [Entry],
    cuts: Vec<Cut>,
    source: &'a File,
}

impl<'a> Archive<'a> {
    /// Cuts the archive of these entries.
    ///
    /// # Errors
    /// An entry has something that no archive can hold.
    pub(super) fn new(entries: &'a [Entry], source: &'a File) -> Result<Self> {
        let sizes: Vec<(u64, u64)> =
            entries.iter().map(|entry| Ok((entry.header()?.len() as u64, entry.size()))).collect::<Result<_>>()?;
        Ok(Self { entries, cuts: cuts(sizes), source })
    }

    /// The number of its chunks.
    pub(super) fn chunks(&self) -> usize {
        self.cuts.len()
    }

    /// Compresses it into `target` on `workers` cores; `progress` hears of every chunk's bytes unpacked.
    ///
    /// # Errors
    /// A disk refuses, or the source is shorter than it was.
    pub(super) fn pack(&self, codec: Codec, workers: usize, target: &File, progress: impl Fn(u64)) -> Result<Packed> {
        thread::scope(|scope| {
            // Chunk N comes from core N modulo the number of cores, so the file needs no more than to ask in turn.
            let workers = workers.clamp(1, self.cuts.len());
            let finished: Vec<Receiver<_>> = (0..workers)
                .map(|worker| {
                    let (send, receive) = sync_channel(AHEAD);
                    scope.spawn(move || self.work(codec, worker, workers, &send));
                    receive
                })
                .collect();
            write(finished.iter().cycle().take(self.cuts.len()), target, progress)
        })
    }

    /// Writes it uncompressed to `target`; returns how many pages of files in it are not empty. `progress` hears of
    /// every piece's bytes.
    ///
    /// # Errors
    /// Whoever reads it refuses, or the source is shorter than it was.
    pub(super) fn write(&self, target: &mut dyn Write, progress: impl Fn(u64)) -> Result<u64> {
        let (mut plain, mut pages) = (Vec::new(), 0);
        for index in 0..self.chunks() {
            plain.clear();
            pages += self.unpacked(index, &mut plain)?;
            target.write_all(&plain)?;
            progress(plain.len() as u64);
        }
        Ok(pages)
    }

    fn work(&self, codec: Codec, first: usize, step: usize, send: &SyncSender<Result<Made>>) {
        let mut plain = Vec::new();
        for index in (first..self.cuts.len()).step_by(step) {
            let made = self.make(index, codec, &mut plain);
            // Nobody listens after an error.
            if made.is_err() | send.send(made).is_err() {
                return;
            }
        }
    }

    fn make(&self, index: usize, codec: Codec, plain: &mut Vec<u8>) -> Result<Made> {
        plain.clear();
        let pages = self.unpacked(index, plain)?;
        let bytes = compress(codec, plain)?;
        let sha256 = Digest(Sha256::digest(&bytes).into());
        Ok(Made { bytes, sha256, unpacked: plain.len() as u64, continues: self.continues(index)?, pages })
    }

    /// Puts the plain bytes of a chunk into `plain`; returns how many pages of files in it are not empty.
    fn unpacked(&self, index: usize, plain: &mut Vec<u8>) -> Result<u64> {
        let here = self.cuts.get(index).context("no such chunk")?;
        let end = Cut { entry: self.entries.len(), offset: 0 };
        let next = self.cuts.get(index + 1).unwrap_or(&end);
        let mut pages = 0;
        for (number, entry) in self.entries.iter().enumerate().take(next.entry + 1).skip(here.entry) {
            let mut from = if number == here.entry { here.offset } else { 0 };
            let to = if number == next.entry { next.offset } else { u64::MAX };
            if from >= to {
                continue;
            }
            let header = entry.header()?;
            let length = header.len() as u64;
            if from == 0 {
                plain.extend_from_slice(&header);
                from = length;
            }
            let size = entry.size();
            let (from, to) = (from - length, to.saturating_sub(length).min(size));
            pages += self.data(entry, from, to, plain)?;
            plain.resize(plain.len().next_multiple_of(super::canon::BLOCK as usize), 0);
        }
        if next == &end {
            plain.resize(plain.len() + END as usize, 0);
        }
        Ok(pages)
    }

    /// Appends the bytes of a file from `from`, a page's beginning, to `to`.
    fn data(&self, entry: &Entry, from: u64, to: u64, plain: &mut Vec<u8>) -> Result<u64> {
        let Kind::File(data) = &entry.node.kind else { return Ok(0) };
        let start = plain.len();
        plain.resize(start + usize::try_from(to - from)?, 0);
        let bytes = plain.get_mut(start..).unwrap_or_default();
        for piece in data.pieces(from, to) {
            let at = usize::try_from(piece.offset - from)?;
            let into = bytes.get_mut(at..at + usize::try_from(piece.length)?).context("a piece outside its file")?;
            self.source
                .read_exact_at(into, piece.at)
                .with_context(|| format!("reading /{} in the archive", entry.path.escape_ascii()))?;
        }
        Ok(filled_pages(bytes))
    }

    fn continues(&self, index: usize) -> Result<Option<Continued>> {
        let cut = self.cuts.get(index).filter(|cut| cut.offset > 0);
        let Some((cut, entry)) = cut.and_then(|cut| Some((cut, self.entries.get(cut.entry)?))) else { return Ok(None) };
        let offset = cut.offset - entry.header()?.len() as u64;
        Ok(Some(Continued { path: manifest::escape(&entry.path), offset, total: entry.size() }))
    }
}

/// A chunk, ready for the file.
struct Made {
    bytes: Vec<u8>,
    sha256: Digest,
    unpacked: u64,
    continues: Option<Continued>,
    pages: u64,
}

fn write<'a>(
    made: impl Iterator<Item = &'a Receiver<Result<Made>>>,
    target: &File,
    progress: impl Fn(u64),
) -> Result<Packed> {
    let mut target = BufWriter::with_capacity(1 << 20, target);
    let mut hash = Sha256::new();
    let mut packed = Packed { chunks: Vec::new(), size: 0, sha256: Digest([0; 32]), pages: 0 };
    for receiver in made {
        let Made { bytes, sha256, unpacked, continues, pages } =
            receiver.recv().context("a thread that compresses died")??;
        target.write_all(&bytes)?;
        hash.update(&bytes);
        let size = bytes.len() as u64;
        ensure!(size <= manifest::MOST_PACKED && unpacked <= manifest::MOST_UNPACKED, "a chunk of {size} bytes");
        packed.chunks.push(Chunk { offset: packed.size, size, unpacked, sha256, continues });
        packed.size += size;
        packed.pages += pages;
        progress(unpacked);
    }
    target.flush()?;
    packed.sha256 = Digest(hash.finalize().into());
    Ok(packed)
}

/// Compresses a chunk, with a compressor of its own each time: what a used one makes depends on what it made
/// before (zstd salts its hash tables at each use).
fn compress(codec: Codec, plain: &[u8]) -> Result<Vec<u8>> {
    match codec {
        // The frame has its content's size and no checksum, and a window no larger than the content.
        Codec::Zstd(level) => zstd::bulk::Compressor::new(level)
            .and_then(|mut zstd| zstd.compress(plain))
            .context("compressing with zstd"),
        Codec::Gzip(level) => {
            let mut gzip = Compressor::new(level);
            let mut bytes = vec![0; gzip.gzip_compress_bound(plain.len())];
            let size = gzip.gzip_compress(plain, &mut bytes).context("compressing with libdeflate")?;
            bytes.truncate(size);
            Ok(bytes)
        }
    }
}

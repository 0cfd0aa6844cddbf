//! A published image: its chunks are digested, decoded and written by several threads at once.
//!
//! One thread fetches the file in order, as for any image, each chunk into a buffer of its own. Each worker takes the
//! next of these as it is, or two that are there, compares their digests with the manifest's, and only then decodes them,
//! each at once into a buffer that the worker keeps. Memory is three buffers a worker and one more, whatever the image.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, ensure};

use super::archive::Archive;
use super::cut::{Cuts, Part, Tail};
use super::filesystem::Kind;
use super::manifest::{Chunk, Digest, Manifest, unescape};
use super::path::Name;
use super::pipe::{self, Closer, Reader, Taken, Writer};
use super::tree::{Rules, Tree};
use super::unpack::Unpacked;
use super::whole::Decoder;
use super::{Unpack, store};
use crate::failure::Advise as _;

/// Brings one chunk's bytes again when they were damaged on the way.
pub(super) trait Repair: Sync {
    /// Fetches the chunk with this index alone into `packed`, which is as long as the chunk, until its digest is
    /// right.
    ///
    /// # Errors
    /// It cannot be had.
    fn repair(&self, index: usize, chunk: &Chunk, packed: &mut [u8]) -> anyhow::Result<()>;

    /// Ends every wait in [`Repair::repair`]: the image is lost for another reason.
    fn give_up(&self);
}

/// Where the chunks come from, and which one is next there.
struct Source {
    stream: Reader,
    next: usize,
}

struct Work<'a> {
    manifest: &'a Manifest,
    source: Mutex<Source>,
    closer: Closer,
    repair: &'a dyn Repair,
}

/// The way from the fetching thread to these workers: two blocks for each, and one to fill meanwhile.
///
/// # Errors
/// A chunk is larger than this machine can address.
pub(super) fn pipe(manifest: &Manifest, options: Unpack) -> anyhow::Result<(Writer, Reader)> {
    let lengths = manifest.chunks.iter().map(|chunk| usize::try_from(chunk.size)).collect::<Result<_, _>>()?;
    Ok(pipe::pieces(2 * options.workers.max(1) + 1, lengths))
}

/// Unpacks a published archive into the directory `root`.
///
/// # Errors
/// A chunk is damaged and cannot be had otherwise, the archive is not canonical, or the file system refuses.
pub(super) fn unpack(
    manifest: &Manifest,
    stream: Reader,
    repair: &dyn Repair,
    root: &Path,
    options: Unpack,
) -> anyhow::Result<Unpacked> {
    let cuts = Cuts::default();
    let work = Work::new(manifest, stream, repair);
    let pieces = work.share(options.workers, || {
        let mut tree = Tree::open(root, options, Rules::Canon(&cuts))?;
        let mut decoder = Decoder::new(manifest.media)?;
        let most = usize::try_from(manifest.most_unpacked())?;
        let mut unpacked = vec![0; most];
        work.each(options.workers, |index, chunk, packed| {
            let what = || format!("chunk {index} of the image");
            let place = unpacked.get_mut(..usize::try_from(chunk.unpacked)?).context("a chunk beyond the largest")?;
            let todo = "publish the image again";
            decoder.decode(packed, place).advise(what(), todo)?;
            tree.chunk = index;
            add_chunk(&mut tree, &cuts, manifest, index, place).with_context(what)
        })?;
        Ok(tree.into_piece())
    })?;
    cuts.all_complete()?;
    let mut tree = Tree::open(root, options, Rules::Canon(&cuts))?;
    tree.join(pieces)?;
    tree.finish()
}

/// Stores a published file system as a file of its own name in the directory `root`.
///
/// # Errors
/// A chunk is damaged and cannot be had otherwise, or the file system refuses.
pub(super) fn store(
    manifest: &Manifest,
    kind: Kind,
    stream: Reader,
    repair: &dyn Repair,
    root: &Path,
    options: Unpack,
) -> anyhow::Result<Unpacked> {
    let file = store::create(root, kind)?;
    let work = Work::new(manifest, stream, repair);
    work.share(options.workers, || {
        work.each(options.workers, |_, chunk, packed| {
            let todo = "give the node more memory, or make the image smaller";
            file.write_all_at(packed, chunk.offset).advise("storing the image", todo)
        })
    })?;
    store::check(kind, &file)?;
    Ok(Unpacked { bytes: manifest.size, entries: 1, warnings: Vec::new() })
}

/// Makes a chunk's members, and the part of a file that it begins with.
fn add_chunk(tree: &mut Tree<'_>, cuts: &Cuts, manifest: &Manifest, index: usize, bytes: &[u8]) -> anyhow::Result<()> {
    let chunk = manifest.chunks.get(index).context("a chunk that the manifest does not have")?;
    let mut rest = bytes;
    if let Some(continued) = &chunk.continues {
        let left = usize::try_from(continued.total - continued.offset).unwrap_or(usize::MAX);
        let (data, after) = rest.split_at(left.min(rest.len()));
        let name = Name::new(&unescape(&continued.path)?)?;
        let (offset, total) = (continued.offset, continued.total);
        tree.add_part(cuts, &Part { name: &name, offset, total, data }, None)?;
        if left > rest.len() {
            return Ok(());
        }
        let padding = usize::try_from(total.next_multiple_of(512) - total)?;
        rest = after.get(padding..).context("the chunk ends in a file's padding")?;
        ensure!(after.iter().take(padding).all(|byte| *byte == 0), "a file's padding is not zeros");
    }
    let next = manifest.chunks.get(index + 1);
    let tail = next.and_then(|next| next.continues.as_ref()).map(Tail::of).transpose()?;
    let mut archive = Archive::new(rest);
    let mut broken_off = false;
    while let Some(member) = archive.next()? {
        ensure!(!broken_off, "a member follows a file that goes on in the next chunk");
        broken_off = tree.add(member, &mut archive, tail.as_ref())?;
    }
    ensure!(broken_off == tail.is_some(), "the manifest and the archive disagree about where a file is cut");
    let ended = if next.is_some() { !archive.zeros } else { !archive.unmarked };
    ensure!(ended, "the archive's end mark is not at the image's end");
    ensure!(!archive.has_global(), "the archive has a global header, which holds beyond its chunk");
    ensure!(archive.unknown == 0, "the archive has a member of unknown type");
    Ok(())
}

impl<'a> Work<'a> {
    fn new(manifest: &'a Manifest, stream: Reader, repair: &'a dyn Repair) -> Self {
        let closer = stream.closer();
        Self { manifest, source: Mutex::new(Source { stream, next: 0 }), closer, repair }
    }

    /// Runs `worker` in several threads and collects what they made; of several errors, the one that is a reason.
    fn share<T: Send>(&self, workers: usize, worker: impl Fn() -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
        let workers = workers.clamp(1, self.manifest.chunks.len().max(1));
        let run = || {
            let made = worker();
            if made.is_err() {
                // The others stop at their next chunk, and so does the fetching thread. The lock may be held by one
                // that waits for the network.
                self.closer.close();
                self.repair.give_up();
            }
            made
        };
        let results: Vec<anyhow::Result<T>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
            let panicked = |_| Err(anyhow::anyhow!("a thread that unpacks panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        let (made, mut errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        errors.sort_by_key(|error| error.as_ref().err().is_some_and(pipe::is_consequence));
        match errors.into_iter().next() {
            Some(Err(error)) => Err(error),
            _ => made.into_iter().collect(),
        }
    }

    /// Calls `take` with chunk after chunk whose digest is right, until there are none left for this worker.
    fn each(
        &self,
        workers: usize,
        mut take: impl FnMut(usize, &Chunk, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let mut pieces = self.next(workers)?;
            let digests = match pieces.as_mut_slice() {
                [] => return Ok(()),
                [first, second] => sha256x2::of_two([first.taken.bytes(), second.taken.bytes()]).to_vec(),
                pieces => pieces.iter_mut().map(|piece| sha256x2::of(piece.taken.bytes())).collect(),
            };
            for (Piece { index, chunk, mut taken }, digest) in pieces.into_iter().zip(digests) {
                let packed = taken.bytes();
                ensure!(packed.len() as u64 == chunk.size, "the image ends in chunk {index}");
                if Digest(digest) != chunk.sha256 {
                    self.repair.repair(index, chunk, packed)?;
                }
                take(index, chunk, packed)?;
            }
        }
    }

    /// The next chunk's bytes as they came, and those of the one behind it if they are there already; none at the end.
    /// Near the end each worker takes one, so that none is left with two when the others are done.
    fn next(&self, workers: usize) -> anyhow::Result<Vec<Piece<'a>>> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let chunks = &self.manifest.chunks;
        let mut pieces = Vec::with_capacity(2);
        while let Some(chunk) = chunks.get(source.next) {
            let index = source.next;
            let taken = if pieces.is_empty() {
                source.stream.piece()?.with_context(|| format!("the image ends before chunk {index}"))?
            } else if pieces.len() == 2 || index + 2 * workers > chunks.len() {
                break;
            } else if let Some(taken) = source.stream.piece_at_hand() {
                taken
            } else {
                break;
            };
            source.next += 1;
            pieces.push(Piece { index, chunk, taken });
        }
        if source.next == chunks.len() && !pieces.is_empty() {
            // The fetching thread ends only when all that it sent has been taken, or nobody takes any more.
            ensure!(source.stream.piece()?.is_none(), "the image is longer than its manifest says");
        }
        Ok(pieces)
    }
}

/// A chunk as it came.
struct Piece<'a> {
    index: usize,
    chunk: &'a Chunk,
    taken: Taken,
}

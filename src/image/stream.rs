//! One pass: fetching, decoding and unpacking, each in a thread of its own, joined by pipes of a
//! few blocks. What crosses them is bytes; what went wrong comes back when the threads end.

use std::error::Error;
use std::io::{self, BufRead as _};
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use nix::sys::statvfs::statvfs;

use super::decode::{self, Format};
use super::fetch::{Proof, Target};
use super::mirrors::{Mirrors, Stop};
use super::pipe::{self, Reader, Writer};
use super::progress::{Progress, megabytes};
use super::unpack;
use super::{Facts, Sources, Trust, Unpack};
use crate::failure::refuse;

/// Blocks in each of the two pipes.
const BLOCKS: usize = 6;

/// How a pass ended, if not in an error.
pub(super) enum Pass {
    /// Complete and verified.
    Complete(Facts),
    /// The image is no longer what it was when the pass began.
    Restart(&'static str),
    /// What was served is no sound image, or not the one that was asked for.
    Damaged(anyhow::Error),
}

/// Streams the image into `root` once.
///
/// # Errors
/// See [`super::install`].
pub(super) fn pass(sources: Sources<'_>, options: Unpack, root: &Path, mirrors: &Mirrors<'_>) -> anyhow::Result<Pass> {
    let settings = sources.settings;
    let (to_decoder, from_server) = pipe::pipe(BLOCKS);
    let (to_unpacker, from_decoder) = pipe::pipe(BLOCKS);
    let progress = Progress::default();
    let room = free_bytes(root).with_context(|| format!("asking how much room {} has", root.display()))?;
    let (fetched, decoded, unpacked) = thread::scope(|scope| {
        scope.spawn(|| progress.show());
        let target = Target { progress: &progress, out: to_decoder, room };
        let fetching = scope.spawn(|| mirrors.stream(&settings.urls, Proof::Stream, target));
        let decoding = scope.spawn(|| decode(from_server, to_unpacker));
        let unpacked = unpack::unpack(from_decoder, root, options);
        let decoded = decoding.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the decoder panicked")));
        let fetched =
            fetching.join().unwrap_or_else(|_| Err(Stop::Failed(anyhow::anyhow!("the fetching thread panicked"))));
        progress.end();
        (fetched, decoded, unpacked)
    });
    let urls = settings.urls.join(" ");
    let installing = || format!("installing the image {urls}");
    let fetched = match fetched {
        Ok(fetched) => Some(fetched),
        Err(Stop::Restart(why)) => return Ok(Pass::Restart(why)),
        Err(Stop::Failed(error)) => return Err(error).with_context(installing),
        Err(Stop::Gone) => None,
    };
    // Of several errors, the one that does not merely say that a neighbour stopped is the reason.
    let (format, unpacked) = match (decoded, unpacked) {
        (Err(error), _) if !pipe::is_consequence(&error) => return damaged(error.context(installing())),
        (_, Err(error)) | (Err(error), _) => return damaged(error.context(installing())),
        (Ok(format), Ok(unpacked)) => (format, unpacked),
    };
    let fetched = fetched.context("the transfer ended without a reason").with_context(installing)?;
    let digest = fetched.sha256.context("the stream was not digested").with_context(installing)?;
    let sha256 = hex(&digest);
    let trust = match settings.sha256 {
        None => Trust::None,
        Some(wanted) if wanted == digest => Trust::Digest,
        Some(wanted) => {
            let what = format!("the image's sha256 is {sha256}, not {}", hex(&wanted));
            let todo = "correct rootstream.sha256=, or publish the image that it belongs to";
            return damaged(refuse(what, todo).context(installing()));
        }
    };
    for warning in &unpacked.warnings {
        log::warn!("image: {warning}");
    }
    let (bytes, written) = (megabytes(fetched.bytes), megabytes(unpacked.bytes));
    log::info!("image: {bytes} MB fetched, {written} MB in {} entries unpacked, sha256 {sha256}", unpacked.entries);
    Ok(Pass::Complete(Facts {
        url: fetched.url,
        media: format.media(),
        bytes: fetched.bytes,
        unpacked: unpacked.bytes,
        entries: unpacked.entries,
        sha256,
        build: None,
        trust,
        retries: mirrors.tally().retries,
        warnings: unpacked.warnings,
    }))
}

/// Another mirror may have a sound copy, unless it is this machine that failed.
fn damaged(error: anyhow::Error) -> anyhow::Result<Pass> {
    let os = |link: &io::Error| link.raw_os_error().is_some();
    let local =
        |link: &(dyn Error + 'static)| link.is::<nix::Error>() || link.downcast_ref::<io::Error>().is_some_and(os);
    if error.chain().any(local) { Err(error) } else { Ok(Pass::Damaged(error)) }
}

fn decode(mut input: Reader, output: Writer) -> anyhow::Result<Format> {
    // The fetching thread fills its blocks, so the first one holds all that the magic needs.
    let format = decode::sniff(input.fill_buf()?)?;
    decode::decode(format, input, output)?;
    Ok(format)
}

/// What an unprivileged user can still write there. A file system without a size, such as ramfs, has room
/// for anything.
fn free_bytes(root: &Path) -> nix::Result<u64> {
    let free = statvfs(root)?;
    if free.blocks() == 0 {
        return Ok(u64::MAX);
    }
    Ok(free.blocks_available().saturating_mul(free.fragment_size()))
}

/// Bytes as lower-case hex, as sha256sum(1) prints them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

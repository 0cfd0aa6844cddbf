//! One pass: fetching, decoding and unpacking, each in a thread of its own, joined by pipes of a
//! few blocks. What crosses them is bytes; what went wrong comes back when the threads end.

use std::io::BufRead as _;
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use nix::sys::statvfs::statvfs;

use super::decode::{self, Format};
use super::fetch::{Proof, Target};
use super::mirrors::{Mirrors, Stop};
use super::pipe::{self, Reader, Writer};
use super::progress::{Progress, megabytes};
use super::signature::{self, Asked, WAIVED};
use super::tree::Rules;
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
}

/// What a plain archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The image, for an empty tree.
    Image,
    /// Goes on top of one.
    Overlay,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Overlay => "overlay",
        }
    }

    fn rules(self) -> Rules<'static> {
        match self {
            Self::Image => Rules::Plain,
            Self::Overlay => Rules::Over,
        }
    }
}

/// Streams a plain archive into `root` once. Its signature, where one is asked for, comes before its first byte, and the
/// verdict before the pass is complete.
///
/// # Errors
/// See [`super::Plan::install`].
pub(super) fn pass(
    sources: Sources<'_>,
    layer: Layer,
    options: Unpack,
    root: &Path,
    mirrors: &Mirrors<'_>,
) -> anyhow::Result<Pass> {
    let Sources { settings, anchors, .. } = sources;
    let name = layer.name();
    let urls = settings.urls.join(" ");
    let installing = || format!("installing the {name} {urls}");
    let asked = Asked::of(sources);
    let signature = match asked {
        Asked::Signature => Some(signature::find(sources, mirrors).with_context(installing)?),
        Asked::Waived | Asked::Nothing => None,
    };
    let verifier = signature.as_ref().map(|signature| anchors.keys.begin(signature)).transpose()?;
    let (to_decoder, from_server) = pipe::pipe(BLOCKS);
    let (to_unpacker, from_decoder) = pipe::pipe(BLOCKS);
    let progress = Progress::default();
    let room = free_bytes(root).with_context(|| format!("asking how much room {} has", root.display()))?;
    let (fetched, decoded, unpacked) = thread::scope(|scope| {
        scope.spawn(|| progress.show());
        let target = Target { progress: &progress, out: to_decoder, room, verifier };
        let fetching = scope.spawn(|| mirrors.stream(&settings.urls, Proof::Stream, target));
        let decoding = scope.spawn(|| decode(from_server, to_unpacker));
        let unpacked = unpack::unpack(from_decoder, root, options, layer.rules());
        let decoded = decoding.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the decoder panicked")));
        let fetched =
            fetching.join().unwrap_or_else(|_| Err(Stop::Failed(anyhow::anyhow!("the fetching thread panicked"))));
        progress.end();
        (fetched, decoded, unpacked)
    });
    let fetched = match fetched {
        Ok(fetched) => Some(fetched),
        Err(Stop::Restart(why)) => return Ok(Pass::Restart(why)),
        Err(Stop::Failed(error)) => return Err(error).with_context(installing),
        Err(Stop::Gone) => None,
    };
    // Of several errors, the one that does not merely say that a neighbour stopped is the reason.
    let (format, mut unpacked) = match (decoded, unpacked) {
        (Err(error), _) if !pipe::is_consequence(&error) => return Err(error).with_context(installing),
        (_, Err(error)) | (Err(error), _) => return Err(error).with_context(installing),
        (Ok(format), Ok(unpacked)) => (format, unpacked),
    };
    let fetched = fetched.context("the transfer ended without a reason").with_context(installing)?;
    let digest = fetched.sha256.context("the stream was not digested").with_context(installing)?;
    let sha256 = hex(&digest);
    let trust = match settings.sha256 {
        // Whether the signature is of these bytes was the last that the fetching thread found out.
        Some(wanted) if wanted != digest => {
            let what = format!("the image's sha256 is {sha256}, not {}", hex(&wanted));
            let todo = "correct rootstream.sha256=, or publish the image that it belongs to";
            return Err(refuse(what, todo)).with_context(installing);
        }
        _ if signature.is_some() => Trust::Signed,
        Some(_) => Trust::Digest,
        None => Trust::None,
    };
    if asked == Asked::Waived {
        unpacked.warnings.push(WAIVED.to_owned());
    }
    for warning in &unpacked.warnings {
        log::warn!("{name}: {warning}");
    }
    let (bytes, written) = (megabytes(fetched.bytes), megabytes(unpacked.bytes));
    log::info!("{name}: {bytes} MB fetched, {written} MB in {} entries unpacked, sha256 {sha256}", unpacked.entries);
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

//! One pass over a plain image: fetching, decoding and unpacking, each in a thread of its own, joined by pipes of a
//! few blocks. What crosses them is bytes; what went wrong comes back when the threads end. A file system is not
//! decoded but stored.

use std::io::BufRead as _;
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use nix::sys::statvfs::statvfs;

use super::decode;
use super::fetch::Target;
use super::filesystem::Kind;
use super::mirrors::{Mirrors, Stop};
use super::pipe::{self, Reader};
use super::progress::{Progress, megabytes};
use super::signature::{self, Asked, WAIVED};
use super::transfer::Proof;
use super::tree::Rules;
use super::unpack::{self, Unpacked};
use super::{Facts, Sources, Trust, Unpack, mount, store};
use crate::failure::{is_here, refuse, refuse_here};
use crate::say;
use crate::{mounts, sys};

/// Blocks between server and decoder: what a busy machine needs so that the decoder seldom waits.
const PACKED: usize = 12;
/// Blocks between decoder and unpacker, to whom a thousand small files are as much work as one large one.
const UNPACKED: usize = 16;

/// How a pass ended, if not in an error.
pub(super) enum Pass {
    /// Complete and verified; which file system it is, if it is one.
    Complete(Box<Facts>, Option<Kind>),
    /// The image is no longer what it was when the pass began.
    Restart(&'static str),
    /// What was served is no sound image, or not the one that was asked for.
    Damaged(anyhow::Error),
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
    let (to_decoder, from_server) = pipe::pipe(PACKED);
    let progress = Progress::default();
    let room = Room::of(root, options.mount.is_some())
        .with_context(|| format!("asking how much room {} has", root.display()))?;
    let (fetched, received) = thread::scope(|scope| {
        scope.spawn(|| progress.show());
        let target = Target { progress: &progress, out: to_decoder, room: room.file, verifier };
        let fetching = scope.spawn(|| {
            // It has the least to do, and what waits in the socket is not lost: on two cores, the decoder that it would
            // displace is what everything else waits for.
            sys::give_way();
            mirrors.stream(&settings.urls, Proof::Stream, target)
        });
        let received = receive(from_server, layer, options, root, || room.check_archive(progress.known_total()));
        let fetched =
            fetching.join().unwrap_or_else(|_| Err(Stop::Failed(anyhow::anyhow!("the fetching thread panicked"))));
        progress.end();
        (fetched, received)
    });
    let fetched = match fetched {
        Ok(fetched) => Some(fetched),
        Err(Stop::Restart(why)) => return Ok(Pass::Restart(why)),
        Err(Stop::Failed(error)) => return Err(error).with_context(installing),
        Err(Stop::Damaged(error)) => return damaged(error.context(installing())),
        Err(Stop::Gone) => None,
    };
    let Received { media, kind, mut unpacked } = match received {
        Ok(received) => received,
        Err(error) => return damaged(error.context(installing())),
    };
    let fetched = fetched.context("the transfer ended without a reason").with_context(installing)?;
    let digest = fetched.sha256.context("the stream was not digested").with_context(installing)?;
    let sha256 = hex(&digest);
    let trust = match settings.sha256 {
        // Whether the signature is of these bytes was the last that the fetching thread found out.
        Some(wanted) if wanted != digest => {
            let what = format!("the image's sha256 is {sha256}, not {}", hex(&wanted));
            let todo = "correct rootstream.sha256=, or publish the image that it belongs to";
            return damaged(refuse(what, todo).context(installing()));
        }
        _ if signature.is_some() => Trust::Signed,
        Some(_) => Trust::Digest,
        None => Trust::None,
    };
    if asked == Asked::Waived {
        unpacked.warnings.push(WAIVED.to_owned());
    }
    for warning in &unpacked.warnings {
        say::warn!("{name}: {warning}");
    }
    let (bytes, written) = (megabytes(fetched.bytes), megabytes(unpacked.bytes));
    say::info!("{name}: {bytes} MB fetched, {written} MB in {} entries unpacked, sha256 {sha256}", unpacked.entries);
    let facts = Facts {
        url: fetched.url,
        media,
        bytes: fetched.bytes,
        unpacked: unpacked.bytes,
        entries: unpacked.entries,
        sha256,
        build: None,
        trust,
        retries: mirrors.tally().retries,
        warnings: unpacked.warnings,
    };
    Ok(Pass::Complete(Box::new(facts), kind))
}

/// Another mirror may have a sound copy, unless it is this machine that failed.
fn damaged(error: anyhow::Error) -> anyhow::Result<Pass> {
    if is_here(&error) { Err(error) } else { Ok(Pass::Damaged(error)) }
}

/// What came out of the file as served.
struct Received {
    media: &'static str,
    kind: Option<Kind>,
    unpacked: Unpacked,
}

/// Unpacks or stores what comes, whatever its first bytes say that it is; `check_archive` has a say about archives.
fn receive(
    mut input: Reader,
    layer: Layer,
    options: Unpack,
    root: &Path,
    check_archive: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Received> {
    // The fetching thread fills its blocks, so the first one holds all that the magic and a superblock need.
    let head = input.fill_buf()?;
    if layer == Layer::Image
        && let Some(kind) = Kind::sniff(head)
    {
        if options.mount.is_some() {
            mount::prepare(kind, kind.length(head)?, root)?;
        }
        let bytes = store::store(kind, input, root)?;
        let unpacked = Unpacked { bytes, entries: 1, warnings: Vec::new() };
        return Ok(Received { media: kind.name(), kind: Some(kind), unpacked });
    }
    let format = decode::sniff(head)?;
    check_archive()?;
    let (to_unpacker, from_decoder) = pipe::pipe(UNPACKED);
    let (decoded, unpacked) = thread::scope(|scope| {
        let decoding = scope.spawn(|| decode::decode(format, input, to_unpacker));
        let unpacked = unpack::unpack(from_decoder, root, options, layer.rules());
        (decoding.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the decoder panicked"))), unpacked)
    });
    // Of several errors, the one that does not merely say that a neighbour stopped is the reason.
    match (decoded, unpacked) {
        (Err(error), _) if !pipe::is_consequence(&error) => Err(error),
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(()), Ok(unpacked)) => Ok(Received { media: format.media(), kind: None, unpacked }),
    }
}

/// Bytes that an image may have.
struct Room {
    /// As a file. A tmpfs can grow for it to what the memory holds.
    file: u64,
    /// Unpacked.
    tree: u64,
}

impl Room {
    fn of(root: &Path, mount: bool) -> anyhow::Result<Self> {
        let tree = free_bytes(root)?;
        Ok(Self { file: if mount { tree.max(mounts::room_in_memory()?) } else { tree }, tree })
    }

    /// An archive that is larger packed than the room for it unpacked is not worth downloading.
    fn check_archive(&self, total: u64) -> anyhow::Result<()> {
        if total <= self.tree {
            return Ok(());
        }
        let (total, room) = (megabytes(total), megabytes(self.tree));
        let what = format!("it is {total} MB, but only {room} MB are free where it goes");
        let todo = "give the node more memory (or rootstream.tmpfs=size=), or make the image smaller";
        Err(refuse_here(what, todo))
    }
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

//! From the file as served to the archive in it: the format is what the first bytes say, and
//! everything that the format can prove about itself is proved, to the last byte.

use std::io::{self, BufRead, Read};

use anyhow::Context as _;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Error as XzError, Stream, TELL_UNSUPPORTED_CHECK};

use super::filesystem::Kind;
use super::pipe::{Reader, Writer};
use crate::failure::{Advise as _, refuse};

/// The largest zstd window: 128 MiB.
const WINDOW_LOG: u32 = 27;
/// The most memory for decoding xz; the command's strongest preset needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// What a file's first bytes say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Tar,
    Gzip,
    Zstd,
    Xz,
}

impl Format {
    /// Its name in the boot record.
    pub(super) fn media(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Gzip => "tar+gzip",
            Self::Zstd => "tar+zstd",
            Self::Xz => "tar+xz",
        }
    }
}

/// Tells the format from the first bytes of a file.
///
/// # Errors
/// It is none that can be unpacked; the message quotes the bytes.
pub(super) fn sniff(head: &[u8]) -> anyhow::Result<Format> {
    let unsupported = |name: &str| {
        let what = format!("the file is {name}, which cannot be unpacked");
        Err(refuse(what, "publish the image as .tar, .tar.gz, .tar.zst or .tar.xz"))
    };
    // On top of an image, where nothing can be mounted.
    if let Some(kind) = Kind::sniff(head) {
        return unsupported(&format!("a {} file system", kind.name()));
    }
    match head {
        [0x1f, 0x8b, ..] => Ok(Format::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Format::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Format::Xz),
        [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
        [b'0', b'7', b'0', b'7', b'0', ..] => unsupported("cpio"),
        [] => Err(refuse("the file is empty", "publish the image again")),
        _ if is_tar(head) => Ok(Format::Tar),
        _ => {
            let quoted = head.get(..48).unwrap_or(head).escape_ascii();
            let what = format!("the file is not an image; it begins with \"{quoted}\"");
            let todo = "check the URL: servers answer with a page when the file is elsewhere";
            Err(refuse(what, todo))
        }
    }
}

fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.first_chunk::<512>() else { return false };
    super::header::checksum_holds(block) || block.iter().all(|byte| *byte == 0)
}

/// Decodes all of `input` into `output`.
///
/// # Errors
/// The file is damaged, cut short, or followed by anything that does not belong to it.
pub(super) fn decode(format: Format, input: Reader, mut output: Writer) -> anyhow::Result<()> {
    match format {
        Format::Tar => copy(input, &mut output).context("receiving the archive")?,
        Format::Gzip => gunzip(input, &mut output)?,
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW_LOG)?;
            copy(decoder, &mut output).map_err(zstd_error)?;
        }
        Format::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED | TELL_UNSUPPORTED_CHECK)?;
            copy(XzDecoder::new_stream(input, stream), &mut output).map_err(xz_error)?;
        }
    }
    output.finish();
    Ok(())
}

fn copy(mut from: impl Read, output: &mut Writer) -> io::Result<()> {
    loop {
        let count = from.read(output.space().map_err(io::Error::other)?)?;
        if count == 0 {
            return Ok(());
        }
        output.wrote(count);
    }
}

/// Decodes every member; only zeros may follow the last one (tapes and some tools pad).
fn gunzip(input: Reader, output: &mut Writer) -> anyhow::Result<()> {
    let todo = "the file on the server is damaged: publish it again, and compare its sha256 there";
    let mut input = input;
    let mut members = 0u64;
    loop {
        let head = input.fill_buf()?;
        match head.first() {
            Some(0x1f) => {}
            None if members > 0 => return Ok(()),
            _ if members > 0 => return padding(input),
            _ => anyhow::bail!("the gzip data ends before it begins"),
        }
        let mut decoder = GzDecoder::new(input);
        copy(&mut decoder, output).advise("decoding gzip", todo)?;
        input = decoder.into_inner();
        members += 1;
    }
}

fn padding(mut input: impl BufRead) -> anyhow::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(refuse("bytes follow the end of the gzip data", "publish the image again"));
        }
        let count = bytes.len();
        input.consume(count);
    }
}

fn zstd_error(error: io::Error) -> anyhow::Error {
    let window = error.to_string().contains("too much memory");
    let todo = if window {
        "compress the image again with a window of at most 128 MiB (zstd --long=27 or less)"
    } else {
        "the file on the server is damaged or has bytes after its end: publish it again"
    };
    Err::<(), _>(error).advise("decoding zstd", todo).err().unwrap_or_else(|| anyhow::anyhow!("decoding zstd"))
}

fn xz_error(error: io::Error) -> anyhow::Error {
    let kind = error.get_ref().and_then(|inner| inner.downcast_ref::<XzError>());
    let (why, todo) = match kind {
        Some(XzError::MemLimit) => (
            "it needs more than 128 MiB of memory",
            "compress the image again with a dictionary of at most 64 MiB (xz -9 or less)",
        ),
        Some(XzError::Options | XzError::UnsupportedCheck) => {
            ("it uses what this decoder does not know", "compress the image again with xz(1) and its usual options")
        }
        _ => ("it is damaged", "the file on the server is damaged or has bytes after its end: publish it again"),
    };
    Err::<(), _>(error).context(why).advise("decoding xz", todo).err().unwrap_or_else(|| anyhow::anyhow!("decoding xz"))
}

//! Published images in memory: an archive cut into chunks as `docs/ARCHITECTURE.md` describes it, written apart from
//! the program that publishes.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::TcpStream;

use rootstream::image::manifest::{Chunk, Continued, Digest, FORMAT, Manifest, Media, escape};
use rootstream_lab::faulty::{Request, answer, head};
use sha2::{Digest as _, Sha256};

const BLOCK: usize = 512;

/// A manifest and the file that it is about.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Manifest,
    pub(crate) file: Vec<u8>,
}

/// One chunk before it is compressed.
struct Loose {
    bytes: Vec<u8>,
    continues: Option<Continued>,
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn octal(field: &[u8]) -> usize {
    let text: String = field.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_digit).collect();
    usize::from_str_radix(&text, 8).unwrap_or(0)
}

/// Cuts an archive of ustar members, PAX headers before them included, into chunks of about `most` bytes.
fn cut(archive: &[u8], most: usize) -> Vec<Loose> {
    let mut chunks = Vec::new();
    let mut now = Loose { bytes: Vec::new(), continues: None };
    let mut at = 0;
    while archive[at..].len() >= BLOCK && archive[at..at + BLOCK].iter().any(|byte| *byte != 0) {
        let start = at;
        let (size, flag, name) = loop {
            let header = &archive[at..at + BLOCK];
            let (size, flag) = (octal(&header[124..136]), header[156]);
            let name: Vec<u8> = header[..100].iter().copied().take_while(|byte| *byte != 0).collect();
            at += BLOCK;
            // A global header, which no image may have, stays with what follows it too.
            if !matches!(flag, b'x' | b'g') {
                break (size, flag, name);
            }
            at += size.next_multiple_of(BLOCK);
        };
        let size = if flag == b'0' { size } else { 0 };
        let header = &archive[start..at];
        let data = &archive[at..at + size];
        at += size.next_multiple_of(BLOCK);
        if !now.bytes.is_empty() && now.bytes.len() + header.len() + size > most {
            chunks.push(std::mem::replace(&mut now, Loose { bytes: Vec::new(), continues: None }));
        }
        now.bytes.extend_from_slice(header);
        let room = most.saturating_sub(now.bytes.len()).max(BLOCK);
        let first = data.len().min(room);
        now.bytes.extend_from_slice(&data[..first]);
        let mut done = first;
        while done < size {
            let path = escape(name.strip_prefix(b"./").unwrap_or(&name));
            let continues = Some(Continued { path, offset: done as u64, total: size as u64 });
            chunks.push(std::mem::replace(&mut now, Loose { bytes: Vec::new(), continues }));
            let count = (size - done).min(most);
            now.bytes.extend_from_slice(&data[done..done + count]);
            done += count;
        }
        now.bytes.resize(now.bytes.len() + size.next_multiple_of(BLOCK) - size, 0);
    }
    now.bytes.resize(now.bytes.len() + 2 * BLOCK, 0);
    chunks.push(now);
    chunks
}

/// Publishes an archive as build `b` of the image `c`.
pub(crate) fn publish(archive: &[u8], media: Media, most: usize) -> Image {
    let pack = if media == Media::TarGzip { gzip } else { zstd };
    let mut file = Vec::new();
    let mut chunks = Vec::new();
    for Loose { bytes, continues } in cut(archive, most) {
        let packed = pack(&bytes);
        chunks.push(Chunk {
            offset: file.len() as u64,
            size: packed.len() as u64,
            unpacked: bytes.len() as u64,
            sha256: sha256(&packed),
            continues,
        });
        file.extend(packed);
    }
    let manifest = Manifest {
        format: FORMAT,
        name: "c".to_owned(),
        build: "b".to_owned(),
        created: "2026-11-22T18:00:00Z".to_owned(),
        arch: "amd64".to_owned(),
        kernels: vec!["6.1.0-41-amd64".to_owned()],
        media,
        file: format!("b.{}", media.suffix()),
        size: file.len() as u64,
        sha256: sha256(&file),
        unpacked_bytes: archive.len() as u64,
        unpacked_pages: 1,
        inodes: 1,
        largest_file: 1,
        init: None,
        chunks,
    };
    Image { manifest, file }
}

impl Image {
    /// The manifest as it is served.
    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.manifest).unwrap()
    }

    /// The store that it stands in, by path.
    pub(crate) fn store(&self) -> HashMap<String, Vec<u8>> {
        let latest = br#"{"format":2,"name":"c","build":"b","manifest":"b.json"}"#;
        HashMap::from([
            ("/c/b.json".to_owned(), self.json()),
            ("/c/latest.json".to_owned(), latest.to_vec()),
            (format!("/c/{}", self.manifest.file), self.file.clone()),
        ])
    }
}

/// Answers from a store, with ranges, as a good server does.
pub(crate) fn from_store(
    store: &HashMap<String, Vec<u8>>,
    request: &Request,
    stream: &mut TcpStream,
) -> io::Result<()> {
    from_store_at_most(store, request, stream, usize::MAX)
}

/// The same, but breaks off after `most` bytes of a body.
pub(crate) fn from_store_at_most(
    store: &HashMap<String, Vec<u8>>,
    request: &Request,
    stream: &mut TcpStream,
    most: usize,
) -> io::Result<()> {
    let Some(body) = store.get(&request.path) else { return answer(stream, "404 Not Found", &[], b"") };
    let tag = format!("\"{}-{}\"", request.path, body.len());
    let Some((from, to)) = span(request, body.len()) else {
        head(stream, "200 OK", &[("ETag", &tag)], Some(body.len()))?;
        return stream.write_all(&body[..body.len().min(most)]);
    };
    let range = format!("bytes {from}-{}/{}", to - 1, body.len());
    head(stream, "206 Partial Content", &[("Content-Range", &range), ("ETag", &tag)], Some(to - from))?;
    stream.write_all(&body[from..to.min(from.saturating_add(most))])
}

/// `Range: bytes=FROM-[LAST]` as a half-open span.
fn span(request: &Request, length: usize) -> Option<(usize, usize)> {
    let (from, last) = request.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
    let last = last.parse().map_or(length, |last: usize| length.min(last + 1));
    Some((from.parse().ok()?, last))
}

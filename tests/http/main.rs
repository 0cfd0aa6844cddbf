//! The image over HTTP, from servers that fail in every way that RELIABILITY names.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;

mod formats;
mod mirrors;
mod requests;
mod resume;
mod tls;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::Backlog;
use rootstream::failure::Failure;
use rootstream::image::{Settings, Trust, VerifiedRoot};
use rootstream_lab::faulty::{Request, Server, answer, head, reset};
use rootstream_lab::namespace::enter_private_network;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Every log line of this process; tests look for their own URL in it.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keep).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

fn logged(server: &Server, what: &str) -> usize {
    let address = server.url("");
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| line.contains(&address) && line.contains(what)).count()
}

/// Bytes that do not compress, different for each seed.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..length).map(|_| step()).collect()
}

fn archive(seed: u32) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for index in 0..10 {
        let data = noise(seed + index, 60_000);
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{seed}/{index}"), data.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn image(seed: u32) -> Vec<u8> {
    gzip(&archive(seed))
}

fn check(root: &Path, seed: u32) {
    assert_eq!(fs::read_dir(root).unwrap().count(), 1, "files of one image only");
    for index in 0..10 {
        assert!(
            fs::read(root.join(format!("{seed}/{index}"))).unwrap() == noise(seed + index, 60_000),
            "{seed}/{index}"
        );
    }
}

fn install_with(settings: &Settings) -> anyhow::Result<(TempDir, VerifiedRoot)> {
    keep_log();
    let root = tempfile::tempdir()?;
    let verified = common::install(settings, false, root.path())?;
    Ok((root, verified))
}

fn install(server: &Server) -> anyhow::Result<(TempDir, VerifiedRoot)> {
    install_with(&common::settings(&[server.url("/image.tar.gz")]))
}

fn refusal(server: &Server) -> String {
    Failure::from_error(&install(server).expect_err("an image that must be refused")).to_string()
}

fn serve(answer: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Server {
    Server::start(answer).unwrap()
}

const V1: &[(&str, &str)] = &[("ETag", "\"v1\"")];

/// Sends the rest of `body` from where the request asks, but at most `most` bytes of it.
fn part(request: &Request, stream: &mut TcpStream, body: &[u8], etag: &str, most: usize) -> io::Result<()> {
    let from = request.from().unwrap_or(0);
    let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
    let headers = [("ETag", etag), ("Content-Range", range.as_str())];
    let (status, headers) = if from > 0 { ("206 Partial Content", &headers[..]) } else { ("200 OK", &headers[..1]) };
    head(stream, status, headers, Some(body.len() - from))?;
    stream.write_all(&body[from..body.len().min(from.saturating_add(most))])
}

/// Cuts the first answer, then answers as `then` says.
fn after_a_cut(
    seed: u32,
    etag: &'static [(&'static str, &'static str)],
    then: impl Fn(&Request, &mut TcpStream, &[u8]) -> io::Result<()> + Send + Sync + 'static,
) -> Server {
    after_a_cut_of(image(seed), etag, then)
}

fn after_a_cut_of(
    body: Vec<u8>,
    etag: &'static [(&'static str, &'static str)],
    then: impl Fn(&Request, &mut TcpStream, &[u8]) -> io::Result<()> + Send + Sync + 'static,
) -> Server {
    serve(move |request, stream| {
        if request.number > 0 {
            return then(request, stream, &body);
        }
        head(stream, "200 OK", etag, Some(body.len()))?;
        stream.write_all(&body[..250_000])
    })
}

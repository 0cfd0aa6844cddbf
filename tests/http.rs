//! The image over HTTP, from servers that fail in every way that RELIABILITY names.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

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

/// Sends the rest of `body` from where the request asks, but at most `most` bytes of it.
fn part(request: &Request, stream: &mut TcpStream, body: &[u8], etag: &str, most: usize) -> io::Result<()> {
    let from = request.from().unwrap_or(0);
    let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
    let headers = [("ETag", etag), ("Content-Range", range.as_str())];
    let (status, headers) = if from > 0 { ("206 Partial Content", &headers[..]) } else { ("200 OK", &headers[..1]) };
    head(stream, status, headers, Some(body.len() - from))?;
    stream.write_all(&body[from..body.len().min(from.saturating_add(most))])
}

#[test]
fn a_good_server_is_asked_once() {
    let body = image(1);
    let sha256: [u8; 32] = Sha256::digest(&body).into();
    let length = body.len() as u64;
    let server = serve(move |_, stream| answer(stream, "200 OK", &[], &body));
    let mut settings = common::settings(&[server.url("/image.tar.gz").replace("127.0.0.1", "localhost")]);
    settings.sha256 = Some(sha256);
    let (root, verified) = install_with(&settings).unwrap();
    check(root.path(), 1);
    let facts = verified.facts();
    assert_eq!((facts.media, facts.trust, facts.bytes, facts.entries), ("tar+gzip", Trust::Digest, length, 10));
    assert_eq!((facts.unpacked, facts.retries), (600_000, 0));
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].headers.get("accept-encoding").map(String::as_str), Some("identity"));
    assert!(!requests[0].headers.contains_key("range"));
}

// F32
#[test]
fn proxy_variables_are_ignored() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "a_good_server_is_asked_once"]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, "http://127.0.0.1:1");
    }
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

// F24
#[test]
fn a_transfer_cut_again_and_again_is_resumed() {
    let body = image(2);
    let pieces = body.len() / 100_000 + 1;
    let copy = body.clone();
    let server = serve(move |request, stream| part(request, stream, &copy, "\"v1\"", 100_000));
    let mut settings = common::settings(&[server.url("/image.tar.gz")]);
    settings.sha256 = Some(Sha256::digest(&body).into());
    settings.retry = Duration::from_secs(60);
    let (root, verified) = install_with(&settings).unwrap();
    check(root.path(), 2);
    assert_eq!(verified.facts().retries as usize, pieces - 1);
    let requests = server.requests();
    assert_eq!(requests.len(), pieces);
    for (index, request) in requests.iter().enumerate().skip(1) {
        assert_eq!(request.from(), Some(index * 100_000));
        assert_eq!(request.headers["if-range"], "\"v1\"");
    }
    assert_eq!(logged(&server, "next try in"), pieces - 1);
}

#[test]
fn a_slow_transfer_shows_how_far_it_is() {
    // Padded with zeros to a length that no other test has.
    let body = [image(19), vec![0; 400_000]].concat();
    let server = serve(move |_, stream| {
        head(stream, "200 OK", &[], Some(body.len()))?;
        for piece in body.chunks(body.len() / 40) {
            stream.write_all(piece)?;
            thread::sleep(Duration::from_millis(120));
        }
        Ok(())
    });
    check(install(&server).unwrap().0.path(), 19);
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let shown =
        lines.iter().find(|line| line.contains("%, ") && line.contains(" of 1.0 MB")).expect("a line in five seconds");
    assert!(shown.contains(" MB/s") && shown.ends_with(" left"), "{shown}");
}

// F25
#[test]
fn a_reset_is_resumed() {
    let body = image(3);
    let server = serve(move |request, stream| {
        if request.number > 0 {
            return part(request, stream, &body, "\"v1\"", usize::MAX);
        }
        part(request, stream, &body, "\"v1\"", 300_000)?;
        thread::sleep(Duration::from_millis(100));
        reset(stream)
    });
    let (root, verified) = install(&server).unwrap();
    check(root.path(), 3);
    assert_eq!(verified.facts().retries, 1);
    assert_eq!(server.requests()[1].from(), Some(300_000));
}

// F26
#[test]
fn a_stalled_or_trickling_transfer_is_resumed() {
    for trickle in [false, true] {
        let body = image(4);
        let server = serve(move |request, stream| {
            if request.number > 0 {
                return part(request, stream, &body, "\"v1\"", usize::MAX);
            }
            part(request, stream, &body, "\"v1\"", 200_000)?;
            for byte in &body[200_000..200_200] {
                thread::sleep(Duration::from_millis(50));
                if trickle {
                    stream.write_all(&[*byte])?;
                }
            }
            Ok(())
        });
        let mut settings = common::settings(&[server.url("/image.tar.gz")]);
        settings.stall = Duration::from_millis(400);
        settings.retry = Duration::from_secs(20);
        let start = Instant::now();
        let (root, _) = install_with(&settings).unwrap();
        check(root.path(), 4);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        let from = server.requests()[1].from().unwrap();
        assert!((200_000..200_100).contains(&from) && trickle == (from > 200_000), "{trickle} {from}");
    }
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

const V1: &[(&str, &str)] = &[("ETag", "\"v1\"")];

// F27
#[test]
fn a_server_that_ignores_ranges_is_read_again() {
    for etag in [V1, &[], &[("ETag", "W/\"weak\"")], &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]] {
        let server = after_a_cut(5, etag, |_, stream, body| answer(stream, "200 OK", etag, body));
        let (root, verified) = install(&server).unwrap();
        check(root.path(), 5);
        assert_eq!((verified.facts().retries, server.requests().len()), (1, 2), "{etag:?}");
        // Nothing but a strong tag makes a range safe.
        assert_eq!(server.requests()[1].from().is_some(), etag == V1, "{etag:?}");
    }
}

// F27
#[test]
fn an_earlier_part_is_cut_to_size() {
    let server = after_a_cut(6, V1, |_, stream, body| {
        let range = format!("bytes 1000-{}/{}", body.len() - 1, body.len());
        answer(stream, "206 Partial Content", &[("ETag", "\"v1\""), ("Content-Range", &range)], &body[1000..])
    });
    let (root, _) = install(&server).unwrap();
    check(root.path(), 6);
    assert_eq!(server.requests().len(), 2);
}

// F27
#[test]
fn useless_parts_make_it_ask_for_the_whole() {
    let ranges: [(&str, &[(&str, &str)]); 6] = [
        ("later", &[("ETag", "\"v1\""), ("Content-Range", "bytes 300000-600000/LENGTH")]),
        ("no range", V1),
        ("broken", &[("ETag", "\"v1\""), ("Content-Range", "bytes 250000-1/LENGTH")]),
        ("many", &[("ETag", "\"v1\""), ("Content-Type", "multipart/byteranges; boundary=x")]),
        ("no tag", &[("Content-Range", "bytes 250000-600000/LENGTH")]),
        ("416", &[]),
    ];
    for (what, headers) in ranges {
        let server = after_a_cut(7, V1, move |request, stream, body| {
            if request.from().is_none() {
                return answer(stream, "200 OK", V1, body);
            }
            if what == "416" {
                return answer(stream, "416 Range Not Satisfiable", &[], b"");
            }
            let length = body.len().to_string();
            let headers: Vec<(&str, String)> =
                headers.iter().map(|(name, value)| (*name, value.replace("LENGTH", &length))).collect();
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            answer(stream, "206 Partial Content", &headers, &noise(99, 100_000))
        });
        let (root, _) = install(&server).unwrap();
        check(root.path(), 7);
        assert_eq!(server.requests().len(), 3, "{what}");
    }
}

// F27, F28
#[test]
fn a_replaced_image_is_started_again_in_an_empty_tree() {
    // Plain archives, because two of them have the same length.
    assert_eq!(archive(18).len(), archive(50).len());
    let dated: [[&'static [(&str, &str)]; 2]; 4] = [
        [V1, &[("ETag", "\"v2\"")]],
        [&[], &[]],
        [V1, &[]],
        [&[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")], &[("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT")]],
    ];
    for [first, then] in dated {
        let server =
            after_a_cut_of(archive(18), first, move |_, stream, _| answer(stream, "200 OK", then, &archive(50)));
        let (root, verified) = install(&server).unwrap();
        check(root.path(), 50);
        assert!(verified.facts().retries >= 2, "{then:?}");
    }
    // A server that lies: the same tag for another length.
    let server = after_a_cut(8, V1, |_, stream, _| answer(stream, "200 OK", V1, &archive(50)));
    check(install(&server).unwrap().0.path(), 50);
    // Parts of another image are not taken either.
    let server =
        after_a_cut_of(archive(18), V1, |request, stream, _| part(request, stream, &archive(50), "\"v2\"", usize::MAX));
    check(install(&server).unwrap().0.path(), 50);
}

#[test]
fn the_next_mirror_goes_on_where_the_first_one_broke() {
    let broken = after_a_cut(9, V1, |_, stream, _| answer(stream, "404 Not Found", &[], b""));
    // Another server tags the same bytes differently.
    let other = serve(|request, stream| {
        answer(stream, "200 OK", &[("ETag", "\"other\"")], &image(9)).map(|()| assert!(request.number < 9))
    });
    let urls = [broken.url("/a"), other.url("/b")];
    let (root, verified) = install_with(&common::settings(&urls)).unwrap();
    check(root.path(), 9);
    assert_eq!((verified.facts().retries, verified.facts().url.as_str()), (1, urls[1].as_str()));
    assert_eq!((broken.requests().len(), other.requests().len()), (1, 1));
    assert_eq!(other.requests()[0].headers["if-range"], "\"v1\"");
}

// F18-20
#[test]
fn a_refused_connection_is_tried_again_and_the_mirror_first() {
    let nobody = serve(|_, _| Ok(()));
    let gone = nobody.url("/image.tar.gz");
    drop(nobody);
    thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    let error = install_with(&common::settings(std::slice::from_ref(&gone))).unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(2) && start.elapsed() < Duration::from_secs(6));
    let message = Failure::from_error(&error).to_string();
    assert!(message.contains(&gone) && message.to_lowercase().contains("refused"), "{message}");

    let body = image(10);
    let server = serve(move |_, stream| answer(stream, "200 OK", &[], &body));
    let (root, verified) = install_with(&common::settings(&[gone, server.url("/b")])).unwrap();
    check(root.path(), 10);
    assert_eq!(verified.facts().retries, 1);
}

/// A listener whose queue is full: the kernel drops further SYNs. The connections keep it so.
fn swallower() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    nix::sys::socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 10, "a queue of one that never fills");
    }
    (listener, held)
}

// F18-20
#[test]
fn a_swallowed_syn_and_an_unreachable_host_lead_to_the_next_mirror() {
    // Without routes, so that 192.0.2.1 is unreachable on any machine.
    enter_private_network().unwrap();
    let (listener, _held) = swallower();
    let body = image(20);
    let server = serve(move |_, stream| answer(stream, "200 OK", &[], &body));
    let urls = [
        format!("http://{}/swallowed", listener.local_addr().unwrap()),
        "http://192.0.2.1/unreachable".to_owned(),
        server.url("/good"),
    ];
    let mut settings = common::settings(&urls);
    settings.stall = Duration::from_millis(500);
    let start = Instant::now();
    let (root, verified) = install_with(&settings).unwrap();
    check(root.path(), 20);
    assert!(start.elapsed() >= settings.stall && start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(verified.facts().retries, 2);
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    for (url, why) in [(&urls[0], "no answer in time"), (&urls[1], "unreachable")] {
        let line = lines.iter().find(|line| line.contains(url.as_str())).expect("a line per try");
        assert!(line.to_lowercase().contains(why) && line.ends_with("trying the next mirror"), "{line}");
    }
}

// F21
#[test]
fn a_missing_image_is_named_with_its_status() {
    for status in ["404 Not Found", "403 Forbidden"] {
        let server = serve(move |_, stream| answer(stream, status, &[], b"<html>no</html>"));
        let message = refusal(&server);
        assert!(message.contains(status) && message.contains(&server.url("/image.tar.gz")), "{message}");
        let tries = server.requests().len();
        assert!((2..5).contains(&tries), "slowly, but more than once: {tries}");
    }
}

// F22
#[test]
fn a_busy_server_is_waited_for() {
    for (status, after) in
        [("503 Service Unavailable", "1"), ("429 Too Many Requests", "Sun, 06 Nov 1994 08:49:38 GMT")]
    {
        let body = image(11);
        let server = serve(move |request, stream| {
            if request.number > 0 {
                return answer(stream, "200 OK", &[], &body);
            }
            let headers = [("Retry-After", after), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")];
            answer(stream, status, &headers, b"")
        });
        let start = Instant::now();
        let (root, _) = install(&server).unwrap();
        check(root.path(), 11);
        assert!(start.elapsed() >= Duration::from_secs(1));
        assert_eq!(logged(&server, "queued, 1 s"), 1);
    }
    let server = serve(|_, stream| answer(stream, "503 Service Unavailable", &[("Retry-After", "1000000")], b""));
    let start = Instant::now();
    assert!(refusal(&server).contains("503"));
    assert!(start.elapsed() < Duration::from_secs(8), "clamped to what rootstream.retry= leaves");
}

// F23
#[test]
fn a_web_page_is_quoted() {
    let server = serve(|_, stream| {
        answer(stream, "200 OK", &[("Content-Type", "application/gzip")], b"<!DOCTYPE html>\n<title>Log in</title>")
    });
    let message = refusal(&server);
    assert!(message.contains("not an image") && message.contains("<!DOCTYPE html>"), "{message}");
    assert_eq!(server.requests().len(), 1, "no second try");
}

// F29
#[test]
fn broken_framing_is_an_error_or_the_right_answer() {
    let body = image(12);
    let chunk = format!("{:x}\r\n", body.len()).into_bytes();
    let chunked = |end: &[u8]| [&chunk, &body[..], b"\r\n", end].concat();
    let long = "x".repeat(1_000_000);
    let cases: Vec<(&str, String, Vec<u8>, bool)> = vec![
        ("chunks", "Transfer-Encoding: chunked\r\n".into(), chunked(b"0\r\n\r\n"), true),
        ("no last chunk", "Transfer-Encoding: chunked\r\n".into(), chunked(b""), false),
        ("bad chunk size", "Transfer-Encoding: chunked\r\n".into(), [b"zz\r\n", &body[..]].concat(), false),
        (
            "huge chunk size",
            "Transfer-Encoding: chunked\r\n".into(),
            [b"ffffffffffffffffffff\r\n", &body[..]].concat(),
            false,
        ),
        (
            "length and chunks",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n".into(),
            chunked(b"0\r\n\r\n"),
            true,
        ),
        ("two lengths", format!("Content-Length: 5\r\nContent-Length: {}\r\n", body.len()), body.clone(), false),
        ("length beyond 2^63", "Content-Length: 9300000000000000000\r\n".into(), body.clone(), false),
        ("length beyond 2^64", "Content-Length: 99999999999999999999999\r\n".into(), body.clone(), false),
        ("negative length", "Content-Length: -1\r\n".into(), body.clone(), false),
        ("no length at all", String::new(), body.clone(), true),
        ("endless header", format!("X: {long}\r\n"), body.clone(), false),
    ];
    for (what, headers, sent, good) in cases {
        let server = serve(move |_, stream| {
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes())?;
            stream.write_all(&sent)
        });
        let mut settings = common::settings(&[server.url("/image.tar.gz")]);
        settings.retry = Duration::from_millis(300);
        match install_with(&settings) {
            Ok((root, _)) if good => check(root.path(), 12),
            Err(_) if !good => {}
            Ok(_) => panic!("{what}: accepted"),
            Err(error) => panic!("{what}: {error:#}"),
        }
    }
    let server = serve(move |_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")?;
        answer(stream, "200 OK", &[], &body)
    });
    check(install(&server).unwrap().0.path(), 12);
}

// F30
#[test]
fn redirects_are_followed_within_reason() {
    let body = image(13);
    let server = serve(move |request, stream| match request.path.as_str() {
        "/image.tar.gz" => answer(stream, "302 Found", &[("Location", "/moved?to=here")], b""),
        _ => answer(stream, "200 OK", &[], &body),
    });
    let (root, verified) = install(&server).unwrap();
    check(root.path(), 13);
    assert_eq!(verified.facts().url, server.url("/moved?to=here"));

    let server = serve(|_, stream| answer(stream, "301 Moved Permanently", &[("Location", "/image.tar.gz")], b""));
    let message = refusal(&server);
    assert!(message.contains("more than 5 redirects"), "{message}");
    assert_eq!(server.requests().len(), 6);

    let server = serve(|_, stream| answer(stream, "302 Found", &[("Location", "ftp://localhost/x")], b""));
    refusal(&server);
    assert_eq!(server.requests().len(), 1);
}

// F31
#[test]
fn an_encoded_answer_is_refused() {
    let server = serve(|_, stream| answer(stream, "200 OK", &[("Content-Encoding", "gzip")], &image(14)));
    let message = refusal(&server);
    assert!(message.contains("Content-Encoding: gzip"), "{message}");
    assert_eq!(server.requests().len(), 1);

    // Another mirror may do better.
    let body = image(14);
    let better = serve(move |_, stream| answer(stream, "200 OK", &[], &body));
    let (root, _) = install_with(&common::settings(&[server.url("/a"), better.url("/b")])).unwrap();
    check(root.path(), 14);
}

// F33
#[test]
fn a_wrong_digest_is_final() {
    let server = serve(|_, stream| answer(stream, "200 OK", &[], &image(15)));
    let mut settings = common::settings(&[server.url("/image.tar.gz")]);
    settings.sha256 = Some([7; 32]);
    let message = Failure::from_error(&install_with(&settings).unwrap_err()).to_string();
    assert!(message.contains("sha256") && message.contains("070707"), "{message}");
    assert_eq!(server.requests().len(), 1);
}

// F47
#[test]
fn an_archive_cut_between_entries_is_not_taken_for_the_whole() {
    let whole = archive(21);
    let length = whole.len();
    // The padded data of five files and their headers.
    let cut = whole[..5 * (512 + 60_416)].to_vec();
    let copy = cut.clone();
    let shorter = serve(move |_, stream| answer(stream, "200 OK", &[], &copy));
    let mut settings = common::settings(&[shorter.url("/image.tar")]);
    settings.sha256 = Some(Sha256::digest(&whole).into());
    let message = Failure::from_error(&install_with(&settings).unwrap_err()).to_string();
    assert!(message.contains("sha256"), "{message}");

    let ends_early = serve(move |_, stream| {
        head(stream, "200 OK", &[], Some(length))?;
        stream.write_all(&cut)
    });
    let mut settings = common::settings(&[ends_early.url("/image.tar")]);
    settings.retry = Duration::from_millis(300);
    let message = Failure::from_error(&install_with(&settings).unwrap_err()).to_string();
    assert!(message.contains("beyond byte 304640"), "{message}");
}

fn outcome(file: Vec<u8>) -> Result<&'static str, String> {
    let server = serve(move |_, stream| answer(stream, "200 OK", &[("Content-Type", "text/plain")], &file));
    let outcome = install(&server);
    assert_eq!(server.requests().len(), 1, "damage is not retried");
    match outcome {
        Ok((root, verified)) => {
            check(root.path(), 16);
            Ok(verified.facts().media)
        }
        Err(error) => Err(Failure::from_error(&error).to_string()),
    }
}

// F35, F38, F39, F42
#[test]
fn gzip_is_proved_to_its_last_byte() {
    let tar = archive(16);
    let good = gzip(&tar);
    let (first, second) = tar.split_at(100_001);
    let padded = |bytes: &[u8]| [&good[..], bytes].concat();
    let flipped = |from_end: usize| {
        let mut bad = good.clone();
        let at = bad.len() - from_end;
        bad[at] ^= 1;
        bad
    };
    assert_eq!(outcome(good.clone()), Ok("tar+gzip"));
    assert_eq!(outcome(tar.clone()), Ok("tar"));
    assert_eq!(outcome([gzip(first), gzip(b""), gzip(second)].concat()), Ok("tar+gzip"));
    assert_eq!(outcome(padded(&[0; 3000])), Ok("tar+gzip"));
    for (what, bad) in [
        ("one byte more", padded(b"x")),
        ("a byte after zeros", padded(&[&[0; 3000][..], b"x"].concat())),
        ("half a header", padded(&[0x1f, 0x8b])),
        ("CRC", flipped(8)),
        ("ISIZE", flipped(1)),
        ("body", flipped(100_000)),
        ("cut in the trailer", good[..good.len() - 3].to_vec()),
        ("cut before the trailer", good[..good.len() - 8].to_vec()),
        ("cut in the body", good[..good.len() / 2].to_vec()),
        ("member cut at an entry boundary", gzip(&tar[..512 + 60_416])[..60_000].to_vec()),
        ("empty", Vec::new()),
    ] {
        let message = outcome(bad).expect_err(what);
        assert!(message.contains("gzip") || message.contains("empty"), "{what}: {message}");
    }
}

// F35, F40
#[test]
fn zstd_is_proved_to_its_last_byte() {
    let tar = archive(16);
    let checked = |bytes: &[u8]| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let good = checked(&tar);
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat();
    let (first, second) = tar.split_at(100_001);
    assert_eq!(outcome(good.clone()), Ok("tar+zstd"));
    assert_eq!(
        outcome([&skippable[..], &checked(first), &skippable, &checked(second), &skippable].concat()),
        Ok("tar+zstd")
    );
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (what, bad) in [
        ("one byte more", [&good[..], b"x"].concat()),
        ("zeros after it", [&good[..], &[0; 512]].concat()),
        ("checksum", flipped),
        ("cut", good[..good.len() - 3].to_vec()),
    ] {
        let message = outcome(bad).expect_err(what);
        assert!(message.contains("zstd"), "{what}: {message}");
    }
    // A frame header that asks for a window of 256 MiB.
    let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(28).unwrap();
    wide.write_all(&tar).unwrap();
    let message = outcome(wide.finish().unwrap()).expect_err("a window above 128 MiB");
    assert!(message.contains("at most 128 MiB"), "{message}");
}

/// What the xz command makes of `bytes`.
fn xz(bytes: &[u8], options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, bytes).unwrap();
    let output = Command::new("xz").arg("--stdout").args(options).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

// F35, F39, F40
#[test]
fn xz_is_proved_to_its_last_byte() {
    let tar = archive(16);
    let good = xz(&tar, &["-1"]);
    let (first, second) = tar.split_at(100_001);
    assert_eq!(outcome(good.clone()), Ok("tar+xz"));
    assert_eq!(outcome([&xz(first, &["-0"])[..], &[0; 12], &xz(second, &["-9"]), &[0; 512]].concat()), Ok("tar+xz"));
    for options in [["--check=sha256", "--block-size=100000"], ["--check=crc32", "--threads=2"]] {
        assert_eq!(outcome(xz(&tar, &options)), Ok("tar+xz"), "{options:?}");
    }
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    for (what, bad) in [
        ("one byte more", [&good[..], b"x"].concat()),
        ("padding that is no multiple of four", [&good[..], &[0; 5]].concat()),
        ("other bytes after padding", [&good[..], &[0; 8], b"rest"].concat()),
        // Stored as it is, because noise does not compress: only the integrity check can tell.
        ("body", flipped(good.len() / 2)),
        ("index", flipped(good.len() - 20)),
        ("cut in the footer", good[..good.len() - 3].to_vec()),
        ("cut in the body", good[..good.len() / 2].to_vec()),
        ("cut in the magic", good[..7].to_vec()),
    ] {
        let message = outcome(bad).expect_err(what);
        assert!(message.contains("decoding xz") && message.contains("publish it again"), "{what}: {message}");
    }
    let message = outcome(xz(&tar, &["--lzma2=preset=0,dict=160MiB"])).expect_err("a large dictionary");
    assert!(message.contains("more than 128 MiB of memory") && message.contains("xz -9 or less"), "{message}");
}

#[test]
fn damaged_compression_never_panics() {
    let mut damage = noise(77, 4 * 80).into_iter().map(usize::from);
    for good in [image(16), zstd::encode_all(archive(16).as_slice(), 1).unwrap(), xz(&archive(16), &["-0"])] {
        for _ in 0..20 {
            let mut bad = good.clone();
            let mut next = || damage.next().unwrap();
            let at = (next() << 16 | next() << 8 | next()) % bad.len();
            bad[at] ^= next() as u8 | 1;
            // zstd without checksums may well decode damaged bytes.
            let server = serve(move |_, stream| answer(stream, "200 OK", &[], &bad));
            if let Err(error) = install(&server) {
                assert!(!format!("{error:#}").contains("panicked"), "{error:#}");
            }
        }
    }
}

// F40
#[test]
fn other_formats_are_named() {
    for (magic, name) in [(&b"BZh9"[..], "bzip2"), (b"070701", "cpio")] {
        let message = outcome([magic, &noise(1, 4000)].concat()).expect_err(name);
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn nothing_listens_after_the_last_byte() {
    // A server that keeps the connection open after the announced length.
    let body = image(17);
    let server = serve(move |_, stream| {
        answer(stream, "200 OK", &[], &body)?;
        let _ = stream.read(&mut [0]);
        thread::sleep(Duration::from_secs(3));
        Ok(())
    });
    let start = Instant::now();
    check(install(&server).unwrap().0.path(), 17);
    assert!(start.elapsed() < Duration::from_secs(3));
}

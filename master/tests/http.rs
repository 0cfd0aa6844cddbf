//! The HTTP server, asked by curl and by hand-written requests.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use common::{TestSite, stderr};
use rootstream_master::config::site::Site;
use rootstream_master::up::http::Server;

/// A served site; the server ends with it.
struct Served {
    site: TestSite,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

fn serve() -> Served {
    serve_at_most(1000)
}

fn serve_at_most(connections: usize) -> Served {
    let site = TestSite::new("lo", "172.16.0.254/24");
    fs::create_dir_all(site.path("store/c")).unwrap();
    fs::create_dir_all(site.path("tftp/c")).unwrap();
    fs::write(site.path("store/c/b.tar.zst"), b"0123456789").unwrap();
    fs::write(site.path("store/c/latest.json"), b"{}").unwrap();
    fs::write(site.path("tftp/c/vmlinuz-6.1"), b"kernel").unwrap();
    start(site, connections)
}

fn start(site: TestSite, connections: usize) -> Served {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(&Site::open(&site.path("")).unwrap(), listener).unwrap();
    runtime.spawn(server.limited_to(connections).run(std::future::pending(), Duration::ZERO));
    Served { site, address, _runtime: runtime }
}

impl Served {
    /// Another server, after this one, for the same files.
    fn restarted(self) -> Self {
        drop(self._runtime);
        start(self.site, 1000)
    }

    /// Status line, headers (lower case) and body, by curl.
    fn curl(&self, words: &[&str], path: &str) -> (u16, String, Vec<u8>) {
        let url = format!("http://{}{path}", self.address);
        let output =
            Command::new("curl").args(["-sS", "-i", "--path-as-is", "-m", "10"]).args(words).arg(url).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let end = output.stdout.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&output.stdout[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, output.stdout[end + 4..].to_vec())
    }

    /// The answer to raw bytes, until the server closes.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is a way to close, too.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn files_come_with_what_caches_and_resuming_need() {
    let served = serve();
    let (status, head, body) = served.curl(&[], "/images/c/b.tar.zst");
    assert_eq!((status, body.as_slice()), (200, b"0123456789".as_slice()));
    assert_eq!(header(&head, "content-length"), Some("10"));
    assert_eq!(header(&head, "accept-ranges"), Some("bytes"));
    assert_eq!(header(&head, "cache-control"), Some("public, max-age=31536000, immutable"));
    assert!(header(&head, "etag").unwrap().starts_with('"'), "a strong one: {head}");
    assert!(header(&head, "last-modified").is_some());
    assert_eq!(header(&head, "content-encoding"), None);
    let (_, head, _) = served.curl(&[], "/images/c/latest.json");
    assert_eq!(header(&head, "cache-control"), Some("max-age=5"));
    assert_eq!(header(&head, "content-type"), Some("application/json"));
    let (status, _, body) = served.curl(&[], "/boot/c/vmlinuz-6.1");
    assert_eq!((status, body.as_slice()), (200, b"kernel".as_slice()));
    let (status, head, body) = served.curl(&["-I"], "/images/c/b.tar.zst");
    assert_eq!((status, header(&head, "content-length"), body.len()), (200, Some("10"), 0));
    let (status, _, _) = served.curl(&["-X", "DELETE"], "/images/c/b.tar.zst");
    assert_eq!(status, 405);
}

// M8-10
#[test]
fn ranges_are_answered_as_rfc_9110_says() {
    let served = serve();
    let (_, head, _) = served.curl(&[], "/images/c/b.tar.zst");
    let etag = header(&head, "etag").unwrap().to_owned();
    let ask = |range: &str, if_range: Option<&str>| {
        let range = format!("Range: {range}");
        let mut words = vec!["-H", &range];
        let if_range = if_range.map(|value| format!("If-Range: {value}"));
        if let Some(if_range) = &if_range {
            words.extend(["-H", if_range]);
        }
        let (status, head, body) = served.curl(&words, "/images/c/b.tar.zst");
        (status, header(&head, "content-range").map(str::to_owned), String::from_utf8(body).unwrap())
    };
    let part = |range: &str, body: &str| (206, Some(format!("bytes {range}/10")), body.to_owned());
    let whole = (200, None, "0123456789".to_owned());
    assert_eq!(ask("bytes=3-", None), part("3-9", "3456789"));
    assert_eq!(ask("bytes=3-4", None), part("3-4", "34"));
    assert_eq!(ask("bytes=-2", None), part("8-9", "89"));
    assert_eq!(ask("bytes=-99", None), part("0-9", "0123456789"));
    assert_eq!(ask("bytes=0-18446744073709551615", None), part("0-9", "0123456789"));
    assert_eq!(ask("bytes=10-", None).0, 416);
    assert_eq!(ask("bytes=10-", None).1.as_deref(), Some("bytes */10"));
    assert_eq!(ask("bytes=-0", None).0, 416);
    assert_eq!(ask("bytes=4-3", None), whole);
    assert_eq!(ask("bytes=0-1,3-4", None), whole);
    assert_eq!(ask("bytes=3-", Some(&etag)), part("3-9", "3456789"));
    assert_eq!(ask("bytes=3-", Some("\"other\"")), whole);
    assert_eq!(ask("bytes=3-", Some(&format!("W/{etag}"))), whole);
    // Another file under the same name is another entity.
    fs::write(served.site.path("store/c/new"), b"abcdefghij").unwrap();
    fs::rename(served.site.path("store/c/new"), served.site.path("store/c/b.tar.zst")).unwrap();
    assert_eq!(ask("bytes=3-", Some(&etag)), (200, None, "abcdefghij".to_owned()));
}

// F24
#[test]
fn a_transfer_goes_on_from_another_mirror_of_the_same_build() {
    let [one, other] = [serve(), serve()];
    let etag = |served: &Served| header(&served.curl(&["-I"], "/images/c/b.tar.zst").1, "etag").unwrap().to_owned();
    assert_ne!(etag(&one), etag(&other), "without a manifest nobody knows that these are the same bytes");
    let sha256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";
    let manifest = format!(r#"{{"format":1,"file":"b.tar.zst","size":10,"sha256":"{sha256}"}}"#);
    for served in [&one, &other] {
        fs::write(served.site.path("store/c/b.json"), &manifest).unwrap();
        assert_eq!(etag(served), format!("\"{sha256}\""));
    }
    let if_range = format!("If-Range: {}", etag(&one));
    let (status, head, body) = other.curl(&["-H", "Range: bytes=3-", "-H", &if_range], "/images/c/b.tar.zst");
    assert_eq!((status, body.as_slice()), (206, b"3456789".as_slice()));
    assert_eq!(header(&head, "content-range"), Some("bytes 3-9/10"));
    // A manifest that is not about this file says nothing about it.
    fs::write(other.site.path("store/c/b.tar.zst"), b"0123456789 and more").unwrap();
    assert_ne!(etag(&other), etag(&one));
    let (status, _, body) = other.curl(&["-H", "Range: bytes=3-", "-H", &if_range], "/images/c/b.tar.zst");
    assert_eq!((status, body.len()), (200, 19));
}

// M8-10
#[test]
fn nothing_outside_is_reachable_and_odd_requests_are_cut_off() {
    let served = serve();
    std::os::unix::fs::symlink("../../site.toml", served.site.path("store/c/out")).unwrap();
    for path in [
        "/site.toml",
        "/images/../site.toml",
        "/images/c/../../site.toml",
        "/images/%2e%2e/site.toml",
        "/images/c/%2e%2e%2f%2e%2e%2fsite.toml",
        "/images/c/out",
        "/images/c/b.tar.zst%00",
        "/images/c/.lock",
        "//images/c/b.tar.zst",
        "/",
    ] {
        let (status, _, body) = served.curl(&[], path);
        assert_eq!((status, String::from_utf8(body).unwrap().contains("network")), (404, false), "{path}");
    }
    for request in [
        "GET /images/c/b.tar.zst HTTP/1.1\r\nHost: m\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
        "GET /images/c/\0 HTTP/1.1\r\nHost: m\r\n\r\n",
        "rubbish\r\n\r\n",
    ] {
        let answer = served.raw(request.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{request:?}: {answer}");
    }
    let long = format!("GET /images/c/b.tar.zst HTTP/1.1\r\nHost: m\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let answer = served.raw(long.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // A head that never ends: closed within the time for heads, not kept for ever.
    assert_eq!(served.raw(b"GET /images/c/b.tar.zst HTTP/1.1\r\nHost: m\r\n"), "");
    // And the server still stands.
    assert_eq!(served.curl(&[], "/images/c/b.tar.zst").0, 200);
}

#[test]
fn every_request_leaves_a_line() {
    let served = serve();
    served.curl(&["-H", "Range: bytes=4-"], "/images/c/b.tar.zst");
    served.curl(&["-I"], "/images/c/b.tar.zst");
    served.curl(&[], "/images/c/missing");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let log = loop {
        let log = served.site.read("log/http.log");
        if log.lines().count() == 3 {
            break log;
        }
        assert!(std::time::Instant::now() < deadline, "{log}");
        std::thread::sleep(Duration::from_millis(10));
    };
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines[0][1..7], ["127.0.0.1", "GET", "/images/c/b.tar.zst", "bytes=4-", "206", "6"]);
    assert_eq!(lines[0][8], "done");
    assert_eq!(lines[1][1..7], ["127.0.0.1", "HEAD", "/images/c/b.tar.zst", "-", "200", "0"]);
    assert_eq!(lines[2][1..6], ["127.0.0.1", "GET", "/images/c/missing", "-", "404"]);
}

// M4-5
#[test]
fn a_deleted_or_shortened_image_harms_nobody_else() {
    let served = serve();
    let length = 30_000_000;
    for name in ["deleted", "shortened"] {
        fs::write(served.site.path(&format!("store/c/{name}")), vec![7; length]).unwrap();
    }
    // Both are under way, and too long to be in flight as a whole.
    let begin = |name: &str| {
        let mut stream = TcpStream::connect(served.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET /images/c/{name} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
        stream
    };
    let (mut deleted, mut shortened) = (begin("deleted"), begin("shortened"));
    fs::remove_file(served.site.path("store/c/deleted")).unwrap();
    fs::OpenOptions::new().write(true).open(served.site.path("store/c/shortened")).unwrap().set_len(1000).unwrap();

    let mut rest = Vec::new();
    deleted.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > length, "who had begun gets all of it: {}", rest.len());
    rest.clear();
    // Closed early, which the announced length shows.
    let _ = shortened.read_to_end(&mut rest);
    assert!(rest.len() < length, "{}", rest.len());
    assert_eq!(served.curl(&[], "/images/c/deleted").0, 404);
    assert_eq!(served.curl(&[], "/images/c/b.tar.zst").0, 200);
}

// M6
#[test]
fn a_server_that_was_restarted_lets_its_clients_go_on() {
    let first = serve();
    let (_, head, _) = first.curl(&[], "/images/c/b.tar.zst");
    let if_range = format!("If-Range: {}", header(&head, "etag").unwrap());
    let again = first.restarted();
    let (status, _, body) = again.curl(&["-H", "Range: bytes=3-", "-H", &if_range], "/images/c/b.tar.zst");
    assert_eq!((status, body.as_slice()), (206, b"3456789".as_slice()));
}

// M1-3
#[test]
fn one_too_many_is_told_when_to_come_back() {
    let served = serve_at_most(2);
    let held: Vec<_> = (0..2).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    let turned_away = served.raw(b"GET /images/c/b.tar.zst HTTP/1.1\r\nHost: m\r\n\r\n");
    assert!(turned_away.starts_with("HTTP/1.1 503 "), "{turned_away}");
    assert!(turned_away.contains("\r\nRetry-After: 5\r\n"), "{turned_away}");
    drop(held);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while served.curl(&[], "/images/c/b.tar.zst").0 != 200 {
        assert!(std::time::Instant::now() < deadline, "the places of those who left stay taken");
    }
}

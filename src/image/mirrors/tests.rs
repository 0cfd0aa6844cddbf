//! Small files, pieces and checked streams from servers that fail.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rootstream_lab::faulty::{Request, Server, answer, head};

use super::super::fetch::{Fetched, Target};
use super::super::halt::Halt;
use super::super::http::Client;
use super::super::pipe;
use super::super::progress::Progress;
use super::super::range::Piece;
use super::super::small::{Found, Need};
use super::super::transfer::Proof;
use super::super::{Anchors, Resolve, Settings, Sources};
use super::{Mirrors, Stop};
use crate::cmdline::Config;
use crate::facts::NodeFacts;
use crate::failure::Failure;

#[derive(Debug)]
struct Nobody;

impl Resolve for Nobody {
    fn resolve(&self, _: &str, _: u16) -> anyhow::Result<Vec<SocketAddr>> {
        anyhow::bail!("nobody knows")
    }
}

/// Lends mirrors of these URLs, in this order of preference, with little patience.
fn with_mirrors<T>(urls: &[String], test: impl FnOnce(&Mirrors<'_>) -> T) -> T {
    with_patience(urls, 4, 2, test)
}

/// The same, with so many seconds of silence and of retrying.
fn with_patience<T>(urls: &[String], stall: u64, retry: u64, test: impl FnOnce(&Mirrors<'_>) -> T) -> T {
    let settings = Settings {
        urls: urls.to_vec(),
        stall: Duration::from_secs(stall),
        retry: Duration::from_secs(retry),
        ..Config::default().image
    };
    let resolver: Arc<dyn Resolve> = Arc::new(Nobody);
    let anchors = Anchors::default();
    let node = NodeFacts::default();
    let sources = Sources { settings: &settings, anchors: &anchors, resolver: &resolver, node: &node };
    test(&Mirrors::beginning(sources, Client::new(sources).unwrap(), 0))
}

fn serve(answer: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Server {
    Server::start(answer).unwrap()
}

fn gone() -> String {
    let url = serve(|_, _| Ok(())).url("/");
    thread::sleep(Duration::from_millis(50));
    url
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// Streams a file of `size` checked bytes.
fn stream(mirrors: &Mirrors<'_>, urls: &[String], size: u64) -> (Result<Fetched, Stop>, Vec<u8>) {
    let (out, mut from) = pipe::pipe(3);
    let progress = Progress::default();
    thread::scope(|scope| {
        let target = Target { progress: &progress, out, room: u64::MAX, verifier: None };
        let fetching = scope.spawn(|| mirrors.stream(urls, Proof::Chunks { size }, target));
        let mut received = Vec::new();
        let _ = from.read_to_end(&mut received);
        (fetching.join().unwrap(), received)
    })
}

fn why(stop: Stop) -> String {
    Failure::from_error(&stop.into_error()).to_string()
}

/// Answers like a good server, without any entity tag.
fn good(request: &Request, stream: &mut TcpStream, body: &[u8], most: usize) -> io::Result<()> {
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((from, last)) = range else {
        head(stream, "200 OK", &[], Some(body.len()))?;
        return stream.write_all(&body[..body.len().min(most)]);
    };
    let from: usize = from.parse().unwrap();
    let last: usize = last.parse().unwrap_or(body.len() - 1);
    let range = format!("bytes {from}-{last}/{}", body.len());
    head(stream, "206 Partial Content", &[("Content-Range", &range)], Some(last + 1 - from))?;
    stream.write_all(&body[from..(last + 1).min(from.saturating_add(most))])
}

// F24
#[test]
fn checked_pieces_are_joined_without_tags_and_across_mirrors() {
    let body = bytes(1_000_000);
    let (copy, third) = (body.clone(), body.clone());
    let first = serve(move |request, stream| good(request, stream, &copy, 300_000));
    // Ignores ranges, says no length and cuts.
    let second = serve(move |request, stream| {
        head(stream, "200 OK", &[], None)?;
        stream.write_all(&third[..if request.number > 0 { third.len() } else { 700_000 }])
    });
    let urls = [first.url("/f"), second.url("/f")];
    with_mirrors(&urls, |mirrors| {
        let (fetched, received) = stream(mirrors, &urls, 1_000_000);
        let fetched = fetched.unwrap();
        assert_eq!((fetched.bytes, fetched.sha256), (1_000_000, None));
        assert!(received == body);
        let givers: Vec<_> = [0, 299_999, 300_000].map(|offset| mirrors.giver(offset)).into();
        assert_eq!(givers, [Some(0), Some(0), Some(1)]);
        assert_eq!(mirrors.tally().bytes, 1_000_000);
    });
    assert!(second.requests()[0].headers["range"] == "bytes=300000-");
    assert!(!second.requests()[0].headers.contains_key("if-range"));
}

// F27
#[test]
fn a_mirror_with_a_file_of_another_length_is_given_up() {
    let body = bytes(400_000);
    let (copy, longer) = (body.clone(), bytes(400_001));
    let other = serve(move |request, stream| good(request, stream, &longer, usize::MAX));
    let right = serve(move |request, stream| good(request, stream, &copy, usize::MAX));
    let urls = [other.url("/f"), right.url("/f")];
    with_mirrors(&urls, |mirrors| {
        let (fetched, received) = stream(mirrors, &urls, 400_000);
        assert_eq!(fetched.unwrap().url, urls[1]);
        assert!(received == body);
    });
    assert_eq!(other.requests().len(), 1);
    with_mirrors(&urls[..1], |mirrors| {
        let message = why(stream(mirrors, &urls[..1], 400_000).0.unwrap_err());
        assert!(message.contains("400001 bytes instead of 400000") && message.contains(&urls[0]), "{message}");
    });
}

#[test]
fn a_file_that_stays_too_short_is_an_error() {
    let server = serve(|_, stream| {
        head(stream, "200 OK", &[], None)?;
        stream.write_all(&bytes(1000))
    });
    let urls = [server.url("/f")];
    with_mirrors(&urls, |mirrors| {
        let message = why(stream(mirrors, &urls, 1001).0.unwrap_err());
        assert!(message.contains("beyond byte 1000"), "{message}");
    });
}

#[test]
fn a_small_file_comes_whole_from_whoever_has_it() {
    let server = serve(|request, stream| match request.path.as_str() {
        "/cut" if request.number == 0 => {
            head(stream, "200 OK", &[], Some(10))?;
            stream.write_all(b"1234")
        }
        "/busy" if request.number == 0 => answer(stream, "503 Service Unavailable", &[("Retry-After", "1")], b""),
        "/endless" => {
            head(stream, "200 OK", &[], None)?;
            stream.write_all(&bytes(100_000))
        }
        "/none" => answer(stream, "404 Not Found", &[], b"<html>"),
        _ => answer(stream, "200 OK", &[], b"1234567890"),
    });
    let ask = |urls: &[String], only, need| with_mirrors(urls, |mirrors| mirrors.small(urls, only, 10, need));
    for path in ["/f", "/cut"] {
        let Found::Here(small) = ask(&[gone(), server.url(path)], None, Need::Must).unwrap() else { panic!("{path}") };
        assert_eq!((small.bytes.as_slice(), small.mirror), (&b"1234567890"[..], 1));
    }
    for need in [Need::Must, Need::May] {
        let urls = [server.url("/none"), server.url("/f")];
        assert!(matches!(ask(&urls, None, need).unwrap(), Found::Here(small) if small.mirror == 1));
    }
    let urls = [server.url("/none"), server.url("/f")];
    assert!(matches!(ask(&urls, Some(0), Need::May).unwrap(), Found::Absent(status) if status == 404));
    let before = server.requests().len();
    let error = Failure::from_error(&ask(&urls, Some(0), Need::Must).unwrap_err()).to_string();
    assert!(error.contains("404") && error.contains("/none"), "{error}");
    assert!((2..5).contains(&(server.requests().len() - before)), "slowly, but more than once");
    for path in ["/endless", "/f2"] {
        let urls = [server.url(path)];
        let error = with_mirrors(&urls, |mirrors| mirrors.small(&urls, None, 9, Need::May)).unwrap_err();
        assert!(format!("{error:#}").contains("longer than 9 bytes"), "{error:#}");
    }
}

// F21
#[test]
fn a_small_file_is_absent_only_where_every_mirror_says_so() {
    let stumbling = serve(|request, stream| match request.number {
        0 => answer(stream, "500 Internal Server Error", &[], b""),
        _ => answer(stream, "200 OK", &[], b"here"),
    });
    let none = serve(|request, stream| match request.path.as_str() {
        "/gone" => answer(stream, "410 Gone", &[], b""),
        "/secret" => answer(stream, "403 Forbidden", &[], b""),
        "/elsewhere" => answer(stream, "302 Found", &[("Location", "ftp://m/")], b""),
        _ => answer(stream, "404 Not Found", &[], b""),
    });
    let ask = |urls: &[String]| with_mirrors(urls, |mirrors| mirrors.small(urls, None, 10, Need::May));
    let found = ask(&[stumbling.url("/f"), none.url("/f")]).unwrap();
    assert!(matches!(&found, Found::Here(small) if small.bytes == b"here"), "{found:?}");
    let error = ask(&[none.url("/secret"), none.url("/f")]).unwrap_err();
    assert!(format!("{error:#}").contains("the server answered 40"), "{error:#}");
    // At once, where all say so, or cannot say anything.
    let start = Instant::now();
    for path in ["/gone", "/elsewhere"] {
        assert!(matches!(ask(&[none.url(path), none.url("/f")]).unwrap(), Found::Absent(_)), "{path}");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn what_was_wrong_with_each_mirror_is_said_in_the_end() {
    let encodes = serve(|_, stream| answer(stream, "200 OK", &[("Content-Encoding", "br")], b""));
    let leads_away = serve(|_, stream| answer(stream, "302 Found", &[("Location", "ftp://m/x")], b""));
    let urls = [encodes.url("/f"), leads_away.url("/f")];
    with_mirrors(&urls, |mirrors| {
        mirrors.small(&urls, None, 10, Need::May).unwrap_err();
        let message = Failure::from_error(&mirrors.small(&urls, None, 10, Need::May).unwrap_err()).to_string();
        assert!(message.contains(&format!("{}: the server sent Content-Encoding: br", urls[0])), "{message}");
        assert!(message.contains(&format!("{}: a redirect to ftp://m/x", urls[1])), "{message}");
    });
    for (others, text) in [(1, ", 1 more mirror tried"), (2, ", 2 more mirrors tried")] {
        let urls: Vec<String> = (0..=others).map(|_| gone()).collect();
        let error = with_patience(&urls, 4, 1, |mirrors| mirrors.small(&urls, None, 10, Need::May)).unwrap_err();
        let message = Failure::from_error(&error).to_string();
        assert!(message.contains(text), "{message}");
    }
}

// F22
#[test]
fn a_small_file_waits_in_the_queue() {
    let server = serve(|request, stream| match request.number {
        0 => answer(stream, "503 Service Unavailable", &[("Retry-After", "1")], b""),
        _ => answer(stream, "200 OK", &[], b"here"),
    });
    let (start, urls) = (Instant::now(), [server.url("/f")]);
    with_mirrors(&urls, |mirrors| mirrors.small(&urls, None, 10, Need::May)).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

// F22
#[test]
fn a_queue_may_take_longer_than_faults_may() {
    let busy = |times| {
        serve(move |request, stream| match request.number {
            number if number < times => answer(stream, "503 Service Unavailable", &[("Retry-After", "1")], b""),
            _ => answer(stream, "200 OK", &[], b"here"),
        })
    };
    // Whoever is gone meanwhile does not end it.
    for gone in [None, Some(gone())] {
        let server = busy(4);
        let urls: Vec<_> = gone.into_iter().chain([server.url("/f")]).collect();
        let start = Instant::now();
        with_mirrors(&urls, |mirrors| mirrors.small(&urls, None, 10, Need::May)).unwrap();
        assert!(start.elapsed() >= Duration::from_secs(4), "longer than rootstream.retry=");
    }
    // But not for ever.
    let endless = busy(usize::MAX);
    let (start, urls) = (Instant::now(), [endless.url("/f")]);
    with_patience(&urls, 4, 1, |mirrors| mirrors.small(&urls, None, 10, Need::May)).unwrap_err();
    assert!((9..13).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

// F33
#[test]
fn a_piece_comes_again_and_rather_from_elsewhere() {
    let body = bytes(500_000);
    let (copy, other) = (body.clone(), body.clone());
    let first = serve(move |request, stream| good(request, stream, &copy, usize::MAX));
    let ignores_ranges = serve(move |_, stream| answer(stream, "200 OK", &[], &other));
    let urls = [first.url("/f"), ignores_ranges.url("/f")];
    let mut piece = vec![0; 1000];
    let ask = |urls: &[String], avoid: &[usize], total, into: &mut [u8]| {
        let piece = Piece { urls, total, offset: 123_456, avoid };
        with_mirrors(urls, |mirrors| mirrors.range(piece, &Halt::default(), into))
    };
    for (avoid, from) in [(&[][..], 0), (&[0], 1), (&[1], 0), (&[0, 1], 0)] {
        piece.fill(0);
        assert_eq!(ask(&urls, avoid, 500_000, &mut piece).unwrap(), from, "{avoid:?}");
        assert!(piece == body[123_456..124_456], "{avoid:?}");
    }
    assert_eq!(first.requests()[0].headers["range"], "bytes=123456-124455");
    let message = why(ask(&urls, &[], 500_001, &mut piece).unwrap_err());
    assert!(message.contains("500000 bytes instead of 500001"), "{message}");
    // Nobody is asked who would not hear the answer.
    let (urls, halt, start) = ([gone()], Halt::default(), Instant::now());
    halt.set();
    let piece = Piece { urls: &urls, total: 9, offset: 1, avoid: &[] };
    let stopped = with_mirrors(&urls, |mirrors| mirrors.range(piece, &halt, &mut [0; 5]));
    assert!(matches!(stopped, Err(Stop::Gone)) && start.elapsed() < Duration::from_secs(1));
}

/// Sends the rest of `body` at this many bytes a second.
fn slowly(request: &Request, stream: &mut TcpStream, body: &[u8], rate: usize) -> io::Result<()> {
    let from = request.from().unwrap_or(0);
    let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    head(stream, status, &[("Content-Range", &range)], Some(body.len() - from))?;
    for piece in body[from..].chunks(rate / 20) {
        stream.write_all(piece)?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A server that sends one byte every tenth of a second, for as long as anybody takes them.
fn trickling() -> Server {
    serve(|_, stream| {
        head(stream, "200 OK", &[], Some(1000))?;
        loop {
            stream.write_all(b"x")?;
            thread::sleep(Duration::from_millis(100));
        }
    })
}

// F26
#[test]
fn a_small_file_or_a_piece_that_trickles_comes_from_elsewhere() {
    let (slow, body) = (trickling(), bytes(1000));
    let copy = body.clone();
    let other = serve(move |request, stream| good(request, stream, &copy, usize::MAX));
    let urls = [slow.url("/f"), other.url("/f")];
    let start = Instant::now();
    with_patience(&urls, 2, 60, |mirrors| {
        let found = mirrors.small(&urls, None, 1000, Need::Must).unwrap();
        assert!(matches!(found, Found::Here(small) if small.bytes == body && small.mirror == 1));
    });
    let mut into = [0; 500];
    let piece = Piece { urls: &urls, total: 1000, offset: 500, avoid: &[] };
    let from = with_patience(&urls, 2, 60, |mirrors| mirrors.range(piece, &Halt::default(), &mut into));
    assert!(from.unwrap() == 1 && into == body[500..]);
    assert!(slow.requests().len() == 2 && start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_piece_that_nobody_wants_any_more_is_not_read_on() {
    let (slow, halt) = (trickling(), Halt::default());
    let (start, urls) = (Instant::now(), [slow.url("/f")]);
    let piece = Piece { urls: &urls, total: 1000, offset: 0, avoid: &[] };
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(500));
            halt.set();
        });
        let stopped = with_mirrors(&urls, |mirrors| mirrors.range(piece, &halt, &mut [0; 1000]));
        assert!(matches!(stopped, Err(Stop::Gone)));
    });
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

// F26
#[test]
fn a_slow_mirror_is_left_once_for_the_fastest() {
    let body = bytes(9_000_000);
    let start = |rate: usize| {
        let body = body.clone();
        serve(move |request, stream| slowly(request, stream, &body, rate))
    };
    let (slow, slower, fast) = (start(200_000), start(100_000), start(50_000_000));
    let urls = [slow.url("/f"), slower.url("/f"), fast.url("/f")];
    let begun = Instant::now();
    with_mirrors(&urls, |mirrors| {
        let (fetched, received) = stream(mirrors, &urls, 9_000_000);
        assert_eq!(fetched.unwrap().url, urls[2]);
        assert!(received == body);
        let tally = mirrors.tally();
        assert_eq!((tally.switches, tally.retries), (2, 0), "{tally:?}");
        let [first, second, third] = tally.mirrors.as_slice() else { panic!("{tally:?}") };
        assert!((150_000..=210_000).contains(&first.rate.unwrap()), "{first:?}");
        assert!((70_000..=110_000).contains(&second.rate.unwrap()), "{second:?}");
        assert_eq!((first.requests, second.requests, third.requests), (1, 1, 1));
        assert!(first.bytes + second.bytes + third.bytes >= 9_000_000 && third.bytes > 7_000_000, "{tally:?}");
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

// F26
#[test]
fn a_mirror_that_is_as_fast_as_the_others_is_kept() {
    let body = bytes(3_000_000);
    let start = || {
        let body = body.clone();
        serve(move |request, stream| slowly(request, stream, &body, 500_000))
    };
    let (first, second) = (start(), start());
    let urls = [first.url("/f"), second.url("/f")];
    with_mirrors(&urls, |mirrors| {
        let (fetched, received) = stream(mirrors, &urls, 3_000_000);
        fetched.unwrap();
        assert!(received == body);
        assert_eq!(mirrors.tally().switches, 0, "six seconds are not worth a change");
    });
}

// F33
#[test]
fn a_mirror_that_gives_damage_is_left_when_there_is_another() {
    let body = bytes(3_000_000);
    let start = || {
        let body = body.clone();
        serve(move |request, stream| good(request, stream, &body, usize::MAX))
    };
    let servers = [start(), start()];
    let urls = [servers[0].url("/f"), servers[1].url("/f")];
    for (damage, last) in [(1, 0), (2, 1)] {
        with_mirrors(&urls, |mirrors| {
            (0..damage).for_each(|_| mirrors.damaged(0));
            let (fetched, received) = stream(mirrors, &urls, 3_000_000);
            assert_eq!(fetched.unwrap().url, urls[last]);
            assert!(received == body);
        });
    }
    with_mirrors(&urls[..1], |mirrors| {
        (0..9).for_each(|_| mirrors.damaged(0));
        stream(mirrors, &urls[..1], 3_000_000).0.unwrap();
    });
}

#[test]
fn failures_are_in_the_record() {
    let nobody = gone();
    let server = serve(|request, stream| match request.number {
        0 => answer(stream, "503 Service Unavailable", &[], b""),
        _ => answer(stream, "200 OK", &[], b"here"),
    });
    let urls = [nobody, server.url("/f")];
    with_mirrors(&urls, |mirrors| {
        mirrors.small(&urls, None, 10, Need::May).unwrap();
        let tally = mirrors.tally();
        let shares: Vec<_> = tally.mirrors.iter().map(|share| (share.failures, share.bytes)).collect();
        assert!(shares[0].0 > 0 && shares[1] == (1, 4), "{tally:?}");
        assert_eq!(tally.retries, shares[0].0 + 1);
        assert!(
            tally.reasons[0].url == urls[0] && tally.reasons[0].why.to_lowercase().contains("refused"),
            "{tally:?}"
        );
        assert!(tally.reasons.iter().any(|reason| reason.why.contains("503") && reason.count == 1), "{tally:?}");
    });
}

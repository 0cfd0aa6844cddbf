//! Several servers with the same image. A node begins at any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Installs until the image did not come from the first server asked: the bad one is the first half of the time.
fn until_retried(settings: &Settings) -> (TempDir, VerifiedRoot) {
    for _ in 0..40 {
        let installed = install_with(settings).unwrap();
        if installed.1.facts().retries > 0 {
            return installed;
        }
    }
    panic!("{:?} always begins at the same mirror", settings.urls);
}

/// A server with the whole of an image.
fn good(seed: u32) -> Server {
    let body = image(seed);
    serve(move |_, stream| answer(stream, "200 OK", &[], &body))
}

#[test]
fn nodes_spread_over_the_mirrors() {
    let servers = [good(51), good(51), good(51)];
    let urls: Vec<String> = servers.iter().map(|server| server.url("/i.tar.gz")).collect();
    for _ in 0..40 {
        let (_, verified) = install_with(&common::settings(&urls)).unwrap();
        assert_eq!(verified.facts().retries, 0);
    }
    let counts = servers.each_ref().map(|server| server.requests().len());
    assert!(counts.iter().sum::<usize>() == 40 && counts.iter().all(|count| *count > 2), "{counts:?}");
}

// F24
#[test]
fn the_next_mirror_goes_on_where_the_first_one_broke() {
    // Whichever is asked first breaks off and is gone then; the other tags the same bytes differently.
    let asked = Arc::new(AtomicUsize::new(0));
    let [one, two] = ["\"one\"", "\"two\""].map(|etag| {
        let asked = Arc::clone(&asked);
        serve(move |request, stream| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => part(request, stream, &image(9), etag, 250_000),
            _ if request.number > 0 => answer(stream, "404 Not Found", &[], b""),
            _ => answer(stream, "200 OK", &[("ETag", etag)], &image(9)),
        })
    });
    let urls = [one.url("/a"), two.url("/b")];
    let (root, verified) = install_with(&common::settings(&urls)).unwrap();
    check(root.path(), 9);
    assert_eq!(verified.facts().retries, 1);
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
    let last = if verified.facts().url == urls[0] { &one } else { &two };
    assert!(!last.requests()[0].headers.contains_key("range"), "a server's own tag says nothing to another");
}

// F18-20
#[test]
fn after_a_refused_connection_the_next_mirror_comes_first() {
    let nobody = serve(|_, _| Ok(()));
    let gone = nobody.url("/image.tar.gz");
    drop(nobody);
    thread::sleep(Duration::from_millis(50));
    let server = good(10);
    let start = Instant::now();
    let (root, verified) = until_retried(&common::settings(&[gone, server.url("/b")]));
    check(root.path(), 10);
    assert_eq!(verified.facts().retries, 1);
    assert!(start.elapsed() < Duration::from_secs(20));
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
    let server = good(20);
    let swallowed = format!("http://{}/swallowed", listener.local_addr().unwrap());
    let unreachable = "http://192.0.2.1/unreachable".to_owned();
    for (url, why) in [(swallowed, "no answer in time"), (unreachable, "unreachable")] {
        let mut settings = common::settings(&[url.clone(), server.url("/good")]);
        settings.stall = Duration::from_millis(500);
        let (root, verified) = until_retried(&settings);
        check(root.path(), 20);
        assert_eq!(verified.facts().retries, 1);
        let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.iter().find(|line| line.contains(url.as_str())).expect("a line per try");
        assert!(line.to_lowercase().contains(why) && line.ends_with("trying the next mirror"), "{line}");
    }
}

// F22
#[test]
fn a_busy_mirror_is_not_waited_for_while_another_is_idle() {
    let busy = serve(|_, stream| answer(stream, "503 Service Unavailable", &[("Retry-After", "60")], b""));
    let start = Instant::now();
    let idle = good(52);
    let (root, verified) = until_retried(&common::settings(&[busy.url("/a"), idle.url("/b")]));
    check(root.path(), 52);
    assert_eq!(verified.facts().retries, 1);
    assert!(start.elapsed() < Duration::from_secs(20));
}

// F31
#[test]
fn a_mirror_that_encodes_is_given_up_for_another() {
    let encoded = serve(|_, stream| answer(stream, "200 OK", &[("Content-Encoding", "gzip")], &image(14)));
    let plain = good(14);
    let (root, _) = until_retried(&common::settings(&[encoded.url("/a"), plain.url("/b")]));
    check(root.path(), 14);
}

// F23, F33, F38
#[test]
fn rubbish_of_one_mirror_is_not_the_end_while_another_is_untried() {
    let mut flipped = image(53);
    flipped[100_000] ^= 1;
    let wanted: [u8; 32] = Sha256::digest(image(53)).into();
    let sound = good(53);
    let page = b"<!DOCTYPE html><title>Log in</title>".to_vec();
    for (body, sha256) in [(page, None), (flipped, None), (image(54), Some(wanted))] {
        let bad = serve(move |_, stream| answer(stream, "200 OK", &[], &body));
        let mut settings = common::settings(&[bad.url("/bad"), sound.url("/good")]);
        settings.sha256 = sha256;
        let (root, verified) = until_retried(&settings);
        check(root.path(), 53);
        assert_eq!(verified.facts().retries, 1);
        // And when there is no other, it is.
        settings.urls.truncate(1);
        let before = bad.requests().len();
        install_with(&settings).unwrap_err();
        assert_eq!(bad.requests().len(), before + 1, "damage is not fetched twice from one server");
    }
}

// F27
#[test]
fn two_servers_with_the_same_tag_may_have_two_images() {
    // Two builds of one length, which each server tags as its first; whichever is asked first breaks off and is gone.
    let asked = Arc::new(AtomicUsize::new(0));
    let archive = |seed: u32| {
        let body = noise(seed, 600_000);
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, "large", body.as_slice()).unwrap();
        builder.into_inner().unwrap()
    };
    let servers = [71, 72].map(|seed| {
        let (asked, image) = (Arc::clone(&asked), archive(seed));
        serve(move |request, stream| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => part(request, stream, &image, "\"1\"", 250_000),
            _ if request.number > 0 => answer(stream, "404 Not Found", &[], b""),
            _ => part(request, stream, &image, "\"1\"", usize::MAX),
        })
    });
    let urls = servers.each_ref().map(|server| server.url("/i.tar"));
    let settings = Settings { retry: Duration::from_secs(20), ..common::settings(&urls) };
    if let Ok((root, verified)) = install_with(&settings) {
        let seed = if verified.facts().url == urls[0] { 71 } else { 72 };
        assert!(fs::read(root.path().join("large")).unwrap() == noise(seed, 600_000), "two images were joined");
    }
    assert!(servers.iter().all(|server| !server.requests().is_empty()));
}

// F27
#[test]
fn a_mirror_with_another_version_does_not_throw_away_what_is_there() {
    // One cuts its answer, the other has another build; the first one is back before its word counts.
    let body = image(55);
    let cut = serve(move |request, stream| {
        let most = if request.number == 0 { 250_000 } else { usize::MAX };
        part(request, stream, &body, "\"v1\"", most)
    });
    let other = good(56);
    let settings = common::settings(&[cut.url("/a"), other.url("/b")]);
    for _ in 0..40 {
        let (root, verified) = install_with(&settings).unwrap();
        if cut.requests().is_empty() {
            check(root.path(), 56);
            continue;
        }
        check(root.path(), 55);
        assert_eq!(verified.facts().url, settings.urls[0]);
        assert_eq!(cut.requests()[1].from(), Some(250_000), "nothing came twice");
        return;
    }
    panic!("always begins at the same mirror");
}

// F26
#[test]
fn a_plain_image_moves_to_a_faster_mirror_with_the_same_tag() {
    // As rootstream up tags: the file's sha256.
    const SAME: &str = "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"";
    let body = noise(57, 5_000_000);
    let header = |size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header
    };
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header(body.len()), "large", body.as_slice()).unwrap();
    let image = builder.into_inner().unwrap();
    // Whichever is asked first is slow.
    let asked = Arc::new(AtomicUsize::new(0));
    let servers = [0, 1].map(|_| {
        let (asked, image) = (Arc::clone(&asked), image.clone());
        serve(move |request, stream| {
            if asked.fetch_add(1, Ordering::SeqCst) > 0 {
                return part(request, stream, &image, SAME, usize::MAX);
            }
            head(stream, "200 OK", &[("ETag", SAME)], Some(image.len()))?;
            for piece in image.chunks(10_000) {
                stream.write_all(piece)?;
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        })
    });
    let start = Instant::now();
    let urls = [servers[0].url("/a.tar"), servers[1].url("/b.tar")];
    let (root, verified) = install_with(&common::settings(&urls)).unwrap();
    assert!(fs::read(root.path().join("large")).unwrap() == body);
    assert_eq!(verified.facts().retries, 0, "nothing failed");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(logged(&servers[0], "MB/s); trying whether "), 1);
    let from: Vec<_> = servers.iter().map(|server| server.requests()[0].from()).collect();
    assert!(from.contains(&None) && from.iter().flatten().all(|from| (300_000..1_500_000).contains(from)), "{from:?}");
}

//! One answer to one request: what is asked, and what is made of each kind of answer.

use super::*;

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
    again.args(["--exact", "requests::a_good_server_is_asked_once"]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, "http://127.0.0.1:1");
    }
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

// F18-20
#[test]
fn a_refused_connection_is_tried_again() {
    let nobody = serve(|_, _| Ok(()));
    let gone = nobody.url("/image.tar.gz");
    drop(nobody);
    thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    let error = install_with(&common::settings(std::slice::from_ref(&gone))).unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(2) && start.elapsed() < Duration::from_secs(6));
    let message = Failure::from_error(&error).to_string();
    assert!(message.contains(&gone) && message.to_lowercase().contains("refused"), "{message}");
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
    let (start, urls) = (Instant::now(), [server.url("/image.tar.gz")]);
    let settings = Settings { retry: Duration::from_millis(300), ..common::settings(&urls) };
    let message = Failure::from_error(&install_with(&settings).unwrap_err()).to_string();
    assert!(message.contains("503") && message.contains("queue"), "{message}");
    let waited = start.elapsed();
    assert!((3..8).contains(&waited.as_secs()), "clamped to ten times rootstream.retry=: {waited:?}");
}

// F22
#[test]
fn waiting_for_a_manifest_is_shown() {
    let server = serve(|request, stream| match request.number {
        0 => answer(stream, "503 Service Unavailable", &[("Retry-After", "5")], b""),
        _ => {
            thread::sleep(Duration::from_secs(5));
            answer(stream, "200 OK", &[], b"{}")
        }
    });
    let url = server.url("/debian/1.json");
    let settings = Settings { stall: Duration::from_secs(9), ..common::settings(std::slice::from_ref(&url)) };
    install_with(&settings).unwrap_err();
    let shown = |waiting: &str| logged(&server, &format!("image: {url}: {waiting}"));
    assert!(shown("the server answered 503 Service Unavailable, queued, ") > 0);
    assert!(shown("no answer yet") > 0);
}

// F29
#[test]
fn broken_framing_is_an_error_or_the_right_answer() {
    let body = image(12);
    let chunk = format!("{:x}\r\n", body.len()).into_bytes();
    let chunked = |end: &[u8]| [&chunk, &body[..], b"\r\n", end].concat();
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

// F30
#[test]
fn what_a_redirect_carries_is_not_read() {
    // A body that ends in the middle of its last chunk, and one that never ends.
    for endless in [false, true] {
        let body = image(15);
        let server = serve(move |request, stream| match request.path.as_str() {
            "/image.tar.gz" => {
                head(stream, "302 Found", &[("Location", "moved"), ("Transfer-Encoding", "chunked")], None)?;
                if endless {
                    loop {
                        stream.write_all(&[b"10000\r\n", &[b'x'; 65_536][..], b"\r\n"].concat())?;
                    }
                }
                stream.write_all(b"0\r\n")
            }
            _ => answer(stream, "200 OK", &[], &body),
        });
        let (root, verified) = install(&server).unwrap();
        check(root.path(), 15);
        assert_eq!((verified.facts().retries, server.requests().len()), (0, 2), "{endless}");
        assert_eq!(verified.facts().url, server.url("/moved"));
    }
    let server = serve(|_, stream| answer(stream, "302 Found", &[], b""));
    let message = refusal(&server);
    assert!(message.contains("302 Found without a usable Location"), "{message}");
}

/// Where the image of `a_head_without_end…` is, in the process that fetches it.
const ENDLESS: &str = "ROOTSTREAM_TEST_ENDLESS";

// F29
#[test]
fn a_head_without_end_is_refused_in_bounded_memory() {
    if let Ok(url) = std::env::var(ENDLESS) {
        let settings = Settings { retry: Duration::from_millis(300), ..common::settings(&[url]) };
        let message = Failure::from_error(&install_with(&settings).unwrap_err()).to_string();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
        return println!("{message}\nat most {most}");
    }
    let server = serve(|request, stream| {
        let (first, again) = match request.path.as_str() {
            "/line" => ("HTTP/1.1 200 OK\r\nX: ", "xxxxxxxx"),
            "/lines" => ("HTTP/1.1 200 OK\r\n", "X: yyy\r\n"),
            "/status" => ("HTTP/1.1 ", "xxxxxxxx"),
            _ => ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        };
        stream.write_all(first.as_bytes())?;
        let many = again.repeat(8192);
        loop {
            stream.write_all(many.as_bytes())?;
        }
    });
    for path in ["/line", "/lines", "/status", "/hints"] {
        // A process of its own, whose memory is nobody else's.
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "requests::a_head_without_end_is_refused_in_bounded_memory", "--nocapture"]);
        let output = again.env(ENDLESS, server.url(path)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(&server.url(path)), "{path}: {text}");
        let most = text.lines().find_map(|line| line.strip_prefix("at most ")?.strip_suffix(" kB")).unwrap();
        assert!(most.parse::<u64>().unwrap() < 48 * 1024, "{path}: {text}");
    }
}

// F31
#[test]
fn an_encoded_answer_is_refused() {
    let server = serve(|_, stream| answer(stream, "200 OK", &[("Content-Encoding", "gzip")], &image(14)));
    let message = refusal(&server);
    assert!(message.contains("Content-Encoding: gzip"), "{message}");
    assert_eq!(server.requests().len(), 1);
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

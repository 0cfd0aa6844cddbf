//! A transfer that breaks, and how it goes on.

use super::*;

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
    assert!(shown.contains(" MB/s, ") && shown.contains(" left"), "{shown}");
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

// F26, F29
#[test]
fn framing_without_end_is_no_progress() {
    // After the last chunk trailers, and instead of a chunk its length.
    let framing: [(&[u8], &[u8]); 2] = [(b"0\r\n", b"X: y\r\n"), (b"", b"0")];
    for (first, again) in framing {
        let body = image(20);
        let server = serve(move |request, stream| {
            if request.number > 0 {
                return answer(stream, "200 OK", V1, &body);
            }
            let headers = [V1, &[("Transfer-Encoding", "chunked")]].concat();
            head(stream, "200 OK", &headers, None)?;
            write!(stream, "{:x}\r\n", body.len())?;
            stream.write_all(&[&body[..], b"\r\n", first].concat())?;
            for _ in 0..400 {
                thread::sleep(Duration::from_millis(50));
                stream.write_all(again)?;
            }
            Ok(())
        });
        let mut settings = common::settings(&[server.url("/image.tar.gz")]);
        settings.stall = Duration::from_millis(400);
        settings.retry = Duration::from_secs(20);
        let start = Instant::now();
        let (root, _) = install_with(&settings).unwrap();
        check(root.path(), 20);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }
}

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

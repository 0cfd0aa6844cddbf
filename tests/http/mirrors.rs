//! Several servers with the same image.

use super::*;

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

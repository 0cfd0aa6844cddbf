//! The same over `https://`: who is believed, and when it is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rootstream::image::tls::Certificates;
use rootstream::image::{Anchors, Tally, Unpack};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// An authority, which signs what a test asks for.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "site");
    let key = KeyPair::generate().unwrap();
    Authority { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) }
}

/// A server's certificate and key.
struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

/// Names, and the first and the last day from today on.
fn params(names: &[&str], first: i64, last: i64) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let day = |days: i64| {
        let distance = DAY * u32::try_from(days.abs()).unwrap();
        let now = SystemTime::now();
        if days < 0 { now - distance } else { now + distance }
    };
    params.not_before = day(first).into();
    params.not_after = day(last).into();
    params
}

impl Authority {
    fn sign(&self, names: &[&str], first: i64, last: i64) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params(names, first, last).signed_by(&key, &self.issuer).unwrap(), key }
    }
}

fn self_signed(names: &[&str], first: i64, last: i64) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity { certificate: params(names, first, last).self_signed(&key).unwrap(), key }
}

/// Speaks TLS before a server that does not: its URL. A connection that the server cuts is cut without a word of TLS.
fn front(server: &Server, identity: &Identity, host: &str) -> String {
    let key = PrivateKeyDer::Pkcs8(identity.key.serialize_der().into());
    // Nothing checks here that the key is that of the certificate.
    let certified = CertifiedKey::new(vec![identity.certificate.der().clone()], any_supported_type(&key).unwrap());
    let resolver = SingleCertAndKey::from(certified);
    let config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    let config = Arc::new(config);
    let bind = if host == "[::1]" { "[::1]:0" } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(bind).unwrap();
    let port = listener.local_addr().unwrap().port();
    let target: SocketAddr = server.url("").strip_prefix("http://").unwrap().parse().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, mut plain) = (Arc::clone(&config), TcpStream::connect(target).unwrap());
            thread::spawn(move || {
                let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream.unwrap());
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    // A client that does not like the certificate hangs up.
                    if tls.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                plain.write_all(&head).unwrap();
                let _ = io::copy(&mut plain, &mut tls);
            });
        }
    });
    format!("https://{host}:{port}")
}

/// Passes on what the server behind `url` says; of its first connection all beyond 150,000 bytes comes byte by byte. Its
/// URL.
fn trickling(url: &str) -> String {
    let port = url.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            let (mut requests, mut asking) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut requests, &mut asking));
            thread::spawn(move || {
                if number == 0 {
                    io::copy(&mut (&mut server).take(150_000), &mut client)?;
                    for byte in io::BufReader::new(&mut server).bytes() {
                        client.write_all(&[byte?])?;
                        thread::sleep(Duration::from_millis(50));
                    }
                }
                io::copy(&mut server, &mut client)
            });
        }
    });
    format!("https://localhost:{}", address.port())
}

/// Believes these certificates in an initramfs made so many days from now.
fn anchors(certificates: &[&Certificate], made: i64) -> Anchors {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("tls")).unwrap();
    for (index, certificate) in certificates.iter().enumerate() {
        fs::write(root.path().join(format!("tls/{index}.pem")), certificate.pem()).unwrap();
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    fs::write(root.path().join("built"), format!("{}\n", now.saturating_add_signed(made * 86_400))).unwrap();
    Anchors::baked(root.path()).unwrap()
}

fn fetch(url: &str, anchors: &Anchors) -> Result<VerifiedRoot, String> {
    keep_log();
    let root = tempfile::tempdir().unwrap();
    let settings = common::settings(&[format!("{url}/image.tar.gz")]);
    let unpack = Unpack { owners: false, workers: 1, mount: None };
    let fetched = common::install_trusting(anchors, &settings, unpack, root.path(), &mut Tally::default());
    fetched.inspect(|_| check(root.path(), 30)).map_err(|error| Failure::from_error(&error).to_string())
}

fn good() -> Server {
    let body = image(30);
    serve(move |_, stream| answer(stream, "200 OK", &[], &body))
}

#[test]
fn a_server_is_known_by_the_site_s_authority() {
    let (site, server) = (authority(), good());
    for (names, host) in [(["localhost"], "localhost"), (["127.0.0.1"], "127.0.0.1"), (["::1"], "[::1]")] {
        let url = front(&server, &site.sign(&names, -1, 1), host);
        let fetched = fetch(&url, &anchors(&[&authority().certificate, &site.certificate], -1)).unwrap();
        assert_eq!(fetched.facts().url, format!("{url}/image.tar.gz"));
    }
    let before = server.requests().len();
    let refused = |identity: &Identity, trusted: &Certificate| {
        let url = front(&server, identity, "localhost");
        let message = fetch(&url, &anchors(&[trusted], -1)).unwrap_err();
        assert!(message.contains(&url), "{message}");
        message
    };
    let message = refused(&site.sign(&["localhost"], -1, 1), &authority().certificate);
    assert!(message.contains("none of those in tls/"), "{message}");
    let message = refused(&site.sign(&["other.example"], -1, 1), &site.certificate);
    assert!(message.contains("localhost") && message.contains("other.example"), "{message}");
    assert_eq!(server.requests().len(), before, "nothing was asked of a server that nobody knows");
}

// F65
#[test]
fn a_clock_that_is_behind_does_not_matter_after_the_initramfs_was_made() {
    // A clock in 1970 and a certificate of today are the same to a certificate as the clock of today and one of next year.
    let (site, server) = (authority(), good());
    let url = front(&server, &site.sign(&["localhost"], 300, 400), "localhost");
    let message = fetch(&url, &anchors(&[&site.certificate], -1)).unwrap_err();
    assert!(message.contains("begins on") && message.contains("clock"), "{message}");
    fetch(&url, &anchors(&[&site.certificate], 350)).unwrap();
    let message = fetch(&url, &anchors(&[&site.certificate], 500)).unwrap_err();
    assert!(message.contains("ended on"), "{message}");
}

// F65
#[test]
fn a_pinned_certificate_is_known_whatever_its_dates_and_names() {
    let server = good();
    for (first, last) in [(-20, -10), (10, 20)] {
        let identity = self_signed(&["elsewhere"], first, last);
        let url = front(&server, &identity, "localhost");
        fetch(&url, &anchors(&[&identity.certificate], 0)).unwrap();
        let message = fetch(&url, &anchors(&[&self_signed(&["elsewhere"], -1, 1).certificate], 0)).unwrap_err();
        assert!(message.contains("none of those in tls/"), "{message}");
    }
    // Whoever holds a pinned server's key is no authority.
    let pinned = self_signed(&["elsewhere"], -1, 1);
    let issuer = Issuer::new(params(&["elsewhere"], -1, 1), pinned.key);
    let key = KeyPair::generate().unwrap();
    let forged = Identity { certificate: params(&["localhost"], -1, 1).signed_by(&key, &issuer).unwrap(), key };
    let message = fetch(&front(&server, &forged, "localhost"), &anchors(&[&pinned.certificate], 0)).unwrap_err();
    assert!(message.contains("none of those in tls/"), "{message}");
    // Nor is a copy of the certificate worth anything without the key.
    let pinned = self_signed(&["localhost"], -1, 1);
    let thief = Identity { certificate: pinned.certificate.clone(), key: KeyPair::generate().unwrap() };
    let message = fetch(&front(&server, &thief, "localhost"), &anchors(&[&thief.certificate], 0)).unwrap_err();
    assert!(message.contains("none of those in tls/"), "{message}");
}

// F24
#[test]
fn a_transfer_cut_under_tls_is_resumed() {
    let (site, body) = (authority(), image(30));
    let length = body.len();
    let server = serve(move |request, stream| {
        let from = request.from().unwrap_or(0);
        let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
        let headers = [("ETag", "\"v1\""), ("Content-Range", range.as_str())];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        head(stream, status, &headers, Some(body.len() - from))?;
        stream.write_all(&body[from..body.len().min(from + 250_000)])
    });
    let url = front(&server, &site.sign(&["localhost"], -1, 1), "localhost");
    let fetched = fetch(&url, &anchors(&[&site.certificate], -1)).unwrap();
    assert_eq!(fetched.facts().retries as usize, length / 250_000);
    assert!(server.requests()[1].from().unwrap() > 200_000, "what came was kept");
}

// F26
#[test]
fn a_record_that_trickles_is_not_waited_for() {
    let (site, body) = (authority(), image(30));
    let server = serve(move |request, stream| {
        match request.number {
            0 => part(request, stream, &body, "\"v1\"", 200_000)?,
            _ => part(request, stream, &body, "\"v1\"", usize::MAX)?,
        }
        thread::sleep(Duration::from_millis(100));
        Ok(())
    });
    let url = trickling(&front(&server, &site.sign(&["localhost"], -1, 1), "localhost"));
    keep_log();
    let root = tempfile::tempdir().unwrap();
    let mut settings = common::settings(&[format!("{url}/image.tar.gz")]);
    settings.stall = Duration::from_millis(400);
    settings.retry = Duration::from_secs(20);
    let unpack = Unpack { owners: false, workers: 1, mount: None };
    let anchors = anchors(&[&site.certificate], -1);
    let start = Instant::now();
    common::install_trusting(&anchors, &settings, unpack, root.path(), &mut Tally::default()).unwrap();
    check(root.path(), 30);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(server.requests()[1].from().unwrap() > 100_000, "what came was kept");
}

#[test]
fn without_a_certificate_nothing_is_asked() {
    let server = good();
    let url = front(&server, &self_signed(&["localhost"], -1, 1), "localhost");
    let message = fetch(&url, &Anchors::default()).unwrap_err();
    assert!(message.contains("holds no certificate") && message.contains("rootstream bootstrap"), "{message}");
    // Nor after a redirect.
    let target = format!("{url}/x");
    let leads = serve(move |_, stream| answer(stream, "302 Found", &[("Location", &target)], b""));
    let message = fetch(&leads.url(""), &Anchors::default()).unwrap_err();
    assert!(message.contains("needs a certificate"), "{message}");
    assert_eq!(server.requests().len(), 0);
}

// F30
#[test]
fn a_redirect_out_of_https_is_refused_at_once() {
    let (site, plain) = (authority(), good());
    let target = plain.url("/image.tar.gz");
    let leads = serve(move |_, stream| answer(stream, "302 Found", &[("Location", &target)], b""));
    let url = front(&leads, &site.sign(&["localhost"], -1, 1), "localhost");
    let message = fetch(&url, &anchors(&[&site.certificate], -1)).unwrap_err();
    assert!(message.contains("the scheme changes"), "{message}");
    assert_eq!((leads.requests().len(), plain.requests().len()), (1, 0));
    // Nor where the chain began outside.
    let begin = serve(move |_, stream| answer(stream, "302 Found", &[("Location", &url)], b""));
    let message = fetch(&begin.url(""), &anchors(&[&site.certificate], -1)).unwrap_err();
    assert!(message.contains("the scheme changes"), "{message}");
    assert_eq!((leads.requests().len(), plain.requests().len()), (2, 0));
}

// F65
#[test]
fn when_the_initramfs_was_made_is_known_or_it_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let built = root.path().join("built");
    Anchors::baked(root.path()).expect("an older initramfs does not say");
    fs::create_dir(&built).unwrap();
    let refused = || Failure::from_error(&Anchors::baked(root.path()).unwrap_err()).to_string();
    let message = refused();
    assert!(message.contains("/built") && message.contains("rootstream bootstrap"), "{message}");
    fs::remove_dir(&built).unwrap();
    fs::write(&built, "today\n").unwrap();
    assert!(refused().contains("holds no time: \"today\""));
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let identity = self_signed(&["x"], -1, 1);
    let both = identity.certificate.pem() + &identity.key.serialize_pem();
    for (text, why) in [("", "no certificate"), ("hello", "no certificate"), (both.as_str(), "private key")] {
        let file = folder.path().join("bad.pem");
        fs::write(&file, text).unwrap();
        let message = Failure::from_error(&Certificates::read(&[file]).unwrap_err()).to_string();
        assert!(message.contains("bad.pem") && message.contains(why), "{message}");
    }
    let missing = Certificates::read(&[PathBuf::from("/nonexistent.pem")]).unwrap_err();
    assert!(format!("{missing:#}").contains("/nonexistent.pem"));
}

//! What is inside the answer: formats, and proof to the last byte.

use super::*;

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

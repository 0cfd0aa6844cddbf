//! What must hold for any input at all: each function here is the target of a fuzzer (`make fuzz`) and of the tests
//! below, and panics where a promise is broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod archives;
mod chunked;
mod decoders;
mod ranges;
mod seeds;
#[cfg(test)]
mod tests;

pub use archives::archive;
pub use chunked::chunks;
pub use decoders::decoders;
pub use ranges::ranges;
pub use seeds::seeds;

use super::manifest::{Latest, Manifest, escape, unescape};
use super::trust::{Keys, SignatureFile};

/// What a fuzzer calls with bytes of its own.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 12] = [
    ("advert", crate::ipv6::fuzzing::advert),
    ("archive", archive),
    ("chunks", chunks),
    ("cmdline", cmdline),
    ("decoders", decoders),
    ("dhcp", crate::dhcp::fuzzing::dhcp),
    ("dhcp6", crate::ipv6::fuzzing::dhcp6),
    ("ip", crate::cmdline::fuzzing::ip),
    ("lldp", crate::lldp::fuzz),
    ("manifest", manifest),
    ("ranges", ranges),
    ("signature", signature),
];

/// A manifest, and the pointer to one: what is read is written as it was read, and does not contradict itself.
pub fn manifest(input: &[u8]) {
    if let Ok(manifest) = Manifest::parse(input) {
        let written = serde_json::to_vec(&manifest).unwrap();
        let again = Manifest::parse(&written).expect("what was read once is read again");
        assert_eq!(again, manifest);
        assert_eq!(serde_json::to_vec(&again).unwrap(), written);
        let end = manifest.chunks.iter().fold(0, |at, chunk| {
            assert_eq!(chunk.offset, at);
            at + chunk.size
        });
        assert_eq!(end, manifest.size);
        assert!(!manifest.file.contains('/') && !manifest.file.starts_with('.'));
        for continued in manifest.chunks.iter().filter_map(|chunk| chunk.continues.as_ref()) {
            assert_eq!(escape(&unescape(&continued.path).unwrap()), continued.path);
        }
    }
    if let Ok(latest) = Latest::parse(input) {
        assert_eq!(Latest::parse(&serde_json::to_vec(&latest).unwrap()).unwrap(), latest);
        assert!(!latest.manifest.contains('/') && !latest.manifest.starts_with('.'));
    }
    assert_eq!(unescape(&escape(input)).unwrap(), input);
}

/// A signature file: only the one that was made of those bytes by that key will do.
pub fn signature(input: &[u8]) {
    let Ok(signature) = SignatureFile::parse(input) else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("site.pub"), seeds::KEY).unwrap();
    let keys = Keys::in_folder(folder.path()).unwrap();
    assert!(keys.verify(b"tesu", &signature).is_err());
    if keys.verify(b"test", &signature).is_ok() {
        // The first line is a comment that nobody signs, and what follows the fourth is not read.
        let signed = |text: &str| text.lines().skip(1).take(3).map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(signed(std::str::from_utf8(input).unwrap()), signed(seeds::SIGNATURE));
    }
}

/// A kernel command line: it is understood, or refused with what is wrong with it.
pub fn cmdline(input: &[u8]) {
    let line = String::from_utf8_lossy(input);
    let parsed = crate::cmdline::parse(&line);
    let mistakes = parsed.mistakes.clone();
    assert!(mistakes.iter().all(|mistake| !mistake.is_empty()));
    match parsed.check() {
        Ok(config) => {
            assert!(!config.image.urls.is_empty());
            assert!(config.image.urls.iter().all(|url| url.starts_with("http") && url.contains("://")));
            assert!(!config.image.stall.is_zero() && !config.image.retry.is_zero());
        }
        Err(error) => assert!(mistakes.iter().all(|mistake| format!("{error:#}").contains(mistake.as_str()))),
    }
}

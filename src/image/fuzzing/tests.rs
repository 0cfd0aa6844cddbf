//! The fuzzers' targets in every run of the tests: their seeds, and the same few thousand mutations of them.

use std::fs;
use std::path::Path;

use super::chunked::{Enclosure, cut, install, publish, snapshot};
use super::seeds::canonical;
use super::{TARGETS, seeds};
use crate::image::Unpack;
use crate::image::manifest::{Manifest, Media};

/// Numbers that look like chance and are the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit.max(1)
    }

    /// One change of the kinds that parsers dislike.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        let length = (1 + self.below(600)).min(bytes.len() - at);
        match self.below(9) {
            _ if bytes.is_empty() => bytes.extend_from_slice(other),
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let copy = bytes[at..at + length].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => bytes[at..at + length].fill([0, 0xff, b'0', b'7', b'/'][self.below(5)]),
            6 => {
                let from = self.below(other.len());
                let count = (other.len() - from).min(length);
                bytes[at..at + count].copy_from_slice(&other[from..from + count]);
            }
            7 => {
                for byte in &mut bytes[at..at + length.min(8)] {
                    *byte = b"0123456789 ={},:\"\n"[self.below(18)];
                }
            }
            // Whole blocks of an archive.
            _ => {
                let blocks = bytes.len() / 512;
                let (from, to) = (self.below(blocks) * 512, self.below(blocks) * 512);
                if blocks > 0 {
                    bytes.copy_within(from..from + 512, to);
                }
            }
        }
    }
}

fn run(name: &str, rounds: usize) {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let seeds = seeds(name);
    for seed in &seeds {
        target(seed);
    }
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for _ in 0..rounds {
        let mut bytes = seeds[chance.below(seeds.len())].clone();
        let other = &seeds[chance.below(seeds.len())];
        for _ in 0..1 + chance.below(4) {
            chance.mutate(&mut bytes, other);
        }
        target(&bytes);
    }
}

#[test]
fn every_target_has_seeds() {
    // `make fuzz` has them written where its fuzzers begin.
    let corpus = std::env::var_os("ROOTSTREAM_WRITE_SEEDS");
    for (target, _) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target}");
        let Some(folder) = corpus.as_ref().map(|corpus| Path::new(corpus).join(target)) else { continue };
        fs::create_dir_all(&folder).unwrap();
        for (index, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{index}")), seed).unwrap();
        }
    }
}

// F46, F47, F48, F49
#[test]
fn archives_are_read_alike_however_they_come() {
    run("archive", 3000);
}

// F33, F43, F50
#[test]
fn published_archives_become_what_plain_ones_do_or_nothing() {
    run("chunks", 1000);
}

#[test]
fn command_lines_are_understood_or_refused() {
    run("cmdline", 5000);
}

// F38, F39, F40
#[test]
fn chunks_and_streams_decode_alike() {
    run("decoders", 1500);
}

// F3, F5, F6, F7, F9, F10, F13
#[test]
fn no_dhcp_message_at_any_time_makes_the_client_stumble_or_flood() {
    run("dhcp", 15_000);
}

// F3, F5, F6, F7, F9, F10, F13
#[test]
fn no_dhcpv6_message_at_any_time_makes_the_client_stumble_or_flood() {
    run("dhcp6", 15_000);
}

#[test]
fn what_a_router_says_is_something_that_a_port_can_have() {
    run("advert", 20_000);
}

#[test]
fn what_ip_says_is_kept_or_refused() {
    run("ip", 20_000);
}

#[test]
fn what_a_switch_says_is_short_and_printable() {
    run("lldp", 20_000);
}

#[test]
fn manifests_are_written_as_they_were_read() {
    run("manifest", 5000);
}

// F27, F28
#[test]
fn two_versions_of_a_file_are_never_joined() {
    run("ranges", 20_000);
}

// F34
#[test]
fn one_signature_alone_will_do() {
    run("signature", 2000);
}

// F33, F35
#[test]
fn a_flipped_bit_in_a_published_image_makes_no_other_tree() {
    let owners = nix::unistd::geteuid().is_root();
    let options = Unpack { owners, workers: 1, mount: None };
    let (manifest, file) = publish(Media::TarZstd, &cut(&canonical(), 2048));
    assert!(manifest.chunks.len() >= 4, "{}", manifest.chunks.len());
    assert!(manifest.chunks.iter().any(|chunk| chunk.continues.is_some()));
    let place = Enclosure::new();
    install(&manifest, &file, options, &place).unwrap();
    let expected = snapshot(&place.root());
    let mut chance = Chance(1);
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1 << chance.below(8);
        let error = install(&manifest, &bad, options, &Enclosure::new()).unwrap_err();
        assert!(format!("{error:#}").contains("is damaged"), "byte {at}: {error:#}");
    }
    // Nobody signed this manifest, and still no flip makes it lead elsewhere.
    let json = serde_json::to_vec(&manifest).unwrap();
    let (mut refused, mut right) = (0, 0);
    for at in 0..json.len() {
        let mut bad = json.clone();
        bad[at] ^= 1 << chance.below(8);
        let place = Enclosure::new();
        match Manifest::parse(&bad).and_then(|bad| install(&bad, &file, options, &place)) {
            Ok(_) => {
                assert_eq!(snapshot(&place.root()), expected, "byte {at}: {}", String::from_utf8_lossy(&bad));
                right += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > right && right > 20, "{refused} refused, {right} made no difference");
}

// F47
#[test]
fn a_chunk_that_tar_would_stop_reading_at_is_refused() {
    for zeros in [512, 1024, 4096] {
        let mut pieces = cut(&canonical(), 2048);
        let end = pieces.iter().position(|piece| piece.continues.is_some()).unwrap() - 2;
        pieces[end].bytes.extend(vec![0; zeros]);
        let (manifest, file) = publish(Media::TarZstd, &pieces);
        let options = Unpack { owners: false, workers: 2, mount: None };
        let error = install(&manifest, &file, options, &Enclosure::new()).unwrap_err();
        assert!(format!("{error:#}").contains("end mark"), "{error:#}");
    }
    // Nor may the last one end without it.
    let mut pieces = cut(&canonical(), 2048);
    let last = pieces.last_mut().unwrap();
    last.bytes.truncate(last.bytes.len() - 1024);
    let (manifest, file) = publish(Media::TarZstd, &pieces);
    let options = Unpack { owners: false, workers: 1, mount: None };
    let error = install(&manifest, &file, options, &Enclosure::new()).unwrap_err();
    assert!(format!("{error:#}").contains("end mark"), "{error:#}");
}

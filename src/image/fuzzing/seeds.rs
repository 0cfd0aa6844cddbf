//! Inputs that fuzzers begin with: a few of each kind that are right, made here so that no binary files are kept.

use std::io::Write as _;

use tar::{Builder, EntryType, Header};

use super::chunked;
use crate::image::manifest::{Chunk, Continued, Digest, Media};

/// The public key of [`SIGNATURE`].
pub(super) const KEY: &str =
    "untrusted comment: minisign public key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n";
/// A signature of `test`.
pub(super) const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1556193335\tfile:test
y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==
";

/// The seeds of a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "archive" => archives().into_iter().flat_map(|archive| [with(&[1], &archive), with(&[4], &archive)]).collect(),
        "chunks" => chunks(),
        "cmdline" => CMDLINES.iter().map(|line| line.as_bytes().to_vec()).collect(),
        "decoders" => decoders(),
        "advert" => crate::ipv6::fuzzing::advert_seeds(),
        "dhcp" => crate::dhcp::fuzzing::seeds(),
        "dhcp6" => crate::ipv6::fuzzing::dhcp6_seeds(),
        "ip" => crate::cmdline::fuzzing::seeds(),
        "lldp" => crate::lldp::seeds(),
        "manifest" => manifests(),
        "ranges" => {
            (0..16u8).map(|salt| (0..90u8).map(|at| at.wrapping_mul(37).wrapping_add(salt)).collect()).collect()
        }
        "signature" => vec![SIGNATURE.as_bytes().to_vec()],
        _ => Vec::new(),
    }
}

const CMDLINES: [&str; 5] = [
    "BOOT_IMAGE=vmlinuz rootstream.image=http://master/images/compute/latest.json ip=dhcp BOOTIF=01-52-54-00-ac-10-01",
    "rootstream.image=http://10.0.0.1/i.tar.zst,http://10.0.0.2/i.tar.zst rootstream.stall=5s rootstream.retry=10m \
     rootstream.sha256=0000000000000000000000000000000000000000000000000000000000000000",
    "rootstream.image=http://m/c/b.json rootstream.unsigned rootstream.not-before=2026-11-22T18:00:00Z \
     rootstream.tmpfs=size=50%,nr_inodes=1m,mode=0755 init=/bin/sh -- -c \"echo \\\"hello there\\\"\"",
    "rootstream.net=eth0,mlx5_core rootstream.clientid=0a:0b rootstream.carrier=1h rootstream.dhcp=500ms \
     rootstream.modules=bonding:mode=1,nfs rootstream.modules.deny=nouveau rootstream.onfail=shell",
    "rootstream.imag=http://typo rootstream.log=debug rootstream.break=switch nameserver=[fd00::1] quiet",
];

fn with(before: &[u8], after: &[u8]) -> Vec<u8> {
    [before, after].concat()
}

fn header(name: &str, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header.set_cksum();
    header
}

fn link(archive: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, target: &str) {
    let mut header = header(name, kind, 0);
    header.set_link_name(target).unwrap();
    header.set_cksum();
    archive.append(&header, &[][..]).unwrap();
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// One that is canonical.
pub(super) fn canonical() -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for name in ["./", "usr/", "usr/lib/", "etc/"] {
        archive.append(&header(name, EntryType::Directory, 0), &[][..]).unwrap();
    }
    for (name, size) in [("etc/hostname", 5), ("usr/lib/a", 1500), ("usr/lib/b", 700), ("usr/lib/empty", 0)] {
        archive.append(&header(name, EntryType::Regular, size), bytes(size).as_slice()).unwrap();
    }
    archive.append_pax_extensions([("mtime", &b"1600000000.25"[..]), ("SCHILY.xattr.user.x", b"y")]).unwrap();
    archive.append(&header("usr/lib/c", EntryType::Regular, 2000), bytes(2000).as_slice()).unwrap();
    archive.append(&header("usr/lib/holes", EntryType::Regular, 9000), vec![0; 9000].as_slice()).unwrap();
    link(&mut archive, "lib", EntryType::Symlink, "usr/lib");
    link(&mut archive, "usr/lib/a2", EntryType::Link, "usr/lib/a");
    link(&mut archive, "out", EntryType::Symlink, "../victim");
    archive.append(&header("usr/lib/pipe", EntryType::Fifo, 0), &[][..]).unwrap();
    archive.into_inner().unwrap()
}

/// Archives with what else there is.
fn archives() -> Vec<Vec<u8>> {
    let mut odd = Builder::new(Vec::new());
    let long = "long/".repeat(30);
    odd.append_data(&mut Header::new_gnu(), &long, &b""[..]).unwrap();
    let mut device = header("null", EntryType::Char, 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    device.set_cksum();
    odd.append(&device, &[][..]).unwrap();
    for records in [
        &[("GNU.sparse.size", &b"100000"[..]), ("GNU.sparse.map", b"0,512,50000,512")][..],
        &[
            ("GNU.sparse.size", b"90"),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.offset", b"5"),
            ("GNU.sparse.numbytes", b"1024"),
        ],
        &[("LIBARCHIVE.xattr.user.coded", b"aGVsbG8="), ("SCHILY.acl.access", b"user::rw-,group::r--,other::---")],
        &[("size", b"1024"), ("uid", b"70000"), ("path", b"another/name"), ("RHT.security.selinux", b"u:r:t")],
    ] {
        odd.append_pax_extensions(records.iter().copied()).unwrap();
        odd.append(&header("x", EntryType::Regular, 1024), bytes(1024).as_slice()).unwrap();
    }
    odd.append_pax_extensions([
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"5000"),
    ])
    .unwrap();
    let mut mapped = b"2\n0\n512\n4096\n512\n".to_vec();
    mapped.resize(512, 0);
    mapped.extend(bytes(1024));
    odd.append(&header("mapped", EntryType::Regular, mapped.len()), mapped.as_slice()).unwrap();
    let mut sparse = Header::new_gnu();
    sparse.set_path("old").unwrap();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_size(512);
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.realsize = *b"00000010000\0";
    gnu.sparse[0].offset = *b"00000001000\0";
    gnu.sparse[0].numbytes = *b"00000001000\0";
    sparse.set_cksum();
    odd.append(&sparse, bytes(512).as_slice()).unwrap();
    odd.append(&header("unknown", EntryType::new(b'Q'), 3), &b"abc"[..]).unwrap();
    odd.append(&header("global", EntryType::XGlobalHeader, 13), &b"13 comment=x\n"[..]).unwrap();
    odd.append(&header("last", EntryType::Regular, 1), &b"x"[..]).unwrap();
    vec![canonical(), odd.into_inner().unwrap()]
}

fn chunks() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for archive in archives() {
        // Chunks of 512 bytes, of 1536, and one for all.
        for (media, most) in [(0, 0), (2, 2), (0, 255), (13, 4)] {
            let mut knobs = [0; 12];
            (knobs[0], knobs[1]) = (media, most);
            seeds.push(with(&knobs, &archive));
        }
    }
    for what in 1..13 {
        seeds.push(with(&[9, 1, what, 0x13 + what, 0, 0, 0, 0, 0, 0, 0, 0], &canonical()));
    }
    seeds
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn decoders() -> Vec<Vec<u8>> {
    let (one, other) = (bytes(300), b"again and again and again".repeat(9));
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let skippable = with(b"\x53\x2a\x4d\x18\x04\0\0\0skip", &zstd(&other));
    let length = |bytes: &[u8]| [bytes.len() as u8, (bytes.len() >> 8) as u8, 0];
    vec![
        with(&length(&one), &gzip(&one)),
        with(&length(&other), &gzip(&other)),
        with(&length(&other), &[gzip(&other), gzip(&one)].concat()),
        with(&length(&other), &[gzip(&other), vec![0; 40]].concat()),
        with(&length(&one), &zstd(&one)),
        with(&length(&other), &zstd(&other)),
        with(&length(&other), &skippable),
        with(&length(&other), &[zstd(&other), zstd(&one)].concat()),
        with(&length(&other), &canonical()),
    ]
}

fn manifests() -> Vec<Vec<u8>> {
    let chunk = |offset, continues| Chunk { offset, size: 10, unpacked: 100, sha256: Digest([7; 32]), continues };
    let part = |offset| Some(Continued { path: "a/b%20c".to_owned(), offset, total: 200 });
    let manifest = chunked::manifest(
        Media::TarZstd,
        40,
        vec![chunk(0, None), chunk(10, part(50)), chunk(20, part(150)), chunk(30, None)],
    );
    let slices = chunked::manifest(Media::Squashfs, 10, vec![chunk(0, None)]);
    vec![
        serde_json::to_vec(&manifest).unwrap(),
        serde_json::to_vec_pretty(&slices).unwrap(),
        br#"{"format":2,"name":"compute","build":"b","manifest":"b.json"}"#.to_vec(),
        br#"{"format":3}"#.to_vec(),
    ]
}

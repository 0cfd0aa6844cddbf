//! Published images whose manifests and archives are not what they should be.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::thread;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::archives::mended;
use crate::image::Unpack;
use crate::image::chunks::{self, Repair};
use crate::image::header::BLOCK;
use crate::image::manifest::{Chunk, Continued, Digest, FORMAT, Manifest, Media, escape};
use crate::image::tree::Rules;
use crate::image::unpack::{self, Unpacked};

/// Bytes of the input before the archive.
const KNOBS: usize = 12;
/// The longest archive that is taken: the pipe holds all of it.
const LONGEST: usize = 512 << 10;

/// A piece of an archive.
#[derive(Clone)]
pub(super) struct Loose {
    pub(super) bytes: Vec<u8>,
    pub(super) continues: Option<Continued>,
}

/// A published archive, of which everything may be wrong but the chunks' digests: it is refused, or becomes what the
/// same archive becomes as one plain stream. Whichever it is, nothing outside the root changes, and no more is written
/// than the chunks hold. The first bytes of the input say how the archive is cut and what is then done to the pieces.
pub fn chunks(input: &[u8]) {
    let Some((knobs, archive)) = input.split_first_chunk::<KNOBS>() else { return };
    let archive = &archive[..archive.len().min(LONGEST)];
    let archive = if knobs[0] & 1 == 1 { mended(archive) } else { archive.to_vec() };
    let media = if knobs[0] & 2 == 0 { Media::TarZstd } else { Media::TarGzip };
    let workers = 1 + usize::from(knobs[0] >> 2 & 3);
    let mut pieces = cut(&archive, BLOCK * (1 + usize::from(knobs[1])));
    for tweak in knobs[2..].chunks_exact(2) {
        spoil(&mut pieces, tweak[0], tweak[1]);
    }
    let (manifest, file) = publish(media, &pieces);
    // Only what the agent would read goes on.
    let Ok(manifest) = Manifest::parse(&serde_json::to_vec(&manifest).unwrap()) else { return };
    let (published, plain) = (Enclosure::new(), Enclosure::new());
    // Devices would need a right that not everybody who runs this has.
    let options = Unpack { owners: false, workers, mount: None };
    let unpacked = install(&manifest, &file, options, &published);
    let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
    match unpacked {
        Ok(Unpacked { bytes, .. }) => {
            assert!(bytes <= joined.len() as u64);
            let expected = unpack::unpack(joined.as_slice(), &plain.root(), options, Rules::Plain);
            plain.check();
            match expected {
                Ok(_) => assert_eq!(snapshot(&published.root()), snapshot(&plain.root())),
                // A chunk may be unpacked before the one with a link's target, so that order is not seen.
                Err(error) => assert!(format!("{error:#}").contains("the hard link"), "{error:#}"),
            }
        }
        Err(error) => assert!(!format!("{error:#}").contains("panicked"), "{error:#}"),
    }
}

/// Unpacks a published image, of which there is no second copy.
pub(super) fn install(
    manifest: &Manifest,
    file: &[u8],
    options: Unpack<'_>,
    place: &Enclosure,
) -> anyhow::Result<Unpacked> {
    let (mut into, from) = chunks::pipe(manifest, options).unwrap();
    let unpacked = thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = file;
            while !rest.is_empty() {
                // What was damaged is not taken to its end.
                let Ok(space) = into.space() else { return };
                let count = rest.read(space).unwrap();
                into.wrote(count);
            }
            into.finish();
        });
        chunks::unpack(manifest, from, &Never, &place.root(), options)
    });
    place.check();
    unpacked
}

/// A chunk with the wrong digest stays as it is.
struct Never;

impl Repair for Never {
    fn repair(&self, index: usize, _: &Chunk, _: &mut [u8]) -> anyhow::Result<()> {
        anyhow::bail!("chunk {index} is damaged")
    }

    fn give_up(&self) {}
}

/// A folder with a root in it, and with things next to the root that nobody may touch.
pub(super) struct Enclosure(TempDir);

impl Enclosure {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("victim"), "untouched").unwrap();
        Self(folder)
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    fn check(&self) {
        let mut names: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["root", "victim"], "something was made outside the root");
        let victim = self.0.path().join("victim");
        let metadata = fs::metadata(&victim).unwrap();
        assert_eq!((fs::read(&victim).unwrap(), metadata.nlink()), (b"untouched".to_vec(), 1));
        assert_eq!(metadata.mode() & 0o7777, 0o644 & !umask());
    }
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let names = xattr::list(path).unwrap();
    names.filter_map(|name| Some((name.clone(), xattr::get(path, &name).unwrap()?))).collect()
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap().trim();
    u32::from_str_radix(mask, 8).unwrap()
}

/// The tree at `root`: a line for each path.
pub(super) fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut tree = BTreeMap::new();
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let content = if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if kind.is_file() && metadata.len() < 1 << 24 {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let first = names.entry(metadata.ino()).or_insert_with(|| name.clone());
            *first = (*first).clone().min(name.clone());
        }
        // A directory of tmpfs has a size by its entries.
        let size = if kind.is_dir() { 0 } else { metadata.len() };
        let line = format!(
            "{:o} {}:{} {} {size} {}.{} {} {:?} {}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            if kind.is_dir() { 0 } else { metadata.nlink() },
            metadata.mtime(),
            metadata.mtime_nsec(),
            kind.is_fifo(),
            attributes(&path),
            Digest(Sha256::digest(&content).into()),
        );
        tree.insert(name, format!("{line} {}", metadata.ino()));
    }
    // Inode numbers become the first name of the file.
    let mut with_names = BTreeMap::new();
    for (name, line) in tree {
        let (line, inode) = line.rsplit_once(' ').unwrap();
        let same = names.get(&inode.parse().unwrap()).map(|same| same.escape_ascii().to_string());
        with_names.insert(name, format!("{line} {same:?}"));
    }
    with_names
}

/// Cuts an archive as a publisher does, as far as it is one.
pub(super) fn cut(archive: &[u8], most: usize) -> Vec<Loose> {
    let mut pieces = Vec::new();
    let mut now = Loose { bytes: Vec::new(), continues: None };
    let mut at = 0;
    while let Some(block) = archive.get(at..at + BLOCK).filter(|block| block.iter().any(|byte| *byte != 0)) {
        let start = at;
        let mut header = block;
        at += BLOCK;
        while matches!(header[156], b'x' | b'L' | b'K' | b'g')
            && let Some(next) = archive.get(at + octal(&header[124..136]).next_multiple_of(BLOCK)..)
            && next.len() >= BLOCK
        {
            at = archive.len() - next.len() + BLOCK;
            header = &next[..BLOCK];
        }
        let size = if matches!(header[156], b'0' | b'7' | 0 | b'5') { octal(&header[124..136]) } else { 0 };
        let name: Vec<u8> = header[..100].iter().copied().take_while(|byte| *byte != 0).collect();
        if !now.bytes.is_empty() && now.bytes.len() + (at - start) + size > most {
            pieces.push(std::mem::replace(&mut now, Loose { bytes: Vec::new(), continues: None }));
        }
        now.bytes.extend_from_slice(&archive[start..at]);
        let end = (at + size).min(archive.len());
        let mut done = size.min(most.saturating_sub(now.bytes.len()).max(1));
        now.bytes.extend_from_slice(&archive[at..(at + done).min(end)]);
        while at + done < end {
            let path = escape(name.strip_prefix(b"./").unwrap_or(&name));
            let continues = Some(Continued { path, offset: done as u64, total: size as u64 });
            pieces.push(std::mem::replace(&mut now, Loose { bytes: Vec::new(), continues }));
            let count = (size - done).min(most);
            now.bytes.extend_from_slice(&archive[at + done..(at + done + count).min(end)]);
            done += count;
        }
        let next = (at + size.next_multiple_of(BLOCK)).min(archive.len());
        now.bytes.extend_from_slice(&archive[end..next]);
        at = next;
    }
    now.bytes.extend_from_slice(&archive[at..]);
    pieces.push(now);
    pieces
}

fn octal(field: &[u8]) -> usize {
    let digits = field.iter().filter(|byte| byte.is_ascii_digit());
    let value = digits.fold(0usize, |value, digit| value.saturating_mul(8).saturating_add(usize::from(digit - b'0')));
    value.min(LONGEST)
}

/// What a publisher may get wrong.
fn spoil(pieces: &mut Vec<Loose>, what: u8, value: u8) {
    let (count, at) = (pieces.len(), usize::from(value & 15) % pieces.len().max(1));
    let by = u64::from(value >> 4);
    let some_path = pieces.iter().find_map(|piece| piece.continues.as_ref()).map(|continued| continued.path.clone());
    let Some(piece) = pieces.get_mut(at) else { return };
    match what % 16 {
        1 => pieces.swap(at, (at + 1) % count),
        2 => {
            let copy = piece.clone();
            pieces.insert(at, copy);
        }
        3 => drop(pieces.remove(at)),
        4 => {
            if let Some(continued) = &mut piece.continues {
                continued.offset = continued.offset.wrapping_sub(8).wrapping_add(by);
            }
        }
        5 => {
            if let Some(continued) = &mut piece.continues {
                continued.total = continued.total.wrapping_sub(8).wrapping_add(by);
            }
        }
        6 => {
            let names = ["a", "lib", "lib/x", "../victim", "a/b", "%2e%2e/victim", "/victim", "."];
            if let Some(continued) = &mut piece.continues {
                continued.path = names[by as usize % names.len()].to_owned();
            }
        }
        7 => piece.continues = None,
        8 => {
            let total = by + piece.bytes.len() as u64;
            piece.continues = Some(Continued { path: some_path.unwrap_or_else(|| "a".to_owned()), offset: by, total });
        }
        9 => {
            let left = piece.bytes.len().saturating_sub(by as usize * 64);
            piece.bytes.truncate(left);
        }
        10 => piece.bytes.resize(piece.bytes.len() + by as usize * 128, 0),
        11 => {
            let half = piece.bytes.split_off(piece.bytes.len() / 2 / BLOCK * BLOCK);
            pieces.insert(at + 1, Loose { bytes: half, continues: None });
        }
        12 => {
            let byte = piece.bytes.len() * by as usize / 16;
            if let Some(byte) = piece.bytes.get_mut(byte) {
                *byte ^= 1;
            }
        }
        _ => {}
    }
}

/// The pieces as a published image.
pub(super) fn publish(media: Media, pieces: &[Loose]) -> (Manifest, Vec<u8>) {
    let (mut file, mut chunks) = (Vec::new(), Vec::new());
    for Loose { bytes, continues } in pieces {
        let packed = match media {
            Media::TarGzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::bulk::compress(bytes, 1).unwrap(),
        };
        chunks.push(Chunk {
            offset: file.len() as u64,
            size: packed.len() as u64,
            unpacked: bytes.len() as u64,
            sha256: Digest(Sha256::digest(&packed).into()),
            continues: continues.clone(),
        });
        file.extend(packed);
    }
    (manifest(media, file.len() as u64, chunks), file)
}

/// A manifest of these chunks.
pub(super) fn manifest(media: Media, size: u64, chunks: Vec<Chunk>) -> Manifest {
    Manifest {
        format: FORMAT,
        name: "compute".to_owned(),
        build: "b".to_owned(),
        created: "2026-11-22T18:00:00Z".to_owned(),
        arch: "amd64".to_owned(),
        kernels: vec!["6.1.0-41-amd64".to_owned()],
        media,
        file: format!("b.{}", media.suffix()),
        size,
        sha256: Digest([1; 32]),
        unpacked_bytes: 1,
        unpacked_pages: 1,
        inodes: 1,
        largest_file: 1,
        init: None,
        chunks,
    }
}

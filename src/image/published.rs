//! A published image: its manifest found and believed, then its chunks installed.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::chunks::{self, Repair};
use super::fetch::Target;
use super::filesystem::Kind;
use super::halt::Halt;
use super::manifest::{Chunk, Digest, LIMIT, Latest, Manifest, Media};
use super::mirrors::{Mirrors, Stop};
use super::preflight::{self, Machine};
use super::progress::{Progress, megabytes};
use super::range::Piece;
use super::signature::{Asked, WAIVED};
use super::small::{Found, Need, Small};
use super::transfer::Proof;
use super::trust::{SIGNATURE_LIMIT, SIGNATURE_SUFFIX, SignatureFile};
use super::turns::Hasty;
use super::{Build, Facts, Sources, Trust, Unpack, mount};
use crate::failure::{Advise as _, refuse};
use crate::mounts::Needs;
use crate::say;

/// The name of the pointer to the newest build.
const LATEST: &str = "latest.json";
/// The largest pointer that is read.
const LATEST_LIMIT: u64 = 4096;
/// How long a mirror rests that did not have all of a build at once, the first time.
const REST: Duration = Duration::from_secs(1);
/// That time is doubled this often.
const LONGEST: u32 = 5;
/// How often a damaged chunk is fetched again.
const REPAIRS: usize = 3;

/// A build whose manifest was verified.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) manifest: Manifest,
    build: Build,
    trust: Trust,
    /// Whether `rootstream.unsigned` took the place of a signature.
    waived: bool,
    /// The file's URL on each mirror.
    urls: Vec<String>,
}

/// Whether a URL names a manifest or a pointer to one.
pub(super) fn is_manifest(url: &str) -> bool {
    path(url).ends_with(".json")
}

/// A URL without query and fragment.
pub(super) fn path(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// The URL of a file that stands next to another.
fn beside(url: &str, name: &str) -> String {
    match path(url).rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

/// What a manifest must be about, as its URL says: `…/NAME/BUILD.json`.
fn wanted(url: &str) -> Option<(&str, &str)> {
    let (folder, file) = path(url).rsplit_once('/')?;
    let (_, name) = folder.rsplit_once('/')?;
    Some((name, file.strip_suffix(".json")?))
}

/// The same file on the other mirrors.
fn on_each(sources: Sources<'_>, name: &str) -> Vec<String> {
    sources.settings.urls.iter().map(|url| beside(url, name)).collect()
}

impl Published {
    /// Finds the manifest that the settings name, where they name one.
    ///
    /// # Errors
    /// It cannot be had, is not to be trusted on any mirror, or is of an image that does not fit the machine.
    pub(super) fn find(sources: Sources<'_>, machine: &Machine, mirrors: &Mirrors<'_>) -> anyhow::Result<Option<Self>> {
        let settings = sources.settings;
        let manifests = settings.urls.iter().filter(|url| is_manifest(url)).count();
        if manifests == 0 {
            return Ok(None);
        }
        if manifests != settings.urls.len() {
            let todo = "mirrors are the same file on several servers: name the manifest (.json) on each";
            return Err(refuse("some of the mirrors in rootstream.image= name a manifest and others do not", todo));
        }
        let mut untried = settings.urls.clone();
        let mut hasty = vec![0; untried.len()];
        loop {
            let small = match mirrors.small(&untried, None, LIMIT, Need::Must)? {
                Found::Here(small) => small,
                Found::Absent(status) => bail!("the server answered {status}"),
            };
            let mirror = small.mirror;
            let url = settings.urls.get(mirror).cloned().unwrap_or_default();
            let others = untried.iter().enumerate().any(|(other, url)| other != mirror && !url.is_empty());
            let todo = "publish the image again, or trust the key that it was signed with (rootstream bootstrap)";
            let believed = Self::believe(sources, mirrors, small, &url, others)
                .advise(format!("the image's manifest {url} is refused"), todo);
            // A mirror that lags behind may lead to a build that does not fit, where another leads to one that does.
            let fitting = believed.and_then(|published| {
                preflight::check(&published.manifest, machine, settings.not_before.as_deref())?;
                Ok(published)
            });
            let error = match fitting {
                Ok(published) => {
                    published.say();
                    return Ok(Some(published));
                }
                Err(error) => error,
            };
            if let (true, Some(times)) = (error.is::<Hasty>(), hasty.get_mut(mirror)) {
                // It may come back, and meanwhile another may do.
                mirrors.spare(mirror, REST.saturating_mul(1 << *times));
                *times = LONGEST.min(*times + 1);
            } else if let Some(tried) = untried.get_mut(mirror) {
                tried.clear();
            }
            if untried.iter().all(String::is_empty) {
                return Err(error);
            }
            say::warn!("image: {error:#}; trying the next mirror");
        }
    }

    /// Believes what came from one mirror, for a reason. With `others` that may do, it is not waited for.
    fn believe(
        sources: Sources<'_>,
        mirrors: &Mirrors<'_>,
        small: Small,
        url: &str,
        others: bool,
    ) -> anyhow::Result<Self> {
        let Sources { settings, anchors, .. } = sources;
        let mirror = small.mirror;
        let get = |name: &str, limit, need| match on_each(sources, name) {
            urls if others => mirrors.small_hastily(&urls, mirror, limit, need),
            urls => mirrors.small(&urls, Some(mirror), limit, need),
        };
        let mut bytes = small.bytes;
        let mut manifest_url = url.to_owned();
        let mut newest = None;
        if path(url).ends_with(&format!("/{LATEST}")) {
            ensure!(bytes.len() as u64 <= LATEST_LIMIT, "it is too long for a pointer to a manifest");
            let latest = Latest::parse(&bytes)?;
            manifest_url = beside(url, &latest.manifest);
            bytes = match get(&latest.manifest, LIMIT, Need::May)? {
                Found::Here(small) => small.bytes,
                Found::Absent(status) => bail!("it leads to {manifest_url}, but the server answered {status}"),
            };
            newest = Some(latest);
        }
        let sha256 = <[u8; 32]>::from(Sha256::digest(&bytes));
        let mut trust = Trust::None;
        if let Some(asked) = settings.sha256 {
            let (is, asked) = (Digest(sha256), Digest(asked));
            ensure!(is == asked, "its sha256 is {is}, not {asked} as rootstream.sha256= says");
            trust = Trust::Digest;
        }
        if Asked::of(sources) == Asked::Signature {
            let name = file_name(&manifest_url);
            let signature = match get(&format!("{name}{SIGNATURE_SUFFIX}"), SIGNATURE_LIMIT, Need::May)? {
                Found::Here(small) => SignatureFile::parse(&small.bytes)?,
                Found::Absent(status) => {
                    bail!("it has no signature: the server answered {status} to {manifest_url}{SIGNATURE_SUFFIX}")
                }
            };
            anchors.keys.verify(&bytes, &signature)?;
            trust = Trust::Signed;
        }
        let manifest = Manifest::parse(&bytes)?;
        // A server must not answer with another build, however well signed. A digest says more than a name.
        if settings.sha256.is_none() {
            let Some((name, build)) = wanted(url) else {
                bail!("its URL does not end in /NAME/BUILD.json, so nothing says which image is asked for");
            };
            let build = newest.as_ref().map_or(build, |newest| newest.build.as_str());
            ensure!(
                manifest.name == name && manifest.build == build,
                "it is about {} build {}, not {name} build {build} as its URL says",
                manifest.name,
                manifest.build
            );
        }
        let build = Build {
            name: manifest.name.clone(),
            build: manifest.build.clone(),
            created: manifest.created.clone(),
            manifest: manifest_url,
        };
        let urls = on_each(sources, &manifest.file);
        Ok(Self { manifest, build, trust, waived: Asked::of(sources) == Asked::Waived, urls })
    }

    fn say(&self) {
        let Manifest { name, build, created, size, unpacked_bytes, inodes, .. } = &self.manifest;
        let trust = match self.trust {
            Trust::None => "not signed",
            Trust::Digest => "digest as asked",
            Trust::Signed => "signed",
        };
        let (packed, unpacked) = (megabytes(*size), megabytes(*unpacked_bytes));
        say::info!(
            "image: {name} build {build} of {created}, {trust}: {packed} MB, {unpacked} MB in {inodes} inodes unpacked"
        );
    }

    /// What it needs of the file system that it goes into.
    pub(super) fn needs(&self) -> Needs {
        let Manifest { media, size, unpacked_pages, inodes, .. } = &self.manifest;
        match media {
            Media::TarZstd | Media::TarGzip => Needs { bytes: unpacked_pages.saturating_mul(4096), inodes: *inodes },
            Media::Squashfs | Media::Erofs => Needs { bytes: *size, inodes: 1 },
        }
    }

    /// Streams the chunks into `root`.
    ///
    /// # Errors
    /// See [`super::Plan::install`].
    pub(super) fn install(&self, mirrors: &Mirrors<'_>, unpack: Unpack, root: &Path) -> anyhow::Result<Facts> {
        let manifest = &self.manifest;
        if let (Some(kind), Some(_)) = (Kind::of(manifest.media), unpack.mount) {
            mount::prepare(kind, manifest.size, root)?;
        }
        preflight::check_room(manifest, self.needs(), root)?;
        let (out, stream) = chunks::pipe(manifest, unpack)?;
        let (progress, halt) = (Progress::default(), Halt::default());
        let again = Again { mirrors, published: self, halt: &halt };
        let (fetched, unpacked) = thread::scope(|scope| {
            scope.spawn(|| progress.show());
            let target = Target { progress: &progress, out, room: u64::MAX, verifier: None };
            let proof = Proof::Chunks { size: manifest.size };
            let fetching = scope.spawn(move || mirrors.stream(&self.urls, proof, target));
            let unpacked = match Kind::of(manifest.media) {
                None => chunks::unpack(manifest, stream, &again, root, unpack),
                Some(kind) => chunks::store(manifest, kind, stream, &again, root, unpack),
            };
            let panicked = |_| Err(Stop::Failed(anyhow::anyhow!("the fetching thread panicked")));
            let fetched = fetching.join().unwrap_or_else(panicked);
            progress.end();
            (fetched, unpacked)
        });
        let installing = || format!("installing the image {}", self.build.manifest);
        let fetched = match (fetched, unpacked.as_ref()) {
            (Ok(fetched), _) => Some(fetched),
            // The workers stopped, and know why.
            (Err(Stop::Gone), Err(_)) => None,
            (Err(stop), _) => return Err(stop.into_error()).with_context(installing),
        };
        let mut unpacked = unpacked.with_context(installing)?;
        if self.waived {
            unpacked.warnings.push(WAIVED.to_owned());
        }
        let url = fetched.context("the transfer ended without a reason").with_context(installing)?.url;
        for warning in &unpacked.warnings {
            say::warn!("image: {warning}");
        }
        let (bytes, written) = (megabytes(manifest.size), megabytes(unpacked.bytes));
        say::info!("image: {bytes} MB fetched, {written} MB in {} entries unpacked", unpacked.entries);
        Ok(Facts {
            url,
            media: manifest.media.name(),
            bytes: manifest.size,
            unpacked: unpacked.bytes,
            entries: unpacked.entries,
            sha256: manifest.sha256.to_string(),
            build: Some(self.build.clone()),
            trust: self.trust,
            retries: mirrors.tally().retries,
            warnings: unpacked.warnings,
        })
    }
}

/// The last component of a URL's path.
pub(super) fn file_name(url: &str) -> &str {
    path(url).rsplit_once('/').map_or(url, |(_, name)| name)
}

/// Fetches damaged chunks again.
struct Again<'a> {
    mirrors: &'a Mirrors<'a>,
    published: &'a Published,
    halt: &'a Halt,
}

impl Repair for Again<'_> {
    fn give_up(&self) {
        self.halt.set();
    }

    fn repair(&self, index: usize, chunk: &Chunk, packed: &mut [u8]) -> anyhow::Result<()> {
        let Published { manifest, urls, .. } = self.published;
        let mut avoid: Vec<usize> = self.mirrors.giver(chunk.offset).into_iter().collect();
        avoid.iter().for_each(|mirror| self.mirrors.damaged(*mirror));
        for count in 1..=REPAIRS {
            say::warn!("image: chunk {index} is not what its manifest says; fetching it again, {count} of {REPAIRS}");
            let piece = Piece { urls, total: manifest.size, offset: chunk.offset, avoid: &avoid };
            let mirror = self.mirrors.range(piece, self.halt, packed).map_err(Stop::into_error)?;
            if Digest(Sha256::digest(&*packed).into()) == chunk.sha256 {
                return Ok(());
            }
            self.mirrors.damaged(mirror);
            // Whoever has little patience does not want it spent here.
            let rest = Duration::from_secs(count as u64).min(self.mirrors.settings.retry / 64);
            self.mirrors.spare(mirror, rest);
            avoid.push(mirror);
        }
        let end = chunk.offset + chunk.size - 1;
        let what = format!("bytes {}-{end} of {} are not what the manifest says", chunk.offset, urls.join(" "));
        let todo =
            "compare the file's sha256 with its manifest's on each server (rootstream image verify); publish it again";
        Err(refuse(what, todo)).context(format!("chunk {index} was fetched {} times", REPAIRS + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_next_to_their_manifest() {
        assert!(is_manifest("http://m/images/c/b.json?x=1.tar"));
        assert!(!is_manifest("http://m/images/c/b.tar.gz?x.json"));
        assert_eq!(beside("http://m/images/c/b.json?token=/x", "b.tar.zst"), "http://m/images/c/b.tar.zst");
        assert_eq!(wanted("http://m/images/c/b.json#x"), Some(("c", "b")));
        assert_eq!(wanted("http://m/b.json"), Some(("m", "b")));
        assert_eq!(file_name("http://m/images/c/b.json"), "b.json");
    }
}

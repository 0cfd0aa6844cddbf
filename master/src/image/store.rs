//! The store: a folder for each image, with its builds and the pointer to the newest one.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rootstream::failure::{Advise, refuse};
use rootstream::image::manifest::{self, Digest, FORMAT, Latest, Manifest};
use rootstream::image::trust::{Keys, SIGNATURE_LIMIT, SIGNATURE_SUFFIX, SignatureFile};
use sha2::{Digest as _, Sha256};

use crate::aside;
use crate::config::addresses::Name;
use crate::config::nodes::BuildId;
use crate::config::site::Site;

/// The name of the pointer to the newest build.
pub(crate) const LATEST: &str = "latest.json";

/// A published build, as it is in the store.
#[derive(Clone, Debug)]
pub struct Build {
    /// What it says about itself.
    pub manifest: Manifest,
    /// The bytes of the manifest's file.
    pub text: Vec<u8>,
    /// That file.
    pub path: PathBuf,
    /// The text of its signature, when there is one.
    pub signature: Option<Vec<u8>>,
}

impl Build {
    /// The newest build of `name`; nothing when it was never published.
    ///
    /// # Errors
    /// One of its files is unreadable or does not belong to `name`.
    pub fn latest(site: &Site, name: &Name) -> Result<Option<Self>> {
        let folder = site.store().join(name.as_str());
        latest(&folder)?.map(|latest| Self::read(&folder.join(&latest.manifest), name)).transpose()
    }

    /// A build of `name`: this one, or the newest.
    ///
    /// # Errors
    /// There is none, or one of its files is unreadable or does not belong to `name`.
    pub fn find(site: &Site, name: &Name, build: Option<&str>) -> Result<Self> {
        let Some(build) = build else {
            let publish = format!("publish it: rootstream image publish {name}");
            return Self::latest(site, name)?
                .ok_or_else(|| refuse(format!("the image {name} is not published"), publish));
        };
        let builds = builds(site, name)?;
        if !builds.iter().any(|known| known == build) {
            let known = if builds.is_empty() { "none".to_owned() } else { builds.join(", ") };
            return Err(refuse(format!("the image {name} has no build {build}"), format!("its builds are: {known}")));
        }
        Self::read(&site.store().join(name.as_str()).join(format!("{build}.json")), name)
    }

    /// Whether the image has this build.
    pub fn is_there(site: &Site, name: &Name, build: &BuildId) -> bool {
        site.store().join(name.as_str()).join(format!("{build}.json")).exists()
    }

    fn read(path: &Path, name: &Name) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let text = read(path, manifest::LIMIT).with_context(reading)?;
        let manifest =
            Manifest::parse(&text).advise(reading(), format!("publish it again: rootstream image publish {name}"))?;
        ensure!(manifest.name == name.as_str(), "{} is of the image {}, not {name}", path.display(), manifest.name);
        let build = path.file_stem().and_then(|stem| stem.to_str());
        ensure!(build == Some(&manifest.build), "{} is of the build {}", path.display(), manifest.build);
        let signature = signature_of(path);
        let signature = match read(&signature, SIGNATURE_LIMIT) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            text => Some(text.with_context(|| format!("reading {}", signature.display()))?),
        };
        Ok(Self { manifest, text, path: path.to_owned(), signature })
    }

    /// Checks that one of these keys signed the manifest.
    ///
    /// # Errors
    /// None did.
    pub fn check_signature(&self, keys: &Keys) -> Result<()> {
        let signature = self.signature.as_deref().context("it is not signed")?;
        keys.verify(&self.text, &SignatureFile::parse(signature)?)
    }

    /// sha256 of the manifest's file, for `rootstream.sha256=`.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(&self.text).into())
    }

    /// The image's file.
    pub fn file(&self) -> PathBuf {
        self.path.with_file_name(&self.manifest.file)
    }
}

/// A manifest or pointer as its file has it.
///
/// # Errors
/// It is no JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value).context("writing JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// The signature next to a manifest.
pub(crate) fn signature_of(manifest: &Path) -> PathBuf {
    let mut path = manifest.as_os_str().to_owned();
    path.push(SIGNATURE_SUFFIX);
    path.into()
}

/// The pointer to the newest build in an image's folder of the store.
///
/// # Errors
/// It is unreadable.
pub(crate) fn latest(folder: &Path) -> Result<Option<Latest>> {
    let path = folder.join(LATEST);
    let text = match read(&path, manifest::LIMIT) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    Latest::parse(&text).map(Some).advise(format!("reading {}", path.display()), "publish the image again")
}

/// Makes `build` the newest of `name`, whose folder of the store is `folder`. Only who holds the folder's claim may.
///
/// # Errors
/// The disk refuses.
pub(crate) fn point_at(folder: &Path, name: &Name, build: &str) -> Result<()> {
    let manifest = format!("{build}.json");
    let latest = Latest { format: FORMAT, name: name.to_string(), build: build.to_owned(), manifest };
    aside::write(&folder.join(LATEST), &json(&latest)?)
}

/// The names of all builds of `name`, oldest first.
///
/// # Errors
/// The folder is unreadable.
pub fn builds(site: &Site, name: &Name) -> Result<Vec<String>> {
    let folder = site.store().join(name.as_str());
    let listed = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(|| format!("listing {}", folder.display()))?,
    };
    let build = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok().filter(|name| name != LATEST && !name.starts_with('.'))?;
        name.strip_suffix(".json").map(str::to_owned)
    };
    let mut builds: Vec<String> = listed.flatten().filter_map(build).collect();
    builds.sort();
    Ok(builds)
}

/// Removes what killed commands left in an image's folder: files of builds that have no manifest. Only who holds the
/// folder's claim may.
///
/// # Errors
/// The disk refuses.
pub(crate) fn sweep(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let build = name.split('.').next().unwrap_or_default();
        if build.parse::<BuildId>().is_ok() && !folder.join(format!("{build}.json")).exists() {
            log::info!("removing {}, which belongs to no build", entry.path().display());
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn read(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more, so that what is too long is not taken for something that is cut.
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

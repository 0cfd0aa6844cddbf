//! The images that are compared, in every packing that a way fetches.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::ways::Packing;

/// The recipe of the larger image.
const LARGE: &str = include_str!("../site/large.toml");

/// What the companion built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image's name.
    pub name: String,
    /// `built/NAME.tar`.
    pub tar: PathBuf,
}

/// One image, packed.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Bytes of the archive in it.
    pub bytes: u64,
    /// Paths in the archive, the root not counted.
    pub entries: usize,
    /// Its files in every packing.
    pub files: Vec<Packed>,
}

/// An image in one packing.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Which.
    pub packing: Packing,
    /// What a client asks for, relative to the served folder.
    pub path: String,
    /// The file with the image's bytes.
    pub file: PathBuf,
    /// Its length.
    pub size: u64,
}

impl Image {
    /// The image in this packing.
    ///
    /// # Errors
    /// There is none.
    pub fn packed(&self, packing: Packing) -> Result<&Packed> {
        let found = self.files.iter().find(|packed| packed.packing == packing);
        found.with_context(|| format!("the image {} is not packed as {packing:?}", self.name))
    }
}

/// The folder that is served: packed images, and the companion's site that publishes them.
#[derive(Debug)]
pub struct Workshop {
    folder: PathBuf,
    rootstream: PathBuf,
}

impl Workshop {
    /// The workshop in `folder`, with the companion's binary.
    ///
    /// # Errors
    /// There is no such binary, or it refuses to make a site.
    pub fn open(folder: &Path, rootstream: &Path) -> Result<Self> {
        ensure!(rootstream.exists(), "{} is missing: cargo build --workspace makes it", rootstream.display());
        let workshop = Self { folder: folder.to_owned(), rootstream: rootstream.to_owned() };
        let site = workshop.site();
        if !site.join("site.toml").exists() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            let new = ["--interface", "br0", "--address", "172.16.0.254/24"];
            succeed(Command::new(rootstream).args(["site", "new"]).arg(&site).args(new))?;
        }
        Ok(workshop)
    }

    /// The folder that is served.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The companion's site.
    pub fn site(&self) -> PathBuf {
        self.folder.join("site")
    }

    /// The companion, told about the site.
    pub fn companion(&self) -> Command {
        let mut command = Command::new(&self.rootstream);
        command.arg("--site").arg(self.site());
        command
    }

    /// Builds the larger image, unless it is built.
    ///
    /// # Errors
    /// The companion fails; it has said why.
    pub fn build_large(&self) -> Result<Built> {
        let recipe = self.site().join("images/large.toml");
        if fs::read_to_string(&recipe).ok().as_deref() != Some(LARGE) {
            fs::write(&recipe, LARGE).with_context(|| format!("writing {}", recipe.display()))?;
        }
        succeed(self.companion().args(["image", "build", "large"]))?;
        Ok(Built { name: "large".to_owned(), tar: self.site().join("built/large.tar") })
    }

    /// Takes in what was built in another site.
    ///
    /// # Errors
    /// It is not there, or on another file system.
    pub fn adopt(&self, site: &Path, name: &str) -> Result<Built> {
        let built = self.site().join("built");
        fs::create_dir_all(&built).with_context(|| format!("creating {}", built.display()))?;
        for suffix in ["tar", "json"] {
            let (from, to) = (site.join(format!("built/{name}.{suffix}")), built.join(format!("{name}.{suffix}")));
            let _ = fs::remove_file(&to);
            fs::hard_link(&from, &to).with_context(|| format!("linking {} (make site makes it)", from.display()))?;
        }
        Ok(Built { name: name.to_owned(), tar: built.join(format!("{name}.tar")) })
    }

    /// Packs what was built in every packing; what is packed already stays.
    ///
    /// # Errors
    /// A program fails or is missing.
    pub fn pack(&self, built: &Built) -> Result<Image> {
        let files = vec![
            self.compress(built, Packing::Gzip, "gzip", "-6", "gz")?,
            self.compress(built, Packing::Zstd, "zstd", "-3", "zst")?,
            self.publish(built, Packing::PublishedGzip, "tar.gz")?,
            self.publish(built, Packing::PublishedZstd, "tar.zst")?,
        ];
        let bytes = fs::metadata(&built.tar).with_context(|| format!("measuring {}", built.tar.display()))?.len();
        Ok(Image { name: built.name.clone(), bytes, entries: entries(&built.tar)?, files })
    }

    fn compress(&self, built: &Built, packing: Packing, program: &str, level: &str, suffix: &str) -> Result<Packed> {
        let path = format!("{}.tar.{suffix}", built.name);
        let file = self.folder.join(&path);
        if !is_newer(&file, &built.tar) {
            let input = fs::File::open(&built.tar).with_context(|| format!("opening {}", built.tar.display()))?;
            let output = fs::File::create(&file).with_context(|| format!("creating {}", file.display()))?;
            succeed(Command::new(program).args([level, "-c"]).stdin(input).stdout(output))?;
        }
        let size = fs::metadata(&file).with_context(|| format!("measuring {}", file.display()))?.len();
        Ok(Packed { packing, path, file, size })
    }

    /// Each format has a copy of the pointer to its newest build, because publishing moves the pointer itself.
    fn publish(&self, built: &Built, packing: Packing, format: &str) -> Result<Packed> {
        let store = self.site().join("store").join(&built.name);
        let pointer = self.folder.join(format!("{}.{format}.json", built.name));
        if !is_newer(&pointer, &built.tar) {
            succeed(self.companion().args(["image", "publish", &built.name, "--format", format, "--allow-secrets"]))?;
            fs::copy(store.join("latest.json"), &pointer).with_context(|| format!("copying {}", pointer.display()))?;
        }
        let manifest = field(&pointer, "manifest")?;
        let file = store.join(field(&store.join(&manifest), "file")?);
        let size = fs::metadata(&file).with_context(|| format!("measuring {}", file.display()))?.len();
        Ok(Packed { packing, path: format!("site/store/{}/{manifest}", built.name), file, size })
    }
}

/// A string in a JSON object.
fn field(file: &Path, name: &str) -> Result<String> {
    let reading = || format!("reading {}", file.display());
    let object: Value = serde_json::from_slice(&fs::read(file).with_context(reading)?).with_context(reading)?;
    object.get(name).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("{}: no {name}", reading()))
}

fn is_newer(made: &Path, from: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    time(made) > time(from)
}

/// Different paths in an archive, as GNU tar lists it, but for the root.
fn entries(tar: &Path) -> Result<usize> {
    let mut list = Command::new("tar");
    list.args(["--quoting-style=escape", "-tf"]).arg(tar).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = list.spawn().context("starting tar")?;
    let listing = BufReader::new(child.stdout.take().context("a pipe from tar")?);
    let mut paths = BTreeSet::new();
    for line in listing.lines() {
        let line = line.context("reading what tar lists")?;
        let path = line.trim_start_matches("./").trim_end_matches('/');
        if !path.is_empty() {
            paths.insert(path.to_owned());
        }
    }
    ensure!(child.wait().context("waiting for tar")?.success(), "tar cannot list {}", tar.display());
    Ok(paths.len())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_counted_once_and_the_root_never() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("tree/a")).unwrap();
        fs::write(folder.path().join("tree/a/line\nfeed"), "x").unwrap();
        let tar = folder.path().join("t.tar");
        let mut make = Command::new("tar");
        succeed(make.arg("-cf").arg(&tar).arg("-C").arg(folder.path().join("tree")).args([".", "./a"])).unwrap();
        assert_eq!(entries(&tar).unwrap(), 2);
    }
}

//! An image from elsewhere: a directory, an archive, or an OCI image in a folder, a file or a registry.
//!
//! Registries and formats are skopeo's business, layers and their whiteouts umoci's, archives GNU tar's.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};
use tempfile::{NamedTempFile, TempDir};

use super::build::digest;
use super::built::Made;
use super::unpacked::{failed, needs_root, pack, unpack};
use crate::aside;
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::progress::Progress;

/// The transports of skopeo(1) that are images.
const TRANSPORTS: [&str; 4] = ["docker://", "oci:", "oci-archive:", "docker-archive:"];
/// The first bytes of what each program unpacks.
const PACKED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A name in one of skopeo's transports.
    Image(String),
    /// A directory or an archive.
    Path(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            _ if TRANSPORTS.iter().any(|transport| text.starts_with(transport)) => Ok(Self::Image(text.to_owned())),
            Some((scheme, _)) => {
                Err(format!("`{scheme}://` is nothing to import from; known are {}", TRANSPORTS.join(" ")))
            }
            None => Ok(Self::Path(text.into())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// How to import.
#[derive(Clone, Debug)]
pub struct Options {
    /// Debian's name of the architecture.
    pub arch: String,
    /// Paths that are left out, with all below them.
    pub exclude: Vec<String>,
    /// Take a registry at its word, without TLS.
    pub insecure: bool,
    /// Accept an image that holds secrets.
    pub allow_secrets: bool,
}

/// Makes what `source` holds the build of `name` that is published next.
///
/// # Errors
/// The source cannot be read, a program for it is missing, or the image holds secrets. What was built before stays.
pub fn import(site: &Site, name: &Name, source: &Source, options: &Options) -> Result<()> {
    let built = site.folder("built")?;
    // Held to the end.
    let _claim = aside::claim(&built)?;
    let progress = Progress::spinner(format!("image {name}"));
    progress.step(&format!("importing {source}"));
    let archive = archive(source, options, &built).with_context(|| format!("importing {source}"))?;
    let inputs = digest(&[b"imported", source.to_string().as_bytes(), options.exclude.join("\n").as_bytes()]);
    let made = Made { archive, inputs, arch: options.arch.clone() };
    made.take_its_place(site, name, options.allow_secrets, progress)
}

fn archive(source: &Source, options: &Options, built: &Path) -> Result<NamedTempFile> {
    let path = match source {
        Source::Image(name) => return layers(name, options, built),
        Source::Path(path) => path,
    };
    let metadata = fs::metadata(path).advise(
        format!("reading {}", path.display()),
        "name a directory, an archive, or an image such as docker://registry/name:tag",
    )?;
    if metadata.is_dir() && path.join("oci-layout").exists() {
        return layers(&format!("oci:{}", path.display()), options, built);
    }
    if metadata.is_dir() {
        return pack(path, &options.exclude, built);
    }
    let plain = decompress(path, built)?;
    if options.exclude.is_empty() {
        return Ok(plain);
    }
    needs_root("leaving files out of an archive")?;
    let folder = scratch(built)?;
    let mut file = plain.as_file();
    file.rewind().context("reading the archive")?;
    unpack(file, folder.path())?;
    pack(folder.path(), &options.exclude, built)
}

/// A folder on the site's own disk, which has room for images; what a killed run leaves of it is swept.
fn scratch(built: &Path) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(aside::PREFIX).tempdir_in(built);
    folder.with_context(|| format!("making a folder in {}", built.display()))
}

/// The archive without its compression.
fn decompress(path: &Path, built: &Path) -> Result<NamedTempFile> {
    let reading = || format!("reading {}", path.display());
    let mut source = File::open(path).with_context(reading)?;
    let mut head = Vec::new();
    source.by_ref().take(8).read_to_end(&mut head).with_context(reading)?;
    source.rewind().with_context(reading)?;
    let mut fresh = aside::begin(&built.join("archive"))?;
    let Some((_, program)) = PACKED.iter().find(|(magic, _)| head.starts_with(magic)) else {
        std::io::copy(&mut source, &mut fresh).with_context(reading)?;
        return Ok(fresh);
    };
    let mut command = Command::new(program);
    command.args(["-d", "-c"]).args((*program == "zstd").then_some("--long=31"));
    let out = fresh.as_file().try_clone().context("writing the archive")?;
    let output = command.stdin(source).stdout(out).stderr(Stdio::piped()).output();
    let output = output.advise(format!("starting {program}"), format!("install it: apt-get install {program}"))?;
    if !output.status.success() {
        return Err(failed(
            &format!("decompressing {}", path.display()),
            output.status,
            &String::from_utf8_lossy(&output.stderr),
        ));
    }
    Ok(fresh)
}

/// An image's layers, one over the other.
fn layers(name: &str, options: &Options, built: &Path) -> Result<NamedTempFile> {
    needs_root("unpacking layers")?;
    let folder = scratch(built)?;
    let (layout, root) = (folder.path().join("layout"), folder.path().join("root"));
    let image = format!("{}:image", layout.display());
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "--override-os", "linux", "--override-arch", &options.arch, "copy", "--quiet"]);
    skopeo.args(options.insecure.then_some("--src-tls-verify=false")).arg(name).arg(format!("oci:{image}"));
    run(
        &mut skopeo,
        "skopeo",
        &format!("copying {name}"),
        "look at the name, the registry and the way to it; skopeo(1) logs in to registries",
    )?;
    let mut umoci = Command::new("umoci");
    umoci.args(["raw", "unpack", "--image", &image]).arg(&root);
    run(
        &mut umoci,
        "umoci",
        &format!("unpacking the layers of {name}"),
        "copy the image again; its layers may be damaged",
    )?;
    pack(&root, &options.exclude, built)
}

fn run(command: &mut Command, program: &str, what: &str, todo: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.advise(format!("starting {program}"), format!("install it: apt-get install {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = failed(what, output.status, &String::from_utf8_lossy(&output.stderr));
    Err(refuse(format!("{why:#}"), todo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_image_or_a_path() {
        let image = |text: &str| assert_eq!(text.parse(), Ok(Source::Image(text.to_owned())), "{text}");
        image("docker://registry:5000/compute:1");
        image("oci:/srv/layout:tag");
        image("docker-archive:x.tar");
        assert_eq!("/srv/docker".parse(), Ok(Source::Path("/srv/docker".into())));
        assert_eq!("a:b.tar".parse(), Ok(Source::Path("a:b.tar".into())));
        let error = "http://x/i.tar".parse::<Source>().unwrap_err();
        assert!(error.contains("`http://`"), "{error}");
    }
}

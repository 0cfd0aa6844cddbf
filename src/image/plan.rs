//! From what is asked for to a root that may be switched to.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::filesystem::Kind;
use super::mirrors::Mirrors;
use super::preflight::Machine;
use super::published::Published;
use super::stream::{self, Layer, Pass};
use super::{Facts, Sources, Tally, Trust, Unpack, mount, overlay};
use crate::failure::{Advise as _, refuse};
use crate::mounts::Needs;
use crate::say;

/// An image about to be installed. Of a published one everything but its bytes is known, and was verified.
pub struct Plan<'a> {
    sources: Sources<'a>,
    mirrors: Mirrors<'a>,
    published: Option<Published>,
}

/// Finds out what is to be installed: a published image's manifest is fetched, verified and compared with the
/// machine. Nothing is known of a plain image. `tally` is filled in either way.
///
/// # Errors
/// The manifest cannot be fetched within `rootstream.retry=`, is not signed or otherwise not to be trusted, or the
/// image is for another machine.
pub fn plan<'a>(sources: Sources<'a>, machine: &Machine, tally: &mut Tally) -> anyhow::Result<Plan<'a>> {
    let mirrors = Mirrors::new(sources)?;
    let published = Published::find(sources, machine, &mirrors);
    *tally = mirrors.tally();
    let published = published?;
    if let (None, Some(not_before)) = (&published, &sources.settings.not_before) {
        let urls = sources.settings.urls.join(" ");
        let what = format!("{urls} is a plain image: it does not say whether it was published before {not_before}");
        return Err(refuse(what, "publish it (rootstream image publish), or take rootstream.not-before= out"));
    }
    Ok(Plan { sources, mirrors, published })
}

impl Plan<'_> {
    /// What the image needs of the file system that it is unpacked into, as far as it is known.
    pub fn needs(&self) -> Needs {
        self.published.as_ref().map(Published::needs).unwrap_or_default()
    }

    /// Streams the image into `root`, an empty directory, verifies it, mounts it there if it is a file system and
    /// `unpack` says how, and unpacks what goes on top of it; `tally` is filled in either way.
    ///
    /// # Errors
    /// The image or an overlay does not fit, cannot be fetched within `rootstream.retry=`, is damaged, incomplete, not
    /// an image, or not the one that was asked for; or it cannot be mounted. `root` then holds rubbish.
    pub fn install(&self, unpack: Unpack, root: &Path, tally: &mut Tally) -> anyhow::Result<Installed> {
        let installed = match &self.published {
            Some(published) => {
                published.install(&self.mirrors, unpack, root).map(|facts| (facts, Kind::of(published.manifest.media)))
            }
            None => passes(self.sources, unpack, root, &self.mirrors),
        };
        *tally = self.mirrors.tally();
        let (facts, kind) = installed?;
        match (kind, unpack.mount) {
            (None, _) => {}
            (Some(_), None) => return Ok(Installed::File(facts)),
            (Some(kind), Some(mounting)) => mount::mount_image(kind, root, mounting.run, mounting.options)
                .with_context(|| format!("mounting the image {}", facts.url))?,
        }
        let build = facts.build.as_ref().map(|build| build.build.as_str());
        let overlays = overlay::apply(self.sources, build, unpack, root, tally)?;
        Ok(Installed::Root(VerifiedRoot { path: root.to_owned(), facts, overlays }))
    }
}

/// What became of an image that passed every check that applies.
#[derive(Debug)]
pub enum Installed {
    /// It is the root.
    Root(VerifiedRoot),
    /// It is a file system and stays a file, the only one in the directory, because nothing was to be mounted.
    File(Facts),
}

impl Installed {
    /// The root, if there is one.
    pub fn root(self) -> Option<VerifiedRoot> {
        match self {
            Self::Root(root) => Some(root),
            Self::File(_) => None,
        }
    }
}

/// A root file system that passed every check that applies. Only [`Plan::install`] makes one, and only one of
/// these can be switched to.
#[derive(Debug)]
pub struct VerifiedRoot {
    path: PathBuf,
    facts: Facts,
    overlays: Vec<Facts>,
}

impl VerifiedRoot {
    /// Where the root is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was learnt about the image on the way.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The same about what went on top of it, in order.
    pub fn overlays(&self) -> &[Facts] {
        &self.overlays
    }

    /// How far all of it was verified: as far as the least of its parts.
    pub fn trust(&self) -> Trust {
        self.overlays.iter().map(|overlay| overlay.trust).fold(self.facts.trust, Ord::min)
    }
}

/// As many passes over a plain image as it takes.
fn passes(
    sources: Sources<'_>,
    unpack: Unpack,
    root: &Path,
    mirrors: &Mirrors<'_>,
) -> anyhow::Result<(Facts, Option<Kind>)> {
    let fresh = std::fs::read_dir(root).with_context(|| format!("listing {}", root.display()))?.next().is_none();
    loop {
        let start = Instant::now();
        match stream::pass(sources, Layer::Image, unpack, root, mirrors)? {
            Pass::Complete(facts, kind) => return Ok((*facts, kind)),
            Pass::Damaged(error) if mirrors.blame() => {
                mirrors.begin_again(Duration::ZERO);
                say::warn!("image: {error:#}; starting again in an empty tree, from another mirror");
                empty(root, fresh)?;
            }
            Pass::Damaged(error) => return Err(error),
            Pass::Restart(why) => {
                // What was fetched so far was in vain.
                if !mirrors.begin_again(start.elapsed()) {
                    let todo = "serve each build under a name of its own, so that it never changes";
                    return Err(refuse(why, todo).context("the image changed too often while it was fetched"));
                }
                say::warn!("image: {why}; starting again in an empty tree");
                empty(root, fresh)?;
            }
        }
    }
}

/// Removes what a directory holds, if all of it is ours: `fresh` says that it was empty.
fn empty(root: &Path, fresh: bool) -> anyhow::Result<()> {
    if !fresh {
        let what = format!("{} was not empty, so it is not emptied for another start", root.display());
        return Err(refuse(what, "name an empty folder"));
    }
    let remove = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().advise(format!("emptying {}", root.display()), "check that file system")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_removed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("theirs")).unwrap();
        let error = empty(root.path(), false).unwrap_err().to_string();
        assert!(error.contains("was not empty"), "{error}");
        assert!(root.path().join("theirs").exists());
        empty(root.path(), true).unwrap();
        assert!(!root.path().join("theirs").exists());
    }
}

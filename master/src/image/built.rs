//! `built/NAME.tar`, what was built last, and `built/NAME.json`, what it was made from.

use std::fs::{self, File};
use std::io::{BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::canon::Tree;
use super::survey::survey;
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::progress::{Progress, megabytes};
use crate::{aside, clock};

/// A built image. It stays what it is when another build takes its name meanwhile.
#[derive(Debug)]
pub struct Built {
    archive: File,
    path: PathBuf,
    arch: String,
}

/// `built/NAME.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) inputs: String,
    pub(super) created: String,
    pub(super) arch: String,
    pub(super) bytes: u64,
}

/// An archive that was just made, before it is looked at.
#[derive(Debug)]
pub(super) struct Made {
    /// A plain tar archive, aside in the folder `built`.
    pub(super) archive: NamedTempFile,
    /// What tells it from one that was made of anything else.
    pub(super) inputs: String,
    /// Debian's name of its architecture.
    pub(super) arch: String,
}

impl Made {
    /// Looks at it, and makes it what was built last of `name`, in the place of what was before.
    ///
    /// # Errors
    /// It holds secrets that are not allowed, is no sound archive, or the disk refuses. What was before stays.
    pub(super) fn take_its_place(
        self,
        site: &Site,
        name: &Name,
        allow_secrets: bool,
        progress: Progress,
    ) -> Result<()> {
        let Self { archive: fresh, inputs, arch } = self;
        let (archive, record_file) =
            (site.built().join(format!("{name}.tar")), site.built().join(format!("{name}.json")));
        progress.step("looking for secrets");
        let reading = || format!("reading the archive of {name}");
        let finished = File::open(fresh.path()).with_context(reading)?;
        let tree = Tree::read(BufReader::with_capacity(1 << 20, &finished)).with_context(reading)?;
        let found = survey(&tree, &finished).with_context(reading)?;
        found.refuse_secrets(name, allow_secrets)?;
        // The record goes first: with the old archive's size it no longer fits, so a kill between the
        // two means another build, never a wrong one taken for current.
        let bytes = fs::metadata(fresh.path()).context("measuring the archive")?.len();
        let record = Record { inputs, created: clock::rfc3339(SystemTime::now()), arch, bytes };
        let _ = fs::remove_file(&archive);
        aside::write(&record_file, &serde_json::to_vec_pretty(&record).context("writing the record")?)?;
        aside::finish(fresh, &archive)?;
        let kernels: Vec<_> = found.kernels.iter().map(String::as_str).collect();
        progress.done(&format!(
            "{} in {} inodes, kernels: {}",
            megabytes(found.bytes),
            found.inodes,
            if kernels.is_empty() { "none".to_owned() } else { kernels.join(", ") }
        ));
        Ok(())
    }
}

impl Built {
    /// The image `name` as built before.
    ///
    /// # Errors
    /// It never was, or is being replaced at this moment.
    pub fn of(site: &Site, name: &Name) -> Result<Self> {
        let path = site.built().join(format!("{name}.tar"));
        let record = site.built().join(format!("{name}.json"));
        if !path.exists() || !record.exists() {
            return Err(refuse(
                format!("the image {name} is not built: there is no {}", path.display()),
                format!("build it: rootstream image build {name}"),
            ));
        }
        let archive = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let record: Record = serde_json::from_slice(&fs::read(&record)?).advise(
            format!("reading {}", record.display()),
            format!("build it again: rootstream image build {name}"),
        )?;
        // A build takes the old archive away before it writes its record, so while the name leads
        // to the file that is open, the record is of that file.
        if !leads_to(&path, &archive)? {
            return Err(refuse(
                format!("a build is replacing {} at this moment", path.display()),
                "run this again when the build has ended",
            ));
        }
        Ok(Self { archive, path, arch: record.arch })
    }

    /// The plain tar archive, from its beginning.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn archive(&self) -> Result<BufReader<&File>> {
        let mut archive = &self.archive;
        archive.rewind().with_context(|| format!("reading {}", self.path.display()))?;
        Ok(BufReader::with_capacity(1 << 20, archive))
    }

    /// The same as a file, for reading at places.
    pub(super) fn file(&self) -> &File {
        &self.archive
    }

    /// The archive's name when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Debian's name of its architecture.
    pub fn arch(&self) -> &str {
        &self.arch
    }
}

fn leads_to(path: &Path, file: &File) -> Result<bool> {
    let open = file.metadata().with_context(|| format!("reading {}", path.display()))?;
    Ok(fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (open.dev(), open.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_another_file_took_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.tar");
        fs::write(&path, "old").unwrap();
        let file = File::open(&path).unwrap();
        assert!(leads_to(&path, &file).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!leads_to(&path, &file).unwrap());
        fs::write(&path, "new").unwrap();
        assert!(!leads_to(&path, &file).unwrap());
    }
}

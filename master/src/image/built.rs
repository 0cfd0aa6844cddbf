//! `built/NAME.tar`, what was built last, and `built/NAME.json`, what it was made from.

use std::fs::{self, File};
use std::io::{BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};
use serde::{Deserialize, Serialize};

use crate::config::addresses::Name;
use crate::config::site::Site;

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

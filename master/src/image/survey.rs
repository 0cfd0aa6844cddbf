//! One look through an image's archive: how big it is, which kernels and init it has, what must not be in it.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::secrets;

/// What an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes of all files.
    pub bytes: u64,
    /// Pages of 4 KiB that they fill.
    pub pages: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of the largest file.
    pub largest: u64,
    /// Kernel releases that have modules in it.
    pub kernels: BTreeSet<String>,
    /// The path of its init.
    pub init: Option<String>,
    /// What makes it unfit for sharing, one sentence each.
    pub secrets: Vec<String>,
}

/// Looks through a tar archive, best through a buffer.
///
/// # Errors
/// It cannot be read, or is no tar archive.
pub fn survey(archive: impl Read + Seek) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for entry in Archive::new(archive).entries_with_seek()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let name = plain(&entry.path()?);
        if kind == EntryType::Link {
            // Another name for content that was looked at where it is; the name may tell more.
            survey.secrets.extend(secrets::found(&name, &[]));
        } else {
            survey.inodes += 1;
        }
        survey.note_path(&name);
        if !matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse) {
            continue;
        }
        let size = entry.size();
        survey.bytes += size;
        survey.pages += size.div_ceil(4096);
        survey.largest = survey.largest.max(size);
        if let Some(limit) = secrets::worth_reading(&name, size) {
            let mut content = Vec::new();
            entry.by_ref().take(limit).read_to_end(&mut content)?;
            survey.secrets.extend(secrets::found(&name, &content));
        }
    }
    Ok(survey)
}

impl Survey {
    fn note_path(&mut self, name: &Path) {
        // Debian links /lib and /sbin into /usr; other systems, and older ones, have them apart.
        let unified = name.strip_prefix("usr").unwrap_or(name);
        if let Ok(inside) = unified.strip_prefix("lib/modules")
            && let Some(release) = inside.components().next()
        {
            self.kernels.insert(release.as_os_str().to_string_lossy().into_owned());
        }
        if unified == Path::new("sbin/init") {
            self.init = Some("/sbin/init".to_owned());
        }
    }
}

/// An entry's name without a leading `./` or `/`.
pub(crate) fn plain(name: &Path) -> PathBuf {
    name.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect()
}

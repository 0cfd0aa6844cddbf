//! Whether an unpacked image fits the machine: init, architecture, kernel release.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::failure::Advise;
use crate::inside;

/// How the image fits the machine that it is to run on. Each field is `same`, `not checked`, or a
/// sentence with both values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// The kernel's release against the image's /lib/modules.
    pub kernel: String,
    /// The machine's architecture against that of the image's init.
    pub arch: String,
}

const SAME: &str = "same";
const NOT_CHECKED: &str = "not checked";

impl Default for Checks {
    fn default() -> Self {
        Self { kernel: NOT_CHECKED.to_owned(), arch: NOT_CHECKED.to_owned() }
    }
}

impl Checks {
    /// Compares the image unpacked at `root`, whose init is made for `image_arch`, with a machine. What
    /// is `None` is not checked, nor is the kernel where the image holds no modules.
    pub fn compare(root: &Path, image_arch: &str, release: Option<&str>, arch: Option<&str>) -> Self {
        let mut checks = Self::default();
        let has = releases(root);
        if let (Some(release), false) = (release, has.is_empty()) {
            checks.kernel = if has.contains(release) {
                SAME.to_owned()
            } else {
                let has = has.into_iter().collect::<Vec<_>>().join(", ");
                format!("the image has modules for kernel {has}, but the kernel is {release}")
            };
        }
        if let Some(arch) = arch {
            checks.arch = if image_arch == arch {
                SAME.to_owned()
            } else {
                format!("the image's init is made for {image_arch}, but the machine is {arch}")
            };
        }
        checks
    }

    /// Refuses the image at `url` when its programs cannot run here.
    ///
    /// # Errors
    /// They cannot.
    pub fn refuse_arch(&self, url: &str) -> anyhow::Result<()> {
        if self.arch == SAME || self.arch == NOT_CHECKED {
            return Ok(());
        }
        Err(anyhow::anyhow!("{}", self.arch)).advise(
            format!("the image {url} cannot run on this machine"),
            "name an image for this architecture in rootstream.image=",
        )
    }

    /// The sentences about what does not fit.
    pub fn mismatches(&self) -> Vec<String> {
        [&self.kernel, &self.arch]
            .into_iter()
            .filter(|check| *check != SAME && *check != NOT_CHECKED)
            .cloned()
            .collect()
    }
}

/// Kernel releases that the image holds modules for, links followed inside the image only.
fn releases(root: &Path) -> BTreeSet<String> {
    ["/lib/modules", "/usr/lib/modules"]
        .iter()
        .filter_map(|folder| fs::read_dir(inside::resolve(root, Path::new(folder)).ok()?).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(release: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib/modules").join(release)).unwrap();
        std::os::unix::fs::symlink("/usr/lib", root.path().join("lib")).unwrap();
        root
    }

    #[test]
    fn what_was_not_asked_is_not_checked() {
        let checks = Checks::compare(image("6.1.0-1").path(), "x86_64", None, None);
        assert_eq!(checks, Checks::default());
        assert!(checks.mismatches().is_empty());
    }

    #[test]
    fn a_fitting_image_is_the_same() {
        let checks = Checks::compare(image("6.1.0-1").path(), "x86_64", Some("6.1.0-1"), Some("x86_64"));
        assert_eq!((checks.kernel.as_str(), checks.arch.as_str()), (SAME, SAME));
    }

    // F37
    #[test]
    fn both_values_of_a_mismatch_are_said() {
        let checks = Checks::compare(image("6.1.0-1").path(), "aarch64", Some("6.12.3"), Some("x86_64"));
        let mismatches = checks.mismatches();
        assert_eq!(mismatches[0], "the image has modules for kernel 6.1.0-1, but the kernel is 6.12.3");
        assert_eq!(mismatches[1], "the image's init is made for aarch64, but the machine is x86_64");
        let none = tempfile::tempdir().unwrap();
        assert_eq!(Checks::compare(none.path(), "x86_64", Some("6.12.3"), None).kernel, NOT_CHECKED);
    }
}

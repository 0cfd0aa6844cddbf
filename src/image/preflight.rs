//! What a manifest tells before the first byte of the image: whether it fits this machine at all.

use std::path::Path;

use anyhow::Context as _;
use nix::sys::statvfs::statvfs;

use super::manifest::Manifest;
use super::progress::megabytes;
use crate::failure::refuse;
use crate::mounts::Needs;

/// The machine that the image is to run on; what is not known is not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its kernel's release, as `uname -r`.
    pub release: Option<String>,
    /// Its architecture, as `uname -m`.
    pub arch: Option<String>,
}

/// Refuses an image for another architecture or kernel, or from before `not_before`.
///
/// # Errors
/// It is one; both values are named.
pub(super) fn check(manifest: &Manifest, machine: &Machine, not_before: Option<&str>) -> anyhow::Result<()> {
    let Manifest { name, build, .. } = manifest;
    let image = format!("the image {name}, build {build}, is refused");
    if let Some(not_before) = not_before.filter(|not_before| manifest.created.as_str() < *not_before) {
        let why = format!("it was published {}, before {not_before}", manifest.created);
        let todo = "boot a newer build, or change rootstream.not-before=";
        return Err(refuse(why, todo)).context(image);
    }
    let arch = kernel_name(&manifest.arch);
    if let Some(machine) = machine.arch.as_deref().filter(|machine| kernel_name(machine) != arch) {
        let why = format!("it is for {arch} ({}), but the machine is {machine}", manifest.arch);
        let todo = "name an image for this architecture in rootstream.image=";
        return Err(refuse(why, todo)).context(image);
    }
    if let Some(release) = &machine.release
        && !manifest.kernels.is_empty()
        && !manifest.kernels.contains(release)
    {
        let why = format!("it has modules for kernel {}, but the kernel is {release}", manifest.kernels.join(", "));
        let todo = format!(
            "make kernel and initramfs from this image (rootstream bootstrap {name}), or build the image with this kernel"
        );
        return Err(refuse(why, todo)).context(image);
    }
    Ok(())
}

/// Refuses an image that does not fit into the file system at `root`.
///
/// # Errors
/// It does not; both sizes are named.
pub(super) fn check_room(manifest: &Manifest, needs: Needs, root: &Path) -> anyhow::Result<()> {
    let free = statvfs(root).with_context(|| format!("asking how much room {} has", root.display()))?;
    let bytes = free.blocks_available().saturating_mul(free.fragment_size());
    // A file system without a size, such as ramfs, has room for anything; btrfs and others count no inodes.
    let short_of_bytes = free.blocks() > 0 && needs.bytes > bytes;
    let short_of_inodes = free.files() > 0 && needs.inodes > free.files_available();
    if !short_of_bytes && !short_of_inodes {
        return Ok(());
    }
    let why = format!(
        "it needs {} MB and {} inodes; {} has {} MB and {} inodes free",
        megabytes(needs.bytes),
        needs.inodes,
        root.display(),
        megabytes(bytes),
        free.files_available()
    );
    let todo =
        "give the node more memory (or a larger rootstream.tmpfs=size= or nr_inodes=), or make the image smaller";
    Err(refuse(why, todo)).context(format!("the image {}, build {}, does not fit", manifest.name, manifest.build))
}

/// The kernel's name of an architecture that Debian names otherwise.
fn kernel_name(debian: &str) -> &str {
    match debian {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "i386" => "x86",
        "armhf" | "armel" => "arm",
        "ppc64el" => "powerpc64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::{Chunk, Digest, FORMAT, Media};

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            name: "compute".to_owned(),
            build: "b".to_owned(),
            created: "2026-11-22T18:00:00Z".to_owned(),
            arch: "amd64".to_owned(),
            kernels: vec!["6.1.0-41-amd64".to_owned()],
            media: Media::TarZstd,
            file: "b.tar.zst".to_owned(),
            size: 1,
            sha256: Digest([0; 32]),
            unpacked_bytes: 1,
            unpacked_pages: 1,
            inodes: 1,
            largest_file: 1,
            init: None,
            chunks: vec![Chunk { offset: 0, size: 1, unpacked: 1, sha256: Digest([0; 32]), continues: None }],
        }
    }

    fn machine(release: &str, arch: &str) -> Machine {
        Machine { release: Some(release.to_owned()), arch: Some(arch.to_owned()) }
    }

    // F36, F37
    #[test]
    fn what_does_not_fit_is_refused_with_both_values() {
        let fits = machine("6.1.0-41-amd64", "x86_64");
        check(&manifest(), &fits, Some("2026-11-22T18:00:00Z")).unwrap();
        check(&manifest(), &Machine::default(), None).unwrap();
        let why = |machine: &Machine, not_before| format!("{:#}", check(&manifest(), machine, not_before).unwrap_err());
        let kernel = why(&machine("6.12.1", "x86_64"), None);
        assert!(kernel.contains("modules for kernel 6.1.0-41-amd64, but the kernel is 6.12.1"), "{kernel}");
        assert!(
            why(&machine("6.1.0-41-amd64", "aarch64"), None).contains("for x86_64 (amd64), but the machine is aarch64")
        );
        assert!(why(&fits, Some("2026-11-22T18:00:01Z")).contains("before 2026-11-22T18:00:01Z"));
        // An image without modules is for any kernel.
        let bare = Manifest { kernels: Vec::new(), ..manifest() };
        check(&bare, &machine("6.12.1", "x86_64"), None).unwrap();
    }

    // F54
    #[test]
    fn an_image_that_does_not_fit_is_refused_with_both_sizes() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        check_room(&manifest(), Needs { bytes: 1 << 20, inodes: 10 }, root.path()).unwrap();
        for needs in [Needs { bytes: 1 << 50, inodes: 10 }, Needs { bytes: 10, inodes: 1 << 50 }] {
            let error = format!("{:#}", check_room(&manifest(), needs, root.path()).unwrap_err());
            assert!(error.contains("build b, does not fit: it needs"), "{error}");
        }
    }
}

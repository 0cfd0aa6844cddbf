//! Where the files go: to stdout, or into a folder, where nothing of anybody else's is replaced.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};

use super::guide::MARK;
use super::{Export, File};
use crate::{aside, say};

/// Prints the files, each under its name where there are several.
pub(super) fn print(export: &Export) {
    for File { path, text } in &export.files {
        if export.files.len() > 1 {
            say::result(format_args!("==> {path} <=="));
        }
        say::result(text.trim_end_matches('\n'));
    }
}

/// Writes the files and their loaders into `folder`; what this wrote there before and is no more vanishes. In `own`,
/// the site's folder for boot files, everything may be replaced; elsewhere what this did not write only with `force`.
///
/// # Errors
/// A file there is somebody else's, a loader is not installed, or the disk refuses.
pub(super) fn write(export: &Export, folder: &Path, own: &Path, force: bool) -> Result<()> {
    fs::create_dir_all(folder).advise(
        format!("making the folder {}", folder.display()),
        "name a folder that you can write to, or run this as root",
    )?;
    let ours = force || same(folder, own);
    for File { path, .. } in &export.files {
        let target = folder.join(path);
        if !ours && target.exists() && !is_marked(&target) {
            return Err(refuse(
                format!(
                    "{} is there already, and was not written by rootstream; nothing was changed",
                    target.display()
                ),
                "look at it, and move it away; or replace it with --force",
            ));
        }
    }
    for (name, source) in &export.loaders {
        let target = folder.join(name);
        let content = fs::read(source).advise(
            format!("reading the boot loader {source}"),
            "install it: apt-get install pxelinux syslinux-common",
        )?;
        // The server's own may be another version, which goes with what else is there.
        if same(folder, own) || !target.exists() {
            put(&target, &content)?;
        }
    }
    for File { path, text } in &export.files {
        put(&folder.join(path), text.as_bytes())?;
    }
    remove_stale(export, folder)
}

fn put(target: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making the folder {}", parent.display()))?;
    }
    aside::write(target, content)?;
    say::note(format_args!("wrote {}", target.display()));
    Ok(())
}

/// Removes the marked files beside those of `export` in its subfolders: menus of nodes that are gone.
fn remove_stale(export: &Export, folder: &Path) -> Result<()> {
    let written: BTreeSet<&Path> = export.files.iter().map(|file| Path::new(&file.path)).collect();
    let folders: BTreeSet<&Path> =
        written.iter().filter_map(|path| path.parent()).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for sub in folders {
        let listed = fs::read_dir(folder.join(sub)).with_context(|| format!("listing {}", sub.display()))?;
        for entry in listed.flatten() {
            if !written.contains(sub.join(entry.file_name()).as_path()) && is_marked(&entry.path()) {
                fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
                say::note(format_args!("removed {}", entry.path().display()));
            }
        }
    }
    Ok(())
}

/// Whether this command wrote a file: its first lines say so.
fn is_marked(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.lines().take(2).any(|line| line.contains(MARK)))
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

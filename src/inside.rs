//! Paths inside an image that is not `/` yet.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Where `path` is when `root` is `/`: links are followed inside `root` only.
pub(crate) fn resolve(root: &Path, path: &Path) -> Result<PathBuf> {
    let mut todo: Vec<OsString> = components(path);
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let here = root.join(&done).join(&name);
        match fs::read_link(&here) {
            Ok(target) => {
                links += 1;
                ensure!(links <= MAX_LINKS, "{} is a loop of links", path.display());
                if target.is_absolute() {
                    done.clear();
                }
                todo.extend(components(&target));
            }
            // Not a link, or not there; whoever opens it finds out.
            Err(_) => done.push(name),
        }
    }
    Ok(root.join(done))
}

/// The components of a path, last first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_the_image() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        symlink("/bin", root.path().join("usr")).unwrap();
        symlink("../../../../etc/passwd", root.path().join("bin/out")).unwrap();
        let at = resolve(root.path(), Path::new("/usr/out")).unwrap();
        assert_eq!(at, root.path().join("etc/passwd"));
    }
}

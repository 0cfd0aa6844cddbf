//! Firmware files that packed modules name (`modinfo -F firmware`), out of the image's /lib/firmware.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use rootstream::modules::pattern;

use super::elf;

/// Where the image has firmware, without the `usr/` that Debian's `/lib` leads to.
pub(super) const FOLDER: &str = "lib/firmware";
/// Compressed firmware, which no kernel before 5.3 reads.
const SUFFIXES: [&str; 3] = ["", ".zst", ".xz"];
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// The names of the firmware files that a module may ask for; `*`, `?` and `[…]` stand for parts of a name.
pub(super) fn named_by(module: &[u8]) -> Vec<String> {
    let info = elf::section(module, ".modinfo").unwrap_or_default();
    let fields = info.split(|byte| *byte == 0).filter_map(|field| field.strip_prefix(b"firmware="));
    fields.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// The firmware that an image has.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// Paths in the image, with where links lead.
    entries: BTreeMap<String, Option<PathBuf>>,
}

impl Shelf {
    /// Notes a file, or a link to `target`, below [`FOLDER`].
    pub(super) fn add(&mut self, path: &str, target: Option<PathBuf>) {
        self.entries.insert(path.to_owned(), target);
    }

    /// The files that a kernel of this release would take for `name`: the names that it asks for, and the files in the
    /// image, perhaps with the suffix of a compression.
    pub(super) fn find(&self, release: &str, name: &str) -> BTreeMap<String, String> {
        let folders = [format!("updates/{release}/"), "updates/".to_owned(), format!("{release}/"), String::new()];
        let mut found = BTreeMap::new();
        // Later ones are overwritten: the kernel looks in this order.
        for folder in folders.iter().rev() {
            for suffix in SUFFIXES.iter().rev() {
                let front = format!("{FOLDER}/{folder}");
                let pattern = format!("{front}{name}{suffix}");
                let exact = self.entries.contains_key(&pattern).then(|| pattern.clone());
                let globbed = self.entries.keys().filter(|path| {
                    pattern.contains(['*', '?', '[']) && path.ends_with(suffix) && pattern::matches(&pattern, path)
                });
                for path in exact.into_iter().chain(globbed.cloned()) {
                    let asked = path.strip_prefix(&front).and_then(|path| path.strip_suffix(suffix));
                    if let (Some(asked), Some(file)) = (asked, self.resolve(&path)) {
                        found.insert(asked.to_owned(), file);
                    }
                }
            }
        }
        found
    }

    /// The file that a path leads to.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.entries.get(&path)? {
                None => return Some(path),
                Some(target) => path = beside(Path::new(&path), target)?,
            }
        }
        None
    }
}

/// Where a link at `path` leads, in the image.
fn beside(path: &Path, target: &Path) -> Option<String> {
    let mut all = if target.is_absolute() { PathBuf::new() } else { path.parent()?.to_owned() };
    for component in target.components() {
        match component {
            Component::Normal(name) => all.push(name),
            Component::ParentDir => drop(all.pop()),
            _ => {}
        }
    }
    let all = all.strip_prefix("usr").unwrap_or(&all);
    Some(all.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_is_found_where_the_kernel_looks() {
        let mut shelf = Shelf::default();
        for file in
            ["bnx2/a.fw", "bnx2/b.fw.xz", "updates/bnx2/a.fw", "6.1/c.fw.zst", "g/1.bin", "g/2.bin.xz", "g/3.txt"]
        {
            shelf.add(&format!("lib/firmware/{file}"), None);
        }
        shelf.add("lib/firmware/link.fw", Some("bnx2/b.fw".into()));
        shelf.add("lib/firmware/link.fw.xz", Some("bnx2/b.fw.xz".into()));
        shelf.add("lib/firmware/x/up.fw", Some("../bnx2/a.fw".into()));
        shelf.add("lib/firmware/abs.fw", Some("/usr/lib/firmware/bnx2/a.fw".into()));
        shelf.add("lib/firmware/circle", Some("circle".into()));
        for (name, expected) in [
            ("bnx2/a.fw", &[("bnx2/a.fw", "updates/bnx2/a.fw")][..]),
            ("bnx2/b.fw", &[("bnx2/b.fw", "bnx2/b.fw.xz")]),
            ("c.fw", &[("c.fw", "6.1/c.fw.zst")]),
            ("link.fw", &[("link.fw", "bnx2/b.fw.xz")]),
            ("x/up.fw", &[("x/up.fw", "bnx2/a.fw")]),
            ("abs.fw", &[("abs.fw", "bnx2/a.fw")]),
            ("g/*.bin", &[("g/1.bin", "g/1.bin"), ("g/2.bin", "g/2.bin.xz")]),
            ("circle", &[]),
            ("none.fw", &[]),
        ] {
            let found = shelf.find("6.1", name);
            let front = |(asked, file): &(&str, &str)| ((*asked).to_owned(), format!("lib/firmware/{file}"));
            assert_eq!(found, expected.iter().map(front).collect(), "{name}");
        }
    }

    #[test]
    fn what_is_no_module_names_none() {
        assert!(named_by(b"no module").is_empty());
        assert!(named_by(&std::fs::read("/bin/true").unwrap()).is_empty());
    }
}

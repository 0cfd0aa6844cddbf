//! Which module files an initramfs needs: those in modules.txt, and all that they depend on.
//!
//! The formats are those of depmod: modules.dep(5), modules.softdep, modules.builtin.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What modules.txt and a kernel's module folder come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Module files, relative to `/lib/modules/RELEASE`, as in modules.dep.
    pub files: BTreeSet<String>,
    /// Names in modules.txt that the kernel knows neither as module nor as built in.
    pub missing: Vec<String>,
}

/// What depmod wrote for one kernel.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// From a file to the files it needs, in the order of modules.dep.
    needs: BTreeMap<String, Vec<String>>,
    /// From a normalised name to its file.
    files: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
    /// From a normalised name to names that are loaded before or after it where they exist.
    soft: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Reads the texts of modules.dep, modules.softdep and modules.builtin.
    pub fn read(dep: &str, softdep: &str, builtin: &str) -> Self {
        let mut index = Self::default();
        for line in dep.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            index.files.insert(module_name(file), file.to_owned());
            index.needs.insert(file.to_owned(), needs.split_whitespace().map(str::to_owned).collect());
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next() else { continue };
            let wanted = words.filter(|word| !word.ends_with(':')).map(module_name);
            index.soft.entry(module_name(name)).or_default().extend(wanted);
        }
        index.builtin = builtin.lines().map(module_name).collect();
        index
    }

    /// The files that the modules named in the text of a modules.txt need.
    pub fn closure(&self, modules_txt: &str) -> Closure {
        let mut closure = Closure::default();
        let mut queue = VecDeque::new();
        for name in names(modules_txt) {
            match self.files.get(&module_name(name)) {
                Some(file) => queue.push_back(file),
                None if self.builtin.contains(&module_name(name)) => {}
                None => closure.missing.push(name.to_owned()),
            }
        }
        while let Some(file) = queue.pop_front() {
            if !closure.files.insert(file.clone()) {
                continue;
            }
            queue.extend(self.needs.get(file).into_iter().flatten());
            let soft = self.soft.get(&module_name(file)).into_iter().flatten();
            queue.extend(soft.filter_map(|name| self.files.get(name)));
        }
        closure
    }

    /// modules.dep of only these files, which the initramfs holds expanded: without the suffix
    /// of their compression.
    pub fn dep_of(&self, files: &BTreeSet<String>) -> String {
        let mut text = String::new();
        for file in files {
            text.push_str(expanded(file));
            text.push(':');
            for need in self.needs.get(file).into_iter().flatten() {
                text.push(' ');
                text.push_str(expanded(need));
            }
            text.push('\n');
        }
        text
    }

    /// modules.softdep of only these files.
    pub fn softdep_of(&self, files: &BTreeSet<String>, softdep: &str) -> String {
        let kept: BTreeSet<String> = files.iter().map(|file| module_name(file)).collect();
        let ours = |line: &&str| {
            let mut words = line.split_whitespace();
            words.next() == Some("softdep") && words.next().is_some_and(|name| kept.contains(&module_name(name)))
        };
        softdep.lines().filter(ours).flat_map(|line| [line, "\n"]).collect()
    }
}

/// The names in a modules.txt: the first word of each line, `#` starts a comment.
pub fn names(modules_txt: &str) -> impl Iterator<Item = &str> {
    modules_txt.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next())
}

/// The file's name without the suffix of its compression.
pub fn expanded(file: &str) -> &str {
    match file.rsplit_once(".ko") {
        Some((stem, suffix)) if !suffix.is_empty() => file.get(..stem.len() + 3).unwrap_or(file),
        _ => file,
    }
}

/// A module's name out of its file's path or any spelling of it: `-` and `_` are the same.
fn module_name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/a.ko.xz: kernel/net/b.ko.xz kernel/c-c.ko.xz\nkernel/net/b.ko.xz: kernel/c-c.ko.xz\n\
                       kernel/c-c.ko.xz:\nkernel/soft.ko.xz: kernel/deep.ko.xz\nkernel/deep.ko.xz:\nkernel/other.ko.xz:\n";
    const SOFTDEP: &str = "# comment\nsoftdep c-c pre: soft unknown post: other\nsoftdep other pre: a\n";

    fn index() -> Index {
        Index::read(DEP, SOFTDEP, "kernel/built-in.ko\n")
    }

    #[test]
    fn dependencies_of_dependencies_come_along() {
        let closure = index().closure("a option=1 # why\n\n# b\nbuilt_in\nc_c\nnot-there\n");
        let expected = ["kernel/c-c.ko.xz", "kernel/deep.ko.xz", "kernel/net/a.ko.xz", "kernel/net/b.ko.xz"];
        let expected = expected.into_iter().chain(["kernel/other.ko.xz", "kernel/soft.ko.xz"]).map(str::to_owned);
        assert_eq!(closure.files, expected.collect());
        assert_eq!(closure.missing, ["not-there"]);
    }

    #[test]
    fn the_written_index_names_expanded_files() {
        let files = ["kernel/net/b.ko.xz", "kernel/c-c.ko.xz"].map(str::to_owned).into();
        assert_eq!(index().dep_of(&files), "kernel/c-c.ko:\nkernel/net/b.ko: kernel/c-c.ko\n");
        assert_eq!(index().softdep_of(&files, SOFTDEP), "softdep c-c pre: soft unknown post: other\n");
        assert_eq!(expanded("kernel/x.ko"), "kernel/x.ko");
        assert_eq!(expanded("kernel/x.kolor/y.ko.gz"), "kernel/x.kolor/y.ko");
    }

    #[test]
    fn the_list_that_comes_with_rootstream_is_well_formed() {
        let listed: Vec<_> = names(super::super::MODULES_TXT).collect();
        assert!(listed.contains(&"virtio_net") && listed.contains(&"e1000e"));
        let known: BTreeSet<_> = listed.iter().collect();
        assert_eq!(known.len(), listed.len(), "a name is listed twice");
        assert!(listed.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')));
    }
}

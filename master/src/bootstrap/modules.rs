//! Which module files an initramfs needs: those in modules.txt, and all that they depend on.
//!
//! The agent reads modules.dep and modules.builtin itself ([`rootstream::modules`]); what depmod adds in
//! modules.softdep comes along here.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use rootstream::modules::{self, Request, canonical};

/// What modules.txt and a kernel's module folder come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Module files, relative to `/lib/modules/RELEASE`, as in modules.dep.
    pub files: BTreeSet<String>,
    /// Names in modules.txt that the kernel knows neither as module nor as built in.
    pub missing: Vec<String>,
}

/// What depmod wrote for one kernel.
#[derive(Debug)]
pub struct Index {
    modules: modules::Index,
    /// From a canonical name to names that are loaded before or after it where they exist.
    soft: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Reads the texts of modules.dep, modules.softdep and modules.builtin.
    pub fn read(dep: &str, softdep: &str, builtin: &str) -> Self {
        let mut soft: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next() else { continue };
            let wanted = words.filter(|word| !word.ends_with(':')).map(str::to_owned);
            soft.entry(canonical(name)).or_default().extend(wanted);
        }
        Self { modules: modules::Index::parse(dep, builtin), soft }
    }

    /// The files that the modules named in the text of a modules.txt need.
    pub fn closure(&self, modules_txt: &str) -> Closure {
        let mut closure = Closure::default();
        let mut queue = VecDeque::new();
        for Request { name, .. } in modules::parse_list(modules_txt) {
            match self.files(&name) {
                Some(files) => queue.extend(files),
                None => closure.missing.push(name),
            }
        }
        while let Some(file) = queue.pop_front() {
            if !closure.files.insert(file.to_owned()) {
                continue;
            }
            queue.extend(self.files(file).into_iter().flatten());
            let soft = self.soft.get(&canonical(file)).into_iter().flatten();
            queue.extend(soft.filter_map(|name| self.files(name)).flatten());
        }
        closure
    }

    /// The files that the agent will load for a module, its own last; none for what is built in;
    /// nothing when the kernel does not know it.
    fn files(&self, module: &str) -> Option<Vec<&str>> {
        self.modules.load_order(module, &HashSet::new()).ok().flatten()
    }

    /// modules.dep of only these files, which the initramfs holds expanded: without the suffix
    /// of their compression.
    pub fn dep_of(&self, files: &BTreeSet<String>) -> String {
        let mut text = String::new();
        for file in files {
            text.push_str(expanded(file));
            text.push(':');
            // modules.dep lists the nearest first.
            for need in self.files(file).unwrap_or_default().into_iter().rev().skip(1) {
                text.push(' ');
                text.push_str(expanded(need));
            }
            text.push('\n');
        }
        text
    }
}

/// The file's name without the suffix of its compression.
pub fn expanded(file: &str) -> &str {
    match file.rsplit_once(".ko") {
        Some((stem, suffix)) if !suffix.is_empty() => file.get(..stem.len() + 3).unwrap_or(file),
        _ => file,
    }
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
        assert_eq!(expanded("kernel/x.ko"), "kernel/x.ko");
        assert_eq!(expanded("kernel/x.kolor/y.ko.gz"), "kernel/x.kolor/y.ko");
    }

    #[test]
    fn the_list_that_comes_with_rootstream_is_well_formed() {
        let listed: Vec<_> = modules::parse_list(super::super::MODULES_TXT).into_iter().map(|r| r.name).collect();
        assert!(["virtio_net", "e1000e"].iter().all(|known| listed.iter().any(|name| name == known)));
        let known: BTreeSet<_> = listed.iter().collect();
        assert_eq!(known.len(), listed.len(), "a name is listed twice");
        assert!(listed.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')));
    }
}

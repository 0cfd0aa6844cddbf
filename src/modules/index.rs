//! The index that depmod(8) made of a kernel's modules: where each is and what it needs.

use std::collections::{HashMap, HashSet};

use super::alias::Aliases;
use super::canonical;
use super::softdep::Softdeps;

/// A module file in the order of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The file, relative to the module folder.
    pub file: &'a str,
    /// What the module asked for was loaded for cannot do without it.
    pub needed: bool,
}

/// What a kernel's module folder holds.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Canonical name to its file and its dependencies' files, in modules.dep's order (nearest first).
    files: HashMap<String, (String, Vec<String>)>,
    builtin: HashSet<String>,
    aliases: Aliases,
    softdeps: Softdeps,
}

impl Index {
    /// Reads the texts of `modules.dep`, `modules.builtin`, `modules.alias` and `modules.softdep`.
    pub fn parse(dep: &str, builtin: &str, alias: &str, softdep: &str) -> Self {
        let files = dep.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((canonical(file), (file.to_owned(), needs)))
        });
        Self {
            files: files.collect(),
            builtin: builtin.lines().map(canonical).collect(),
            aliases: Aliases::parse(alias),
            softdeps: Softdeps::parse(softdep),
        }
    }

    /// What else the modules are called.
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// Whether the kernel knows a module of this name, as a file or built in.
    pub fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.builtin.contains(&name) || self.files.contains_key(&name)
    }

    /// All module files, in no order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.values().map(|(file, _)| file.as_str())
    }

    /// The files that modules.dep lists for a module's file, in its order.
    pub fn needs_of(&self, file: &str) -> &[String] {
        self.files.get(&canonical(file)).map_or(&[], |(_, needs)| needs)
    }

    /// The modules that `name` stands for: the one of that name, or those that it is an alias of.
    pub fn resolve<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        if self.has(name) { vec![name] } else { self.aliases.of(name) }
    }

    /// The files to load for the module `name`, in order; empty when it is part of the kernel, `None` when it is not
    /// there.
    ///
    /// # Errors
    /// It or something that it cannot do without is in `deny` (canonical names).
    pub fn load_order(&self, name: &str, deny: &HashSet<String>) -> Result<Option<Vec<Item<'_>>>, String> {
        if !self.has(name) {
            return Ok(None);
        }
        let mut order = Vec::new();
        self.add(name, true, deny, &mut HashSet::new(), &mut order)?;
        Ok(Some(order))
    }

    /// Adds a module and what goes around it. `seen` bounds the way down, softdeps may go in circles.
    fn add<'a>(
        &'a self,
        name: &str,
        needed: bool,
        deny: &HashSet<String>,
        seen: &mut HashSet<&'a str>,
        order: &mut Vec<Item<'a>>,
    ) -> Result<(), String> {
        let Some((own, needs)) = self.files.get(&canonical(name)) else { return Ok(()) };
        let files = || needs.iter().rev().chain([own]);
        if let Some(file) = files().find(|file| deny.contains(&canonical(file))) {
            return Err(format!("{} is denied", canonical(file)));
        }
        // In a circle of softdeps what they go around comes alone.
        let waits = |file: &String| seen.contains(file.as_str()) && order.iter().all(|item| item.file != file);
        if files().any(waits) {
            return Ok(());
        }
        let mut after = Vec::new();
        for file in files() {
            if !seen.insert(file) {
                // Wanted by a softdep first and needed now.
                order.iter_mut().filter(|item| item.file == file).for_each(|item| item.needed |= needed);
                continue;
            }
            if let Some(around) = self.softdeps.of(&canonical(file)) {
                self.add_soft(&around.before, deny, seen, order);
                after.extend(&around.after);
            }
            order.push(Item { file, needed });
        }
        self.add_soft(after, deny, seen, order);
        Ok(())
    }

    fn add_soft<'a, 'b>(
        &'a self,
        names: impl IntoIterator<Item = &'b String>,
        deny: &HashSet<String>,
        seen: &mut HashSet<&'a str>,
        order: &mut Vec<Item<'a>>,
    ) {
        for name in names {
            for module in self.resolve(name) {
                // Denied: then without it.
                let _ = self.add(module, false, deny, seen, order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko \
        kernel/drivers/virtio/virtio.ko\nkernel/net/core/failover.ko:\nkernel/drivers/virtio/virtio.ko:\n\
        kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\nkernel/drivers/net/ice-plus.ko.xz:\n\
        kernel/erofs.ko: kernel/libcrc32c.ko\nkernel/libcrc32c.ko:\nkernel/crc32c-intel.ko:\nkernel/crc32c_generic.ko:\n\
        kernel/a.ko:\nkernel/b.ko: kernel/a.ko\n";
    const ALIAS: &str = "alias crc32c crc32c_intel\nalias crc32c crc32c_generic\n";
    const SOFTDEP: &str = "softdep libcrc32c pre: crc32c nosuch\nsoftdep erofs post: failover\nsoftdep a pre: b\n\
        softdep failover pre: virtio\n";

    fn index() -> Index {
        Index::parse(DEP, "kernel/fs/ext4/ext4.ko\n", ALIAS, SOFTDEP)
    }

    fn order(name: &str, deny: &[&str]) -> String {
        let index = index();
        let order = index.load_order(name, &deny.iter().map(|name| (*name).to_owned()).collect()).unwrap().unwrap();
        let word = |item: &Item<'_>| canonical(item.file) + if item.needed { "" } else { "?" };
        order.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn dependencies_come_first() {
        assert_eq!(order("virtio-net", &[]), "virtio failover net_failover virtio_net");
    }

    #[test]
    fn what_a_module_works_better_with_goes_around_it() {
        assert_eq!(order("erofs", &[]), "crc32c_intel? crc32c_generic? libcrc32c erofs virtio? failover?");
        assert_eq!(order("erofs", &["crc32c_intel", "failover"]), "crc32c_generic? libcrc32c erofs");
        // In a circle.
        assert_eq!(order("b", &[]), "a b");
        assert_eq!(order("a", &[]), "a");
    }

    // F63
    #[test]
    fn built_in_missing_and_denied_modules() {
        let index = index();
        assert_eq!(index.load_order("ext4", &HashSet::new()), Ok(Some(vec![])));
        assert_eq!(index.load_order("nosuch", &HashSet::new()), Ok(None));
        let deny = HashSet::from(["failover".to_owned()]);
        assert_eq!(index.load_order("virtio_net", &deny), Err("failover is denied".to_owned()));
        let expected = Item { file: "kernel/drivers/net/ice-plus.ko.xz", needed: true };
        assert_eq!(index.load_order("ice_plus", &deny), Ok(Some(vec![expected])));
    }
}

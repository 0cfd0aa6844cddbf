//! Which module files an initramfs needs: those that modules.txt names, those that it lets the agent choose from, and
//! all that they depend on. The agent reads the same index ([`rootstream::modules`]), of the packed modules only.

use std::collections::{BTreeSet, HashSet};

use rootstream::modules::pattern::matches;
use rootstream::modules::{Index, List, canonical};

use super::modprobe::Modprobe;

/// Where a kernel's drivers of network cards are, in its module folder.
const CARDS: &str = "drivers/net/";
/// Those of cards that no node boots from.
const WIRELESS: [&str; 2] = ["drivers/net/wireless/", "drivers/net/wwan/"];

/// What modules.txt and a kernel's module folder come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Closure {
    /// Module files, relative to `/lib/modules/RELEASE`, as in modules.dep.
    pub(super) files: BTreeSet<String>,
    /// Names in modules.txt that the kernel knows neither as module nor as built in.
    pub(super) missing: Vec<String>,
    /// Modules that `auto` would take if modules.txt or the image's modprobe.d did not blacklist them.
    pub(super) blacklisted: Vec<String>,
}

/// What modules.txt asks for, with the patterns of `shipped` where it says `auto` without any of its own that add to it.
pub(super) fn with_patterns(mut list: List, shipped: &List) -> List {
    if list.auto && list.patterns.iter().all(|pattern| pattern.starts_with('!')) {
        list.patterns.extend(shipped.patterns.iter().cloned());
    }
    list
}

/// The files that `list` needs.
pub(super) fn closure(index: &Index, list: &List, modprobe: &Modprobe) -> Closure {
    let mut closure = Closure::default();
    for request in &list.requests {
        match files(index, &request.name) {
            Some(files) => closure.files.extend(files),
            None => closure.missing.push(request.name.clone()),
        }
    }
    let blacklist = blacklist(list, modprobe);
    for file in index.files().filter(|file| is_chosen(file, &list.patterns)) {
        if blacklist.contains(&canonical(file)) {
            closure.blacklisted.push(canonical(file));
        } else {
            closure.files.extend(files(index, file).into_iter().flatten());
        }
    }
    closure.blacklisted.sort();
    closure
}

fn blacklist(list: &List, modprobe: &Modprobe) -> BTreeSet<String> {
    let own = list.blacklist.iter().map(|name| canonical(name));
    own.chain(modprobe.blacklist.iter().cloned()).collect()
}

/// Whether the patterns after `auto` choose a module's file.
fn is_chosen(file: &str, patterns: &[String]) -> bool {
    let chooses = |pattern: &str| {
        if !pattern.contains('/') {
            return matches(pattern, &canonical(file));
        }
        // Some kernels have `kernel/` in front, and modules from elsewhere `extra/` or `updates/`.
        let path = file.rsplit_once(".ko").map_or(file, |(stem, _)| stem);
        let starts = path.match_indices('/').map(|(at, _)| at + 1);
        starts.chain([0]).any(|start| path.get(start..).is_some_and(|path| matches(pattern, path)))
    };
    let left_out = |pattern: &String| pattern.strip_prefix('!').is_some_and(chooses);
    patterns.iter().any(|pattern| !pattern.starts_with('!') && chooses(pattern)) && !patterns.iter().any(left_out)
}

/// The files that the agent will load for a module; none for what is built in; nothing when the kernel does not know
/// it.
fn files(index: &Index, module: &str) -> Option<Vec<String>> {
    let order = index.load_order(module, &HashSet::new()).ok().flatten()?;
    Some(order.into_iter().map(|item| item.file.to_owned()).collect())
}

/// modules.dep of only these files, which the initramfs holds expanded: without the suffix
/// of their compression.
pub(super) fn dep_of(index: &Index, files: &BTreeSet<String>) -> String {
    let mut text = String::new();
    for file in files {
        text.push_str(expanded(file));
        text.push(':');
        for need in index.needs_of(file) {
            text.push(' ');
            text.push_str(expanded(need));
        }
        text.push('\n');
    }
    text
}

/// modules.alias of only these files, without what `list` and `modprobe` forbid to be loaded for an alias; and the same
/// of the network cards whose modules are not in it, for the agent to name them.
pub(super) fn aliases_of(
    index: &Index,
    files: &BTreeSet<String>,
    list: &List,
    modprobe: &Modprobe,
) -> (String, String) {
    let mut forbidden = blacklist(list, modprobe);
    let left_out = list.patterns.iter().filter_map(|pattern| pattern.strip_prefix('!'));
    let left_out: Vec<String> = left_out.map(str::to_owned).collect();
    forbidden.extend(files.iter().filter(|file| is_chosen(file, &left_out)).map(|file| canonical(file)));
    let packed: BTreeSet<String> = files.iter().map(|file| canonical(file)).collect();
    let cards = index.files().filter(|file| file.contains(CARDS) && !WIRELESS.iter().any(|other| file.contains(other)));
    let cards: BTreeSet<String> = cards.map(canonical).collect();
    let lines = |wanted: &dyn Fn(&str, &str) -> bool| {
        let lines = index.aliases().iter().filter(|(pattern, module)| wanted(pattern, &canonical(module)));
        lines.map(|(pattern, module)| format!("alias {pattern} {module}\n")).collect()
    };
    (
        lines(&|_, module| packed.contains(module) && !forbidden.contains(module)),
        lines(&|pattern, module| {
            let here = packed.contains(module) && !forbidden.contains(module);
            pattern.starts_with("pci:") && cards.contains(module) && !here
        }),
    )
}

/// The lines of modules.softdep, or of options, that are about these files.
pub(super) fn lines_of<'a>(lines: impl IntoIterator<Item = &'a str>, files: &BTreeSet<String>) -> String {
    let packed: BTreeSet<String> = files.iter().map(|file| canonical(file)).collect();
    let about = |line: &&str| line.split_whitespace().nth(1).is_some_and(|name| packed.contains(&canonical(name)));
    lines.into_iter().filter(about).map(|line| format!("{line}\n")).collect()
}

/// The file's name without the suffix of its compression.
pub(super) fn expanded(file: &str) -> &str {
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
    const CARDS_DEP: &str = "kernel/drivers/net/ethernet/intel/e1000e.ko:\nkernel/drivers/net/ethernet/intel/igb.ko: \
                             kernel/i2c-algo.ko\nkernel/i2c-algo.ko:\nupdates/drivers/net/ethernet/mlx5-core.ko:\n\
                             kernel/drivers/net/wireless/iwlwifi.ko:\nkernel/fs/squashfs.ko:\n";
    const CARDS_ALIAS: &str = "alias pci:v8086d1* e1000e\nalias pci:v8086d2* igb\nalias pci:v8086d3* iwlwifi\n\
                               alias pci:v15B3* mlx5_core\nalias fs-squashfs squashfs\nalias i2c:algo i2c_algo\n";

    fn names(closure: &Closure) -> String {
        closure.files.iter().map(|file| canonical(file)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn dependencies_of_dependencies_come_along() {
        let index = Index::parse(DEP, "kernel/built-in.ko\n", "", SOFTDEP);
        let list = List::parse("a option=1 # why\n\n# b\nbuilt_in\nc_c\nnot-there\n");
        let closure = closure(&index, &list, &Modprobe::default());
        let expected = ["kernel/c-c.ko.xz", "kernel/deep.ko.xz", "kernel/net/a.ko.xz", "kernel/net/b.ko.xz"];
        let expected = expected.into_iter().chain(["kernel/other.ko.xz", "kernel/soft.ko.xz"]).map(str::to_owned);
        assert_eq!(closure.files, expected.collect());
        assert_eq!(closure.missing, ["not-there"]);
    }

    #[test]
    fn auto_takes_what_the_patterns_choose() {
        let index = Index::parse(CARDS_DEP, "", CARDS_ALIAS, "");
        let modprobe = Modprobe { blacklist: ["mlx5_core".to_owned()].into(), ..Modprobe::default() };
        let none = Modprobe::default();
        for (text, modprobe, expected) in [
            ("squashfs", &none, "squashfs"),
            ("auto drivers/net/ethernet/*", &none, "e1000e igb i2c_algo mlx5_core"),
            ("auto drivers/net/ethernet/* !drivers/net/ethernet/intel/i*", &none, "e1000e mlx5_core"),
            ("auto drivers/net/ethernet/*\nblacklist igb", &modprobe, "e1000e"),
            ("auto mlx5-core ig?", &none, "igb i2c_algo mlx5_core"),
            ("auto ethernet/intel", &none, ""),
        ] {
            let closure = closure(&index, &List::parse(text), modprobe);
            assert_eq!(names(&closure), expected, "{text}");
        }
        let shipped = List::parse("auto drivers/net/ethernet/*\nother");
        assert_eq!(with_patterns(List::parse("auto !igb"), &shipped).patterns, ["!igb", "drivers/net/ethernet/*"]);
        assert_eq!(with_patterns(List::parse("auto igb"), &shipped).patterns, ["igb"]);
        assert_eq!(with_patterns(List::parse("igb"), &shipped).patterns, [""; 0]);
        let blacklisting = closure(&index, &List::parse("auto *"), &modprobe);
        assert_eq!(blacklisting.blacklisted, ["mlx5_core"]);
    }

    // F63
    #[test]
    fn aliases_of_packed_modules_are_packed_and_those_of_other_cards_too() {
        let index = Index::parse(CARDS_DEP, "", CARDS_ALIAS, "");
        let list = List::parse("auto e1000e squashfs\nigb\nblacklist igb");
        let files = closure(&index, &list, &Modprobe::default()).files;
        let (packed, cards) = aliases_of(&index, &files, &list, &Modprobe::default());
        assert_eq!(packed, "alias pci:v8086d1* e1000e\nalias fs-squashfs squashfs\nalias i2c:algo i2c_algo\n");
        assert_eq!(cards, "alias pci:v8086d2* igb\nalias pci:v15B3* mlx5_core\n");
    }

    #[test]
    fn the_written_index_names_expanded_files() {
        let index = Index::parse(DEP, "", "", "");
        let files = ["kernel/net/b.ko.xz", "kernel/c-c.ko.xz"].map(str::to_owned).into();
        assert_eq!(dep_of(&index, &files), "kernel/c-c.ko:\nkernel/net/b.ko: kernel/c-c.ko\n");
        assert_eq!(expanded("kernel/x.ko"), "kernel/x.ko");
        assert_eq!(expanded("kernel/x.kolor/y.ko.gz"), "kernel/x.kolor/y.ko");
        assert_eq!(lines_of(SOFTDEP.lines(), &files), "softdep c-c pre: soft unknown post: other\n");
    }

    #[test]
    fn the_list_that_comes_with_rootstream_is_well_formed() {
        let list = List::parse(super::super::MODULES_TXT);
        let listed: Vec<_> = list.requests.iter().map(|request| request.name.as_str()).collect();
        let known: BTreeSet<_> = listed.iter().collect();
        assert_eq!(known.len(), listed.len(), "a name is listed twice");
        assert!(listed.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')));
        assert!(list.auto && list.options.is_empty() && list.blacklist.is_empty());
        for card in ["kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko", "kernel/drivers/net/virtio_net.ko.xz"] {
            assert!(is_chosen(card, &list.patterns), "{card}");
        }
        for other in
            ["kernel/drivers/net/wireless/x.ko", "kernel/drivers/gpu/drm/i915/i915.ko", "kernel/fs/ext4/ext4.ko"]
        {
            assert!(!is_chosen(other, &list.patterns), "{other}");
        }
    }
}

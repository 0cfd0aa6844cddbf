//! The image's /etc/modprobe.d and /usr/lib/modprobe.d: what modprobe(8) would heed when it loads a module there.

use std::collections::{BTreeMap, BTreeSet};

use rootstream::modules::canonical;

/// The folders, the first one's file of a name wins (modprobe.d(5)).
const FOLDERS: [&str; 2] = ["etc/modprobe.d/", "lib/modprobe.d/"];

/// What all files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modprobe {
    /// Lines `options MODULE …`.
    pub(super) options: Vec<String>,
    /// Modules that no alias may load, by canonical name: `blacklist`, and `install`, which most use for that.
    pub(super) blacklist: BTreeSet<String>,
    /// Lines of modules.alias.
    pub(super) alias: String,
    /// Lines of modules.softdep.
    pub(super) softdep: String,
}

/// Whether this is a file that [`Modprobe::read`] reads.
pub(super) fn is_one(path: &str) -> bool {
    path.ends_with(".conf") && FOLDERS.iter().any(|folder| name_in(path, folder).is_some())
}

fn name_in<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder).filter(|name| !name.contains('/'))
}

impl Modprobe {
    /// Reads the files of an image, given by their paths.
    pub(super) fn read<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut by_name: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for (path, text) in files {
            for (rank, folder) in FOLDERS.iter().enumerate() {
                let Some(name) = name_in(path, folder) else { continue };
                if by_name.get(name).is_none_or(|(other, _)| rank < *other) {
                    by_name.insert(name, (rank, text));
                }
            }
        }
        let mut all = Self::default();
        by_name.into_values().for_each(|(_, text)| all.add(text));
        all
    }

    fn add(&mut self, text: &str) {
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            let mut words = line.split_whitespace();
            let (Some(word), Some(name)) = (words.next(), words.next()) else { continue };
            match word {
                "options" => self.options.push(line.to_owned()),
                "blacklist" | "install" => drop(self.blacklist.insert(canonical(name))),
                "alias" => self.alias += &format!("{line}\n"),
                "softdep" => self.softdep += &format!("{line}\n"),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrators_file_wins_over_the_distributions() {
        let files = [
            ("etc/modprobe.d/mlx.conf", "options mlx5_core \\\n prof_sel=2\n# options x y=1\nalias eth-a e1000e\n"),
            ("lib/modprobe.d/mlx.conf", "options mlx5_core prof_sel=1\n"),
            ("lib/modprobe.d/off.conf", "blacklist be2-net\ninstall sfc /bin/false\nsoftdep a pre: b\nremove c d\n"),
        ];
        assert!(files.iter().all(|(path, _)| is_one(path)));
        assert!(!is_one("etc/modprobe.d/sub/x.conf") && !is_one("etc/modprobe.d/x") && !is_one("etc/x.conf"));
        let all = Modprobe::read(files.into_iter());
        assert_eq!(all.options, ["options mlx5_core   prof_sel=2"]);
        assert_eq!(all.blacklist, ["be2_net", "sfc"].map(str::to_owned).into());
        assert_eq!((all.alias.as_str(), all.softdep.as_str()), ("alias eth-a e1000e\n", "softdep a pre: b\n"));
    }
}

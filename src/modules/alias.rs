//! What else a module is called: modules.alias, which maps what devices say of themselves, and what the kernel asks
//! for, to modules.

use super::pattern::matches;

/// The lines of a modules.alias.
#[derive(Clone, Debug, Default)]
pub struct Aliases {
    /// Pattern and module, in the file's order.
    lines: Vec<(Box<str>, Box<str>)>,
}

impl Aliases {
    /// Reads the text of a modules.alias, `alias PATTERN MODULE` a line.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.strip_prefix("alias ")?.trim().rsplit_once(' '));
        Self { lines: lines.map(|(pattern, module)| (pattern.into(), module.into())).collect() }
    }

    /// Every pattern with its module.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().map(|(pattern, module)| (&**pattern, &**module))
    }

    /// The modules that `name` is an alias of, each once.
    pub fn of(&self, name: &str) -> Vec<&str> {
        let mut modules = Vec::new();
        for (pattern, module) in self.iter() {
            if !modules.contains(&module) && matches(pattern, name) {
                modules.push(module);
            }
        }
        modules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_may_be_of_several_modules() {
        let text = "# Aliases extracted from modules themselves.\nalias crc32c crc32c_intel\nalias crc32c crc32c_generic\n\
            alias crc32c crc32c_intel\nalias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias broken\n";
        let aliases = Aliases::parse(text);
        assert_eq!(aliases.of("crc32c"), ["crc32c_intel", "crc32c_generic"]);
        assert_eq!(aliases.of("pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00"), ["virtio_pci"]);
        assert!(aliases.of("pci").is_empty());
    }
}

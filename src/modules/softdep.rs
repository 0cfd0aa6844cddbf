//! modules.softdep: modules that another one works better with, though it can be loaded without them.

use std::collections::HashMap;

use super::canonical;

/// What goes before and after a module where it is there; names, or aliases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Loaded before the module.
    pub before: Vec<String>,
    /// Loaded after it.
    pub after: Vec<String>,
}

/// The lines of a modules.softdep, by canonical name.
#[derive(Clone, Debug, Default)]
pub struct Softdeps(HashMap<String, Around>);

impl Softdeps {
    /// Reads the text of a modules.softdep, `softdep MODULE pre: NAME… post: NAME…` a line; names before any of the
    /// two words go before the module.
    pub fn parse(text: &str) -> Self {
        let mut all: HashMap<String, Around> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { continue };
            let around = all.entry(canonical(name)).or_default();
            let mut list = &mut around.before;
            for word in words {
                match word {
                    "pre:" => list = &mut around.before,
                    "post:" => list = &mut around.after,
                    name => list.push(name.to_owned()),
                }
            }
        }
        Self(all)
    }

    /// Those of a module, by its canonical name.
    pub fn of(&self, module: &str) -> Option<&Around> {
        self.0.get(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up() {
        let softdeps =
            Softdeps::parse("# depmod\nsoftdep r8169 pre: realtek post: a b pre: c\nsoftdep r8169 d\nsoftdep\n");
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let expected = Around { before: strings(&["realtek", "c", "d"]), after: strings(&["a", "b"]) };
        assert_eq!(softdeps.of("r8169"), Some(&expected));
        assert_eq!(softdeps.of("realtek"), None);
    }
}

//! modules.txt: what an initramfs is to load.
//!
//! One module a line, `NAME option=value …`; `#` starts a comment. Four words are no modules: `auto` (what the
//! machine has is loaded too), and `options`, `softdep` and `blacklist`, which mean what they mean in modprobe.d(5).

/// A module asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name; `-` and `_` are the same.
    pub name: String,
    /// Options, separated by blanks; empty where none.
    pub options: String,
}

/// What a modules.txt says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Modules that are loaded on every machine, in this order.
    pub requests: Vec<Request>,
    /// Whether modules are loaded for what the machine has and for what the kernel asks for.
    pub auto: bool,
    /// What stands after `auto`, in order: which modules an initramfs holds for that. A pattern with `/` is of a
    /// module's path, one without of its name; `!` in front leaves modules out.
    pub patterns: Vec<String>,
    /// Options of modules, whoever asks for them.
    pub options: Vec<Request>,
    /// Lines of modules.softdep, for `bootstrap`.
    pub softdep: String,
    /// Modules that nothing but their own name loads.
    pub blacklist: Vec<String>,
}

impl List {
    /// Reads the text of a modules.txt.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match word {
                "" => {}
                "auto" => {
                    list.auto = true;
                    list.patterns.extend(rest.split_whitespace().map(str::to_owned));
                }
                "options" => list.options.extend(request(rest.trim())),
                "softdep" => list.softdep += &format!("{line}\n"),
                "blacklist" => list.blacklist.extend(rest.split_whitespace().map(str::to_owned)),
                _ => list.requests.extend(request(line)),
            }
        }
        list
    }
}

fn request(line: &str) -> Option<Request> {
    let (name, options) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (!name.is_empty()).then(|| Request { name: name.to_owned(), options: options.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_comments_and_options() {
        let list = List::parse("# NICs\nvirtio_net\n\n bonding  mode=1 miimon=100 # bond\n").requests;
        assert_eq!(list.len(), 2);
        assert_eq!(list[1], Request { name: "bonding".to_owned(), options: "mode=1 miimon=100".to_owned() });
    }

    #[test]
    fn four_words_are_no_modules() {
        let list = List::parse(
            "auto drivers/net/a/* !drivers/net/a/b # c\nauto x\noptions r8169 use_dac=1\nblacklist y\nsoftdep a post: b",
        );
        assert!(list.auto && list.requests.is_empty());
        assert_eq!(list.patterns, ["drivers/net/a/*", "!drivers/net/a/b", "x"]);
        assert_eq!(list.options, [Request { name: "r8169".to_owned(), options: "use_dac=1".to_owned() }]);
        assert_eq!(list.blacklist, ["y"]);
        assert_eq!(list.softdep, "softdep a post: b\n");
        assert!(List::parse("auto").auto && !List::parse("autofs4\n#auto").auto);
    }
}

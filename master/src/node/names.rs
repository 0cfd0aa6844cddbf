//! How nodes are named on the command line: `n1`, `n[001-064]`, `n[1-3,7]`, `@rack1`, several with commas between.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use rootstream::failure::refuse;

use crate::config::addresses::{Name, Wrong};
use crate::config::groups::ALL;
use crate::config::nodes::{Node, Nodes};

/// No site has more nodes; a typo in a range can.
const MOST: usize = 65536;

/// Names of nodes and groups, as given.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    text: String,
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Node(Name),
    Group(Name),
}

impl Names {
    /// The names of nodes that there may not be yet.
    ///
    /// # Errors
    /// A group is among them, or a name twice.
    pub(crate) fn fresh(&self) -> Result<Vec<Name>> {
        let mut names: Vec<Name> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for word in &self.words {
            let Word::Node(name) = word else {
                return Err(refuse(format!("`{self}` names a group"), "name the nodes themselves: n[001-064]"));
            };
            if !seen.insert(name.as_str().to_ascii_lowercase()) {
                return Err(refuse(format!("`{self}` has {name} twice"), "name each node once"));
            }
            names.push(name.clone());
        }
        Ok(names)
    }

    /// The nodes that are meant, each once, in the order in which they were named.
    ///
    /// # Errors
    /// There is no such node or group, or a group has no nodes.
    pub(crate) fn select<'a>(&self, nodes: &'a Nodes) -> Result<Vec<&'a Node>> {
        let mut found: Vec<&Node> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut take = |node: &'a Node| {
            if seen.insert(node.name.as_str()) {
                found.push(node);
            }
        };
        for word in &self.words {
            match word {
                Word::Node(name) => match nodes.get(name.as_str()) {
                    Some(node) => take(node),
                    None => {
                        return Err(refuse(
                            format!("there is no node {name}"),
                            "`rootstream node list` shows those that there are; a group is @NAME",
                        ));
                    }
                },
                Word::Group(group) => members(nodes, group)?.into_iter().for_each(&mut take),
            }
        }
        Ok(found)
    }
}

fn members<'a>(nodes: &'a Nodes, group: &Name) -> Result<Vec<&'a Node>> {
    let is_all = group.as_str().eq_ignore_ascii_case(ALL);
    if !is_all && nodes.groups().get(group.as_str()).is_none() {
        let known: Vec<String> = nodes.groups().iter().map(|group| format!("@{}", group.name)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(refuse(
            format!("there is no group {group}"),
            format!("name one of nodes.toml or site.toml (there is {known}), or @{ALL} for every node"),
        ));
    }
    let is_in = |node: &&Node| is_all || node.groups.iter().any(|g| g.as_str().eq_ignore_ascii_case(group.as_str()));
    let members: Vec<&Node> = nodes.iter().filter(is_in).collect();
    if members.is_empty() {
        return Err(refuse(
            format!("no node is in the group {group}"),
            format!("put one in: rootstream node set NODES groups={group}"),
        ));
    }
    Ok(members)
}

impl FromStr for Names {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let mut words = Vec::new();
        for word in outside_brackets(text)? {
            if let Some(group) = word.strip_prefix('@') {
                words.push(Word::Group(group.parse()?));
                continue;
            }
            for name in expand(word)? {
                words.push(Word::Node(name.parse()?));
            }
            if words.len() > MOST {
                return Err(format!("`{text}` is more than {MOST} nodes"));
            }
        }
        Ok(Self { text: text.to_owned(), words })
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The words between those commas that are not in brackets.
fn outside_brackets(text: &str) -> Result<Vec<&str>, Wrong> {
    let (mut words, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' if inside => return Err(format!("`{text}` has a bracket in brackets")),
            '[' => inside = true,
            ']' if !inside => return Err(format!("`{text}` closes a bracket that it did not open")),
            ']' => inside = false,
            ',' if !inside => {
                words.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("`{text}` does not close its bracket"));
    }
    words.extend(text.get(start..));
    Ok(words)
}

/// All that a word with ranges stands for; what is left in it is for the next pair of brackets.
fn expand(word: &str) -> Result<Vec<String>, Wrong> {
    let Some((before, rest)) = word.split_once('[') else { return Ok(vec![word.to_owned()]) };
    let (ranges, after) = rest.split_once(']').ok_or_else(|| format!("`{word}` does not close its bracket"))?;
    let ends = expand(after)?;
    let mut names = Vec::new();
    for range in ranges.split(',') {
        for number in numbers(range)? {
            names.extend(ends.iter().map(|end| format!("{before}{number}{end}")));
            if names.len() > MOST {
                return Err(format!("`{word}` is more than {MOST} nodes"));
            }
        }
    }
    Ok(names)
}

/// The numbers of `7` or `001-064`, with the zeros in front that the first one shows.
fn numbers(range: &str) -> Result<Vec<String>, Wrong> {
    let wrong = || format!("`{range}` is no range of numbers such as 1-64 or 001-064");
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<usize>().ok().filter(|_| digits).ok_or_else(wrong)
    };
    let (from, to) = (number(first)?, number(last)?);
    let is_padded = |text: &str| text.len() > 1 && text.starts_with('0');
    if (is_padded(first) || is_padded(last)) && first.len() != last.len() {
        return Err(format!("`{range}`: with zeros in front, both ends have as many digits"));
    }
    if to < from {
        return Err(format!("`{range}` ends before it starts"));
    }
    if to - from >= MOST {
        return Err(format!("`{range}` is more than {MOST} nodes"));
    }
    let width = if is_padded(first) { first.len() } else { 1 };
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(text: &str) -> Vec<String> {
        let names = text.parse::<Names>().unwrap().fresh().unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_count_with_the_zeros_that_they_show() {
        assert_eq!(fresh("n[001-003]"), ["n001", "n002", "n003"]);
        assert_eq!(fresh("n[9-11],x"), ["n9", "n10", "n11", "x"]);
        assert_eq!(fresh("n[08-10]"), ["n08", "n09", "n10"]);
        assert_eq!(fresh("n[1-2,7]-ib"), ["n1-ib", "n2-ib", "n7-ib"]);
        assert_eq!(fresh("r[1-2]n[01-02]"), ["r1n01", "r1n02", "r2n01", "r2n02"]);
        assert_eq!(fresh("n[0-1]"), ["n0", "n1"]);
        assert_eq!(fresh("n[1-65536]").len(), 65536);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in [
            "",
            ",",
            "n1,",
            "n[",
            "n]",
            "n[1-",
            "n[]",
            "n[1-x]",
            "n[3-1]",
            "n[01-100]",
            "n[1-99999999]",
            "n[[1]]",
            "n[-1]",
            "n[1-2-3]",
            "n[+1-2]",
            "@",
            "n 1",
            "n[1-300]x[1-300]",
            "n[1-40000],m[1-40000]",
        ] {
            assert!(wrong.parse::<Names>().is_err(), "{wrong}");
        }
        let error = "n1,n[1-2]".parse::<Names>().unwrap().fresh().unwrap_err();
        assert!(error.to_string().contains("has n1 twice"), "{error}");
        assert!("n1,@rack1".parse::<Names>().unwrap().fresh().is_err());
    }
}

//! A file with the MACs of new nodes, as a vendor's list or a label reader gives them.

use std::path::Path;

use anyhow::Result;
use rootstream::failure::refuse;

use crate::config::Document;
use crate::config::addresses::{Mac, Name};

/// The MACs of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// Of the port that it boots from.
    pub(super) mac: Option<Mac>,
    /// Of its BMC.
    pub(super) bmc: Option<Mac>,
}

/// Reads `file`: a line for each of `names`, with its MAC and perhaps its BMC's, in their order; or with the name before them,
/// in any order. What follows a `#` is a comment.
///
/// # Errors
/// The file is unreadable, or has a mistake, which is named with its line; not as many lines as names.
pub(super) fn read(file: &Path, names: &[Name]) -> Result<Vec<Ports>> {
    parse(&Document::read(file)?, names)
}

fn parse(document: &Document, names: &[Name]) -> Result<Vec<Ports>> {
    let mut found: Vec<Option<Ports>> = vec![None; names.len()];
    let (mut start, mut count) = (0, 0);
    for line in document.text().split_inclusive('\n') {
        let span = start..start + line.len();
        start = span.end;
        let content = line.split('#').next().unwrap_or_default();
        let mut words =
            content.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|w| !w.is_empty()).peekable();
        let Some(first) = words.peek() else { continue };
        let wrong = |what: String| Err(document.refuse(span.clone(), what));
        let at = match names.iter().position(|name| name.as_str().eq_ignore_ascii_case(first)) {
            Some(at) => {
                words.next();
                at
            }
            None => count,
        };
        count += 1;
        let macs: Result<Vec<Mac>, String> = words.map(str::parse).collect();
        let ports = match macs.as_deref() {
            Ok([mac]) => Ports { mac: Some(*mac), bmc: None },
            Ok([mac, bmc]) => Ports { mac: Some(*mac), bmc: Some(*bmc) },
            Ok(_) => return wrong("a line has a MAC, and after it perhaps the BMC's".to_owned()),
            Err(what) => return wrong(format!("{what}, and no node that is named")),
        };
        match found.get_mut(at) {
            Some(place @ None) => *place = Some(ports),
            Some(Some(_)) => return wrong("this node has its MACs already".to_owned()),
            None => return wrong(format!("this is one MAC more than the {} nodes named", names.len())),
        }
    }
    let lacking = names.iter().zip(&found).find(|(_, ports)| ports.is_none());
    match lacking {
        Some((name, _)) => Err(refuse(
            format!("{} has no MAC for {name}", document.path().display()),
            "write a line for it; or add it without --macs, for `rootstream node discover` to find its MAC",
        )),
        None => Ok(found.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Ports>> {
        let names = ["n1", "n2"].map(|name| name.parse().unwrap());
        parse(&Document::of("macs", text), &names)
    }

    const A: &str = "52:54:00:ac:10:01";
    const B: &str = "52:54:00:ac:10:02";

    #[test]
    fn in_order_or_by_name() {
        let [a, b] = [A, B].map(|mac| Some(mac.parse().unwrap()));
        let [first, second] = [a, b].map(|mac| Ports { mac, bmc: None });
        assert_eq!(read(&format!("# rack\n{A}\n\n{B} # top\n")).unwrap(), [first, second]);
        assert_eq!(read(&format!("N2;{B}\nn1;{A}")).unwrap(), [first, second]);
        assert_eq!(read(&format!("n2,{B},{A}\nn1 52-54-00-AC-10-03")).unwrap()[1], Ports { mac: b, bmc: a });
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, message) in [
            (format!("{A}\nx\n"), "macs:2: `x` is no MAC"),
            (format!("{A}\nn2\n"), "macs:2: a line has a MAC"),
            (format!("{A}\n{B}\n{B}\n"), "macs:3: this is one MAC more"),
            (format!("n1 {A}\nn1 {B}\n"), "macs:2: this node has its MACs already"),
            (format!("n3 {A}\n"), "macs:1: `n3` is no MAC"),
            (format!("{A}\n"), "macs has no MAC for n2"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}

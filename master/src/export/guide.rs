//! What stands at the head of every file, and on stderr: where it comes from, where it goes, how it is installed and
//! checked.

use std::fmt::Write;

use anyhow::Result;
use rootstream::failure::refuse;

use crate::config;

/// By these words a file is known as one that may be replaced.
pub(super) const MARK: &str = "Written by `rootstream config";

/// The site as text: its folder, which stands in comments and commands.
#[derive(Debug)]
pub(super) struct Site {
    folder: String,
}

impl Site {
    /// # Errors
    /// Its path is no text, or would end a comment.
    pub(super) fn of(site: &config::site::Site) -> Result<Self> {
        match site.root().to_str() {
            Some(folder) if !folder.contains(char::is_control) => Ok(Self { folder: folder.to_owned() }),
            _ => Err(refuse(
                format!("no configuration file can hold the path {}", site.root().display()),
                "move the site to a folder whose name is text without control characters",
            )),
        }
    }

    /// The lines about the files of `server`: what they are made of, where they go (a folder and the files in it), and
    /// what the administrator does, as pairs of a word and a line.
    pub(super) fn guide(&self, server: &str, folder: &str, files: &str, steps: &[(&str, String)]) -> Vec<String> {
        let site = &self.folder;
        let mut guide = vec![
            format!("{MARK} {server}` from site.toml and nodes.toml in {site}: change those, and write it again."),
            line("where", &format!("{}/{files}", folder.trim_end_matches('/'))),
            line(
                "install",
                &format!("rootstream --site {} config {server} --output {}", shell_word(site), shell_word(folder)),
            ),
        ];
        guide.extend(steps.iter().map(|(word, text)| line(word, text)));
        guide
    }
}

fn line(word: &str, text: &str) -> String {
    let word = if word.is_empty() { String::new() } else { format!("{word}:") };
    format!("{word:9} {text}")
}

/// The lines as comments that start with `sign`.
pub(super) fn comment(guide: &[String], sign: &str) -> String {
    guide.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{sign} {line}");
        text
    })
}

/// A word as a shell takes it for one.
pub(super) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(shell_word("/srv/cluster-1"), "/srv/cluster-1");
        assert_eq!(shell_word("/srv/it's $HOME"), r"'/srv/it'\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }
}

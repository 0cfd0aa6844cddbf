//! docs/TROUBLESHOOTING.md has every message of the network; this keeps that true.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// What is followed by a message as a string literal, perhaps in `format!`.
const SAYING: [&str; 17] = [
    "say::error!(",
    "say::warn!(",
    "say::info!(",
    "refuse(",
    "refuse_here(",
    ".advise(",
    "let what = ",
    "let line = ",
    "with_context(|| ",
    ".context(",
    "bail!(",
    "write!(f, ",
    "Action::Say(",
    "complain(",
    "start_again(",
    "lose(",
    "let why = ",
];
/// Where the network's messages come from.
const FOLDERS: [&str; 5] = ["src/net", "src/dhcp", "src/ipv6", "src/lldp", "src/modules"];
/// More such files, beside others.
const FILES: [&str; 3] = ["src/handover/networkd.rs", "src/handover/network_manager.rs", "src/handover/ifupdown.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, found);
        } else if path.is_file() && !["tests.rs", "fuzzing.rs"].iter().any(|name| path.ends_with(name)) {
            found.push(path);
        }
    }
}

/// The string literal that `code` begins with, if it does, without the line breaks that a backslash hides.
fn literal(code: &str) -> Option<String> {
    let mut code = code.trim_start();
    for before in ["&", "Level::Error, ", "Level::Warn, ", "Level::Info, ", "format!("] {
        code = code.strip_prefix(before).unwrap_or(code).trim_start();
    }
    let mut text = String::new();
    let mut rest = code.strip_prefix('"')?.chars();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => match rest.next()? {
                '\n' => rest = rest.as_str().trim_start().chars(),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

/// What stands between the places that are filled in, without punctuation at the ends.
fn fixed_parts(message: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    for c in message.chars() {
        match c {
            '{' => inside = true,
            '}' => {
                inside = false;
                parts.push(String::new());
            }
            c if !inside => parts.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    let punctuation = |c: char| !c.is_alphanumeric();
    let parts = parts.iter().map(|part| part.trim_matches(punctuation).to_owned());
    parts.filter(|part| part.len() > 3).collect()
}

#[test]
fn every_message_of_the_network_has_its_row() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(top.join("docs/TROUBLESHOOTING.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| sources(&top.join(folder), &mut files));
    files.extend(FILES.map(|file| top.join(file)));
    let (mut messages, mut missing) = (0, Vec::new());
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        for saying in SAYING {
            for (at, _) in source.match_indices(saying) {
                let Some(message) = literal(&source[at + saying.len()..]) else { continue };
                let parts = fixed_parts(&message);
                messages += 1;
                if !parts.is_empty() && !rows.iter().any(|row| parts.iter().all(|part| row.contains(part.as_str()))) {
                    missing.push(format!("{}: {message}", file.strip_prefix(top).unwrap().display()));
                }
            }
        }
    }
    assert!(messages > 60, "only {messages} messages were found");
    assert!(missing.is_empty(), "no row has:\n{}", missing.join("\n"));
}

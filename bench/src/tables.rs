//! Markdown tables.

use crate::comparison::Comparison;
use crate::targets::Target;
use crate::ways::{GZIP, WAYS};

/// A table with these heads and rows.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let mut text = line(&heads);
    text += &line(&vec!["---".to_owned(); heads.len()]);
    rows.iter().for_each(|row| text += &line(row));
    text
}

/// All ways of bringing one image.
pub(crate) fn ways(comparison: &Comparison) -> String {
    let row = |name: &str| {
        let peak = comparison.median(name, |run| run.peak_kib) / 1024.0;
        vec![
            name.to_owned(),
            format!("{:.2}", comparison.median(name, |run| run.wall)),
            format!("{:.2}", comparison.median(name, |run| run.cpu)),
            format!("{:.2}", comparison.speedup(name, GZIP)),
            format!("{peak:.1}"),
        ]
    };
    let rows: Vec<Vec<String>> = WAYS.iter().map(|way| row(way.name)).collect();
    table(&["way", "wall s", "CPU s", "times as fast as curl, gzip, GNU tar", "largest process, MiB"], &rows)
}

/// Targets, and whether each is met.
pub(crate) fn targets(targets: &[Target]) -> String {
    let row = |target: &Target| {
        let met = if target.met { "met" } else { "**not met**" };
        vec![target.what.clone(), target.wanted.clone(), target.measured.clone(), met.to_owned()]
    };
    table(&["target", "wanted", "measured", ""], &targets.iter().map(row).collect::<Vec<_>>())
}

//! The table of nodes.

use anyhow::Result;

use super::names::Names;
use crate::config::addresses::Name;
use crate::config::nodes::{Node, Nodes};
use crate::config::site::Site;
use crate::say;

const HEADS: [&str; 7] = ["NAME", "MAC", "ADDRESS", "BMC", "IMAGE", "BOOT", "GROUPS"];

/// Prints the nodes, or those that are `named`.
///
/// # Errors
/// A mistake in the configuration; there is no such node.
pub(super) fn list(site: &Site, named: Option<&Names>, json: bool) -> Result<()> {
    let nodes = Nodes::of(site)?;
    let listed = match named {
        Some(names) => names.select(&nodes)?,
        None => nodes.iter().collect(),
    };
    for warning in nodes.unknown_images(site) {
        say::note(warning);
    }
    if json {
        return say::json(&listed);
    }
    let rows: Vec<[String; 7]> = listed.iter().map(|node| row(site, node)).collect();
    let rows = [HEADS.map(str::to_owned)].into_iter().chain(rows).collect::<Vec<_>>();
    table(&rows);
    Ok(())
}

fn row(site: &Site, node: &Node) -> [String; 7] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let image = node.image.as_ref().or(site.config().defaults.image.as_ref());
    let groups: Vec<&str> = node.groups.iter().map(Name::as_str).collect();
    [
        node.name.to_string(),
        or_none(node.mac.map(|mac| mac.to_string())),
        node.ip.to_string(),
        or_none(node.bmc.as_ref().map(|bmc| bmc.ip.to_string())),
        or_none(image.map(ToString::to_string)),
        or_none(site.boot_path(Some(node)).map(|path| path.to_string())),
        or_none((!groups.is_empty()).then(|| groups.join(","))),
    ]
}

/// Prints rows, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say::result(cells.join("  ").trim_end());
    }
}

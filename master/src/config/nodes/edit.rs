//! Edits of nodes.toml that leave comments and order as they are.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Context, Result};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TableLike, Value, value};

use super::{BootPath, BuildId, Protocol};
use crate::config::addresses::{Mac, Name, Wrong};
use crate::config::facts::FactName;

/// A node that there is not yet.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    /// Its name.
    pub(crate) name: Name,
    /// The port that it boots from, where that is known.
    pub(crate) mac: Option<Mac>,
    /// Its address.
    pub(crate) ip: Ipv4Addr,
    /// Its BMC's address, and MAC where that is known.
    pub(crate) bmc: Option<(Ipv4Addr, Option<Mac>)>,
}

/// `key=value`, or `key=` for none.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The key in the node's entry, or in a table of it: `bmc.user`, `facts.rack`.
    key: String,
    value: Option<Value>,
}

impl Setting {
    /// The keys that there are.
    const KEYS: [&str; 19] = [
        "name",
        "mac",
        "ip",
        "groups",
        "image",
        "build",
        "overlays",
        "parameters",
        "boot",
        "bmc.mac",
        "bmc.ip",
        "bmc.protocol",
        "bmc.user",
        "bmc.password_file",
        "bmc.port",
        "bmc.cipher",
        "bmc.ca",
        "bmc.insecure",
        "facts.NAME",
    ];

    /// A value for `key`; an empty text for none.
    ///
    /// # Errors
    /// There is no such key, or the value is none for it.
    pub(crate) fn new(key: &str, text: &str) -> Result<Self, Wrong> {
        let value = if text.is_empty() { None } else { Some(read(key, text)?) };
        // What it would be empty of must be a key too.
        if value.is_none() && !Self::KEYS.contains(&key) && !is_fact(key) {
            return Err(unknown(key));
        }
        Ok(Self { key: key.to_owned(), value })
    }

    /// Its key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The address that it gives, which goes up where several nodes are given one.
    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        let counts = matches!(self.key.as_str(), "ip" | "bmc.ip");
        self.value.as_ref().filter(|_| counts)?.as_str()?.parse().ok()
    }

    /// Whether only one node can have it.
    pub(crate) fn is_of_one(&self) -> bool {
        matches!(self.key.as_str(), "name" | "mac" | "bmc.mac") && self.value.is_some()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}", self.key),
            None => write!(f, "no {}", self.key),
        }
    }
}

impl FromStr for Setting {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
        Self::new(key, value)
    }
}

fn is_fact(key: &str) -> bool {
    key.strip_prefix("facts.").is_some_and(|name| name.parse::<FactName>().is_ok())
}

fn unknown(key: &str) -> Wrong {
    format!("a node has no `{key}`; there are {}", Setting::KEYS.join(", "))
}

/// The value as nodes.toml has it.
fn read(key: &str, text: &str) -> Result<Value, Wrong> {
    let names = || -> Result<Value, Wrong> {
        let names: Result<Vec<Name>, Wrong> = text.split(',').map(|name| name.trim().parse()).collect();
        Ok(Value::from(names?.iter().map(Name::as_str).collect::<Array>()))
    };
    let address = || text.parse::<Ipv4Addr>().map_err(|_| format!("`{text}` is no address such as 172.16.0.1"));
    let number = |most: u16| match text.parse::<u16>() {
        Ok(number) if number <= most => Ok(i64::from(number)),
        _ => Err(format!("`{text}` is no number up to {most}")),
    };
    Ok(match key {
        "name" | "image" => text.parse::<Name>()?.as_str().into(),
        "build" => text.parse::<BuildId>()?.as_str().into(),
        "mac" | "bmc.mac" => text.parse::<Mac>()?.to_string().into(),
        "ip" | "bmc.ip" => address()?.to_string().into(),
        "groups" | "overlays" => names()?,
        "boot" => text.parse::<BootPath>()?.as_str().into(),
        "bmc.protocol" => text.parse::<Protocol>()?.to_string().into(),
        "bmc.port" => number(u16::MAX)?.into(),
        "bmc.cipher" => number(u16::from(u8::MAX))?.into(),
        "bmc.insecure" => text.parse::<bool>().map_err(|_| format!("`{text}` is neither true nor false"))?.into(),
        "parameters" | "bmc.user" | "bmc.password_file" | "bmc.ca" => text.into(),
        _ => match key.strip_prefix("facts.") {
            Some(name) => name.parse::<FactName>().map(|_| text.into())?,
            None => return Err(unknown(key)),
        },
    })
}

/// nodes.toml while it is changed.
#[derive(Debug)]
pub(crate) struct Edit {
    document: DocumentMut,
    /// Whether the nodes, and no group, are at the file's end.
    ends_with_nodes: bool,
    /// Where in the list each name was at first; searching for thousands takes seconds.
    places: HashMap<String, usize>,
}

impl Edit {
    /// Begins with what the file says.
    ///
    /// # Errors
    /// Its nodes are not [[node]] entries.
    pub(super) fn of(text: &str) -> Result<Self> {
        let document: DocumentMut = text.parse().context("reading nodes.toml again")?;
        let nodes = document.get("node");
        if nodes.is_some_and(|item| !item.is_array_of_tables()) {
            anyhow::bail!("`node` in nodes.toml is a list in brackets; write each node as [[node]]");
        }
        let ends_with_nodes = last(document.as_table(), true) >= last(document.as_table(), false);
        let listed = nodes.and_then(Item::as_array_of_tables).into_iter().flatten().enumerate();
        let named = listed.filter_map(|(at, table)| Some((table.get("name")?.as_str()?.to_ascii_lowercase(), at)));
        let places = named.collect();
        Ok(Self { document, ends_with_nodes, places })
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        self.document.to_string()
    }

    /// Adds a node below the others.
    ///
    /// # Errors
    /// A setting is none of a node's.
    pub(crate) fn add(&mut self, new: &Newcomer, settings: &[Setting]) -> Result<()> {
        let mut table = Table::new();
        table.insert("name", value(new.name.as_str()));
        if let Some(mac) = new.mac {
            table.insert("mac", value(mac.to_string()));
        }
        table.insert("ip", value(new.ip.to_string()));
        if let Some((ip, mac)) = new.bmc {
            let mut bmc = beneath();
            if let Some(mac) = mac {
                bmc.insert("mac", value(mac.to_string()));
            }
            bmc.insert("ip", value(ip.to_string()));
            table.insert("bmc", Item::Table(bmc));
        }
        for setting in settings {
            put(&mut table, setting)?;
        }
        // An empty line before each entry; comments at the file's end stay above it.
        let prefix = if self.ends_with_nodes {
            let trailing = self.document.trailing().as_str().unwrap_or_default().to_owned();
            self.document.set_trailing("");
            let is_first = self.document.as_table().is_empty() && trailing.trim().is_empty();
            format!("{trailing}{}", if is_first || trailing.ends_with("\n\n") { "" } else { "\n" })
        } else {
            "\n".to_owned()
        };
        table.decor_mut().set_prefix(prefix);
        self.nodes().context("`node` is no list of tables")?.push(table);
        Ok(())
    }

    /// Gives the node `name` another value.
    ///
    /// # Errors
    /// There is no such node.
    pub(crate) fn set(&mut self, name: &Name, setting: &Setting) -> Result<()> {
        let at = self.find(name)?;
        let table = self.nodes().and_then(|nodes| nodes.get_mut(at));
        put(table.with_context(|| format!("there is no node {name}"))?, setting)
    }

    /// Removes the node `name`, with the comment right above it.
    ///
    /// # Errors
    /// There is no such node.
    pub(crate) fn remove(&mut self, name: &Name) -> Result<()> {
        let at = self.find(name)?;
        let nodes = self.nodes().context("`node` is no list of tables")?;
        let gone = nodes.remove(at);
        let above = gone.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
        // A paragraph by itself is about more than this node, and so is the file's heading.
        let kept =
            if at == 0 { above } else { above.rfind("\n\n").and_then(|end| above.get(..end + 2)).unwrap_or_default() };
        if kept.trim().is_empty() {
            return Ok(());
        }
        match nodes.get_mut(at) {
            Some(next) => {
                let below = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
                let below = if kept.ends_with("\n\n") { below.trim_start_matches('\n') } else { below };
                let prefix = format!("{kept}{below}");
                next.decor_mut().set_prefix(prefix);
            }
            None => {
                let trailing = self.document.trailing().as_str().unwrap_or_default().to_owned();
                self.document.set_trailing(format!("{kept}{trailing}"));
            }
        }
        Ok(())
    }

    /// The place of a node in the list.
    fn find(&mut self, name: &Name) -> Result<usize> {
        let at = self.places.get(&name.as_str().to_ascii_lowercase()).copied();
        let nodes = self.nodes().context("`node` is no list of tables")?;
        // Since then others may have been removed, or it was given another name.
        let at = at.filter(|at| nodes.get(*at).is_some_and(|table| is_called(table, name)));
        let at = at.or_else(|| nodes.iter().position(|table| is_called(table, name)));
        at.with_context(|| format!("there is no node {name}"))
    }

    fn nodes(&mut self) -> Option<&mut ArrayOfTables> {
        self.document.entry("node").or_insert(Item::ArrayOfTables(ArrayOfTables::new())).as_array_of_tables_mut()
    }
}

fn is_called(table: &Table, name: &Name) -> bool {
    table.get("name").and_then(Item::as_str).is_some_and(|text| text.eq_ignore_ascii_case(name.as_str()))
}

/// A table below a node's own keys, without an empty line between.
fn beneath() -> Table {
    let mut table = Table::new();
    table.decor_mut().set_prefix("");
    table
}

fn put(node: &mut Table, setting: &Setting) -> Result<()> {
    let Some((outer, key)) = setting.key.split_once('.') else {
        replace(node, &setting.key, setting.value.as_ref());
        return Ok(());
    };
    let item = node.entry(outer).or_insert_with(|| Item::Table(beneath()));
    let table = item.as_table_like_mut().with_context(|| format!("`{outer}` in nodes.toml is no table"))?;
    replace(table, key, setting.value.as_ref());
    if table.is_empty() {
        node.remove(outer);
    }
    Ok(())
}

/// The comment at a value's line stays.
fn replace(table: &mut dyn TableLike, key: &str, new: Option<&Value>) {
    let Some(new) = new else {
        table.remove(key);
        return;
    };
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = new.clone();
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(key, Item::Value(new.clone()));
        }
    }
}

/// The place of the file's last table, among the nodes' or among all others.
fn last(root: &Table, of_nodes: bool) -> isize {
    let items = root.iter().filter(|(key, _)| (*key == "node") == of_nodes);
    items.map(|(_, item)| last_in(item)).max().unwrap_or(-1)
}

fn last_in(item: &Item) -> isize {
    let of = |table: &Table| {
        let inner = table.iter().map(|(_, item)| last_in(item)).max().unwrap_or(-1);
        table.position().unwrap_or(-1).max(inner)
    };
    match item {
        Item::Table(table) => of(table),
        Item::ArrayOfTables(tables) => tables.iter().map(of).max().unwrap_or(-1),
        Item::None | Item::Value(_) => -1,
    }
}

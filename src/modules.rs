//! Kernel modules: what modules.txt asks for, with what that depends on.
//!
//! modules.txt lists one module a line, `name option=value …`, `#` starts a comment. Dependencies
//! come from `modules.dep`, names compiled into the kernel from `modules.builtin` (both made by
//! depmod(8)). A module that cannot be loaded does not end the boot: whether it can do
//! without shows when a port is looked for.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// A module asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name; `-` and `_` are the same.
    pub name: String,
    /// Options, separated by blanks; empty where none.
    pub options: String,
}

/// Reads modules.txt.
pub fn parse_list(text: &str) -> Vec<Request> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, options) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            Request { name: name.to_owned(), options: options.trim().to_owned() }
        })
        .collect()
}

/// What a kernel's module folder holds: where each module is and what must be loaded before it.
#[derive(Debug, Default)]
pub struct Index {
    /// Canonical name to its file and its dependencies' files, in modules.dep's order (nearest first).
    files: HashMap<String, (String, Vec<String>)>,
    builtin: HashSet<String>,
}

impl Index {
    /// Reads `modules.dep` and `modules.builtin` of `folder` (`/lib/modules/RELEASE`).
    ///
    /// # Errors
    /// `modules.dep` cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let dep = folder.join("modules.dep");
        let text = fs::read_to_string(&dep).with_context(|| format!("reading {}", dep.display()))?;
        let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
        Ok(Self::parse(&text, &builtin))
    }

    /// The same from the texts of `modules.dep` and `modules.builtin`.
    pub fn parse(dep: &str, builtin: &str) -> Self {
        let files = dep.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((canonical(file), (file.to_owned(), needs)))
        });
        Self { files: files.collect(), builtin: builtin.lines().map(canonical).collect() }
    }

    /// The files to load for `name`, dependencies first; empty when it is part of the kernel, `None` when
    /// it is not there.
    ///
    /// # Errors
    /// It or a dependency is in `deny`.
    pub fn load_order(&self, name: &str, deny: &HashSet<String>) -> Result<Option<Vec<&str>>, String> {
        let name = canonical(name);
        if self.builtin.contains(&name) {
            return Ok(Some(Vec::new()));
        }
        let Some((file, needs)) = self.files.get(&name) else { return Ok(None) };
        let order: Vec<&str> = needs.iter().rev().chain([file]).map(String::as_str).collect();
        match order.iter().find(|file| deny.contains(&canonical(file))) {
            Some(file) => Err(format!("{} is denied", canonical(file))),
            None => Ok(Some(order)),
        }
    }
}

/// `kernel/drivers/net/virtio-net.ko.xz` and `virtio-net` are both `virtio_net`.
pub fn canonical(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// What came of loading.
#[derive(Debug, Default)]
pub struct Loaded {
    /// How many modules went into the kernel.
    pub count: usize,
    /// Names that the module folder does not have.
    pub absent: Vec<String>,
    /// Those that are there and were not loaded, each with the reason.
    pub failed: Vec<String>,
}

/// Loads `requests` from `folder`, dependencies first. Options count wherever a module is named, also for
/// one that comes as a dependency of an earlier one. What cannot be loaded is left out, and said in the
/// result.
pub fn load(folder: &Path, requests: &[Request], deny: &[String]) -> Loaded {
    let mut loaded = Loaded::default();
    if requests.is_empty() {
        return loaded;
    }
    let index = match Index::read(folder) {
        Ok(index) => index,
        Err(error) => {
            loaded.failed.push(format!("none loaded: {error:#}; was this initramfs made for another kernel?"));
            return loaded;
        }
    };
    let deny: HashSet<String> = deny.iter().map(|name| canonical(name)).collect();
    let options = options_by_name(requests);
    let mut present: HashSet<String> = HashSet::new();
    for request in requests {
        let order = match index.load_order(&request.name, &deny) {
            Ok(Some(order)) => order,
            Ok(None) => {
                loaded.absent.push(request.name.clone());
                continue;
            }
            Err(why) => {
                loaded.failed.push(format!("{} not loaded: {why}", request.name));
                continue;
            }
        };
        for file in order {
            if present.contains(file) {
                continue;
            }
            match insert(&folder.join(file), options.get(&canonical(file)).map_or("", String::as_str)) {
                Ok(new) => {
                    loaded.count += usize::from(new);
                    present.insert(file.to_owned());
                }
                Err(why) => {
                    loaded.failed.push(format!("{} not loaded: {why}", request.name));
                    break;
                }
            }
        }
    }
    loaded
}

/// All options asked for of each module, in order: the kernel lets the last of two win.
fn options_by_name(requests: &[Request]) -> HashMap<String, String> {
    let mut options: HashMap<String, String> = HashMap::new();
    for request in requests.iter().filter(|request| !request.options.is_empty()) {
        let all = options.entry(canonical(&request.name)).or_default();
        let space = if all.is_empty() { "" } else { " " };
        *all = format!("{all}{space}{}", request.options);
    }
    options
}

/// Whether the kernel took it now (`false`: it had it already, or has no use for it).
fn insert(path: &Path, options: &str) -> Result<bool, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let options = std::ffi::CString::new(options).map_err(|_| "options hold a NUL".to_owned())?;
    match finit_module(&file, &options, ModuleInitFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        // The module looked for its hardware and there is none, as on most machines for most of a list.
        Err(Errno::ENODEV) => Ok(false),
        // What modprobe(8) explains of these is in the kernel log just above.
        Err(Errno::ENOENT) => Err(format!("{}: unknown symbol (made for another kernel?)", path.display())),
        Err(Errno::ENOEXEC) => Err(format!("{}: not a module of this kernel", path.display())),
        Err(errno) => Err(format!("{}: {}", path.display(), errno.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko \
        kernel/drivers/virtio/virtio.ko\nkernel/net/core/failover.ko:\nkernel/drivers/virtio/virtio.ko:\n\
        kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\nkernel/drivers/net/ice-plus.ko.xz:\n";

    fn index() -> Index {
        Index::parse(DEP, "kernel/fs/ext4/ext4.ko\n")
    }

    #[test]
    fn the_list_has_comments_and_options() {
        let list = parse_list("# NICs\nvirtio_net\n\n bonding  mode=1 miimon=100 # bond\n");
        assert_eq!(list.len(), 2);
        assert_eq!(list[1], Request { name: "bonding".to_owned(), options: "mode=1 miimon=100".to_owned() });
    }

    #[test]
    fn dependencies_come_first() {
        let order = index().load_order("virtio-net", &HashSet::new()).unwrap().unwrap().join(" ");
        assert_eq!(
            order,
            "kernel/drivers/virtio/virtio.ko kernel/net/core/failover.ko kernel/drivers/net/net_failover.ko \
             kernel/drivers/net/virtio_net.ko"
        );
    }

    // F63
    #[test]
    fn built_in_missing_and_denied_modules() {
        let index = index();
        assert_eq!(index.load_order("ext4", &HashSet::new()), Ok(Some(vec![])));
        assert_eq!(index.load_order("nosuch", &HashSet::new()), Ok(None));
        let deny = HashSet::from(["failover".to_owned()]);
        assert_eq!(index.load_order("virtio_net", &deny), Err("failover is denied".to_owned()));
        assert_eq!(index.load_order("ice_plus", &deny), Ok(Some(vec!["kernel/drivers/net/ice-plus.ko.xz"])));
    }

    // F63
    #[test]
    fn a_folder_of_another_kernel_is_carried_on_from() {
        let requests = parse_list("virtio_net");
        let loaded = load(Path::new("/nonexistent"), &requests, &[]);
        assert_eq!(loaded.count, 0);
        assert!(loaded.failed[0].contains("/nonexistent/modules.dep"), "{:?}", loaded.failed);
    }

    #[test]
    fn options_add_up_wherever_a_module_is_named() {
        let requests = parse_list("virtio-net napi_tx=1\nfailover\nvirtio_net csum=0\n");
        let options = options_by_name(&requests);
        assert_eq!(options.get("virtio_net").map(String::as_str), Some("napi_tx=1 csum=0"));
        assert_eq!(options.get("failover"), None);
    }
}

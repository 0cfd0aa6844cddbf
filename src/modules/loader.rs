//! Puts modules into the kernel.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::{Index, List, Request, canonical, kernel_release};
use crate::cmdline::Config;
use crate::say;

/// The list of modules that `rootstream bootstrap` packed.
const MODULES_TXT: &str = "/modules.txt";

/// What came of loading.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Modules that went into the kernel, in order.
    pub names: Vec<String>,
    /// Names that the module folder does not have.
    pub absent: Vec<String>,
    /// Those that are there and were not loaded, each with the reason.
    pub failed: Vec<String>,
}

/// A file that is still to be loaded.
struct Task {
    file: String,
    needed: bool,
}

/// A kernel's modules and which of them it has by now.
#[derive(Debug)]
pub struct Loader {
    folder: PathBuf,
    index: Index,
    deny: HashSet<String>,
    options: HashMap<String, String>,
    /// Files that were tried, and whether the kernel has them.
    tried: HashMap<String, bool>,
    /// Modules that were given up, each with a line in `loaded.failed`.
    given_up: HashSet<String>,
    loaded: Loaded,
}

impl Loader {
    /// For the modules in `folder` (`/lib/modules/RELEASE`), never those of `deny`. Options count wherever a module
    /// comes from: those of modules.options in the folder, of `list`, and of `more` (`rootstream.modules=`), whose
    /// the kernel sees last and lets win.
    ///
    /// A folder without an index loads nothing; [`Loader::loaded`] says so.
    pub fn new(folder: &Path, list: &List, more: &[Request], deny: &[String]) -> Self {
        let mut loaded = Loaded::default();
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let dep = fs::read_to_string(folder.join("modules.dep")).unwrap_or_else(|error| {
            let path = folder.join("modules.dep");
            let why = format!("reading {}: {error}; was this initramfs made for another kernel?", path.display());
            loaded.failed.push(format!("none loaded: {why}"));
            String::new()
        });
        let index = Index::parse(&dep, &text("modules.builtin"), &text("modules.alias"), &text("modules.softdep"));
        let packed = List::parse(&text("modules.options"));
        let options = [&packed.options, &list.options, &list.requests].into_iter().flatten().chain(more);
        Self {
            folder: folder.to_owned(),
            index,
            deny: deny.iter().map(|name| canonical(name)).collect(),
            options: options_by_name(options),
            tried: HashMap::new(),
            given_up: HashSet::new(),
            loaded,
        }
    }

    /// For the running kernel and the initramfs that this process lives in; with the list that is in it.
    ///
    /// # Errors
    /// The kernel does not say its release.
    pub fn of_initramfs(config: &Config) -> anyhow::Result<(Self, List)> {
        let list = List::parse(&fs::read_to_string(MODULES_TXT).unwrap_or_default());
        let folder = Path::new("/lib/modules").join(kernel_release()?);
        Ok((Self::new(&folder, &list, &config.modules, &config.modules_deny), list))
    }

    /// The folder that it loads from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What came of it so far.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The index of the folder.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Loads a module by its name, or those that the name is an alias of. True when the kernel has one of them now.
    pub fn load(&mut self, name: &str) -> bool {
        let modules: Vec<String> = self.index.resolve(name).into_iter().map(str::to_owned).collect();
        if modules.is_empty() {
            self.loaded.absent.push(name.to_owned());
        }
        modules.iter().filter(|module| self.load_module(module)).count() > 0
    }

    /// Loads what serves a device that says this of itself.
    pub fn serve(&mut self, modalias: &str) {
        let modules: Vec<String> = self.index.aliases().of(modalias).into_iter().map(str::to_owned).collect();
        for module in modules {
            self.load_module(&module);
        }
    }

    fn load_module(&mut self, name: &str) -> bool {
        if self.given_up.contains(&canonical(name)) {
            return false;
        }
        match self.try_module(name) {
            Ok(()) => true,
            Err(why) => {
                self.give_up(name, &why);
                false
            }
        }
    }

    fn try_module(&mut self, name: &str) -> Result<(), String> {
        for Task { file, needed } in self.tasks(name)? {
            let options = self.options.get(&canonical(&file)).map_or("", String::as_str);
            let done = insert(&self.folder.join(&file), options);
            self.tried.insert(file.clone(), done.is_ok());
            match done {
                Ok(true) => self.loaded.names.push(canonical(&file)),
                Ok(false) => {}
                Err(why) if needed => return Err(why),
                Err(why) => self.give_up(&file, &why),
            }
        }
        Ok(())
    }

    /// What is left to do for a module.
    fn tasks(&self, name: &str) -> Result<Vec<Task>, String> {
        let order = self.index.load_order(name, &self.deny)?.unwrap_or_default();
        let mut tasks = Vec::new();
        for item in order {
            match self.tried.get(item.file) {
                // The reason was said.
                Some(false) if item.needed => return Err(format!("{} could not be loaded", canonical(item.file))),
                Some(_) => {}
                None => tasks.push(Task { file: item.file.to_owned(), needed: item.needed }),
            }
        }
        Ok(tasks)
    }

    fn give_up(&mut self, name: &str, why: &str) {
        let line = format!("{} not loaded: {why}", canonical(name));
        say::warn!("modules: {line}");
        self.loaded.failed.push(line);
        self.given_up.insert(canonical(name));
    }
}

/// All options asked for of each module, in order: the kernel lets the last of two win.
fn options_by_name<'a>(requests: impl Iterator<Item = &'a Request>) -> HashMap<String, String> {
    let mut options: HashMap<String, String> = HashMap::new();
    for request in requests.filter(|request| !request.options.is_empty()) {
        let all = options.entry(canonical(&request.name)).or_default();
        let space = if all.is_empty() { "" } else { " " };
        *all = format!("{all}{space}{}", request.options);
    }
    options
}

/// Whether the kernel took it now (`false`: it had it already, or has no use for it).
fn insert(path: &Path, options: &str) -> Result<bool, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let options = CString::new(options).map_err(|_| "options hold a NUL".to_owned())?;
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

    // F63
    #[test]
    fn a_folder_of_another_kernel_is_carried_on_from() {
        let mut loader = Loader::new(Path::new("/nonexistent"), &List::parse("virtio_net"), &[], &[]);
        assert!(!loader.load("virtio_net"));
        let loaded = loader.loaded();
        assert!(loaded.names.is_empty());
        assert!(loaded.failed[0].contains("/nonexistent/modules.dep"), "{:?}", loaded.failed);
        assert_eq!(loaded.absent, ["virtio_net"]);
    }

    #[test]
    fn options_add_up_wherever_a_module_is_named() {
        let list = List::parse("virtio-net napi_tx=1\nfailover\noptions virtio_net gso=0\n");
        let more = [Request { name: "virtio_net".to_owned(), options: "csum=0".to_owned() }];
        let loader = Loader::new(Path::new("/nonexistent"), &list, &more, &[]);
        assert_eq!(loader.options.get("virtio_net").map(String::as_str), Some("gso=0 napi_tx=1 csum=0"));
        assert_eq!(loader.options.get("failover"), None);
    }

    // F63
    #[test]
    fn what_failed_is_tried_once_and_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        // No kernel takes such files, so nothing happens to the one that runs this test.
        write("modules.dep", "a.ko:\nb.ko: a.ko\nc.ko: gone.ko\nd.ko:\ne.ko: a.ko\n");
        write("modules.alias", "alias pci:v1* b\nalias pci:v1* c\nalias pci:v1* e\nalias pci:v2* d\n");
        write("modules.options", "options a x=1\n");
        for name in ["a.ko", "b.ko", "c.ko", "d.ko", "e.ko"] {
            write(name, "no module");
        }
        let mut loader = Loader::new(folder.path(), &List::default(), &[], &["d".to_owned()]);
        assert_eq!(loader.options.get("a").map(String::as_str), Some("x=1"));
        for _ in 0..2 {
            loader.serve("pci:v1");
            loader.serve("pci:v2");
            loader.serve("pci:v3");
        }
        let [b, c, d, e] = loader.loaded().failed.as_slice() else { panic!("{:?}", loader.loaded().failed) };
        assert!(b.starts_with("b not loaded: ") && b.contains("/a.ko: "), "{b}");
        assert!(c.starts_with("c not loaded: ") && c.contains("/gone.ko: No such file"), "{c}");
        assert_eq!((d.as_str(), e.as_str()), ("e not loaded: a could not be loaded", "d not loaded: d is denied"));
        assert!(loader.loaded().names.is_empty());
    }
}

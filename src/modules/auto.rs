//! Loads what serves the machine's devices: those that are there, and those that appear while the boot goes on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;

use super::loader::Loader;
use super::{devices, uevent::Uevents};

use crate::say;

/// A driver of a bus makes devices whose drivers may make more; no machine nests them deeper.
const DEEPEST: usize = 8;

/// A loader that the boot and the thread that waits for devices share.
pub type Shared = Arc<Mutex<Loader>>;

/// Loads for the devices that sysfs at `sys` (`/sys`) shows until no more appear, then, in a thread that ends with the
/// process, for those that the kernel tells of: on USB a card is found seconds after the bus.
pub fn start(sys: &Path, loader: &Shared) {
    // Opened before the first look, so that nothing appears between the two.
    let uevents = Uevents::open();
    let mut served = BTreeSet::new();
    serve_all(sys, loader, &mut served);
    let uevents = match uevents {
        Ok(uevents) => uevents,
        Err(error) => {
            say::warn!("modules: devices that appear later are not seen: {error}");
            return;
        }
    };
    let (sys, loader) = (sys.to_owned(), loader.clone());
    let spawned = thread::Builder::new().name("modules".to_owned()).spawn(move || {
        loop {
            match uevents.next() {
                Ok(modalias) if served.contains(&modalias) => {}
                Ok(modalias) => serve(&loader, &mut served, &modalias),
                // Some were lost; sysfs has them all.
                Err(Errno::ENOBUFS) => serve_all(&sys, &loader, &mut served),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    say::warn!("modules: devices that appear from now on are not seen: {error}");
                    return;
                }
            }
        }
    });
    if let Err(error) = spawned {
        say::warn!("modules: devices that appear later are not seen: {error}");
    }
}

/// Looks until there is nothing new.
fn serve_all(sys: &Path, loader: &Shared, served: &mut BTreeSet<String>) {
    for _ in 0..DEEPEST {
        let seen = devices::modaliases(sys);
        let new: Vec<&String> = seen.iter().filter(|modalias| !served.contains(*modalias)).collect();
        if new.is_empty() {
            return;
        }
        for modalias in new {
            serve(loader, served, modalias);
        }
    }
}

fn serve(loader: &Shared, served: &mut BTreeSet<String>, modalias: &str) {
    let mut loader = lock(loader);
    let before = loader.loaded().names.len();
    loader.serve(modalias);
    let new = loader.loaded().names.get(before..).unwrap_or_default().join(" ");
    if !new.is_empty() {
        say::info!("modules: {new} for {modalias}");
    }
    served.insert(modalias.to_owned());
}

/// The loader; what a thread that panicked left of it is still right.
pub fn lock(loader: &Shared) -> MutexGuard<'_, Loader> {
    loader.lock().unwrap_or_else(PoisonError::into_inner)
}

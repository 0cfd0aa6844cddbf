//! Files that are cut over chunks. Their parts come in any order and from several threads; whichever is first
//! makes the file, and its metadata goes on after the last one, because writing would change it again.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;

use super::manifest::{Continued, unescape};
use super::metadata::Metadata;
use super::path::Name;

/// The file that a chunk ends inside of.
pub(super) struct Tail {
    name: Name,
    /// How many of its bytes this chunk and those before hold.
    pub(super) offset: u64,
    /// Its length.
    pub(super) total: u64,
}

impl Tail {
    /// What the next chunk continues.
    ///
    /// # Errors
    /// Its path is no name.
    pub(super) fn of(next: &Continued) -> anyhow::Result<Self> {
        Ok(Self { name: Name::new(&unescape(&next.path)?)?, offset: next.offset, total: next.total })
    }

    /// Whether the file is this one.
    pub(super) fn is(&self, name: &Name) -> bool {
        self.name.bytes() == name.bytes()
    }
}

/// Some of a file's bytes.
pub(super) struct Part<'a> {
    pub(super) name: &'a Name,
    pub(super) offset: u64,
    /// The file's length.
    pub(super) total: u64,
    pub(super) data: &'a [u8],
}

/// A file of which some parts have come.
pub(super) struct CutFile {
    pub(super) file: File,
    state: Mutex<State>,
}

struct State {
    left: u64,
    metadata: Option<Metadata>,
}

/// The files that are not complete yet: about as many as there are threads.
#[derive(Default)]
pub(super) struct Cuts(Mutex<HashMap<Vec<u8>, Arc<CutFile>>>);

impl Cuts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<CutFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that a part belongs to, made by `make` if this is its first part to come.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn open(
        &self,
        part: &Part<'_>,
        make: impl FnOnce() -> anyhow::Result<File>,
    ) -> anyhow::Result<Arc<CutFile>> {
        let mut files = self.lock();
        if let Some(file) = files.get(part.name.bytes()) {
            return Ok(Arc::clone(file));
        }
        let state = Mutex::new(State { left: part.total, metadata: None });
        let file = Arc::new(CutFile { file: make()?, state });
        files.insert(part.name.bytes().to_vec(), Arc::clone(&file));
        Ok(file)
    }

    /// Notes that a part was written; the first part brings the metadata, which comes back after the last.
    ///
    /// # Errors
    /// The parts are more than the file.
    pub(super) fn written(
        &self,
        file: &CutFile,
        part: &Part<'_>,
        metadata: Option<Metadata>,
    ) -> anyhow::Result<Option<Metadata>> {
        let mut state = file.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left = state
            .left
            .checked_sub(part.data.len() as u64)
            .with_context(|| format!("unpacking {}: its parts are longer than the file", part.name))?;
        if metadata.is_some() {
            state.metadata = metadata;
        }
        if state.left > 0 {
            return Ok(None);
        }
        self.lock().remove(part.name.bytes());
        let metadata = state.metadata.take();
        metadata.map(Some).with_context(|| format!("unpacking {}: its header never came", part.name))
    }

    /// Checks that every file is complete.
    ///
    /// # Errors
    /// One is not.
    pub(super) fn all_complete(&self) -> anyhow::Result<()> {
        match self.lock().keys().next() {
            Some(name) => anyhow::bail!("unpacking {}: not all of its parts came", name.escape_ascii()),
            None => Ok(()),
        }
    }
}

//! Whether an archive is canonical and cut as its chunks say, and what is in it. The contract is in
//! docs/ARCHITECTURE.md, "The published image"; an archive of another program that keeps it passes too.

use std::collections::HashMap;
use std::io::BufRead;

use anyhow::{Context, Result, ensure};
use rootstream::image::archive::{Archive, Kind, Member, Name};
use rootstream::image::manifest::{Chunk, Continued, escape};

use super::{BLOCK, PAGE, filled_pages};
use crate::image::Survey;

/// What a canonical archive holds.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// All but the secrets.
    pub(crate) survey: Survey,
    /// Pages that are not all zeros.
    pub(crate) pages: u64,
}

/// Reads an archive, which is the chunks unpacked and joined, to its end.
///
/// # Errors
/// It is damaged, not canonical, or cut otherwise than the chunks say; entry or chunk are named.
pub(crate) fn check(input: impl BufRead, chunks: &[Chunk]) -> Result<Checked> {
    let mut checked = Checked::default();
    let mut names = Names::default();
    let mut begins = Begins::new(chunks);
    let mut archive = Archive::new(input);
    let mut at = 0;
    while let Some(member) = archive.next()? {
        let name = member.path.escape_ascii().to_string();
        let data = archive.position();
        let mut one = || {
            ensure!(!archive.has_global(), "a global header comes before it");
            names.add(&member)?;
            begins.check(&member, at, data)?;
            checked.note(&member);
            checked.read(&member, &mut archive)
        };
        one().with_context(|| format!("the entry \"{name}\""))?;
        at = data + member.archived.next_multiple_of(BLOCK);
    }
    ensure!(!archive.unmarked, "the archive has no end mark");
    ensure!(archive.unknown == 0, "{} entries are of unknown types", archive.unknown);
    ensure!(at > 0, "the archive holds nothing");
    ensure!(begins.next.is_none(), "a chunk begins in the archive's end mark");
    Ok(checked)
}

impl Checked {
    fn note(&mut self, member: &Member) {
        self.survey.note_path(Name::new(&member.path).unwrap_or_default().bytes());
        if member.kind != Kind::HardLink {
            self.survey.inodes += 1;
        }
        if member.kind == Kind::File {
            self.survey.bytes += member.archived;
            self.survey.largest = self.survey.largest.max(member.archived);
        }
    }

    fn read<R: BufRead>(&mut self, member: &Member, archive: &mut Archive<R>) -> Result<()> {
        let mut page = Vec::with_capacity(PAGE as usize);
        let mut left = member.archived;
        while left > 0 {
            let most = usize::try_from(left.min(PAGE - page.len() as u64))?;
            let data = archive.data()?;
            let data = data.get(..most).unwrap_or(data);
            ensure!(!data.is_empty(), "its data ends early");
            page.extend_from_slice(data);
            let count = data.len();
            archive.used(count);
            left -= count as u64;
            if left == 0 || page.len() as u64 == PAGE {
                self.pages += filled_pages(&page);
                page.clear();
            }
        }
        Ok(())
    }
}

/// Every path so far, with what it is.
#[derive(Default)]
struct Names(HashMap<Vec<u8>, Kind>);

impl Names {
    fn add(&mut self, member: &Member) -> Result<()> {
        let name = Name::new(&member.path)?;
        let written = match (member.kind, name.bytes()) {
            (Kind::Directory, b"") => b"./".to_vec(),
            (Kind::Directory, path) => [path, b"/"].concat(),
            (_, path) => path.to_vec(),
        };
        ensure!(member.path == written, "it would be written \"{}\"", written.escape_ascii());
        ensure!(member.map.is_none(), "it is stored as a sparse file");
        if name.bytes().is_empty() {
            ensure!(self.0.is_empty(), "the root is not the first entry");
        } else {
            let (parent, _) = name.split();
            ensure!(self.0.get(parent) == Some(&Kind::Directory), "its directory did not come before it");
        }
        if member.kind == Kind::HardLink {
            let target = self.0.get(&member.link);
            let good = target.is_some_and(|kind| !matches!(kind, Kind::Directory | Kind::HardLink));
            ensure!(good, "it is a hard link to \"{}\", which did not come before it", member.link.escape_ascii());
        }
        ensure!(self.0.insert(name.bytes().to_vec(), member.kind).is_none(), "it comes twice");
        Ok(())
    }
}

/// Where in the archive chunks begin.
struct Begins<'a> {
    /// Number and place of the next one.
    next: Option<(usize, u64)>,
    chunks: &'a [Chunk],
}

impl<'a> Begins<'a> {
    fn new(chunks: &'a [Chunk]) -> Self {
        Self { next: (!chunks.is_empty()).then_some((0, 0)), chunks }
    }

    /// Checks those that begin in a member that begins at `at` and has its data at `data`.
    fn check(&mut self, member: &Member, at: u64, data: u64) -> Result<()> {
        let end = data + member.archived.next_multiple_of(BLOCK);
        while let Some((number, place)) = self.next.filter(|(_, place)| *place < end) {
            let chunk = self.chunks.get(number).context("no such chunk")?;
            let said = chunk.continues.as_ref();
            if place == at {
                ensure!(said.is_none(), "chunk {number} begins with it and is said to be inside a file");
            } else {
                let inside = place > data && place < data + member.archived;
                ensure!(
                    inside,
                    "chunk {number} begins at byte {place}, which is neither an entry's nor inside its data"
                );
                let offset = place - data;
                let name = Name::new(&member.path)?;
                let is = Continued { path: escape(name.bytes()), offset, total: member.archived };
                ensure!(
                    said == Some(&is),
                    "chunk {number} begins {offset} bytes into it, and the manifest says otherwise"
                );
                ensure!(offset.is_multiple_of(PAGE), "chunk {number} begins within a page of it");
            }
            let next = number + 1;
            self.next = (next < self.chunks.len()).then_some((next, place + chunk.unpacked));
        }
        Ok(())
    }
}

//! Reads a tar archive member by member: old, ustar, PAX and GNU headers, sparse maps included.
//!
//! Never seeks, never trusts a length, and keeps memory constant whatever the archive claims.

use std::io::{self, BufRead, Read};

use anyhow::{Context as _, bail, ensure};
use tar::Header;

use super::header::{self, BLOCK};
use super::pax::{self, Record};
use super::sparse;

use crate::say;

pub use super::path::Name;
pub use super::pax::Time;
pub use super::sparse::Map;

/// The most bytes of extension headers that one member may have.
const EXTENSIONS: u64 = 1 << 20;
/// The most bytes of an extended attribute's value (XATTR_SIZE_MAX of linux/limits.h).
const XATTR: usize = 65_536;

/// What a member becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device.
    Character {
        /// Its driver.
        major: u32,
        /// Its number there.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Its driver.
        major: u32,
        /// Its number there.
        minor: u32,
    },
}

/// One member, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name as the archive has it.
    pub path: Vec<u8>,
    /// What it becomes.
    pub kind: Kind,
    /// Target of a link, as the archive has it.
    pub link: Vec<u8>,
    /// The permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed last.
    pub mtime: Time,
    /// Extended attributes, ACLs among them: names, and values as the kernel takes them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes; `None`: all of it, from the start.
    pub map: Option<Map>,
    /// Length of the data in the archive.
    pub archived: u64,
}

/// An archive being read.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    at: u64,
    /// Data of the current member not read yet, and the padding after it.
    body: u64,
    padding: u64,
    global: Vec<u8>,
    /// Members of unknown type that were passed over.
    pub unknown: u64,
    /// Whether the archive ended without an end mark.
    pub unmarked: bool,
    /// Whether it ended in zeros at all: tar(1) reads no further, though one block of them is no end mark.
    pub zeros: bool,
}

/// Extension headers that came before a member's own.
#[derive(Default)]
struct Extensions {
    pax: Vec<u8>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    bytes: u64,
}

impl<R: BufRead> Archive<R> {
    /// Reads the archive that `input` holds.
    pub fn new(input: R) -> Self {
        Self { input, at: 0, body: 0, padding: 0, global: Vec::new(), unknown: 0, unmarked: false, zeros: false }
    }

    /// The next member; what is left of the one before is skipped. `None` at the end, after which
    /// nothing but zeros followed.
    ///
    /// # Errors
    /// The archive is damaged, cut short, or continues after its end.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not fail and be read from between members")]
    pub fn next(&mut self) -> anyhow::Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_body()?;
            let at = self.at;
            let Some(header) = self.header().with_context(|| format!("the archive's header at byte {at}"))? else {
                let dangling = extensions.bytes > 0;
                ensure!(!dangling, "the archive ends after an extension header, at byte {at}");
                return Ok(None);
            };
            let member = self.take(&header, &mut extensions).with_context(|| {
                let name = extensions.long_name.clone().unwrap_or_else(|| header.path_bytes().into_owned());
                format!("the archive's member \"{}\" at byte {at}", header::text(&name).escape_ascii())
            })?;
            if member.is_some() {
                return Ok(member);
            }
        }
    }

    /// The next bytes of the current member's data; empty at its end.
    ///
    /// # Errors
    /// The archive ends before the data does.
    pub fn data(&mut self) -> anyhow::Result<&[u8]> {
        if self.body == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        ensure!(!bytes.is_empty(), "the archive ends inside a member, {} bytes early", self.body);
        let most = usize::try_from(self.body).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.get(..most).unwrap_or_default())
    }

    /// Whether a global header said something about all members after it.
    pub fn has_global(&self) -> bool {
        !self.global.is_empty()
    }

    /// How many bytes of the input were read so far: after [`Archive::next`], where the member's data begins.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Says that this many bytes of [`Archive::data`] were used.
    pub fn used(&mut self, count: usize) {
        self.input.consume(count);
        self.at += count as u64;
        self.body = self.body.saturating_sub(count as u64);
    }

    /// Leaves the current member here: the rest of its data is elsewhere.
    pub(super) fn break_off(&mut self) {
        (self.body, self.padding) = (0, 0);
    }

    fn skip_body(&mut self) -> anyhow::Result<()> {
        self.body += std::mem::take(&mut self.padding);
        loop {
            let count = self.data()?.len();
            if count == 0 {
                return Ok(());
            }
            self.used(count);
        }
    }

    /// The next header block, or `None` at the end of the archive.
    fn header(&mut self) -> anyhow::Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            self.unmarked = true;
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.zeros = true;
            self.rest_is_zero()?;
            return Ok(None);
        }
        if !header::checksum_holds(header.as_bytes()) {
            let start = header.as_bytes().get(..32).unwrap_or_default().escape_ascii();
            bail!("its checksum is wrong; it begins with \"{start}\"");
        }
        Ok(Some(header))
    }

    /// Reads a whole block; false if the archive ends before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> anyhow::Result<bool> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => bail!("the archive ends inside a header"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += BLOCK as u64;
        Ok(true)
    }

    /// Reads to the very end, which also makes the decoder check its own trailer.
    fn rest_is_zero(&mut self) -> anyhow::Result<()> {
        let mut zeros = BLOCK;
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                self.unmarked = zeros < 2 * BLOCK;
                return Ok(());
            }
            ensure!(bytes.iter().all(|byte| *byte == 0), "data follows the archive's end mark");
            let count = bytes.len();
            zeros = zeros.saturating_add(count);
            self.at += count as u64;
            self.input.consume(count);
        }
    }

    fn set_body(&mut self, size: u64) -> anyhow::Result<()> {
        ensure!(size <= i64::MAX as u64, "its size is {size}");
        self.body = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Reads all of an extension header's data.
    fn extension(&mut self, size: u64, so_far: &mut u64) -> anyhow::Result<Vec<u8>> {
        *so_far = so_far.saturating_add(size).saturating_add(1);
        ensure!(*so_far <= EXTENSIONS, "its extension headers are longer than {EXTENSIONS} bytes");
        self.set_body(size)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size)?);
        loop {
            let data = self.data()?;
            if data.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(data);
            let count = data.len();
            self.used(count);
        }
    }

    /// Makes a member of a header, or keeps it for the next if it is an extension.
    fn take(&mut self, header: &Header, extensions: &mut Extensions) -> anyhow::Result<Option<Member>> {
        let old = header.as_old();
        let size = header::count(&old.size).context("its size")?;
        let [flag] = old.linkflag;
        match flag {
            b'L' => extensions.long_name = Some(name(self.extension(size, &mut extensions.bytes)?)?),
            b'K' => extensions.long_link = Some(name(self.extension(size, &mut extensions.bytes)?)?),
            b'x' | b'X' => extensions.pax = self.extension(size, &mut extensions.bytes)?,
            b'g' => self.global = self.extension(size, &mut 0)?,
            // A volume label.
            b'V' => self.set_body(size)?,
            _ => return self.member(header, flag, size, std::mem::take(extensions)),
        }
        Ok(None)
    }

    fn member(
        &mut self,
        header: &Header,
        flag: u8,
        size: u64,
        extensions: Extensions,
    ) -> anyhow::Result<Option<Member>> {
        let old = header.as_old();
        let mut draft = Draft {
            path: extensions.long_name.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions.long_link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            size,
            uid: header::count(&old.uid).context("its owner")?,
            gid: header::count(&old.gid).context("its group")?,
            mtime: Time { seconds: header::number(&old.mtime).context("its time")?, nanoseconds: 0 },
            xattrs: Vec::new(),
            sparse: sparse::Records::default(),
        };
        let global = std::mem::take(&mut self.global);
        for bytes in [&global, &extensions.pax] {
            for record in pax::records(bytes).context("its PAX header")? {
                let key = record.0;
                draft.apply(record).with_context(|| format!("its PAX record {}", key.escape_ascii()))?;
            }
        }
        self.global = global;
        let kind = match flag {
            // Before POSIX, a directory was a file whose name ends in a slash.
            b'0' | 0 if draft.path.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | b'S' | 0 => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device(header).map(|(major, minor)| Kind::Character { major, minor })?,
            b'4' => device(header).map(|(major, minor)| Kind::Block { major, minor })?,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => {
                let path = draft.path.escape_ascii();
                say::warn!("image: \"{path}\" is of unknown type \"{}\" and is left out", flag.escape_ascii());
                self.unknown += 1;
                self.set_body(draft.size)?;
                return Ok(None);
            }
        };
        // Links have no data, whatever their size field says (as GNU tar reads them).
        let archived = if matches!(kind, Kind::HardLink | Kind::Symlink) { 0 } else { draft.size };
        let mut map = None;
        if flag == b'S' {
            let gnu = header.as_gnu().context("a GNU sparse file without a GNU header")?;
            let mut counted = Counted { input: &mut self.input, count: 0 };
            map = Some(sparse::old_gnu(gnu, &mut counted)?);
            self.at += counted.count;
        }
        self.set_body(archived)?;
        if kind == Kind::File
            && let Some((pax, used)) = draft.sparse.into_map(&mut Body(self))?
        {
            ensure!(used + self.body == archived, "its sparse map is longer than its data");
            map = Some(pax);
        }
        if let Some(map) = &map {
            map.check(self.body)?;
        }
        // A link's mode is 0777 whatever the archive says.
        let mode = header::number(&old.mode).context("its mode")? & 0o7777;
        Ok(Some(Member {
            path: draft.path,
            kind,
            link: draft.link,
            mode: u32::try_from(mode)?,
            uid: id(draft.uid)?,
            gid: id(draft.gid)?,
            mtime: draft.mtime,
            xattrs: draft.xattrs,
            map,
            archived: self.body,
        }))
    }
}

/// A member while records are applied to it.
struct Draft {
    path: Vec<u8>,
    link: Vec<u8>,
    size: u64,
    uid: u64,
    gid: u64,
    mtime: Time,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: sparse::Records,
}

impl Draft {
    fn apply(&mut self, record: Record<'_>) -> anyhow::Result<()> {
        let (key, value) = record;
        if let Some((name, value)) = pax::xattr(key, value)? {
            ensure!(value.len() <= XATTR, "an extended attribute of {} bytes; Linux takes {XATTR}", value.len());
            self.xattrs.retain(|(other, _)| *other != name);
            self.xattrs.push((name, value));
            return Ok(());
        }
        if key == b"GNU.sparse.name" {
            self.path = value.to_vec();
            return Ok(());
        }
        // An empty value takes a record of a global header back.
        if value.is_empty() || self.sparse.take(record)? {
            return Ok(());
        }
        match key {
            b"path" => self.path = value.to_vec(),
            b"linkpath" => self.link = value.to_vec(),
            b"size" => self.size = pax::decimal(value)?,
            b"uid" => self.uid = pax::decimal(value)?,
            b"gid" => self.gid = pax::decimal(value)?,
            b"mtime" => self.mtime = pax::time(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// A name that ends in NULs, and has none inside.
fn name(mut bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    ensure!(!bytes.contains(&0), "a name with a NUL in it");
    Ok(bytes)
}

fn id(id: u64) -> anyhow::Result<u32> {
    // The largest number means "leave it" to chown(2).
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).with_context(|| format!("the owner or group {id}"))
}

fn device(header: &Header) -> anyhow::Result<(u32, u32)> {
    let ustar = header.as_ustar().map(|ustar| (ustar.dev_major, ustar.dev_minor));
    let gnu = header.as_gnu().map(|gnu| (gnu.dev_major, gnu.dev_minor));
    let (major, minor) = ustar.or(gnu).context("a device without numbers")?;
    Ok((u32::try_from(header::count(&major)?)?, u32::try_from(header::count(&minor)?)?))
}

/// Reads the current member's data, and no further.
struct Body<'a, R>(&'a mut Archive<R>);

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.data().map_err(io::Error::other)?.read(into)?;
        self.0.used(count);
        Ok(count)
    }
}

struct Counted<'a, R> {
    input: &'a mut R,
    count: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into)?;
        self.count += count as u64;
        Ok(count)
    }
}

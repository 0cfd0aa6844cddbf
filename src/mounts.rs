//! The mounts of stage 1: the kernel's own file systems, and the tmpfs that becomes the root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use sys_mount::{Mount, MountFlags};

use crate::failure::{Advise, refuse_here};
use crate::say;

const MIB: u64 = 1024 * 1024;
const PAGE: u64 = 4096;
/// Memory that no image may take, because stage 1 and the image's own programs run in it.
const RESERVE: u64 = 128 * MIB;
/// What the kernel needs for a file of a tmpfs besides its data: inode, directory entry, and the slabs' waste.
const INODE: u64 = 1024;

/// Mounts /proc, /sys, /dev and /run below `root` (`/` but in tests); what is mounted already stays.
///
/// # Errors
/// The kernel refuses one of them.
pub fn early(root: &Path) -> Result<()> {
    let nosuid = MountFlags::NOSUID;
    let closed = nosuid | MountFlags::NOEXEC | MountFlags::NODEV;
    for (fstype, target, flags, data) in [
        ("proc", "proc", closed, ""),
        ("sysfs", "sys", closed, ""),
        ("devtmpfs", "dev", nosuid | MountFlags::NOEXEC, "mode=0755"),
        ("tmpfs", "run", nosuid | MountFlags::NODEV, "mode=0755"),
    ] {
        let target = root.join(target);
        fs::create_dir_all(&target).with_context(|| format!("creating {}", target.display()))?;
        if device(&target)? != device(root)? {
            continue;
        }
        Mount::builder()
            .fstype(fstype)
            .flags(flags)
            .data(data)
            .mount(fstype, &target)
            .with_context(|| format!("mounting {fstype} on {}", target.display()))?;
    }
    Ok(())
}

/// The file system that a path is on.
fn device(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.dev())
}

/// `rootstream.tmpfs=`: options the administrator wants; the rest is worked out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TmpfsOptions(Vec<(String, String)>);

impl TmpfsOptions {
    /// Reads `size=4G,mpol=interleave`.
    ///
    /// # Errors
    /// An option that is not tmpfs's, or without a value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pair = |item: &str| match item.split_once('=') {
            Some((name @ ("size" | "nr_inodes" | "mpol" | "huge" | "mode"), value)) if !value.is_empty() => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => Err(format!("{item}: not one of size=, nr_inodes=, mpol=, huge=, mode=")),
        };
        // mpol takes lists such as bind:0,2-3: what has no "=" belongs to the option before it.
        let mut items: Vec<String> = Vec::new();
        for part in text.split(',') {
            match items.last_mut() {
                Some(last) if !part.contains('=') => *last = format!("{last},{part}"),
                _ => items.push(part.to_owned()),
            }
        }
        items.iter().map(|item| pair(item)).collect::<Result<_, _>>().map(Self)
    }

    /// The mount data for this machine: what was asked for, then what was left open.
    fn data(&self, memory: Memory, memory_nodes: usize, needs: Needs) -> String {
        let mut options = self.0.clone();
        let mut default = |name: &str, value: String| {
            if !options.iter().any(|(asked, _)| asked == name) {
                options.push((name.to_owned(), value));
            }
        };
        default("size", memory.root_size(needs).to_string());
        default("nr_inodes", memory.root_inodes(needs).to_string());
        default("mode", "0755".to_owned());
        if memory_nodes > 1 {
            default("mpol", "interleave".to_owned());
        }
        options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    }
}

/// What /proc/meminfo says, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
}

impl Memory {
    fn read() -> Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        Self::parse(&meminfo).context("/proc/meminfo names no MemTotal and MemAvailable")
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { total: field("MemTotal")?, available: field("MemAvailable")? })
    }

    /// Half of the memory, as tmpfs itself would take, or a quarter more than the image where that is more; but
    /// never so much that filling it ends in the OOM killer instead of in "no space left".
    fn root_size(self, needs: Needs) -> u64 {
        let wanted = (self.total / 2).max(needs.bytes.saturating_add(needs.bytes / 4));
        wanted.min(self.available.saturating_sub(RESERVE)).max(MIB)
    }

    /// An inode for every second page, as tmpfs itself would take, or twice the image's.
    fn root_inodes(self, needs: Needs) -> u64 {
        (self.total / PAGE / 2).max(needs.inodes.saturating_mul(2))
    }

    /// Refuses an image that would fill the memory.
    fn check(self, needs: Needs) -> Result<()> {
        let most = self.available.saturating_sub(RESERVE);
        let needed = needs.bytes.saturating_add(needs.inodes.saturating_mul(INODE));
        if needed <= most {
            return Ok(());
        }
        let mib = |bytes: u64| bytes / MIB;
        let why = format!(
            "it needs {} MiB of memory unpacked, with its {} inodes; of this node's {} MiB, {} MiB are available and {} MiB of those are kept to run in",
            mib(needed),
            needs.inodes,
            mib(self.total),
            mib(self.available),
            mib(RESERVE)
        );
        let todo = "give the node more memory, make the image smaller, or publish it with --format squashfs";
        Err(refuse_here(why, todo)).context("the image does not fit into this node's memory")
    }
}

/// Refuses what does not fit into the memory that is available, less what is kept to run in.
///
/// # Errors
/// It does not, or /proc/meminfo cannot be read.
pub(crate) fn check_memory(needs: Needs) -> Result<()> {
    Memory::read()?.check(needs)
}

/// Bytes that an image may take of the memory that is available.
///
/// # Errors
/// /proc/meminfo cannot be read.
pub(crate) fn room_in_memory() -> Result<u64> {
    Ok(Memory::read()?.available.saturating_sub(RESERVE))
}

/// What an image is known to need of the file system that it is unpacked into; nothing is known of a plain one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of all its pages.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// Mounts the tmpfs that becomes the root on `target`, which is made if need be.
///
/// # Errors
/// The memory does not hold what `needs` says, /proc/meminfo cannot be read, or the kernel refuses the mount
/// options.
pub fn root_tmpfs(target: &Path, options: &TmpfsOptions, needs: Needs) -> Result<()> {
    let memory = Memory::read()?;
    memory.check(needs)?;
    let memory_nodes = fs::read_dir("/sys/devices/system/node").map_or(0, |nodes| {
        nodes.flatten().filter(|node| node.file_name().to_string_lossy().starts_with("node")).count()
    });
    let data = options.data(memory, memory_nodes, needs);
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    Mount::builder().fstype("tmpfs").data(&data).mount("rootstream", target).advise(
        format!("mounting a tmpfs ({data}) for the image"),
        "correct rootstream.tmpfs= (its options are in tmpfs(5))",
    )?;
    say::info!("image: root is a tmpfs of {} MiB ({} MiB available)", memory_size(&data), memory.available / MIB);
    Ok(())
}

fn memory_size(data: &str) -> String {
    let size = data.split(',').find_map(|option| option.strip_prefix("size=")).unwrap_or_default();
    size.parse::<u64>().map_or_else(|_| size.to_owned(), |bytes| (bytes / MIB).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Memory = Memory { total: 1024 * MIB, available: 900 * MIB };

    #[test]
    fn meminfo_is_read_in_bytes() {
        let memory = Memory::parse("MemTotal:        1048576 kB\nMemFree: 1 kB\nMemAvailable:     921600 kB\n");
        assert_eq!(memory, Some(NODE));
        assert_eq!(Memory::parse("MemTotal: 5 kB"), None);
    }

    // F54
    #[test]
    fn the_root_leaves_memory_to_run_in() {
        let plain = Needs::default();
        assert_eq!(NODE.root_size(plain), 512 * MIB);
        assert_eq!(Memory { total: 512 * MIB, available: 300 * MIB }.root_size(plain), 172 * MIB);
        assert_eq!(Memory { total: 128 * MIB, available: 100 * MIB }.root_size(plain), MIB);
    }

    // F54
    #[test]
    fn a_published_image_sets_size_and_inodes_or_is_refused() {
        let needs = |mib, inodes| Needs { bytes: mib * MIB, inodes };
        assert_eq!(NODE.root_size(needs(480, 0)), 600 * MIB);
        assert_eq!(NODE.root_size(needs(700, 0)), 772 * MIB);
        assert_eq!(NODE.root_inodes(needs(1, 100_000)), 200_000);
        assert_eq!(NODE.root_inodes(needs(1, 9)), 131_072);
        assert!(NODE.check(needs(772, 0)).is_ok());
        let refusal = format!("{:#}", NODE.check(needs(773, 0)).unwrap_err());
        assert!(refusal.contains("needs 773 MiB") && refusal.contains("900 MiB are available"), "{refusal}");
        // Half a million small files are half a gigabyte of the kernel's own.
        let refusal = format!("{:#}", NODE.check(needs(400, 500_000)).unwrap_err());
        assert!(refusal.contains("needs 888 MiB") && refusal.contains("500000 inodes"), "{refusal}");
    }

    #[test]
    fn what_was_asked_for_comes_before_what_was_worked_out() {
        let asked = TmpfsOptions::parse("size=80%,mpol=bind:0,2-3,nr_inodes=1m").unwrap();
        assert_eq!(asked.data(NODE, 4, Needs::default()), "size=80%,mpol=bind:0,2-3,nr_inodes=1m,mode=0755");
        assert_eq!(
            TmpfsOptions::default().data(NODE, 2, Needs::default()),
            "size=536870912,nr_inodes=131072,mode=0755,mpol=interleave"
        );
        assert!(TmpfsOptions::parse("uid=5").unwrap_err().contains("uid=5"));
        assert!(TmpfsOptions::parse("size").is_err());
        assert!(TmpfsOptions::parse("").is_err());
    }

    #[test]
    fn sizes_are_shown_in_mib_or_as_asked() {
        assert_eq!(memory_size("size=536870912,mode=0755"), "512");
        assert_eq!(memory_size("mode=0755,size=80%"), "80%");
    }
}

//! The mounts of stage 1: the kernel's own file systems, and the tmpfs that becomes the root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use sys_mount::{Mount, MountFlags};

use crate::failure::Advise;

const MIB: u64 = 1024 * 1024;

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
    fn data(&self, memory: Memory, memory_nodes: usize) -> String {
        let mut options = self.0.clone();
        let mut default = |name: &str, value: String| {
            if !options.iter().any(|(asked, _)| asked == name) {
                options.push((name.to_owned(), value));
            }
        };
        default("size", memory.root_size().to_string());
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
    fn parse(meminfo: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { total: field("MemTotal")?, available: field("MemAvailable")? })
    }

    /// Half of the memory, as tmpfs itself would take, but never so much that filling it ends in the
    /// OOM killer instead of in "no space left".
    fn root_size(self) -> u64 {
        (self.total / 2).min(self.available.saturating_sub(128 * MIB)).max(MIB)
    }
}

/// Mounts the tmpfs that becomes the root on `target`, which is made if need be.
///
/// # Errors
/// /proc/meminfo cannot be read, or the kernel refuses the mount options.
pub fn root_tmpfs(target: &Path, options: &TmpfsOptions) -> Result<()> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let memory = Memory::parse(&meminfo).context("/proc/meminfo names no MemTotal and MemAvailable")?;
    let memory_nodes = fs::read_dir("/sys/devices/system/node").map_or(0, |nodes| {
        nodes.flatten().filter(|node| node.file_name().to_string_lossy().starts_with("node")).count()
    });
    let data = options.data(memory, memory_nodes);
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    Mount::builder().fstype("tmpfs").data(&data).mount("rootstream", target).advise(
        format!("mounting a tmpfs ({data}) for the image"),
        "correct rootstream.tmpfs= (its options are in tmpfs(5))",
    )?;
    log::info!("image: root is a tmpfs of {} MiB ({} MiB available)", memory_size(&data), memory.available / MIB);
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
        assert_eq!(NODE.root_size(), 512 * MIB);
        assert_eq!(Memory { total: 512 * MIB, available: 300 * MIB }.root_size(), 172 * MIB);
        assert_eq!(Memory { total: 128 * MIB, available: 100 * MIB }.root_size(), MIB);
    }

    #[test]
    fn what_was_asked_for_comes_before_what_was_worked_out() {
        let asked = TmpfsOptions::parse("size=80%,mpol=bind:0,2-3,nr_inodes=1m").unwrap();
        assert_eq!(asked.data(NODE, 4), "size=80%,mpol=bind:0,2-3,nr_inodes=1m,mode=0755");
        assert_eq!(TmpfsOptions::default().data(NODE, 2), "size=536870912,mode=0755,mpol=interleave");
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

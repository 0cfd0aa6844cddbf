//! A switch: a virtual machine with Debian's kernel, which has the VLANs and bonds that this machine's kernel may lack.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::generic::{self, run};
use crate::machine::Machine;
use crate::node::{CableEnd, Node};
use crate::transcript::Transcript;

const NAME: &str = "switch";
/// Ports are bonded at a known speed only.
const CARD: &str = "virtio-net-pci,speed=1000,duplex=full";
const MEMORY_MIB: u32 = 256;
/// Where its programs are, in Debian's package busybox-static.
const BUSYBOX: &str = "/bin/busybox";
const MODULES: [&str; 5] = ["virtio_pci", "virtio_net", "bridge", "8021q", "bonding"];

/// What the ports towards the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each forwards untagged frames.
    Access,
    /// Each forwards the frames of this VLAN, and takes its tag off on the way to the uplink.
    Trunk(u16),
    /// All are one link, by LACP.
    Lacp,
    /// The same, of this VLAN's frames.
    LacpTrunk(u16),
}

/// A switch's kernel and initramfs, made where the network is: the kernel's package may have to be fetched.
#[derive(Clone, Debug)]
pub struct Firmware {
    kernel: PathBuf,
    initramfs: PathBuf,
}

impl Firmware {
    /// Makes it, with what is unpacked in `folder`.
    ///
    /// # Errors
    /// The kernel's package cannot be had, or a program fails.
    pub fn make(folder: &Path) -> Result<Self> {
        let package = generic::kernel()?;
        let release = generic::release(&package);
        let root = folder.join("root");
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("emptying {}", root.display()))?;
        }
        for name in ["bin", "proc", "sys", "modules"] {
            fs::create_dir_all(root.join(name)).with_context(|| format!("creating /{name} of the switch"))?;
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).context("copying busybox (package busybox-static)")?;
        symlink("busybox", root.join("bin/sh")).context("linking the switch's shell")?;
        let mut loading = String::new();
        for module in MODULES {
            let mut order = Command::new("modprobe");
            order.arg("-d").arg(&package).args(["-S", &release, "--show-depends", module]);
            for line in run(&mut order)?.lines() {
                // Others are built in.
                let Some(path) = line.strip_prefix("insmod ").and_then(|rest| rest.split_whitespace().next()) else {
                    continue;
                };
                let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
                let copy = root.join("modules").join(&name);
                if !copy.exists() {
                    fs::copy(path, &copy).with_context(|| format!("copying {path}"))?;
                    loading += &format!("insmod /modules/{name}\n");
                }
            }
        }
        let init = root.join("init");
        fs::write(&init, INIT.replace("LOADING\n", &loading)).context("writing the switch's init")?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("making the switch's init a program")?;
        let initramfs = folder.join("initramfs");
        let mut pack = Command::new("sh");
        pack.args(["-c", "cd \"$1\" && find . | cpio --quiet -o -H newc >\"$2\"", "sh"]).arg(&root).arg(&initramfs);
        run(&mut pack)?;
        Ok(Self { kernel: package.join("boot").join(format!("vmlinuz-{release}")), initramfs })
    }

    /// Powers a switch on, in the calling thread's network namespace, and waits until it forwards: from `uplink`, a tap,
    /// to the nodes at the other ends of `cables`.
    ///
    /// # Errors
    /// QEMU does not start, or the switch does not get that far.
    pub fn power_on(
        &self,
        mode: Mode,
        uplink: &str,
        cables: &[CableEnd],
        folder: &Path,
        transcript: &Transcript,
    ) -> Result<Machine> {
        let (lacp, vlan) = match mode {
            Mode::Access => (0, 0),
            Mode::Trunk(vlan) => (0, vlan),
            Mode::Lacp => (1, 0),
            Mode::LacpTrunk(vlan) => (1, vlan),
        };
        let cmdline = format!("console=ttyS0,115200 quiet panic=-1 switch_lacp={lacp} switch_vlan={vlan}");
        let mut node = Node::new(NAME).memory(MEMORY_MIB).nic(uplink, "52:54:00:ac:10:f0");
        for (number, cable) in cables.iter().enumerate() {
            node = node.cable(CARD, *cable, &format!("52:54:00:ac:10:f{:x}", number.saturating_add(1)));
        }
        let mut machine = node.direct(&self.kernel, &self.initramfs, &cmdline).power_on(folder, transcript)?;
        machine.wait_for("switch: ready")?;
        Ok(machine)
    }
}

/// The kernel hands words with `=` that it does not know to init as its environment.
const INIT: &str = r#"#!/bin/sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox --install -s /bin
LOADING
set -e
brctl addbr br0
echo 0 >/sys/class/net/br0/bridge/forward_delay
ip link set eth0 up
brctl addif br0 eth0
ports=$(cd /sys/class/net && ls -d eth* | grep -v eth0)
if [ "$switch_lacp" = 1 ]; then
    echo 802.3ad >/sys/class/net/bond0/bonding/mode
    echo 100 >/sys/class/net/bond0/bonding/miimon
    echo fast >/sys/class/net/bond0/bonding/lacp_rate
    for port in $ports; do echo +$port >/sys/class/net/bond0/bonding/slaves; done
    ports=bond0
fi
for port in $ports; do
    ip link set $port up
    if [ "$switch_vlan" != 0 ]; then
        vconfig add $port $switch_vlan
        port=$port.$switch_vlan
        ip link set $port up
    fi
    brctl addif br0 $port
done
ip link set br0 up
echo "switch: ready"
while :; do sleep 1000; done
"#;

//! A virtual node: what it is made of, and powering it on.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::bound::Bound;
use crate::firmware::Firmware;
use crate::machine::{Machine, Process};
use crate::qmp::Qmp;
use crate::transcript::Transcript;

/// Where a node's kernel comes from.
#[derive(Clone, Debug)]
enum Start {
    /// The firmware asks the network.
    Network(Firmware),
    /// QEMU loads it, which skips firmware, DHCP and TFTP.
    Direct { kernel: PathBuf, initramfs: PathBuf, cmdline: String },
}

/// One end of a cable between two nodes, or a node and a [`Switch`](crate::switch::Switch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CableEnd {
    /// The UDP ports on loopback at which this end and the other one get their frames.
    here: u16,
    there: u16,
}

impl CableEnd {
    /// Both ends of the cable with this number; a network namespace has each number once.
    pub fn pair(number: u8) -> (Self, Self) {
        let [one, other] = [2, 3].map(|end| 20_000 + 2 * u16::from(number) + end);
        (Self { here: one, there: other }, Self { here: other, there: one })
    }
}

/// What a network card is plugged into.
#[derive(Clone, Debug)]
enum Plug {
    Tap(String),
    Cable(CableEnd),
}

/// A network card.
#[derive(Clone, Debug)]
struct Nic {
    /// QEMU's name of the model.
    model: String,
    plug: Plug,
    mac: String,
}

/// A node before power-on.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    memory: u32,
    accel: String,
    nics: Vec<Nic>,
    start: Start,
    /// Where its serial port listens, for a BMC that switches it on.
    serial: Option<SocketAddr>,
}

impl Node {
    /// A node that boots from the network by BIOS, with 1024 MiB and no NIC yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            memory: 1024,
            accel: "tcg".into(),
            nics: Vec::new(),
            start: Start::Network(Firmware::Bios),
            serial: None,
        }
    }

    /// Sets the memory in MiB.
    #[must_use]
    pub fn memory(self, mib: u32) -> Self {
        Self { memory: mib, ..self }
    }

    /// Sets QEMU's accelerator, `tcg` or `kvm`.
    #[must_use]
    pub fn accel(self, accel: &str) -> Self {
        Self { accel: accel.into(), ..self }
    }

    /// Plugs a virtio NIC with this MAC into a tap.
    #[must_use]
    pub fn nic(self, tap: &str, mac: &str) -> Self {
        self.card("virtio-net-pci", tap, mac)
    }

    /// Plugs a NIC of one of QEMU's models (`e1000e`, `usb-net`) into a tap; a node may have several.
    #[must_use]
    pub fn card(mut self, model: &str, tap: &str, mac: &str) -> Self {
        self.nics.push(Nic { model: model.into(), plug: Plug::Tap(tap.into()), mac: mac.into() });
        self
    }

    /// Plugs a NIC of one of QEMU's models into a cable, whose other end another machine has.
    #[must_use]
    pub fn cable(mut self, model: &str, end: CableEnd, mac: &str) -> Self {
        self.nics.push(Nic { model: model.into(), plug: Plug::Cable(end), mac: mac.into() });
        self
    }

    /// Boots from the network by this firmware.
    #[must_use]
    pub fn firmware(self, firmware: Firmware) -> Self {
        Self { start: Start::Network(firmware), ..self }
    }

    /// Listens for its BMC at this address, and waits with the first instruction until that listens to its console.
    #[must_use]
    pub fn serial_at(self, address: SocketAddr) -> Self {
        Self { serial: Some(address), ..self }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Starts this kernel directly; the node powers off where it would reboot.
    #[must_use]
    pub fn direct(self, kernel: &Path, initramfs: &Path, cmdline: &str) -> Self {
        let start = Start::Direct { kernel: kernel.into(), initramfs: initramfs.into(), cmdline: cmdline.into() };
        Self { start, ..self }
    }

    /// Powers the node on, in the calling thread's network namespace. Its logs go into `folder`; what
    /// its console says goes into the transcript under the node's name.
    ///
    /// # Errors
    /// QEMU does not start; its own message is part of the error.
    pub fn power_on(&self, folder: &Path, transcript: &Transcript) -> Result<Machine> {
        let (log, messages) =
            (folder.join(format!("{}.console", self.name)), folder.join(format!("{}.qemu", self.name)));
        // Not in `folder`: a socket's path has at most 107 bytes.
        let sockets = tempfile::tempdir().context("making a folder for QEMU's sockets")?;
        // QEMU appends to the console's log; one of an earlier boot would be taken for this one's.
        File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let stderr = File::create(&messages).with_context(|| format!("creating {}", messages.display()))?;
        let mut arguments = self.arguments(sockets.path(), &log);
        if let Start::Network(firmware) = self.start {
            arguments.extend(firmware.arguments(sockets.path())?);
        }
        let qemu = Bound::start("qemu-system-x86_64", |c| c.args(arguments).stderr(stderr))?;
        let (qemu, mut qmp) = connect(qemu, &sockets.path().join("qmp")).with_context(|| {
            let said = fs::read_to_string(&messages).unwrap_or_default();
            format!("powering {} on: {}", self.name, said.trim())
        })?;
        transcript.follow(&self.name, &log);
        let powered = Instant::now();
        qmp.execute("cont", json!({}))?;
        let process = Process::Own(qemu);
        Ok(Machine { name: self.name.clone(), log, sockets, process, qmp, transcript: transcript.clone(), powered })
    }

    pub(crate) fn arguments(&self, sockets: &Path, log: &Path) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
        // Without graphics SeaBIOS and the boot ROMs talk to the serial port too.
        add(&["-name", &self.name, "-accel", &self.accel, "-machine", "graphics=off", "-m", &self.memory.to_string()]);
        add(&["-nodefaults", "-display", "none"]);
        // Who powers it on himself says when it begins.
        add(if self.serial.is_some() { &[] } else { &["-S"] });
        // Without a source of entropy the first getrandom takes a second.
        add(&["-device", "virtio-rng-pci"]);
        let socket = |id: &str| format!("socket,id={id},path={},server=on,wait=off", sockets.join(id).display());
        let console = match self.serial {
            Some(address) => {
                format!("socket,id=console,host={},port={},server=on,wait=on", address.ip(), address.port())
            }
            None => socket("console"),
        };
        add(&["-chardev", &format!("{console},logfile={},logappend=on", log.display())]);
        add(&["-serial", "chardev:console"]);
        add(&["-chardev", &socket("qmp")]);
        add(&["-mon", "chardev=qmp,mode=control"]);
        if self.nics.iter().any(|nic| nic.model.starts_with("usb-")) {
            add(&["-device", "qemu-xhci"]);
        }
        for (number, Nic { model, plug, mac }) in self.nics.iter().enumerate() {
            let backend = match plug {
                Plug::Tap(tap) => format!("tap,id=net{number},ifname={tap},script=no,downscript=no"),
                Plug::Cable(CableEnd { here, there }) => {
                    format!("socket,id=net{number},udp=127.0.0.1:{there},localaddr=127.0.0.1:{here}")
                }
            };
            add(&["-netdev", &backend]);
            // Without the ROM that nobody asks, the kernel starts a second earlier. UEFI has its own way of asking, and
            // the ROM, which is an iPXE, would do it in its place.
            let has_rom = matches!(self.start, Start::Network(Firmware::Bios)) || model.starts_with("usb-");
            let rom = if has_rom { "" } else { ",romfile=" };
            add(&["-device", &format!("{model},netdev=net{number},mac={mac}{rom}")]);
        }
        match &self.start {
            Start::Network(_) => add(&["-boot", "order=n"]),
            Start::Direct { kernel, initramfs, cmdline } => {
                add(&["-kernel", &kernel.display().to_string(), "-initrd", &initramfs.display().to_string()]);
                add(&["-append", cmdline, "-no-reboot"]);
            }
        }
        all
    }
}

/// Waits until QEMU listens, which it does at once or never.
fn connect(mut qemu: Bound, socket: &Path) -> Result<(Bound, Qmp)> {
    let start = Instant::now();
    loop {
        match Qmp::connect(socket) {
            Ok(qmp) => return Ok((qemu, qmp)),
            Err(error) => {
                if let Some(status) = qemu.ended()? {
                    bail!("QEMU ended with {status}");
                }
                if start.elapsed() > Duration::from_secs(60) {
                    return Err(error);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_starts_from_the_network_or_from_a_kernel() {
        let line = |node: &Node| node.arguments(Path::new("/s"), Path::new("/l")).join(" ");
        let node = Node::new("n1").memory(768).nic("tap0", "52:54:00:ac:10:01");
        let pxe = line(&node);
        assert!(pxe.contains("-m 768") && pxe.ends_with("mac=52:54:00:ac:10:01 -boot order=n"), "{pxe}");
        let uefi = line(&node.clone().firmware(Firmware::UefiGrub));
        assert!(uefi.ends_with("mac=52:54:00:ac:10:01,romfile= -boot order=n"), "{uefi}");
        let cards = line(&node.clone().card("e1000e", "tap1", "52:54:00:ac:10:02").card("usb-net", "tap2", "x"));
        assert!(cards.contains("-device e1000e,netdev=net1,mac=52:54:00:ac:10:02"), "{cards}");
        assert!(cards.contains("-device qemu-xhci ") && cards.contains("usb-net,netdev=net2"), "{cards}");
        let (one, other) = CableEnd::pair(0);
        let ends = [one, other].map(|end| line(&node.clone().cable("e1000", end, "x")));
        assert!(
            ends[0].contains("udp=127.0.0.1:20003,localaddr=127.0.0.1:20002 -device e1000,netdev=net1"),
            "{}",
            ends[0]
        );
        assert!(ends[1].contains("udp=127.0.0.1:20002,localaddr=127.0.0.1:20003"), "{}", ends[1]);
        let direct = line(&node.direct(Path::new("/k"), Path::new("/i"), "console=ttyS0"));
        assert!(direct.ends_with("-kernel /k -initrd /i -append console=ttyS0 -no-reboot"), "{direct}");
    }
}

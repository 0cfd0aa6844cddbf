//! Nodes behind a switch, for VLANs and bonds.

use std::path::{Path, PathBuf};

use rootstream_lab::machine::Machine;
use rootstream_lab::node::{CableEnd, Node};
use rootstream_lab::switch::Mode;
use rootstream_lab::transcript::Transcript;

use super::{Boot, IMAGE, MAC, generic_kernel, in_private_network, switch_firmware};

/// The MACs of a node's cards.
const MACS: [&str; 2] = [MAC, "52:54:00:ac:10:02"];

/// A switch that forwards, and the kernel of the node behind it.
pub(crate) struct Switched {
    cables: Vec<CableEnd>,
    kernel: (PathBuf, PathBuf),
    _switch: Machine,
}

impl Switched {
    /// The kernel and the initramfs of the node.
    pub(crate) fn kernel(&self) -> (&Path, &Path) {
        (&self.kernel.0, &self.kernel.1)
    }

    /// The node, with a card of this model for each cable.
    pub(crate) fn node(&self, card: &str) -> Node {
        let cables = self.cables.iter().zip(MACS);
        cables.fold(Node::new("n1").memory(512), |node, (cable, mac)| node.cable(card, *cable, mac))
    }

    /// Powers that node on.
    pub(crate) fn boot(&self, card: &str, parameters: &str) -> Boot {
        Boot::start(self.node(card), self.kernel(), &format!("{IMAGE} {parameters}"))
    }
}

/// Runs `work` where the master's `tap0` leads to a switch, which has cables for this many ports of a node.
pub(crate) fn behind_a_switch(mode: Mode, ports: u8, work: impl FnOnce(&Switched) + Send) {
    let kernel = generic_kernel(None);
    let firmware = switch_firmware();
    in_private_network(move || {
        let (switch_ends, node_ends): (Vec<_>, Vec<_>) = (0..ports).map(CableEnd::pair).unzip();
        let (logs, transcript) = (tempfile::tempdir().unwrap(), Transcript::default());
        let switch = firmware.power_on(mode, "tap0", &switch_ends, logs.path(), &transcript).unwrap();
        work(&Switched { cables: node_ends, kernel, _switch: switch });
    });
}

//! What every BMC can do, whatever it speaks.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

/// Whether a node has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It has.
    On,
    /// It has not.
    Off,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::On { "on" } else { "off" })
    }
}

/// What a BMC is told to do with the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Power on.
    On,
    /// Power off, whatever runs.
    Off,
    /// Ask the operating system to shut down (ACPI).
    Soft,
    /// Off, and on again after a moment.
    Cycle,
    /// Restart without taking the power away.
    Reset,
}

impl Order {
    /// Its name, which is ipmitool's word for it too.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Soft => "soft",
            Self::Cycle => "cycle",
            Self::Reset => "reset",
        }
    }
}

/// A port of the node, as its BMC knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Port {
    /// What the BMC calls it.
    pub(super) name: String,
    /// Its MAC, in lower case with colons.
    pub(super) mac: String,
}

/// One sensor's reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sensor {
    /// What the BMC calls it.
    pub(super) name: String,
    /// Reading and unit: `23 degrees C`.
    pub(super) reading: String,
    /// What the BMC thinks of it: `ok`, `Warning`.
    pub(super) status: String,
}

/// What a BMC tells about itself and its node. What it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Info {
    /// Who made the node.
    pub(super) vendor: Option<String>,
    /// What it is called there.
    pub(super) model: Option<String>,
    /// Its serial number.
    pub(super) serial: Option<String>,
    /// The version of the BMC's firmware.
    pub(super) firmware: Option<String>,
    /// The version of the node's firmware.
    pub(super) bios: Option<String>,
    /// The BMC's own MAC.
    pub(super) bmc_mac: Option<String>,
    /// The node's ports.
    pub(super) ports: Vec<Port>,
    /// Temperatures, fans, voltages.
    pub(super) sensors: Vec<Sensor>,
}

/// A BMC that is spoken to. Every call is bounded in time, and names the BMC in its errors.
pub(super) trait Bmc {
    /// Whether the node has power.
    ///
    /// # Errors
    /// It does not answer, does not believe the user, or says neither.
    fn state(&self) -> Result<State>;

    /// Gives an order; it may be carried out some time after this returns.
    ///
    /// # Errors
    /// It does not answer or refuses.
    fn order(&self, order: Order) -> Result<()>;

    /// Has the node's next boot, and no other, come from the network. `efi` where its firmware is to do that
    /// as UEFI, for BMCs that need to be told.
    ///
    /// # Errors
    /// It does not answer or refuses.
    fn network_boot_once(&self, efi: bool) -> Result<()>;

    /// What it tells about itself and the node.
    ///
    /// # Errors
    /// It does not answer.
    fn info(&self) -> Result<Info>;
}

//! `rootstream bmc info`: what BMCs tell, as lines.

use std::fmt;

use serde::Serialize;

use super::access::Access;
use super::bmc::{Info, State};

/// What is shown of one node.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// Where its BMC is.
    pub(super) bmc: String,
    /// What the BMC speaks.
    pub(super) protocol: &'static str,
    /// The power.
    pub(super) state: State,
    /// The rest.
    #[serde(flatten)]
    pub(super) info: Info,
}

impl Told {
    /// What the BMC at `access` told.
    pub(super) fn new(access: &Access, state: State, info: Info) -> Self {
        Self { bmc: access.bmc.ip.to_string(), protocol: access.protocol(), state, info }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bmc, protocol, state, info } = self;
        write!(f, "{state}, {protocol} at {bmc}")?;
        let Info { vendor, model, serial, firmware, bios, bmc_mac, ports, sensors } = info;
        let facts = [
            ("vendor", vendor),
            ("model", model),
            ("serial", serial),
            ("bmc firmware", firmware),
            ("bios", bios),
            ("bmc mac", bmc_mac),
        ];
        for (name, value) in facts.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            write!(f, "\n  {name:<14}{value}")?;
        }
        for port in ports {
            write!(f, "\n  {:<14}{} {}", "port", port.mac, port.name)?;
        }
        for sensor in sensors {
            write!(f, "\n  {:<14}{}: {} ({})", "sensor", sensor.name, sensor.reading, sensor.status)?;
        }
        if ports.is_empty() {
            write!(f, "\n  {:<14}this BMC does not tell the MACs of its node", "port")?;
        }
        write!(f, "\n  answered")
    }
}

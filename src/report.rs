//! The boot record: every step with its time, and what came of it. Stage 2 finds it as
//! `/run/rootstream/boot.json`; `init rehearse` prints it.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::checks::Checks;
use crate::failure::Failure;
use crate::image::{Facts, Installed, Reason, Share, Tally, Trust};
use crate::lease::Lease;
use crate::lldp::Neighbour;
use crate::net::Network;
use crate::say;

/// Version of the record's form.
const SCHEMA: u32 = 1;

/// One step of the boot.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its name, as the log has it: `modules`, `network`, `image`, `hand-over`.
    pub name: &'static str,
    /// Seconds from the kernel's start to the step's.
    pub at: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// Whether it succeeded.
    pub ok: bool,
}

/// The port that the lease is on.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// Kernel name.
    pub name: String,
    /// MAC, or over InfiniBand GUID, lower case with colons.
    pub mac: String,
    /// What the switch at the other end of the cable says, if it was heard (LLDP).
    pub switch: Option<Neighbour>,
}

/// The whole record.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    schema: u32,
    version: &'static str,
    /// Whether the image would boot, or is booting.
    pub ok: bool,
    /// Exit code of `init rehearse`; 0 in a real boot.
    pub exit: u8,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What was learnt about the image.
    pub image: Option<Facts>,
    /// The same about what went on top of it, in order.
    pub overlays: Vec<Facts>,
    /// How far the image and what went on top of it were verified: as far as the least of them.
    pub trust: Trust,
    /// Bytes received, as served.
    pub bytes: u64,
    /// How often the transfer was resumed or started again.
    pub retries: u32,
    /// Why: the first kinds of failure, with counts.
    pub reasons: Vec<Reason>,
    /// What each server gave.
    pub mirrors: Vec<Share>,
    /// How often it went on at another server because that promised to be faster.
    pub switches: u32,
    /// The port with the lease.
    pub port: Option<Port>,
    /// The lease.
    pub lease: Option<Lease>,
    /// How the image fits the machine.
    pub checks: Checks,
    /// What hand-over puts into the image, or would, as paths.
    pub handover: Vec<String>,
    /// What was odd but did not stop the boot.
    pub warnings: Vec<String>,
    /// Why it failed.
    pub error: Option<Failure>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            ok: false,
            exit: 0,
            steps: Vec::new(),
            image: None,
            overlays: Vec::new(),
            trust: Trust::None,
            bytes: 0,
            retries: 0,
            reasons: Vec::new(),
            mirrors: Vec::new(),
            switches: 0,
            port: None,
            lease: None,
            checks: Checks::default(),
            handover: Vec::new(),
            warnings: Vec::new(),
            error: None,
        }
    }
}

impl Record {
    /// Runs a step, with a line in the log and an entry in the record.
    ///
    /// # Errors
    /// The step's.
    pub fn step<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let at = since_kernel_start().as_secs_f64();
        let start = Instant::now();
        let outcome = work(self);
        let seconds = start.elapsed().as_secs_f64();
        self.steps.push(Step { name, at, seconds, ok: outcome.is_ok() });
        match &outcome {
            Ok(_) => say::info!("{name}: done in {seconds:.2} s"),
            Err(_) => say::warn!("{name}: failed after {seconds:.2} s"),
        }
        outcome
    }

    /// Takes over what is known about the network.
    pub fn set_network(&mut self, network: &Network) {
        let (name, mac) = (network.port.clone(), network.mac.to_string());
        self.port = Some(Port { name, mac, switch: network.switch.clone() });
        self.lease = Some(network.lease.clone());
    }

    /// Takes over what a transfer cost, successful or not.
    pub fn set_tally(&mut self, tally: Tally) {
        self.bytes = tally.bytes;
        self.retries = tally.retries;
        self.reasons = tally.reasons;
        self.mirrors = tally.mirrors;
        self.switches = tally.switches;
    }

    /// Takes over what is known about the image and what went on top of it.
    pub fn set_image(&mut self, installed: &Installed) {
        let root = match installed {
            Installed::Root(root) => root,
            Installed::File(facts) => {
                self.trust = facts.trust;
                self.warnings.extend(facts.warnings.iter().cloned());
                self.image = Some(facts.clone());
                return;
            }
        };
        self.trust = root.trust();
        self.warnings.extend(root.facts().warnings.iter().cloned());
        for overlay in root.overlays() {
            self.warnings.extend(overlay.warnings.iter().map(|warning| format!("{}: {warning}", overlay.url)));
        }
        self.image = Some(root.facts().clone());
        self.overlays = root.overlays().to_vec();
    }

    /// Notes what is odd, in the log and in the record.
    pub fn warn(&mut self, warning: String) {
        say::warn!("{warning}");
        self.warnings.push(warning);
    }

    /// The record as one JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

/// Time since the kernel started.
pub fn since_kernel_start() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_kept_whether_they_succeed_or_not() {
        let mut record = Record::default();
        assert_eq!(record.step("modules", |_| Ok(5)).unwrap(), 5);
        assert!(record.step("network", |_| -> Result<()> { anyhow::bail!("no port") }).is_err());
        let ok: Vec<(&str, bool)> = record.steps.iter().map(|step| (step.name, step.ok)).collect();
        assert_eq!(ok, [("modules", true), ("network", false)]);
        assert!(record.steps[0].at > 0.0);
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let json: serde_json::Value = serde_json::from_str(&Record::default().json()).unwrap();
        for field in [
            "schema", "ok", "exit", "steps", "image", "trust", "bytes", "retries", "reasons", "mirrors", "lease",
            "error",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["trust"], "none");
    }
}

//! Redfish (DMTF DSP0266) over HTTPS: the node's ComputerSystem, its chassis and its manager.

mod client;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rootstream::failure::{Advise, refuse};
use serde_json::{Value, json};

use super::access::Access;
use super::bmc::{Bmc, Info, Order, Port, Sensor, State};
use client::{Client, ODD, Resource, link, members};

/// Where every service begins.
const ROOT: &str = "/redfish/v1/";

/// A Redfish service.
pub(super) struct Redfish {
    access: Access,
    client: Client,
}

impl Redfish {
    /// `exchange` bounds each request; nothing is asked yet.
    ///
    /// # Errors
    /// The password or the certificates cannot be used.
    pub(super) fn new(access: &Access, exchange: Duration) -> Result<Self> {
        Ok(Self { access: access.clone(), client: Client::new(access, exchange)? })
    }

    /// The node's system, with its path. A service with several is a chassis of several nodes: there it is the one
    /// that is called what the node is called.
    fn system(&self) -> Result<(String, Resource)> {
        let root = self.client.get(ROOT)?;
        let all = self.client.get(self.follow(&root.body, "Systems")?)?;
        let paths = members(&all.body);
        let mut called = Vec::new();
        for path in &paths {
            let system = self.client.get(path)?;
            let names = ["Id", "Name", "HostName"].map(|key| system.body.get(key).and_then(Value::as_str));
            let is_node = names.iter().flatten().any(|name| name.eq_ignore_ascii_case(&self.access.node));
            if paths.len() == 1 || is_node {
                return Ok(((*path).to_owned(), system));
            }
            called.extend(names.into_iter().flatten().next().map(str::to_owned));
        }
        Err(refuse(
            format!("{} has no system called {}: {}", self.access.place(), self.access.node, called.join(", ")),
            "give the system that name in the BMC, or the node another address of a BMC in nodes.toml",
        ))
    }

    fn follow<'a>(&self, value: &'a Value, name: &str) -> Result<&'a str> {
        link(value, name).advise(format!("looking through {}", self.access.place()), ODD)
    }

    /// A resource that not every service has.
    fn optional(&self, path: Option<&str>) -> Value {
        path.and_then(|path| self.client.get(path).ok()).map_or(Value::Null, |resource| resource.body)
    }

    fn reset(&self, system: &Value, kind: &str) -> Result<()> {
        let target = system.pointer("/Actions/#ComputerSystem.Reset/target").and_then(Value::as_str);
        let target = target
            .context("there is no ComputerSystem.Reset")
            .advise(format!("looking for the power switch in {}", self.access.place()), ODD)?;
        self.client.post(target, &json!({ "ResetType": kind }))
    }
}

impl Bmc for Redfish {
    fn state(&self) -> Result<State> {
        let (_, system) = self.system()?;
        match system.body.get("PowerState").and_then(Value::as_str) {
            Some("On" | "PoweringOff" | "Paused") => Ok(State::On),
            Some("Off" | "PoweringOn") => Ok(State::Off),
            other => Err(anyhow!("PowerState is {other:?}"))
                .advise(format!("{} says neither on nor off", self.access.place()), ODD),
        }
    }

    fn order(&self, order: Order) -> Result<()> {
        let (_, system) = self.system()?;
        self.reset(
            &system.body,
            kind(order, &allowed(&system.body)).advise(
                format!("{} cannot do this", self.access.place()),
                "switch the node off and on instead: rootstream power off, then on",
            )?,
        )
    }

    // Whether its firmware does that as UEFI is a setting of the system, which stays as it is.
    fn network_boot_once(&self, _efi: bool) -> Result<()> {
        let (path, system) = self.system()?;
        let boot = json!({ "Boot": { "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe" } });
        self.client.patch(&path, &system, &boot)
    }

    fn info(&self) -> Result<Info> {
        let (_, Resource { body: system, .. }) = self.system()?;
        let text = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let first = |kind: &str| system.pointer(&format!("/Links/{kind}/0/@odata.id")).and_then(Value::as_str);
        let (manager, chassis) = (self.optional(first("ManagedBy")), self.optional(first("Chassis")));
        let ports = |owner: &Value| -> Vec<Port> {
            let all = self.optional(link(owner, "EthernetInterfaces").ok());
            let ports = members(&all).into_iter().map(|path| self.optional(Some(path)));
            let port = |port: Value| {
                let mac = text(&port, "PermanentMACAddress").or_else(|| text(&port, "MACAddress"))?;
                Some(Port { name: text(&port, "Id").or_else(|| text(&port, "Name"))?, mac: mac.to_ascii_lowercase() })
            };
            ports.filter_map(port).collect()
        };
        let mut sensors = thermal(&self.optional(link(&chassis, "Thermal").ok()));
        sensors.extend(power(&self.optional(link(&chassis, "Power").ok())));
        Ok(Info {
            vendor: text(&system, "Manufacturer"),
            model: text(&system, "Model"),
            serial: text(&system, "SerialNumber"),
            firmware: text(&manager, "FirmwareVersion"),
            bios: text(&system, "BiosVersion"),
            bmc_mac: ports(&manager).into_iter().next().map(|port| port.mac),
            ports: ports(&system),
            sensors,
        })
    }
}

/// The kinds of reset that the system says it can do; nothing where it does not say.
fn allowed(system: &Value) -> Vec<&str> {
    let allowed = system.pointer("/Actions/#ComputerSystem.Reset/ResetType@Redfish.AllowableValues");
    allowed.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What Redfish calls an order, as this system can do it.
fn kind(order: Order, allowed: &[&str]) -> Result<&'static str> {
    let kinds: &'static [&'static str] = match order {
        Order::On => &["On", "ForceOn"],
        Order::Off => &["ForceOff"],
        Order::Soft => &["GracefulShutdown"],
        Order::Cycle => &["PowerCycle", "ForceRestart"],
        Order::Reset => &["ForceRestart"],
    };
    let chosen = kinds.iter().copied().find(|kind| allowed.is_empty() || allowed.contains(kind));
    chosen.with_context(|| format!("of {} it can do none, only {}", kinds.join(" and "), allowed.join(", ")))
}

/// Temperatures and fans of a chassis.
fn thermal(thermal: &Value) -> Vec<Sensor> {
    let mut all = readings(thermal, "Temperatures", "ReadingCelsius", "degrees C");
    all.extend(readings(thermal, "Fans", "Reading", "RPM"));
    all
}

/// What a chassis draws, and its voltages.
fn power(power: &Value) -> Vec<Sensor> {
    let mut all = readings(power, "PowerControl", "PowerConsumedWatts", "Watts");
    all.extend(readings(power, "Voltages", "ReadingVolts", "Volts"));
    all
}

fn readings(of: &Value, list: &str, key: &str, unit: &str) -> Vec<Sensor> {
    let text = |value: &Value, keys: &[&str]| {
        keys.iter().find_map(|key| value.pointer(key).and_then(Value::as_str)).map(str::to_owned)
    };
    let sensor = |value: &Value| {
        let reading = value.get(key)?.as_f64()?;
        let unit =
            if key == "Reading" { text(value, &["/ReadingUnits"]) } else { None }.unwrap_or_else(|| unit.to_owned());
        Some(Sensor {
            name: text(value, &["/Name", "/FanName", "/MemberId"])?,
            reading: format!("{reading} {unit}"),
            status: text(value, &["/Status/Health", "/Status/State"]).unwrap_or_default(),
        })
    };
    of.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(sensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_what_the_system_can_do() {
        assert_eq!(kind(Order::Cycle, &[]).unwrap(), "PowerCycle");
        assert_eq!(kind(Order::Cycle, &["On", "ForceOff", "ForceRestart"]).unwrap(), "ForceRestart");
        let error = kind(Order::Soft, &["On", "ForceOff"]).unwrap_err().to_string();
        assert_eq!(error, "of GracefulShutdown it can do none, only On, ForceOff");
    }

    #[test]
    fn sensors_of_a_chassis_are_read() {
        let chassis = json!({
            "Temperatures": [{ "Name": "Inlet", "ReadingCelsius": 23.5, "Status": { "Health": "OK" } }, { "Name": "Absent" }],
            "Fans": [{ "FanName": "Fan 1", "Reading": 40, "ReadingUnits": "Percent", "Status": { "State": "Enabled" } }],
        });
        let read = thermal(&chassis);
        let lines: Vec<String> = read.iter().map(|s| format!("{} {} {}", s.name, s.reading, s.status)).collect();
        assert_eq!(lines, ["Inlet 23.5 degrees C OK", "Fan 1 40 Percent Enabled"]);
    }
}

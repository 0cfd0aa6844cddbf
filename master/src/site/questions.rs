//! What `site new` asks for where no flag says it.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::Result;
use rootstream::failure::refuse;

use super::interfaces;
use super::starter::Answers;
use crate::config::addresses::{AddressRange, Cidr, Domain};
use crate::{ask, say};

/// What the flags said.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) interface: Option<String>,
    pub(super) address: Option<Cidr>,
    pub(super) range: Option<AddressRange>,
    pub(super) domain: Option<Domain>,
}

impl Given {
    /// What a site is made of: as given; and where the interface or the address was not, everything that was not
    /// is asked for.
    ///
    /// # Errors
    /// Nobody is there to answer.
    pub(super) fn complete(self) -> Result<Answers> {
        let Self { interface, address, range, domain } = self;
        let (interface, address) = match (interface, address) {
            (Some(interface), Some(address)) => return Ok(Answers { interface, address, range, domain }),
            some => some,
        };
        if !ask::is_possible() {
            let lacking = if interface.is_none() { "--interface" } else { "--address" };
            return Err(refuse(
                format!("{lacking} is missing, and there is no terminal to ask on"),
                "say both: rootstream site new DIR --interface br0 --address 172.16.0.254/24",
            ));
        }
        let ports = interfaces::list()?;
        let interface = match interface {
            Some(interface) => interface,
            None => {
                say::note("The port of this machine that the nodes are on:");
                for (name, addresses) in &ports {
                    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    say::note(format_args!("  {name:15} {}", addresses.join(" ")));
                }
                // Of a bridge, the ports in it have no address.
                let proposed = ports.iter().find(|(_, addresses)| !addresses.is_empty()).or(ports.iter().next());
                needed("Interface", proposed.map(|(name, _)| name.clone()))?
            }
        };
        let address = match address {
            Some(address) => address,
            None => needed(
                "This machine's address on it, with the prefix length",
                ports.get(&interface).and_then(|a| a.first()).copied(),
            )?,
        };
        let range = match range {
            Some(range) => Some(range),
            None => optional("Addresses for machines that are no known node", interfaces::proposed_range(address))?,
        };
        let domain = match domain {
            Some(domain) => Some(domain),
            None => optional("Domain of the nodes' names", None)?,
        };
        Ok(Answers { interface, address, range, domain })
    }
}

/// Asks until there is an answer; an empty one means what is proposed.
fn needed<T: FromStr<Err: Display> + Display>(question: &str, proposed: Option<T>) -> Result<T> {
    let asked = match &proposed {
        Some(proposed) => format!("{question} [{proposed}]:"),
        None => format!("{question}:"),
    };
    loop {
        let answer = answer(&asked)?;
        if answer.is_empty() {
            match proposed {
                Some(proposed) => return Ok(proposed),
                None => continue,
            }
        }
        match answer.parse() {
            Ok(value) => return Ok(value),
            Err(wrong) => say::note(wrong),
        }
    }
}

/// Asks until the answer is one; an empty one means what is proposed, `none` nothing.
fn optional<T: FromStr<Err: Display> + Display>(question: &str, proposed: Option<T>) -> Result<Option<T>> {
    let shown = proposed.as_ref().map_or_else(|| "none".to_owned(), |proposed| format!("{proposed}, or none"));
    loop {
        let answer = answer(&format!("{question} [{shown}]:"))?;
        match answer.as_str() {
            "" => return Ok(proposed),
            "none" => return Ok(None),
            _ => match answer.parse() {
                Ok(value) => return Ok(Some(value)),
                Err(wrong) => say::note(wrong),
            },
        }
    }
}

fn answer(question: &str) -> Result<String> {
    match ask::line(question)? {
        Some(answer) => Ok(answer),
        None => Err(refuse("the questions were not answered", "nothing was made; answer them, or use the flags")),
    }
}

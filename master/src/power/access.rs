//! Where a node's BMC is, and as whom it is spoken to.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use rootstream::failure::{Advise, refuse};

use super::bmc;
use super::ipmi::Ipmi;
use super::redfish::Redfish;
use crate::config::nodes::{Bmc, Node, Protocol};

/// One node's BMC, with all that is needed to speak to it.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// The node's name.
    pub(super) node: String,
    /// The BMC's user.
    pub(super) user: String,
    /// Where that user's password is.
    pub(super) password_file: PathBuf,
    /// The rest of what nodes.toml says.
    pub(super) bmc: Bmc,
}

impl Access {
    /// The BMC of a node.
    ///
    /// # Errors
    /// nodes.toml names none, or nobody to log in as.
    pub(super) fn of(node: &Node) -> Result<Self> {
        let name = &node.name;
        let Some(bmc) = &node.bmc else {
            return Err(refuse(
                format!("no BMC of {name} is known, which its power and its console go through"),
                format!("write its address into nodes.toml: rootstream node set {name} bmc.ip=ADDRESS"),
            ));
        };
        let (Some(user), Some(password_file)) = (&bmc.user, &bmc.password_file) else {
            return Err(refuse(
                format!("it is not known as whom to speak to the BMC of {name}"),
                "write user and password_file into [bmc] of site.toml, for all nodes, or into nodes.toml for some",
            ));
        };
        Ok(Self { node: name.to_string(), user: user.clone(), password_file: password_file.clone(), bmc: bmc.clone() })
    }

    /// What the BMC speaks.
    pub(super) fn protocol(&self) -> &'static str {
        match self.bmc.protocol {
            Protocol::Ipmi => "ipmi",
            Protocol::Redfish => "redfish",
        }
    }

    /// The BMC in words.
    pub(super) fn place(&self) -> String {
        format!("the BMC of {} ({} at {})", self.node, self.protocol(), self.bmc.ip)
    }

    /// The same BMC as one that has a serial console: with Redfish that is IPMI's too, at the usual port, for the
    /// standard has none of its own.
    pub(super) fn for_console(&self) -> Self {
        let mut access = self.clone();
        if access.bmc.protocol == Protocol::Redfish {
            access.bmc.protocol = Protocol::Ipmi;
            access.bmc.port = None;
        }
        access
    }

    /// Makes ready to speak to it; nothing is sent yet. `exchange` bounds a question and its answer.
    ///
    /// # Errors
    /// The password or the certificates cannot be used.
    pub(super) fn connect(&self, exchange: Duration) -> Result<Box<dyn bmc::Bmc>> {
        Ok(match self.bmc.protocol {
            Protocol::Ipmi => Box::new(Ipmi::new(self, exchange)?),
            Protocol::Redfish => Box::new(Redfish::new(self, exchange)?),
        })
    }

    /// The password, out of a file that only its owner can read.
    ///
    /// # Errors
    /// The file is missing, empty, or open to others.
    pub(super) fn password(&self) -> Result<String> {
        let password = self.bmc.password()?;
        let todo = "name its file in nodes.toml, password_file";
        password.ok_or_else(|| anyhow::anyhow!("there is none")).advise(format!("logging in to {}", self.place()), todo)
    }
}

//! Where a node's BMC is, and as whom it is spoken to.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use rootstream::failure::{Advise, refuse};

use super::bmc::Bmc;
use super::ipmi::Ipmi;
use super::redfish::Redfish;

/// What a BMC speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// IPMI 2.0 over LAN, through ipmitool.
    Ipmi,
    /// Redfish over HTTPS.
    Redfish,
}

impl Protocol {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ipmi => "ipmi",
            Self::Redfish => "redfish",
        }
    }
}

/// One node's BMC.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// The node's name.
    pub(super) node: String,
    pub(super) address: IpAddr,
    pub(super) protocol: Protocol,
    /// Another port than the protocol's own.
    pub(super) port: Option<u16>,
    pub(super) user: String,
    /// Holds the password in its first line, for the owner's eyes only.
    pub(super) password_file: PathBuf,
    /// IPMI's cipher suite, where ipmitool does not find the right one itself.
    pub(super) cipher: Option<u8>,
    /// Believe whatever certificate a Redfish service shows.
    pub(super) insecure: bool,
    /// The certificates that a Redfish service's must come from.
    pub(super) ca: Option<PathBuf>,
}

impl Access {
    /// The BMC in words.
    pub(super) fn place(&self) -> String {
        let Self { node, address, protocol, .. } = self;
        format!("the BMC of {node} ({} at {address})", protocol.name())
    }

    /// The same BMC as one that has a serial console: with Redfish that is IPMI's too, at the usual port, for the
    /// standard has none of its own.
    pub(super) fn for_console(&self) -> Self {
        match self.protocol {
            Protocol::Ipmi => self.clone(),
            Protocol::Redfish => Self { protocol: Protocol::Ipmi, port: None, ..self.clone() },
        }
    }

    /// Makes ready to speak to it; nothing is sent yet. `exchange` bounds a question and its answer.
    ///
    /// # Errors
    /// The password or the certificates cannot be used.
    pub(super) fn connect(&self, exchange: Duration) -> Result<Box<dyn Bmc>> {
        Ok(match self.protocol {
            Protocol::Ipmi => Box::new(Ipmi::new(self, exchange)?),
            Protocol::Redfish => Box::new(Redfish::new(self, exchange)?),
        })
    }

    /// The password, out of a file that only its owner can read.
    ///
    /// # Errors
    /// The file is missing, empty, or open to others.
    pub(super) fn password(&self) -> Result<String> {
        let file = self.password_file.display();
        let what = format!("reading the password of {} from {file}", self.place());
        let todo = format!("write it there as one line, as the user that runs this: install -m 600 /dev/stdin {file}");
        let mode = fs::metadata(&self.password_file).advise(&what, &todo)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(refuse(
                format!("{file}, which holds the password of {}, is open to other users", self.place()),
                format!("close it, and change the password if they may have read it: chmod 600 {file}"),
            ));
        }
        let text = fs::read_to_string(&self.password_file).advise(&what, &todo)?;
        match text.lines().next() {
            Some(password) if !password.is_empty() => Ok(password.to_owned()),
            _ => Err(refuse(format!("{file} holds no password for {}", self.place()), todo)),
        }
    }
}

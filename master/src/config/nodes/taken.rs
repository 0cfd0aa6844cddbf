//! What there may be only once: names, MACs and addresses, and who has them.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use anyhow::Result;

use crate::config::addresses::Mac;
use crate::config::document::Place;

/// Who has what, and which line says so.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// In lower case: host names know none (RFC 4343).
    names: HashMap<String, Holder>,
    macs: HashMap<Mac, Holder>,
    addresses: HashMap<Ipv4Addr, Holder>,
}

#[derive(Clone, Debug)]
struct Holder {
    who: String,
    place: Place,
}

/// Somebody has it already.
#[derive(Clone, Debug)]
pub(super) struct Clash {
    what: String,
    /// Where that one's line is.
    first: Place,
}

impl Clash {
    /// The refusal of the second line.
    pub(super) fn refuse(self, second: &Place) -> anyhow::Error {
        second.refuse(format!("{} ({})", self.what, self.first.seen_from(second)))
    }

    /// The refusal where the second has no line yet: names the first.
    pub(super) fn refuse_newcomer(self) -> anyhow::Error {
        self.first.refuse(self.what)
    }
}

impl Taken {
    /// Whether somebody has this name; what it is called is `kind` and the name.
    pub(super) fn name(&self, name: &str) -> Result<(), Clash> {
        let clash = |old: &Holder| Clash { what: format!("there is {} already", old.who), first: old.place.clone() };
        self.names.get(&name.to_ascii_lowercase()).map(clash).map_or(Ok(()), Err)
    }

    /// Whether somebody has the MAC that `who` is to have.
    pub(super) fn mac(&self, mac: Mac, who: &str) -> Result<(), Clash> {
        let clash = |old: &Holder| Clash {
            what: format!("{who} has the MAC {mac} that {} has already", old.who),
            first: old.place.clone(),
        };
        self.macs.get(&mac).map(clash).map_or(Ok(()), Err)
    }

    /// Whether somebody has the address that `who` is to have.
    pub(super) fn address(&self, address: Ipv4Addr, who: &str) -> Result<(), Clash> {
        let clash = |old: &Holder| Clash {
            what: format!("{who} has the address {address} that {} has already", old.who),
            first: old.place.clone(),
        };
        self.addresses.get(&address).map(clash).map_or(Ok(()), Err)
    }

    /// Gives the name away; `who` is what messages call its holder, with an article.
    ///
    /// # Errors
    /// [`crate::config::Misconfigured`]: somebody has it.
    pub(super) fn take_name(&mut self, name: &str, who: String, place: Place) -> Result<()> {
        self.name(name).map_err(|clash| clash.refuse(&place))?;
        self.names.insert(name.to_ascii_lowercase(), Holder { who, place });
        Ok(())
    }

    /// Gives the MAC away.
    ///
    /// # Errors
    /// [`crate::config::Misconfigured`]: somebody has it.
    pub(super) fn take_mac(&mut self, mac: Mac, who: &str, place: Place) -> Result<()> {
        self.mac(mac, who).map_err(|clash| clash.refuse(&place))?;
        self.macs.insert(mac, Holder { who: who.to_owned(), place });
        Ok(())
    }

    /// Gives the address away.
    ///
    /// # Errors
    /// [`crate::config::Misconfigured`]: somebody has it.
    pub(super) fn take_address(&mut self, address: Ipv4Addr, who: &str, place: Place) -> Result<()> {
        self.address(address, who).map_err(|clash| clash.refuse(&place))?;
        self.addresses.insert(address, Holder { who: who.to_owned(), place });
        Ok(())
    }

    /// Whether `mac` is anybody's.
    pub(super) fn knows(&self, mac: Mac) -> bool {
        self.macs.contains_key(&mac)
    }
}

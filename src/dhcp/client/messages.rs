//! What the client sends.

use std::net::Ipv4Addr;

use super::Client;
use crate::dhcp::wire::{Kind, Message, option};
use crate::mac::Hardware;

/// What this client tells servers in option 60, and servers can tell it.
pub(super) const VENDOR_CLASS: &[u8] = b"rootstream";
/// The largest message we take: what fits an Ethernet frame, for nothing here joins fragments.
const MAX_SIZE: u16 = 1472;
/// Option 121 before option 3, as RFC 3442 wants it.
const PARAMETERS: [u8; 18] = [
    option::SUBNET_MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTER,
    option::DNS,
    option::HOST_NAME,
    option::DOMAIN,
    option::SEARCH,
    option::ROOT_PATH,
    option::MTU,
    option::NTP,
    option::LOG_SERVERS,
    option::VENDOR,
    option::LEASE_TIME,
    option::SERVER,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
    option::TFTP_SERVER,
    option::BOOT_FILE,
];

impl Client {
    pub(super) fn discovery(&self) -> Message {
        let message = self.question(Kind::Discover);
        // The server may be able to give the same again.
        match self.lease() {
            Some(lease) => message.with(option::REQUESTED_ADDRESS, lease.address.octets()),
            None => message,
        }
    }

    pub(super) fn request_of(&self, address: Ipv4Addr, server: Ipv4Addr) -> Message {
        self.question(Kind::Request)
            .with(option::REQUESTED_ADDRESS, address.octets())
            .with(option::SERVER, server.octets())
    }

    /// INIT-REBOOT: the address that we had, of whichever server.
    pub(super) fn request_again(&self, address: Ipv4Addr) -> Message {
        self.question(Kind::Request).with(option::REQUESTED_ADDRESS, address.octets())
    }

    /// A request for options, or for more time, by who has the address.
    pub(super) fn holding(&self, kind: Kind, address: Ipv4Addr) -> Message {
        let mut message = self.question(kind);
        message.broadcast = false;
        message.ciaddr = address;
        message
    }

    pub(super) fn decline(&self, address: Ipv4Addr, server: Ipv4Addr) -> Message {
        self.bare(Kind::Decline, self.xid)
            .with(option::REQUESTED_ADDRESS, address.octets())
            .with(option::SERVER, server.octets())
    }

    pub(super) fn release(&mut self, address: Ipv4Addr, server: Ipv4Addr) -> Message {
        let xid = self.random.bits();
        let mut message = self.bare(Kind::Release, xid).with(option::SERVER, server.octets());
        message.ciaddr = address;
        message
    }

    /// A message that a server answers with options.
    fn question(&self, kind: Kind) -> Message {
        let mut message = self
            .bare(kind, self.xid)
            .with(option::MAX_SIZE, MAX_SIZE.to_be_bytes())
            .with(option::VENDOR_CLASS, VENDOR_CLASS)
            .with(option::PARAMETERS, PARAMETERS);
        if let Some(arch) = self.identity.arch {
            message = message.with(option::CLIENT_ARCH, arch.to_be_bytes());
        }
        if let Some(uuid) = self.identity.uuid {
            // Type 0 says that a UUID follows.
            message = message.with(option::CLIENT_UUID, [&[0][..], &uuid].concat());
        }
        message.secs = self.secs;
        message
    }

    /// What servers know the client by, besides its identifier.
    pub(super) fn chaddr(&self) -> Option<[u8; 6]> {
        match self.identity.mac {
            Hardware::Ethernet(mac) => Some(mac),
            Hardware::InfiniBand(_) => None,
        }
    }

    fn bare(&self, kind: Kind, xid: u32) -> Message {
        let mut message = Message::request(kind, xid, self.chaddr());
        // Nobody can send to a port whose address the message does not have (RFC 4390 section 2.1).
        message.broadcast = message.chaddr.is_none();
        match &self.identity.client_id {
            Some(id) => message.with(option::CLIENT_ID, id.clone()),
            None => message,
        }
    }
}

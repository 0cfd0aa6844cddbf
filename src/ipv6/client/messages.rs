//! What the client sends, and how often.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::Client;
use crate::ipv6::wire::{Association, Kind, Message, Options, Status, option};

/// What this client tells servers in option 16, and servers can tell it.
pub(super) const VENDOR_CLASS: &[u8] = b"rootstream";
/// The enterprise in front of it: nobody's, for there is none behind it.
const ENTERPRISE: [u8; 4] = [0; 4];
// RFC 8415 section 7.6.
pub(super) const SOLICIT_FIRST: Duration = Duration::from_secs(1);
pub(super) const SOLICIT_MAX: Duration = Duration::from_secs(3600);
pub(super) const REQUEST_FIRST: Duration = Duration::from_secs(1);
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(30);
pub(super) const RENEW_FIRST: Duration = Duration::from_secs(10);
pub(super) const RENEW_MAX: Duration = Duration::from_secs(600);
pub(super) const INFORM_FIRST: Duration = Duration::from_secs(1);
pub(super) const INFORM_MAX: Duration = Duration::from_secs(3600);
/// RFC 8415 section 21.24.
const SOLICIT_MAX_RANGE: std::ops::RangeInclusive<u32> = 60..=86_400;
const PARAMETERS: [u16; 6] = [option::DNS, option::SEARCH, option::SNTP, option::NTP, option::NAME, option::BOOT_FILE];

impl Client {
    pub(super) fn solicitation(&self) -> Message {
        self.question(Kind::Solicit).with(option::ASSOCIATION, &Association::asked(self.identity.iaid, None))
    }

    pub(super) fn request_of(&self, address: Ipv6Addr, server: &[u8]) -> Message {
        self.about(Kind::Request, address).with(option::SERVER_ID, server)
    }

    pub(super) fn renewal_of(&self, address: Ipv6Addr, server: &[u8]) -> Message {
        self.about(Kind::Renew, address).with(option::SERVER_ID, server)
    }

    pub(super) fn rebinding_of(&self, address: Ipv6Addr) -> Message {
        self.about(Kind::Rebind, address)
    }

    pub(super) fn information_request(&self) -> Message {
        self.question(Kind::InformationRequest)
    }

    pub(super) fn decline(&mut self, address: Ipv6Addr, server: &[u8]) -> Message {
        self.give_back(Kind::Decline, address, server)
    }

    pub(super) fn release(&mut self, address: Ipv6Addr, server: &[u8]) -> Message {
        self.give_back(Kind::Release, address, server)
    }

    fn give_back(&mut self, kind: Kind, address: Ipv6Addr, server: &[u8]) -> Message {
        self.begin_exchange();
        self.elapsed = 0;
        self.bare(kind)
            .with(option::SERVER_ID, server)
            .with(option::ASSOCIATION, &Association::asked(self.identity.iaid, Some(address)))
    }

    fn about(&self, kind: Kind, address: Ipv6Addr) -> Message {
        self.question(kind).with(option::ASSOCIATION, &Association::asked(self.identity.iaid, Some(address)))
    }

    /// A message that a server answers with options.
    fn question(&self, kind: Kind) -> Message {
        // RFC 8415 sections 21.23 to 21.25 want to be asked for these.
        let more: &[u16] = match kind {
            Kind::InformationRequest => &[option::REFRESH, option::INFORMATION_MAX],
            _ => &[option::SOLICIT_MAX],
        };
        let parameters: Vec<u8> = PARAMETERS.iter().chain(more).flat_map(|code| code.to_be_bytes()).collect();
        let length = u16::try_from(VENDOR_CLASS.len()).unwrap_or_default().to_be_bytes();
        let class = [&ENTERPRISE, &length[..], VENDOR_CLASS].concat();
        let message = self.bare(kind).with(option::PARAMETERS, &parameters).with(option::VENDOR_CLASS, &class);
        match self.identity.arch {
            Some(arch) => message.with(option::CLIENT_ARCH, &arch.to_be_bytes()),
            None => message,
        }
    }

    fn bare(&self, kind: Kind) -> Message {
        Message::new(kind, self.xid)
            .with(option::CLIENT_ID, &self.identity.duid)
            .with(option::ELAPSED, &self.elapsed.to_be_bytes())
    }

    pub(super) fn begin_exchange(&mut self) {
        self.xid = self.random.bits() & 0x00ff_ffff;
        self.began = None;
    }

    /// Sets the elapsed time of the next message.
    pub(super) fn count_elapsed(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(*self.began.get_or_insert(now));
        self.elapsed = u16::try_from(elapsed.as_millis() / 10).unwrap_or(u16::MAX);
    }

    /// RFC 8415 section 15: twice as long each time, a tenth more or less.
    pub(super) fn pause_of(&mut self, count: u32, first: Duration, longest: Duration) -> Duration {
        first.saturating_mul(1 << count.min(16)).min(longest).mul_f64(0.9 + self.random.unit() / 5.0)
    }

    /// Servers may want to be asked less often.
    pub(super) fn take_solicit_max(&mut self, options: &Options) {
        let seconds = options.fixed(option::SOLICIT_MAX).map(u32::from_be_bytes);
        if let Some(seconds) = seconds.filter(|seconds| SOLICIT_MAX_RANGE.contains(seconds)) {
            self.solicit_max = Duration::from_secs(seconds.into());
        }
    }
}

/// Why a server gives nothing.
pub(super) fn described(status: &Status) -> String {
    let name = match status.code {
        1 => "unspecified failure",
        2 => "no addresses available",
        3 => "it knows nothing of the lease",
        4 => "the address is not of this link",
        _ => "a status that is not known",
    };
    if status.text.is_empty() { name.to_owned() } else { format!("{name} ({})", crate::dhcp::shown(&status.text)) }
}

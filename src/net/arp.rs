//! ARP as address conflict detection needs it (RFC 5227): probes, announcements, and who claims an address. On Ethernet
//! in whole frames, over InfiniBand (RFC 4391 section 9.1) in packets for which the kernel makes the link's header.
//!
//! Contract: [`claim`] never panics, whatever the frame.

use std::net::Ipv4Addr;

use crate::dhcp::frame::BROADCAST;
use crate::mac::Hardware;

const ARP: u16 = 0x0806;
/// The kind of link, IPv4, and the lengths of their addresses.
const ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
const INFINIBAND: [u8; 6] = [0, 32, 8, 0, 20, 4];
const REQUEST: [u8; 2] = [0, 1];
const UNSPECIFIED: [u8; 4] = [0; 4];

/// The question whether somebody has `address`, from a station that has none.
pub(super) fn probe(mac: Hardware, address: Ipv4Addr) -> Vec<u8> {
    request(mac, UNSPECIFIED, address.octets())
}

/// The news that the station with this hardware address has `address`: neighbours that knew another for it take note.
pub(super) fn announcement(mac: Hardware, address: Ipv4Addr) -> Vec<u8> {
    request(mac, address.octets(), address.octets())
}

fn request(mac: Hardware, source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    match mac {
        Hardware::Ethernet(mac) => {
            [&BROADCAST[..], &mac, &ARP.to_be_bytes(), &ETHERNET, &REQUEST, &mac, &source, &[0; 6], &target].concat()
        }
        Hardware::InfiniBand(own) => [&INFINIBAND[..], &REQUEST, &own, &source, &[0; 20], &target].concat(),
    }
}

/// Somebody's word about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The address.
    pub(super) address: Ipv4Addr,
    /// The sender's hardware address.
    pub(super) by: Hardware,
    /// The sender has it; otherwise it asks for it as one who is about to take it.
    pub(super) used: bool,
}

/// What a sender says of an address of its own. `to` is the port that it came to: from Ethernet a frame, from InfiniBand a
/// packet.
pub(super) fn claim(to: Hardware, bytes: &[u8]) -> Option<Claim> {
    match to {
        Hardware::Ethernet(_) => {
            let (_, rest) = bytes.split_at_checked(12)?;
            let (kind, packet) = rest.split_first_chunk::<2>()?;
            let packet = Some(packet).filter(|_| *kind == ARP.to_be_bytes())?;
            claimed(packet, ETHERNET, Hardware::Ethernet)
        }
        Hardware::InfiniBand(_) => claimed(bytes, INFINIBAND, Hardware::InfiniBand),
    }
}

fn claimed<const LENGTH: usize>(packet: &[u8], expected: [u8; 6], of: fn([u8; LENGTH]) -> Hardware) -> Option<Claim> {
    let (header, rest) = packet.split_first_chunk::<6>()?;
    let (operation, rest) = rest.split_first_chunk::<2>()?;
    let (sender, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (source, rest) = rest.split_first_chunk::<4>()?;
    let (_, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (target, _) = rest.split_first_chunk::<4>()?;
    if *header != expected {
        return None;
    }
    let by = of(*sender);
    match (*source, *operation) {
        (UNSPECIFIED, REQUEST) => Some(Claim { address: Ipv4Addr::from(*target), by, used: false }),
        (UNSPECIFIED, _) => None,
        (source, _) => Some(Claim { address: Ipv4Addr::from(source), by, used: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Hardware = Hardware::Ethernet([0x52, 0x54, 0, 0xac, 0x10, 1]);
    const OTHER: Hardware = Hardware::Ethernet([2; 6]);
    const PORT: Hardware = Hardware::InfiniBand([7; 20]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

    fn used(by: Hardware) -> Option<Claim> {
        Some(Claim { address: ADDRESS, by, used: true })
    }

    // F13
    #[test]
    fn whoever_has_an_address_or_wants_it_claims_it() {
        let probe = probe(MAC, ADDRESS);
        assert_eq!(probe.len(), 42);
        assert_eq!(claim(MAC, &probe), Some(Claim { address: ADDRESS, by: MAC, used: false }));
        assert_eq!(claim(MAC, &announcement(MAC, ADDRESS)), used(MAC));
        // An answer: operation 2, to one who probes.
        let mut answer = announcement(OTHER, ADDRESS);
        answer[21] = 2;
        answer[38..42].fill(0);
        assert_eq!(claim(MAC, &answer), used(OTHER));
        // A question for another address by one who has this.
        let mut question = announcement(OTHER, ADDRESS);
        question[41] = 9;
        assert_eq!(claim(MAC, &question), used(OTHER));
        // Nobody answers as nobody.
        answer[28..32].fill(0);
        assert_eq!(claim(MAC, &answer), None);
    }

    // F13
    #[test]
    fn over_infiniband_addresses_have_twenty_bytes() {
        let own = [7; 20];
        let asked = [&[0, 32, 8, 0, 20, 4, 0, 1][..], &own, &[0; 4], &[0; 20], &[172, 16, 0, 1]].concat();
        assert_eq!(probe(PORT, ADDRESS), asked);
        assert_eq!(claim(PORT, &asked), Some(Claim { address: ADDRESS, by: PORT, used: false }));
        assert_eq!(claim(PORT, &announcement(PORT, ADDRESS)), used(PORT));
        assert_eq!(claim(PORT, &probe(MAC, ADDRESS)), None);
    }

    #[test]
    fn other_frames_claim_nothing() {
        for (to, header) in [(MAC, 12..20), (PORT, 0..6)] {
            let good = announcement(to, ADDRESS);
            for end in 0..good.len() {
                assert_eq!(claim(to, &good[..end]), None, "{end} bytes");
            }
            for at in header {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                assert_eq!(claim(to, &bad), None, "byte {at}");
            }
        }
    }
}

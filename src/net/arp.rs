//! ARP as address conflict detection needs it (RFC 5227): probes, announcements, and who claims an address.
//!
//! Contract: [`claim`] never panics, whatever the frame.

use std::net::Ipv4Addr;

use crate::dhcp::frame::BROADCAST;

const ARP: u16 = 0x0806;
/// Ethernet, IPv4, and the lengths of their addresses.
const HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const UNSPECIFIED: [u8; 4] = [0; 4];

/// The question whether somebody has `address`, from a station that has none.
pub(super) fn probe(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    request(mac, UNSPECIFIED, address.octets())
}

/// The news that the station with this MAC has `address`: neighbours that knew another MAC for it take note.
pub(super) fn announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    request(mac, address.octets(), address.octets())
}

fn request(mac: [u8; 6], source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&BROADCAST[..], &mac, &ARP.to_be_bytes(), &HEADER, &REQUEST, &mac, &source, &[0; 6], &target].concat()
}

/// The address that the sender of a frame has, or asks for as one who is about to take it, and the sender's MAC.
pub(super) fn claim(frame: &[u8]) -> Option<(Ipv4Addr, [u8; 6])> {
    let (_, rest) = frame.split_at_checked(12)?;
    let (kind, rest) = rest.split_first_chunk::<2>()?;
    let (header, rest) = rest.split_first_chunk::<6>()?;
    let (operation, rest) = rest.split_first_chunk::<2>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (source, rest) = rest.split_first_chunk::<4>()?;
    let (_, rest) = rest.split_first_chunk::<6>()?;
    let (target, _) = rest.split_first_chunk::<4>()?;
    if *kind != ARP.to_be_bytes() || *header != HEADER {
        return None;
    }
    match (*source, *operation) {
        (UNSPECIFIED, REQUEST) => Some((Ipv4Addr::from(*target), *mac)),
        (UNSPECIFIED, _) => None,
        (source, _) => Some((Ipv4Addr::from(source), *mac)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0xac, 0x10, 1];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

    // F13
    #[test]
    fn whoever_has_an_address_or_wants_it_claims_it() {
        let probe = probe(MAC, ADDRESS);
        assert_eq!(probe.len(), 42);
        assert_eq!(claim(&probe), Some((ADDRESS, MAC)));
        assert_eq!(claim(&announcement(MAC, ADDRESS)), Some((ADDRESS, MAC)));
        // An answer: operation 2, to one who probes.
        let mut answer = announcement([2; 6], ADDRESS);
        answer[21] = 2;
        answer[38..42].fill(0);
        assert_eq!(claim(&answer), Some((ADDRESS, [2; 6])));
        // A question for another address by one who has this.
        let mut question = announcement([2; 6], ADDRESS);
        question[41] = 9;
        assert_eq!(claim(&question), Some((ADDRESS, [2; 6])));
        // Nobody answers as nobody.
        answer[28..32].fill(0);
        assert_eq!(claim(&answer), None);
    }

    #[test]
    fn other_frames_claim_nothing() {
        let good = announcement(MAC, ADDRESS);
        for end in 0..good.len() {
            assert_eq!(claim(&good[..end]), None, "{end} bytes");
        }
        for at in 12..20 {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(claim(&bad), None, "byte {at}");
        }
    }
}

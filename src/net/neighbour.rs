//! Who claims an IPv6 address (RFC 4861 and 4862): the kernel finds out that an address is taken, and does not tell by
//! whom.
//!
//! Contract: [`claim`] never panics, whatever the frame.

use std::net::Ipv6Addr;

const ICMP: u8 = 58;
/// What has passed a router is no neighbour's (RFC 4861 section 7.1).
const UNROUTED: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The address that the sender of a frame has, or asks for as one who is about to take it, and the sender's MAC. The
/// checksum is left alone: this names a station that the kernel has heard already.
pub(super) fn claim(frame: &[u8]) -> Option<(Ipv6Addr, [u8; 6])> {
    let (_, rest) = frame.split_first_chunk::<6>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    // EtherType, version and flow, length, next header, hop limit.
    let (_, rest) = rest.split_first_chunk::<8>()?;
    let ([header, hops], rest) = rest.split_first_chunk::<2>()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (_, rest) = rest.split_first_chunk::<16>()?;
    let ([kind, code, ..], rest) = rest.split_first_chunk::<8>()?;
    let (target, _) = rest.split_first_chunk::<16>()?;
    let claims = match *kind {
        ADVERTISEMENT => true,
        SOLICITATION => *source == [0; 16],
        _ => false,
    };
    let sound = (*header, *hops, *code) == (ICMP, UNROUTED, 0);
    (claims && sound).then(|| (Ipv6Addr::from(*target), *mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0xac, 0x10, 1];
    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

    fn frame(kind: u8, source: Ipv6Addr) -> Vec<u8> {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let ethernet = [&[0x33, 0x33, 0, 0, 0, 1], &MAC[..], &[0x86, 0xdd]].concat();
        let header = [&[0x60, 0, 0, 0, 0, 24, 58, 255], &source.octets()[..], &all.octets()].concat();
        [ethernet, header, vec![kind, 0, 0, 0, 0x20, 0, 0, 0], ADDRESS.octets().to_vec()].concat()
    }

    // F13
    #[test]
    fn whoever_has_an_address_or_wants_it_claims_it() {
        assert_eq!(claim(&frame(ADVERTISEMENT, ADDRESS)), Some((ADDRESS, MAC)));
        assert_eq!(claim(&frame(SOLICITATION, Ipv6Addr::UNSPECIFIED)), Some((ADDRESS, MAC)));
        assert_eq!(claim(&frame(SOLICITATION, ADDRESS)), None, "somebody looks for it");
        assert_eq!(claim(&frame(134, ADDRESS)), None, "a router");
    }

    #[test]
    fn other_frames_claim_nothing() {
        let good = frame(ADVERTISEMENT, ADDRESS);
        for end in 0..good.len() {
            assert_eq!(claim(&good[..end]), None, "{end} bytes");
        }
        for at in [20, 21, 54, 55] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(claim(&bad), None, "byte {at}");
        }
    }
}

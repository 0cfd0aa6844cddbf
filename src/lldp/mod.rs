//! LLDP (IEEE 802.1AB): what a switch says about the port at the other end of the cable. No I/O.
//!
//! Contract: [`parse`] never panics, whatever the frame, and what it returns is short and printable.

use std::fmt;
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::mac::Mac;

/// The Ethernet type of LLDP frames.
pub(crate) const ETHERTYPE: u16 = 0x88cc;
/// Where switches send them: no bridge passes them on.
pub(crate) const NEAREST_BRIDGE: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
/// As much of a name as is kept; the standard's own limit.
const LONGEST: usize = 255;
/// IEEE 802.1, and its TLV with the VLAN of untagged frames.
const PORT_VLAN: [u8; 4] = [0x00, 0x80, 0xc2, 1];

/// What a neighbour says about itself and about its port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// Chassis ID: mostly its MAC.
    pub chassis: String,
    /// Port ID, such as `Gi1/0/7`.
    pub port: String,
    /// Port description.
    pub description: Option<String>,
    /// System name.
    pub system: Option<String>,
    /// The VLAN that untagged frames are in.
    pub vlan: Option<u16>,
    /// How long this holds, in seconds; 0 says that the neighbour goes away.
    #[serde(skip)]
    pub ttl: u16,
    /// The port ID is a MAC, which tells people less than the description.
    #[serde(skip)]
    pub(crate) anonymous: bool,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.description.as_ref().filter(|_| self.anonymous).unwrap_or(&self.port);
        write!(f, "port {port} of switch {}", self.system.as_ref().unwrap_or(&self.chassis))?;
        self.vlan.map_or(Ok(()), |vlan| write!(f, ", VLAN {vlan}"))
    }
}

/// Reads an Ethernet frame. Nothing, if it is not LLDP, cut short, or without one of the parts that every frame has.
pub fn parse(frame: &[u8]) -> Option<Neighbour> {
    let (_, rest) = frame.split_at_checked(12)?;
    let mut rest = rest.strip_prefix(&ETHERTYPE.to_be_bytes())?;
    let mut next = || {
        let ([high, low], behind) = rest.split_first_chunk::<2>()?;
        let (value, behind) = behind.split_at_checked(usize::from(high & 1) << 8 | usize::from(*low))?;
        rest = behind;
        Some((high >> 1, value))
    };
    // The first three are these, in this order.
    let (Some((1, chassis)), Some((2, port)), Some((3, ttl))) = (next(), next(), next()) else { return None };
    let (_, chassis) = id(chassis, &[4], 5)?;
    let (anonymous, port) = id(port, &[3], 4)?;
    let ttl = u16::from_be_bytes(*ttl.first_chunk()?);
    let mut neighbour = Neighbour { chassis, port, ttl, anonymous, ..Neighbour::default() };
    loop {
        match next()? {
            (0, _) => return Some(neighbour),
            // None of these may be there twice.
            (1..=3, _) => return None,
            (4, text) => neighbour.description = printable(text),
            (5, text) => neighbour.system = printable(text),
            (127, value) => {
                if let Some([high, low]) = value.strip_prefix(&PORT_VLAN)
                    && let vlan @ 1..=4094 = u16::from_be_bytes([*high, *low])
                {
                    neighbour.vlan = Some(vlan);
                }
            }
            _ => {}
        }
    }
}

/// A chassis or port ID: a byte that says what it is, and the rest. True when it is a MAC.
fn id(value: &[u8], mac: &[u8], network_address: u8) -> Option<(bool, String)> {
    let (kind, rest) = value.split_first()?;
    if mac.contains(kind)
        && let Ok(mac) = <[u8; 6]>::try_from(rest)
    {
        return Some((true, Mac(mac).to_string()));
    }
    // The address family of IPv4 is 1.
    if *kind == network_address
        && let [1, address @ ..] = rest
        && let Ok(address) = <[u8; 4]>::try_from(address)
    {
        return Some((false, Ipv4Addr::from(address).to_string()));
    }
    let text = std::str::from_utf8(rest).ok().filter(|text| text.chars().all(|c| !c.is_control()));
    let hexadecimal = || rest.iter().take(LONGEST).map(|byte| format!("{byte:02x}")).collect();
    Some((false, text.and_then(|text| printable(text.as_bytes())).unwrap_or_else(hexadecimal)))
}

/// A text, with what a console could be confused by taken out; nothing, where nothing is left.
fn printable(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes.get(..LONGEST).unwrap_or(bytes)).into_owned();
    let text: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

/// What must hold for any frame: the target of a fuzzer (`make fuzz`) and of a test in every run.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, clippy::panic)]
pub fn fuzz(frame: &[u8]) {
    let Some(neighbour) = parse(frame) else { return };
    for text in
        [Some(&neighbour.chassis), Some(&neighbour.port), neighbour.description.as_ref(), neighbour.system.as_ref()]
    {
        let text = text.map_or("", String::as_str);
        assert!(
            text.len() <= 2 * LONGEST && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()),
            "{text:?}"
        );
    }
    assert!(neighbour.vlan.is_none_or(|vlan| (1..4095).contains(&vlan)));
    assert!(neighbour.to_string().starts_with("port "));
    // A whole frame is read alike with padding behind it.
    assert_eq!(parse(&[frame, &[0xff; 64]].concat()), Some(neighbour));
}

/// Where a fuzzer begins.
#[cfg(any(test, feature = "fuzzing"))]
pub fn seeds() -> Vec<Vec<u8>> {
    let tlv = |kind: u8, value: &[u8]| [&[kind << 1, value.len().try_into().unwrap_or(0)], value].concat();
    let header = [&NEAREST_BRIDGE[..], &[2, 0, 0, 0, 0, 1], &ETHERTYPE.to_be_bytes()].concat();
    let frame = |parts: &[Vec<u8>]| [&header[..], &parts.concat(), &[0, 0]].concat();
    let ttl = tlv(3, &[0, 120]);
    vec![
        frame(&[
            tlv(1, &[4, 2, 0, 0, 0, 0, 1]),
            tlv(2, b"\x05Gi1/0/7"),
            ttl.clone(),
            tlv(4, b"GigabitEthernet1/0/7"),
            tlv(5, b"sw3"),
            tlv(6, b"A switch\r\nof two lines"),
            tlv(7, &[0, 20, 0, 4]),
            tlv(127, &[0, 0x80, 0xc2, 1, 0, 10]),
            tlv(127, &[0, 0x12, 0x0f, 1, 3, 0, 1, 0, 30]),
        ]),
        frame(&[tlv(1, &[5, 1, 10, 0, 0, 1]), tlv(2, &[3, 2, 0, 0, 0, 0, 9]), ttl.clone(), tlv(4, b"eth0")]),
        frame(&[tlv(1, b"\x07node"), tlv(2, &[7, 0xff, 0xfe]), tlv(3, &[0, 0])]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_names_itself_its_port_and_the_vlan() {
        let neighbours: Vec<Neighbour> = seeds().iter().map(|frame| parse(frame).unwrap()).collect();
        assert_eq!(neighbours[0].chassis, "02:00:00:00:00:01");
        assert_eq!(neighbours[0].ttl, 120);
        let shown: Vec<String> = neighbours.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["port Gi1/0/7 of switch sw3, VLAN 10", "port eth0 of switch 10.0.0.1", "port fffe of switch node"]
        );
        let json = serde_json::to_value(&neighbours[0]).unwrap();
        let expected = serde_json::json!({
            "chassis": "02:00:00:00:00:01", "port": "Gi1/0/7", "description": "GigabitEthernet1/0/7", "system": "sw3",
            "vlan": 10,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn frames_cut_short_say_nothing() {
        for frame in seeds() {
            for end in 0..frame.len() {
                assert_eq!(parse(&frame[..end]), None, "{end} bytes");
            }
        }
        let mut other = seeds().remove(0);
        other[13] = 0xcd;
        assert_eq!(parse(&other), None);
    }

    #[test]
    fn names_cannot_confuse_a_console() {
        assert_eq!(printable(b"sw\x1b[2J3\r\n \xff"), Some("sw [2J3".to_owned()));
        assert_eq!(printable(b" \0\n"), None);
        assert_eq!(printable(&[b'a'; 400]).unwrap().len(), 255);
    }
}

//! Hardware addresses of ports: MACs as people write them, and what InfiniBand has in their place.

use std::fmt;

/// A MAC, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&pairs(&self.0))
    }
}

/// The hardware address of a port.
///
/// Written out it is the MAC, or the port's GUID: the last eight of the twenty bytes that InfiniBand has (RFC 4391
/// section 9.1.1), and the only ones that stay the same from one boot to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hardware {
    /// A MAC.
    Ethernet([u8; 6]),
    /// Four bytes with the number of the queue pair, eight of the subnet, eight of the port (its GUID).
    InfiniBand([u8; 20]),
}

impl Hardware {
    /// The MAC; over InfiniBand the GUID without its two middle bytes, by which iPXE and the firmware of the cards call
    /// such a port, and with them PXELINUX.
    pub fn mac(self) -> [u8; 6] {
        match self {
            Self::Ethernet(mac) => mac,
            Self::InfiniBand(_) => {
                let [a, b, c, _, _, d, e, f] = self.guid();
                [a, b, c, d, e, f]
            }
        }
    }

    /// The port's GUID; that of a MAC is the MAC with `fffe` in its middle.
    pub fn guid(self) -> [u8; 8] {
        match self {
            Self::Ethernet([a, b, c, d, e, f]) => [a, b, c, 0xff, 0xfe, d, e, f],
            Self::InfiniBand([.., a, b, c, d, e, f, g, h]) => [a, b, c, d, e, f, g, h],
        }
    }

    /// Whether it is InfiniBand's.
    pub fn is_infiniband(self) -> bool {
        matches!(self, Self::InfiniBand(_))
    }

    /// All bytes, as people and the kernel write them.
    pub fn whole(&self) -> String {
        match self {
            Self::Ethernet(mac) => pairs(mac),
            Self::InfiniBand(address) => pairs(address),
        }
    }

    /// Whether a word of the administrator's is this address: the MAC, or InfiniBand's GUID.
    pub(crate) fn is_called(self, word: &str) -> bool {
        match bytes(word).as_deref() {
            Some([a, b, c, d, e, f]) => self.mac() == [*a, *b, *c, *d, *e, *f],
            Some(guid) => self.is_infiniband() && guid == self.guid(),
            None => false,
        }
    }

    /// Whether both are of one port, whatever its queue pair.
    pub(crate) fn is_of_port(self, other: Self) -> bool {
        self.is_infiniband() == other.is_infiniband() && self.guid() == other.guid()
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethernet(mac) => f.write_str(&pairs(mac)),
            Self::InfiniBand(_) => f.write_str(&pairs(&self.guid())),
        }
    }
}

fn pairs(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Reads `52:54:00:ac:10:01` or `52-54-00-ac-10-01`, in either case.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    bytes(text)?.try_into().ok()
}

/// Reads pairs of hex digits with colons or dashes between them.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.trim().split([':', '-']).map(|pair| match pair.len() {
        2 => u8::from_str_radix(pair, 16).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infiniband_port_is_called_by_its_guid_and_by_what_firmware_makes_of_it() {
        let whole = "80:00:02:08:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:12:34:56";
        let port = Hardware::InfiniBand(bytes(whole).unwrap().try_into().unwrap());
        assert_eq!(port.whole(), whole);
        assert_eq!(port.to_string(), "e4:1d:2d:03:00:12:34:56");
        assert_eq!(Mac(port.mac()).to_string(), "e4:1d:2d:12:34:56");
        for word in ["e4:1d:2d:03:00:12:34:56", "E4-1D-2D-03-00-12-34-56", "e4-1d-2d-12-34-56"] {
            assert!(port.is_called(word), "{word}");
        }
        for word in ["e4:1d:2d:03:00:12:34:57", "e4:1d:2d:03:00:12:34", "ib0", ""] {
            assert!(!port.is_called(word), "{word}");
        }
        let mut other = port;
        if let Hardware::InfiniBand(bytes) = &mut other {
            bytes[3] = 9;
        }
        assert!(other.is_of_port(port) && other != port);
        let ethernet = Hardware::Ethernet([0x52, 0x54, 0, 0xac, 0x10, 1]);
        assert!(ethernet.is_called("52-54-00-ac-10-01") && !ethernet.is_called("52:54:00:ff:fe:ac:10:01"));
        assert_eq!((ethernet.to_string(), ethernet.whole().len()), ("52:54:00:ac:10:01".to_owned(), 17));
    }
}

//! `rd.route=` as dracut.cmdline(7) has it.

use std::net::IpAddr;

use super::ip;
use crate::lease::network;
use crate::net::{Route, unspecified};

/// Reads `NET/MASK:[GATEWAY][:DEVICE]`; IPv6 stands in brackets, the prefix length inside them or behind.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Route, String> {
    let fields = ip::fields(text)?;
    let field = |number: usize| fields.get(number).map_or("", String::as_str);
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("\"{text}\" is not an address"));
    let (net, mask) = match field(0).split_once('/') {
        Some((net, mask)) => (address(net)?, Some(mask)),
        None => (address(field(0))?, None),
    };
    let width = match mask {
        Some(mask) => ip::prefix(mask, net.is_ipv4())?,
        None => {
            if net.is_ipv4() {
                32
            } else {
                128
            }
        }
    };
    let right = network(net, width);
    if right != net {
        return Err(format!("{net}/{width} has bits beyond its mask; {right}/{width} is the network"));
    }
    let gateway = match field(1) {
        "" => unspecified(net),
        gateway => address(gateway)?,
    };
    if gateway.is_ipv4() != net.is_ipv4() {
        return Err(format!("{net} and {gateway} are not of one family"));
    }
    let device = fields.get(2..).map(|parts| parts.join(":")).filter(|device| !device.is_empty());
    if gateway.is_unspecified() && width == 0 {
        return Err("a default route needs a gateway".to_owned());
    }
    Ok(Route { to: (net, width), gateway, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_a_network_a_gateway_and_a_port() {
        let route = |text: &str| {
            let Route { to, gateway, device } = parse(text).unwrap();
            format!("{}/{} {gateway} {}", to.0, to.1, device.unwrap_or_default())
        };
        assert_eq!(route("192.168.200.0/24:192.168.100.222:eth0"), "192.168.200.0/24 192.168.100.222 eth0");
        assert_eq!(route("192.168.200.0/255.255.255.0:192.168.100.222"), "192.168.200.0/24 192.168.100.222 ");
        assert_eq!(route("192.168.200.0/24::52-54-00-ac-10-01"), "192.168.200.0/24 0.0.0.0 52-54-00-ac-10-01");
        assert_eq!(route("192.168.200.7:192.168.100.222:"), "192.168.200.7/32 192.168.100.222 ");
        assert_eq!(route("0.0.0.0/0:192.168.100.222"), "0.0.0.0/0 192.168.100.222 ");
        assert_eq!(route("[2001:db8:3::/48]:[2001:db8:2::1]:eth0"), "2001:db8:3::/48 2001:db8:2::1 eth0");
        assert_eq!(route("[fd01::]/16:[fe80::1]"), "fd01::/16 fe80::1 ");
        assert_eq!(route("[fd01::7]::52:54:00:ac:10:01"), "fd01::7/128 :: 52:54:00:ac:10:01");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("", "\"\" is not an address"),
            ("10.0.0.0/8:master", "\"master\" is not"),
            ("10.0.0.0/40:10.0.0.1", "neither a prefix length"),
            ("10.1.0.0/8:10.0.0.1", "10.0.0.0/8 is the network"),
            ("0.0.0.0/0", "needs a gateway"),
            ("[fd00::1/64]:[fd00::1]", "fd00::/64 is the network"),
            ("[fd00::/8]:10.0.0.1", "not of one family"),
            ("[fd00::/8:10.0.0.1", "brackets"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}

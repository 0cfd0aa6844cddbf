//! `rd.route=` as dracut.cmdline(7) has it.

use std::net::Ipv4Addr;

use super::ip;
use crate::dhcp;
use crate::net::Route;

/// Reads `NET/MASK:[GATEWAY][:DEVICE]`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Route, String> {
    if text.contains('[') {
        return Err("this version makes IPv4 routes only".to_owned());
    }
    let mut fields = text.splitn(3, ':');
    let net = fields.next().unwrap_or_default();
    let (net, mask) = net.split_once('/').unwrap_or((net, "32"));
    let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| format!("\"{text}\" is not an IPv4 address"));
    let (net, width) = (address(net)?, ip::prefix(mask, true)?);
    if dhcp::network(net, width) != net {
        let right = dhcp::network(net, width);
        return Err(format!("{net}/{width} has bits beyond its mask; {right}/{width} is the network"));
    }
    let gateway = match fields.next().unwrap_or_default() {
        "" => Ipv4Addr::UNSPECIFIED,
        gateway => address(gateway)?,
    };
    let device = fields.next().filter(|device| !device.is_empty()).map(str::to_owned);
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
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("", "\"\" is not an IPv4 address"),
            ("10.0.0.0/8:master", "\"master\" is not"),
            ("10.0.0.0/40:10.0.0.1", "neither a prefix length"),
            ("10.1.0.0/8:10.0.0.1", "10.0.0.0/8 is the network"),
            ("0.0.0.0/0", "needs a gateway"),
            ("[fd00::/8]:[fd00::1]", "IPv4 routes only"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}

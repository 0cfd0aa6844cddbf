//! What must hold for `ip=` whatever is written there: the target of a fuzzer (`make fuzz`) and of a test in every run;
//! it panics where a promise is broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use super::{ip, route};
use crate::net::{Ip, Method};

/// A value of `ip=` and of `rd.route=`: what is taken can be written down again and means the same, and what a port
/// would get of it is something that a port can have.
pub fn ip(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(ip) = ip::parse(&text) {
        assert_eq!(ip::parse(&written(&ip)), Ok(ip.clone()), "{text} as {}", written(&ip));
        assert!(ip.method != Method::None || ip.address.is_some());
        if let Some(given) = &ip.address {
            let longest = if given.address.is_ipv4() { 32 } else { 128 };
            assert!(given.prefix <= longest && !given.address.is_multicast() | given.address.is_ipv6());
            assert!(given.routes().iter().all(|(to, width, by)| {
                *width <= longest && to.is_ipv4() == by.is_ipv4() && to.is_ipv4() == given.address.is_ipv4()
            }));
        }
        assert!(ip.mtu.is_none_or(|mtu| mtu >= 576));
    }
    if let Ok(route) = route::parse(&text) {
        let (to, width) = route.to;
        assert!(width <= if to.is_ipv4() { 32 } else { 128 } && to.is_ipv4() == route.gateway.is_ipv4());
        assert!(width > 0 || !route.gateway.is_unspecified());
    }
}

/// The longest form of it.
fn written(ip: &Ip) -> String {
    let bracketed = |address: IpAddr| if address.is_ipv4() { address.to_string() } else { format!("[{address}]") };
    let some = |address: Option<IpAddr>| address.map(bracketed).unwrap_or_default();
    let given = ip.address.as_ref();
    let peer = given.and_then(|given| given.peer).map(|(peer, width)| match width {
        Some(width) => format!("{}/{width}", bracketed(peer)),
        None => bracketed(peer),
    });
    let method = match ip.method {
        Method::None => "none",
        Method::Dhcp => "dhcp",
        Method::Dhcp6 => "dhcp6",
        Method::Auto6 => "auto6",
        Method::Either6 => "either6",
        Method::Link6 => "link6",
    };
    let mut fields = vec![
        some(given.map(|given| given.address)),
        peer.unwrap_or_default(),
        some(given.and_then(|given| given.gateway)),
        given.map(|given| given.prefix.to_string()).unwrap_or_default(),
        ip.hostname.clone().unwrap_or_default(),
        ip.device.as_ref().map(|device| format!("[{device}]")).unwrap_or_default(),
        method.to_owned(),
    ];
    if ip.dns.is_empty() {
        fields.push(ip.mtu.map(|mtu| mtu.to_string()).unwrap_or_default());
        fields.extend(ip.mac.map(|mac| crate::mac::Mac(mac).to_string()));
    } else {
        fields.extend(ip.dns.iter().copied().map(bracketed));
    }
    fields.join(":")
}

/// Where a fuzzer begins.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "dhcp",
        "eth0:dhcp",
        "eth0:either6:9000:52:54:00:ac:10:01",
        "10.1.0.5::10.1.0.1:255.255.0.0:n1:eth0:none:10.1.0.2:10.1.0.3",
        "10.1.0.5:10.2.0.1/24:10.2.0.1:32::eth0:none:1400:525400ac1001",
        "172.16.0.1:172.16.0.254:172.16.0.253:255.255.255.0",
        "::::n1:eth0:dhcp::52-54-00-ac-10-01",
        "[fd00::5]:[fd00::9]/128:[fd00::1]:64:n1:eth0:none:[fd00::2]",
        "192.168.200.0/255.255.255.0:192.168.100.222:eth0",
        "192.168.200.0/24::eth0",
        "[fd01::]/48:[fe80::1]:eth0",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

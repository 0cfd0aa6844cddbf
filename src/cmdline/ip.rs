//! `ip=` in every form of dracut.cmdline(7): one pure function from text to [`Ip`].
//!
//! Contract: [`parse`] never panics, and leaves nothing out in silence: what it does not know is a mistake.

use std::net::{IpAddr, Ipv4Addr};

use crate::mac::parse_mac;
use crate::net::{Address, Ip, Method};

/// Reads the value of one `ip=`. What a colon separates may stand in brackets, as IPv6 addresses must.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Ip, String> {
    let fields = fields(text)?;
    let field = |number: usize| fields.get(number).map_or("", String::as_str);
    let rest = |number: usize| fields.get(number..).unwrap_or_default();
    if fields.len() == 1 {
        return match method(field(0)) {
            Some(Method::None) => Err("without a network there is no image to boot; leave it out for dhcp".to_owned()),
            Some(method) => Ok(Ip::new(method)),
            None if field(0).parse::<IpAddr>().is_ok() => {
                Err("an address needs its netmask: ADDRESS::GATEWAY:NETMASK:HOSTNAME:DEVICE:none".to_owned())
            }
            None => Err(unknown(field(0))),
        };
    }
    if let Some(method) = method(field(1)).filter(|_| field(0).parse::<IpAddr>().is_err()) {
        if method == Method::None {
            return Err(format!("{} comes with an address: ADDRESS::GATEWAY:NETMASK:HOSTNAME:DEVICE:none", field(1)));
        }
        let (mtu, mac) = mtu_and_mac(field(2), rest(3))?;
        return check_mtu(Ip { device: some(field(0)), mtu, mac, ..Ip::new(method) });
    }
    if fields.len() == 2 {
        return Err(unknown(field(1)));
    }
    explicit(&fields)
}

/// `ADDRESS:[PEER]:GATEWAY:NETMASK:HOSTNAME:DEVICE:METHOD`, and then an MTU and a MAC, or two name servers.
fn explicit(fields: &[String]) -> Result<Ip, String> {
    let field = |number: usize| fields.get(number).map_or("", String::as_str);
    let address = some(field(0)).map(|_| address(field(0), field(1), field(2), field(3))).transpose()?;
    if address.is_none()
        && let Some(number) = (1..4).find(|number| !field(*number).is_empty())
    {
        return Err(format!("{} without an address of the node's own", field(number)));
    }
    let method = match (method(field(6)), address.is_some()) {
        (Some(method), _) => method,
        // As the kernel and PXELINUX write it: ADDRESS:SERVER:GATEWAY:NETMASK.
        (None, true) if field(6).is_empty() => Method::None,
        (None, false) if field(6).is_empty() => Method::Dhcp,
        (None, _) => return Err(unknown(field(6))),
    };
    if method == Method::None && address.is_none() {
        return Err(format!("{} without an address", field(6)));
    }
    if let Some(given) = &address {
        check_family(method, given.address)?;
    }
    let hostname = some(field(4));
    if hostname.as_deref().is_some_and(|name| !crate::lease::is_name(name)) {
        return Err(format!("{} is no host name: letters, digits, '.', '-' and '_'", field(4)));
    }
    let mut ip = Ip { device: some(field(5)), address, hostname, ..Ip::new(method) };
    let servers: Vec<IpAddr> = [field(7), field(8)].iter().filter_map(|text| text.parse().ok()).collect();
    if servers.is_empty() {
        (ip.mtu, ip.mac) = mtu_and_mac(field(7), fields.get(8..).unwrap_or_default())?;
        return check_mtu(ip);
    }
    let given = fields.get(7..).unwrap_or_default().iter().filter(|field| !field.is_empty()).count();
    if given != servers.len() {
        return Err("behind the method stand an MTU and a MAC, or one or two name servers".to_owned());
    }
    ip.dns = servers;
    Ok(ip)
}

/// One line is for one family.
fn check_family(method: Method, address: IpAddr) -> Result<(), String> {
    match (method, address) {
        (Method::None, _) | (Method::Dhcp, IpAddr::V4(_)) => Ok(()),
        (Method::Dhcp, IpAddr::V6(address)) => {
            Err(format!("dhcp asks for what belongs to IPv4; with {address} the method is none"))
        }
        (_, address) => Err(format!("an address of one's own ({address}) goes with none, or with dhcp for IPv4")),
    }
}

/// The least MTU that IPv6 works with (RFC 8200).
fn check_mtu(ip: Ip) -> Result<Ip, String> {
    match ip.mtu {
        Some(mtu) if ip.is_version_6() && mtu < 1280 => {
            Err(format!("an MTU of {mtu} is too little for IPv6: 1280 to 65535"))
        }
        _ => Ok(ip),
    }
}

/// The parts of a value. Brackets keep colons together, and are taken away.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return Err("brackets that do not match".to_owned()),
            ':' if !inside => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    if inside { Err("brackets that do not match".to_owned()) } else { Ok(fields) }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn method(text: &str) -> Option<Method> {
    Some(match text {
        "none" | "off" => Method::None,
        "dhcp" | "on" | "any" | "single-dhcp" => Method::Dhcp,
        "dhcp6" => Method::Dhcp6,
        "auto6" => Method::Auto6,
        "either6" => Method::Either6,
        "link6" => Method::Link6,
        _ => return None,
    })
}

fn unknown(text: &str) -> String {
    match text {
        "ibft" => "what firmware leaves for iSCSI (iBFT) is not read; name the address here, or take dhcp".to_owned(),
        "bootp" | "rarp" | "both" => format!("{text} is not spoken; dhcp is"),
        _ => format!("\"{text}\" is none of dhcp, on, any, none, off, dhcp6, auto6, either6, link6"),
    }
}

fn address(address: &str, peer: &str, gateway: &str, mask: &str) -> Result<Address, String> {
    let own: IpAddr = address.parse().map_err(|_| format!("{address} is not an address"))?;
    let same_family = |text: &str| match text.parse::<IpAddr>() {
        Ok(other) if other.is_ipv4() == own.is_ipv4() => Ok(other),
        Ok(_) => Err(format!("{own} and {text} are not of one family")),
        Err(_) => Err(format!("{text} is not an address")),
    };
    let gateway = some(gateway).map(|text| same_family(&text)).transpose()?;
    let peer = some(peer).map(|text| peer_of(&text, same_family)).transpose()?;
    if mask.is_empty() {
        return Err(format!("the netmask of {own} is missing"));
    }
    let prefix = prefix(mask, own.is_ipv4())?;
    let given = Address { address: own, prefix, gateway, peer };
    given.check()?;
    Ok(given)
}

/// `ADDRESS` or `ADDRESS/PREFIX`.
fn peer_of(text: &str, address: impl Fn(&str) -> Result<IpAddr, String>) -> Result<(IpAddr, Option<u8>), String> {
    let Some((peer, width)) = text.split_once('/') else { return Ok((address(text)?, None)) };
    let peer = address(peer)?;
    Ok((peer, Some(prefix(width, peer.is_ipv4())?)))
}

/// A prefix length, or an IPv4 mask in dotted form.
pub(super) fn prefix(text: &str, version_4: bool) -> Result<u8, String> {
    let longest = if version_4 { 32 } else { 128 };
    if let Some(length) = text.parse::<u8>().ok().filter(|length| *length <= longest) {
        return Ok(length);
    }
    let mask = text.parse::<Ipv4Addr>().ok().filter(|_| version_4).map(u32::from);
    match mask.filter(|mask| mask.count_ones() == mask.leading_ones()) {
        Some(mask) => Ok(u8::try_from(mask.leading_ones()).unwrap_or(32)),
        None => Err(format!("{text} is neither a prefix length nor a netmask")),
    }
}

/// An MTU, or nothing, and the parts of a MAC, or nothing.
fn mtu_and_mac(mtu: &str, mac: &[String]) -> Result<(Option<u16>, Option<[u8; 6]>), String> {
    let mtu = some(mtu).map(|text| mtu_of(&text)).transpose()?;
    let mac = some(&mac.join(":")).map(|text| mac_of(&text)).transpose()?;
    Ok((mtu, mac))
}

/// An MTU that IPv4 can work with (RFC 791).
pub(super) fn mtu_of(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|mtu| *mtu >= 576).ok_or_else(|| format!("\"{text}\" is no MTU: 576 to 65535"))
}

/// With colons, with dashes, or without either.
pub(super) fn mac_of(text: &str) -> Result<[u8; 6], String> {
    let plain = || {
        let digits = text.is_ascii() && text.len() == 12;
        let pairs = (0..6).map(|pair| text.get(2 * pair..2 * pair + 2).unwrap_or_default()).collect::<Vec<_>>();
        parse_mac(&pairs.join(":")).filter(|_| digits)
    };
    let mac = parse_mac(text).or_else(plain).ok_or_else(|| format!("{text} is not a MAC"))?;
    let [first, ..] = mac;
    if first & 1 != 0 || mac == [0; 6] {
        return Err(format!("{text} is no MAC that a port can have"));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(address: &str, prefix: u8, gateway: Option<&str>) -> Option<Address> {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Some(Address { address: address.parse().unwrap(), prefix, gateway, peer: None })
    }

    #[test]
    fn every_form_of_the_manual_page_is_understood() {
        let mac = Some([0x52, 0x54, 0, 0xac, 0x10, 1]);
        let device = Some("eth0".to_owned());
        let dhcp = || Ip::new(Method::Dhcp);
        let fixed = || Ip {
            device: Some("eth0".to_owned()),
            address: v4("10.1.0.5", 16, Some("10.1.0.1")),
            hostname: Some("n1".to_owned()),
            ..Ip::new(Method::None)
        };
        let dns = |servers: &[&str]| servers.iter().map(|server| server.parse().unwrap()).collect::<Vec<IpAddr>>();
        for (text, expected) in [
            ("dhcp", dhcp()),
            ("on", dhcp()),
            ("any", dhcp()),
            ("single-dhcp", dhcp()),
            ("dhcp6", Ip::new(Method::Dhcp6)),
            ("auto6", Ip::new(Method::Auto6)),
            ("either6", Ip::new(Method::Either6)),
            ("link6", Ip::new(Method::Link6)),
            ("eth0:dhcp", Ip { device: device.clone(), ..dhcp() }),
            ("eth0:auto6", Ip { device: device.clone(), ..Ip::new(Method::Auto6) }),
            ("eth0:dhcp:9000", Ip { device: device.clone(), mtu: Some(9000), ..dhcp() }),
            ("eth0:on::52:54:00:ac:10:01", Ip { device: device.clone(), mac, ..dhcp() }),
            ("eth0:any:1400:525400AC1001", Ip { device: device.clone(), mtu: Some(1400), mac, ..dhcp() }),
            ("52-54-00-ac-10-01:dhcp", Ip { device: Some("52-54-00-ac-10-01".to_owned()), ..dhcp() }),
            ("10.1.0.5::10.1.0.1:255.255.0.0:n1:eth0:none", fixed()),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:off", fixed()),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:off:", fixed()),
            ("10.1.0.5::10.1.0.1:16:n1:eth0", fixed()),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:none:9000", Ip { mtu: Some(9000), ..fixed() }),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:none::525400ac1001", Ip { mac, ..fixed() }),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:none:9000:52:54:00:ac:10:01", Ip { mtu: Some(9000), mac, ..fixed() }),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:none:10.1.0.2", Ip { dns: dns(&["10.1.0.2"]), ..fixed() }),
            (
                "10.1.0.5::10.1.0.1:16:n1:eth0:none:10.1.0.2:10.1.0.3",
                Ip { dns: dns(&["10.1.0.2", "10.1.0.3"]), ..fixed() },
            ),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:none::10.1.0.3", Ip { dns: dns(&["10.1.0.3"]), ..fixed() }),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:none:[fd00::2]", Ip { dns: dns(&["fd00::2"]), ..fixed() }),
            ("10.1.0.5::10.1.0.1:16:n1:eth0:dhcp", Ip { method: Method::Dhcp, ..fixed() }),
            ("10.1.0.5:::16:::", Ip { address: v4("10.1.0.5", 16, None), ..Ip::new(Method::None) }),
            ("::::n1:eth0:dhcp", Ip { device: device.clone(), hostname: Some("n1".to_owned()), ..dhcp() }),
            ("::::n1::", Ip { hostname: Some("n1".to_owned()), ..dhcp() }),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_pxelinux_writes_is_an_address_and_the_boot_server() {
        let ip = parse("172.16.0.1:172.16.0.254:172.16.0.253:255.255.255.0").unwrap();
        assert_eq!((ip.method, ip.device), (Method::None, None));
        let given = ip.address.unwrap();
        assert_eq!(given.peer, Some(("172.16.0.254".parse().unwrap(), None)));
        assert_eq!(given.routes(), [("0.0.0.0".parse().unwrap(), 0, "172.16.0.253".parse().unwrap())]);
    }

    #[test]
    fn a_peer_and_a_gateway_beyond_the_prefix_are_on_the_link() {
        let routes = |text: &str| {
            let routes = parse(text).unwrap().address.unwrap().routes();
            routes.iter().map(|(to, width, by)| format!("{to}/{width} {by}")).collect::<Vec<_>>()
        };
        assert_eq!(routes("10.1.0.5:10.2.0.1::32::eth0:none"), ["10.2.0.1/32 0.0.0.0"]);
        assert_eq!(routes("10.1.0.5:10.2.0.0/24::24::eth0:none"), ["10.2.0.0/24 0.0.0.0"]);
        assert_eq!(routes("10.1.0.5:10.2.0.1:10.2.0.1:32::eth0:none"), ["10.2.0.1/32 0.0.0.0", "0.0.0.0/0 10.2.0.1"]);
        assert_eq!(routes("10.1.0.5::10.9.0.1:32::eth0:none"), ["10.9.0.1/32 0.0.0.0", "0.0.0.0/0 10.9.0.1"]);
        assert_eq!(routes("10.1.0.5:10.9.9.9:10.1.0.1:24::eth0:none"), ["0.0.0.0/0 10.1.0.1"]);
    }

    #[test]
    fn version_6_is_understood() {
        let ip = parse("[fd00::5]:[fd00::9]/128:[fd00::1]:64:n1:eth0:none:[fd00::2]:10.1.0.2").unwrap();
        let given = ip.address.clone().unwrap();
        assert_eq!((given.address.to_string(), given.prefix), ("fd00::5".to_owned(), 64));
        assert_eq!(given.gateway.unwrap().to_string(), "fd00::1");
        assert_eq!(given.peer, Some(("fd00::9".parse().unwrap(), Some(128))));
        assert_eq!(ip.dns.len(), 2);
        let routes = |text: &str| {
            let routes = parse(text).unwrap().address.unwrap().routes();
            routes.iter().map(|(to, width, by)| format!("{to}/{width} {by}")).collect::<Vec<_>>()
        };
        assert_eq!(routes("[fd00::5]::[fd00::1]:64::eth0:none"), ["::/0 fd00::1"]);
        assert_eq!(routes("[fd00::5]::[fe80::1]:64::eth0:none:1280"), ["::/0 fe80::1"]);
        assert_eq!(routes("[fd00::5]::[fd00::1]:128::eth0:none"), ["fd00::1/128 ::", "::/0 fd00::1"]);
        assert_eq!(routes("[fd00::5]:[fd01::1]/64:[fd01::1]:64::eth0:none"), ["fd01::/64 ::", "::/0 fd01::1"]);
        for (text, method) in [("dhcp6", Method::Dhcp6), ("eth0:either6", Method::Either6)] {
            assert_eq!(parse(text).unwrap().method, method);
        }
        assert_eq!(parse("eth0:link6:1400").unwrap().mtu, Some(1400));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("", "\"\" is none of"),
            ("dhcq", "\"dhcq\" is none of"),
            ("none", "no image to boot"),
            ("10.0.0.1", "needs its netmask"),
            ("eth0:off", "comes with an address"),
            ("eth0:dhpc", "\"dhpc\" is none of"),
            ("eth0:ibft", "iBFT"),
            ("eth0:dhcp:70000", "no MTU"),
            ("eth0:dhcp:mtu", "no MTU"),
            ("eth0:dhcp::52:54:00", "not a MAC"),
            ("eth0:dhcp::01:54:00:ac:10:01", "no MAC that a port can have"),
            ("10.0.0.1::10.0.0.254:255.0.255.0::eth0:none", "neither a prefix length nor a netmask"),
            ("10.0.0.1::10.0.0.254:33::eth0:none", "neither a prefix length nor a netmask"),
            ("10.0.0.1::10.0.0.254:::eth0:none", "the netmask of 10.0.0.1 is missing"),
            ("10.0.0.1::10.1.0.254:24::eth0:none", "gateway 10.1.0.254 is not on the subnet of 10.0.0.1/24"),
            ("10.0.0.1::10.0.0.1:24::eth0:none", "gateway 10.0.0.1 is the address itself"),
            ("10.0.0.1::fd00:24::eth0:none", "fd00 is not an address"),
            ("[fd00::5]::[fd01::1]:64::eth0:none", "gateway fd01::1 is not on the subnet of fd00::5/64"),
            ("[fd00::5]::10.0.0.1:64::eth0:none", "not of one family"),
            ("[fe80::5]::[fd01::1]:64::eth0:none", "fe80::5 is link-local"),
            ("[ff02::5]:::64::eth0:none", "ff02::5 is not a host's address"),
            ("[fd00::5]:::64::eth0:dhcp", "with fd00::5 the method is none"),
            ("[fd00::5]:::64::eth0:auto6", "goes with none"),
            ("10.0.0.1:::24::eth0:dhcp6", "goes with none"),
            ("[fd00::5]:::64::eth0:none:1279", "too little for IPv6"),
            ("eth0:auto6:600", "too little for IPv6"),
            ("10.0.0.1::[fd00::1]:24::eth0:none", "not of one family"),
            ("10.0.0.255::10.0.0.254:24::eth0:none", "own or its broadcast"),
            ("224.0.0.1:::24::eth0:none", "not a host's address"),
            ("10.0.0.1:::24::eth0:bootp", "bootp is not spoken"),
            ("10.0.0.1:::24:a b:eth0:none", "no host name"),
            ("10.0.0.1:::24::eth0:none:10.0.0.2:10.0.0.3:10.0.0.4", "one or two name servers"),
            ("10.0.0.1:::24::eth0:none:10.0.0.2:1400", "one or two name servers"),
            ("::10.0.0.254:24::eth0:dhcp", "10.0.0.254 without an address of the node's own"),
            ("::::n1:eth0:none", "none without an address"),
            ("[fd00::1", "brackets"),
            ("fd00::1]:dhcp", "brackets"),
        ] {
            let message = parse(text).map(|ip| format!("{ip:?}")).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}

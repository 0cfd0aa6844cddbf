//! Whether the interface is there, and DHCP and TFTP are free. dnsmasq shares its ports with any program that does the same,
//! so two of them would start without a word and both answer the nodes.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nameindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use rootstream::failure::{Advise, refuse};

use crate::config::addresses::Cidr;

/// Refuses to go on without the interface.
///
/// # Errors
/// There is none of that name.
pub(super) fn refuse_missing(interface: &str, master: &Cidr) -> Result<()> {
    let list = if_nameindex().context("listing network interfaces")?;
    let names: Vec<String> = list.iter().map(|one| one.name().to_string_lossy().into_owned()).collect();
    if names.iter().any(|name| name == interface) {
        return Ok(());
    }
    let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != "lo").collect();
    let others = if others.is_empty() { "none but lo".to_owned() } else { others.join(", ") };
    Err(refuse(
        format!("there is no network interface {interface}, which site.toml names; there is {others}"),
        format!(
            "correct it; or make a bridge: ip link add {interface} type bridge && ip address add {}/{} dev {interface} \
             && ip link set {interface} up",
            master.address, master.prefix
        ),
    ))
}

/// Refuses to go on when something on `interface` has the port of DHCP or TFTP already.
///
/// # Errors
/// It has, or this user may not take those ports.
pub(super) fn refuse_taken(interface: &str, master: Ipv4Addr) -> Result<()> {
    for (service, address) in
        [("DHCP", SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67)), ("TFTP", SocketAddrV4::new(master, 69))]
    {
        let todo = match take(interface, address) {
            Err(Errno::EADDRINUSE) => format!(
                "stop the other rootstream up, dnsmasq or server there (ss -lunp 'sport = :{}' names it)",
                address.port()
            ),
            Err(Errno::EACCES | Errno::EPERM) => "run it as root".to_owned(),
            // What else can be wrong with interface or address dnsmasq says better.
            _ => continue,
        };
        return take(interface, address)
            .with_context(|| format!("udp port {} on {interface}", address.port()))
            .advise(format!("starting {service} on {interface}"), todo);
    }
    Ok(())
}

/// Takes a port for a moment, alone and on one interface only: another network's server is no obstacle.
fn take(interface: &str, address: SocketAddrV4) -> nix::Result<()> {
    let probe = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&probe, sockopt::BindToDevice, &OsString::from(interface))?;
    bind(probe.as_raw_fd(), &SockaddrIn::from(address))
}

#[cfg(test)]
mod tests {
    use rootstream_lab::namespace::{enter_private_network, ip};

    use super::*;

    #[test]
    fn a_port_that_is_shared_is_taken_all_the_same() {
        enter_private_network().unwrap();
        ip("link add br0 type bridge").unwrap();
        ip("link add br1 type bridge").unwrap();
        ip("address add 172.16.0.254/24 dev br0").unwrap();
        let master = Ipv4Addr::new(172, 16, 0, 254);
        refuse_taken("br0", master).unwrap();
        // As dnsmasq does it.
        let other = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&other, sockopt::ReuseAddr, &true).unwrap();
        setsockopt(&other, sockopt::BindToDevice, &OsString::from("br0")).unwrap();
        bind(other.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 67)).unwrap();
        let error = format!("{:#}", refuse_taken("br0", master).unwrap_err());
        assert!(error.contains("starting DHCP on br0") && error.contains("udp port 67"), "{error}");
        refuse_taken("br1", master).unwrap();
    }
}

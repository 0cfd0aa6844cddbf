//! Whether a lease leads to the image: where several ports are served, not every network has a way to it.

use std::net::IpAddr;

use super::Settings;
use crate::failure::refuse;
use crate::image;
use crate::lease::Lease;
use crate::url::{self, Host};

/// Where the image is, as far as that is known before there is a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Nothing can be said.
    #[default]
    Anywhere,
    /// At one of these addresses.
    Hosts(Vec<IpAddr>),
    /// At a host with a name.
    Named,
    /// The lease has to name it.
    InLease,
}

impl Destination {
    /// What the image's parameters say.
    pub fn of(image: &image::Settings) -> Self {
        if image.from_lease {
            return Self::InLease;
        }
        if image.urls.is_empty() {
            return Self::Anywhere;
        }
        let addresses = image.urls.iter().map(|url| match url::host(url) {
            Ok(Host::Address(address)) => Some(address),
            _ => None,
        });
        addresses.collect::<Option<_>>().map_or(Self::Named, Self::Hosts)
    }

    /// Whether who has this lease has a way there. `resolves`: there is a name server besides those of the lease.
    pub(super) fn is_reached_by(&self, lease: &Lease, resolves: bool) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Hosts(hosts) => hosts.iter().any(|host| lease.reaches(*host)),
            Self::Named => resolves || !lease.dns.is_empty(),
            Self::InLease => lease.root_path.is_some() || lease.boot_file.is_some(),
        }
    }
}

/// Whether the image can be of a family that the port is to have, as far as that is known before anything is asked.
///
/// # Errors
/// It is not.
pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
    let Destination::Hosts(hosts) = &settings.destination else { return Ok(()) };
    let brings = |version_6: bool| match settings.ip.as_slice() {
        // DHCP for IPv4 is what there is where nothing is said.
        [] => !version_6,
        lines => lines.iter().any(|ip| ip.is_version_6() == version_6),
    };
    if hosts.iter().any(|host| brings(host.is_ipv6())) {
        return Ok(());
    }
    let words: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let at = words.join(", ");
    Err(if hosts.iter().any(IpAddr::is_ipv6) {
        refuse(
            format!("the image is at {at}, and no ip= brings up IPv6"),
            "add ip=either6 (what routers say, and DHCPv6 where they say so), ip=dhcp6, ip=auto6, or an IPv6 address",
        )
    } else {
        refuse(
            format!("the image is at {at}, and ip= brings up IPv6 only"),
            "add ip=dhcp or an IPv4 address, or give the image's server by its IPv6 address",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn of(url: &str) -> Destination {
        cmdline::parse(&format!("rootstream.image={url}")).config.net.destination
    }

    #[test]
    fn the_image_s_urls_say_where_it_is() {
        let hosts = vec![ip("10.1.0.1"), ip("10.2.0.1")];
        assert_eq!(of("http://10.1.0.1/i.tar,https://10.2.0.1:8443/i.tar"), Destination::Hosts(hosts));
        assert_eq!(of("http://10.1.0.1/i.tar,http://master/i.tar"), Destination::Named);
        assert_eq!(of("http://[fd00::1]:8080/i.tar"), Destination::Hosts(vec![ip("fd00::1")]));
        assert_eq!(of("dhcp"), Destination::InLease);
        assert_eq!(cmdline::parse("").config.net.destination, Destination::Anywhere);
    }

    #[test]
    fn an_image_of_another_family_is_refused_before_anybody_is_asked() {
        let why = |url: &str, ip: &str| {
            let parsed = cmdline::parse(&format!("rootstream.image={url} {ip}"));
            assert_eq!(parsed.mistakes, Vec::<String>::new());
            check(&parsed.config.net).map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        let (four, six, both) =
            ("http://10.1.0.1/i.tar", "http://[fd00::1]/i.tar", "http://10.1.0.1/i.tar,http://[fd00::1]/i.tar");
        for ip in ["", "ip=dhcp", "ip=10.1.0.5:::24::eth0:none"] {
            assert_eq!(why(six, ip), "the image is at fd00::1, and no ip= brings up IPv6");
            assert_eq!((why(four, ip), why(both, ip), why("http://m/i.tar", ip)), Default::default());
        }
        for ip in ["ip=dhcp6", "ip=eth0:auto6", "ip=either6", "ip=[fd00::5]:::64::eth0:none"] {
            assert_eq!(why(four, ip), "the image is at 10.1.0.1, and ip= brings up IPv6 only");
            assert_eq!((why(six, ip), why(both, ip), why("http://m/i.tar", ip)), Default::default());
        }
        assert_eq!(why(six, "ip=eth0:dhcp ip=eth1:auto6"), "");
    }

    // F15
    #[test]
    fn a_lease_leads_there_by_its_subnet_its_routes_or_its_name_servers() {
        let mut lease = Lease::new(ip("10.1.0.9"), 24, ip("10.1.0.254"));
        let to = |host| Destination::Hosts(vec![host]);
        let (near, far) = (to(ip("10.1.0.1")), to(ip("10.2.0.1")));
        assert!(near.is_reached_by(&lease, false) && !far.is_reached_by(&lease, false));
        assert!(!Destination::Named.is_reached_by(&lease, false) && Destination::Named.is_reached_by(&lease, true));
        assert!(
            Destination::Anywhere.is_reached_by(&lease, false) && !Destination::InLease.is_reached_by(&lease, true)
        );
        lease.routes = vec![(ip("10.2.0.0"), 16, ip("10.1.0.254"))];
        lease.dns = vec![ip("10.1.0.254")];
        lease.root_path = Some("http://10.1.0.1/i.json".to_owned());
        assert!(far.is_reached_by(&lease, false) && Destination::Named.is_reached_by(&lease, false));
        assert!(Destination::InLease.is_reached_by(&lease, false));
        assert!(!to(ip("10.3.0.1")).is_reached_by(&lease, false));
        lease.routes = vec![(ip("0.0.0.0"), 0, ip("10.1.0.254"))];
        assert!(to(ip("10.3.0.1")).is_reached_by(&lease, false));
    }
}

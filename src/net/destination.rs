//! Whether a lease leads to the image: where several ports are served, not every network has a way to it.

use std::net::IpAddr;

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

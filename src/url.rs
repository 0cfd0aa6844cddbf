//! The host that a URL names, as far as it has to be known before anything is asked. No I/O.
//!
//! Contract: [`host`] never panics, whatever the text.

use std::net::{IpAddr, Ipv6Addr};

/// What stands between `://` and the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    /// An address.
    Address(IpAddr),
    /// A name to be resolved.
    Name(&'a str),
}

/// Host and port, as they stand in a URL.
pub(crate) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// The host of a URL.
///
/// # Errors
/// It cannot be one: an IPv6 address without its brackets, broken, or of one link only.
pub(crate) fn host(url: &str) -> Result<Host<'_>, String> {
    let authority = authority(url);
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    if let Some(rest) = place.strip_prefix('[') {
        let (inner, port) = rest.split_once(']').ok_or_else(|| format!("{url} has a bracket that is not closed"))?;
        if !port.is_empty() && !port.starts_with(':') {
            return Err(format!("{url} has \"{port}\" behind its IPv6 address; a port begins with a colon"));
        }
        return version_6(inner).map(|address| Host::Address(IpAddr::V6(address)));
    }
    let name = place.rsplit_once(':').map_or(place, |(name, _)| name);
    if name.contains(':') {
        return Err(format!(
            "{url} has an IPv6 address without brackets: http://[fd00::1]:8080/… is how it is written"
        ));
    }
    if name.is_empty() {
        return Err(format!("{url} names no host"));
    }
    Ok(name.parse().map_or(Host::Name(name), Host::Address))
}

fn version_6(text: &str) -> Result<Ipv6Addr, String> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let address: Ipv6Addr = address.parse().map_err(|_| format!("[{text}] is not an IPv6 address"))?;
    if zone.is_some() || address.is_unicast_link_local() {
        return Err(format!(
            "[{text}] is an address of one link, and means nothing without the name of a port, which stage 1 does not \
             know before it has looked; give the server a global or unique local address (fd00::/8)"
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        let address = |text: &str| Ok(Host::Address(text.parse().unwrap()));
        for (url, expected) in [
            ("http://[fd00::1]:8080/images/a.json", address("fd00::1")),
            ("https://[fd00::1]", address("fd00::1")),
            ("http://[::1]?x", address("::1")),
            ("http://10.0.0.1:80/x", address("10.0.0.1")),
            ("http://10.0.0.1", address("10.0.0.1")),
            ("http://a:b@10.0.0.1/x", address("10.0.0.1")),
            ("http://master:8080/x:y", Ok(Host::Name("master"))),
            ("http://master?a=[x", Ok(Host::Name("master"))),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
        assert_eq!(authority("http://[fd00::1]:8080/x"), "[fd00::1]:8080");
    }

    #[test]
    fn what_is_wrong_with_a_host_is_said() {
        for (url, why) in [
            ("http://fd00::1/x", "without brackets"),
            ("http://fd00::1:8080/x", "without brackets"),
            ("http://[fd00::1/x", "not closed"),
            ("http://[fd00::1]8080/x", "\"8080\" behind its IPv6 address"),
            ("http://[fd00::1::2]/x", "[fd00::1::2] is not an IPv6 address"),
            ("http://[10.0.0.1]/x", "is not an IPv6 address"),
            ("http://[]/x", "is not an IPv6 address"),
            ("http://[fe80::1%25eth0]/x", "[fe80::1%25eth0] is an address of one link"),
            ("http://[fe80::1]/x", "[fe80::1] is an address of one link"),
            ("http:///x", "names no host"),
            ("http://:80/x", "names no host"),
        ] {
            let message = host(url).unwrap_err();
            assert!(message.contains(why), "{url}: {message}");
        }
    }
}

//! ifupdown: a file in /etc/network/interfaces.d, which is all that it reads.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::files::{File, is_open};
use super::stage2::{Port, Way, hex};

use crate::say;

const OWN: &str = "/etc/network/interfaces.d/rootstream";
const MAIN: &str = "etc/network/interfaces";
/// Under /run, so that the image's own dhclient.conf stays as it is.
const CLIENT: &str = "/run/rootstream/dhclient.conf";

/// The files, where nothing in the image configures the port and what is added would be read.
pub(super) fn files(root: &Path, port: &Port<'_>) -> Vec<File> {
    let main = fs::read_to_string(root.join(MAIN)).unwrap_or_default();
    let folder = fs::read_dir(root.join("etc/network/interfaces.d")).into_iter().flatten().flatten();
    let others = folder.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    if others.chain([main.clone()]).any(|text| configures(&text, port.name)) {
        return Vec::new();
    }
    let mut files = Vec::new();
    if is_open(&root.join(MAIN)) {
        let text = "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n";
        files.push(File::new(&format!("/{MAIN}"), text.to_owned()));
    } else if !main.lines().any(|line| line.starts_with("source") && line.contains("interfaces.d")) {
        say::warn!("hand-over: /etc/network/interfaces does not read interfaces.d: nobody renews the address");
        return files;
    }
    let dhclient = ["sbin/dhclient", "usr/sbin/dhclient"].iter().find(|path| root.join(path).exists());
    files.push(File::new(OWN, interface(port, dhclient.is_some())));
    let id = match port.way() {
        Way::Dhcp => port.client_id_text().map(|id| format!("dhcp-client-identifier {id}")),
        Way::Dhcp6 => Some(format!("dhcp6.client-id {}", hex(&port.duid().0))),
        Way::Routers | Way::Static => None,
    };
    if let (Some(_), Some(id)) = (dhclient, id) {
        files.push(File::new(CLIENT, format!("include \"/etc/dhcp/dhclient.conf\";\nsend {id};\n")));
    }
    files
}

/// Whether a file of interfaces(5) has something to say about the port.
fn configures(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("iface") && words.next() == Some(name)
    })
}

fn interface(port: &Port<'_>, dhclient: bool) -> String {
    let name = port.name;
    let mut text =
        format!("# Written by rootstream: the port that the node booted from keeps its address.\nauto {name}\n");
    // Writing into a String cannot fail.
    match (port.way(), port.client_id_text()) {
        // ifupdown lets dhclient send a DUID; this is how it can be another.
        (Way::Dhcp, Some(_)) if dhclient => {
            let _ = writeln!(text, "iface {name} inet manual");
            run_client(&mut text, name, 4);
        }
        (Way::Dhcp, id) => {
            let _ = writeln!(text, "iface {name} inet dhcp");
            if let Some(id) = id {
                let _ = writeln!(text, "    client {id}");
            }
        }
        (Way::Routers, _) => {
            let _ = writeln!(text, "iface {name} inet6 manual");
            listen_to_routers(&mut text, name);
        }
        (Way::Dhcp6, _) if dhclient => {
            let _ = writeln!(text, "iface {name} inet6 manual");
            listen_to_routers(&mut text, name);
            run_client(&mut text, name, 6);
        }
        (Way::Dhcp6, _) => {
            let _ = writeln!(text, "iface {name} inet6 dhcp\n    accept_ra 1");
        }
        (Way::Static, _) => fixed(&mut text, port),
    }
    text
}

/// As ifupdown does it, but with our configuration.
fn run_client(text: &mut String, name: &str, family: u8) {
    let files = format!("-pf /run/dhclient.{name}.pid -lf /var/lib/dhcp/dhclient.{name}.leases");
    let _ = write!(
        text,
        "    up dhclient -{family} -nw -cf {CLIENT} {files} {name}\n    \
         down dhclient -{family} -r -cf {CLIENT} {files} {name}\n"
    );
}

/// The kernel itself makes the address, the same as it has, and without taking it away first.
fn listen_to_routers(text: &mut String, name: &str) {
    for switch in ["accept_ra", "autoconf"] {
        let _ = writeln!(text, "    up echo 1 >/proc/sys/net/ipv6/conf/{name}/{switch}");
    }
}

/// By hand: what ifupdown runs for a static address fails where the address is there already.
fn fixed(text: &mut String, port: &Port<'_>) {
    let (name, lease) = (port.name, port.lease);
    let (inet, family) = if lease.address.is_ipv4() { ("inet", 4) } else { ("inet6", 6) };
    let _ = writeln!(text, "iface {name} {inet} manual");
    if let Some(mtu) = lease.mtu {
        let _ = writeln!(text, "    up ip link set dev {name} mtu {mtu}");
    }
    let _ = writeln!(text, "    up ip -{family} addr replace {}/{} dev {name}", lease.address, lease.prefix);
    for (to, width, gateway) in &lease.routes {
        let through = if gateway.is_unspecified() { String::new() } else { format!(" via {gateway}") };
        let _ = writeln!(text, "    up ip -{family} route replace {to}/{width}{through} dev {name}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage2::Origin;
    use super::super::tests::{lease, lease_6, port};
    use super::*;
    use crate::net::ClientId;

    fn written(root: &Path, port: &Port<'_>) -> Vec<(String, String)> {
        files(root, port).into_iter().map(|file| (file.path, file.content)).collect()
    }

    #[test]
    fn a_port_that_nothing_configures_is_added() {
        let root = tempfile::tempdir().unwrap();
        let lease = lease();
        let port = port(&lease, &ClientId::Mac);
        fs::create_dir_all(root.path().join("etc/network/interfaces.d")).unwrap();
        let [main, own] = written(root.path(), &port).try_into().unwrap();
        assert!(main.1.starts_with("source /etc/network/interfaces.d/*\n"), "{main:?}");
        assert!(own.1.ends_with("auto eth0\niface eth0 inet dhcp\n    client 01:52:54:00:ac:10:01\n"), "{own:?}");

        fs::write(root.path().join(MAIN), "source /etc/network/interfaces.d/*\nauto lo\n").unwrap();
        fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        fs::write(root.path().join("usr/sbin/dhclient"), "").unwrap();
        let [own, client] = written(root.path(), &port).try_into().unwrap();
        assert_eq!(own.0, OWN);
        assert!(
            own.1.contains("iface eth0 inet manual\n    up dhclient -4 -nw -cf /run/rootstream/dhclient.conf "),
            "{own:?}"
        );
        assert!(client.1.ends_with("send dhcp-client-identifier 01:52:54:00:ac:10:01;\n"), "{client:?}");

        let fixed = Port { origin: Origin::Static, ..port };
        let [own] = written(root.path(), &fixed).try_into().unwrap();
        let expected = "iface eth0 inet manual\n    up ip -4 addr replace 172.16.0.1/24 dev eth0\n    \
                        up ip -4 route replace 0.0.0.0/0 via 172.16.0.254 dev eth0\n";
        assert!(own.1.ends_with(expected), "{own:?}");

        let lease = lease_6("fd00::42");
        let port = super::super::tests::port(&lease, &ClientId::Mac);
        let [own, client] = written(root.path(), &port).try_into().unwrap();
        let expected = "iface eth0 inet6 manual\n    up echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra\n    \
                        up echo 1 >/proc/sys/net/ipv6/conf/eth0/autoconf\n    \
                        up dhclient -6 -nw -cf /run/rootstream/dhclient.conf ";
        assert!(own.1.contains(expected), "{own:?}");
        assert!(client.1.ends_with("send dhcp6.client-id 00:03:00:01:52:54:00:ac:10:01;\n"), "{client:?}");
        let [own] = written(root.path(), &Port { origin: Origin::Static, ..port }).try_into().unwrap();
        let expected = "iface eth0 inet6 manual\n    up ip -6 addr replace fd00::42/64 dev eth0\n    \
                        up ip -6 route replace ::/0 via fe80::1 dev eth0\n    up ip -6 route replace fd05::/64 dev eth0\n";
        assert!(own.1.ends_with(expected), "{own:?}");
        let lease = lease_6("fd00::5054:ff:feac:1001");
        let [own] = written(root.path(), &super::super::tests::port(&lease, &ClientId::Mac)).try_into().unwrap();
        assert!(own.1.ends_with("accept_ra\n    up echo 1 >/proc/sys/net/ipv6/conf/eth0/autoconf\n"), "{own:?}");
    }

    #[test]
    fn what_the_image_configures_stays() {
        let root = tempfile::tempdir().unwrap();
        let lease = lease();
        let port = port(&lease, &ClientId::Mac);
        fs::create_dir_all(root.path().join("etc/network/interfaces.d")).unwrap();
        fs::write(root.path().join(MAIN), "auto lo\niface lo inet loopback\n").unwrap();
        assert!(files(root.path(), &port).is_empty(), "it would not be read");
        fs::write(root.path().join(MAIN), "source-directory interfaces.d\n").unwrap();
        assert_eq!(files(root.path(), &port).len(), 1);
        fs::write(root.path().join("etc/network/interfaces.d/site"), "auto eth0\niface eth0 inet dhcp\n").unwrap();
        assert!(files(root.path(), &port).is_empty());
    }
}

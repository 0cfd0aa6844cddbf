//! ifupdown: a file in /etc/network/interfaces.d, which is all that it reads.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::files::{File, is_open};
use super::stage2::{Origin, Port};

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
    if let (Origin::Lease, Some(_), Some(id)) = (port.origin, dhclient, port.client_id_text()) {
        let text = format!("include \"/etc/dhcp/dhclient.conf\";\nsend dhcp-client-identifier {id};\n");
        files.push(File::new(CLIENT, text));
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
    match (port.origin, port.client_id_text()) {
        // ifupdown lets dhclient send a DUID; this is how it can be another.
        (Origin::Lease, Some(_)) if dhclient => {
            let files = format!("-pf /run/dhclient.{name}.pid -lf /var/lib/dhcp/dhclient.{name}.leases");
            let _ = write!(
                text,
                "iface {name} inet manual\n    up dhclient -4 -nw -cf {CLIENT} {files} {name}\n\
                 \x20   down dhclient -4 -r -cf {CLIENT} {files} {name}\n"
            );
        }
        (Origin::Lease, id) => {
            let _ = writeln!(text, "iface {name} inet dhcp");
            if let Some(id) = id {
                let _ = writeln!(text, "    client {id}");
            }
        }
        (Origin::Static, _) => {
            let lease = port.lease;
            let _ = writeln!(text, "iface {name} inet static\n    address {}/{}", lease.address, lease.prefix);
            if let Some(mtu) = lease.mtu {
                let _ = writeln!(text, "    mtu {mtu}");
            }
            for (to, width, gateway) in &lease.routes {
                let through = if gateway.is_unspecified() { String::new() } else { format!(" via {gateway}") };
                let _ = writeln!(text, "    up ip route replace {to}/{width}{through} dev {name}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lease, port};
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
        let expected = "iface eth0 inet static\n    address 172.16.0.1/24\n    \
                        up ip route replace 0.0.0.0/0 via 172.16.0.254 dev eth0\n";
        assert!(own.1.ends_with(expected), "{own:?}");
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

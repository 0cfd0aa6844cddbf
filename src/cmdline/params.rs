//! The table of kernel parameters.

use std::path::PathBuf;

use super::Config;
use super::values::{
    address, break_step, client_id, duration, flag, ip, list, log_level, mac_of_bootif, modules, onfail, overlays,
    sha256, urls,
};
use super::{date, devices, route};
use crate::modules::Request;
use crate::mounts::TmpfsOptions;

/// A kernel parameter: what it is called, what it means, and how its value gets into [`Config`].
pub struct Param {
    /// Name as written before `=`.
    pub name: &'static str,
    /// The heading it stands under in the documentation.
    pub group: &'static str,
    /// How the value is written.
    pub value: &'static str,
    /// What counts when it is not given.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Takes the value; the error says why not.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

/// Names that the design has and this version has not: refused, because a boot without them would
/// not be what was asked for.
pub(super) const PLANNED: &[&str] = &["rootstream.watchdog", "rootstream.report"];

/// Every parameter that this version understands.
pub const PARAMS: &[Param] = &[
    Param {
        name: "rootstream.image",
        group: "Image",
        value: "URL[,URL…] | dhcp",
        default: "none: an error that says so",
        meaning: "the image: what `rootstream image publish` made, named by its manifest (`…/NAME/BUILD.json`) or by the pointer to the newest one (`…/NAME/latest.json`); or a plain `.tar`, `.tar.gz`, `.tar.zst` or `.tar.xz`, or a `.squashfs` or `.erofs` file system, over `http://` or `https://`, whose servers are known by the certificates in the initramfs alone (`tls/` of the site). An IPv6 address stands in brackets (`http://[fd00::1]:8080/…`), and needs an `ip=` that brings up IPv6. Several URLs are mirrors of the same bytes: a node begins at any of them, goes on at another where one fails, and leaves a slow one. `dhcp`: the URL that the lease has as root path (option 17), or else as boot file (option 67); only where the initramfs holds a trust key, because anybody can answer DHCP",
        set: |config, value| {
            config.image.from_lease = value == "dhcp";
            if !config.image.from_lease {
                config.image.urls = urls(value)?;
            }
            Ok(())
        },
    },
    Param {
        name: "rootstream.overlay",
        group: "Image",
        value: "[?]URL[,[?]URL…]",
        default: "none",
        meaning: "archives that are unpacked over the image, in this order; given several times, they add up. `${mac}` (`52-54-00-ac-10-01`; over InfiniBand six bytes of the GUID, as in `BOOTIF=`), `${ip}` and `${hostname}` (of the lease), `${uuid}` and `${serial}` (of the firmware), `${arch}` (Debian's name, `amd64`) and `${build}` (of a published image) stand for what this node has, percent-encoded. A `?` before the URL: a node may be without it (404, or a name that stands for nothing here)",
        set: |config, value| overlays(value).map(|overlays| config.image.overlays.extend(overlays)),
    },
    Param {
        name: "rootstream.sha256",
        group: "Image",
        value: "64 hex digits",
        default: "none: complete and well-formed is enough, where no signature is asked for",
        meaning: "the digest of the file that `rootstream.image=` names, as served: of a plain image, or of a published one's manifest, which has the digests of all the rest; anything else is refused",
        set: |config, value| sha256(value).map(|digest| config.image.sha256 = Some(digest)),
    },
    Param {
        name: "rootstream.unsigned",
        group: "Image",
        value: "none | yes | no",
        default: "no",
        meaning: "take images and overlays without a signature though the initramfs holds a trust key; said aloud in the log and the record",
        set: |config, value| flag(value).map(|unsigned| config.image.unsigned = unsigned),
    },
    Param {
        name: "rootstream.not-before",
        group: "Image",
        value: "2026-11-22 | 2026-11-22T18:00:00Z | 2026-11-22T19:00:00+01:00",
        default: "none",
        meaning: "refuse an image that was published before this date or time (RFC 3339; a date begins at midnight UTC), and one that does not say when",
        set: |config, value| date::utc(value).map(|utc| config.image.not_before = Some(utc)),
    },
    Param {
        name: "rootstream.stall",
        group: "Image",
        value: "duration",
        default: "15s",
        meaning: "a transfer that brings no byte for this long, or less than 1 KiB/s over this time, is broken off and \
                  resumed; resolving, connecting and the head of an answer may each take as long",
        set: |config, value| duration(value).map(|d| config.image.stall = d),
    },
    Param {
        name: "rootstream.retry",
        group: "Image",
        value: "duration",
        default: "10m",
        meaning: "how long fetching is retried in all before the boot fails; ten times as long where a server says when to \
                  come back (Retry-After)",
        set: |config, value| duration(value).map(|d| config.image.retry = d),
    },
    Param {
        name: "rootstream.tmpfs",
        group: "Image",
        value: "OPTION=VALUE[,…]",
        default: "size: half the memory, or a quarter more than a published image needs where that is more, at most what is available less 128 MiB; nr_inodes: an inode for every second page of memory, or twice a published image's; mpol=interleave on machines with several memory nodes",
        meaning: "mount options of the root's tmpfs (with a squashfs or erofs image: of the tmpfs that takes what the node writes): `size`, `nr_inodes`, `mpol`, `huge`, `mode` (tmpfs(5))",
        set: |config, value| TmpfsOptions::parse(value).map(|options| config.tmpfs = options),
    },
    Param {
        name: "ip",
        group: "Network",
        value: "METHOD | DEVICE:METHOD[:[MTU][:MAC]] | [ADDRESS]:[PEER]:[GATEWAY]:[NETMASK]:[HOSTNAME]:[DEVICE]:METHOD[:[MTU][:MAC] | :[DNS][:DNS]]",
        default: "dhcp on every port, first lease wins",
        meaning: "as in dracut.cmdline(7). METHOD: `none` or `off`, the address is all there is and no server is asked; `dhcp`, `on` or `any` for IPv4, and with an address DHCP is asked for the rest only (INFORM). For IPv6: `auto6`, an address of the prefix that a router advertises; `dhcp6`, one of a DHCPv6 server; `either6`, what the routers say; `link6`, no address but the link's own. IPv6 addresses stand in brackets: `ip=[fd00::9]::[fd00::1]:64::eth0:none`; the gateway may be link-local. NETMASK: a prefix length or a dotted mask. DEVICE: the kernel's name (`eth0`; names that udev gives, such as `eno1`, do not exist in stage 1), the MAC with dashes, or the driver; without one, any port. PEER: the other end of a point-to-point link, as `ADDRESS/PREFIX` or beside a mask of 32 bits; else the boot server, as PXELINUX writes it, which changes nothing. Given several times, each line is for its port, and of those ports the first that is ready wins",
        set: |config, value| ip(value).map(|ip| config.net.ip.push(ip)),
    },
    Param {
        name: "BOOTIF",
        group: "Network",
        value: "01-MAC | 20-GUID",
        default: "none",
        meaning: "the port that the firmware booted from, as PXELINUX writes it: hardware type (InfiniBand has 20) and address; preferred when several ports get a lease. Most firmware calls an InfiniBand port by a MAC, its GUID without the two bytes in the middle: that is taken too, with either type",
        set: |config, value| mac_of_bootif(value).map(|mac| config.net.bootif = Some(mac)),
    },
    Param {
        name: "ifname",
        group: "Network",
        value: "NAME:MAC",
        default: "the kernel's names",
        meaning: "what the port with this MAC (InfiniBand: GUID) is called, from before anything else names it: `ip=`, `vlan=`, `bond=`, `rd.route=` and `rootstream.net=` use the new name. Stage 2 has it too, for udev's `NamePolicy=` begins with `keep` and leaves a port alone that was renamed before. Names that the kernel gives itself (`eth0`, `ib0`) are better avoided: one that another port has is refused. May be given several times",
        set: |config, value| {
            let rename = devices::rename(value, &config.net.names)?;
            config.net.names.push(rename);
            Ok(())
        },
    },
    Param {
        name: "nameserver",
        group: "Network",
        value: "IP",
        default: "the lease's",
        meaning: "a name server to ask before the lease's, of either family; in stage 2 it stands in /etc/resolv.conf where the image leaves that open, and in the network's configuration where the address is that of `ip=`; may be given several times",
        set: |config, value| address(value).map(|server| config.net.nameservers.push(server)),
    },
    Param {
        name: "bond",
        group: "Network",
        value: "NAME[:PORT,PORT…[:OPTION=VALUE,…[:MTU]]]",
        default: "none; `bond` alone is `bond0:eth0,eth1`",
        meaning: "a bond of these ports, each the kernel's name or the MAC with dashes, made as they appear; they take no part themselves any more. Options are those of the bonding module that belong to one bond: `mode` (`802.3ad`, `active-backup`, `balance-rr`, …), `miimon` (100 where neither it nor `arp_interval` is given), `lacp_rate`, `xmit_hash_policy`, `primary`, …; several addresses of `arp_ip_target` are separated by semicolons. Loads the module bonding",
        set: |config, value| {
            let bond = devices::bond(value)?;
            config.net.bonds.push(bond);
            // Else the module makes a bond0 of its own.
            config.modules.push(Request { name: "bonding".to_owned(), options: "max_bonds=0".to_owned() });
            Ok(())
        },
    },
    Param {
        name: "vlan",
        group: "Network",
        value: "NAME:PORT",
        default: "none",
        meaning: "a VLAN on a port or on a bond of `bond=`, which takes no part itself any more. The name has the number: `vlan5`, `vlan0005`, `eth0.5`, `eth0.0005`. PORT: the kernel's name or the MAC with dashes. May be given several times; all are tried. Loads the module 8021q",
        set: |config, value| {
            let vlan = devices::vlan(value)?;
            config.net.vlans.push(vlan);
            config.modules.push(Request { name: "8021q".to_owned(), options: String::new() });
            Ok(())
        },
    },
    Param {
        name: "rd.route",
        group: "Network",
        value: "NET/MASK:[GATEWAY][:DEVICE]",
        default: "the lease's",
        meaning: "a route beside the lease's, or in place of its route to the same network, IPv6 in brackets: `[fd01::]/48:[fd00::1]`; without a gateway the network is on the link; for the port DEVICE, if that is the one that the boot takes and it has addresses of that family. May be given several times",
        set: |config, value| route::parse(value).map(|route| config.net.routes.push(route)),
    },
    Param {
        name: "rootstream.net",
        group: "Network",
        value: "PORT[,PORT…]",
        default: "all",
        meaning: "ports to try, beside those that `ip=` names: kernel names, MACs (InfiniBand: GUIDs) or drivers",
        set: |config, value| list(value).map(|ports| config.net.ports.extend(ports)),
    },
    Param {
        name: "rootstream.clientid",
        group: "Network",
        value: "mac | none | duid | hex digits",
        default: "mac: 01 and the port's MAC; over InfiniBand ff, 00000000, 0002 000002c9 00 and the port's GUID",
        meaning: "what DHCP option 61 carries, so that ROM, stage 1 and stage 2 are one client. `duid`: ff, an IAID and a DUID-LL (RFC 4361) made of the MAC, or of InfiniBand's GUID. InfiniBand must have one (RFC 4390): there `none` is `mac`, which is what the ROMs of NVIDIA's cards send",
        set: |config, value| client_id(value).map(|id| config.net.client_id = id),
    },
    Param {
        name: "rootstream.carrier",
        group: "Network",
        value: "duration",
        default: "60s",
        meaning: "how long to wait for a port to have carrier",
        set: |config, value| duration(value).map(|d| config.net.carrier = d),
    },
    Param {
        name: "rootstream.dhcp",
        group: "Network",
        value: "duration",
        default: "120s",
        meaning: "how long to wait for a lease, from the first carrier on",
        set: |config, value| duration(value).map(|d| config.net.dhcp = d),
    },
    Param {
        name: "rootstream.modules",
        group: "Modules",
        value: "NAME[:OPTION=VALUE…][,…]",
        default: "none",
        meaning: "modules to load beside those of modules.txt; options count for a module whoever loads it, `auto` or the kernel too",
        set: |config, value| modules(value).map(|requests| config.modules.extend(requests)),
    },
    Param {
        name: "rootstream.modules.deny",
        group: "Modules",
        value: "NAME[,NAME…]",
        default: "none",
        meaning: "modules never to load: neither by name, nor as a dependency, nor for what the machine has or the kernel asks for",
        set: |config, value| list(value).map(|names| config.modules_deny.extend(names)),
    },
    Param {
        name: "rootstream.onfail",
        group: "Failure and diagnosis",
        value: "retry | reboot | poweroff | halt | shell",
        default: "reboot after 30 s to 60 s",
        meaning: "what happens after a boot that failed has said why. `shell` needs a shell in the initramfs (`rootstream bootstrap --shell`)",
        set: |config, value| onfail(value).map(|policy| config.onfail = policy),
    },
    Param {
        name: "rootstream.break",
        group: "Failure and diagnosis",
        value: "modules | net | image | switch",
        default: "none",
        meaning: "stop before this step, with a shell where the initramfs has one",
        set: |config, value| break_step(value).map(|step| config.break_before = Some(step)),
    },
    Param {
        name: "rootstream.log",
        group: "Failure and diagnosis",
        value: "error | warn | info | debug",
        default: "info",
        meaning: "what goes to the kernel log",
        set: |config, value| log_level(value).map(|level| config.log = level),
    },
    Param {
        name: "init",
        group: "Hand-over",
        value: "PATH",
        default: "/sbin/init",
        meaning: "the image's init; all words after ` -- ` are its arguments",
        set: |config, value| {
            if !value.starts_with('/') {
                return Err("not an absolute path".to_owned());
            }
            config.init = PathBuf::from(value);
            Ok(())
        },
    },
];

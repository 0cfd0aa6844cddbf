//! Which ports to try, and which port's lease to keep. No I/O.

use std::time::Duration;

use super::link::{IPOIB, Link};

/// How long a lease on another port waits for the port that the firmware booted from: about what a
/// link takes to come up.
const MOMENT: Duration = Duration::from_secs(3);

/// Whether to try a link. `wanted` holds names, MACs and drivers; empty means every port,
/// which leaves out bridges, VLANs and the like: they have a port below them, or none.
pub(super) fn is_wanted(link: &Link, driver: Option<&str>, wanted: &[String]) -> bool {
    if link.mac.is_none() || link.enslaved || link.loopback {
        return false;
    }
    if wanted.is_empty() {
        return is_port(link);
    }
    wanted.iter().any(|word| is_called(link, driver, word))
}

/// Whether a link is a port, not something made on top of ports.
pub(super) fn is_port(link: &Link) -> bool {
    link.kind.as_deref().is_none_or(|kind| kind == "veth" || kind == IPOIB)
}

/// Whether a word of the administrator's means this link: its name, its MAC or its driver.
pub(super) fn is_called(link: &Link, driver: Option<&str>, word: &str) -> bool {
    word == link.name || link.mac.is_some_and(|mac| mac.is_called(word)) || Some(word) == driver
}

/// A port in the race for a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runner {
    /// The firmware booted from it.
    pub(super) boot: bool,
    /// When it got its lease.
    pub(super) bound: Option<Duration>,
    /// The lease leads to the image.
    pub(super) reaches: bool,
}

/// The port whose lease is kept: the first that leads to the image, but the firmware's port is given a moment to be it;
/// and after that moment any, rather than none.
pub(super) fn winner(runners: &[Runner], boot_port_known: bool, now: Duration) -> Option<usize> {
    let bound =
        || runners.iter().enumerate().filter_map(|(number, runner)| runner.bound.map(|at| (number, runner, at)));
    let first = bound().map(|(_, _, at)| at).min()?;
    let over = now >= first + MOMENT;
    let good = |runner: &Runner| runner.reaches && (runner.boot || !boot_port_known);
    bound()
        .filter(|(_, runner, _)| over || good(runner))
        .min_by_key(|(_, runner, at)| (!runner.reaches, !runner.boot, *at))
        .map(|(number, ..)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::Hardware;

    fn link(name: &str, kind: Option<&str>) -> Link {
        Link { kind: kind.map(str::to_owned), ..Link::ethernet(2, name, [0x52, 0x54, 0, 0xac, 0x10, 1]) }
    }

    #[test]
    fn without_a_list_ethernet_ports_are_tried_and_virtual_links_are_not() {
        assert!(is_wanted(&link("eth0", None), Some("virtio_net"), &[]));
        assert!(is_wanted(&link("eth0", Some("veth")), Some("veth"), &[]));
        for kind in ["bridge", "bond", "vlan", "tun", "dummy"] {
            assert!(!is_wanted(&link("x0", Some(kind)), Some(kind), &[]), "{kind}");
        }
        assert!(!is_wanted(&Link { enslaved: true, ..link("eth0", None) }, None, &[]));
        assert!(!is_wanted(&Link { loopback: true, ..link("lo", None) }, None, &[]));
        assert!(!is_wanted(&Link { mac: None, ..link("tun0", None) }, None, &[]));
    }

    #[test]
    fn infiniband_takes_part() {
        let mut address = [0; 20];
        address[12..].copy_from_slice(&[0xe4, 0x1d, 0x2d, 3, 0, 0x12, 0x34, 0x56]);
        for kind in [None, Some("ipoib")] {
            let ib0 = Link { mac: Some(Hardware::InfiniBand(address)), ..link("ib0", kind) };
            assert!(is_wanted(&ib0, Some("mlx5_core"), &[]));
            assert!(is_wanted(&ib0, Some("mlx5_core"), &["e4-1d-2d-03-00-12-34-56".to_owned()]));
        }
    }

    #[test]
    fn a_list_names_ports_macs_and_drivers() {
        let eth0 = link("eth0", None);
        for word in ["eth0", "52:54:00:AC:10:01", "52-54-00-ac-10-01", "virtio_net"] {
            assert!(is_wanted(&eth0, Some("virtio_net"), &["other".to_owned(), word.to_owned()]), "{word}");
        }
        for word in ["eth", "52:54:00:ac:10:02", "virtio", "52:54:00:ac:10", "+2:54:00:ac:10:01"] {
            assert!(!is_wanted(&eth0, Some("virtio_net"), &[word.to_owned()]), "{word}");
        }
    }

    // F15
    #[test]
    fn the_first_lease_wins_but_the_boot_port_is_given_a_moment() {
        let runner = |boot, bound: Option<u64>| Runner { boot, bound: bound.map(Duration::from_secs), reaches: true };
        let at = Duration::from_secs;
        let plain = [runner(false, None), runner(false, Some(5)), runner(false, Some(4))];
        assert_eq!(winner(&plain, false, at(5)), Some(2));
        assert_eq!(winner(&[runner(false, None)], false, at(99)), None);

        let waiting = [runner(true, None), runner(false, Some(4))];
        assert_eq!(winner(&waiting, true, at(5)), None);
        assert_eq!(winner(&waiting, true, at(7)), Some(1));
        let come = [runner(true, Some(6)), runner(false, Some(4))];
        assert_eq!(winner(&come, true, at(6)), Some(0));
    }

    // F15
    #[test]
    fn a_lease_without_a_way_to_the_image_waits_for_a_better_one() {
        let at = Duration::from_secs;
        let runner = |boot, bound: u64, reaches| Runner { boot, bound: Some(at(bound)), reaches };
        let none = Runner { boot: false, bound: None, reaches: false };
        assert_eq!(winner(&[runner(false, 1, false), none], false, at(3)), None);
        assert_eq!(winner(&[runner(false, 1, false), none], false, at(4)), Some(0), "better than none");
        assert_eq!(winner(&[runner(false, 1, false), runner(false, 2, true)], false, at(2)), Some(1));
        // The firmware's port is no use without a way.
        let both = [runner(true, 1, false), runner(false, 2, true)];
        assert_eq!(winner(&both, true, at(2)), None);
        assert_eq!(winner(&both, true, at(4)), Some(1));
        assert_eq!(winner(&[runner(true, 2, true), runner(false, 1, true)], true, at(2)), Some(0));
    }
}

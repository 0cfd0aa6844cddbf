//! Listening for what the switch says about a port, while the node waits for other things.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::link::Link;
use super::packet::Socket;
use crate::lldp::{self, Neighbour};
use crate::say;

/// How many frames are taken at a time.
const FRAMES_A_TURN: usize = 8;
/// An Ethernet frame, and no jumbo.
const LARGEST_FRAME: usize = 1600;

/// A port that is listened on.
#[derive(Debug)]
pub(super) struct Ear {
    port: String,
    socket: Option<Socket>,
    heard: Option<Neighbour>,
}

impl Ear {
    /// Without a socket nothing is heard: the boot does not depend on it.
    pub(super) fn open(link: &Link) -> Self {
        let socket = Socket::lldp(link)
            .inspect_err(|error| say::debug!("net: {}: LLDP is not listened for: {error}", link.name));
        Self { port: link.name.clone(), socket: socket.ok(), heard: None }
    }

    /// What to poll.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// What the switch said last.
    pub(super) fn heard(&self) -> Option<&Neighbour> {
        self.heard.as_ref()
    }

    /// Takes the frames that wait.
    pub(super) fn listen(&mut self) {
        let mut buffer = [0; LARGEST_FRAME];
        for _ in 0..FRAMES_A_TURN {
            let received = self.socket.as_ref().map_or(Ok(None), |socket| socket.receive(&mut buffer));
            let Ok(Some(frame)) = received else {
                // A port that went away is polled no more.
                if received.is_err_and(|error| error.kind() != io::ErrorKind::NetworkDown) {
                    self.socket = None;
                }
                return;
            };
            let Some(neighbour) = lldp::parse(buffer.get(..frame.length).unwrap_or_default()) else { continue };
            // With a time of 0 it says good-bye, which leaves the cable where it is.
            if neighbour.ttl > 0 && self.heard.as_ref() != Some(&neighbour) {
                say::info!("net: {} is in {neighbour} (LLDP)", self.port);
                self.heard = Some(neighbour);
            }
        }
    }

    /// `eth0 is in port Gi1/0/7 of switch sw3 (LLDP)`.
    pub(super) fn story(&self) -> Option<String> {
        self.heard.as_ref().map(|neighbour| format!("{} is in {neighbour} (LLDP)", self.port))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use rootstream_lab::namespace::{enter_private_network, ip};

    use super::super::ClientId;
    use super::super::firmware::Firmware;
    use super::super::link::Links;
    use super::super::port::Port;
    use super::super::statics::Said;
    use super::*;

    #[test]
    fn a_port_that_joins_a_bond_late_is_listened_on_too() {
        enter_private_network().unwrap();
        for words in ["link add first type veth peer name one", "link add second type veth peer name two"] {
            ip(words).unwrap();
        }
        for name in ["first", "second", "one", "two"] {
            ip(&format!("link set {name} up")).unwrap();
        }
        let links = Links::open().unwrap();
        let link = |name: &str| links.list().unwrap().into_iter().find(|link| link.name == name).unwrap();
        let mac = link("one").mac.unwrap();
        let config = crate::cmdline::parse("rootstream.image=http://m/i.tar").check().unwrap();
        let said = Said::about(&config.net, &link("one"), None, true).unwrap();
        // As a bond that has one port.
        let mut port =
            Port::open(&links, link("one"), None, mac, said, vec![link("one")], (&ClientId::Mac, Firmware::default()));
        port.join(vec![link("one"), link("two")]);
        port.carrier(&links, true, Duration::ZERO);
        let switch = Socket::lldp(&link("second")).unwrap();
        let started = Instant::now();
        while port.switch().is_none() {
            assert!(started.elapsed() < Duration::from_secs(10), "never heard");
            switch.send(&lldp::seeds()[0]).unwrap();
            thread::sleep(Duration::from_millis(10));
            port.receive(&links, started.elapsed(), &[]);
        }
        assert_eq!(port.switch().unwrap().port, "Gi1/0/7");
    }
}

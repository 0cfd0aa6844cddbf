//! The kernel's messages about devices that appear (NETLINK_KOBJECT_UEVENT).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::Result;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket};

/// The group that the kernel itself sends to; udev's is another.
const KERNEL: u32 = 1;
/// Larger than any: the kernel's buffer for one has 2 KiB.
const LARGEST: usize = 8192;

/// A socket that hears of devices.
#[derive(Debug)]
pub(super) struct Uevents(OwnedFd);

impl Uevents {
    pub(super) fn open() -> Result<Self> {
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(socket))
    }

    /// Waits for a device that appears, and returns what it says of itself.
    ///
    /// # Errors
    /// Messages were lost, for one: there were more than the socket holds.
    pub(super) fn next(&self) -> Result<String> {
        let mut buffer = [0; LARGEST];
        loop {
            let (length, from) = recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer)?;
            // Other processes may send here too.
            if from.is_some_and(|from| from.pid() != 0) {
                continue;
            }
            if let Some(modalias) = appeared(buffer.get(..length).unwrap_or_default()) {
                return Ok(modalias);
            }
        }
    }
}

/// The modalias of a device that the message says was added.
fn appeared(message: &[u8]) -> Option<String> {
    let mut fields = message.split(|byte| *byte == 0);
    if !fields.next()?.starts_with(b"add@") {
        return None;
    }
    let modalias = fields.find_map(|field| field.strip_prefix(b"MODALIAS="))?;
    Some(String::from_utf8_lossy(modalias).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_appear_are_told_from_all_else() {
        let event = |head: &str| format!("{head}@/devices/x\0ACTION={head}\0MODALIAS=usb:v0BDAp8153\0SEQNUM=7\0");
        assert_eq!(appeared(event("add").as_bytes()).as_deref(), Some("usb:v0BDAp8153"));
        assert_eq!(appeared(event("remove").as_bytes()), None);
        assert_eq!(appeared(b"add@/devices/x\0ACTION=add\0SEQNUM=7\0"), None);
        assert_eq!(appeared(b"libudev\0\xfe\xed"), None);
        assert_eq!(appeared(b""), None);
    }
}

//! Raw sockets on one port: one sees DHCP replies only, before the port has an address and whether they are unicast or
//! broadcast; the other sees ARP.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc::{self, sock_filter};
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, socket};

use crate::{lldp, sys};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
/// `TP_STATUS_CSUMNOTREADY` of linux/if_packet.h: the sender left the checksum to its NIC.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// `TP_STATUS_VLAN_VALID`: the frame came with a VLAN tag.
const VLAN_VALID: u32 = 1 << 4;
/// The bits of a VLAN tag that are the VLAN's number; 0 is no VLAN but a priority.
const VLAN_ID: u16 = 0x0fff;

/// IPv4, UDP, no later fragment, destination port 68.
const DHCP_REPLIES: [sock_filter; 11] = {
    const LDH_ABS: u16 = 0x28;
    const LDB_ABS: u16 = 0x30;
    const LDX_IP_HEADER_LENGTH: u16 = 0xb1;
    const LDH_INDEXED: u16 = 0x48;
    const JEQ: u16 = 0x15;
    const JSET: u16 = 0x45;
    const RET: u16 = 0x06;
    const fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
        sock_filter { code, jt, jf, k }
    }
    [
        op(LDH_ABS, 0, 0, 12),
        op(JEQ, 0, 8, ETH_P_IP as u32),
        op(LDB_ABS, 0, 0, 23),
        op(JEQ, 0, 6, 17),
        op(LDH_ABS, 0, 0, 20),
        op(JSET, 4, 0, 0x1fff),
        op(LDX_IP_HEADER_LENGTH, 0, 0, 14),
        op(LDH_INDEXED, 0, 0, 16),
        op(JEQ, 0, 1, 68),
        op(RET, 0, 0, 0x4_0000),
        op(RET, 0, 0, 0),
    ]
};

/// What the kernel knows of a frame besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// How many bytes of the buffer it fills.
    pub(super) length: usize,
    /// The UDP checksum is in the frame, not left to the sender's NIC.
    pub(super) checksum_done: bool,
    /// It belongs to a VLAN, not to the port itself.
    pub(super) vlan: bool,
}

/// A port's socket.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket for DHCP on the port with this kernel index.
    pub(super) fn dhcp(port_index: u32) -> io::Result<Self> {
        let fd = unbound()?;
        sys::attach_filter(&fd, &DHCP_REPLIES)?;
        Self::bind(fd, port_index, ETH_P_IP)
    }

    /// Opens a socket for ARP on the port with this kernel index.
    pub(super) fn arp(port_index: u32) -> io::Result<Self> {
        Self::bind(unbound()?, port_index, ETH_P_ARP)
    }

    /// Opens a socket for what says who has an IPv6 address on the port with this kernel index.
    pub(super) fn neighbours(port_index: u32) -> io::Result<Self> {
        Self::bind(unbound()?, port_index, ETH_P_IPV6)
    }

    /// Opens a socket for LLDP on the port with this kernel index.
    pub(super) fn lldp(port_index: u32) -> io::Result<Self> {
        let socket = Self::bind(unbound()?, port_index, lldp::ETHERTYPE)?;
        sys::join_multicast(&socket.0, port_index, lldp::NEAREST_BRIDGE)?;
        Ok(socket)
    }

    fn bind(fd: OwnedFd, port_index: u32, protocol: u16) -> io::Result<Self> {
        sys::enable_packet_option(&fd, libc::PACKET_AUXDATA)?;
        // Straight to the driver: queues open a little later than carrier shows, and lose what comes
        // in between.
        sys::enable_packet_option(&fd, libc::PACKET_QDISC_BYPASS)?;
        sys::bind_packet(&fd, port_index, protocol)?;
        Ok(Self(fd))
    }

    /// Sends a whole Ethernet frame.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes the next frame that waits, if any.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Frame>> {
        use std::os::fd::AsRawFd;
        let mut control = nix::cmsg_space!([u8; 20]);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let message = match received {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
            received => received?,
        };
        let (mut status, mut tag) = (0, 0);
        for part in message.cmsgs()? {
            if let ControlMessageOwned::Unknown(part) = part {
                (status, tag) = auxdata(&part.data_bytes).unwrap_or((status, tag));
            }
        }
        Ok(Some(Frame {
            length: message.bytes,
            checksum_done: status & CHECKSUM_NOT_READY == 0,
            vlan: status & VLAN_VALID != 0 && tag & VLAN_ID != 0,
        }))
    }
}

/// A packet socket of protocol 0, which receives nothing: a filter is in place before the first frame can arrive.
fn unbound() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Packet, SockType::Raw, flags, None)?)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `tp_status` and `tp_vlan_tci` of a `struct tpacket_auxdata`: a u32 at 0 and a u16 at 16.
fn auxdata(bytes: &[u8]) -> Option<(u32, u16)> {
    let status = bytes.first_chunk::<4>()?;
    let tag = bytes.get(16..18)?.first_chunk::<2>()?;
    Some((u32::from_ne_bytes(*status), u16::from_ne_bytes(*tag)))
}

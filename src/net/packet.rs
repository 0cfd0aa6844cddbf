//! Raw sockets on one port: one sees DHCP replies only, before the port has an address and whether they are unicast or
//! broadcast; the other sees ARP.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc::{self, sock_filter};
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, socket};

use super::link::Link;
use crate::mac::Hardware;
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

/// The bytes before the packet in an Ethernet frame.
const ETHERNET: u32 = 14;
/// IPv4, UDP, no later fragment, destination port 68; in frames, and in packets without a header of the link.
const DHCP_REPLIES: [sock_filter; 11] = dhcp_replies(ETHERNET);
const DHCP_PACKETS: [sock_filter; 11] = dhcp_replies(0);

const fn dhcp_replies(packet: u32) -> [sock_filter; 11] {
    /// What the kernel took for the protocol, wherever that stood (linux/filter.h).
    const SKF_AD_PROTOCOL: u32 = 0xffff_f000;
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
        op(LDH_ABS, 0, 0, SKF_AD_PROTOCOL),
        op(JEQ, 0, 8, ETH_P_IP as u32),
        op(LDB_ABS, 0, 0, packet + 9),
        op(JEQ, 0, 6, 17),
        op(LDH_ABS, 0, 0, packet + 6),
        op(JSET, 4, 0, 0x1fff),
        op(LDX_IP_HEADER_LENGTH, 0, 0, packet),
        op(LDH_INDEXED, 0, 0, packet + 2),
        op(JEQ, 0, 1, 68),
        op(RET, 0, 0, 0x4_0000),
        op(RET, 0, 0, 0),
    ]
}

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
pub(super) struct Socket {
    fd: OwnedFd,
    /// Where packets go for which the kernel makes the header of the link: to all on it.
    to: Option<sys::LongAddress>,
}

impl Socket {
    /// Opens a socket for DHCP on a port: for whole frames, or over InfiniBand for packets.
    pub(super) fn dhcp(link: &Link) -> io::Result<Self> {
        let fd = unbound(link)?;
        sys::attach_filter(&fd, if is_infiniband(link) { &DHCP_PACKETS } else { &DHCP_REPLIES })?;
        Self::bind(fd, link, ETH_P_IP)
    }

    /// Opens a socket for ARP on a port, for frames or packets likewise.
    pub(super) fn arp(link: &Link) -> io::Result<Self> {
        Self::bind(unbound(link)?, link, ETH_P_ARP)
    }

    /// Opens a socket for what says who has an IPv6 address, which is asked on Ethernet only.
    pub(super) fn neighbours(link: &Link) -> io::Result<Self> {
        Self::bind(unbound(link)?, link, ETH_P_IPV6)
    }

    /// Opens a socket for LLDP on a port, which only Ethernet has.
    pub(super) fn lldp(link: &Link) -> io::Result<Self> {
        let socket = Self::bind(unbound(link)?, link, lldp::ETHERTYPE)?;
        sys::join_multicast(&socket.fd, link.index, lldp::NEAREST_BRIDGE)?;
        Ok(socket)
    }

    fn bind(fd: OwnedFd, link: &Link, protocol: u16) -> io::Result<Self> {
        sys::enable_packet_option(&fd, libc::PACKET_AUXDATA)?;
        // Straight to the driver: queues open a little later than carrier shows, and lose what comes
        // in between.
        sys::enable_packet_option(&fd, libc::PACKET_QDISC_BYPASS)?;
        sys::bind_packet(&fd, link.index, protocol)?;
        let to = link.broadcast.filter(|_| is_infiniband(link));
        let to = to.map(|to| sys::LongAddress::new(link.index, protocol, to)).transpose()?;
        Ok(Self { fd, to })
    }

    /// Sends a whole Ethernet frame; over InfiniBand a packet, to all.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        match &self.to {
            Some(to) => sys::send_packet(&self.fd, bytes, to),
            None => Ok(send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)?),
        }
    }

    /// Takes the next frame that waits, if any.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Frame>> {
        use std::os::fd::AsRawFd;
        let mut control = nix::cmsg_space!([u8; 20]);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<()>(self.fd.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
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
fn unbound(link: &Link) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kind = if is_infiniband(link) { SockType::Datagram } else { SockType::Raw };
    Ok(socket(AddressFamily::Packet, kind, flags, None)?)
}

fn is_infiniband(link: &Link) -> bool {
    link.mac.is_some_and(Hardware::is_infiniband)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `tp_status` and `tp_vlan_tci` of a `struct tpacket_auxdata`: a u32 at 0 and a u16 at 16.
fn auxdata(bytes: &[u8]) -> Option<(u32, u16)> {
    let status = bytes.first_chunk::<4>()?;
    let tag = bytes.get(16..18)?.first_chunk::<2>()?;
    Some((u32::from_ne_bytes(*status), u16::from_ne_bytes(*tag)))
}

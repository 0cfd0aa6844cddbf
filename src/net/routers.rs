//! The socket on which a port asks routers and hears them.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, recvmsg, sendto,
    setsockopt, socket, sockopt,
};

use crate::ipv6::advert;

/// Every router of a link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What has passed a router has less (RFC 4861 section 6.1).
const UNROUTED: i32 = 255;

/// An ICMPv6 message that came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// How many bytes of the buffer it fills.
    pub(super) length: usize,
    /// Who sent it, if that is a neighbour on the link.
    pub(super) neighbour: Option<Ipv6Addr>,
}

/// A raw ICMPv6 socket: the kernel makes and checks its checksums.
#[derive(Debug)]
pub(super) struct RouterSocket {
    fd: OwnedFd,
    index: u32,
}

impl RouterSocket {
    /// Opens one on the port of this name and index.
    pub(super) fn open(name: &str, index: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        setsockopt(&fd, sockopt::BindToDevice, &name.into())?;
        setsockopt(&fd, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(&fd, sockopt::Ipv6MulticastHops, &UNROUTED)?;
        Ok(Self { fd, index })
    }

    /// Asks all routers for advertisements.
    pub(super) fn ask(&self, mac: [u8; 6]) -> io::Result<()> {
        let to = SockaddrIn6::from(SocketAddrV6::new(ALL_ROUTERS, 0, 0, self.index));
        sendto(self.fd.as_raw_fd(), &advert::solicitation(mac), &to, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes the next message that waits, if any.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = nix::cmsg_space!([u8; 4]);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrIn6>(self.fd.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let message = match received {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            received => received?,
        };
        let mut hops = 0;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::Ipv6HopLimit(limit) = part {
                hops = limit;
            }
        }
        let from = message.address.map(|address| address.ip()).filter(Ipv6Addr::is_unicast_link_local);
        Ok(Some(Received { length: message.bytes, neighbour: from.filter(|_| hops == UNROUTED) }))
    }
}

impl AsFd for RouterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

//! The few system calls that no crate wraps. All `unsafe` of this crate is here.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// Attaches a classic BPF program to a socket (`SO_ATTACH_FILTER`): what it rejects is never queued.
///
/// # Errors
/// The kernel finds fault with the program.
pub(crate) fn attach_filter(socket: impl AsFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Switches on an option of a packet socket, such as `PACKET_AUXDATA`.
///
/// # Errors
/// It is no packet socket, or the kernel does not know the option.
pub(crate) fn enable_packet_option(socket: impl AsFd, option: i32) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, option, &1_i32)
}

/// Binds a packet socket to one network port and one Ethernet protocol.
///
/// # Errors
/// The port is gone.
pub(crate) fn bind_packet(socket: impl AsFd, port_index: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(port_index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a sockaddr_ll of that length, alive during the call, and only read.
    let done = unsafe { libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_option<T>(socket: impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a T of that length, alive during the call; the kernel copies it, and
    // what a sock_fprog points to.
    let done =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

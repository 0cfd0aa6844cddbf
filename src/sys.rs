//! The few system calls that no crate wraps. All `unsafe` of this crate is here.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, fork};

/// Forks the calling process, which must have one thread only.
///
/// # Errors
/// The process has more threads than one (`EDEADLK`), or the kernel refuses.
pub(crate) fn fork_single_threaded() -> nix::Result<ForkResult> {
    // Without /proc nothing can be said, and nothing is promised.
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Errno::EDEADLK);
    }
    // SAFETY: with one thread no lock can be held by a thread that the child does not have.
    unsafe { fork() }
}

/// Lets the calling thread take its turns after this process's other threads.
pub(crate) fn give_way() {
    const NICENESS: i32 = 10;
    // SAFETY: no pointers; 0 is the calling thread (setpriority(2), "C library/kernel differences"). Whoever may not
    // do this goes on as before.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// Gives every signal its default action and unblocks all, as a program started by exec expects.
pub(crate) fn reset_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        let _ = unsafe { sigaction(signal, &default) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Bytes that can be read from a pipe at once.
///
/// # Errors
/// Not a descriptor that can say.
pub(crate) fn unread(pipe: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to a place that lives through the call.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// fsetxattr(2): sets an extended attribute of an open file.
///
/// # Errors
/// The kernel's.
pub(crate) fn fsetxattr(file: impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: `name` ends in NUL, `value` is readable for its length, and both outlive the call.
    let result = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// lsetxattr(2): sets an extended attribute of what `path` names, not of what a link leads to.
///
/// # Errors
/// The kernel's.
pub(crate) fn lsetxattr(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: `path` and `name` end in NUL, `value` is readable for its length, and all outlive
    // the call.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// The extended attributes of an open file, each name with its value.
///
/// # Errors
/// The kernel's; `ERANGE` when they change meanwhile.
pub(crate) fn xattrs(file: impl AsFd) -> nix::Result<Vec<(CString, Vec<u8>)>> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: with no room to write into, the kernel says how much there must be.
    let size = length(unsafe { libc::flistxattr(fd, std::ptr::null_mut(), 0) })?;
    let mut names = vec![0_u8; size];
    // SAFETY: `names` is writable for its length and outlives the call.
    let size = length(unsafe { libc::flistxattr(fd, names.as_mut_ptr().cast(), names.len()) })?;
    names.truncate(size);
    let names = names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    let value = |name: &CStr| {
        // SAFETY: as above; `name` ends in NUL and outlives the call.
        let size = length(unsafe { libc::fgetxattr(fd, name.as_ptr(), std::ptr::null_mut(), 0) })?;
        let mut value = vec![0_u8; size];
        // SAFETY: `value` is writable for its length, `name` ends in NUL, and both outlive the call.
        let size = unsafe { libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(length(size)?);
        Ok((name.to_owned(), value))
    };
    names.map(value).collect()
}

fn length(result: isize) -> nix::Result<usize> {
    Ok(usize::try_from(Errno::result(result)?).unwrap_or_default())
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// The number of a loop device that nobody uses (`LOOP_CTL_GET_FREE`), from /dev/loop-control.
///
/// # Errors
/// The kernel's.
pub(crate) fn free_loop_device(control: impl AsFd) -> nix::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    // SAFETY: this call takes no argument.
    let number = Errno::result(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(|_| Errno::ENODEV)
}

/// Makes a loop device show a file (`LOOP_SET_FD`), read-only if the file is open so, until the last user of the
/// device is gone. These calls are known to every kernel, unlike `LOOP_CONFIGURE` of Linux 5.8.
///
/// # Errors
/// The kernel's; `EBUSY` when somebody else was quicker to take the device.
pub(crate) fn attach_loop_device(device: impl AsFd, file: impl AsFd) -> nix::Result<()> {
    const LOOP_SET_FD: libc::Ioctl = 0x4c00;
    const LOOP_CLR_FD: libc::Ioctl = 0x4c01;
    const LOOP_SET_STATUS64: libc::Ioctl = 0x4c04;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    let device = device.as_fd().as_raw_fd();
    // SAFETY: both descriptors are open during the call, and it takes nothing else.
    Errno::result(unsafe { libc::ioctl(device, LOOP_SET_FD, file.as_fd().as_raw_fd()) })?;
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    // SAFETY: `info` has the layout that the kernel reads, and lives through the call.
    let set = Errno::result(unsafe { libc::ioctl(device, LOOP_SET_STATUS64, &raw const info) });
    if set.is_err() {
        // SAFETY: this call takes no argument.
        let _ = unsafe { libc::ioctl(device, LOOP_CLR_FD, 0) };
    }
    set.map(drop)
}

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

/// Lets a port pass frames to a multicast MAC up, as long as the packet socket is open.
///
/// # Errors
/// The port is gone.
pub(crate) fn join_multicast(socket: impl AsFd, port_index: u32, mac: [u8; 6]) -> io::Result<()> {
    let [a, b, c, d, e, f] = mac;
    let membership = libc::packet_mreq {
        mr_ifindex: i32::try_from(port_index).map_err(io::Error::other)?,
        mr_type: u16::try_from(libc::PACKET_MR_MULTICAST).map_err(io::Error::other)?,
        mr_alen: 6,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    set_option(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
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

/// A `sockaddr_ll` with the twenty bytes of InfiniBand's addresses, for which the kernel's own has no room; packet sockets
/// take one that is longer (packet(7), `packet_sendmsg` of the kernel).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongAddress {
    family: u16,
    protocol: u16,
    port_index: i32,
    hardware_type: u16,
    packet_type: u8,
    length: u8,
    address: [u8; 20],
}

impl LongAddress {
    /// Of what is sent with this protocol, through this port.
    ///
    /// # Errors
    /// No kernel numbers ports so.
    pub(crate) fn new(port_index: u32, protocol: u16, address: [u8; 20]) -> io::Result<Self> {
        Ok(Self {
            family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
            protocol: protocol.to_be(),
            port_index: i32::try_from(port_index).map_err(io::Error::other)?,
            hardware_type: 0,
            packet_type: 0,
            length: 20,
            address,
        })
    }
}

/// Sends a packet, for which the kernel makes the header of the link, through a packet socket.
///
/// # Errors
/// The port is gone or down, or has addresses of another length.
pub(crate) fn send_packet(socket: impl AsFd, packet: &[u8], to: &LongAddress) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<LongAddress>()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `packet` and `to` are readable for the lengths given, and live through the call, which only reads them.
    let sent =
        unsafe { libc::sendto(fd, packet.as_ptr().cast(), packet.len(), 0, std::ptr::from_ref(to).cast(), length) };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_option<T>(socket: impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a T of that length, alive during the call; the kernel copies it, and
    // what a sock_fprog points to.
    let done =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

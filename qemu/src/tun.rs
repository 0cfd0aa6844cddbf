//! A port whose packets a test reads and writes itself (TUN), and which says that it is InfiniBand.
#![allow(unsafe_code, reason = "no crate wraps these two ioctls")]

use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETLINK: libc::Ioctl = 0x4004_54cd;

/// Makes the port `name`, down, in the calling thread's network namespace; it goes when the file is closed. Each read and
/// write is one packet behind four bytes, of which the last two are its protocol.
///
/// The kernel knows of no length for the addresses of such a port: it has none.
///
/// # Errors
/// The kernel refuses.
pub fn infiniband(name: &str) -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun").context("opening /dev/net/tun")?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::c_short::try_from(libc::IFF_TUN)? },
    };
    ensure!(name.len() < libc::IFNAMSIZ, "{name} is too long for a port");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from)?;
    }
    // SAFETY: the kernel reads and writes one ifreq, which lives through the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    Errno::result(made).with_context(|| format!("making the port {name}"))?;
    // SAFETY: this call takes a number.
    let changed = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETLINK, libc::c_ulong::from(libc::ARPHRD_INFINIBAND)) };
    Errno::result(changed).with_context(|| format!("making {name} InfiniBand"))?;
    Ok(file)
}

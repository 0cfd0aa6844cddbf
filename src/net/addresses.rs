//! The IPv6 addresses of a port, and whether the kernel has found out that they are ours, as `/proc/net/if_inet6` shows
//! them.

use std::fs;
use std::net::Ipv6Addr;

use crate::ipv6::client::Standing;

/// Of the network namespace of the calling thread.
const FILE: &str = "/proc/thread-self/net/if_inet6";
// linux/if_addr.h
const DADFAILED: u8 = 0x08;
const OPTIMISTIC: u8 = 0x04;
const TENTATIVE: u8 = 0x40;

/// Those of the port with this index; none where the kernel has no IPv6.
pub(super) fn of_port(index: u32) -> Vec<(Ipv6Addr, Standing)> {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    text.lines().filter_map(|line| parse(line, index)).collect()
}

/// Address, port, prefix length, scope, flags, all in hexadecimal, and the port's name.
fn parse(line: &str, index: u32) -> Option<(Ipv6Addr, Standing)> {
    let mut words = line.split_ascii_whitespace();
    let address = Ipv6Addr::from(u128::from_str_radix(words.next()?, 16).ok()?);
    let port = u32::from_str_radix(words.next()?, 16).ok()?;
    let flags = u8::from_str_radix(words.nth(2)?, 16).ok()?;
    let standing = match flags {
        _ if flags & DADFAILED != 0 => Standing::Duplicate,
        _ if flags & (TENTATIVE | OPTIMISTIC) == TENTATIVE => Standing::Tentative,
        _ => Standing::Ours,
    };
    (port == index).then_some((address, standing))
}

#[cfg(test)]
mod tests {
    use super::*;

    // F13
    #[test]
    fn the_kernel_s_verdict_is_read() {
        let line = |flags: &str| format!("fd000000000000000000000000000005 1a 40 00 {flags}    eth0");
        let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
        for (flags, standing) in
            [("80", Standing::Ours), ("c0", Standing::Tentative), ("c8", Standing::Duplicate), ("44", Standing::Ours)]
        {
            assert_eq!(parse(&line(flags), 26), Some((address, standing)), "{flags}");
        }
        assert_eq!(parse(&line("80"), 2), None);
        assert_eq!(parse("fd00", 2), None);
        assert_eq!(of_port(1)[..], [(Ipv6Addr::LOCALHOST, Standing::Ours)], "loopback");
    }
}

//! IPv6 addresses from routers and servers: bytes, the client's states, the lease. No I/O, no clock.
//!
//! - [`advert`]: router solicitations and advertisements (RFC 4861, 4191, 8106).
//! - [`wire`]: DHCPv6 messages and their options (RFC 8415).
//! - [`client`]: the client's states; events in, actions out.
//! - [`grant`]: what routers and servers give, checked, clamped and put together as a lease.

pub mod advert;
pub mod client;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod grant;
pub mod wire;

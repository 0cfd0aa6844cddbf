//! Stage 1 for stateless cluster nodes.
//!
//! The boot story, in the order the code tells it:
//!
//! 1. [`supervise`]: PID 1 mounts `/proc`, `/sys`, `/dev` and `/run`, forks a worker and watches it.
//! 2. [`cmdline`]: the kernel command line becomes one typed [`cmdline::Config`].
//! 3. [`modules`]: the modules in `modules.txt` and what they depend on are loaded.
//! 4. [`net`]: a port gets carrier and, through [`dhcp`] or from the command line, a lease; [`lldp`] says where its
//!    cable is.
//! 5. [`image`]: the image streams from HTTP through the decoder into a tmpfs, checked on the way.
//! 6. [`handover`]: the image's init is found, the files for stage 2 are left, and PID 1 becomes that init.
//!
//! [`boot`] is that list as code. When any of it fails, [`rescue`] says why and follows
//! `rootstream.onfail=`. [`rehearse`] runs the same steps as an ordinary process.

pub mod boot;
pub mod checks;
pub mod cmdline;
pub mod dhcp;
pub mod facts;
pub mod failure;
pub mod handover;
pub mod image;
mod inside;
pub mod ipv6;
pub mod lease;
pub mod lldp;
pub mod log;
pub mod mac;
pub mod modules;
pub mod mounts;
pub mod net;
pub mod random;
pub mod rehearse;
pub mod report;
pub mod rescue;
mod say;
pub mod signals;
pub mod supervise;
mod sys;
mod url;
mod wording;

//! The site as configuration for servers that run already: DHCP, TFTP and HTTP servers, and the loaders' menus.
//!
//! Each server has a file of its own, which makes text of the same [`plan`]: what `up` tells its own dnsmasq, in the
//! words of that server. What a server's syntax cannot hold is refused by name.

mod command;
mod dnsmasq;
mod folders;
mod guide;
mod isc_dhcp;
mod kea;
mod menus;
mod nginx;
mod output;
mod plan;
mod tftpd;

pub(crate) use command::Command;

/// What is written for one server.
#[derive(Debug)]
struct Export {
    /// What the administrator does with it, one line each.
    guide: Vec<String>,
    files: Vec<File>,
    /// Programs that read the files, and belong beside them: the name there of each, and where it is now.
    loaders: Vec<(&'static str, &'static str)>,
}

/// One file of it.
#[derive(Debug)]
struct File {
    /// Its path in the folder where it belongs.
    path: String,
    text: String,
}

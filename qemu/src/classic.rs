//! ISC dhcpd, tftpd-hpa and nginx: the servers that most sites have, run with configuration that the companion wrote.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bound::Bound;
use crate::packages::unpacked;
use crate::sockets;

/// Where each server's file is in the folder that [`Classic::start`] is given, by its word in `rootstream config`.
pub const FILES: [(&str, &str); 3] =
    [("isc-dhcp", "dhcp/rootstream.conf"), ("tftpd", "default/tftpd-hpa"), ("nginx", "nginx/rootstream.conf")];
/// The sources of the servers' lines in a transcript, and the logs that these come from.
pub const LOGS: [(&str, &str); 3] = [(DHCPD, "dhcpd.log"), (TFTPD, "tftpd.log"), (NGINX, "nginx.access")];
const DHCPD: &str = "dhcpd";
const TFTPD: &str = "tftpd";
const NGINX: &str = "nginx";
/// How long the servers may take to open their ports.
const START: Duration = Duration::from_secs(30);

/// What Debian's start script of tftpd-hpa does with its options, but for the user, whom this machine may not have. It
/// logs to /dev/log only, so it has a /dev of its own.
const START_TFTPD: &str = r#"
    . "$1"
    mount --make-rprivate /
    mount --bind "$3" /dev
    exec "$2" --foreground --verbose --user root --address $TFTP_ADDRESS $TFTP_OPTIONS $TFTP_DIRECTORY
"#;

/// The servers' programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// ISC's DHCP server.
    pub dhcpd: PathBuf,
    /// H. Peter Anvin's TFTP server.
    pub tftpd: PathBuf,
    /// The web server.
    pub nginx: PathBuf,
}

impl Programs {
    /// Debian's packages, unpacked. Needs the network where they were not before.
    ///
    /// # Errors
    /// One cannot be had.
    pub fn unpacked() -> Result<Self> {
        Ok(Self {
            dhcpd: unpacked("isc-dhcp-server")?.join("usr/sbin/dhcpd"),
            tftpd: unpacked("tftpd-hpa")?.join("usr/sbin/in.tftpd"),
            nginx: unpacked("nginx")?.join("usr/sbin/nginx"),
        })
    }
}

/// The running servers; they end with it.
#[derive(Debug)]
pub struct Classic {
    _servers: [Bound; 3],
}

impl Classic {
    /// Starts the servers on `interface` and waits until their ports are open. `files` holds their [`FILES`]; logs and
    /// what they need besides go into `logs`.
    ///
    /// # Errors
    /// One does not start, or ends; the end of its log is part of the error.
    pub fn start(programs: &Programs, files: &Path, logs: &Path, interface: &str) -> Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("creating {}", logs.display()))?;
        let [dhcp, tftp, http] = FILES.map(|(_, file)| files.join(file));
        let mut servers = [
            dhcpd(&programs.dhcpd, &dhcp, logs, interface)?,
            tftpd(&programs.tftpd, &tftp, logs)?,
            nginx(&programs.nginx, &http, logs)?,
        ];
        let began = Instant::now();
        for (server, (log, port)) in
            servers.iter_mut().zip([("dhcpd.log", ("udp", 67)), ("tftpd.log", ("udp", 69)), ("nginx.log", ("tcp", 80))])
        {
            let (protocol, number) = port;
            let said = || fs::read_to_string(logs.join(log)).unwrap_or_default().trim().to_owned();
            while sockets::owner(protocol, number).is_err() {
                if let Some(status) = server.ended()? {
                    bail!("the server for {protocol} port {number} ended with {status}: {}", said());
                }
                if began.elapsed() > START {
                    bail!("nobody opened {protocol} port {number} in {} s: {}", START.as_secs(), said());
                }
                sleep(Duration::from_millis(20));
            }
        }
        Ok(Self { _servers: servers })
    }
}

fn log(path: PathBuf) -> Result<(File, File)> {
    let out = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let err = out.try_clone().context("sharing the log")?;
    Ok((out, err))
}

fn dhcpd(program: &Path, configuration: &Path, logs: &Path, interface: &str) -> Result<Bound> {
    let leases = logs.join("dhcpd.leases");
    fs::write(&leases, "").with_context(|| format!("writing {}", leases.display()))?;
    let (out, err) = log(logs.join("dhcpd.log"))?;
    Bound::start(&program.display().to_string(), |command| {
        command.args(["-4", "-f", "-d", "--no-pid", "-cf"]).arg(configuration).arg("-lf").arg(leases).arg(interface);
        command.stdout(out).stderr(err)
    })
}

fn tftpd(program: &Path, options: &Path, logs: &Path) -> Result<Bound> {
    let (mut out, err) = log(logs.join("tftpd.log"))?;
    let dev = logs.join("dev");
    if dev.exists() {
        fs::remove_dir_all(&dev).with_context(|| format!("removing {}", dev.display()))?;
    }
    fs::create_dir(&dev).with_context(|| format!("creating {}", dev.display()))?;
    let socket = UnixDatagram::bind(dev.join("log")).context("listening where tftpd logs to")?;
    thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length) = socket.recv(&mut message) {
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
            // A log that cannot be written is missed by whoever reads it.
            let _ = writeln!(out, "{}", text.trim_end_matches(['\n', '\0']));
        }
    });
    Bound::start("unshare", |command| {
        command.args(["--mount", "sh", "-euc", START_TFTPD, "sh"]).arg(options).arg(program).arg(&dev);
        command.stdout(Stdio::null()).stderr(err)
    })
}

fn nginx(program: &Path, server: &Path, logs: &Path) -> Result<Bound> {
    let whole = logs.join("nginx.conf");
    fs::write(&whole, nginx_configuration(server, logs)).with_context(|| format!("writing {}", whole.display()))?;
    let (out, err) = log(logs.join("nginx.log"))?;
    Bound::start(&program.display().to_string(), |command| {
        command.arg("-c").arg(whole).arg("-e").arg(logs.join("nginx.log")).stdout(out).stderr(err)
    })
}

/// What the rest of /etc/nginx is to the file `server`: it is included where conf.d is.
pub fn nginx_configuration(server: &Path, scratch: &Path) -> String {
    let (server, own) = (server.display(), scratch.display());
    // It makes these folders even where it never uses them, below /var unless told.
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {own}/nginx-{kind};"))
        .join(" ");
    // One process: a worker would outlive a master that is killed.
    format!(
        "daemon off; master_process off; pid {own}/nginx.pid; error_log {own}/nginx.log;\nevents {{ }}\n\
         http {{ access_log {own}/nginx.access; {temporary} include {server}; }}\n"
    )
}

/// Whether a line tells that the node with this MAC has its lease.
pub fn leased(source: &str, text: &str, mac: &str) -> bool {
    source == DHCPD && text.contains("DHCPACK on ") && text.contains(&format!(" to {mac} "))
}

/// Whether a line tells that the node at `address` fetched a file, as [`Firmware::files`](crate::firmware::Firmware::files)
/// names it. tftpd tells what it is asked for and has.
pub fn fetched(source: &str, text: &str, file: &str, address: &str) -> bool {
    match source {
        // GRUB writes paths from the root.
        TFTPD => text
            .split_once(&format!("]: RRQ from {address} filename "))
            .is_some_and(|(_, asked)| asked.trim_start_matches('/') == file),
        NGINX => text.starts_with(&format!("{address} - - ")) && text.contains(&format!("\"GET {file} HTTP/1.1\" 2")),
        _ => false,
    }
}

/// The client architecture in a line, if it is about the node with this MAC (RFC 4578).
pub fn architecture<'a>(source: &str, text: &'a str, mac: &str) -> Option<&'a str> {
    let (who, class) = text.strip_prefix("vendor class of ").filter(|_| source == DHCPD)?.split_once(": ")?;
    // dhcpd writes no leading zeros.
    let bytes = |mac: &str| mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<Vec<u8>>>();
    let code = class.split_once("Client:Arch:")?.1.split(':').next();
    code.filter(|_| bytes(who).is_some() && bytes(who) == bytes(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_lines_are_about_one_node() {
        let mac = "52:54:00:ac:10:01";
        assert!(leased("dhcpd", "DHCPACK on 172.16.0.1 to 52:54:00:ac:10:01 (n1) via br0", mac));
        assert!(!leased("dhcpd", "DHCPACK on 172.16.0.2 to 52:54:00:ac:10:02 via br0", mac));
        assert!(!leased("n1", "DHCPACK on 172.16.0.1 to 52:54:00:ac:10:01 via br0", mac));
        let class = "vendor class of 52:54:0:ac:10:1: PXEClient:Arch:00007:UNDI:003016";
        assert_eq!(architecture("dhcpd", class, mac), Some("00007"));
        assert_eq!(architecture("dhcpd", class, "52:54:00:ac:10:11"), None);
        let asked = "<29>Nov 23 06:00:00 in.tftpd[9]: RRQ from 172.16.0.1 filename pxelinux.0";
        assert!(fetched("tftpd", asked, "pxelinux.0", "172.16.0.1"));
        assert!(fetched("tftpd", &asked.replace("pxe", "/grub/pxe"), "grub/pxelinux.0", "172.16.0.1"));
        assert!(
            !fetched("tftpd", asked, "pxelinux.0", "172.16.0.11") && !fetched("tftpd", asked, "linux.0", "172.16.0.1")
        );
        let got =
            r#"172.16.0.1 - - [23/Nov/2026:06:00:00 +0000] "GET /boot/ipxe/boot.ipxe HTTP/1.1" 200 119 "-" "iPXE""#;
        assert!(fetched("nginx", got, "/boot/ipxe/boot.ipxe", "172.16.0.1"));
        assert!(!fetched("nginx", &got.replace(" 200 ", " 404 "), "/boot/ipxe/boot.ipxe", "172.16.0.1"));
    }
}

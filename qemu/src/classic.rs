//! ISC dhcpd, tftpd-hpa and nginx: the servers that most sites have, run with configuration that the companion wrote.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bound::Bound;
use crate::packages::unpacked;
use crate::sockets;

/// Where each server's file is in the folder that [`Classic::start`] is given, by its word in `rootstream config`.
pub const FILES: [(&str, &str); 3] =
    [("isc-dhcp", "dhcp/rootstream.conf"), ("tftpd", "default/tftpd-hpa"), ("nginx", "nginx/rootstream.conf")];
/// dhcpd's log in the folder of logs.
pub const DHCPD_LOG: &str = "dhcpd.log";
/// How long the servers may take to open their ports.
const START: Duration = Duration::from_secs(30);

/// What Debian's start script of tftpd-hpa does with its options, but for the user: this machine may not have it.
const TFTPD: &str =
    r#". "$1"; exec "$2" --foreground --user root --address $TFTP_ADDRESS $TFTP_OPTIONS $TFTP_DIRECTORY"#;

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
            servers.iter_mut().zip([(DHCPD_LOG, ("udp", 67)), ("tftpd.log", ("udp", 69)), ("nginx.log", ("tcp", 80))])
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
    let (out, err) = log(logs.join(DHCPD_LOG))?;
    Bound::start(&program.display().to_string(), |command| {
        command.args(["-4", "-f", "-d", "--no-pid", "-cf"]).arg(configuration).arg("-lf").arg(leases).arg(interface);
        command.stdout(out).stderr(err)
    })
}

fn tftpd(program: &Path, options: &Path, logs: &Path) -> Result<Bound> {
    let (out, err) = log(logs.join("tftpd.log"))?;
    Bound::start("sh", |command| command.args(["-euc", TFTPD, "sh"]).arg(options).arg(program).stdout(out).stderr(err))
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

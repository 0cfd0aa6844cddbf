//! The master's services in the foreground: HTTP by ourselves, DHCP and TFTP by a dnsmasq child.

mod access;
mod changes;
mod digests;
pub(crate) mod dnsmasq;
mod entity;
mod files;
pub mod http;
mod ports;
mod range;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::nodes::Nodes;
use crate::config::site::Site;
use crate::{menu, say};
use changes::Changes;
use dnsmasq::Dnsmasq;
use http::Server;

/// How long transfers may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Serves `site` until SIGTERM or SIGINT; prints `up: ready ...` on stdout when DHCP, TFTP and HTTP
/// answer. `port` overrides the HTTP port of site.toml.
///
/// # Errors
/// A configuration is wrong, a port is taken, dnsmasq does not start or ends by itself.
pub fn up(site: &Site, port: Option<u16>) -> Result<()> {
    let nodes = Nodes::of(site)?;
    let port = port.unwrap_or(site.config().http.port);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).max(2))
        .enable_all()
        .build()
        .context("starting the runtime")?;
    // dnsmasq ends with the thread that starts it, so that must be the main one: this future runs
    // on it, and only its spawned tasks run elsewhere.
    let result = runtime.block_on(serve(site, &nodes, port));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(site: &Site, nodes: &Nodes, port: u16) -> Result<()> {
    // Signals first: one that comes during the start must not leave a dnsmasq behind.
    let mut stop = Stop::new()?;
    let mut again = signal(SignalKind::hangup()).context("watching for SIGHUP")?;
    let mut changes = Changes::of(site);
    let network = &site.config().network;
    let address = SocketAddr::from((network.address.address, port));
    ports::refuse_missing(network.interface(), &network.address)?;
    let listener = listen(address, network.interface()).await?;
    let server = Server::new(site, listener)?;
    ports::refuse_taken(network.interface(), network.address.address)?;
    // Not before the ports are ours: another `up` may be serving these menus.
    menu::write(site, nodes, port)?;
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(server.run(
        async move {
            // A dropped sender means the same.
            let _ = ended.await;
        },
        GRACE,
    ));
    let mut dnsmasq = tokio::select! {
        started = Dnsmasq::start(site, nodes) => {
            started.with_context(|| format!("starting DHCP and TFTP on {}", network.interface()))?
        }
        () = stop.asked() => return Ok(()),
    };
    say::result(format_args!(
        "up: ready dhcp={} tftp={}:69 http=http://{address}/ nodes={}",
        network.interface(),
        network.address.address,
        nodes.iter().count()
    ));
    let died = loop {
        tokio::select! {
            why = dnsmasq.ended() => break Some(why),
            () = stop.asked() => break None,
            _ = again.recv() => changes.forget(),
            changed = changes.next() => changed?,
        }
        match reload(site, &dnsmasq, port) {
            Ok(count) => log::info!("read again: {count} nodes"),
            // What worked goes on working.
            Err(error) => log::error!("nothing was changed: {error:#}"),
        }
    };
    if died.is_none() {
        log::info!("stopping; transfers under way have {} s", GRACE.as_secs());
    }
    let stopped = dnsmasq.stop().await;
    drop(end);
    tokio::select! {
        ended = server => ended.context("ending the HTTP server")?,
        () = stop.asked() => {}
    }
    match died {
        Some(why) => Err(why),
        None => stopped,
    }
}

/// Reads the configuration and the newest builds again; returns how many nodes there are.
fn reload(started: &Site, dnsmasq: &Dnsmasq, port: u16) -> Result<usize> {
    let site = Site::open(started.root())?;
    if !site.config().serves_as(started.config()) {
        let todo = "start `rootstream up` again; or put back what was there";
        return Err(refuse("site.toml: [network] and [http] are read at the start only", todo));
    }
    let nodes = Nodes::of(&site)?;
    menu::write(&site, &nodes, port)?;
    dnsmasq.reload(&nodes)?;
    Ok(nodes.iter().count())
}

async fn listen(address: SocketAddr, interface: &str) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    let todo = match bound.as_ref().map_err(std::io::Error::kind) {
        Ok(_) => String::new(),
        Err(ErrorKind::AddrInUse) => {
            let holder =
                holder(address.port()).map_or("what listens there".to_owned(), |who| format!("its holder ({who})"));
            format!("stop {holder}, or take another port with --port")
        }
        Err(ErrorKind::AddrNotAvailable) => {
            format!(
                "give the interface that address: ip address add {}/PREFIX dev {interface}; or correct site.toml",
                address.ip()
            )
        }
        Err(ErrorKind::PermissionDenied) => "run it as root, or take a port above 1023 with --port".to_owned(),
        Err(_) => "look at the address and port in site.toml".to_owned(),
    };
    bound.advise(format!("listening on {address} for HTTP"), todo)
}

/// The program that listens on the TCP port, as ss(8) names it: `"nginx",pid=12,fd=6`.
fn holder(port: u16) -> Option<String> {
    let output = Command::new("ss").args(["-Hltnp", &format!("sport = :{port}")]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (_, users) = text.split_once("users:((")?;
    Some(users.split(')').next()?.to_owned())
}

/// The two signals that end the services.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("watching for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("watching for SIGINT")?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

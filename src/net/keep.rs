//! The lease's keeper: while the image comes, a thread renews the lease and takes its address off the port when it is
//! lost.
//!
//! The address has no lifetime of its own in the kernel. As long as the keeper lives it takes the address away at the
//! lease's end itself; after the hand-over stage 2 asks for a lease of its own or, where it does nothing about the port,
//! keeps the address instead of losing the node.

use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::configure::{self, Changes};
use super::link::Links;
use super::port::Port;
use super::wait;
use crate::lease::Lease;
use crate::mac::Hardware;
use crate::say;

/// How often the port's carrier is looked at.
const LOOK: Duration = Duration::from_secs(1);
const CLIENT_PORT: u16 = 68;
/// More than the deepest call needs, and less than the usual 2 MiB: small nodes boot with this thread, too.
const STACK: usize = 512 * 1024;

/// A port with a lease on it, and all that is needed to keep it so.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) links: Links,
    pub(super) port: Port,
    /// What the lease changed on the port; none while it is not on it.
    changes: Option<Changes>,
    /// The latest lease.
    lease: Lease,
    /// The MACs of this machine: Linux answers on every port for the addresses of all.
    own: Vec<Hardware>,
    /// What the port's times count from.
    started: Instant,
    /// Takes what the kernel would otherwise answer with "port unreachable": it sees replies to the port's address too.
    sink: Option<UdpSocket>,
}

impl Kept {
    /// Puts the lease on the port.
    ///
    /// # Errors
    /// netlink refuses; the port comes back.
    pub(super) fn new(
        links: Links,
        port: Port,
        lease: Lease,
        started: Instant,
    ) -> Result<Self, Box<(Links, Port, anyhow::Error)>> {
        match configure::apply(&links, &port, &lease) {
            Ok(changes) => {
                let sink = sink(&lease);
                Ok(Self { links, port, changes: Some(changes), lease, own: Vec::new(), started, sink })
            }
            Err(error) => Err(Box::new((links, port, error))),
        }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Takes the lease off the port, and returns what is left.
    pub(super) fn take_back(mut self) -> (Links, Port, anyhow::Result<()>) {
        let taken = self.unconfigure();
        (self.links, self.port, taken)
    }

    fn unconfigure(&mut self) -> anyhow::Result<()> {
        self.sink = None;
        self.changes.take().map_or(Ok(()), |changes| configure::take_back(&self.links, &self.port, &changes))
    }

    /// Keeps the lease until the other end of `stop` is closed.
    fn keep(&mut self, stop: &PipeReader) {
        let mut next_look = Duration::ZERO;
        loop {
            let now = self.started.elapsed();
            if now >= next_look {
                self.look(now);
                next_look = now + LOOK;
            }
            self.port.tick(&self.links, now);
            self.follow();
            let wake = self.port.deadline().map_or(next_look, |deadline| deadline.min(next_look));
            let files = self.port.sockets().chain([stop.as_fd()]);
            if let Err(error) = wait::readable(files, wake.saturating_sub(self.started.elapsed())) {
                say::warn!("net: {error:#}; the lease is not renewed any more");
                return;
            }
            if wait::is_closed(stop) {
                return;
            }
            self.port.receive(&self.links, self.started.elapsed(), &self.own);
        }
    }

    fn look(&mut self, now: Duration) {
        match self.links.list() {
            Ok(list) => {
                let carrier = list.iter().any(|link| link.index == self.port.index() && link.carrier);
                self.port.carrier(&self.links, carrier, now);
                self.own = list.iter().filter_map(|link| link.mac).chain([self.port.mac()]).collect();
            }
            Err(error) => say::warn!("net: listing network ports: {error}"),
        }
    }

    /// Makes the port have the address that the client has a lease of. Its subnet, routes and MTU stay those of the boot:
    /// an answer that leaves them out must not stop a download. Routes that are new are added.
    fn follow(&mut self) {
        let Some(lease) = self.port.lease() else {
            if self.changes.is_some() {
                say::warn!("net: {}: address {} is taken away", self.port.title(), self.lease.address);
                self.complain_about("taking the lost address away", Self::unconfigure);
            }
            return;
        };
        if let Some(changes) = self.changes.as_mut().filter(|_| lease.address == self.lease.address) {
            let old = &self.lease;
            let new: Vec<_> = lease.routes.iter().copied().filter(|route| !old.routes.contains(route)).collect();
            configure::add_routes(&self.links, &self.port, &new, changes);
            let routes = old.routes.iter().copied().chain(new).collect();
            self.lease = Lease { prefix: old.prefix, routes, ..lease };
            return;
        }
        self.complain_about("taking the address of before away", Self::unconfigure);
        self.lease = lease;
        // Once for each address, even where it fails.
        self.changes = Some(Changes::default());
        self.complain_about("putting the new lease on the port", |kept| {
            kept.changes = Some(configure::apply(&kept.links, &kept.port, &kept.lease)?);
            kept.sink = sink(&kept.lease);
            say::info!("net: {}: address {} from now on", kept.port.title(), kept.lease.address);
            Ok(())
        });
    }

    fn complain_about(&mut self, what: &str, work: impl FnOnce(&mut Self) -> anyhow::Result<()>) {
        if let Err(error) = work(self) {
            say::warn!("net: {}: {what}: {error:#}", self.port.title());
        }
    }
}

fn sink(lease: &Lease) -> Option<UdpSocket> {
    let version_4 = Some(lease.address).filter(IpAddr::is_ipv4)?;
    UdpSocket::bind((version_4, CLIENT_PORT)).inspect_err(|error| say::debug!("net: UDP port 68: {error}")).ok()
}

/// Keeps a lease in a thread of its own, until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Empty while the thread works on it.
    kept: Arc<Mutex<Option<Kept>>>,
    thread: Option<(PipeWriter, JoinHandle<()>)>,
}

impl Keeper {
    /// Without a thread, which is said, the lease stays as it is.
    pub(super) fn start(kept: Kept) -> Self {
        let kept = Arc::new(Mutex::new(Some(kept)));
        let started = start(&kept);
        if let Err(error) = &started {
            say::warn!("net: the lease is not renewed: no thread for it: {error}");
        }
        Self { kept, thread: started.ok() }
    }

    /// Ends the thread and returns what it kept.
    ///
    /// # Errors
    /// The thread met a fault of its own.
    pub(super) fn stop(&mut self) -> anyhow::Result<Kept> {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take().context("the lease's keeper died")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn start(kept: &Arc<Mutex<Option<Kept>>>) -> io::Result<(PipeWriter, JoinHandle<()>)> {
    let (stopped, stop) = io::pipe()?;
    let place = Arc::clone(kept);
    let work = move || {
        let taken = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut kept) = taken else { return };
        kept.keep(&stopped);
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    };
    Ok((stop, thread::Builder::new().name("lease".to_owned()).stack_size(STACK).spawn(work)?))
}

//! Switching one node, and seeing that it happened.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rootstream::failure::refuse;
use serde::Serialize;

use super::access::Access;
use super::bmc::{Bmc, Order, State};
use super::stagger::Turns;

/// How often a BMC is asked whether it has done what it was told.
const PACE: Duration = Duration::from_millis(700);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A question to a BMC and its answer.
    pub(super) exchange: Duration,
    /// Until the power is what it was told to be.
    pub(super) effect: Duration,
}

impl Limits {
    /// Both from one number: how long a node's power may take.
    pub(super) fn within(effect: Duration) -> Self {
        Self { exchange: effect.min(Duration::from_secs(30)), effect }
    }
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Switched {
    /// The power now.
    pub(super) state: State,
    /// The power before; absent where nothing was to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) was: Option<State>,
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.was {
            Some(was) => write!(f, "{} (was {was})", self.state),
            None => write!(f, "{}", self.state),
        }
    }
}

/// Carries out an order, or asks for the state where there is none. Whoever gets power waits for a turn.
///
/// # Errors
/// The BMC fails, or the node's power is not what it should be when the time is over.
pub(super) fn switch(access: &Access, order: Option<Order>, turns: &Turns, limits: Limits) -> Result<Switched> {
    let bmc = access.connect(limits.exchange)?;
    let was = bmc.state()?;
    let Some(order) = order else { return Ok(Switched { state: was, was: None }) };
    let done = |state| Ok(Switched { state, was: Some(was) });
    match (order, was) {
        (Order::On, State::On) | (Order::Off | Order::Soft, State::Off) => done(was),
        (Order::Reset, State::Off) => Err(refuse(
            format!("{} is off, and there is nothing to reset", access.node),
            format!("switch it on: rootstream power on {}", access.node),
        )),
        (Order::Off | Order::Soft, State::On) => {
            bmc.order(order)?;
            reach(&*bmc, access, State::Off, limits.effect)?;
            done(State::Off)
        }
        // A BMC cycles no node that is off.
        (Order::On | Order::Cycle, State::Off) => {
            turns.wait();
            bmc.order(Order::On)?;
            reach(&*bmc, access, State::On, limits.effect)?;
            done(State::On)
        }
        (Order::Cycle | Order::Reset, State::On) => {
            if order == Order::Cycle {
                turns.wait();
            }
            bmc.order(order)?;
            // It may not have begun: "on" is believed when it could have.
            thread::sleep(PACE);
            reach(&*bmc, access, State::On, limits.effect)?;
            done(State::On)
        }
    }
}

/// Waits until the power is what it was told to be.
///
/// # Errors
/// The BMC fails, or time runs out.
pub(super) fn reach(bmc: &dyn Bmc, access: &Access, wanted: State, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while bmc.state()? != wanted {
        if start.elapsed() >= limit {
            let todo = if wanted == State::Off {
                "its system may be shutting down: wait and ask `power status`, or cut the power with `power off`"
            } else {
                "look for a fault of its power supply: `bmc info`, its front panel, its cables; --timeout waits longer"
            };
            let what = format!(
                "{} took the order, and {} is not {wanted} after {} s",
                access.place(),
                access.node,
                limit.as_secs()
            );
            return Err(refuse(what, todo));
        }
        thread::sleep(PACE);
    }
    Ok(())
}

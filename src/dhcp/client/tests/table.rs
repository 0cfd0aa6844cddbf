//! The table in the client's documentation, walked through row by row.

use super::*;

/// A way to make something happen to a client, and what it did.
type Happening = fn(&mut Walk) -> Vec<Action>;

/// A client on its way, with the latest message that it sent.
struct Walk {
    client: Client,
    now: Duration,
    last: Option<Message>,
}

impl Walk {
    fn new(fixed: bool) -> Self {
        let fixed = fixed.then_some((Ipv4Addr::new(10, 1, 0, 54), 24));
        Self { client: Client::new(Identity { fixed, ..identity() }, 1), now: seconds(5.0), last: None }
    }

    fn step(&mut self, event: Event<'_>) -> Vec<Action> {
        let actions = self.client.step(event, self.now);
        if let Some(message) = sent(&actions).last() {
            self.last = Some((*message).clone());
        }
        actions
    }

    fn after(&mut self, time: f64, event: Event<'_>) -> Vec<Action> {
        self.now += seconds(time);
        self.step(event)
    }

    fn tick(&mut self) -> Vec<Action> {
        self.now = self.client.deadline().unwrap();
        self.step(Event::Tick)
    }

    fn answer(&mut self, kind: Kind, server: [u8; 4], change: impl FnOnce(&mut Message)) -> Vec<Action> {
        let mut message = reply(kind, self.last.as_ref().unwrap(), server);
        message.yiaddr = Ipv4Addr::new(10, 1, 0, 54);
        change(&mut message);
        self.step(Event::Received(&message))
    }

    /// To a state, the shortest way.
    fn to(state: &str) -> Self {
        let mut walk = Self::new(false);
        let ways: &[Happening] = match state {
            "NO CARRIER" => &[],
            "INIT" => &[carrier, offer, wait, nak],
            "SELECTING" => &[carrier],
            "REQUESTING" => &[carrier, offer, wait],
            "CHECKING" => &[carrier, offer, wait, ack],
            "BOUND" => &[carrier, offer, wait, ack, wait],
            "RENEWING" => &[carrier, offer, wait, ack, wait, wait],
            "REBINDING" => &[carrier, offer, wait, ack, wait, wait, wait, wait, wait],
            "REBOOTING" => &[carrier, offer, wait, ack, wait, back],
            other => panic!("no way to {other}"),
        };
        for way in ways {
            way(&mut walk);
        }
        assert_eq!(walk.state(), state);
        walk
    }

    fn state(&self) -> &'static str {
        match self.client.state {
            State::NoCarrier => "NO CARRIER",
            State::Init { .. } => "INIT",
            State::Selecting { .. } => "SELECTING",
            State::Requesting { .. } => "REQUESTING",
            State::Checking { .. } => "CHECKING",
            State::Bound => "BOUND",
            State::Renewing { .. } => "RENEWING",
            State::Rebinding { .. } => "REBINDING",
            State::Rebooting { .. } => "REBOOTING",
            State::Informing { .. } => "INFORMING",
        }
    }
}

fn carrier(walk: &mut Walk) -> Vec<Action> {
    walk.after(5.0, Event::Carrier)
}

fn wait(walk: &mut Walk) -> Vec<Action> {
    walk.tick()
}

fn offer(walk: &mut Walk) -> Vec<Action> {
    walk.answer(Kind::Offer, OURS, |_| {})
}

fn ack(walk: &mut Walk) -> Vec<Action> {
    walk.answer(Kind::Ack, OURS, |_| {})
}

fn nak(walk: &mut Walk) -> Vec<Action> {
    walk.answer(Kind::Nak, OURS, |_| {})
}

fn other_ack(walk: &mut Walk) -> Vec<Action> {
    walk.answer(Kind::Ack, OTHER, |_| {})
}

fn other_nak(walk: &mut Walk) -> Vec<Action> {
    walk.answer(Kind::Nak, OTHER, |_| {})
}

fn bad_ack(walk: &mut Walk) -> Vec<Action> {
    walk.answer(Kind::Ack, OURS, |message| message.yiaddr = Ipv4Addr::BROADCAST)
}

fn lost(walk: &mut Walk) -> Vec<Action> {
    walk.after(5.0, Event::CarrierLost)
}

fn back(walk: &mut Walk) -> Vec<Action> {
    lost(walk);
    carrier(walk)
}

fn leave(walk: &mut Walk) -> Vec<Action> {
    walk.step(Event::Leave)
}

/// What the table calls the actions.
fn named(actions: &[Action]) -> String {
    let names: Vec<String> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Broadcast(message) => Some(message.kind.to_string()),
            Action::Unicast(message, _) => Some(format!("{} to its server", message.kind)),
            Action::Probe(_) => Some("probe".to_owned()),
            Action::Announce(_) => Some("announce".to_owned()),
            Action::Bound => Some("bound".to_owned()),
            Action::Lost => Some("lost".to_owned()),
            Action::Say(..) | Action::Ignore(_) => None,
        })
        .collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

/// Every row: the state, the event in words, and how to make it happen from that state.
fn rows() -> Vec<(&'static str, &'static str, Walk, Happening)> {
    let row = |state: &'static str, event, happening: Happening| (state, event, Walk::to(state), happening);
    let with = |state: &'static str, event, walk: Walk, happening: Happening| {
        assert!(state.starts_with(walk.state()) || state == "any");
        (state, event, walk, happening)
    };
    let after = |state: &str, ways: &[Happening]| {
        let mut walk = Walk::to(state);
        for way in ways {
            way(&mut walk);
        }
        walk
    };
    let fixed = |ways: &[Happening]| {
        let mut walk = Walk::new(true);
        for way in ways {
            way(&mut walk);
        }
        walk
    };
    vec![
        row("NO CARRIER", "carrier", carrier),
        with(
            "NO CARRIER",
            "carrier within 1 s of the last beginning",
            after("SELECTING", &[]).lose_carrier(),
            |walk| walk.after(0.1, Event::Carrier),
        ),
        with("NO CARRIER", "carrier, a lease is kept", after("BOUND", &[lost]), carrier),
        with("NO CARRIER", "carrier, the address is fixed", fixed(&[]), carrier),
        with("any", "carrier lost", Walk::to("REQUESTING"), lost),
        row("INIT", "its time", wait),
        with("INIT", "its time, a lease is kept", after("REBOOTING", &[wait, wait, offer, wait, nak]), wait),
        row("SELECTING", "OFFER", offer),
        row("SELECTING", "OFFER that boots nodes", |walk| {
            walk.answer(Kind::Offer, OURS, |message| message.file = b"pxelinux.0".to_vec())
        }),
        row("SELECTING", "OFFER that is unusable", |walk| {
            walk.answer(Kind::Offer, OURS, |message| message.yiaddr = Ipv4Addr::BROADCAST)
        }),
        with("SELECTING", "300 ms after the first OFFER", after("SELECTING", &[offer]), wait),
        row("SELECTING", "4 to 64 s without an OFFER", wait),
        row("REQUESTING", "ACK", ack),
        row("REQUESTING", "ACK that is unusable", bad_ack),
        row("REQUESTING", "NAK", nak),
        row("REQUESTING", "no answer", wait),
        with("REQUESTING", "no answer to the third REQUEST", after("REQUESTING", &[wait, wait]), wait),
        row("CHECKING", "300 ms", wait),
        row("CHECKING", "the address is claimed", |walk| {
            walk.step(Event::Claimed(Ipv4Addr::new(10, 1, 0, 54), Hardware::Ethernet([2; 6])))
        }),
        row("BOUND", "T1", wait),
        row("RENEWING", "ACK", ack),
        row("RENEWING", "ACK that is unusable", bad_ack),
        row("RENEWING", "NAK", nak),
        row("RENEWING", "half of the time to T2, at least 60 s", wait),
        with("RENEWING", "T2", after("RENEWING", &[wait, wait]), wait),
        row("REBINDING", "ACK of any server", other_ack),
        row("REBINDING", "NAK of any server", other_nak),
        row("REBINDING", "half of the time to the end, at least 60 s", wait),
        with("REBINDING", "the lease's end", after("REBINDING", &[wait]), wait),
        row("REBOOTING", "ACK of any server", other_ack),
        row("REBOOTING", "NAK of any server", other_nak),
        row("REBOOTING", "no answer", wait),
        with("REBOOTING", "no answer to the second REQUEST", after("REBOOTING", &[wait]), wait),
        with("NO CARRIER", "the lease's end", after("BOUND", &[lost]), wait),
        with("SELECTING", "the lease's end", after("REBOOTING", &[wait, wait]), |walk| {
            let end = walk.client.held.as_ref().and_then(Held::end).unwrap();
            while walk.client.deadline().unwrap() < end {
                assert_eq!(named(&walk.tick()), "DISCOVER");
            }
            walk.tick()
        }),
        with("INFORMING", "ACK", fixed(&[carrier]), ack),
        with("INFORMING", "no answer", fixed(&[carrier]), wait),
        with("INFORMING", "no answer to the second INFORM", fixed(&[carrier, wait]), wait),
        row("REQUESTING", "leave", leave),
        row("BOUND", "leave", leave),
        with("BOUND, the address is fixed", "leave", fixed(&[carrier, ack]), leave),
        row("SELECTING", "leave", leave),
    ]
}

impl Walk {
    fn lose_carrier(mut self) -> Self {
        self.step(Event::CarrierLost);
        self
    }
}

// F1, F2, F5, F6, F10, F13
#[test]
fn the_client_does_what_its_table_says() {
    let walked: Vec<String> = rows()
        .into_iter()
        .map(|(state, event, mut walk, happening)| {
            let actions = named(&happening(&mut walk));
            format!("//! | {state} | {event} | {actions} | {} |", walk.state())
        })
        .collect();
    let source = include_str!("../../client.rs");
    let table: Vec<&str> = source.lines().filter(|line| line.starts_with("//! | ")).skip(1).collect();
    assert_eq!(walked, table);
}

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
    /// There, by what happens.
    fn by(mode: Mode, ways: &[Happening]) -> Self {
        let mut walk = Self { client: client(mode, 1), now: seconds(5.0), last: None };
        for way in ways {
            way(&mut walk);
        }
        walk
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

    fn answer(&mut self, kind: Kind, number: u8, association: &[u8]) -> Vec<Action> {
        let message = answer(kind, self.last.as_ref().unwrap(), number, Some(association));
        self.step(Event::Received(&message, server(number)))
    }

    fn reply(&mut self, address: Ipv6Addr, code: u16) -> Vec<Action> {
        self.answer(Kind::Reply, 1, &association(address, 600, code))
    }

    fn hear(&mut self, advert: &Advertisement) -> Vec<Action> {
        self.now += seconds(0.1);
        self.step(Event::Advertised(advert, ROUTER))
    }

    fn address(&mut self, standing: Standing) -> Vec<Action> {
        let State::Checking(pending) = &self.client.state else { panic!("{}", self.state()) };
        let address = pending.grant.address;
        self.step(Event::Addresses(&[(OWN, Standing::Ours), (address, standing)]))
    }

    fn state(&self) -> &'static str {
        match self.client.state {
            State::NoCarrier => "NO CARRIER",
            State::Link => "LINK",
            State::Init { .. } => "INIT",
            State::Soliciting => "SOLICITING",
            State::Asking { .. } => "ASKING",
            State::Selecting { .. } => "SELECTING",
            State::Requesting { .. } => "REQUESTING",
            State::Checking(_) => "CHECKING",
            State::Routing(_) => "ROUTING",
            State::Bound => "BOUND",
            State::Renewing { .. } => "RENEWING",
            State::Rebinding { .. } => "REBINDING",
        }
    }
}

fn carrier(walk: &mut Walk) -> Vec<Action> {
    walk.after(5.0, Event::Carrier)
}

fn lost(walk: &mut Walk) -> Vec<Action> {
    walk.after(0.1, Event::CarrierLost)
}

fn link(walk: &mut Walk) -> Vec<Action> {
    walk.step(Event::Addresses(&[(OWN, Standing::Ours)]))
}

fn wait(walk: &mut Walk) -> Vec<Action> {
    walk.now = walk.client.deadline().unwrap();
    walk.step(Event::Tick)
}

fn prefixed(walk: &mut Walk) -> Vec<Action> {
    walk.hear(&advert(0, 600))
}

fn other(walk: &mut Walk) -> Vec<Action> {
    walk.hear(&advert(0x40, 600))
}

fn managed(walk: &mut Walk) -> Vec<Action> {
    walk.hear(&advert(0x80, 600))
}

fn bare(walk: &mut Walk) -> Vec<Action> {
    walk.hear(&Advertisement::parse(&advertisement(0, 1800, &[])).unwrap())
}

fn offer(walk: &mut Walk) -> Vec<Action> {
    walk.answer(Kind::Advertise, 1, &association(GIVEN, 600, status::SUCCESS))
}

fn reply(walk: &mut Walk) -> Vec<Action> {
    walk.reply(GIVEN, status::SUCCESS)
}

fn none(walk: &mut Walk) -> Vec<Action> {
    walk.reply(GIVEN, status::NO_ADDRESSES)
}

fn ours(walk: &mut Walk) -> Vec<Action> {
    walk.address(Standing::Ours)
}

fn taken(walk: &mut Walk) -> Vec<Action> {
    walk.address(Standing::Duplicate)
}

fn leave(walk: &mut Walk) -> Vec<Action> {
    walk.step(Event::Leave)
}

/// What the table calls the actions.
fn named(actions: &[Action]) -> String {
    let names: Vec<String> = actions
        .iter()
        .filter_map(|action| match action {
            Action::AskRouters => Some("ask routers".to_owned()),
            Action::Send(message) => Some(message.kind.to_string()),
            Action::Assign(..) => Some("assign".to_owned()),
            Action::Remove(_) => Some("remove".to_owned()),
            Action::Bound => Some("bound".to_owned()),
            Action::Lost => Some("lost".to_owned()),
            Action::Say(..) | Action::Ignore(_) => None,
        })
        .collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

/// Every row: the state, the event in words, and how to make it happen from that state.
fn rows() -> Vec<(&'static str, &'static str, Walk, Happening)> {
    let row = |state: &'static str, event, walk: Walk, happening: Happening| {
        assert!(state.starts_with(walk.state()) || state == "any", "{state}: {}", walk.state());
        (state, event, walk, happening)
    };
    let auto = |ways: &[Happening]| Walk::by(Mode::Auto, &[&[carrier as Happening, link], ways].concat());
    let dhcp = |ways: &[Happening]| Walk::by(Mode::Dhcp, &[&[carrier as Happening, link], ways].concat());
    // A server's lease, with a router.
    let leased = |ways: &[Happening]| dhcp(&[&[managed as Happening, offer, wait, reply, ours], ways].concat());
    let renewing = |ways: &[Happening]| leased(&[&[wait as Happening], ways].concat());
    let rebinding = |ways: &[Happening]| renewing(&[&[wait as Happening, wait, wait, wait, wait], ways].concat());
    vec![
        row("NO CARRIER", "carrier", Walk::by(Mode::Auto, &[]), carrier),
        row("any", "carrier lost", auto(&[]), lost),
        row("CHECKING", "carrier lost", auto(&[prefixed]), lost),
        row("LINK", "the link-local address is ours", Walk::by(Mode::Auto, &[carrier]), link),
        row("LINK", "the same, and a router was heard", Walk::by(Mode::Auto, &[carrier, prefixed]), link),
        row("LINK", "the same, with `dhcp6`", Walk::by(Mode::Dhcp, &[carrier]), link),
        row("LINK", "the same, with `link6`", Walk::by(Mode::LinkLocal, &[carrier]), link),
        row("LINK", "the same, a server's lease is kept", leased(&[lost, carrier]), link),
        row("LINK", "the same within 1 s of the last beginning", auto(&[lost, |w| w.after(0.1, Event::Carrier)]), link),
        row("LINK", "the link-local address is another's", Walk::by(Mode::Auto, &[carrier]), |walk| {
            walk.step(Event::Addresses(&[(OWN, Standing::Duplicate)]))
        }),
        row("LINK", "advertisement", Walk::by(Mode::Auto, &[carrier]), prefixed),
        row("INIT", "its time", auto(&[lost, |walk| walk.after(0.1, Event::Carrier), link]), wait),
        row("SOLICITING", "4 to 64 s without an advertisement", auto(&[]), wait),
        row("SOLICITING", "a prefix to make an address of", auto(&[]), prefixed),
        row("SOLICITING", "the same, and servers have more", auto(&[]), other),
        row("SOLICITING", "with `either6`, servers have addresses", Walk::by(Mode::Either, &[carrier, link]), managed),
        row("SOLICITING", "nothing to make an address of", auto(&[]), bare),
        row(
            "SOLICITING",
            "the prefix of the lease that is kept",
            auto(&[prefixed, ours, lost, carrier, link]),
            prefixed,
        ),
        row("ASKING", "REPLY", auto(&[other]), |walk| {
            let message = answer(Kind::Reply, walk.last.as_ref().unwrap(), 1, None);
            walk.step(Event::Received(&message, server(1)))
        }),
        row("ASKING", "no answer", auto(&[other]), wait),
        row("ASKING", "no answer to the second", auto(&[other, wait]), wait),
        row("SELECTING", "ADVERTISE", dhcp(&[]), offer),
        row("SELECTING", "ADVERTISE that boots nodes, or of the highest preference", dhcp(&[]), |walk| {
            let message = given(Kind::Advertise, walk.last.as_ref().unwrap(), 1).with(option::PREFERENCE, &[255]);
            walk.step(Event::Received(&message, server(1)))
        }),
        row("SELECTING", "ADVERTISE without an address", dhcp(&[]), |walk| {
            walk.answer(Kind::Advertise, 1, &association(GIVEN, 0, status::NO_ADDRESSES))
        }),
        row("SELECTING", "300 ms after the first ADVERTISE", dhcp(&[offer]), wait),
        row("SELECTING", "1 s and twice as long each time without one", dhcp(&[]), wait),
        row("REQUESTING", "REPLY", dhcp(&[offer, wait]), reply),
        row("REQUESTING", "REPLY without an address", dhcp(&[offer, wait]), none),
        row("REQUESTING", "no answer", dhcp(&[offer, wait]), wait),
        row("REQUESTING", "no answer to the fourth REQUEST", dhcp(&[managed, offer, wait, wait, wait, wait]), wait),
        row("CHECKING", "the address is ours", auto(&[prefixed]), ours),
        row("CHECKING", "the same, of a server, and no router was heard", dhcp(&[offer, wait, reply]), ours),
        row("CHECKING", "the address is another's", auto(&[prefixed]), taken),
        row("CHECKING", "the same, of a server", dhcp(&[offer, wait, reply]), taken),
        row("CHECKING", "10 s", auto(&[prefixed]), wait),
        row("ROUTING", "advertisement", dhcp(&[offer, wait, reply, ours]), managed),
        row("ROUTING", "4 s after routers were asked", dhcp(&[offer, wait, reply, ours]), |walk| {
            let mut actions = wait(walk);
            while walk.state() == "ROUTING" {
                actions = wait(walk);
            }
            actions
        }),
        row("BOUND", "advertisement with the address's prefix", auto(&[prefixed, ours]), prefixed),
        row("BOUND", "the end of the router's prefix", auto(&[prefixed, ours]), wait),
        row("BOUND", "T1", leased(&[]), wait),
        row("RENEWING", "REPLY", renewing(&[]), reply),
        row("RENEWING", "REPLY with another address", renewing(&[]), |walk| walk.reply(MADE, status::SUCCESS)),
        row("RENEWING", "REPLY that knows nothing of it", renewing(&[]), |walk| walk.reply(GIVEN, status::NO_BINDING)),
        row("RENEWING", "REPLY that refuses", renewing(&[]), none),
        row("RENEWING", "10 s and twice as long each time", renewing(&[]), wait),
        row("RENEWING", "T2", renewing(&[wait, wait, wait, wait]), wait),
        row("REBINDING", "REPLY of any server", rebinding(&[]), |walk| {
            walk.answer(Kind::Reply, 2, &association(GIVEN, 600, status::SUCCESS))
        }),
        row("REBINDING", "REPLY that the address is not of this link", rebinding(&[]), |walk| {
            walk.reply(GIVEN, status::NOT_ON_LINK)
        }),
        row("REBINDING", "10 s and twice as long each time", rebinding(&[]), wait),
        row("REBINDING", "the lease's end", rebinding(&[]), |walk| {
            let end = walk.client.held.as_ref().and_then(Held::end).unwrap();
            while walk.client.deadline().unwrap() < end {
                assert_eq!(named(&wait(walk)), "REBIND");
            }
            wait(walk)
        }),
        row("NO CARRIER", "the lease's end", leased(&[lost]), wait),
        row("REQUESTING", "leave", dhcp(&[offer, wait]), leave),
        row("BOUND, of a server", "leave", leased(&[]), leave),
        row("BOUND", "leave", auto(&[prefixed, ours]), leave),
    ]
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

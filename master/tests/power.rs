//! Power, consoles and boots through real simulators of BMCs, which switch a program instead of a machine.

// Helpers of tests, outside a test function: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{TestSite, stderr};
use rootstream_lab::bmc::board::{Board, switched_by};
use rootstream_lab::bmc::ipmi::{CIPHER, IpmiBmc};
use rootstream_lab::bmc::redfish::RedfishBmc;
use rootstream_lab::bmc::tools::{Tools, emulator};
use rootstream_lab::bmc::{PASSWORD, USER};

/// A site with tools, and with nodes whose BMCs are on loopback.
struct Powered {
    site: TestSite,
    tools: Tools,
    folder: tempfile::TempDir,
}

impl Powered {
    fn new() -> Self {
        let site = TestSite::new("br0", "172.16.0.254/24");
        let powered = Self { site, tools: Tools::unpack().unwrap(), folder: tempfile::tempdir().unwrap() };
        powered.password("bmc", PASSWORD, 0o600);
        powered
    }

    fn password(&self, name: &str, password: &str, mode: u32) {
        let file = self.site.path(name);
        fs::write(&file, format!("{password}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }

    /// Adds node number `number` with a BMC at `address`, of which `more` says the rest.
    fn node(&self, number: u8, address: SocketAddr, more: &str) {
        let mut text = fs::read_to_string(self.site.path("nodes.toml")).unwrap_or_default();
        text.push_str(&format!(
            "[[node]]\nname = 'n{number}'\nmac = '52:54:00:ac:10:{number:02x}'\nip = '172.16.0.{number}'\n[node.bmc]\n\
             ip = '{}'\nport = {}\nuser = '{USER}'\n{more}\n",
            address.ip(),
            address.port(),
        ));
        fs::write(self.site.path("nodes.toml"), text).unwrap();
    }

    /// A board that does nothing with its power but run.
    fn board(&self, name: &str) -> (Board, PathBuf) {
        let folder = self.folder.path().join(name);
        (Board::new(&folder.join("board"), "sleep", &["900".to_owned()]).unwrap(), folder)
    }

    /// A board behind IPMI, node number `number`; its serial port is where `console` listens.
    fn ipmi(&self, number: u8, console: SocketAddr, more: &str) -> (Board, IpmiBmc) {
        let (board, folder) = self.board(&format!("n{number}"));
        let address = free(number);
        let bmc = IpmiBmc::start(&self.tools, &folder, &board, address, console).unwrap();
        self.node(number, address, &format!("cipher = {CIPHER}\n{more}"));
        (board, bmc)
    }

    fn run(&self, words: &[&str]) -> Output {
        self.tools.lend(&mut self.site.command()).args(words).output().unwrap()
    }

    fn done(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An address of its own on loopback, with a port that nobody has for UDP or TCP.
fn free(number: u8) -> SocketAddr {
    let ip = IpAddr::from([127, 0, 7, number]);
    loop {
        let address = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Where nobody listens.
const NOBODY: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

const FILE: &str = "password_file = 'bmc'";

#[test]
fn power_goes_on_off_and_round_through_ipmi() {
    let powered = Powered::new();
    let (board, _bmc) = powered.ipmi(1, NOBODY.into(), FILE);
    assert!(powered.done(&["power", "status", "n1"]).starts_with("n1: off, "));
    assert!(powered.done(&["power", "on", "n1"]).starts_with("n1: on (was off), "));
    let first = board.pid().unwrap();
    assert_eq!(switched_by(first).unwrap().as_deref(), Some("ipmi"));
    assert!(powered.done(&["power", "on", "n1"]).starts_with("n1: on (was on), "));
    assert_eq!(board.pid(), Some(first));
    assert!(powered.done(&["power", "cycle", "n1"]).starts_with("n1: on (was on), "));
    let second = board.pid().unwrap();
    assert_ne!(first, second);
    powered.done(&["power", "reset", "n1"]);
    assert_ne!(board.pid().unwrap(), second);
    assert!(powered.done(&["power", "off", "n1", "--soft"]).starts_with("n1: off (was on), "));
    assert_eq!(board.pid(), None);
    let output = powered.run(&["power", "reset", "n1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("n1 is off, and there is nothing to reset; what to do: "), "{}", stdout(&output));
    // Off, it is not cycled but switched on.
    assert!(powered.done(&["power", "cycle", "n1"]).starts_with("n1: on (was off), "));
    let json: serde_json::Value = serde_json::from_str(&powered.done(&["power", "off", "n1", "--json"])).unwrap();
    assert_eq!(
        (&json[0]["node"], &json[0]["ok"], &json[0]["state"], &json[0]["was"]),
        (&"n1".into(), &true.into(), &"off".into(), &"on".into())
    );
    let info = powered.done(&["bmc", "info", "n1"]);
    assert!(info.contains("\n  bmc firmware  9.08\n"), "{info}");
}

// M16
#[test]
fn a_bmc_that_fails_holds_nobody_up() {
    let powered = Powered::new();
    powered.password("wrong", "not-that-one", 0o600);
    let (good, _first) = powered.ipmi(1, NOBODY.into(), FILE);
    powered.node(2, free(2), FILE);
    let (locked, _third) = powered.ipmi(3, NOBODY.into(), "password_file = 'wrong'");
    let (slow, _fourth) = powered.ipmi(4, NOBODY.into(), FILE);
    slow.make_slow().unwrap();
    powered.node(5, free(5), "password_file = 'open'");
    powered.password("open", PASSWORD, 0o644);
    let start = Instant::now();
    let output = powered.run(&["power", "on", "n[1-5]", "--timeout", "25"]);
    let said = stdout(&output);
    let line =
        |node: &str| said.lines().find(|line| line.starts_with(node)).unwrap_or_else(|| panic!("no {node}: {said}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(line("n1").starts_with("n1: on (was off), "), "{said}");
    assert!(line("n2").contains("(ipmi at 127.0.7.2) for `chassis power status`: it does not answer; what to do: see whether 127.0.7.2 answers"), "{said}");
    assert!(
        line("n3").contains("it does not take the password; what to do: write the password of admin into "),
        "{said}"
    );
    assert!(line("n4").contains("(ipmi at 127.0.7.4) for `chassis power status`: "), "{said}");
    assert!(line("n5").contains("is for others to read"), "{said}");
    assert!(stderr(&output).contains("4 of 5 nodes failed: "), "{}", stderr(&output));
    assert!(good.pid().is_some() && locked.pid().is_none());
    // At once, not one after the other; a busy machine may double it.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(!said.contains(PASSWORD) && !stderr(&output).contains(PASSWORD));
}

// M17
#[test]
fn a_dry_run_says_who_waits_how_long_and_touches_nothing() {
    let powered = Powered::new();
    for number in 1..=3 {
        powered.node(number, free(number), FILE);
    }
    let said = powered.done(&["power", "on", "n[1-3]", "--dry-run", "--stagger", "1500"]);
    let last = said.lines().last().unwrap();
    assert_eq!(last, "n3: would be told: on, through the BMC of n3 (ipmi at 127.0.7.3) as admin, after 3.0 s");
    let said = powered.done(&["boot", "n1,n2", "--dry-run"]);
    assert!(said.lines().last().unwrap().ends_with(", after 0.5 s"), "{said}");
}

#[test]
fn nodes_are_named_and_have_bmcs_or_nothing_is_done() {
    let powered = Powered::new();
    let (board, _bmc) = powered.ipmi(1, NOBODY.into(), FILE);
    for words in [&["power", "on"][..], &["power", "off"], &["boot"], &["console"]] {
        assert_eq!(powered.run(words).status.code(), Some(2), "{words:?}");
    }
    powered.site.done(&["node", "add", "n2", "--mac", "52:54:00:ac:10:02", "--ip", "172.16.0.2"]);
    let output = powered.run(&["power", "on", "n1,n2"]);
    assert!(stderr(&output).contains("no BMC of n2 is known"), "{}", stderr(&output));
    assert_eq!((output.status.code(), board.pid()), (Some(1), None));
    let output = powered.run(&["console", "n[1-2]"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn power_goes_through_redfish() {
    let powered = Powered::new();
    let modules = emulator().unwrap();
    let (board, folder) = powered.board("n1");
    let (board, address) = (Arc::new(board), free(1));
    let bmc = RedfishBmc::start(&modules, &folder, &board, address, ("n1", "52:54:00:ac:10:01")).unwrap();
    let node = |more: &str| {
        fs::write(powered.site.path("nodes.toml"), "").unwrap();
        powered.node(1, address, &format!("protocol = 'redfish'\n{more}"));
    };
    let failed = |words: &[&str]| {
        let output = powered.run(words);
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        stdout(&output)
    };
    // A certificate that nobody vouches for is not believed.
    node(FILE);
    let said = failed(&["power", "status", "n1"]);
    assert!(said.contains("what to do: name who signed its certificate in nodes.toml"), "{said}");
    let trusted = format!("ca = '{}'", bmc.certificate().display());
    powered.password("wrong", "not-that-one", 0o600);
    node(&format!("{trusted}\npassword_file = 'wrong'"));
    let said = failed(&["power", "status", "n1"]);
    assert!(said.contains("it does not take the user admin with this password (401); what to do: "), "{said}");

    node(&format!("{trusted}\n{FILE}"));
    assert!(powered.done(&["power", "status", "n1"]).starts_with("n1: off, "));
    // What it is told it does after up to 11 s.
    assert!(powered.done(&["power", "on", "n1"]).starts_with("n1: on (was off), "));
    assert_eq!(switched_by(board.pid().unwrap()).unwrap().as_deref(), Some("redfish"));
    node(&format!("insecure = true\n{FILE}"));
    let info: serde_json::Value = serde_json::from_str(&powered.done(&["bmc", "info", "n1", "--json"])).unwrap();
    assert_eq!(info[0]["ports"][0]["mac"], "52:54:00:ac:10:01", "{info:#}");
    assert!(powered.done(&["power", "off", "n1"]).starts_with("n1: off (was on), "));
    assert_eq!(board.pid(), None);
    drop(bmc);
    let said = failed(&["power", "status", "n1", "--timeout", "10"]);
    assert!(said.contains("what to do: see whether 127.0.7.1 answers"), "{said}");
}

/// The serial port of a board: what is written to it comes out at the console. The simulator holds on to it for all of its
/// life, so there is one connection for all sessions.
struct Serial {
    listener: TcpListener,
    stream: OnceLock<TcpStream>,
}

impl Serial {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), stream: OnceLock::new() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn stream(&self) -> &TcpStream {
        self.stream.get_or_init(|| {
            let stream = self.listener.accept().unwrap().0;
            stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
            stream
        })
    }

    fn say(&self, words: &str) {
        self.stream().write_all(words.as_bytes()).unwrap();
    }

    fn hear(&self, enough: &str) -> String {
        let (mut typed, mut bytes) = (String::new(), [0; 256]);
        while !typed.contains(enough) {
            let count = self.stream().read(&mut bytes).unwrap();
            assert!(count > 0, "the console was closed after {typed:?}");
            typed.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        typed
    }
}

/// Reads until these words came.
fn read_until(child: &mut Child, words: &str) -> String {
    let (mut said, mut bytes) = (String::new(), [0; 256]);
    let out = child.stdout.as_mut().unwrap();
    while !said.contains(words) {
        let count = out.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended after {said:?}");
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    said
}

#[test]
fn a_console_shows_types_ends_and_is_kept() {
    let powered = Powered::new();
    let serial = Serial::new();
    let (_board, _bmc) = powered.ipmi(1, serial.address(), FILE);
    let start = |words: &[&str]| {
        let mut console = powered.site.command();
        powered.tools.lend(&mut console).args(["console", "n1"]).args(words);
        console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut console = start(&[]);
    read_until(&mut console, "SOL Session operational");
    serial.say("n1 login: ");
    read_until(&mut console, "n1 login: ");
    console.stdin.as_mut().unwrap().write_all(b"root\r").unwrap();
    assert_eq!(serial.hear("\r"), "root\r");
    // Someone else is refused, and told how to take it.
    let second = start(&["--log"]).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("rootstream console --take n1"), "{}", stderr(&second));
    console.stdin.as_mut().unwrap().write_all(b"~.").unwrap();
    let output = console.wait_with_output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("`~.` at the start of a line ends it"), "{output:?}");
    let log = powered.site.read("log/console/n1.log");
    assert!(log.contains("rootstream console follows this console") && log.contains("n1 login: "), "{log}");
    // Without input a signal ends it, and the BMC has no session left behind.
    for _ in 0..2 {
        let mut watching = start(&["--log"]);
        read_until(&mut watching, "SOL Session operational");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(watching.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert!(watching.wait().unwrap().success());
    }
}

#[test]
fn a_boot_is_followed_to_its_end() {
    let powered = Powered::new();
    let serial = Serial::new();
    let (board, _bmc) = powered.ipmi(1, serial.address(), FILE);
    let boot = |said: &str, words: &[&str]| {
        let (before, over) = (board.pid(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let started = || board.pid().is_some() && board.pid() != before;
                while !started() && !over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(20));
                }
                serial.say(said);
            });
            let output = powered.run(&[&["boot", "n1"], words].concat());
            over.store(true, Ordering::SeqCst);
            output
        })
    };
    let output = boot("Linux version 6.1.0\r\n\r\nDebian GNU/Linux 12 n1 ttyS0\r\n\r\nn1 login: ", &[]);
    let said = stdout(&output);
    assert!(output.status.success() && said.starts_with("n1: `n1 login:` "), "{said}{}", stderr(&output));
    assert_eq!(board.boot_device().as_deref(), Some("pxe"));
    let first = board.pid().unwrap();

    let message = "[ 3.1] rootstream: boot failed: installing the image http://m/i.tar\r\n\
                   [ 3.1] rootstream:   why: 404 Not Found\r\n[ 3.1] rootstream:   what to do: check the URL\r\n\
                   [ 3.1] rootstream:   now: rebooting in 30 s\r\n";
    let output = boot(message, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let what = json[0]["error"]["what"].as_str().unwrap();
    assert!(
        what.contains(
            "boot failed: installing the image http://m/i.tar; why: 404 Not Found; what to do: check the URL"
        ),
        "{what}"
    );
    // It was on, so it was switched off first.
    assert_ne!(board.pid().unwrap(), first);
    assert!(powered.site.read("log/console/n1.log").contains("404 Not Found"));

    let output = boot("SeaBIOS (version 1.16)\r\n", &["--timeout", "5"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    assert!(
        said.contains("n1 showed no login prompt within 5 s; its console's last line: SeaBIOS (version 1.16)"),
        "{said}"
    );
}

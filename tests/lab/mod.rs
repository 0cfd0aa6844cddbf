//! A server's network namespace, a node's, and wires between them.
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use rootstream::dhcp::wire::{Kind, Message, Op, option};
use rootstream::net::{ClientId, Destination, Settings};
use rootstream_lab::namespace::{enter_private_network, ip};
use serde_json::Value;
use tempfile::TempDir;

/// What each node logged, by the name of its network namespace: a node may have several threads.
static LINES: Mutex<BTreeMap<PathBuf, Vec<String>>> = Mutex::new(BTreeMap::new());

/// The lines of all nodes.
fn all_lines() -> MutexGuard<'static, BTreeMap<PathBuf, Vec<String>>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn this_node() -> PathBuf {
    fs::read_link("/proc/thread-self/ns/net").unwrap()
}

/// Keeps each node's lines apart: every test has a node.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("rootstream")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) && record.level() <= log::Level::Info {
            all_lines().entry(this_node()).or_default().push(record.args().to_string());
        }
        if self.enabled(record.metadata()) {
            println!("{} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// What this node logged so far that starts with these words, but DISCOVERs.
pub(crate) fn lines(start: &str) -> Vec<String> {
    let lines = all_lines();
    let lines = lines.get(&this_node()).into_iter().flatten();
    lines.filter(|line| line.starts_with(start) && !line.contains(" DISCOVER ")).cloned().collect()
}

/// To take any port, with little patience.
pub(crate) fn settings() -> Settings {
    Settings {
        ports: Vec::new(),
        bootif: None,
        client_id: ClientId::Mac,
        carrier: Duration::from_secs(15),
        dhcp: Duration::from_secs(15),
        nameservers: Vec::new(),
        ip: Vec::new(),
        routes: Vec::new(),
        names: Vec::new(),
        bonds: Vec::new(),
        vlans: Vec::new(),
        destination: Destination::Anywhere,
    }
}

/// What the kernel command line says about the network, with little patience.
pub(crate) fn settings_of(line: &str) -> Settings {
    let common = "rootstream.image=http://master/i.tar rootstream.carrier=15s rootstream.dhcp=15s";
    let net = rootstream::cmdline::parse(&format!("{common} {line}")).check().unwrap().net;
    Settings { destination: Destination::Anywhere, ..net }
}

/// What a test's server answers with, with the fields of every answer filled in.
pub(crate) fn reply(kind: Kind, to: &Message, server: [u8; 4], address: [u8; 4]) -> Message {
    let mut message = Message::request(kind, to.xid, to.chaddr)
        .with(option::SERVER, server)
        .with(option::SUBNET_MASK, [255, 255, 255, 0])
        .with(option::LEASE_TIME, 600_u32.to_be_bytes());
    message.op = Op::Reply;
    message.yiaddr = address.into();
    message
}
type Job = Box<dyn FnOnce() + Send>;

/// The calling thread is the server's side; the node has a thread of its own.
pub(crate) struct Lab {
    folder: TempDir,
    node: Sender<Job>,
    node_thread: i32,
}

impl Lab {
    /// Moves the calling thread into a namespace of its own, and makes another for the node.
    pub(crate) fn new() -> Self {
        // Only the first test's call can succeed.
        if log::set_logger(&Logger).is_ok() {
            log::set_max_level(log::LevelFilter::Debug);
        }
        enter_private_network().unwrap();
        let (node, jobs) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            enter_private_network().unwrap();
            // The kernel may give a namespace the name of one that is gone.
            all_lines().remove(&this_node());
            // As the kernel leaves it.
            ip("link set lo down").unwrap();
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in jobs {
                job();
            }
        });
        Self { folder: tempfile::tempdir().unwrap(), node, node_thread: told.recv().unwrap() }
    }

    /// Lays a wire from the node's `port` to `end` here, which is up and has `address`.
    pub(crate) fn wire(&self, port: &str, mac: &str, end: &str, address: &str) {
        let node = self.node_thread;
        ip(&format!("link add {end} type veth peer name {port} address {mac} netns {node}")).unwrap();
        ip(&format!("addr add {address} dev {end}")).unwrap();
        ip(&format!("link set {end} up")).unwrap();
        // What is for one host must be sent to its MAC.
        fs::write(format!("/proc/sys/net/ipv4/conf/{end}/drop_unicast_in_l2_multicast"), "1").unwrap();
    }

    /// Runs `work` on the node.
    pub(crate) fn node<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = move || {
            let _ = tell.send(catch_unwind(AssertUnwindSafe(work)));
        };
        self.node.send(Box::new(job)).unwrap();
        told.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs `ip` here after a while; the thread returns when it did.
    pub(crate) fn later(&self, delay: Duration, words: &'static str) -> JoinHandle<Instant> {
        thread::spawn(move || {
            thread::sleep(delay);
            let now = Instant::now();
            ip(words).unwrap();
            now
        })
    }

    /// Starts dnsmasq on `end`.
    pub(crate) fn dnsmasq(&self, end: &str, words: &[&str]) -> Server {
        let leases = self.folder.path().join(format!("{end}.leases"));
        let common = [
            "--conf-file=/dev/null",
            "--keep-in-foreground",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--no-ping",
            "--bind-interfaces",
            "--except-interface=lo",
            "--log-dhcp",
            "--pid-file=",
        ];
        let log = self.folder.path().join(format!("{end}.log"));
        let mut command = Command::new("dnsmasq");
        command.args(common).arg(format!("--interface={end}")).arg(format!("--dhcp-leasefile={}", leases.display()));
        command.arg(format!("--log-facility={}", log.display()));
        if !words.iter().any(|word| word.starts_with("--port=")) {
            command.arg("--port=0");
        }
        command.args(words);
        let routes = words.contains(&"--enable-ra");
        let ready = if routes { "IPv6 router advertisement enabled" } else { "sockets bound exclusively to interface" };
        Server::start(command, &log, ready)
    }

    /// Starts ISC dhcpd, which is at `program`, on `end`.
    pub(crate) fn dhcpd(&self, program: &Path, end: &str, configuration: &str) -> Server {
        self.dhcpd_of("-4", program, end, configuration)
    }

    /// The same for IPv6.
    pub(crate) fn dhcpd6(&self, program: &Path, end: &str, configuration: &str) -> Server {
        self.dhcpd_of("-6", program, end, configuration)
    }

    fn dhcpd_of(&self, version: &str, program: &Path, end: &str, configuration: &str) -> Server {
        let file = |name: &str| self.folder.path().join(format!("{end}.{name}"));
        fs::write(file("conf"), configuration).unwrap();
        fs::write(file("leases"), "").unwrap();
        let mut command = Command::new(program);
        command
            .args([version, "-f", "-d", "--no-pid", "-cf"])
            .arg(file("conf"))
            .arg("-lf")
            .arg(file("leases"))
            .arg(end);
        Server::start(command, &file("log"), "Server starting service")
    }

    /// Starts lldpd, unpacked with its libraries into `folders`, on `end`, as a switch of this name that speaks every
    /// second. All of it ends with the server.
    pub(crate) fn lldpd(&self, folders: &[PathBuf], end: &str, name: &str) -> Server {
        // It wants a user, and a folder in /run: in a mount namespace of its own it has both.
        let script = r#"
            set -e
            mount --make-rprivate /
            for file in passwd group; do cp "/etc/$file" "$LAB/$file"; done
            echo '_lldpd:x:65533:65533::/:/bin/false' >>"$LAB/passwd"
            echo '_lldpd:x:65533:' >>"$LAB/group"
            for file in passwd group; do mount --bind "$LAB/$file" "/etc/$file"; done
            mount -t tmpfs tmpfs /run
            mkdir /run/lldpd
            echo "$NAME" >/proc/sys/kernel/hostname
            (while sleep 1; do "$BIN/lldpcli" update; done) &
            # The kernel forgets whose end is to be its end when lldpd gives rights away: the shell stays, and takes all along.
            "$BIN/lldpd" -ddd -I "$END" -L "$BIN/lldpcli"
        "#;
        let libraries = folders.iter().flat_map(|folder| {
            ["usr/lib", "lib"].map(|lib| folder.join(lib).join(format!("{}-linux-gnu", std::env::consts::ARCH)))
        });
        let libraries: Vec<String> = libraries.map(|folder| folder.display().to_string()).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", script]);
        command.env("LAB", self.folder.path()).env("BIN", folders[0].join("usr/sbin")).env("END", end);
        command.env("NAME", name).env("LD_LIBRARY_PATH", libraries.join(":"));
        Server::start(command, &self.folder.path().join("lldpd.log"), "protocol LLDP enabled")
    }

    /// Answers each message that comes in on `end` with what `answer` makes of it, by broadcast.
    pub(crate) fn script(&self, end: &str, mut answer: impl FnMut(&Message) -> Vec<Message> + Send + 'static) {
        // A real server may have another port of the namespace.
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
        setsockopt(&socket, sockopt::BindToDevice, &end.into()).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 67)).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_broadcast(true).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = socket.recv(&mut buffer) {
                let message = Message::parse(&buffer[..length]).unwrap();
                for reply in answer(&message) {
                    socket.send_to(&reply.to_bytes(), "255.255.255.255:68").unwrap();
                }
            }
        });
    }
}

/// A tar with an init that is found and never run, and something to download.
pub(crate) fn image() -> Vec<u8> {
    let mut elf = [0; 120];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, data) in [("sbin/init", 0o755, &elf[..]), ("data", 0o644, &[7; 2 << 20])] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Rehearses a boot on the node; exit code and record.
pub(crate) fn rehearse(lab: &Lab, parameters: &str) -> (i32, Value) {
    let parameters = parameters.to_owned();
    lab.node(move || {
        let root = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_init"));
        command.args(["rehearse", "--json", "--net", "--root"]).arg(root.path()).args(["--cmdline", &parameters]);
        let output = command.output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
    })
}

/// A running server; ended when dropped.
pub(crate) struct Server {
    child: Child,
    log: std::path::PathBuf,
}

impl Server {
    fn start(mut command: Command, log: &Path, ready: &str) -> Self {
        let output = fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let server = Self { child, log: log.to_owned() };
        server.wait_for_line(ready);
        server
    }

    /// How often the server has logged these words.
    pub(crate) fn count(&self, words: &str) -> usize {
        fs::read_to_string(&self.log).unwrap().matches(words).count()
    }

    /// Waits until the server has logged these words.
    pub(crate) fn wait_for_line(&self, words: &str) {
        let started = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            if log.contains(words) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "the server never said \"{words}\":\n{log}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Printed so that libtest keeps it for tests that fail.
        print!("{}", fs::read_to_string(&self.log).unwrap_or_default());
    }
}

/// What `ip` shows of the calling thread's namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    ports: Vec<SeenPort>,
    /// IPv4 routes, sorted, such as `default via 10.0.0.1` or `10.0.0.0/24 on link`.
    pub(crate) routes: Vec<String>,
}

/// One port as `ip` shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SeenPort {
    name: String,
    pub(crate) up: bool,
    pub(crate) mac: String,
    pub(crate) mtu: u64,
    /// IPv4 addresses, such as `10.0.0.1/24`.
    pub(crate) addresses: Vec<String>,
}

impl Seen {
    /// Whether there is a port of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.ports.iter().any(|port| port.name == name)
    }

    /// The port of this name.
    pub(crate) fn port(&self, name: &str) -> &SeenPort {
        self.ports.iter().find(|port| port.name == name).unwrap()
    }
}

/// Asks `ip`, not the code under test.
pub(crate) fn ports_and_routes() -> Seen {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ports = json("-j addr").into_iter().fold(Vec::new(), |mut ports, port| {
        if ports.iter().all(|known: &SeenPort| known.name != text(&port["ifname"])) {
            let addresses = port["addr_info"].as_array().into_iter().flatten().filter(|a| a["family"] == "inet");
            ports.push(SeenPort {
                name: text(&port["ifname"]),
                up: port["flags"].as_array().unwrap().contains(&"UP".into()),
                mac: text(&port["address"]),
                mtu: port["mtu"].as_u64().unwrap(),
                addresses: addresses.map(|a| format!("{}/{}", text(&a["local"]), a["prefixlen"])).collect(),
            });
        }
        ports
    });
    let mut routes: Vec<String> = json("-4 -j route")
        .iter()
        .map(|route| match route["gateway"].as_str() {
            Some(gateway) => format!("{} via {gateway}", text(&route["dst"])),
            None => format!("{} on link", text(&route["dst"])),
        })
        .collect();
    routes.sort();
    Seen { ports, routes }
}

fn json(words: &str) -> Vec<Value> {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

//! `/init` as a real PID 1, in PID, mount and network namespaces instead of a virtual machine: a whole boot
//! to the image's init, and the ends of those that fail. In a PID namespace reboot(2) ends PID 1 with
//! SIGHUP for a reboot and SIGINT for switching off, which tells them apart.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod lab;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::Lab;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rootstream_lab::faulty::{Server, answer};
use tempfile::TempDir;

const MAC: &str = "52:54:00:ac:10:01";
const IMAGE: &str = "rootstream.image=http://172.16.0.254/i.tar";
const REBOOTED: Option<i32> = Some(Signal::SIGHUP as i32);
const SWITCHED_OFF: Option<i32> = Some(Signal::SIGINT as i32);

/// Becomes PID 1 of an initramfs made of `$1`: a tmpfs with our /init, a kernel command line of the
/// test's own, and a file where the kernel log would be. What is mounted already the agent leaves alone.
/// The libraries are there because the tests' /init is not the static one.
const ENTER: &str = r#"
set -e
mount -t tmpfs -o mode=755 initramfs "$1/root"
cd "$1/root"
mkdir proc dev
cp "$1/init" init
for library in $(ldd init | grep -o '/[^ ]*'); do mkdir -p ".${library%/*}"; cp "$library" ".$library"; done
mount -t proc proc proc
mount --bind "$1/cmdline" proc/cmdline
mount -o bind,ro proc/sys proc/sys
mount -t devtmpfs dev dev
mount --bind "$1/kmsg" dev/kmsg
if [ -e "$1/sh" ]; then mkdir bin; cp "$1/sh" bin/sh; mount --bind "$1/console" dev/console; fi
exec chroot . /init
"#;

/// A machine that is being booted.
struct Machine {
    folder: TempDir,
    unshare: Child,
}

impl Machine {
    /// Starts /init with these parameters in the calling thread's network namespace.
    fn start(parameters: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), parameters)
    }

    /// The same, with a shell in the initramfs that reads from a console on which nobody ever types.
    fn start_with_shell(parameters: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::copy("/usr/bin/wc", folder.path().join("sh")).unwrap();
        nix::unistd::mkfifo(&folder.path().join("console"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        Self::start_in(folder, parameters)
    }

    fn start_in(folder: TempDir, parameters: &str) -> Self {
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_init"), folder.path().join("init")).unwrap();
        fs::write(folder.path().join("cmdline"), format!("{parameters}\n")).unwrap();
        fs::write(folder.path().join("kmsg"), "").unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            ENTER,
            "sh",
        ]);
        unshare.arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let unshare = unshare.spawn().unwrap();
        Self { folder, unshare }
    }

    /// The kernel log's lines, without level and name.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("kmsg")).unwrap();
        log.lines().map(|line| line.split_once("rootstream: ").map_or(line, |(_, text)| text).to_owned()).collect()
    }

    fn wait_for_line(&self, start: &str) {
        let began = Instant::now();
        while !self.log().iter().any(|line| line.starts_with(start)) {
            assert!(began.elapsed() < Duration::from_secs(20), "no line {start:?} in {:#?}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The host's process ids of PID 1 and of its children.
    fn processes(&self) -> (Pid, Vec<Pid>) {
        let init = children(self.unshare.id())[0];
        (Pid::from_raw(init), children(init as u32).into_iter().map(Pid::from_raw).collect())
    }

    /// The worker is the child that asks to be killed first.
    fn worker(&self) -> Pid {
        let score = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
        let (_, children) = self.processes();
        children.into_iter().find(|pid| score(pid).trim() == "1000").unwrap()
    }

    /// Waits for the end, and returns the lines of the final message with it.
    fn end(mut self) -> (Output, Vec<String>) {
        let began = Instant::now();
        while self.unshare.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(40), "it goes on: {:#?}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        let lines = self.log().into_iter().skip_while(|line| !line.starts_with("boot failed: ")).collect();
        (self.unshare.wait_with_output().unwrap(), lines)
    }
}

fn children(pid: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A network with a DHCP server, and the image's server at 172.16.0.254.
fn served(image: Vec<u8>) -> (Lab, Vec<Box<dyn std::any::Any>>) {
    let lab = wired();
    let servers = serve(&lab, image);
    (lab, servers)
}

/// A network without servers.
fn wired() -> Lab {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab
}

fn serve(lab: &Lab, image: Vec<u8>) -> Vec<Box<dyn std::any::Any>> {
    let dnsmasq = lab.dnsmasq(
        "srv0",
        &[
            "--dhcp-range=172.16.0.0,static,255.255.255.0,1h",
            "--dhcp-host=52:54:00:ac:10:01,172.16.0.1,n1",
            "--dhcp-option=option:dns-server,172.16.0.254",
        ],
    );
    let http = Server::start_at("172.16.0.254:80".parse().unwrap(), move |_, stream| {
        answer(stream, "200 OK", &[("ETag", "\"1\"")], &image)
    });
    vec![Box::new(dnsmasq), Box::new(http.unwrap())]
}

/// An image of busybox whose init is this script.
fn image(init: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, data).unwrap();
    };
    for folder in ["bin/", "sbin/", "etc/"] {
        put(folder, tar::EntryType::Directory, 0o755, b"");
    }
    put("bin/sh", tar::EntryType::Regular, 0o755, &fs::read("/bin/busybox").unwrap());
    put("sbin/init", tar::EntryType::Regular, 0o755, init.as_bytes());
    builder.into_inner().unwrap()
}

/// The same, with /bin/busybox by its own name.
fn with_busybox(init: &str) -> Vec<u8> {
    let mut bytes = image(init);
    // busybox finds the tool to be in its own name.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_mode(0o755);
    header.set_size(0);
    builder.append_link(&mut header, "bin/busybox", "bin/sh").unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(builder.into_inner().unwrap());
    bytes
}

#[test]
fn a_whole_boot_ends_in_the_images_init() {
    let init = "#!/bin/sh\n\
        echo \"pid $$ arguments $*\"\n\
        echo \"root $(busybox stat -f -c %T /) at $(busybox pwd), old gone $([ -e /init ] || echo yes)\"\n\
        busybox cat /etc/hostname /etc/resolv.conf /run/rootstream/boot.json\n\
        busybox ls -d /proc/1 /dev/null /sys/class\n\
        trap\n\
        busybox grep -E '^Sig(Blk|Ign)' /proc/self/status\n"
        .replace("busybox", "/bin/busybox");
    let bytes = with_busybox(&init);
    let (lab, _servers) = served(bytes);
    let (output, message) = lab.node(|| Machine::start(&format!("{IMAGE} -- single \"two words\"")).end());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(message.is_empty(), "{message:#?}");
    assert!(stdout.starts_with("pid 1 arguments single two words\n"), "{stdout} {stderr}");
    assert!(stdout.contains("root tmpfs at /, old gone yes\n"), "{stdout} {stderr}");
    assert!(stdout.contains("\nn1\nnameserver 172.16.0.254\n"), "{stdout}");
    assert!(
        stdout.contains("/proc/1\n") && stdout.contains("/dev/null\n") && stdout.contains("/sys/class\n"),
        "{stdout}"
    );
    for field in ["SigBlk:\t", "SigIgn:\t"] {
        let mask = stdout.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        // 32 and 33 are the C library's own.
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff, 0, "{field}{mask}");
    }
    let json = &stdout[stdout.find('{').unwrap()..=stdout.rfind('}').unwrap()];
    let record: serde_json::Value = serde_json::from_str(json).unwrap();
    let steps: Vec<&str> = record["steps"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["modules", "network", "image", "hand-over"]);
    assert_eq!((&record["ok"], &record["lease"]["address"]), (&true.into(), &"172.16.0.1".into()));
    assert_eq!(output.status.code(), Some(0));
}

/// The same as a squashfs.
fn squashfs(init: &str) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let (tree, file) = (folder.path().join("tree"), folder.path().join("file"));
    fs::create_dir(&tree).unwrap();
    tar::Archive::new(image(init).as_slice()).unpack(&tree).unwrap();
    let mut tool = Command::new("mksquashfs");
    tool.arg(&tree).arg(&file).args(["-quiet", "-no-progress", "-comp", "zstd"]);
    let output = tool.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(file).unwrap()
}

#[test]
fn a_whole_boot_over_ipv6_ends_in_the_images_init() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "fd00::1/64 nodad");
    let bytes = with_busybox("#!/bin/sh\n/bin/busybox cat /etc/hostname /etc/resolv.conf /run/rootstream/lease.json\n");
    let _web = Server::start_at("[fd00::1]:8080".parse().unwrap(), move |_, stream| {
        answer(stream, "200 OK", &[("ETag", "\"1\"")], &bytes)
    });
    let line = "rootstream.image=http://[fd00::1]:8080/i.tar ip=[fd00::9]::[fd00::1]:64:n9:eth0:none:[fd00::1]";
    let (output, message) = lab.node(move || Machine::start(line).end());
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(message.is_empty(), "{message:#?}");
    assert!(stdout.starts_with("n9\nnameserver fd00::1\n"), "{stdout} {stderr}");
    assert!(stdout.contains("\"address\": \"fd00::9\""), "{stdout}");
}

#[test]
fn a_whole_boot_from_squashfs_ends_in_an_overlay() {
    let init = "#!/bin/sh\n\
        echo \"pid $$, new $(echo yes >/new && cat /new), root:\"\n\
        while read -r id parent device from at rest; do echo \"at $at ${rest##* - }\"; done </proc/self/mountinfo\n\
        echo /run/rootstream/*\n\
        echo /run/rootstream/image/*\n\
        while read -r line; do echo \"$line\"; done </run/rootstream/boot.json\n"
        .replace("cat /new", "read -r new </new; echo $new");
    let (lab, _servers) = served(squashfs(&init));
    let (output, message) = lab.node(|| Machine::start(IMAGE).end());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(message.is_empty(), "{message:#?}");
    assert!(stdout.starts_with("pid 1, new yes, root:\n"), "{stdout} {stderr}");
    assert!(stdout.contains("\nat / overlay rootstream rw,"), "{stdout}");
    assert!(stdout.contains("\nat /run/rootstream/image tmpfs rootstream ro,"), "{stdout}");
    assert!(!stdout.contains("/lower ") && !stdout.contains("at / squashfs"), "{stdout}");
    let left = ["boot.json", "image", "lease.json"].map(|name| format!("/run/rootstream/{name}")).join(" ");
    assert!(stdout.contains(&format!("\n{left}\n/run/rootstream/image/image.squashfs\n")), "{stdout}");
    let json = &stdout[stdout.find('{').unwrap()..=stdout.rfind('}').unwrap()];
    let record: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((&record["ok"], &record["image"]["media"]), (&true.into(), &"squashfs".into()));
}

// F61
#[test]
fn a_refused_image_follows_the_policy() {
    let (lab, _servers) = served(image("#!/bin/nothing\n"));
    let (output, message) = lab.node(|| Machine::start(&format!("{IMAGE} rootstream.onfail=poweroff")).end());
    assert_eq!(output.status.signal(), SWITCHED_OFF, "{output:?}");
    assert_eq!(message[0], "boot failed: the image http://172.16.0.254/i.tar has no usable init at /sbin/init");
    assert!(
        message[1].starts_with("  why: /sbin/init needs /bin/nothing to run: /bin/nothing is not there"),
        "{message:#?}"
    );
    assert_eq!(message.len(), 4, "{message:#?}");
}

// F56: not only the OOM killer.
#[test]
fn a_worker_that_crashes_is_an_ordinary_failure() {
    let lab = wired();
    let (output, message) = lab.node(|| {
        let machine = Machine::start(&format!("{IMAGE} rootstream.onfail=poweroff"));
        machine.wait_for_line("dhcp: eth0: DISCOVER 1");
        // Rust's own handler lets the first one pass if no access caused it.
        let worker = machine.worker();
        kill(worker, Signal::SIGSEGV).unwrap();
        thread::sleep(Duration::from_millis(200));
        kill(worker, Signal::SIGSEGV).unwrap();
        machine.end()
    });
    assert_eq!(output.status.signal(), SWITCHED_OFF, "{output:?}");
    assert_eq!(message[0], "boot failed: the process that boots the node died");
    assert!(message[1].starts_with("  why: it was killed by SIGSEGV; MemTotal: "), "{message:#?}");
}

// F56
#[test]
fn a_worker_that_panics_says_what_and_where() {
    let lab = wired();
    let machine = lab.node(|| Machine::start(&format!("{IMAGE} rootstream.onfail=poweroff")));
    machine.wait_for_line("dhcp: eth0: DISCOVER 1");
    // Without address space for a stack the standard library panics where a thread is started.
    let worker = machine.worker();
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = format!("--as={}", (kib + 5120) * 1024);
    assert!(Command::new("prlimit").args(["--pid", &worker.to_string(), &limit]).status().unwrap().success());
    let _servers = serve(&lab, image("#!/bin/sh\n"));
    let (output, message) = machine.end();
    assert_eq!(output.status.signal(), SWITCHED_OFF, "{output:?}");
    assert_eq!(message[0], "boot failed: stage 1 met a fault of its own");
    assert!(message[1].starts_with("  why: panicked at "), "{message:#?}");
    assert_eq!(message.last().unwrap(), "  now: switching off (rootstream.onfail=)");
}

// F58
#[test]
fn signals_end_the_boot_in_their_own_ways() {
    for (signal, end) in [(Signal::SIGTERM, REBOOTED), (Signal::SIGINT, REBOOTED), (Signal::SIGPWR, SWITCHED_OFF)] {
        let lab = wired();
        let (output, _) = lab.node(move || {
            let machine = Machine::start(IMAGE);
            machine.wait_for_line("dhcp: eth0: DISCOVER 1");
            let (init, _) = machine.processes();
            // PIPE, HUP and USR1 do nothing to PID 1.
            for harmless in [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGUSR1] {
                kill(init, harmless).unwrap();
            }
            thread::sleep(Duration::from_millis(200));
            assert_eq!(machine.processes().0, init);
            kill(init, signal).unwrap();
            machine.end()
        });
        assert_eq!(output.status.signal(), end, "{signal}: {output:?}");
    }
}

// F57
#[test]
fn orphans_are_reaped() {
    let lab = wired();
    lab.node(|| {
        let machine = Machine::start(IMAGE);
        machine.wait_for_line("dhcp: eth0: DISCOVER 1");
        let (init, before) = machine.processes();
        // A process whose parent ends at once becomes PID 1's.
        let enter = ["--target", &init.to_string(), "--pid", "sh", "-c", "(sleep 0.5) &"];
        assert!(Command::new("nsenter").args(enter).status().unwrap().success());
        let began = Instant::now();
        while machine.processes().1.len() == before.len() {
            assert!(began.elapsed() < Duration::from_secs(5), "the orphan never came");
        }
        while machine.processes().1.len() > before.len() {
            assert!(began.elapsed() < Duration::from_secs(5), "not reaped: {:?}", machine.processes());
            thread::sleep(Duration::from_millis(20));
        }
        kill(init, Signal::SIGTERM).unwrap();
        machine.end();
    });
}

// F59
#[test]
fn a_boot_without_descriptors_and_console_goes_its_way() {
    let folder = TempDir::new().unwrap();
    let closed = folder.path().join("closed");
    fs::write(&closed, "#!/bin/sh\nexec 0<&- 1>&- 2>&-\nexec \"$@\"\n").unwrap();
    let machine = with_parameters_in(&folder, "rootstream.onfail=poweroff");
    let status = Command::new("sh")
        .arg(&closed)
        .args(["unshare", "--pid", "--fork", "--kill-child", "--mount", "--net", "--propagation", "private"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(&machine)
        .status()
        .unwrap();
    assert_eq!(status.signal(), SWITCHED_OFF, "{status:?}");
    let log = fs::read_to_string(machine.join("kmsg")).unwrap();
    assert!(log.contains("why: rootstream.image= is missing"), "{log}");
}

fn with_parameters_in(folder: &TempDir, parameters: &str) -> PathBuf {
    let machine: &Path = folder.path();
    fs::create_dir(machine.join("root")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_init"), machine.join("init")).unwrap();
    fs::write(machine.join("cmdline"), format!("{parameters}\n")).unwrap();
    fs::write(machine.join("kmsg"), "").unwrap();
    machine.to_owned()
}

// F10
#[test]
fn a_shell_has_a_network_whose_lease_is_renewed() {
    let _ = rootstream_lab::packages::unpacked("isc-dhcp-server").unwrap();
    let lab = wired();
    let program = rootstream_lab::packages::unpacked("isc-dhcp-server").unwrap().join("usr/sbin/dhcpd");
    let configuration = "authoritative; default-lease-time 8; max-lease-time 8; min-lease-time 8;
         subnet 172.16.0.0 netmask 255.255.255.0 { range 172.16.0.9 172.16.0.10; ping-check false; }";
    let dhcpd = lab.dhcpd(&program, "srv0", configuration);
    let machine =
        lab.node(|| Machine::start_with_shell(&format!("{IMAGE} rootstream.retry=1s rootstream.onfail=shell")));
    machine.wait_for_line("  now: starting a shell on the console");
    // As long as two leases.
    let before = dhcpd.count("DHCPACK on 172.16.0.9");
    let began = Instant::now();
    while dhcpd.count("DHCPACK on 172.16.0.9") < before + 3 {
        assert!(began.elapsed() < Duration::from_secs(40), "{:#?}", machine.log());
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((dhcpd.count("DHCPRELEASE"), dhcpd.count("DHCPDISCOVER")), (0, 1));
    // The shell ends, and the node reboots.
    let is_shell = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default() == "sh\n";
    let (_, children) = machine.processes();
    assert!(children.contains(&machine.worker()), "{children:?}");
    kill(children.into_iter().find(is_shell).unwrap(), Signal::SIGKILL).unwrap();
    let (output, _) = machine.end();
    assert_eq!(output.status.signal(), REBOOTED);
}

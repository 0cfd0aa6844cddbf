//! `rootstream config`: each server's own opinion of what is written for it, and real servers that boot from it.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{TestSite, image, shell, stderr};
use rootstream_lab::bound::Bound;
use rootstream_lab::classic::{Classic, FILES, Programs, nginx_configuration};
use rootstream_lab::namespace::{enter_private_network, ip};
use rootstream_lab::packages::unpacked;

const MASTER: &str = "172.16.0.254";

/// A site whose folder has a name that every syntax must cope with or refuse.
fn site() -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.done(&["node", "add", "n1", "--mac", "52:54:00:ac:10:01", "--ip", "172.16.0.1", "--parameters", "own=1"]);
    site.done(&["node", "add", "If-2", "--mac", "52:54:00:AC:10:02", "--ip", "172.16.0.2", "--image", "other"]);
    site.built("compute", &image(&[]));
    site.done(&["image", "publish", "compute"]);
    fs::write(site.path("agent"), "agent").unwrap();
    site.done(&["bootstrap", "compute", "--init", site.path("agent").to_str().unwrap()]);
    site
}

/// The same with all of `[network]` filled in.
fn full_site() -> TestSite {
    let site = site();
    let config = site.read("site.toml");
    let keys = ["gateway", "dns", "domain", "lease", "ipv6_prefix"];
    let config = keys.iter().fold(config, |text, key| text.replace(&format!("# {key} ="), &format!("{key} =")));
    fs::write(site.path("site.toml"), config.replace("\"172.16.0.254\"        # the", "\"172.16.0.253\" # the"))
        .unwrap();
    site
}

/// Writes the configuration of `server` into a folder of its name.
fn write(site: &TestSite, server: &str) -> PathBuf {
    let folder = site.path(&format!("written/{server}"));
    site.done(&["config", server, "--output", folder.to_str().unwrap()]);
    folder
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    output
}

/// Kea's server and its libraries.
fn kea(scratch: &Path) -> Command {
    let [server, common] = ["kea-dhcp4-server", "kea-common"].map(|package| unpacked(package).unwrap());
    let mut kea = Command::new(server.join("usr/sbin/kea-dhcp4"));
    let libraries = [&server, &common].map(|folder| {
        folder.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)).display().to_string()
    });
    kea.env("LD_LIBRARY_PATH", libraries.join(":")).env("KEA_LOCKFILE_DIR", scratch).env("KEA_PIDFILE_DIR", scratch);
    kea.env("KEA_LFC_EXECUTABLE", common.join("usr/sbin/kea-lfc"));
    kea
}

/// Each server with its checker, on what is written of this site.
fn check(site: &TestSite) {
    let programs = Programs::unpacked().unwrap();
    let written = |server: &str, file: &str| write(site, server).join(file);
    let dnsmasq = written("dnsmasq", "rootstream.conf");
    let said = shell("PATH=$PATH:/usr/sbin dnsmasq --test --conf-file=\"$1\" 2>&1", &dnsmasq);
    assert!(said.contains("syntax check OK"), "{said}");

    let leases = site.path("leases");
    fs::write(&leases, "").unwrap();
    let mut dhcpd = Command::new(&programs.dhcpd);
    dhcpd.args(["-t", "-cf"]).arg(written("isc-dhcp", "rootstream.conf")).arg("-lf").arg(&leases);
    let said = stderr(&succeeds(&mut dhcpd));
    assert!(!said.contains("warning") && !said.contains("line "), "{said}");

    let said = succeeds(kea(&site.path("")).arg("-t").arg(written("kea", "kea-dhcp4.conf")));
    let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), stderr(&said));
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");

    let whole = site.path("nginx.conf");
    fs::write(&whole, nginx_configuration(&written("nginx", "rootstream.conf"), &site.path(""))).unwrap();
    let said = stderr(&succeeds(Command::new(&programs.nginx).args(["-t", "-e", "stderr", "-c"]).arg(&whole)));
    assert!(said.contains("test is successful") && !said.contains("[warn]"), "{said}");

    // As Debian's start script reads them.
    let options = shell(
        ". \"$1\"; printf '%s|' $TFTP_USERNAME $TFTP_ADDRESS $TFTP_OPTIONS $TFTP_DIRECTORY",
        &written("tftpd", "tftpd-hpa"),
    );
    assert_eq!(options, format!("tftp|{MASTER}:69|--secure|{}|", site.path("tftp").display()));
}

/// A private network with the master's bridge, and on it the port of node n1.
fn network() {
    enter_private_network().unwrap();
    for words in [
        "link add br0 type bridge",
        "addr add 172.16.0.254/24 dev br0",
        "link add port type veth peer name n1",
        "link set port master br0",
        "link set n1 address 52:54:00:ac:10:01",
        "link set br0 up",
        "link set port up",
        "link set n1 up",
    ] {
        ip(words).unwrap();
    }
}

/// Everything that must come from elsewhere, before there is no way there any more.
fn fetch() -> Programs {
    for package in ["kea-dhcp4-server", "kea-common"] {
        unpacked(package).unwrap();
    }
    Programs::unpacked().unwrap()
}

#[test]
fn every_server_takes_what_is_written_for_it() {
    fetch();
    network();
    check(&site());
    let full = full_site();
    fs::write(full.path("site.toml"), full.read("site.toml").replace("\"1h\"", "\"infinite\"")).unwrap();
    check(&full);
}

/// What a client learns that asks as `architecture` (option 93) and this vendor class, `name=value` a line; nothing where
/// nobody answers.
fn udhcpc(site: &TestSite, mac: &str, architecture: u16, class: &str) -> String {
    ip(&format!("link set n1 address {mac}")).unwrap();
    let (script, lease) = (site.path("lease.sh"), site.path("lease"));
    fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && env > \"$LEASE\"\nexit 0\n").unwrap();
    shell("chmod +x \"$1\"", &script);
    let _ = fs::remove_file(&lease);
    let mut client = Command::new("busybox");
    client.args(["udhcpc", "-i", "n1", "-n", "-q", "-f", "-t", "15", "-T", "1", "-O", "hostname", "-O", "60"]);
    client.args(["-x", &format!("0x5d:{architecture:04x}"), "-V", class, "-s"]).arg(script);
    client.env_clear().env("PATH", "/usr/bin:/bin").env("LEASE", &lease);
    let _ = client.output().unwrap();
    fs::read_to_string(lease).unwrap_or_default()
}

/// What every DHCP server must tell the nodes of [`full_site`], as the one of `up` does.
fn assert_leases(site: &TestSite) {
    let has = |leased: &str, lines: &[&str]| {
        for line in lines {
            assert!(leased.lines().any(|l| l == *line), "{line} is not in {leased}");
        }
    };
    let bios = udhcpc(site, "52:54:00:ac:10:01", 0, "PXEClient:Arch:00000:UNDI:002001");
    has(
        &bios,
        &["ip=172.16.0.1", "hostname=n1", "subnet=255.255.255.0", "broadcast=172.16.0.255", "router=172.16.0.253"],
    );
    has(&bios, &["lease=3600", "siaddr=172.16.0.254", "domain=cluster.example.org", "dns=172.16.0.254"]);
    has(&bios, &["boot_file=pxelinux.0"]);
    let uefi = udhcpc(site, "52:54:00:ac:10:02", 7, "PXEClient:Arch:00007:UNDI:003016");
    has(&uefi, &["ip=172.16.0.2"]);
    assert!(!uefi.contains("pxelinux.0"), "{uefi}");
    assert!(uefi.lines().any(|line| line.eq_ignore_ascii_case("hostname=If-2")), "{uefi}");
    let unknown = udhcpc(site, "52:54:00:ac:10:77", 0, "PXEClient:Arch:00000:UNDI:002001");
    has(&unknown, &["boot_file=pxelinux.0"]);
    assert!(unknown.contains("ip=172.16.0.2") && !unknown.contains("ip=172.16.0.2\n"), "{unknown}");
    assert!(!bios.contains("vendor="), "{bios}");
    let stage_1 = udhcpc(site, "52:54:00:ac:10:01", 0, "rootstream");
    has(&stage_1, &["ip=172.16.0.1", "vendor=rootstream"]);
}

#[test]
fn dhcpd_tells_what_up_would() {
    let programs = fetch();
    network();
    let site = full_site();
    for (server, _) in FILES {
        write(&site, server);
    }
    for (server, file) in FILES {
        let target = site.path("classic").join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(site.path("written").join(server).join(target.file_name().unwrap()), &target).unwrap();
    }
    let _servers = Classic::start(&programs, &site.path("classic"), &site.path("log"), "br0").unwrap();
    assert_leases(&site);
}

#[test]
fn kea_tells_what_up_would() {
    fetch();
    network();
    let site = full_site();
    let file = write(&site, "kea").join("kea-dhcp4.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/var/lib/kea", site.path("").to_str().unwrap())).unwrap();
    let log = site.path("kea.log");
    let out = fs::File::create(&log).unwrap();
    let prepared = kea(&site.path(""));
    let _kea = Bound::start(prepared.get_program().to_str().unwrap(), |command| {
        command.envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.arg("-c").arg(&file).stdout(out.try_clone().unwrap()).stderr(out)
    })
    .unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    wait("Kea starts", || {
        assert!(!said().contains("DHCP4_INIT_FAIL"), "{}", said());
        said().contains("DHCP4_STARTED")
    });
    assert_leases(&site);
}

#[test]
fn dnsmasq_tells_what_up_would() {
    network();
    let site = full_site();
    let file = write(&site, "dnsmasq").join("rootstream.conf");
    let log = site.path("dnsmasq.log");
    let out = fs::File::create(&log).unwrap();
    let _dnsmasq = Bound::start("dnsmasq", |command| {
        command.args(["--keep-in-foreground", "--user=root", "--pid-file=", "--log-facility=-"]);
        command.arg(format!("--dhcp-leasefile={}", site.path("leases").display()));
        command.arg(format!("--conf-file={}", file.display())).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stderr(out)
    })
    .unwrap();
    wait("dnsmasq starts", || fs::read_to_string(&log).unwrap().contains("TFTP root is"));
    assert_leases(&site);
    let asked = Command::new("busybox").args(["nslookup", "If-2.cluster.example.org", MASTER]).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).contains("Address: 172.16.0.2\n"), "{asked:?}");
}

/// A busy machine takes its time.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

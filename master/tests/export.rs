//! `rootstream config`: each server's own opinion of what is written for it, and real servers that boot from it.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{TestSite, image, shell, stderr};
use rootstream_lab::bound::Bound;
use rootstream_lab::classic::{Classic, FILES, Programs, nginx_configuration};
use rootstream_lab::namespace::{enter_private_network, ip};
use rootstream_lab::packages::unpacked;
use rootstream_master::config::site::Site;
use rootstream_master::up::http::Server;

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

    check_nginx(&programs, site, &written("nginx", "rootstream.conf"));

    // As Debian's start script reads them.
    let options = shell(
        ". \"$1\"; printf '%s|' $TFTP_USERNAME $TFTP_ADDRESS $TFTP_OPTIONS $TFTP_DIRECTORY",
        &written("tftpd", "tftpd-hpa"),
    );
    assert_eq!(options, format!("tftp|{MASTER}:69|--secure|{}|", site.path("tftp").display()));
}

fn check_nginx(programs: &Programs, site: &TestSite, file: &Path) {
    let whole = site.path("nginx.conf");
    fs::write(&whole, nginx_configuration(file, &site.path(""))).unwrap();
    let said = stderr(&succeeds(Command::new(&programs.nginx).args(["-t", "-e", "stderr", "-c"]).arg(&whole)));
    assert!(said.contains("test is successful") && !said.contains("[warn]"), "{said}");
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
    // A path that nginx's syntax has its own ideas of; tftpd-hpa and dnsmasq refuse such.
    let moved = full.path("..").join("it's a {\"site\"; \\");
    assert!(Command::new("cp").arg("-a").arg(full.path("")).arg(&moved).status().unwrap().success());
    let folder = full.path("moved");
    let mut config = Command::new(common::program());
    succeeds(config.arg("--site").arg(&moved).args(["config", "nginx", "--output"]).arg(&folder));
    check_nginx(&Programs::unpacked().unwrap(), &full, &folder.join("rootstream.conf"));
}

/// A site of odd names, with nothing published.
fn odd_site() -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    fs::write(
        site.path("site.toml"),
        "[network]\ninterface = 'enp1s0f0.7'\naddress = '10.7.255.254/13'\nrange = '10.0.1.0-10.0.1.255'\n\
         gateway = '10.0.0.1'\ndns = ['10.7.255.254', '10.0.0.2']\ndomain = '3com.x--y.example'\nlease = 'infinite'\n\
         ipv6_prefix = 'fd00::/64'\n[http]\nport = 8080\n\
         [defaults]\nimage = 'compute'\nparameters = 'console=ttyS1,9600 a=\"b;{c}\" # $x'\n",
    )
    .unwrap();
    let nodes = [
        ("0a", "mac = '02-00-00-AB-CD-EF'", "10.0.0.10", ""),
        ("If", "mac = '02:00:00:00:00:01'", "10.0.0.11", "[node.bmc]\nmac = '02:00:00:00:00:02'\nip = '10.0.0.12'\n"),
        ("range-1", "", "10.0.0.13", "[node.bmc]\nip = '192.168.7.1'\n"),
    ];
    let entry = |(name, mac, ip, more): (&str, &str, &str, &str)| {
        format!("[[node]]\nname = '{name}'\n{mac}\nip = '{ip}'\n{more}\n")
    };
    fs::write(site.path("nodes.toml"), nodes.map(entry).concat()).unwrap();
    site
}

// With ROOTSTREAM_WRITE_GOLDEN=1 the files are written anew; look at the difference before it is committed.
#[test]
fn the_files_of_a_site_of_odd_names_are_these() {
    let site = odd_site();
    for server in ["dnsmasq", "isc-dhcp", "kea", "tftpd", "nginx", "pxelinux"] {
        let text =
            site.done(&["config", server]).replace(site.path("").to_str().unwrap().trim_end_matches('/'), "/srv/odd");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{server}.txt"));
        if std::env::var_os("ROOTSTREAM_WRITE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&golden).unwrap(), "{server}");
    }
    // A server that is not root must be able to read.
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o750)).unwrap();
    let said = stderr(&site.run(&["config", "nginx"]));
    assert!(said.contains("site can be entered by its owner and group only, so nginx answers 404\n"), "{said}");
    // What the administrator does with it is on stderr too.
    let said = stderr(&site.run(&["config", "isc-dhcp"]));
    assert!(said.contains("check:    dhcpd -t -cf /etc/dhcp/dhcpd.conf\n"), "{said}");
}

#[test]
fn what_a_syntax_cannot_hold_is_refused_by_name() {
    let site = odd_site();
    let refused = |folder: &Path, server: &str, message: &str| {
        let output =
            Command::new(common::program()).arg("--site").arg(folder).args(["config", server]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{server}: {}", stderr(&output));
        assert!(stderr(&output).contains(message) && output.stdout.is_empty(), "{server}: {}", stderr(&output));
    };
    let here = site.path("");
    let before = site.read("nodes.toml");
    for name in ["007", "7d", "5M", "ignore", "Infinite"] {
        fs::write(site.path("nodes.toml"), before.replace("'If'", &format!("'{name}'"))).unwrap();
        refused(&here, "dnsmasq", &format!("dnsmasq would take the name {name} for a lease time"));
        site.done(&["config", "isc-dhcp"]);
    }
    for name in ["d7", "7-d", "d", "ignored"] {
        fs::write(site.path("nodes.toml"), before.replace("'If'", &format!("'{name}'"))).unwrap();
        site.done(&["config", "dnsmasq"]);
    }
    let config = site.read("site.toml");
    fs::write(site.path("site.toml"), config.replace("enp1s0f0.7", "br*")).unwrap();
    refused(&here, "dnsmasq", "dnsmasq would not take br* for the name of one interface");
    for (folder, server, message) in [
        ("a $b", "nginx", "nginx cannot have the path "),
        ("a b", "tftpd", "tftpd-hpa cannot serve the folder "),
        ("a\nb", "isc-dhcp", "no configuration file can hold the path "),
    ] {
        let moved = site.path("..").join(folder);
        fs::create_dir_all(&moved).unwrap();
        fs::copy(site.path("site.toml"), moved.join("site.toml")).unwrap();
        refused(&moved, server, message);
    }
}

#[test]
fn files_of_others_stay() {
    let site = odd_site();
    let folder = site.path("etc");
    let out = folder.to_str().unwrap();
    fs::create_dir_all(folder.join("pxelinux.cfg")).unwrap();
    let theirs = "pxelinux.cfg/01-02-00-00-00-00-01";
    let stranger = "pxelinux.cfg/01-02-00-00-00-00-99";
    fs::write(folder.join(theirs), "theirs").unwrap();
    fs::write(folder.join(stranger), "theirs").unwrap();
    let output = site.run(&["config", "pxelinux", "--output", out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("{theirs} is there already, and was not written by rootstream")));
    assert!(
        !folder.join("pxelinux.cfg/default").exists() && !folder.join("pxelinux.0").exists(),
        "nothing was changed"
    );
    site.done(&["config", "pxelinux", "--output", out, "--force"]);
    // Its own it replaces without being told, and takes away when the node is gone.
    let nodes = site.read("nodes.toml");
    fs::write(site.path("nodes.toml"), nodes.replace("02-00-00-AB-CD-EF", "02-00-00-AB-CD-EE")).unwrap();
    site.done(&["config", "pxelinux", "--output", out]);
    let mut menus: Vec<_> =
        fs::read_dir(folder.join("pxelinux.cfg")).unwrap().map(|e| e.unwrap().file_name()).collect();
    menus.sort();
    assert_eq!(menus, ["01-02-00-00-00-00-01", "01-02-00-00-00-00-99", "01-02-00-00-ab-cd-ee", "default"]);
    assert_eq!(fs::read_to_string(folder.join(stranger)).unwrap(), "theirs");
    assert!(fs::read_to_string(folder.join(theirs)).unwrap().starts_with("# Written by `rootstream config pxelinux`"));
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

/// The classic trio, with what is written of this site.
fn classic(site: &TestSite, programs: &Programs) -> Classic {
    for (server, file) in FILES {
        let folder = site.path("classic").join(file);
        site.done(&["config", server, "--output", folder.parent().unwrap().to_str().unwrap()]);
    }
    Classic::start(programs, &site.path("classic"), &site.path("log"), "br0").unwrap()
}

#[test]
fn dhcpd_tells_what_up_would_and_tftpd_has_the_menus() {
    let programs = fetch();
    network();
    let site = full_site();
    let folder = site.path("tftp");
    site.done(&["config", "pxelinux", "--output", folder.to_str().unwrap()]);
    let _servers = classic(&site, &programs);
    assert_leases(&site);
    let tftp = |path: &str| {
        let output = succeeds(Command::new("curl").args(["-sSf", "-m", "20", &format!("tftp://{MASTER}/{path}")]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(tftp("pxelinux.0").len() > 10_000 && tftp("ldlinux.c32").len() > 10_000);
    let menu = tftp("pxelinux.cfg/01-52-54-00-ac-10-01");
    assert!(menu.starts_with("# Written by `rootstream config pxelinux`"), "{menu}");
    assert!(menu.contains("SERIAL 0 115200\nDEFAULT linux\n") && menu.contains(" own=1\n  IPAPPEND 2\n"), "{menu}");
    let kernel = menu.lines().find_map(|line| line.trim().strip_prefix("KERNEL ")).unwrap();
    assert_eq!(tftp(kernel), "kernel".repeat(1000));
}

/// Status, the headers that both servers have a say in, and the body.
fn fetched(words: &[&str], url: &str) -> (String, Vec<String>, Vec<u8>) {
    let mut curl = Command::new("curl");
    let output = succeeds(curl.args(["-sS", "-i", "--path-as-is", "-m", "20"]).args(words).arg(url));
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output.stdout[..end]).to_lowercase();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let named = ["content-type", "content-length", "content-range", "cache-control"];
    let mut headers: Vec<_> =
        lines.filter(|line| named.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect();
    headers.sort();
    (status, headers, output.stdout[end + 4..].to_vec())
}

// M8-10
#[test]
fn nginx_answers_as_up_does() {
    let programs = fetch();
    network();
    let site = site();
    fs::create_dir_all(site.path("overlays/common/etc")).unwrap();
    fs::write(site.path("overlays/common/etc/motd"), "hello").unwrap();
    let overlay = site.done(&["overlay", "publish", "common"]);
    let overlay = overlay.trim().strip_prefix("store").unwrap();
    let builds = fs::read_dir(site.path("store/compute")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut builds: Vec<String> = builds.map(|name| name.into_string().unwrap()).collect();
    builds.retain(|name| !name.starts_with('.'));
    assert_eq!(builds.len(), 3, "{builds:?}");
    fs::write(site.path("store/compute/b.json.minisig"), "signature").unwrap();
    fs::write(site.path("store/compute/.hidden"), "half").unwrap();
    fs::create_dir_all(site.path("store/compute/sub/more")).unwrap();
    std::os::unix::fs::symlink("../../site.toml", site.path("store/compute/out")).unwrap();
    std::os::unix::fs::symlink("/etc", site.path("store/etc")).unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind((MASTER, 8080))).unwrap();
    let server = Server::new(&Site::open(&site.path("")).unwrap(), listener).unwrap();
    runtime.spawn(server.run(std::future::pending(), Duration::ZERO));
    let _servers = classic(&site, &programs);
    let same = |words: &[&str], path: &str, status: &str| {
        let [up, nginx] = [8080, 80].map(|port| fetched(words, &format!("http://{MASTER}:{port}{path}")));
        assert_eq!(up, nginx, "{words:?} {path}");
        assert_eq!(nginx.0, status, "{words:?} {path}: {nginx:?}");
        nginx.1
    };
    for build in &builds {
        same(&[], &format!("/images/compute/{build}"), "200");
    }
    let archive = builds.iter().find(|name| name.ends_with(".tar.zst")).unwrap();
    let archive = format!("/images/compute/{archive}");
    for words in [&["-r", "5-9"][..], &["-r", "5-"], &["-r", "-7"], &["-I"], &["-I", "-r", "5-9"]] {
        same(words, &archive, if words.contains(&"-r") { "206" } else { "200" });
    }
    assert!(same(&[], &archive, "200").contains(&"cache-control: public, max-age=31536000, immutable".to_owned()));
    assert!(same(&[], "/images/compute/latest.json", "200").contains(&"cache-control: max-age=5".to_owned()));
    same(&[], "/images/compute/b.json.minisig", "200");
    same(&[], overlay, "200");
    same(&[], "/overlays/common/latest.json", "200");
    same(&[], &format!("/boot/compute/vmlinuz-{}", common::RELEASE), "200");
    for hidden in [
        "/",
        "/images",
        "/images/",
        "/images/compute",
        "/images/compute/",
        "/images/compute/missing",
        "/images/compute/.hidden",
        "/images/compute/sub",
        "/images/compute/sub/more",
        "/images/compute/out",
        "/images/etc/passwd",
        "/images/../site.toml",
        "/images/compute/../../site.toml",
        "/images/%2e%2e/site.toml",
        "/site.toml",
        "/keys/site.key",
    ] {
        same(&[], hidden, "404");
    }
    assert_eq!(fetched(&["-d", "x"], &format!("http://{MASTER}{archive}")).0, "405");
    assert_eq!(fetched(&["-r", "99999999-"], &format!("http://{MASTER}{archive}")).0, "416");
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

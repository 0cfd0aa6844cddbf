//! Kernel and initramfs out of an image.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;

use common::{RELEASE, TestSite, image, shell, stderr};

fn site() -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.built("compute", &image(&[]));
    fs::write(site.path("agent"), "#!/agent\n").unwrap();
    fs::write(site.path("modules.txt"), "# test\nvirtio-net csum=0\ne1000\nnothing_such\n").unwrap();
    site
}

fn bootstrap(site: &TestSite, more: &[&str]) -> std::process::Output {
    let (agent, modules) = (site.path("agent"), site.path("modules.txt"));
    let mut words = vec!["bootstrap", "compute", "--init", agent.to_str().unwrap()];
    words.extend(["--modules", modules.to_str().unwrap()]);
    words.extend(more);
    site.run(&words)
}

// F59, F63
#[test]
fn the_initramfs_holds_the_agent_and_the_modules_it_needs() {
    let site = site();
    let output = bootstrap(&site, &["--shell", "/bin/busybox"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("the kernel {RELEASE} has no modules nothing_such\n")));
    let initramfs = site.path(&format!("tftp/compute/initramfs-{RELEASE}.img"));
    let names = shell("zstd -dcq < \"$1\" | cpio -it --quiet", &initramfs);
    let files: Vec<_> = names.lines().filter(|name| name.contains('.') || !name.starts_with("lib")).collect();
    let modules = format!("lib/modules/{RELEASE}");
    let expected = [
        "bin",
        "bin/sh",
        "dev",
        "dev/console",
        "dev/null",
        "init",
        &modules,
        &format!("{modules}/kernel"),
        &format!("{modules}/kernel/net"),
        &format!("{modules}/kernel/net/virtio_net.ko"),
        &format!("{modules}/kernel/virtio.ko"),
        &format!("{modules}/modules.alias"),
        &format!("{modules}/modules.builtin"),
        &format!("{modules}/modules.dep"),
        &format!("{modules}/modules.not-packed"),
        &format!("{modules}/modules.options"),
        &format!("{modules}/modules.softdep"),
        "modules.txt",
        "proc",
        "run",
        "sys",
    ];
    assert_eq!(files, expected);
    let file = |name: &str| shell(&format!("zstd -dcq < \"$1\" | cpio -i --quiet --to-stdout '{name}'"), &initramfs);
    assert_eq!(file(&format!("{modules}/kernel/virtio.ko")), "what it is plugged into");
    assert_eq!(
        file(&format!("{modules}/modules.dep")),
        "kernel/net/virtio_net.ko: kernel/virtio.ko\nkernel/virtio.ko:\n"
    );
    assert_eq!(file("modules.txt"), site.read("modules.txt"));
    assert_eq!(file("init"), "#!/agent\n");
    let devices = shell("zstd -dcq < \"$1\" | cpio -itv --quiet 'dev/*'", &initramfs);
    assert!(devices.contains("crw-------") && devices.contains("5,   1"), "{devices}");
    assert!(devices.contains("crw-rw-rw-") && devices.contains("1,   3"), "{devices}");
    assert_eq!(fs::read(site.path(&format!("tftp/compute/vmlinuz-{RELEASE}"))).unwrap(), b"kernel".repeat(1000));
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let made = [0; 2].map(|_| {
        let site = site();
        assert!(bootstrap(&site, &[]).status.success());
        fs::read(site.path(&format!("tftp/compute/initramfs-{RELEASE}.img"))).unwrap()
    });
    assert_eq!(made[0], made[1]);
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let site = site();
    fs::remove_file(site.path("agent")).unwrap();
    let said = stderr(&bootstrap(&site, &[]));
    assert!(said.contains("reading the agent") && said.contains("--init PATH"), "{said}");
    fs::write(site.path("agent"), "").unwrap();
    let mut empty = tar::Builder::new(Vec::new());
    empty.finish().unwrap();
    site.built("compute", &empty.into_inner().unwrap());
    let output = bootstrap(&site, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("holds no kernel"), "{}", stderr(&output));
    assert!(stderr(&site.run(&["bootstrap", "other"])).contains("rootstream image build other"));
}

/// What an initramfs says about its certificates.
fn certificates(site: &TestSite, epoch: Option<&str>) -> (String, String) {
    let (agent, modules) = (site.path("agent"), site.path("modules.txt"));
    let mut command = std::process::Command::new(common::program());
    command.arg("--site").arg(site.path("")).args(["bootstrap", "compute", "--init"]).arg(agent);
    command.arg("--modules").arg(modules).env_remove("SOURCE_DATE_EPOCH");
    command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let initramfs = site.path(&format!("tftp/compute/initramfs-{RELEASE}.img"));
    let file = |name: &str| shell(&format!("zstd -dcq < \"$1\" | cpio -i --quiet --to-stdout '{name}'"), &initramfs);
    (file("tls/*.pem"), file("built"))
}

// F65
#[test]
fn certificates_are_packed_with_the_time_that_it_is_at_least() {
    let site = site();
    let pem = rcgen::generate_simple_self_signed(["master".to_owned()]).unwrap();
    fs::create_dir_all(site.path("tls")).unwrap();
    assert_eq!(certificates(&site, None), (String::new(), String::new()), "none, and so no time either");
    let file = site.path("tls/site.pem");
    fs::write(&file, pem.cert.pem()).unwrap();
    let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let set =
        |path: &str, seconds| fs::File::options().write(true).open(site.path(path)).unwrap().set_modified(at(seconds));
    set("built/compute.tar", 1_700_000_000).unwrap();
    set("tls/site.pem", 1_600_000_000).unwrap();
    assert_eq!(certificates(&site, None), (pem.cert.pem(), "1700000000\n".to_owned()));
    set("tls/site.pem", 1_750_000_000).unwrap();
    assert_eq!(certificates(&site, None).1, "1750000000\n");
    assert_eq!(certificates(&site, Some("1234567890")).1, "1234567890\n");
    fs::write(&file, pem.cert.pem() + &pem.signing_key.serialize_pem()).unwrap();
    let said = stderr(&bootstrap(&site, &[]));
    assert!(said.contains("site.pem") && said.contains("private key"), "{said}");
}

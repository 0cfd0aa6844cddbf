//! PXELINUX menus: one per node by its MAC, and one for machines that no node entry names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::cmdline;
use rootstream::failure::Advise;
use rootstream::image::manifest::Manifest;
use rootstream::image::trust::Keys;

use super::overlays;
use crate::aside;
use crate::bootstrap::Bootstrap;
use crate::config::addresses::Name;
use crate::config::nodes::{Node, Nodes};
use crate::config::site::Site;
use crate::image::store::Build;
use crate::keys;

/// What PXELINUX needs beside the menus, and where Debian's packages put it.
const LOADER: [(&str, &str); 2] =
    [("pxelinux.0", "/usr/lib/PXELINUX/pxelinux.0"), ("ldlinux.c32", "/usr/lib/syslinux/modules/bios/ldlinux.c32")];

/// The kernel reads this much of its command line (COMMAND_LINE_SIZE on x86, with its final NUL),
/// and PXELINUX adds BOOTIF= and BOOT_IMAGE= to it.
const LONGEST_APPEND: usize = 2047 - 256;

/// What a node of an image boots.
#[derive(Clone, Debug)]
struct Ready {
    bootstrap: Bootstrap,
    build: Build,
}

/// Puts the loader and all menus into `tftp/`; menus of nodes that are gone vanish.
///
/// A node whose image is not ready gets a menu that says so and goes on to the next boot device.
///
/// # Errors
/// The loader is not installed, or the disk refuses.
pub(super) fn write(site: &Site, nodes: &Nodes, port: u16) -> Result<()> {
    let tftp = site.folder("tftp")?;
    for (name, source) in LOADER {
        let content = fs::read(source).advise(
            format!("reading the network boot loader {source}"),
            "install it: apt-get install pxelinux syslinux-common",
        )?;
        aside::write(&tftp.join(name), &content)?;
    }
    let folder = site.folder("tftp/pxelinux.cfg")?;
    let _claim = aside::claim(&folder)?;
    let mut menus = BTreeMap::new();
    for node in nodes.iter() {
        menus.insert(node.mac.pxelinux(), menu(site, Some(node), port)?);
    }
    menus.insert("default".to_owned(), menu(site, None, port)?);
    for (name, text) in &menus {
        aside::write(&folder.join(name), text.as_bytes())?;
    }
    remove_others(&folder, &menus)
}

fn remove_others(folder: &Path, menus: &BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("01-") && !menus.contains_key(&name) {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn menu(site: &Site, node: Option<&Node>, port: u16) -> Result<String> {
    let config = site.config();
    let who = node.map_or("machines that no node entry names".to_owned(), |n| format!("node {}", n.name));
    let image = node.and_then(|n| n.image.as_ref()).or(config.defaults.image.as_ref());
    let own = node.and_then(|n| n.parameters.as_deref()).unwrap_or_default();
    let parameters = [config.defaults.parameters(), own].join(" ");
    let ready = match image {
        None => Err("no image is named for it, and site.toml names no default".to_owned()),
        Some(name) => find(site, name, &parameters)?,
    };
    let address = config.network.address.address;
    let origin = if port == 80 { format!("http://{address}") } else { format!("http://{address}:{port}") };
    let text = match ready {
        Err(why) => Err(why),
        Ok(ready) => overlays::urls(site, node, &origin, asked(&ready, &parameters)?.as_ref())?
            .and_then(|overlays| linux(&ready, &origin, &overlays, &parameters)),
    };
    Ok(text.unwrap_or_else(|why| {
        log::warn!("{who} cannot boot: {why}");
        refusal(&who, &why)
    }))
}

fn find(site: &Site, name: &Name, parameters: &str) -> Result<Result<Ready, String>> {
    let build = match Build::latest(site, name) {
        Ok(Some(build)) => build,
        Ok(None) => {
            return Ok(Err(format!("the image {name} is not published; run: rootstream image publish {name}")));
        }
        // The other images' nodes can boot.
        Err(error) => return Ok(Err(format!("the image {name} is damaged: {error:#}; publish it again"))),
    };
    let Some(bootstrap) = Bootstrap::of(site, name)? else {
        return Ok(Err(format!("the image {name} has no kernel and initramfs; run: rootstream bootstrap {name}")));
    };
    let kernels = &build.manifest.kernels;
    if !kernels.is_empty() && !kernels.contains(&bootstrap.release) {
        return Ok(Err(format!(
            "the image {name} holds modules for {}, but its boot files are for {}; run: rootstream bootstrap {name}",
            kernels.join(", "),
            bootstrap.release
        )));
    }
    if bootstrap.keys != keys::trusted(site)? {
        log::warn!(
            "the initramfs of {name} does not have the keys that are in keys/; run: rootstream bootstrap {name}"
        );
    }
    let ready = Ready { bootstrap, build };
    if let Some(trusted) = asked(&ready, parameters)?
        && let Err(why) = ready.build.check_signature(&trusted)
    {
        let build = &ready.build.manifest.build;
        return Ok(Err(format!("its nodes would refuse build {build} of {name}: {why:#}; publish it again")));
    }
    Ok(Ok(ready))
}

/// The keys of which nodes with these boot files and parameters want a signature; nothing where they want none.
fn asked(ready: &Ready, parameters: &str) -> Result<Option<Keys>> {
    if ready.bootstrap.keys.is_empty() || cmdline::parse(parameters).config.image.unsigned {
        return Ok(None);
    }
    Keys::parse(&ready.bootstrap.keys).map(Some)
}

fn linux(ready: &Ready, origin: &str, overlays: &[String], parameters: &str) -> Result<String, String> {
    let Ready { bootstrap, build } = ready;
    let Manifest { name, build: id, .. } = &build.manifest;
    let mut append = format!("rootstream.image={origin}/images/{name}/{id}.json");
    if bootstrap.keys.is_empty() {
        append += &format!(" rootstream.sha256={}", build.digest());
    }
    if !overlays.is_empty() {
        append += &format!(" rootstream.overlay={}", overlays.join(","));
    }
    let parameters: Vec<&str> = parameters.split_whitespace().collect();
    append += &format!(" {}", parameters.join(" "));
    if append.len() > LONGEST_APPEND {
        return Err(format!("its kernel parameters are {} bytes, {LONGEST_APPEND} is the most", append.len()));
    }
    let mut text = serial(&parameters);
    let _ = write!(
        text,
        "DEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL {name}/{}\n  INITRD {name}/{}\n  APPEND {}\n  IPAPPEND 2\n",
        bootstrap.kernel,
        bootstrap.initramfs,
        append.trim_end()
    );
    Ok(text)
}

/// PXELINUX talks on the serial port that the kernel will talk on. The line must be the first one.
fn serial(parameters: &[&str]) -> String {
    let console = parameters.iter().rev().find_map(|p| p.strip_prefix("console=ttyS"));
    let Some(console) = console else { return String::new() };
    let (port, options) = console.split_once(',').unwrap_or((console, "9600"));
    let speed: String = options.chars().take_while(char::is_ascii_digit).collect();
    match (port.parse::<u8>(), speed.parse::<u32>()) {
        (Ok(port @ 0..=3), Ok(speed)) => format!("SERIAL {port} {speed}\n"),
        _ => String::new(),
    }
}

fn refusal(who: &str, why: &str) -> String {
    format!("DEFAULT none\nPROMPT 0\nSAY rootstream: {who}: {why}\nLABEL none\n  LOCALBOOT -1\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootstream::image::manifest::{Digest, FORMAT, Media};

    fn ready() -> Ready {
        Ready {
            bootstrap: Bootstrap {
                release: "6.1".to_owned(),
                kernel: "vmlinuz-6.1".to_owned(),
                initramfs: "initramfs-6.1.img".to_owned(),
                keys: BTreeMap::new(),
            },
            build: Build {
                manifest: Manifest {
                    format: FORMAT,
                    name: "compute".to_owned(),
                    build: "b".to_owned(),
                    created: "2026-11-22T18:00:00Z".to_owned(),
                    arch: "amd64".to_owned(),
                    kernels: vec![],
                    media: Media::TarZstd,
                    file: "b.tar.zst".to_owned(),
                    size: 1,
                    sha256: Digest([0xa5; 32]),
                    unpacked_bytes: 1,
                    unpacked_pages: 1,
                    inodes: 1,
                    largest_file: 1,
                    init: None,
                    chunks: vec![],
                },
                text: b"abc".to_vec(),
                path: "b.json".into(),
                signature: None,
            },
        }
    }

    #[test]
    fn a_menu_boots_the_published_build() {
        let overlays = ["http://m/overlays/a/all-1.tar.zst".to_owned(), "http://m/overlays/b/n1-2.tar.zst".to_owned()];
        let menu = |ready: &Ready| {
            linux(ready, "http://172.16.0.254:8080", &overlays, " console=tty0  console=ttyS1,115200n8 ").unwrap()
        };
        let mut ready = ready();
        let start = "SERIAL 1 115200\nDEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL compute/vmlinuz-6.1\n  \
                     INITRD compute/initramfs-6.1.img\n  APPEND rootstream.image=http://172.16.0.254:8080/images/compute/b.json";
        let end = "rootstream.overlay=http://m/overlays/a/all-1.tar.zst,http://m/overlays/b/n1-2.tar.zst console=tty0 console=ttyS1,115200n8\n  IPAPPEND 2\n";
        // FIPS 180-2, B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(menu(&ready), format!("{start} rootstream.sha256={digest} {end}"));
        // A signature says more, and a digest would pin what it already fixes.
        ready.bootstrap.keys.insert("site.pub".to_owned(), String::new());
        assert_eq!(menu(&ready), format!("{start} {end}"));
    }

    #[test]
    fn no_serial_console_no_serial_line() {
        assert!(linux(&ready(), "http://m", &[], "quiet").unwrap().starts_with("DEFAULT"));
        assert_eq!(serial(&["console=ttyS0"]), "SERIAL 0 9600\n");
        assert_eq!(serial(&["console=ttyS9,115200"]), "");
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let why = linux(&ready(), "http://m", &[], &"x".repeat(2000)).unwrap_err();
        assert!(why.contains("1791 is the most"), "{why}");
    }
}

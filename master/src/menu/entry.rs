//! What each node boots: the build that it is given, or the newest of its image, with the kernel and initramfs for it, or the reason why not.

use anyhow::Result;
use rootstream::cmdline;
use rootstream::image::manifest::Manifest;
use rootstream::image::trust::Keys;

use super::overlays;
use crate::bootstrap::Bootstrap;
use crate::config::addresses::Name;
use crate::config::nodes::{BuildId, Node, Nodes};
use crate::config::site::Site;
use crate::image::store::Build;
use crate::keys;

/// The kernel reads this much of its command line (COMMAND_LINE_SIZE on x86, with its final NUL), and the loaders add
/// BOOTIF=, BOOT_IMAGE= and initrd= to it.
const LONGEST: usize = 2047 - 256;

/// What one node boots, or machines that no node entry names.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// None: machines that no node entry names.
    pub(crate) node: Option<Node>,
    /// Or why it cannot boot.
    pub(crate) linux: Result<Linux, String>,
}

/// A kernel with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linux {
    /// The image.
    pub(crate) image: String,
    /// The kernel, relative to the root of TFTP.
    pub(crate) kernel: String,
    /// The initramfs, relative to the root of TFTP.
    pub(crate) initramfs: String,
    /// The kernel's parameters, on one line, words apart by one space.
    pub(crate) parameters: String,
}

impl Entry {
    /// Whom it is for, in messages.
    pub(crate) fn who(&self) -> String {
        match &self.node {
            Some(node) => format!("node {}", node.name),
            None => "machines that no node entry names".to_owned(),
        }
    }
}

/// What the nodes boot, in the order of nodes.toml, and last what machines boot that no entry names. What cannot boot
/// is logged with the reason. `port` is that of HTTP.
///
/// # Errors
/// The store or the boot files cannot be read.
pub(crate) fn entries(site: &Site, nodes: &Nodes, port: u16) -> Result<Vec<Entry>> {
    let everybody = nodes.iter().map(Some).chain([None]);
    everybody.map(|node| entry(site, node, port)).collect()
}

fn entry(site: &Site, node: Option<&Node>, port: u16) -> Result<Entry> {
    let entry = Entry { node: node.cloned(), linux: linux(site, node, port)? };
    if let Err(why) = &entry.linux {
        log::warn!("{} cannot boot: {why}", entry.who());
    }
    Ok(entry)
}

/// What a node of an image boots.
#[derive(Clone, Debug)]
struct Ready {
    bootstrap: Bootstrap,
    build: Build,
}

fn linux(site: &Site, node: Option<&Node>, port: u16) -> Result<Result<Linux, String>> {
    let config = site.config();
    let own = node.and_then(|n| n.parameters.as_deref()).unwrap_or_default();
    let parameters = [config.defaults.parameters(), own].join(" ");
    let Some(image) = node.and_then(|n| n.image.as_ref()).or(config.defaults.image.as_ref()) else {
        return Ok(Err("no image is named for it, and site.toml names no default".to_owned()));
    };
    let ready = match find(site, image, node.and_then(|n| n.build.as_ref()), &parameters)? {
        Ok(ready) => ready,
        Err(why) => return Ok(Err(why)),
    };
    let address = config.network.address.address;
    let origin = if port == 80 { format!("http://{address}") } else { format!("http://{address}:{port}") };
    let overlays = overlays::urls(site, node, &origin, asked(&ready, &parameters)?.as_ref())?;
    Ok(overlays.and_then(|overlays| joined(&ready, &origin, &overlays, &parameters)))
}

fn find(site: &Site, name: &Name, build: Option<&BuildId>, parameters: &str) -> Result<Result<Ready, String>> {
    if let Some(pinned) = build.filter(|pinned| !Build::is_there(site, name, pinned)) {
        return Ok(Err(format!(
            "the image {name} has no build {pinned}, which nodes.toml gives it; run: rootstream image use {name} latest --nodes …"
        )));
    }
    let found = match build {
        Some(pinned) => Build::find(site, name, Some(pinned.as_str())).map(Some),
        None => Build::latest(site, name),
    };
    let build = match found {
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

fn joined(ready: &Ready, origin: &str, overlays: &[String], parameters: &str) -> Result<Linux, String> {
    let Ready { bootstrap, build } = ready;
    let Manifest { name, build: id, .. } = &build.manifest;
    let mut words = vec![format!("rootstream.image={origin}/images/{name}/{id}.json")];
    if bootstrap.keys.is_empty() {
        words.push(format!("rootstream.sha256={}", build.digest()));
    }
    if !overlays.is_empty() {
        words.push(format!("rootstream.overlay={}", overlays.join(",")));
    }
    words.extend(parameters.split_whitespace().map(str::to_owned));
    let parameters = words.join(" ");
    if parameters.len() > LONGEST {
        return Err(format!("its kernel parameters are {} bytes, {LONGEST} is the most", parameters.len()));
    }
    Ok(Linux {
        image: name.clone(),
        kernel: format!("{name}/{}", bootstrap.kernel),
        initramfs: format!("{name}/{}", bootstrap.initramfs),
        parameters,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rootstream::image::manifest::{Digest, FORMAT, Media};

    use super::*;

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
    fn the_published_build_is_what_boots() {
        let overlays = ["http://m/overlays/a/all-1.tar.zst".to_owned(), "http://m/overlays/b/n1-2.tar.zst".to_owned()];
        let linux = |ready: &Ready| {
            joined(ready, "http://172.16.0.254:8080", &overlays, " console=tty0  console=ttyS1,115200n8 ").unwrap()
        };
        let mut ready = ready();
        let start = "rootstream.image=http://172.16.0.254:8080/images/compute/b.json";
        let end = "rootstream.overlay=http://m/overlays/a/all-1.tar.zst,http://m/overlays/b/n1-2.tar.zst console=tty0 console=ttyS1,115200n8";
        // FIPS 180-2, B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(linux(&ready).parameters, format!("{start} rootstream.sha256={digest} {end}"));
        // A signature says more, and a digest would pin what it already fixes.
        ready.bootstrap.keys.insert("site.pub".to_owned(), String::new());
        let linux = linux(&ready);
        assert_eq!(linux.parameters, format!("{start} {end}"));
        assert_eq!(
            (linux.kernel.as_str(), linux.initramfs.as_str()),
            ("compute/vmlinuz-6.1", "compute/initramfs-6.1.img")
        );
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let why = joined(&ready(), "http://m", &[], &"x".repeat(2000)).unwrap_err();
        assert!(why.contains("1791 is the most"), "{why}");
    }
}

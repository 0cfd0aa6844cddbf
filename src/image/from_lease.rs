//! `rootstream.image=dhcp`: the lease says where the image is.

use super::{Anchors, Settings};
use crate::cmdline::check_url;
use crate::failure::refuse;
use crate::lease::Lease;
use crate::say;

/// The settings with the URL that the lease names.
///
/// # Errors
/// Nothing would tell an image of the site from one of somebody else's DHCP server, there is no lease, or it names no
/// URL.
pub(crate) fn located(settings: &Settings, anchors: &Anchors, lease: Option<&Lease>) -> anyhow::Result<Settings> {
    if !settings.from_lease {
        return Ok(settings.clone());
    }
    if anchors.keys.is_empty() || settings.unsigned {
        let missing = if settings.unsigned {
            "rootstream.unsigned switches that off"
        } else {
            "there is no trust key in this initramfs"
        };
        return Err(refuse(
            format!("the image may be named by DHCP only where a signature is asked for, and {missing}"),
            "sign the image and bake the key into the initramfs, or give rootstream.image=URL",
        ));
    }
    let Some(lease) = lease else {
        return Err(refuse("rootstream.image=dhcp needs a lease", "rehearse with --net, or give rootstream.image=URL"));
    };
    let named = [("root path (option 17)", &lease.root_path), ("boot file (option 67)", &lease.boot_file)];
    let mut seen = Vec::new();
    for (what, value) in named {
        match value {
            None => seen.push(format!("no {what}")),
            Some(url) => match check_url(url) {
                Ok(()) => {
                    say::info!("image: the lease of {} names {url} as its {what}", lease.server);
                    return Ok(Settings { urls: vec![url.clone()], ..settings.clone() });
                }
                Err(_) => seen.push(format!("{what} \"{}\"", url.escape_debug())),
            },
        }
    }
    Err(refuse(
        format!("the lease of {} names no image: {}", lease.server, seen.join(", ")),
        "let the DHCP server send the image's URL as root path (option 17), or give rootstream.image=URL",
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::cmdline;
    use crate::dhcp;
    use crate::dhcp::wire::{Kind, Message, option};
    use crate::image::trust::Keys;

    const KEY: &str = "untrusted comment: k\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n";

    fn anchors() -> Anchors {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("site.pub"), KEY).unwrap();
        Anchors { keys: Keys::in_folder(folder.path()).unwrap(), ..Anchors::default() }
    }

    fn lease(root_path: Option<&str>, boot_file: Option<&str>) -> Lease {
        let mut message = Message::request(Kind::Ack, 7, [2, 0, 0, 0, 0, 1])
            .with(option::SERVER, [10, 1, 0, 254])
            .with(option::SUBNET_MASK, [255, 255, 255, 0]);
        message.yiaddr = Ipv4Addr::new(10, 1, 0, 5);
        if let Some(root_path) = root_path {
            message = message.with(option::ROOT_PATH, root_path);
        }
        message.file = boot_file.unwrap_or_default().into();
        dhcp::Lease::from_message(&message, 1500).unwrap().0.widened()
    }

    fn locate(line: &str, anchors: &Anchors, lease: Option<&Lease>) -> Result<Vec<String>, String> {
        let settings = cmdline::parse(line).config.image;
        located(&settings, anchors, lease).map(|settings| settings.urls).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_root_path_goes_before_the_boot_file() {
        let (root, boot) = ("http://m/root.tar", "http://m/boot.tar");
        for (lease, url) in [
            (lease(Some(root), Some(boot)), root),
            (lease(Some("10.1.0.254:/srv/nfs"), Some(boot)), boot),
            (lease(None, Some(boot)), boot),
            (lease(Some(root), Some("pxelinux.0")), root),
        ] {
            assert_eq!(locate("rootstream.image=dhcp", &anchors(), Some(&lease)), Ok(vec![url.to_owned()]));
        }
        // What the command line says is not the lease's business.
        let line = "rootstream.image=http://m/i.tar";
        let named = locate(line, &Anchors::default(), Some(&lease(Some(root), None)));
        assert_eq!(named, Ok(vec!["http://m/i.tar".to_owned()]));
    }

    // F34
    #[test]
    fn a_lease_names_an_image_only_where_it_must_be_signed() {
        let good = lease(Some("http://m/root.tar"), None);
        let why = |line: &str, anchors: &Anchors, lease: Option<&Lease>| locate(line, anchors, lease).unwrap_err();
        assert!(why("rootstream.image=dhcp", &Anchors::default(), Some(&good)).contains("there is no trust key"));
        let unsigned = "rootstream.image=dhcp rootstream.unsigned";
        assert!(why(unsigned, &anchors(), Some(&good)).contains("switches that off"));
        let other = lease(Some("ftp://m/x"), Some("pxelinux.0"));
        let none = why("rootstream.image=dhcp", &anchors(), Some(&other));
        assert!(none.contains("(option 17) \"ftp://m/x\"") && none.contains("\"pxelinux.0\""), "{none}");
        let empty = why("rootstream.image=dhcp", &anchors(), Some(&lease(None, None)));
        assert!(empty.contains("no root path") && empty.contains("no boot file"), "{empty}");
        assert!(why("rootstream.image=dhcp", &anchors(), None).contains("needs a lease"));
    }
}

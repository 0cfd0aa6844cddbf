//! tftpd-hpa: /etc/default/tftpd-hpa, which Debian's start script reads with a shell.

use anyhow::Result;
use rootstream::failure::refuse;

use super::guide::{self, comment};
use super::{Export, File};
use crate::config::site::Site;

const FOLDER: &str = "/etc/default";
const FILE: &str = "tftpd-hpa";

/// The whole of it.
///
/// # Errors
/// The start script could not hand the folder on.
pub(super) fn export(named: &guide::Site, site: &Site) -> Result<Export> {
    let (tftp, address) = (site.tftp(), site.config().network.address.address);
    let Some(folder) = tftp.to_str().filter(|folder| folder.chars().all(plain)) else {
        return Err(refuse(
            format!("tftpd-hpa cannot serve the folder {}", tftp.display()),
            "its start script takes apart what is not of letters, digits and /._-+: move the site",
        ));
    };
    let guide = named.guide(
        "tftpd",
        FOLDER,
        FILE,
        &[
            ("", "--force replaces the one that tftpd-hpa came with".to_owned()),
            (
                "",
                format!(
                    "rootstream config pxelinux --output {folder}    # the loaders' menus; again after each change"
                ),
            ),
            ("check", format!("sh -n {FOLDER}/{FILE}; after the start: curl -o /dev/null tftp://{address}/pxelinux.0")),
            ("start", "systemctl restart tftpd-hpa".to_owned()),
        ],
    );
    // The folder is absolute: with another one the server ends without a word.
    let text = format!(
        "{}\nTFTP_USERNAME=\"tftp\"\nTFTP_DIRECTORY=\"{folder}\"\nTFTP_ADDRESS=\"{address}:69\"\nTFTP_OPTIONS=\"--secure\"\n",
        comment(&guide, "#")
    );
    Ok(Export { guide, files: vec![File { path: FILE.to_owned(), text }], loaders: Vec::new() })
}

/// What the script's shell neither takes apart nor expands.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-+".contains(c)
}

//! nginx: a server that answers as `up` does.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use rootstream::failure::refuse;

use super::guide::{self, comment};
use super::{Export, File, folders};
use crate::config::site::Site;

const FOLDER: &str = "/etc/nginx/conf.d";
const FILE: &str = "rootstream.conf";

/// A part of a path as `up` serves it: of plain characters, not starting with a dot.
const PART: &str = "[A-Za-z0-9_+~-][A-Za-z0-9._+~-]*";

/// The file for nginx's conf.d.
///
/// # Errors
/// nginx cannot have a folder of the site's in its configuration.
pub(super) fn export(named: &guide::Site, site: &Site) -> Result<Export> {
    let address = site.config().network.address.address;
    let mut steps = vec![
        ("check", "nginx -t".to_owned()),
        ("start", "systemctl reload nginx".to_owned()),
        ("", format!("then: curl -I http://{address}:{}/images/IMAGE/latest.json", site.config().http.port)),
    ];
    steps.extend(folders::closed(&site.store()).map(|folder| ("note", format!("{folder}, so nginx answers 404"))));
    let guide = named.guide("nginx", FOLDER, FILE, &steps);
    let text = format!("{}\n{}", comment(&guide, "#"), configuration(site)?);
    Ok(Export { guide, files: vec![File { path: FILE.to_owned(), text }], loaders: Vec::new() })
}

fn configuration(site: &Site) -> Result<String> {
    let (address, port) = (site.config().network.address.address, site.config().http.port);
    let mut text = format!(
        r#"# Published files never change but for the pointers, and signatures, which may be made again.
map $uri $rootstream_cache {{
    ~/latest\.json$ "max-age=5";
    ~\.minisig$ "max-age=5";
    ~^/boot/ "max-age=5";
    default "public, max-age=31536000, immutable";
}}

server {{
    listen {address}:{port};
    sendfile on;
    tcp_nopush on;
    gzip off;
    client_header_timeout 10s;
    send_timeout 60s;
    types {{ application/json json; }}
    default_type application/octet-stream;
    error_page 403 404 =404 @missing;
    location / {{ return 404; }}
    location @missing {{
        default_type text/plain;
        return 404 "no such file\n";
    }}
"#
    );
    for (prefix, folder) in [("images", site.store()), ("overlays", site.overlay_store()), ("boot", site.tftp())] {
        let folder = literal(&folder)?;
        let _ = writeln!(
            text,
            r#"    location ~ "^/{prefix}/(?<rootstream_name>{PART})/(?<rootstream_file>{PART})$" {{
        alias "{folder}/$rootstream_name/$rootstream_file";
        # nginx would redirect to a folder.
        if (!-f $request_filename) {{ return 404; }}
        disable_symlinks on "from={folder}";
        add_header Cache-Control $rootstream_cache;
    }}"#
        );
    }
    text.push_str("}\n");
    Ok(text)
}

/// A path between quotation marks. There is no way to write a dollar that is none of a variable.
fn literal(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains('$') => Ok(text.replace('\\', r"\\").replace('"', r#"\""#)),
        _ => Err(refuse(
            format!("nginx cannot have the path {} in its configuration", path.display()),
            "move the site to a folder whose name is text without a dollar",
        )),
    }
}

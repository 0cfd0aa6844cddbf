//! The web server: nginx as Debian has it, in this process's network namespace.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use rootstream_lab::bound::Bound;
use rootstream_lab::packages::unpacked;

use crate::measure::COME_FIRST;

/// Where it listens.
pub(crate) const ADDRESS: &str = "127.0.0.1:8080";

/// Serves a folder until the result is dropped; what it needs besides goes into `scratch`.
///
/// # Errors
/// It does not start.
pub(crate) fn serve(folder: &Path, scratch: &Path) -> Result<Bound> {
    let nginx = unpacked("nginx")?.join("usr/sbin/nginx");
    let configuration = scratch.join("nginx.conf");
    let (folder, own) = (folder.display(), scratch.display());
    // One process: a worker would outlive a master that is killed.
    // It makes these folders even where it never uses them, below /var unless told.
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {own}/nginx-{kind};"))
        .join(" ");
    let text = format!(
        "daemon off; master_process off; pid {own}/nginx.pid; error_log {own}/error.log;\n\
         events {{ }}\nhttp {{ sendfile on; access_log off; {temporary} \
         server {{ listen {ADDRESS}; root {folder}; }} }}\n"
    );
    fs::write(&configuration, text).with_context(|| format!("writing {}", configuration.display()))?;
    let first = format!(r#"{COME_FIRST} exec "$0" "$@""#);
    let server = Bound::start("setsid", |command| {
        command.args(["bash", "-c", &first]).arg(&nginx).arg("-c").arg(&configuration);
        command.arg("-e").arg(scratch.join("error.log"))
    })?;
    for _ in 0..100 {
        if std::net::TcpStream::connect(ADDRESS).is_ok() {
            return Ok(server);
        }
        sleep(Duration::from_millis(50));
    }
    let said = fs::read_to_string(scratch.join("error.log")).unwrap_or_default();
    anyhow::bail!("nginx does not answer on {ADDRESS}: {}", said.trim())
}

//! A Redfish BMC: the emulator of sushy-tools, which remembers what it is told and tells us.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::board::Board;
use super::{PASSWORD, USER};
use crate::bound::Bound;

/// What such a BMC is called in what it switches on.
pub const NAME: &str = "redfish";

/// What the emulator tells when its system has changed.
#[derive(Deserialize)]
struct Change {
    power_state: String,
}

/// A running BMC.
#[derive(Debug)]
pub struct RedfishBmc {
    _emulator: Bound,
    certificate: PathBuf,
}

impl RedfishBmc {
    /// Starts the BMC of `board`, which is a node of this name with a port of this MAC, at `address`, with its files in
    /// `folder`. `modules` is where [`super::tools::emulator`] has put it.
    ///
    /// # Errors
    /// It does not start; what it said is part of the error.
    pub fn start(
        modules: &Path,
        folder: &Path,
        board: &Arc<Board>,
        address: SocketAddr,
        (name, mac): (&str, &str),
    ) -> Result<Self> {
        let told = listen(Arc::clone(board))?;
        let certificate = certificate(folder, &address.ip().to_string())?;
        let users = folder.join("users");
        fs::write(&users, format!("{USER}:{}\n", hashed(modules)?)).context("writing the BMC's users")?;
        let text = |path: &Path| path.display().to_string();
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{}'\nSUSHY_EMULATOR_LISTEN_PORT = {}\nSUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\nSUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_SSL_CERT = '{}'\n\
             SUSHY_EMULATOR_SSL_KEY = '{}'\nEXTERNAL_NOTIFICATION_URL = 'http://{told}/changed'\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '11111111-1111-1111-1111-000000000001', 'name': '{name}', \
             'power_state': 'Off', 'external_notifier': True, 'nics': [{{'mac': '{mac}', 'ip': '172.16.0.1'}}]}}]\n",
            address.ip(),
            address.port(),
            text(&folder.join("state")),
            text(&users),
            text(&certificate),
            text(&folder.join("key.pem")),
        );
        let file = folder.join("emulator.conf");
        fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        fs::create_dir_all(folder.join("state")).context("making a folder for the emulator's state")?;
        let said = folder.join("said");
        let (out, err) = (File::create(&said)?, File::options().append(true).open(&said)?);
        let mut emulator = Bound::start("python3", |c| {
            c.args(["-m", "sushy_tools.emulator.main", "--config"]).arg(&file).env("PYTHONPATH", modules);
            c.env("NO_PROXY", "*").stdout(out).stderr(err)
        })?;
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let words = || fs::read_to_string(&said).unwrap_or_default();
            if let Some(status) = emulator.ended()? {
                bail!("the Redfish emulator ended with {status}: {}", words().trim());
            }
            if start.elapsed() > Duration::from_secs(120) {
                bail!("the Redfish emulator does not listen at {address}: {}", words().trim());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { _emulator: emulator, certificate })
    }

    /// The certificate that it shows, which nobody else has signed.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }
}

/// Takes the emulator's word for what changed, and does it to the board.
fn listen(board: Arc<Board>) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening for the Redfish emulator")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let changed = read(&stream).and_then(|body| Ok(serde_json::from_slice::<Change>(&body)?));
            let done = changed.map_err(anyhow::Error::from).and_then(|change| match change.power_state.as_str() {
                "On" => board.switch(NAME, true),
                _ => board.switch(NAME, false),
            });
            let status = if done.is_ok() { "200 OK" } else { "500 Internal Server Error" };
            let _ = (&stream)
                .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        }
    });
    Ok(address)
}

/// The body of a request.
fn read(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

/// A certificate for this address, signed by itself, with its key beside it.
fn certificate(folder: &Path, address: &str) -> Result<PathBuf> {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
    openssl.args(["-subj", "/CN=bmc", "-addext", &format!("subjectAltName=IP:{address}")]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let output = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().context("starting openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(certificate)
}

/// The password as the emulator wants it, which takes nothing but bcrypt.
fn hashed(modules: &Path) -> Result<String> {
    let mut python = Command::new("python3");
    let program = "import bcrypt, sys; print(bcrypt.hashpw(sys.argv[1].encode(), bcrypt.gensalt(4)).decode())";
    let output =
        python.args(["-c", program, PASSWORD]).env("PYTHONPATH", modules).output().context("starting python3")?;
    ensure!(output.status.success(), "bcrypt: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

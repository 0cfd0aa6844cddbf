//! QEMU's machine protocol: one JSON object a line over a unix socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection that has negotiated and takes commands.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to a QEMU that listens at `socket`.
    ///
    /// # Errors
    /// Nothing listens there, or what answers is no QEMU.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connecting to QEMU")?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).context("bounding QEMU's answers")?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            bail!("{greeting} is no greeting of QEMU");
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Errors
    /// QEMU refuses it or has gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}").with_context(|| format!("sending {command} to QEMU"))?;
        loop {
            let mut answer = self.read().with_context(|| format!("waiting for QEMU's answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            // Events come between the answers.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU closed the connection");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn events_between_answers_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let qemu = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut request = String::new();
            let answers = [
                "{\"return\":{}}\n",
                "{\"event\":\"RESUME\"}\n{\"return\":{\"enabled\":false}}\n",
                "{\"error\":{\"class\":\"CommandNotFound\"}}\n",
            ];
            stream.get_mut().write_all(b"{\"QMP\":{}}\n").unwrap();
            for answer in answers {
                stream.read_line(&mut request).unwrap();
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
            request
        });
        let mut qmp = Qmp::connect(&socket).unwrap();
        assert_eq!(qmp.execute("query-kvm", json!({})).unwrap(), json!({ "enabled": false }));
        assert!(qmp.execute("nonsense", json!({})).unwrap_err().to_string().contains("CommandNotFound"));
        assert_eq!(qemu.join().unwrap().lines().count(), 3);
    }
}

//! What a console says of a boot: that it is finished, or that it has failed and why. No I/O, no clock.

/// No line of a console that matters is longer.
const LONGEST: usize = 4096;
/// The agent's final message has fewer lines.
const MESSAGE: usize = 8;

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The prompt of the login.
    Login(String),
    /// What the console said about a boot that will not get further, in one line.
    Failed(String),
}

/// What the firmware and the kernel say of a boot that will not get further.
const DEAD_ENDS: [&str; 6] = [
    "Kernel panic - not syncing",
    "No bootable device",
    "Could not find kernel image",
    "No more network devices",
    "PXE-E",
    "VFS: Unable to mount root fs",
];

/// The start and the end of the agent's final message.
const FAILURE: &str = "boot failed:";
const NOW: &str = "now: ";

/// Reads a console from where it is told to.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The line that has no end yet.
    open: Vec<u8>,
    /// The agent's final message, once it has begun.
    message: Vec<String>,
    /// The last line that said something.
    last: String,
}

impl Watch {
    /// Takes in what the console said; answers when it has told how the boot ended.
    pub(super) fn see(&mut self, bytes: &[u8]) -> Option<Verdict> {
        for byte in bytes {
            // Firmware moves the cursor instead of ending lines.
            if matches!(byte, b'\n' | b'\r') {
                let line = plain(&self.open);
                self.open.clear();
                if let Some(verdict) = self.line(line.trim()) {
                    return Some(verdict);
                }
            } else if self.open.len() < LONGEST {
                self.open.push(*byte);
            }
        }
        let prompt = plain(&self.open);
        // agetty's prompt is the host's name and this word; "Last login: " comes from a login that has happened.
        let host = prompt.strip_suffix(" login: ").map(str::trim);
        let is_host = |host: &&str| !host.is_empty() && !host.contains(' ') && *host != "Last";
        host.filter(is_host).map(|host| Verdict::Login(format!("{host} login:")))
    }

    /// How it ended where nothing more is to come.
    pub(super) fn ended(&mut self) -> Option<Verdict> {
        (!self.message.is_empty()).then(|| Verdict::Failed(std::mem::take(&mut self.message).join("; ")))
    }

    /// The last line that said something, for who waited in vain.
    pub(super) fn last(&self) -> String {
        let open = plain(&self.open);
        if open.trim().is_empty() { self.last.clone() } else { open.trim().to_owned() }
    }

    fn line(&mut self, line: &str) -> Option<Verdict> {
        if line.is_empty() {
            return None;
        }
        self.last = line.to_owned();
        let said = line.split_once("rootstream: ").map(|(_, said)| said.trim());
        match said {
            Some(said) if !self.message.is_empty() || said.starts_with(FAILURE) => {
                self.message.push(said.to_owned());
                if said.starts_with(NOW) || self.message.len() >= MESSAGE { self.ended() } else { None }
            }
            _ => DEAD_ENDS.iter().any(|words| line.contains(words)).then(|| Verdict::Failed(line.to_owned())),
        }
    }
}

/// Text without the escape sequences with which terminals are steered.
fn plain(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            0x1b => {
                if rest.next_if_eq(&b'[').is_some() {
                    // Parameters, then one letter (ECMA-48, control sequences).
                    while rest.next_if(|byte| !(0x40..=0x7e).contains(byte)).is_some() {}
                }
                rest.next();
            }
            0x20.. | b'\t' => text.push(byte),
            _ => {}
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(said: &str) -> Option<Verdict> {
        // However it is cut into pieces.
        let mut whole = Watch::default();
        let answer = whole.see(said.as_bytes());
        let mut watch = Watch::default();
        let in_pieces = said.bytes().find_map(|byte| watch.see(&[byte]));
        assert_eq!(answer, in_pieces);
        answer
    }

    #[test]
    fn a_login_prompt_ends_a_boot() {
        let said = "Linux version 6.1.0\r\nCommand line: panic=10\r\nDebian GNU/Linux 12 n1 ttyS0\r\n\r\nn1 login: ";
        assert_eq!(verdict(said), Some(Verdict::Login("n1 login:".into())));
        assert_eq!(verdict("\x1b[0;32mn1\x1b[0m login: "), Some(Verdict::Login("n1 login:".into())));
        assert_eq!(verdict("Last login: yesterday\r\n"), None);
    }

    #[test]
    fn the_agents_message_is_taken_whole() {
        let said = "[    3.1] rootstream: boot failed: installing the image http://m/i.tar\r\n\
                    [    3.1] rootstream:   why: 404 Not Found\r\n[    3.2] other: noise\r\n\
                    [    3.1] rootstream:   what to do: check the URL\r\n[    3.1] rootstream:   now: rebooting in 30 s\r\n";
        let expected = "boot failed: installing the image http://m/i.tar; why: 404 Not Found; what to do: check the URL; \
                        now: rebooting in 30 s";
        assert_eq!(verdict(said), Some(Verdict::Failed(expected.into())));
        // Broken off in the middle, what is there counts.
        let mut watch = Watch::default();
        assert_eq!(watch.see(b"rootstream: boot failed: x\r\n"), None);
        assert_eq!(watch.ended(), Some(Verdict::Failed("boot failed: x".into())));
    }

    #[test]
    fn firmware_and_kernel_say_it_too() {
        let said = "\x1b[2J\x1b[1;1HiPXE 1.0\r\nNo bootable device.\r\n";
        assert_eq!(verdict(said), Some(Verdict::Failed("No bootable device.".into())));
        assert!(verdict("[ 9.0] Kernel panic - not syncing: Attempted to kill init!\n").is_some());
    }

    #[test]
    fn the_last_line_is_known() {
        let mut watch = Watch::default();
        assert_eq!(watch.see(b"SeaBIOS\r\nBooting from ROM..."), None);
        assert_eq!(watch.last(), "Booting from ROM...");
        assert_eq!(watch.see(b"\r\n\r\n"), None);
        assert_eq!(watch.last(), "Booting from ROM...");
    }
}

//! What an image that every node shares, and that anyone on the boot network can fetch, must not hold.

use std::path::Path;

/// Files larger than this are no keys.
const LIMIT: u64 = 1 << 20;

/// How many bytes of the file `found` wants to see, if any.
pub(super) fn worth_reading(name: &Path, size: u64) -> Option<u64> {
    (size <= LIMIT || is_account_file(name)).then_some(size)
}

/// What is wrong with the file `name` that holds `content`.
pub(super) fn found(name: &Path, content: &[u8]) -> Vec<String> {
    let shown = format!("/{}", name.display());
    let text = String::from_utf8_lossy(content);
    let file = name.file_name().map(|f| f.to_string_lossy()).unwrap_or_default();
    if name.ends_with("munge/munge.key") {
        return vec![format!("{shown} is the cluster's munge key")];
    }
    if name.starts_with("etc/ssh") && file.starts_with("ssh_host_") && file.contains("_key") {
        return vec![format!("{shown} is an ssh host key; each node makes its own at first boot")];
    }
    if name == Path::new("etc/machine-id") || name == Path::new("var/lib/dbus/machine-id") {
        let filled = !matches!(text.trim(), "" | "uninitialized");
        return filled.then(|| format!("{shown} is filled: all nodes would have one identity")).into_iter().collect();
    }
    if is_account_file(name) {
        return text.lines().filter_map(|line| open_account(&shown, line)).collect();
    }
    if holds_private_key(content) {
        return vec![format!("{shown} holds a private key")];
    }
    Vec::new()
}

fn is_account_file(name: &Path) -> bool {
    ["etc/shadow", "etc/shadow-", "etc/gshadow", "etc/gshadow-"].iter().any(|known| name == Path::new(known))
}

/// shadow(5): an empty field lets anyone in; what starts with `!` or `*` lets nobody in by password.
fn open_account(shown: &str, line: &str) -> Option<String> {
    let mut fields = line.split(':');
    let (name, password) = (fields.next()?, fields.next()?);
    // In gshadow(5) an empty field only means that the group has no password to change into it.
    let group = shown.contains("gshadow");
    match password {
        "" if group => None,
        "" => Some(format!("{shown}: {name} has an empty password")),
        locked if locked.starts_with(['!', '*']) || locked == "x" => None,
        _ => Some(format!("{shown}: {name} has a password whose hash anyone could read")),
    }
}

/// A PEM private key: its first line on a line of its own, followed by more. Programs and manuals
/// that only mention the marker do not count.
fn holds_private_key(content: &[u8]) -> bool {
    if content.starts_with(b"\x7fELF") {
        return false;
    }
    let mut lines = content.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let begins = |line: &[u8]| line.starts_with(b"-----BEGIN ") && line.ends_with(b"PRIVATE KEY-----");
    let encoded = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    while lines.any(begins) {
        // Old keys have headers (`Proc-Type: 4,ENCRYPTED`) before the encoded bytes.
        let body = lines.clone().take(4).any(|line| line.len() >= 32 && line.iter().all(encoded));
        if body {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, content: &str) -> usize {
        found(Path::new(name), content.as_bytes()).len()
    }

    // Builder
    #[test]
    fn keys_and_identities_are_found() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n-----END OPENSSH PRIVATE KEY-----\n";
        assert_eq!(count("root/.ssh/id_ed25519", key), 1);
        assert_eq!(count("etc/ssl/both.pem", &format!("-----BEGIN CERTIFICATE-----\nMII\n{key}")), 1);
        assert_eq!(count("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA"), 1);
        assert_eq!(count("etc/munge/munge.key", "\0\u{1}"), 1);
        assert_eq!(count("etc/machine-id", "0123456789abcdef0123456789abcdef\n"), 1);
    }

    // Builder
    #[test]
    fn mentions_and_empty_files_are_not() {
        assert_eq!(count("usr/share/x.pm", "if (/^-----BEGIN RSA PRIVATE KEY-----$/) {\n"), 0);
        assert_eq!(count("usr/share/x.txt", "-----BEGIN PRIVATE KEY-----\n...\n"), 0);
        assert_eq!(count("etc/machine-id", ""), 0);
        assert_eq!(count("etc/machine-id", "uninitialized\n"), 0);
        assert_eq!(count("root/.ssh/authorized_keys", "ssh-ed25519 AAAA admin\n"), 0);
    }

    // Builder
    #[test]
    fn passwords_are_judged_by_the_line() {
        assert_eq!(count("etc/shadow", "root:*:1::::::\nsshd:!:1::::::\nn:!*:1:\n"), 0);
        assert_eq!(count("etc/shadow", "root::1::::::\nadmin:$y$j9T$x:1::::::\n"), 2);
        assert_eq!(count("etc/shadow-", "admin:$6$salt$x:1::::::\n"), 1);
        assert_eq!(count("etc/gshadow", "adm:*::\nusers:::\n"), 0);
    }
}

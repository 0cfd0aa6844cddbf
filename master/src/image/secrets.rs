//! What an image that every node shares, and that anyone on the boot network can fetch, must not hold.

use std::path::Path;

/// Files larger than this are no keys.
const LIMIT: u64 = 1 << 20;

/// How many bytes of the file `found` wants to see, if any.
pub(crate) fn worth_reading(name: &Path, size: u64) -> Option<u64> {
    (size <= LIMIT || is_account_file(name)).then_some(size)
}

/// What is wrong with the file `name` that holds `content`.
pub(crate) fn found(name: &Path, content: &[u8]) -> Vec<String> {
    let shown = format!("/{}", name.display());
    let text = || String::from_utf8_lossy(content);
    let file = name.file_name().map(|f| f.to_string_lossy()).unwrap_or_default();
    if name.ends_with("munge/munge.key") {
        return vec![format!("{shown} is the cluster's munge key")];
    }
    if name.starts_with("etc/ssh") && file.starts_with("ssh_host_") && file.contains("_key") {
        return vec![format!("{shown} is an ssh host key; each node makes its own at first boot")];
    }
    if name.starts_with("etc/dropbear") && file.ends_with("_host_key") {
        return vec![format!("{shown} is an ssh host key; leave it to each node to make its own")];
    }
    if name == Path::new("etc/machine-id") || name == Path::new("var/lib/dbus/machine-id") {
        let filled = !matches!(text().trim(), "" | "uninitialized");
        return filled.then(|| format!("{shown} is filled: all nodes would have one identity")).into_iter().collect();
    }
    if is_account_file(name) {
        return text().lines().filter_map(|line| open_account(&shown, line)).collect();
    }
    if holds_private_key(content) {
        return vec![format!("{shown} holds a private key")];
    }
    Vec::new()
}

fn is_account_file(name: &Path) -> bool {
    let accounts = ["etc/passwd", "etc/passwd-", "etc/shadow", "etc/shadow-", "etc/gshadow", "etc/gshadow-"];
    accounts.iter().any(|known| name == Path::new(known))
}

/// passwd(5) and shadow(5): an empty field lets anyone in; `x` refers to shadow; what starts
/// with `!` or `*` lets nobody in by password.
fn open_account(shown: &str, line: &str) -> Option<String> {
    let mut fields = line.split(':');
    let (name, password) = (fields.next()?, fields.next()?);
    // `+` and `-` in front of a name bring in, or leave out, accounts of NIS: nsswitch.conf(5).
    if name.starts_with(['+', '-']) {
        return None;
    }
    // In gshadow(5) an empty field only means that the group has no password to change into it.
    let group = shown.contains("gshadow");
    match password {
        "" if group => None,
        "" => Some(format!("{shown}: {name} has an empty password")),
        locked if locked.starts_with(['!', '*']) || locked == "x" => None,
        _ => Some(format!("{shown}: {name} has a password whose hash anyone could read")),
    }
}

/// How many lines of headers (`Proc-Type: 4,ENCRYPTED`, `Version: GnuPG v2`) may come before a key's bytes.
const HEADERS: usize = 8;

/// A private key in the armour of PEM (RFC 7468) or OpenPGP (RFC 9580, 6.2), also where YAML indents
/// it or JSON writes it on one line; or in the files of PuTTY and of the first ssh. Programs and
/// manuals that only mention the marker do not count: after it come encoded bytes.
fn holds_private_key(content: &[u8]) -> bool {
    if content.starts_with(b"\x7fELF") {
        return false;
    }
    let other = [b"PuTTY-User-Key-File-".as_slice(), b"SSH PRIVATE KEY FILE FORMAT"];
    if other.iter().any(|magic| content.starts_with(magic)) {
        return true;
    }
    // The search for lines is slow, and most files have nothing of the kind.
    if memchr::memmem::find(content, b"PRIVATE KEY").is_none() {
        return false;
    }
    let mut lines = content.split(|&b| b == b'\n').flat_map(written_as_one).map(bare);
    let encoded = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    while lines.any(begins_key) {
        if lines.clone().take(HEADERS).any(|line| line.len() >= 32 && line.iter().all(encoded)) {
            return true;
        }
    }
    false
}

/// The lines in a line that writes their ends as `\n`. No line of a key has a backslash.
fn written_as_one(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(|&b| b == b'\\')
        .enumerate()
        .map(|(n, part)| if n > 0 { part.strip_prefix(b"n").unwrap_or(part) } else { part })
}

/// Without what indents and quotes it.
fn bare(line: &[u8]) -> &[u8] {
    let around = |b: &u8| b.is_ascii_whitespace() || b"\"',".contains(b);
    let start = line.iter().position(|b| !around(b)).unwrap_or(line.len());
    let end = line.iter().rposition(|b| !around(b)).map_or(start, |last| last + 1);
    line.get(start..end).unwrap_or_default()
}

fn begins_key(line: &[u8]) -> bool {
    let begin = b"-----BEGIN ";
    let ends = [b"PRIVATE KEY-----".as_slice(), b"PRIVATE KEY BLOCK-----"];
    ends.iter().any(|end| line.ends_with(end)) && line.windows(begin.len()).any(|window| window == begin)
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
        assert_eq!(count("etc/dropbear/dropbear_ed25519_host_key", "\0"), 1);
        assert_eq!(count("etc/munge/munge.key", "\0\u{1}"), 1);
        assert_eq!(count("etc/machine-id", "0123456789abcdef0123456789abcdef\n"), 1);
    }

    // Builder
    #[test]
    fn keys_are_found_however_they_are_written() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let indented = format!("tls:\n  key: |\n    {}", pem.replace('\n', "\n    "));
        let encrypted = format!(
            "-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,1F\r\n\r\n{body}\r\n"
        );
        let pgp = format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\nComment: x\n\n{body}\n=abcd\n");
        let json = format!("{{\"type\": \"service_account\", \"private_key\": \"{}\"}}", pem.replace('\n', "\\n"));
        let quoted = format!("key = (\n  \"-----BEGIN EC PRIVATE KEY-----\\n\"\n  \"{body}\\n\"\n)");
        let putty = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n".to_owned();
        for content in [&pem, &indented, &encrypted, &pgp, &json, &quoted, &putty] {
            assert_eq!(count("opt/app/file", content), 1, "{content}");
        }
        assert_eq!(count("etc/ssl/cert.pem", &pem.replace("PRIVATE", "PUBLIC")), 0);
        assert_eq!(count("etc/apt/key.asc", &pgp.replace("PRIVATE", "PUBLIC")), 0);
    }

    // Builder
    #[test]
    fn mentions_and_empty_files_are_not() {
        assert_eq!(count("usr/share/x.pm", "if (/^-----BEGIN RSA PRIVATE KEY-----$/) {\n"), 0);
        assert_eq!(count("usr/share/x.txt", "-----BEGIN PRIVATE KEY-----\n...\n"), 0);
        assert_eq!(count("usr/share/x.py", "    MARK = '-----BEGIN PRIVATE KEY-----'\n    def f(self):\n"), 0);
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
        assert_eq!(count("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nsys:*:3:3::/:/bin/sh\n+::::::\n"), 0);
        assert_eq!(count("etc/passwd", "root::0:0:root:/root:/bin/sh\na:$1$s$h:7:7::/:/bin/sh\n"), 2);
        assert_eq!(count("etc/passwd-", "toor::0:0:root:/root:/bin/sh\n"), 1);
        assert_eq!(count("usr/share/base-passwd/passwd.master", "root::0:0:root:/root:/bin/sh\n"), 0);
    }
}

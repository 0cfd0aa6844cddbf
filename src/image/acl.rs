//! POSIX ACLs: from the text that archives carry (`SCHILY.acl.access`) to the bytes that the
//! kernel takes (`system.posix_acl_access`, linux/posix_acl_xattr.h). No I/O.

use anyhow::{Context as _, bail};

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

/// Encodes entries such as `user::rwx,user:1000:r-x,group::r--,mask::r-x,other::r--`.
///
/// # Errors
/// It is no such text, or names a user or group by name only: the names of the image are not the
/// names of this system, so only numbers are of use.
pub(super) fn encode(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let text = std::str::from_utf8(text).context("an ACL that is not text")?;
    let mut entries = Vec::new();
    for line in text.split(['\n', ',']) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            entries.push(entry(line).with_context(|| format!("the ACL entry \"{line}\""))?);
        }
    }
    // The kernel wants them in the order of tags, then ids.
    entries.sort_unstable();
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Ok(bytes)
}

fn entry(line: &str) -> anyhow::Result<(u16, u32, u16)> {
    let mut fields = line.split(':').map(str::trim);
    let kind = fields.next().unwrap_or_default();
    let who = fields.next().context("no second field")?;
    let permissions = fields.next().context("no third field")?;
    // star appends the number when the second field is a name.
    let id = fields.next().unwrap_or(who);
    let tag = match (kind, who.is_empty()) {
        ("user" | "u", true) => 0x01,
        ("user" | "u", false) => 0x02,
        ("group" | "g", true) => 0x04,
        ("group" | "g", false) => 0x08,
        ("mask" | "m", true) => 0x10,
        ("other" | "o", true) => 0x20,
        _ => bail!("unknown kind"),
    };
    let id = if who.is_empty() {
        NO_ID
    } else {
        id.parse().context("a name without a number (pack the image with numeric owners)")?
    };
    let mut bits = 0;
    for letter in permissions.chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => bail!("unknown permission"),
        };
    }
    Ok((tag, id, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_kernel_takes() {
        let bytes = encode(b"user::rw-\nother::r--\nuser:bob:r--:1000\ngroup::r--\nmask::r--\n").unwrap();
        let expected = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 4, 0, 232, 3, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[16, 0, 4, 0, 255, 255, 255, 255],
            &[32, 0, 4, 0, 255, 255, 255, 255],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(encode(b"user:7:rwx,user::---").unwrap().len(), 4 + 2 * 8);
    }

    #[test]
    fn names_and_nonsense_are_refused() {
        for bad in [&b"user:bob:r--"[..], b"user", b"user::q", b"nobody::r", b"mask:1:r", b"\xff"] {
            assert!(encode(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}

//! The signature of a plain file, which is found before the file is fetched: `URL.minisig`.

use anyhow::{Context as _, anyhow, ensure};

use super::Sources;
use super::mirrors::Mirrors;
use super::published::{file_name, path};
use super::small::{Found, Need};
use super::trust::{SIGNATURE_LIMIT, SIGNATURE_SUFFIX, SignatureFile};
use crate::failure::{Advise as _, refuse};
use crate::say;

/// Whether the file that the settings name must be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// No key is trusted, so there is nothing to compare with.
    Nothing,
    /// `rootstream.unsigned` says that it need not be.
    Waived,
    /// It must be, with a trusted key.
    Signature,
}

impl Asked {
    /// What these sources ask for.
    pub(super) fn of(sources: Sources<'_>) -> Self {
        match (sources.anchors.keys.is_empty(), sources.settings.unsigned) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Waived,
            (false, false) => Self::Signature,
        }
    }
}

/// What the log and the record say of a file whose signature nobody looked at.
pub(super) const WAIVED: &str = "taken without a look at its signature, because of rootstream.unsigned";

/// The URL of a file's signature.
fn of_url(url: &str) -> String {
    let path = path(url);
    format!("{path}{SIGNATURE_SUFFIX}{}", url.get(path.len()..).unwrap_or_default())
}

/// The signature of the file at the settings' URLs, by a trusted key; whether it is of the file's bytes shows when those
/// are there. What one mirror has is no use, the next may have.
///
/// # Errors
/// No mirror has one that could do.
pub(super) fn find(sources: Sources<'_>, mirrors: &Mirrors<'_>) -> anyhow::Result<SignatureFile> {
    let urls = &sources.settings.urls;
    let mut untried: Vec<String> = urls.iter().map(|url| of_url(url)).collect();
    let todo = "sign it with the site's key (minisign -S, or publish it again) and serve the signature next to it, or \
                bake the key that it is signed with into the initramfs";
    loop {
        let (mirror, error) = match mirrors.small(&untried, None, SIGNATURE_LIMIT, Need::May)? {
            Found::Absent(status) => {
                let tried = untried.iter().filter(|url| !url.is_empty()).cloned().collect::<Vec<_>>().join(" ");
                let what = format!("it has no signature: the server answered {status} to {tried}");
                return Err(refuse(what, todo)).advise(format!("{} is refused", urls.join(" ")), todo);
            }
            Found::Here(small) => {
                let name = urls.get(small.mirror).map(|url| file_name(url)).unwrap_or_default();
                match usable(sources, &small.bytes, name) {
                    Ok(signature) => return Ok(signature),
                    Err(error) => (small.mirror, error),
                }
            }
        };
        let url = untried.get_mut(mirror).map(std::mem::take).unwrap_or_default();
        if untried.iter().all(String::is_empty) {
            return Err(error).advise(format!("{} is refused: {url}", urls.join(" ")), todo);
        }
        say::warn!("image: {url}: {error:#}; trying the next mirror");
    }
}

/// A signature that could be of the file `name`.
fn usable(sources: Sources<'_>, text: &[u8], name: &str) -> anyhow::Result<SignatureFile> {
    let signature = SignatureFile::parse(text)?;
    sources.anchors.keys.begin(&signature)?;
    // minisign signs the name too, so a server cannot answer with another file of the site: an older one, or another
    // node's.
    let signed = signature.file_name().context("the signature's trusted comment names no file (file:NAME)")?;
    ensure!(signed == name, anyhow!("the signature is of {signed:?}, not of {name:?}"));
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_next_to_its_file() {
        assert_eq!(of_url("http://m/a.tar"), "http://m/a.tar.minisig");
        assert_eq!(of_url("http://m/a.tar?token=1#x"), "http://m/a.tar.minisig?token=1#x");
    }
}

//! Whose images are believed: public minisign keys, and signatures made with them (minisign(1), prehashed).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use minisign_verify::{Error, PublicKey, Signature, StreamVerifier};

use crate::failure::Advise as _;

/// The largest signature file that is read: real ones are below 1 KiB.
pub const SIGNATURE_LIMIT: u64 = 8 << 10;
/// What a signature's name ends with, after the name of what it signs.
pub const SIGNATURE_SUFFIX: &str = ".minisig";

/// The keys that are trusted; none at all means that signatures are not asked for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<PublicKey>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// Reads public keys (`minisign.pub` files).
    ///
    /// # Errors
    /// One cannot be read, or is no such key: a key that is left out silently would weaken or block every boot.
    pub fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let key = |file: &PathBuf| key(&file.display().to_string(), || Ok(fs::read_to_string(file)?));
        files.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Reads public keys from the texts of such files, each with its name.
    ///
    /// # Errors
    /// See [`Keys::read`].
    pub fn parse<'a>(texts: impl IntoIterator<Item = (&'a String, &'a String)>) -> anyhow::Result<Self> {
        let key = |(name, text): (&'a String, &'a String)| key(name, || Ok(text.clone()));
        texts.into_iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Reads every `*.pub` in a folder; none where there is no such folder.
    ///
    /// # Errors
    /// See [`Keys::read`].
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        Self::read(&files_in(folder, "pub")?)
    }

    /// Whether no key is trusted, so that nothing needs a signature.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks a signature of `bytes`.
    ///
    /// # Errors
    /// It is not one that a trusted key made of these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &SignatureFile) -> anyhow::Result<()> {
        let mut verifier = self.begin(signature)?;
        verifier.update(bytes);
        finish(verifier)
    }

    /// Begins to check a signature of bytes that come piece by piece; end with [`finish`].
    ///
    /// # Errors
    /// No trusted key made it.
    pub fn begin<'a>(&'a self, signature: &'a SignatureFile) -> anyhow::Result<StreamVerifier<'a>> {
        for key in &self.0 {
            match key.verify_stream(&signature.0) {
                Err(Error::UnexpectedKeyId) => {}
                begun => return begun.context("the signature cannot be checked"),
            }
        }
        match self.0.len() {
            1 => bail!("the signature was not made with the trusted key (is this the site's public key?)"),
            count => bail!("the signature was not made with any of the {count} trusted keys"),
        }
    }
}

/// The files with a suffix in a folder, by name; none where there is no such folder.
///
/// # Errors
/// The folder cannot be listed.
pub fn files_in(folder: &Path, suffix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(|| format!("listing {}", folder.display()))?,
    };
    let mut files = Vec::new();
    for entry in listed {
        let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == suffix) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn key(name: &str, text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<PublicKey> {
    let decoded = text().and_then(|text| {
        let secret = text.lines().next().is_some_and(|comment| comment.contains("secret key"));
        ensure!(!secret, "this is a secret key, which belongs on no other machine; the public one ends in .pub");
        Ok(PublicKey::decode(&text)?)
    });
    let todo = "name a minisign public key (two lines; `rootstream key new` makes one)";
    decoded.advise(format!("reading the trust key {name}"), todo)
}

/// Ends what [`Keys::begin`] began.
///
/// # Errors
/// The signature is not of these bytes.
pub fn finish(mut verifier: StreamVerifier<'_>) -> anyhow::Result<()> {
    verifier.finalize().context("the signature is not of these bytes")
}

/// A signature as its file has it, not yet checked.
pub struct SignatureFile(Signature);

impl SignatureFile {
    /// The name of the file that was signed, as minisign notes it in the trusted comment.
    pub fn file_name(&self) -> Option<&str> {
        self.0.trusted_comment().split('\t').find_map(|field| field.strip_prefix("file:"))
    }

    /// Reads the text of a `.minisig` file.
    ///
    /// # Errors
    /// It is none, or cut short.
    pub fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(text).context("the signature is not text")?;
        Signature::decode(text).map(Self).context("the signature is damaged or cut short")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with minisign 0.12 of the bytes "test".
    const KEY: &str = "untrusted comment: k\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1556193335\tfile:test
y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==
";

    fn keys() -> Keys {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("site.pub"), KEY).unwrap();
        fs::write(folder.path().join("site.key"), "secret").unwrap();
        Keys::in_folder(folder.path()).unwrap()
    }

    // F34
    #[test]
    fn only_a_trusted_key_s_signature_of_these_bytes_will_do() {
        let signature = SignatureFile::parse(SIGNATURE.as_bytes()).unwrap();
        keys().verify(b"test", &signature).unwrap();
        let why = |bytes: &[u8], text: &str| match SignatureFile::parse(text.as_bytes()) {
            Ok(signature) => format!("{:#}", keys().verify(bytes, &signature).unwrap_err()),
            Err(error) => format!("{error:#}"),
        };
        assert_eq!(signature.file_name(), Some("test"));
        assert!(why(b"tesu", SIGNATURE).contains("not of these bytes"));
        assert!(why(b"test", &SIGNATURE.replace("1556193335", "1556193336")).contains("not of these bytes"));
        assert!(why(b"test", &SIGNATURE.replace("RUQf6L", "RUQf6M")).contains("not made with the trusted key"));
        assert!(why(b"test", SIGNATURE.get(..200).unwrap()).contains("cut short"));
        assert!(why(b"test", "").contains("cut short"));
        // Bits of the signature itself.
        assert!(why(b"test", &SIGNATURE.replace("9r3g7V", "9r3g7W")).contains("not of these bytes"));
    }

    #[test]
    fn keys_are_read_or_named() {
        assert!(!keys().is_empty());
        assert!(Keys::in_folder(Path::new("/nonexistent")).unwrap().is_empty());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.pub");
        fs::write(&file, "no key").unwrap();
        let error = Keys::in_folder(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("bad.pub"), "{error:#}");
    }
}

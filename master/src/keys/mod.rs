//! The site's keys: `keys/NAME.key` signs images, and nodes believe what a `keys/NAME.pub` verifies. Both are
//! files of minisign(1).

mod command;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use rootstream::failure::{Advise, refuse};
use rootstream::image::trust::{Keys, SignatureFile};

use crate::aside;
use crate::config::addresses::Name;
use crate::config::site::Site;

pub(crate) use command::Command;

/// Larger files are no keys.
const LIMIT: u64 = 64 << 10;

/// A new pair of keys.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What signs. Not encrypted: who can read it can sign.
    pub secret: PathBuf,
    /// What verifies.
    pub public: PathBuf,
    /// Secret keys that the site had before, by name.
    pub others: Vec<String>,
}

/// Makes a pair of keys; nothing is ever overwritten.
///
/// # Errors
/// A file of that name exists, or the disk refuses.
pub fn new(site: &Site, name: &Name) -> Result<Pair> {
    let folder = site.folder("keys")?;
    let _claim = aside::claim(&folder)?;
    let others = named(&folder, ".key")?.into_keys().collect();
    let secret = folder.join(format!("{name}.key"));
    let public = folder.join(format!("{name}.pub"));
    for path in [&secret, &public] {
        if path.symlink_metadata().is_ok() {
            let what = format!("{} exists already", path.display());
            return Err(refuse(what, "take another name with --name; a key that nodes trust is not to be lost"));
        }
    }
    let pair = KeyPair::generate_unencrypted_keypair().context("making a key")?;
    let comment = format!("rootstream secret key {name}, not encrypted");
    let text = pair.sk.to_box(Some(&comment)).context("writing the secret key")?.into_string();
    write_new(&secret, 0o600, &text)?;
    write_new(&public, 0o644, &pair.pk.to_box().context("writing the public key")?.into_string())?;
    Ok(Pair { secret, public, others })
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        writeln!(file, "{}", text.trim_end())?;
        file.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// The public keys that the site's nodes are to trust: name of the file, and its text. Administrators' ssh
/// keys, which recipes name, may be in the same folder.
///
/// # Errors
/// One is unreadable.
pub fn trusted(site: &Site) -> Result<BTreeMap<String, String>> {
    let folder = site.root().join("keys");
    let mut keys = BTreeMap::new();
    for (name, path) in named(&folder, ".pub")? {
        let text = read(&path)?;
        refuse_private(&path, &text)?;
        if !is_ssh(&text) {
            keys.insert(format!("{name}.pub"), text);
        }
    }
    // All of them, or none: a key that is left out would lock nodes out.
    Keys::parse(&keys).with_context(|| format!("reading {}", folder.display()))?;
    Ok(keys)
}

/// authorized_keys(5): `ssh-ed25519`, `ecdsa-sha2-nistp256`, `sk-ssh-ed25519@openssh.com`.
pub(crate) fn is_ssh(text: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|start| text.starts_with(start))
}

/// A private ssh key under a public one's name would be in every image, for all to read.
///
/// # Errors
/// The text is one.
pub(crate) fn refuse_private(path: &Path, text: &str) -> Result<()> {
    if text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY")) {
        let what = format!("{} is a private key, not a public one", path.display());
        return Err(refuse(what, "put the public half there: ssh-keygen -y -f PRIVATE_KEY prints it"));
    }
    Ok(())
}

/// What signs images.
pub struct Signer {
    /// Its name.
    pub name: String,
    secret: SecretKey,
    trusted: Keys,
}

impl Signer {
    /// The site's secret key, or the one of several that is called `name`; nothing where there is none.
    ///
    /// # Errors
    /// There is no such key or nobody said which of several, it is unreadable, or its public half is not among
    /// those that nodes trust.
    pub fn of(site: &Site, name: Option<&Name>) -> Result<Option<Self>> {
        let folder = site.root().join("keys");
        let mut keys = named(&folder, ".key")?;
        if let Some(name) = name
            && !keys.contains_key(name.as_str())
        {
            let known: Vec<&str> = keys.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(refuse(format!("there is no keys/{name}.key"), format!("the site's keys are: {known}")));
        }
        if let Some(name) = name {
            keys.retain(|other, _| other == name.as_str());
        }
        if keys.len() > 1 {
            let names: Vec<String> = keys.keys().map(|name| format!("keys/{name}.key")).collect();
            return Err(refuse(
                format!("the site has several secret keys: {}", names.join(", ")),
                "say which one signs with --key NAME, or move the others to a safe place",
            ));
        }
        let Some((name, path)) = keys.pop_first() else { return Ok(None) };
        let text = read(&path)?;
        let todo = "name a secret key without a password (rootstream key new, or minisign -G -W)";
        let secret = SecretKeyBox::from(text).into_unencrypted_secret_key();
        let secret = secret.advise(format!("reading {}", path.display()), todo)?;
        let public = PublicKey::from_secret_key(&secret).with_context(|| format!("reading {}", path.display()))?;
        let trusted = trusted(site)?;
        let mine = public.to_base64();
        if !trusted.values().any(|text| text.lines().any(|line| line.trim() == mine)) {
            let what = format!("the public half of keys/{name}.key is not in keys/: nodes would not trust it");
            return Err(refuse(what, format!("put it there as keys/{name}.pub, with the line {mine}")));
        }
        Ok(Some(Self { name, secret, trusted: Keys::parse(&trusted)? }))
    }

    /// Signs bytes; `comment` becomes part of what is signed.
    ///
    /// # Errors
    /// What was made does not verify.
    pub fn sign(&self, bytes: &[u8], comment: &str) -> Result<Vec<u8>> {
        let untrusted = format!("signature with the rootstream key {}", self.name);
        let signed = minisign::sign(None, &self.secret, bytes, Some(comment), Some(&untrusted)).context("signing")?;
        let mut text = signed.into_string();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let text = text.into_bytes();
        // As nodes will.
        self.trusted.verify(bytes, &SignatureFile::parse(&text)?).context("the new signature does not verify")?;
        Ok(text)
    }
}

/// What in `folder` is called NAME and then `suffix`, by NAME.
fn named(folder: &Path, suffix: &str) -> Result<BTreeMap<String, PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        listed => listed.with_context(|| format!("listing {}", folder.display()))?,
    };
    let named = |entry: fs::DirEntry| {
        let file = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'))?;
        Some((file.strip_suffix(suffix)?.to_owned(), entry.path()))
    };
    Ok(listed.flatten().filter_map(named).collect())
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
    read.with_context(|| format!("reading {}", path.display()))?;
    Ok(text)
}

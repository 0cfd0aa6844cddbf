//! Keys and signatures, made by the Rust port of minisign(1)'s author, apart from what verifies them.

use std::fs;

use minisign::KeyPair;
use rootstream::image::Anchors;
use rootstream::image::trust::Keys;

/// A key pair.
pub(crate) struct Signer(KeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate_unencrypted_keypair().unwrap())
    }

    /// The public key as its file has it.
    pub(crate) fn public(&self) -> String {
        self.0.pk.to_box().unwrap().to_string()
    }

    /// What trusts this key.
    pub(crate) fn anchors(&self) -> Anchors {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("site.pub"), self.public()).unwrap();
        Anchors { keys: Keys::in_folder(folder.path()).unwrap(), ..Anchors::default() }
    }

    /// The signature of a file, with what minisign(1) says of it by itself.
    pub(crate) fn sign(&self, bytes: &[u8], name: &str) -> Vec<u8> {
        self.sign_as(bytes, &format!("timestamp:1556193335\tfile:{name}\thashed"))
    }

    /// The same with another trusted comment.
    pub(crate) fn sign_as(&self, bytes: &[u8], comment: &str) -> Vec<u8> {
        let signature = minisign::sign(Some(&self.0.pk), &self.0.sk, bytes, Some(comment), None).unwrap();
        signature.into_string().into_bytes()
    }
}

//! Whom to believe behind `https://`: certificates baked into the initramfs, and nobody else.
//!
//! A certificate of an authority is believed for the servers that it signed, by name and date. A server's own
//! certificate is believed for whoever holds its key, whatever its names and dates: it is pinned.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::trust::files_in;
use crate::failure::{Advise as _, refuse};

/// Where an initramfs keeps them.
pub const FOLDER: &str = "tls";
/// What their files end with.
pub const SUFFIX: &str = "pem";
/// The file of an initramfs that holds when it was made: seconds since 1970, in decimal.
pub const BUILT: &str = "built";

/// The certificates that are believed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    certificates: Vec<CertificateDer<'static>>,
    /// When the initramfs was made, since 1970: it cannot be earlier now.
    built: Duration,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates, made at {}", self.certificates.len(), self.built.as_secs())
    }
}

impl Certificates {
    /// Those of an initramfs whose root is `root`: `tls/*.pem`, and `built`.
    ///
    /// # Errors
    /// One of them cannot be read, or `built` is there and no time.
    pub fn baked(root: &Path) -> anyhow::Result<Self> {
        let baked = Self::read(&files_in(&root.join(FOLDER), SUFFIX)?)?;
        let file = root.join(BUILT);
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("0".to_owned()),
            text => text.with_context(|| format!("reading {}", file.display())),
        };
        let seconds = text.and_then(|text| {
            text.trim().parse().with_context(|| format!("{} holds no time: {:?}", file.display(), text.trim()))
        });
        let todo = "make the initramfs anew: rootstream bootstrap";
        Ok(Self { built: Duration::from_secs(seconds.advise("reading when this initramfs was made", todo)?), ..baked })
    }

    /// Reads files of one or more certificates each, in PEM.
    ///
    /// # Errors
    /// One cannot be read, holds none, or holds a private key, which has no place where all can read it.
    pub fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut certificates = Vec::new();
        for file in files {
            let todo =
                "name a PEM file of certificates: that of the authority that signed the servers', or the servers' own";
            let read = read(file).advise(format!("reading the certificates {}", file.display()), todo)?;
            certificates.extend(read);
        }
        Ok(Self { certificates, built: Duration::ZERO })
    }

    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Refuses addresses that could not be fetched from.
    ///
    /// # Errors
    /// One of `urls` is `https://`, and nobody is believed.
    pub(super) fn check(&self, urls: &[String]) -> anyhow::Result<()> {
        match urls.iter().find(|url| is_secure(url)) {
            Some(url) if self.is_empty() => Err(refuse(
                format!("{url} cannot be fetched: this initramfs holds no certificate to know the server by"),
                "put the certificate of the site's authority, or the server's own, into tls/ of the site as NAME.pem and run \
                 rootstream bootstrap again (init rehearse: --ca FILE); or use http:// with signed images",
            )),
            _ => Ok(()),
        }
    }

    /// What a connection is made with; nothing where nobody is believed.
    ///
    /// # Errors
    /// A certificate cannot be used.
    pub(super) fn config(&self) -> anyhow::Result<Option<Arc<ClientConfig>>> {
        if self.is_empty() {
            return Ok(None);
        }
        let provider = Arc::new(ring::default_provider());
        let clock: Arc<dyn TimeProvider> = Arc::new(Clock { built: self.built });
        let judge = Judge::new(&self.certificates, &provider)?;
        let config = ClientConfig::builder_with_details(provider, clock)
            .with_safe_default_protocol_versions()
            .context("setting up TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge))
            .with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }
}

/// Why a handshake failed, for an administrator, and whether trying again cannot help.
pub(super) fn explain(error: &rustls::Error) -> (String, bool) {
    let rustls::Error::InvalidCertificate(error) = error else {
        return (format!("the TLS handshake failed: {error}"), false);
    };
    let date = |time: &UnixTime| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    let why = match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is none of those in tls/ of this initramfs, nor signed by one of them".to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("the server's certificate ended on {}, and now it is {}", date(not_after), date(time))
        }
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate begins on {}, and now it is {} (this machine's clock, or when the initramfs was \
             made, whichever is later)",
            date(not_before),
            date(time)
        ),
        // Its own words for these are the names of types.
        CertificateError::Other(_) => {
            "the server's certificate is refused: it is not one that a server may have (an authority's own, or malformed); \
             pin it as it is, or give the server one that the authority in tls/ signed"
                .to_owned()
        }
        error => format!("the server's certificate is refused: {error}"),
    };
    (why, true)
}

/// Whether a URL's scheme is https.
pub(super) fn is_secure(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

fn read(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = fs::read(file)?;
    let secret = text.windows(b"PRIVATE KEY-----".len()).any(|window| window == b"PRIVATE KEY-----");
    ensure!(!secret, "it holds a private key, which must not go into an initramfs that anybody can download");
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(!certificates.is_empty(), "it holds no certificate");
    for certificate in &certificates {
        webpki_accepts(certificate)?;
    }
    Ok(certificates)
}

/// A certificate that cannot be parsed would be found out at the first boot only.
fn webpki_accepts(certificate: &CertificateDer<'_>) -> anyhow::Result<()> {
    RootCertStore::empty().add(certificate.clone().into_owned()).context("it holds something that is no certificate")
}

/// The clock, but never before the initramfs was made: a node without a battery wakes up in 1970.
#[derive(Debug)]
struct Clock {
    built: Duration,
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(now.max(self.built)))
    }
}

/// Judges servers' certificates.
#[derive(Debug)]
struct Judge {
    pinned: Vec<CertificateDer<'static>>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Judge {
    fn new(certificates: &[CertificateDer<'static>], provider: &Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates.iter().filter(|certificate| is_authority(certificate)) {
            roots.add(certificate.clone()).context("a certificate in tls/ cannot be used")?;
        }
        let authorities = match roots.is_empty() {
            true => None,
            false => {
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
                Some(builder.build().context("setting up TLS")?)
            }
        };
        Ok(Self { pinned: certificates.to_vec(), authorities, provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.authorities {
            Some(verifier) => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate may sign others (basicConstraints, RFC 5280 4.2.1.9). A pinned server's own must not make its
/// holder an authority. The bytes looked for are those of the extension; who writes our initramfs does not forge them.
fn is_authority(certificate: &[u8]) -> bool {
    const ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
    const TRUE: &[u8] = &[0x01, 0x01, 0xff];
    let Some(at) = certificate.windows(ID.len()).position(|window| window == ID) else { return false };
    let rest = certificate.get(at + ID.len()..).unwrap_or_default();
    // Critical or not; an OCTET STRING that holds a SEQUENCE whose first member is `cA`.
    match rest.strip_prefix(TRUE).unwrap_or(rest) {
        [0x04, _, 0x30, _, constraints @ ..] => constraints.starts_with(TRUE),
        _ => false,
    }
}

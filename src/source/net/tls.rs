//! TLS: which certificates are trusted, and what is said of those that are not.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore, crypto,
};

use super::ConnectError;

/// The most bytes that a file of certificates may have. A system's whole bundle has a quarter of it.
const FILE_BYTES: u64 = 1 << 20;

/// Root certificates from a file, checked to be certificates.
#[derive(Clone, Debug)]
pub struct CaFile {
    certificates: Vec<CertificateDer<'static>>,
}

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct CaFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl CaFile {
    /// Reads a file of one or more certificates in PEM form.
    ///
    /// # Errors
    /// When it cannot be read, holds no certificate, or holds one that is damaged.
    pub fn read(path: &Path) -> Result<Self, CaFileError> {
        let error = |why: String| CaFileError { path: path.to_owned(), why };
        let bytes = read_bounded(path).map_err(|cause| error(cause.to_string()))?;
        let mut store = RootCertStore::empty();
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate =
                certificate.map_err(|_| error("its PEM is damaged".to_owned()))?.into_owned();
            store
                .add(certificate.clone())
                .map_err(|_| error("it holds something that is no X.509 certificate".to_owned()))?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(error("it holds no certificate in PEM form".to_owned()));
        }
        Ok(Self { certificates })
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Anything but a regular file (a pipe, a terminal) may never end.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The client's side of TLS. The system's roots are read when the first connection needs them.
#[derive(Debug, Default)]
pub(super) struct Tls {
    private: Vec<CertificateDer<'static>>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    /// Trusts these roots beside the usual ones.
    pub(super) fn with(roots: CaFile) -> Self {
        Self { private: roots.certificates, config: OnceLock::new() }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let make = || {
            let mut roots = RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            let native = rustls_native_certs::load_native_certs();
            for error in native.errors {
                tracing::debug!(%error, "the system's root certificates");
            }
            // Systems carry certificates that are too old for rustls; those are ignored.
            roots.add_parsable_certificates(native.certs);
            roots.add_parsable_certificates(self.private.iter().cloned());
            let provider = Arc::new(crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring has what TLS 1.2 and 1.3 need")
                .with_root_certificates(roots)
                .with_no_client_auth();
            Arc::new(config)
        };
        self.config.get_or_init(make).clone()
    }

    /// Verifies that `tcp` leads to `host`, and encrypts it.
    pub(super) async fn handshake(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned()).map_err(|_| {
            ConnectError::Tls {
                why: "no certificate can be for such a name".to_owned(),
                lasting: true,
            }
        })?;
        TlsConnector::from(self.config()).connect(name, tcp).await.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
            match inner {
                Some(inner) => words(inner),
                None if error.kind() == io::ErrorKind::UnexpectedEof => ConnectError::Tls {
                    why: "the server closed the connection instead of answering".to_owned(),
                    lasting: false,
                },
                None => ConnectError::Tls { why: error.to_string(), lasting: false },
            }
        })
    }
}

/// What a TLS error means.
fn words(error: &TlsError) -> ConnectError {
    let certificate = |why: &str, hint| ConnectError::Certificate { why: why.to_owned(), hint };
    let tls = |why: &str, lasting| ConnectError::Tls { why: why.to_owned(), lasting };
    match error {
        TlsError::InvalidCertificate(error) => of_certificate(error),
        TlsError::NoCertificatesPresented => certificate("is missing", None),
        TlsError::InvalidMessage(_) => tls("the server does not speak it here", true),
        TlsError::PeerIncompatible(_) => tls("the server has no version or cipher in common", true),
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            tls("the server wants a client certificate, which adit does not have", false)
        }
        other => tls(&other.to_string(), false),
    }
}

/// What is wrong with a certificate.
fn of_certificate(error: &CertificateError) -> ConnectError {
    let plain = |why: &str, hint| ConnectError::Certificate { why: why.to_owned(), hint };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            plain("has expired", Some(RENEW))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            plain("is not valid yet", Some("check this machine's clock"))
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            plain("is from an issuer that is not known here", Some(PRIVATE))
        }
        CertificateError::NotValidForName => plain("is for another name", Some(NAME)),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let why = if presented.is_empty() {
                format!("is not for {expected}: it has no subjectAltName")
            } else {
                format!("is not for {expected} but for {}", names(presented))
            };
            ConnectError::Certificate { why, hint: Some(NAME) }
        }
        CertificateError::Revoked => plain("was revoked", None),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            plain("is not meant for a server", None)
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            plain("is a certificate authority's own", Some(AUTHORITY))
        }
        other => ConnectError::Certificate { why: format!("is not valid: {other}"), hint: None },
    }
}

const RENEW: &str = "the server's operator must renew it; check this machine's clock too";
const PRIVATE: &str = "if the server is your own, name its issuer's certificate with --tls-ca FILE";
const NAME: &str = "name the server as its certificate does";
const AUTHORITY: &str = "a server's needs basicConstraints CA:FALSE: openssl req -x509 -addext basicConstraints=CA:FALSE";

/// The first few of the names that an untrusted certificate lists.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 3;
    let clean = |name: &String| {
        // rustls writes DnsName("host") and IpAddress(127.0.0.1).
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        let inner = inner.strip_suffix(')').unwrap_or(inner).trim_matches('"');
        crate::printable::printable(inner, 80)
    };
    let mut text = presented.iter().take(SHOWN).map(clean).collect::<Vec<_>>().join(", ");
    if presented.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

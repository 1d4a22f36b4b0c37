//! A connection to a node: TLS pinned to its certificate, a macaroon on every call.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// A call that has waited this long asks whether the connection is still there: a firewall that
/// forgets an idle connection says nothing, and TCP alone needs a quarter of an hour to notice. LND
/// allows a ping every 5 seconds while a call is open, none on an idle connection.
const PING_AFTER: Duration = Duration::from_secs(6);
/// When it does not answer that within this time, the call fails and the next one connects anew.
const PONG_WITHIN: Duration = Duration::from_secs(3);

/// A channel that carries the macaroon; clone it freely, the connection is shared.
pub type Authorized = InterceptedService<Channel, Macaroon>;

/// Why a connection cannot be set up. None of these needs the node to be up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The endpoint is not `https://host:port`.
    #[error("expected an endpoint like https://127.0.0.1:10009")]
    Endpoint,
    /// The certificate file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    CertificateFile {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no certificate in the text.
    #[error("expected at least one certificate in PEM form")]
    Certificate,
    /// Neither a binary macaroon nor its hex.
    #[error("expected a macaroon, binary or hex")]
    Macaroon,
    /// The TLS settings were refused.
    #[error("TLS: {0}")]
    Tls(#[source] tonic::transport::Error),
}

/// A macaroon, ready to be sent. It is a bearer token: `Debug` does not show it.
#[derive(Clone)]
pub struct Macaroon(MetadataValue<Ascii>);

impl Macaroon {
    /// Takes what a macaroon file holds: the binary form that LND writes, or hex text.
    ///
    /// # Errors
    ///
    /// [`SetupError::Macaroon`] when it is empty.
    pub fn new(contents: &[u8]) -> Result<Self, SetupError> {
        let text = contents.trim_ascii();
        let is_hex = text.len().is_multiple_of(2) && text.iter().all(u8::is_ascii_hexdigit);
        if text.is_empty() {
            return Err(SetupError::Macaroon);
        }
        // A binary macaroon starts with its version, 0x02, which is no hex digit.
        let hex = if is_hex {
            String::from_utf8_lossy(text).into_owned()
        } else {
            hex::encode(contents)
        };
        let mut value = MetadataValue::try_from(hex).map_err(|_| SetupError::Macaroon)?;
        // Keeps it out of Debug output and out of the header compression table.
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Macaroon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Macaroon([redacted])")
    }
}

impl Interceptor for Macaroon {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("macaroon", self.0.clone());
        Ok(request)
    }
}

/// The certificate a node must present, byte for byte.
///
/// LND signs its certificate with its own key and marks it as an authority, so the usual path
/// building refuses it as a server's certificate, and its names need not contain the one dialled.
/// Comparing the certificate itself is both simpler and stricter: whoever holds its key is the node,
/// and no other authority counts. Its dates are not looked at.
#[derive(Debug)]
pub struct PinnedCertificate {
    file: Option<PathBuf>,
    accepted: RwLock<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl PinnedCertificate {
    /// Pins the certificates in `pem`; any one of them is accepted.
    ///
    /// # Errors
    ///
    /// [`SetupError::Certificate`] when there is none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SetupError> {
        Ok(Self {
            file: None,
            accepted: RwLock::new(parse(pem)?),
            provider: Arc::new(aws_lc_rs::default_provider()),
        })
    }

    /// Pins the certificates in a file. When a node presents another one, the file is read again, so
    /// a certificate the node has renewed is picked up without a restart.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds no certificate.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, SetupError> {
        let path = path.into();
        let pem = read(&path)?;
        Ok(Self {
            file: Some(path),
            ..Self::from_pem(&pem)?
        })
    }

    fn accepts(&self, presented: &CertificateDer<'_>) -> bool {
        let accepted = self.accepted.read().unwrap_or_else(PoisonError::into_inner);
        accepted.contains(presented)
    }

    fn reload(&self) -> Option<()> {
        let fresh = parse(&read(self.file.as_ref()?).ok()?).ok()?;
        *self
            .accepted
            .write()
            .unwrap_or_else(PoisonError::into_inner) = fresh;
        Some(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|source| SetupError::CertificateFile {
        path: path.into(),
        source,
    })
}

fn parse(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(SetupError::Certificate),
    }
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.accepts(end_entity) || self.reload().is_some_and(|()| self.accepts(end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    // The pin says which key; these say that the peer holds it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// A connection that is set up and not yet opened. Making one needs neither the node nor a runtime.
#[derive(Clone, Debug)]
pub struct Connector {
    endpoint: Endpoint,
    macaroon: Macaroon,
}

impl Connector {
    /// A connection to `https://host[:port]`. Plain `http` is refused: the macaroon would travel in
    /// the clear.
    ///
    /// # Errors
    ///
    /// Only for what is wrong in the arguments; a node that is down shows in the calls.
    pub fn new(
        endpoint: &str,
        certificate: PinnedCertificate,
        macaroon: Macaroon,
        connect_timeout: Duration,
    ) -> Result<Self, SetupError> {
        let tls = ClientTlsConfig::new().timeout(connect_timeout);
        let endpoint = parse_endpoint(endpoint)?
            .connect_timeout(connect_timeout)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_WITHIN)
            .tls_config_with_verifier(tls, Arc::new(certificate))
            .map_err(SetupError::Tls)?;
        Ok(Self { endpoint, macaroon })
    }

    /// A channel that opens its connection at the first call, and again after it broke.
    ///
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn channel(&self) -> Authorized {
        InterceptedService::new(self.endpoint.connect_lazy(), self.macaroon.clone())
    }
}

/// Checks that an endpoint has the form `https://host[:port]`, without connecting.
///
/// # Errors
///
/// [`SetupError::Endpoint`].
pub fn check_endpoint(endpoint: &str) -> Result<(), SetupError> {
    parse_endpoint(endpoint).map(drop)
}

fn parse_endpoint(endpoint: &str) -> Result<Endpoint, SetupError> {
    let parsed = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| SetupError::Endpoint)?;
    let uri = parsed.uri();
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() == Some("https") && uri.host().is_some_and(|h| !h.is_empty()) && bare {
        Ok(parsed)
    } else {
        Err(SetupError::Endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A macaroon file is binary, but people paste hex into environment variables.
    #[test]
    fn a_macaroon_may_be_binary_or_hex() {
        for contents in [&b"\x02\x01\xff"[..], b"0201ff", b"0201FF\n"] {
            let Macaroon(value) = Macaroon::new(contents).unwrap();
            assert_eq!(value.to_str().unwrap().to_lowercase(), "0201ff");
        }
        assert!(matches!(Macaroon::new(b" \n"), Err(SetupError::Macaroon)));
    }

    #[test]
    fn a_macaroon_never_shows() {
        let macaroon = Macaroon::new(b"c0ffee").unwrap();
        assert!(!format!("{macaroon:?} {:?}", macaroon.0).contains("c0ffee"));
    }

    /// Over plain http the macaroon would be readable on the way.
    #[test]
    fn only_https_endpoints() {
        assert!(check_endpoint("https://127.0.0.1:10009").is_ok());
        for bad in [
            "http://127.0.0.1:10009",
            "127.0.0.1:10009",
            "",
            "https://a/b",
            "https://",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let empty = PinnedCertificate::from_pem(b"hello");
        assert!(matches!(empty, Err(SetupError::Certificate)));
        let missing = PinnedCertificate::from_file("/does/not/exist/tls.cert").unwrap_err();
        assert!(missing.to_string().contains("/does/not/exist/tls.cert"));
    }
}

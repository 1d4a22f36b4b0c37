//! A connection to a node: TLS with a certificate on both sides, as Core Lightning's gRPC plugin
//! makes them.

use std::fmt;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A call that has waited this long asks whether the connection is still there: a firewall that
/// forgets an idle connection says nothing, and TCP alone needs a quarter of an hour to notice.
const PING_AFTER: Duration = Duration::from_secs(6);
/// When it does not answer that within this time, the call fails and the next one connects anew.
const PONG_WITHIN: Duration = Duration::from_secs(3);
/// The name in the certificate that the plugin makes, whatever its address is.
const SERVER_NAME: &str = "cln";

/// Why a connection cannot be set up. None of these needs the node to be up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The endpoint is not `https://host:port`.
    #[error("expected an endpoint like https://127.0.0.1:9736")]
    Endpoint,
    /// There is no certificate in the text.
    #[error("expected at least one certificate in PEM form")]
    Certificate,
    /// There is no private key in the text.
    #[error("expected a private key in PEM form")]
    Key,
    /// The TLS settings were refused: a key that belongs to another certificate, for one.
    #[error("TLS: {0}")]
    Tls(#[source] tonic::transport::Error),
}

/// What the plugin leaves in the node's folder for its clients: `ca.pem`, `client.pem` and
/// `client-key.pem`. The key allows every call of the interface: `Debug` does not show it.
#[derive(Clone)]
pub struct Credentials {
    ca: Certificate,
    identity: Identity,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

/// Checks that there is a certificate in a text.
///
/// # Errors
///
/// [`SetupError::Certificate`].
pub fn check_certificate(pem: &[u8]) -> Result<(), SetupError> {
    match CertificateDer::from_pem_slice(pem) {
        Ok(_) => Ok(()),
        Err(_) => Err(SetupError::Certificate),
    }
}

/// Checks that there is a private key in a text.
///
/// # Errors
///
/// [`SetupError::Key`].
pub fn check_key(pem: &[u8]) -> Result<(), SetupError> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => Ok(()),
        Err(_) => Err(SetupError::Key),
    }
}

impl Credentials {
    /// PEM texts: whose signature the node's certificate must bear, and the certificate and key that
    /// are shown to the node.
    ///
    /// # Errors
    ///
    /// [`SetupError::Certificate`] or [`SetupError::Key`] for the first text that is none.
    pub fn new(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, SetupError> {
        check_certificate(ca)?;
        check_certificate(certificate)?;
        check_key(key)?;
        Ok(Self {
            ca: Certificate::from_pem(ca),
            identity: Identity::from_pem(certificate, key),
        })
    }
}

/// A connection that is set up and not yet opened. Making one needs neither the node nor a runtime.
#[derive(Clone, Debug)]
pub struct Connector {
    endpoint: Endpoint,
}

impl Connector {
    /// A connection to `https://host[:port]`.
    ///
    /// # Errors
    ///
    /// Only for what is wrong in the arguments; a node that is down shows in the calls.
    pub fn new(
        endpoint: &str,
        credentials: Credentials,
        connect_timeout: Duration,
    ) -> Result<Self, SetupError> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(credentials.ca)
            .identity(credentials.identity)
            .domain_name(SERVER_NAME)
            .timeout(connect_timeout);
        let endpoint = parse_endpoint(endpoint)?
            .connect_timeout(connect_timeout)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_WITHIN)
            .tls_config(tls)
            .map_err(SetupError::Tls)?;
        Ok(Self { endpoint })
    }

    /// A channel that opens its connection at the first call, and again after it broke.
    ///
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.endpoint.connect_lazy()
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

    #[test]
    fn only_https_endpoints() {
        assert!(check_endpoint("https://127.0.0.1:9736").is_ok());
        for bad in ["http://127.0.0.1:9736", "127.0.0.1:9736", "", "https://a/b"] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }

    /// Certificate and key are easily given in each other's place.
    #[test]
    fn a_text_that_is_something_else_is_refused() {
        for text in [&b""[..], b"hello"] {
            assert!(matches!(
                check_certificate(text),
                Err(SetupError::Certificate)
            ));
            assert!(matches!(check_key(text), Err(SetupError::Key)));
        }
    }
}

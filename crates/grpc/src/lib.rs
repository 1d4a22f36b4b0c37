//! A gRPC connection to a Lightning node, over TLS.
//!
//! A node renews its certificates when it likes. Where they are files, they are read again for each
//! connection, so what the files say then is what counts, and no restart is needed.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, ResolveServerName};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

mod pem;
mod pin;
mod tls;

pub use pem::Pem;
pub use tls::Tls;

/// A call that has waited this long asks whether the connection is still there: a firewall that
/// forgets an idle connection says nothing, and TCP alone needs a quarter of an hour to notice. LND
/// allows a ping every 5 seconds while a call is open, none on an idle connection.
const PING_AFTER: Duration = Duration::from_secs(6);
/// When it does not answer that within this time, the call fails and the next one connects anew.
const PONG_WITHIN: Duration = Duration::from_secs(3);

/// Why a connection cannot be set up. None of these needs the node to be up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The endpoint is not `https://host[:port]`.
    #[error("expected an endpoint like https://127.0.0.1:10009")]
    Endpoint,
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no certificate in the text.
    #[error("expected at least one certificate in PEM form")]
    Certificate,
    /// There is no private key in the text.
    #[error("expected a private key in PEM form")]
    Key,
    /// The TLS settings were refused: a key that belongs to another certificate, for one.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
}

/// A connection that is set up and not yet opened. Making one needs neither the node nor a runtime.
#[derive(Clone)]
pub struct Connector {
    endpoint: Endpoint,
    dial: Arc<Dial>,
}

/// What opens a connection.
struct Dial {
    /// The endpoint with its scheme, `https`.
    uri: Uri,
    tls: Tls,
    /// The last settings that could be made. A file that is being written is no reason to fail.
    settings: RwLock<Arc<ClientConfig>>,
    within: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("endpoint", &self.dial.uri)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// A connection to `https://host[:port]`, opened within a time that includes TLS. Plain `http` is
    /// refused: what lets us in would travel in the clear.
    ///
    /// # Errors
    ///
    /// Only for what is wrong in the arguments; a node that is down shows in the calls.
    pub fn new(endpoint: &str, tls: Tls, within: Duration) -> Result<Self, SetupError> {
        let uri = parse(endpoint)?;
        let settings = RwLock::new(Arc::new(tls.settings()?));
        // tonic insists on its own TLS where it sees `https`, and that reads certificates once. So it
        // is shown the other scheme, and only ever gets a connection that has TLS.
        let mut plain = uri.clone().into_parts();
        plain.scheme = Some(tonic::codegen::http::uri::Scheme::HTTP);
        let plain = Uri::from_parts(plain).map_err(|_| SetupError::Endpoint)?;
        let endpoint = Endpoint::from(plain)
            .origin(uri.clone())
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_WITHIN);
        let dial = Dial {
            uri,
            tls,
            settings,
            within,
        };
        Ok(Self {
            endpoint,
            dial: Arc::new(dial),
        })
    }

    /// A channel that opens its connection at the first call, and again after it broke. An error of
    /// the opening has a [`tonic::ConnectError`] among its sources.
    ///
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let dial = Arc::clone(&self.dial);
        let open = tower::service_fn(move |_: Uri| {
            let connector = dial.connector();
            let opening = timeout(dial.within, connector.oneshot(dial.uri.clone()));
            async move { opening.await? }
        });
        self.endpoint.connect_with_connector_lazy(open)
    }
}

impl Dial {
    fn connector(&self) -> HttpsConnector<HttpConnector> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(self.within));
        let name: Arc<dyn ResolveServerName + Send + Sync> = match self.tls.server_name() {
            Some(name) => Arc::new(move |_: &Uri| ServerName::try_from(name)),
            None => Arc::new(DefaultServerNameResolver::default()),
        };
        HttpsConnector::new(tcp, self.settings(), true, name)
    }

    fn settings(&self) -> Arc<ClientConfig> {
        if let Ok(fresh) = self.tls.settings() {
            let mut settings = self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *settings = Arc::new(fresh);
        }
        let settings = self.settings.read();
        Arc::clone(&settings.unwrap_or_else(PoisonError::into_inner))
    }
}

/// Checks that an endpoint has the form `https://host[:port]`, without connecting.
///
/// # Errors
///
/// [`SetupError::Endpoint`].
pub fn check_endpoint(endpoint: &str) -> Result<(), SetupError> {
    parse(endpoint).map(drop)
}

fn parse(endpoint: &str) -> Result<Uri, SetupError> {
    let uri: Uri = endpoint.parse().map_err(|_| SetupError::Endpoint)?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() == Some("https") && uri.host().is_some_and(|h| !h.is_empty()) && bare {
        Ok(uri)
    } else {
        Err(SetupError::Endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over plain http a macaroon would be readable on the way.
    #[test]
    fn only_https_endpoints() {
        for good in [
            "https://127.0.0.1:10009",
            "https://[::1]:1/",
            "https://node",
        ] {
            assert!(check_endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "http://127.0.0.1:10009",
            "127.0.0.1:10009",
            "",
            "https://a/b",
            "https://a?b",
            "https://",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }

    /// Certificate and key are easily given in each other's place.
    #[test]
    fn a_text_that_is_something_else_is_refused() {
        for text in ["", "hello"] {
            let text = Pem::text(text);
            assert!(matches!(
                text.check_certificate(),
                Err(SetupError::Certificate)
            ));
            assert!(matches!(text.check_key(), Err(SetupError::Key)));
        }
        let missing = Pem::file("/does/not/exist/tls.cert").check_certificate();
        let said = missing.unwrap_err().to_string();
        assert!(said.contains("/does/not/exist/tls.cert"), "{said}");
    }

    #[test]
    fn a_text_never_shows() {
        let text = Pem::text("c0ffee");
        assert!(!format!("{text:?}").contains("c0ffee"));
    }
}

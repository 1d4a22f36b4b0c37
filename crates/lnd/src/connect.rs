//! A connection to a node: TLS pinned to its certificate, a macaroon on every call.

use std::fmt;
use std::time::Duration;

use farebox_grpc::{Pem, SetupError, Tls};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A channel that carries the macaroon; clone it freely, the connection is shared.
pub type Authorized = InterceptedService<Channel, Macaroon>;

/// Neither a binary macaroon nor its hex.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("expected a macaroon, binary or hex")]
pub struct NoMacaroon;

/// A macaroon, ready to be sent. It is a bearer token: `Debug` does not show it.
#[derive(Clone)]
pub struct Macaroon(MetadataValue<Ascii>);

impl Macaroon {
    /// Takes what a macaroon file holds: the binary form that LND writes, or hex text.
    ///
    /// # Errors
    ///
    /// [`NoMacaroon`] when it is empty.
    pub fn new(contents: &[u8]) -> Result<Self, NoMacaroon> {
        let text = contents.trim_ascii();
        let is_hex = text.len().is_multiple_of(2) && text.iter().all(u8::is_ascii_hexdigit);
        if text.is_empty() {
            return Err(NoMacaroon);
        }
        // A binary macaroon starts with its version, 0x02, which is no hex digit.
        let hex = if is_hex {
            String::from_utf8_lossy(text).into_owned()
        } else {
            hex::encode(contents)
        };
        let mut value = MetadataValue::try_from(hex).map_err(|_| NoMacaroon)?;
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

/// A connection that is set up and not yet opened. Making one needs neither the node nor a runtime.
#[derive(Clone, Debug)]
pub struct Connector {
    connector: farebox_grpc::Connector,
    macaroon: Macaroon,
}

impl Connector {
    /// A connection to `https://host[:port]`, whose node must present one of these certificates.
    ///
    /// # Errors
    ///
    /// Only for what is wrong in the arguments; a node that is down shows in the calls.
    pub fn new(
        endpoint: &str,
        certificates: Pem,
        macaroon: Macaroon,
        connect_timeout: Duration,
    ) -> Result<Self, SetupError> {
        let tls = Tls::pinned(certificates);
        let connector = farebox_grpc::Connector::new(endpoint, tls, connect_timeout)?;
        Ok(Self {
            connector,
            macaroon,
        })
    }

    /// A channel that opens its connection at the first call, and again after it broke.
    ///
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn channel(&self) -> Authorized {
        InterceptedService::new(self.connector.channel(), self.macaroon.clone())
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
        assert!(matches!(Macaroon::new(b" \n"), Err(NoMacaroon)));
    }

    #[test]
    fn a_macaroon_never_shows() {
        let macaroon = Macaroon::new(b"c0ffee").unwrap();
        assert!(!format!("{macaroon:?} {:?}", macaroon.0).contains("c0ffee"));
    }
}

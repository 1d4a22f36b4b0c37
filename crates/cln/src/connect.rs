//! A connection to a node: TLS with a certificate on both sides, as Core Lightning's gRPC plugin
//! makes them.

use std::time::Duration;

use farebox_grpc::{Connector, Pem, SetupError, Tls};

/// The name in the certificate that the plugin makes, whatever its address is.
const SERVER_NAME: &str = "cln";

/// What the plugin leaves in the node's folder for its clients. The key allows every call of the
/// interface.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `ca.pem`: whose signature the node's certificate must bear.
    pub ca: Pem,
    /// `client.pem`: what is shown to the node.
    pub certificate: Pem,
    /// `client-key.pem`: the certificate's key.
    pub key: Pem,
}

impl Credentials {
    /// A connection to `https://host[:port]` that is set up and not yet opened.
    ///
    /// # Errors
    ///
    /// Only for what is wrong in the arguments; a node that is down shows in the calls.
    pub fn connector(
        self,
        endpoint: &str,
        connect_timeout: Duration,
    ) -> Result<Connector, SetupError> {
        let tls = Tls::mutual(SERVER_NAME, self.ca, self.certificate, self.key);
        Connector::new(endpoint, tls, connect_timeout)
    }
}

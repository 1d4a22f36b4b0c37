//! The Lightning rail: `lightning/charge` and `lightning/session` over BOLT11
//! (draft-lightning-charge, draft-lightning-session).
//!
//! The challenge carries a fresh invoice, the credential its preimage. A preimage that hashes to
//! the invoice's payment hash proves that the invoice was paid, provided that nobody but the node
//! knew it before; in strict mode, the default, the node is also asked whether the invoice is
//! settled, so that a preimage read from the node of an unpaid invoice opens nothing.
//!
//! The node is behind [`Node`]. Backends are features: `lnd` and `cln` (both default) speak the gRPC
//! interfaces of LND and Core Lightning, `ldk` runs a node inside the process.
//!
//! ```
//! use farebox_core::SecretSource;
//! use farebox_lightning::{Config, Lightning, Network};
//!
//! let config = Config::lnd(
//!     "https://127.0.0.1:10009",
//!     SecretSource::File("tls.cert".into()),
//!     SecretSource::File("invoice.macaroon".into()),
//!     Network::Mainnet,
//! );
//! // The files are not there, and both are said to be missing.
//! let problems = Lightning::new(config).unwrap_err();
//! assert_eq!(problems.issues().len(), 2);
//! ```

use farebox_core::{Charge, Session, plugin};

mod backend;
pub mod bolt11;
pub mod charge;
#[cfg(feature = "cln")]
pub mod cln;
mod config;
#[cfg(any(feature = "cln", feature = "lnd"))]
mod grpc;
#[cfg(feature = "ldk")]
pub mod ldk;
#[cfg(feature = "lnd")]
pub mod lnd;
pub mod node;
pub mod session;

pub use backend::{BitcoindConfig, ClnConfig, LdkConfig};
pub use bolt11::{Details, Network, Payload, PaymentHash, Preimage};
pub use charge::{Lightning, LightningWallet, Rate, RateSource};
pub use config::{Config, RatesConfig, SessionConfig, WalletConfig};
pub use node::Node;
pub use session::{LightningSession, LightningSessionWallet};

/// The method's name on the wire.
pub(crate) const METHOD: &str = "lightning";

plugin! {
    /// `lightning/charge`.
    pub static CHARGE = Charge: Lightning::new, wallet: LightningWallet::new,
        example: include_str!("example.toml");
}

plugin! {
    /// `lightning/session`.
    pub static SESSION = Session: LightningSession::new,
        session_wallet: LightningSessionWallet::new, example: include_str!("example.toml");
}

//! The Tempo rail: stablecoin payments on the Tempo chain, `tempo/charge` on the wire, and pay as
//! you go out of a channel, `tempo/session` ([`session`]).
//!
//! Pull mode: the payer signs a type-0x76 transaction of `transferWithMemo` calls, one for the
//! payment and one for each of its splits, and hands it over; the server checks it against what it
//! asked for, simulates it, and the engine has it broadcast. Push mode: the payer broadcasts and
//! hands over the hash; the server reads what the tokens logged. The payment's memo is bound to the
//! challenge ([`memo`]), so one transaction pays for one challenge. An offer of amount `"0"` takes a
//! proof instead (see `farebox-proof`).
//!
//! With a `fee_payer` the server pays the network fee of pull payments, and of what opens and tops up
//! channels, after its own checks of what else the transaction does ([`Sponsor`]).
//!
//! Accepted in pull mode are transactions with an expiring nonce: whether another nonce is the
//! account's next takes further reads of the chain. Where an access key has signed, its account's
//! keychain is read, in one request more.
//!
//! Of alloy and the Tempo crates only types, ABI and signing are used. A pull charge costs two RPC
//! calls, a simulation and `eth_sendRawTransactionSync`; a push charge costs one, the receipt.
//!
//! ```no_run
//! use farebox_tempo::{Config, Tempo};
//!
//! let rail = Tempo::new(Config {
//!     rpc_url: Some("https://rpc.tempo.xyz".into()),
//!     chain_id: Some(4217),
//!     currency: Some("0x20C000000000000000000000b9537d11c60E8b50".to_owned()),
//!     recipient: Some("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".to_owned()),
//!     ..Config::default()
//! })?;
//! # Ok::<(), farebox_core::Invalid>(())
//! ```

mod chain;
pub mod charge;
mod config;
mod envelope;
mod explain;
mod keys;
mod nodes;
mod rpc;
pub mod session;

use farebox_core::prelude::*;

pub use chain::Receipt as TransactionReceipt;
pub use charge::{
    Broadcaster, Details, KeySigner, Order, Payload, Payment, Sponsor, SponsorBudget,
    SponsorLimits, Tempo, TempoSettler, TempoWallet, TokenCall, memo, verify_receipt,
};
pub use tempo_primitives::transaction::{
    PrimitiveSignature, SignatureType, SignedKeyAuthorization,
};

pub use config::{BuyConfig, Config, FeePayerConfig, Mode, SecretText, WalletConfig};
pub use session::{SessionConfig, SessionWalletConfig, TempoSession, TempoSessionWallet};

plugin! {
    /// `tempo/charge`: a stablecoin transfer that the payer signs and the server broadcasts.
    pub static CHARGE = Charge: Tempo::new, wallet: TempoWallet::new,
        example: include_str!("../example.toml");
}

plugin! {
    /// `tempo/session`: vouchers out of a channel on the chain.
    pub static SESSION = Session: TempoSession::new, session_wallet: TempoSessionWallet::new,
        example: include_str!("../example.session.toml");
}

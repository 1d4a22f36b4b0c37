//! The protocol values of MPP and their codecs.
//!
//! MPP is the `Payment` HTTP authentication scheme: a server answers 402 with
//! [`Challenge`]s, a client answers one of them with a [`Credential`], and the
//! paid response carries a [`Receipt`]. This crate turns those values into
//! header and JSON text and back, binds challenges to a server's secret
//! ([`SecretRing`]), and names what can go wrong ([`Problem`]). It performs no
//! I/O, knows no rail, and its parsers run in linear time and never panic.
//!
//! Text received from a peer is kept verbatim wherever it is bound or echoed:
//! [`Encoded`], [`Timestamp`] and [`BodyDigest`] hold the spelling they came in.

mod accept;
mod amount;
mod auth_params;
pub mod base64url;
mod canonical;
mod challenge;
mod credential;
mod digest;
mod encoded;
mod error;
mod offer;
mod problem;
mod receipt;
mod secret;
mod time;

pub use self::time::Timestamp;
pub use accept::AcceptPayment;
pub use amount::Amount;
pub use challenge::{Challenge, CredentialHeader};
pub use credential::{Credential, MAX_CREDENTIAL_BYTES, Payload};
pub use digest::BodyDigest;
pub use encoded::{Encoded, MAX_ENCODED_BYTES};
pub use error::{
    AmountError, CredentialError, EncodeError, FormatError, ParseError, PayloadError, SecretError,
};
pub use offer::OfferId;
pub use problem::{BALANCE_HELD, Problem, ProblemDetails};
pub use receipt::{Receipt, Success};
pub use secret::{MIN_SECRET_BYTES, SecretRing, challenge_id, is_challenge_id};

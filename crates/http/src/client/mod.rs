//! The client's side, over reqwest.
//!
//! ```no_run
//! # async fn example(purse: farebox_client::Purse) -> Result<(), farebox_http::PayError> {
//! use farebox_http::{PayExt, ReceiptExt};
//!
//! let client = reqwest::Client::new();
//! let response = client.get("https://shop.example/joke").pay(&purse).await?;
//! let receipt = response.receipt();
//! # Ok(())
//! # }
//! ```
//!
//! A call pays at most once. The answer to a paid request that got lost, or that is a 5xx, is asked
//! for again with the same credential; if it stays away, [`PayError::OutcomeUnknown`] keeps the
//! payment for [`PayExt::present`]. A fresh 402 after paying is an error and is never paid.
//!
//! Dropping the future of a call after its wallet has paid loses the credential, so set deadlines
//! on the reqwest client, where each attempt has its own, rather than around the call.

mod drive;
mod error;
mod ext;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
pub mod session;

pub use error::{Failure, NotAccepted, OutcomeUnknown, PayError};
pub use ext::{PayExt, PayOptions, ReceiptExt};
#[cfg(feature = "reqwest-middleware")]
pub use middleware::PayMiddleware;
#[cfg(feature = "client-ws")]
pub use session::PaidSocket;
pub use session::{EventStream, PaidFrom, SessionCallError, SessionClient, SseEvent};

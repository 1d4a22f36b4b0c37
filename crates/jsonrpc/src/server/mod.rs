//! The server's side: a price on any method.
//!
//! ```
//! # async fn example(engine: farebox_engine::Engine, offers: farebox_core::Offers, frame: &[u8])
//! # -> Result<Option<String>, Box<dyn std::error::Error>> {
//! use farebox_jsonrpc::{ErrorObject, server::Tariff};
//!
//! let tariff = Tariff::new([engine.gate("eth_getBlockByNumber", offers)?])?;
//! // One text frame of a WebSocket, one line of stdio, one HTTP body:
//! let answer = tariff
//!     .serve(frame, None, async |call, _payment| match call.method.as_str() {
//!         "eth_getBlockByNumber" => Ok("0x1348c9".into()),
//!         _ => Err(ErrorObject::new(-32601, "no such method")),
//!     })
//!     .await;
//! # Ok(answer)
//! # }
//! ```
//!
//! A [`Gate`]'s route is the scope of an [`Operation`](crate::Operation) that has a price:
//! `tools/call web-search`, `resources/read file:///prices`, `prompts/get greet`, or a bare method,
//! which covers all of its operations that have no gate of their own. Names and URIs are compared
//! as text: a server that reads two spellings of a URI as one should price `resources/read` whole.
//!
//! | situation | answer |
//! |---|---|
//! | no credential | `-32042`, challenges |
//! | unknown, forged, expired or for something else; the proof is wrong | `-32043`, fresh challenges |
//! | repeated under its [`IDEMPOTENCY_KEY`](crate::IDEMPOTENCY_KEY) | the result it got |
//! | used already | `-32043` without challenges: fresh ones would make the client pay again |
//! | malformed, two credentials, rail not offered here, a key used for another call | `-32602` |
//! | a session's balance does not cover the call | `-32043`, fresh challenges, and what is missing |
//! | it would, and streams hold it | `-32603`, `session/balance-held`, `data.retryAfter`; nothing was spent |
//! | a session's top-up or close | the rail's answer, or an empty result, with a receipt; no handler runs |
//! | outcome not known yet | `-32603`, `data.httpStatus` 503, `data.retryAfter` seconds; the same credential may come again |
//! | store or rail fault | `-32603`, fixed text |
//! | a paid operation as a notification | nothing, and nothing is done |
//! | paid, then the handler fails, or its tool result says `isError` | as the handler says, no receipt; the same credential may come again |
//!
//! The credential is taken out of the request before the handler sees it. A credential for an
//! operation without a price is left alone.
//!
//! Credentials must travel over TLS or not leave the machine; how messages arrive is the caller's
//! to see to, as is how many challenges one peer may ask for.

mod admit;
mod answer;
mod tariff;

pub use admit::{Admitted, Payment, admit, conclude};
pub use tariff::{Tariff, TariffError};

#[cfg(doc)]
use farebox_engine::Gate;

//! Requests, event streams and WebSockets that are paid from a session.
//!
//! ```no_run
//! # async fn example(sessions: farebox_client::session::Sessions)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! use farebox_http::SessionClient;
//!
//! let client = SessionClient::new(reqwest::Client::new(), sessions);
//! let request = client.http().get("https://llm.example/tokens").build()?;
//! let mut events = client.events(request).await?;
//! while let Some(event) = events.recv().await {
//!     let text = event?.data;
//! }
//! client.close_all().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Payment messages that belong to no request (vouchers in mid-stream, top-ups, closes) are POSTs
//! without a body to the URL of the request that they pay for.

mod client;
mod courier;
mod error;
mod events;
mod listen;
#[cfg(feature = "client-ws")]
mod socket;
mod sse;
#[cfg(feature = "client-ws")]
mod talk;

pub use client::{PaidFrom, SessionClient};
pub use error::SessionCallError;
pub use events::EventStream;
#[cfg(feature = "client-ws")]
pub use socket::PaidSocket;
pub use sse::SseEvent;

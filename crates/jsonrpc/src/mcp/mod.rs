//! MCP, by the official SDK.
//!
//! ```
//! # async fn example(engine: farebox_engine::Engine, offers: farebox_core::Offers, purse: farebox_client::Purse)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use farebox_jsonrpc::{client::Caller, mcp::{PayPeerExt as _, Paid}, server::Tariff};
//! use rmcp::{ServerHandler, ServiceExt as _, model::CallToolRequestParams};
//!
//! struct Jokes;
//! impl ServerHandler for Jokes {}
//!
//! // A line for each tool, prompt or resource that has a price:
//! let tariff = Tariff::new([engine.gate("tools/call joke", offers)?])?;
//! let (ours, theirs) = tokio::io::duplex(4096);
//! tokio::spawn(async move { Paid::new(Jokes, tariff).serve(ours).await?.waiting().await.map_err(Box::<dyn std::error::Error + Send + Sync>::from) });
//!
//! let client = ().serve(theirs).await?;
//! let answer = client.call_tool_paid(&Caller::local(purse), CallToolRequestParams::new("joke")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The SDK hands over `params._meta` only, so a credential at the message's root, which is not MCP
//! but which the draft allows, is not seen here; [`Tariff::serve`](crate::server::Tariff::serve)
//! sees it. Results are those of single rounds: a tool that asks for more input has not delivered,
//! and each round carries the same credential.

mod client;
mod server;

pub use client::{PayPeerExt, Peered, advertise};
pub use server::Paid;

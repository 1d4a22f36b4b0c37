//! Paid HTTP over MPP on any rail.
//!
//! A server offers a resource on several payment rails at once (402 with one challenge each), a
//! client pays on the rail that suits it, and anyone can add a rail by implementing a trait. This
//! crate is the front door: one Cargo feature per rail and per adapter, the [`Server`] that holds
//! rails by name, and the [`guide`].
//!
//! | feature | what it brings |
//! |---|---|
//! | `tempo`, `stripe`, `lightning`, `proof` | a rail, for servers and clients |
//! | `lightning-ldk` | a Lightning node in the process: `backend = "ldk"` |
//! | `stripe-webhooks` | signed calls from Stripe: [`Engine::heed`] |
//! | `sqlite`, `redis`, `postgres` | a durable store, opened by its URL |
//! | `axum`, `tower` | paid routes: `Server::paid`, `http::PaymentLayer` |
//! | `ws` | paid WebSockets, served: `http::PaymentLayer::websocket` |
//! | `page` | a page that browsers can pay on: `http::Page` |
//! | `client`, `reqwest-middleware` | paying: `client.get(url).pay(&purse)`, and sessions |
//! | `client-ws` | WebSockets that are paid from a session, on the client's side |
//! | `jsonrpc`, `rmcp` | prices on JSON-RPC methods, and on the tools of an MCP server: [`jsonrpc`] |
//! | `cors` | pages of other origins: `http::cors` |
//! | `config` | configuration files: [`config`] |
//!
//! No feature is on by default, and a rail that is on is not thereby offered: only code or
//! configuration offers it, so that a feature switched on by some other crate never changes what a
//! server accepts.

mod builder;
#[cfg(feature = "config")]
pub mod config;
pub mod guide;
mod realm;
mod registry;
mod server;
mod stand_in;
mod store;

pub use builder::ServerBuilder;
pub use registry::{BUILTIN, registry};
pub use server::{ConnectError, OfferSpec, Server};
pub use store::{STORES, stores};

/// What a rail is written against.
pub use farebox_core as core;
/// The lifecycle.
pub use farebox_engine as engine;
/// The protocol's values.
pub use farebox_wire as wire;

/// Selection, budgets and the pay loop, without HTTP types.
#[cfg(any(feature = "client", feature = "rmcp"))]
pub use farebox_client as client;
/// HTTP, on either side.
pub use farebox_http as http;
/// JSON-RPC and MCP, on either side.
#[cfg(feature = "jsonrpc")]
pub use farebox_jsonrpc as jsonrpc;

/// The rails that were switched on, for those who build them in code.
pub mod rails {
    #[cfg(feature = "lightning")]
    pub use farebox_lightning as lightning;
    #[cfg(feature = "proof")]
    pub use farebox_proof as proof;
    #[cfg(feature = "stripe")]
    pub use farebox_stripe as stripe;
    #[cfg(feature = "tempo")]
    pub use farebox_tempo as tempo;
}

pub use farebox_core::{
    Budget, Charge, ChargeTerms, Fault, Invalid, Limit, Offer, PricingContext, Registry, Secret,
    SecretSource, Store, compose, plugin,
};
pub use farebox_engine::{Engine, Gate, MemoryStore};
pub use farebox_wire::{Amount, Receipt, SecretRing};

/// What most servers and clients need.
pub mod prelude {
    pub use crate::{Amount, Budget, ChargeTerms, Limit, OfferSpec, Receipt, Server};
    #[cfg(any(feature = "client", feature = "rmcp"))]
    pub use farebox_client::{ClientError, Purse};
    #[cfg(feature = "tower")]
    pub use farebox_http::PaymentLayer;
    #[cfg(feature = "client")]
    pub use farebox_http::{PayExt, ReceiptExt};
}

/// The README's code compiles.
#[cfg(all(doctest, feature = "axum", feature = "client", feature = "tempo"))]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

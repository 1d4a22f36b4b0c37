//! MPP over JSON-RPC 2.0: MCP and WebSocket (draft-payment-transport-mcp-00).
//!
//! | value | where it travels |
//! |---|---|
//! | challenges | `error.data.challenges` of error [`PAYMENT_REQUIRED`], each `request` a native object |
//! | credential | `_meta["org.paymentauth/credential"]` of the request, at its root or in `params` |
//! | receipt | `_meta["org.paymentauth/receipt"]`, at the response's root or in `result` |
//! | problem | `error.data.problem`; what is wrong with a credential also in `error.data.failure` |
//!
//! A challenge binds the operation that was asked for ([`Operation`]): the method, the tool, prompt
//! or resource, and its arguments by digest.
//!
//! The codec is always here, without I/O: messages in and out are text or JSON values, so that it
//! serves stdio, HTTP bodies and WebSocket frames alike. Nothing here opens a connection, and there
//! is no loop over a WebSocket yet: no events of a session's stream, and no limit on how many
//! challenges one connection may ask for.
//!
//! | feature | gives |
//! |---|---|
//! | `server` | a price on any method, over plain JSON values |
//! | `client` | calls that pay, over any way of calling |
//! | `rmcp` | both for the official MCP SDK |

mod capability;
mod challenge;
mod json;
mod message;
mod meta;
mod operation;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "rmcp")]
pub mod mcp;
#[cfg(feature = "server")]
pub mod server;

pub use capability::{CAPABILITY, accept, capability};
pub use challenge::{Ask, Failure, MAX_CHALLENGES, PaymentError};
pub use message::{ErrorObject, Id, MAX_MESSAGE_BYTES, Message, Request, Response};
pub use meta::{
    CREDENTIAL, IDEMPOTENCY_KEY, PAYMENT_REQUIRED_RESULT, Placement, Presented, RECEIPT, receipt,
    strip_receipt, take_key, take_nested_key,
};
pub use operation::Operation;

/// The message is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The message is JSON, but not one JSON-RPC message.
pub const INVALID_REQUEST: i64 = -32600;
/// The credential cannot be read, or is for no offer of this operation.
pub const INVALID_PARAMS: i64 = -32602;
/// The payment could not be processed, or not yet. If one was made, the same credential may come
/// again.
pub const INTERNAL_ERROR: i64 = -32603;
/// Pay one of the challenges and call again.
pub const PAYMENT_REQUIRED: i64 = -32042;
/// The credential is not accepted.
pub const VERIFICATION_FAILED: i64 = -32043;

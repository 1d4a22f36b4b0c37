//! The client's side: calls that pay.
//!
//! ```
//! # use farebox_jsonrpc::{Request, Response};
//! # struct Socket(Response);
//! # impl Socket {
//! #     async fn exchange(&self, _: Request) -> std::io::Result<Response> { Ok(self.0.clone()) }
//! # }
//! # async fn example(purse: farebox_client::Purse, socket: &Socket)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use farebox_client::Origin;
//! use farebox_jsonrpc::client::{Caller, Exchange};
//!
//! let caller = Caller::new(purse, Origin::new("wss", "rpc.example", 443));
//! let request = Request::new(1, "eth_getBlockByNumber", Some(serde_json::json!(["latest", false])));
//! let mut exchange = Exchange::new(request, |request| socket.exchange(request));
//! let answer = caller.call(&mut exchange).await?;
//! println!("{} {:?}", answer.result, answer.receipt);
//! # Ok(())
//! # }
//! ```
//!
//! A call pays at most once, on `-32042`. Then the same call goes out with the credential until
//! there is an answer: a result, or an error that says what became of it. An error with any code
//! but `-32603` is definite and is not asked about again; `-32603`, or no answer at all, leaves the
//! outcome open, and after some tries [`PayError::OutcomeUnknown`] keeps the payment for
//! [`Caller::present`]. A refusal, `-32043` or another `-32042`, is handed to the caller and never
//! paid: to call again is to agree to pay again. Every attempt carries one
//! [`IDEMPOTENCY_KEY`](crate::IDEMPOTENCY_KEY), under which a server of ours gives a result again
//! whose delivery was lost.

mod caller;
mod error;
mod exchange;

pub use caller::{Answer, Caller, Pass};
pub use error::{Failed, Failure, NotAccepted, OutcomeUnknown, PayError};
pub use exchange::{Call, Exchange, Reply};

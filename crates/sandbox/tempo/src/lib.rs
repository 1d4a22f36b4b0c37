//! An offline stand-in for a Tempo chain: real JSON-RPC on loopback, real signed transactions,
//! TIP-20 balances that move.
//!
//! It decodes and verifies signed type-0x76 transactions (and the plain Ethereum types), checks
//! chain, nonce, validity window and fee, executes batches of TIP-20 calls all or nothing, takes
//! the fee in a stablecoin from the sender or from the sponsor who co-signed, and answers with
//! receipts and logs in the shape of a node's. Time is the machine's clock, unless it is moved
//! ahead ([`Chain::advance_clock`], or `evm_increaseTime` with a number of seconds). Payment
//! channels (the channel reserve of TIP-1034) work in full, and access keys sign within limits.
//!
//! It also answers as a service that pays network fees for others ([`Chain::sponsor_url`]).
//!
//! What it is not: an EVM. No contract can be created; an address without code accepts any call.
//! Admin keys, EIP-7702, issuance, roles and rewards are not here and are refused by name or by
//! selector; of the exchange there is what it takes to pay with another stablecoin, at par. Every
//! read is of the latest state. Gas is counted by a short schedule near the real one. State roots
//! are zero.
//!
//! ```
//! use farebox_sandbox_tempo::{Chain, ChainConfig, PATH_USD, dev_account};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let chain = Chain::start(ChainConfig::default()).await?;
//! let (payer, _key) = dev_account(1).ok_or(std::io::ErrorKind::NotFound)?;
//! assert_eq!(chain.balance(PATH_USD, payer), u128::from(u64::MAX));
//! println!("listening on {}", chain.url());
//! # Ok(()) }
//! ```

mod chain;
mod contracts;
mod error;
mod exchange;
mod exec;
mod faults;
mod keychain;
mod ledger;
mod methods;
mod node;
mod request;
mod reserve;
mod server;
mod sponsor;
mod state;
mod tip20;
mod tx;
mod view;
mod voucher;

pub use chain::{Chain, ChainConfig, DEV_ACCOUNTS, dev_account};
pub use faults::Fault;
pub use ledger::{ALPHA_USD, BETA_USD, PATH_USD, THETA_USD};

//! A rail that exists in memory, and a server that is paid by it, honest unless told otherwise.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "each test uses its part"
)]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

pub mod prepaid;
mod server;
mod wallet;

use std::sync::Arc;

use farebox_client::{
    Budget, Limit, Origin,
    session::{Call, DepositLimit, SessionError, Sessions, Store},
};
use farebox_core::wire::Amount;

#[allow(unused_imports, reason = "each test uses its part")]
pub use server::{Books, Server};
pub use wallet::{Chain, Coins};

pub fn coins(n: u128) -> Amount {
    Amount::new(n)
}

pub fn origin() -> Origin {
    Origin::new("http", "localhost", 80)
}

pub fn budget(total: u128) -> Budget {
    Budget::new([Limit::per_request("coin", coins(total)).total(coins(total))])
}

pub fn sessions(wallet: &Coins, store: &Arc<dyn Store>, max_deposit: u128) -> Sessions {
    Sessions::new(budget(1_000_000), store.clone())
        .wallet(wallet.clone())
        .limit(DepositLimit::new("coin", coins(max_deposit)))
}

/// One call for one unit.
pub async fn call(sessions: &Sessions, server: &Server) -> Result<Call, SessionError> {
    let mut call = sessions.begin(&[server.challenge()], &origin(), "/")?;
    loop {
        let presentation = call.next(server).await?;
        tokio::task::yield_now().await;
        let answer = server.take(presentation.credential(), 1);
        if call.answered(presentation, answer).await? {
            return Ok(call);
        }
    }
}

pub async fn served(sessions: &Sessions, server: &Server) -> Result<(), SessionError> {
    call(sessions, server).await?.finish().await
}

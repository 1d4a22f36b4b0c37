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

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use farebox_client::{
    Budget, Limit, Origin,
    session::{Answer, Call, Courier, DepositLimit, SessionError, Sessions, Store, VolatileStore},
};
use farebox_core::{
    Ask, Cost, Session,
    wire::{Amount, Challenge, Credential, Encoded, Problem, ProblemDetails, Timestamp},
};
use serde_json::{Value, json};

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

pub fn memory() -> Arc<dyn Store> {
    Arc::new(VolatileStore::new())
}

pub fn sessions(wallet: &Coins, store: &Arc<dyn Store>, max_deposit: u128) -> Sessions {
    Sessions::new(budget(1_000_000), store.clone())
        .wallet(wallet.clone())
        .limit(DepositLimit::new("coin", coins(max_deposit)))
}

/// What sells for coins, to whoever shows that it has paid.
pub trait Seller: Courier {
    /// A new one each time.
    fn challenge(&self) -> Challenge;

    /// Takes a credential, and for `units` above zero serves.
    fn take(&self, credential: &Credential, units: u128) -> Answer;

    fn refuse(&self, name: &str) -> Answer {
        let problem = ProblemDetails::new(&Problem::session(name), name);
        Answer::Refused {
            status: problem.status,
            problem: Some(Box::new(problem)),
            challenges: vec![self.challenge()],
        }
    }
}

/// The `n`th challenge: a unit's price, what a deposit is suggested to be, and the rail's details.
fn challenge(n: u32, unit: u128, deposit: u128, details: Value) -> Challenge {
    let request = json!({
        "amount": unit.to_string(),
        "currency": "coin",
        "recipient": "you",
        "suggestedDeposit": deposit.to_string(),
        "methodDetails": details,
    });
    Challenge {
        id: format!("n{n}"),
        realm: "localhost".into(),
        method: "coins".into(),
        intent: "session".into(),
        request: Encoded::encode(&request).unwrap(),
        expires: Some(Timestamp::now().plus(std::time::Duration::from_secs(300))),
        digest: None,
        opaque: None,
        description: None,
        header: None,
    }
}

/// What a unit costs.
fn unit<D>(ask: &Ask<Session, D>) -> Cost {
    Cost {
        amount: ask.request.amount,
        currency: ask.request.currency.clone(),
        recipient: ask.request.recipient.clone(),
    }
}

/// Whether one more is to be counted down.
fn one_less(counter: &AtomicU32) -> bool {
    let less = |n: u32| n.checked_sub(1);
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}

/// One call for one unit.
pub async fn call<S: Seller>(sessions: &Sessions, server: &Arc<S>) -> Result<Call, SessionError> {
    let mut call = sessions.begin(&[server.challenge()], &origin(), "/")?;
    loop {
        let presentation = call.next(&**server).await?;
        tokio::task::yield_now().await;
        let answer = server.take(presentation.credential(), 1);
        if call.answered(presentation, answer).await? {
            return Ok(call);
        }
    }
}

pub async fn served<S: Seller>(sessions: &Sessions, server: &Arc<S>) -> Result<(), SessionError> {
    call(sessions, server).await?.finish().await
}

//! Deposits that are spendable at once: what a server may say of them that nobody here has seen.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use farebox_client::session::{
    Demand, DepositLimit, SessionError, SessionPayer, Sessions, Store, VolatileStore,
};
use farebox_core::{
    Adopted, Approved, Cost, Draft, Fault, Funded, Held, OpenChannel, Paid, PayError, Paying,
    SessionPrice, Spending, Standing, TypedSessionPayer,
    wire::{Amount, OfferId, Payload},
};
use serde_json::Value;
use support::{Coins, Server, budget, call, coins};

/// Coins whose deposits need no vouchers.
struct Prepaid(TypedSessionPayer<Coins>);

#[async_trait]
impl SessionPayer for Prepaid {
    fn offer(&self) -> OfferId {
        self.0.offer()
    }

    fn spending(&self) -> Spending {
        Spending::Prepaid
    }

    fn price(&self, cx: &Paying<'_>) -> Result<SessionPrice, PayError> {
        self.0.price(cx)
    }

    async fn funded(&self, cost: &Cost) -> bool {
        self.0.funded(cost).await
    }

    async fn draft_open(&self, cx: &Paying<'_>, deposit: Amount) -> Result<Draft, PayError> {
        self.0.draft_open(cx, deposit).await
    }

    async fn open(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        cumulative: Amount,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError> {
        self.0.open(cx, draft, cumulative, approved).await
    }

    async fn voucher(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError> {
        self.0.voucher(cx, channel, cumulative).await
    }

    async fn draft_top_up(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        additional: Amount,
    ) -> Result<Draft, PayError> {
        self.0.draft_top_up(cx, channel, additional).await
    }

    async fn top_up(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError> {
        self.0.top_up(cx, draft, approved).await
    }

    async fn close(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError> {
        self.0.close(cx, channel, cumulative).await
    }

    async fn standing(&self, held: &Held) -> Result<Standing, Fault> {
        self.0.standing(held).await
    }

    async fn adopt(&self, cx: &Paying<'_>, snapshot: Option<&Value>) -> Result<Adopted, PayError> {
        self.0.adopt(cx, snapshot).await
    }
}

/// As another process would have them.
fn sessions(server: &Server, store: &Arc<dyn Store>) -> Sessions {
    let wallet = Prepaid(TypedSessionPayer::new(Coins::new(&server.chain)));
    Sessions::new(budget(1_000), store.clone())
        .payer(Arc::new(wallet))
        .limit(DepositLimit::new("coin", coins(1_000)))
}

fn wants(channel: &str, required: u128) -> Demand {
    Demand {
        channel: channel.to_owned(),
        required: Some(coins(required)),
    }
}

/// Protects: after a call that was cut short the server's word for what it sent counts, once and up to
/// the deposit, so that the channel can be gone on with; after calls that ended it does not.
#[tokio::test]
async fn a_server_is_believed_about_a_call_that_was_cut_short() {
    let server = Server::new(1, 10);
    let store: Arc<dyn Store> = Arc::new(VolatileStore::new());
    let whole = call(&sessions(&server, &store), &server).await.unwrap();
    whole.finish().await.unwrap();
    let id = server.chain.only().0;

    let second = sessions(&server, &store);
    let mut honest = call(&second, &server).await.unwrap();
    honest.event();
    let lie = honest.demand(&wants(&id, 11), &*server).await;
    assert!(
        matches!(lie, Err(SessionError::Overcharged { .. })),
        "{lie:?}"
    );
    // It is dropped without a word, as by a process that is killed.
    drop(honest);
    drop(second);

    let third = sessions(&server, &store);
    let mut next = call(&third, &server).await.unwrap();
    next.event();
    next.demand(&wants(&id, 11), &*server).await.unwrap();
    assert_eq!(server.chain.only().1.deposit, 20);
    for required in [21, 25, 1_000] {
        next.event();
        let lie = next.demand(&wants(&id, required), &*server).await;
        assert!(
            matches!(lie, Err(SessionError::Overcharged { .. })),
            "{required}: {lie:?}"
        );
    }
    assert_eq!(server.chain.only().1.deposit, 20, "believed once");
    next.finish().await.unwrap();
}

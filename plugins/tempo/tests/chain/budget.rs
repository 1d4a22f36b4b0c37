//! What the server pays for others a day.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use farebox_core::{Outcome, Refusal, Store, StoredOrder, Tally, prelude::*};
use farebox_engine::MemoryStore;
use farebox_sandbox_tempo::Fault;
use farebox_testkit::{Between, Call, Proxy};
use serde_json::{Value, json};

use crate::{
    ground::Ground,
    net::{Net, RICH, config, reference},
    sponsored::{FEE_PAYER, FEE_PAYER_ADDRESS},
    suite,
};

/// Development account 4.
const OTHER: &str = "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a";

/// A process that shares `store` with others.
fn replica(url: &str, store: &Arc<dyn Store>, budget: &Value) -> Net {
    let mut config = config(url);
    config["fee_payer"] = json!({ "private_key": FEE_PAYER });
    for (key, value) in budget.as_object().unwrap() {
        config["fee_payer"][key] = value.clone();
    }
    let rail = (farebox_tempo::CHARGE.build)(&config).unwrap();
    rail.entrust(Tally::new(store.clone(), "tempo"));
    let url = url.to_owned();
    Net { url, rail }
}

/// Budgets are for a day: a test that began just before midnight would see two.
async fn start() -> (Ground, Arc<dyn Store>) {
    const DAY: u64 = 86_400;
    while crate::net::now() % DAY > DAY - 60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    (Ground::start().await, Arc::<MemoryStore>::default())
}

/// What is counted for all payers today.
async fn total(store: &Arc<dyn Store>) -> u128 {
    let name = format!(
        "{FEE_PAYER_ADDRESS:#x}:total:{}",
        crate::net::now() / 86_400
    );
    let account = farebox_core::Account {
        name: &name,
        limit: 0,
        keep: Duration::ZERO,
    };
    let tally = Tally::new(store.clone(), "tempo");
    tally.total(account).await.unwrap()
}

/// An attempt that nobody knows the outcome of, so that what it may cost stays set aside.
async fn leave_open(chain: &Ground, net: &Net, order: &StoredOrder) {
    chain.fail_next("eth_sendRawTransactionSync", 1, Fault::Disconnect);
    assert_eq!(net.settle(order).await, Outcome::Unknown);
}

async fn order(net: &Net, payer: &str) -> Result<StoredOrder, Rejection> {
    let terms = json!({ "amount": "0.01", "fee_payer": true });
    let credential = net.pay(net.challenge_for(&terms).await, payer);
    match net.verify(&credential.await.unwrap()).await {
        Ok(order) => Ok(order),
        Err(Refusal::Rejected(why)) => Err(why),
        Err(Refusal::Fault(fault)) => panic!("{fault}"),
    }
}

/// A little more than a transaction of the wallet's may cost, attodollars: 1 000 000 gas at twice
/// the chain's price.
async fn most(chain: &Ground) -> u128 {
    Net::at(&chain.url()).gas_price().await * 2 * 1_250_000
}

/// A budget of that much.
async fn once(chain: &Ground, key: &str) -> Value {
    let most = Amount::new(most(chain).await).to_decimal(18);
    json!({ key: most })
}

/// Protects: nobody has more paid for him than is allowed, whichever process he asks; what is not
/// spent is there again, and others are paid for.
#[tokio::test]
async fn a_payer_has_so_much_paid_for_him_a_day() {
    let (chain, store) = start().await;
    let budget = once(&chain, "daily_budget_per_payer").await;
    let one = replica(&chain.url(), &store, &budget);
    let two = replica(&chain.url(), &store, &budget);
    let first = order(&one, RICH).await.unwrap();
    leave_open(&chain, &one, &first).await;
    let refused = order(&two, RICH).await.unwrap_err();
    assert!(refused.detail.contains("for one payer"), "{refused:?}");
    let problem = serde_json::to_value(&refused.problem).unwrap();
    assert!(
        problem.to_string().contains("fee-budget-exhausted"),
        "{problem}"
    );
    order(&two, OTHER).await.unwrap();
    // The actual fee is a tenth of what was set aside.
    reference(suite::in_the_end(&one, &first).await);
    let second = order(&two, RICH).await.unwrap();
    reference(suite::in_the_end(&two, &second).await);
}

/// Protects: what is only verified costs nothing, however often it comes, and whatever becomes of it;
/// what passes the budget is declined before it is sent, and what is under way is counted once.
#[tokio::test]
async fn only_what_is_sent_takes_from_the_budget() {
    let (chain, store) = start().await;
    let budget = once(&chain, "daily_budget").await;
    let net = replica(&chain.url(), &store, &budget);
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    for _ in 0..3 {
        drop(net.verify(&credential).await.unwrap());
    }
    let (one, two) = (order(&net, RICH).await, order(&net, OTHER).await);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(total(&store).await, 0);

    leave_open(&chain, &net, &one).await;
    let sent = chain.calls("eth_sendRawTransactionSync");
    match net.settle(&two).await {
        Outcome::Declined(why) => assert!(why.detail.contains("used up"), "{why:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(chain.calls("eth_sendRawTransactionSync"), sent);
    let most = total(&store).await;
    reference(suite::in_the_end(&net, &one).await);
    let spent = total(&store).await;
    assert!(spent > 0 && spent < most, "{spent} of {most}");
    reference(net.lookup(&one).await);
    assert_eq!(total(&store).await, spent, "counted once");
}

/// Protects: one balance cannot stand behind any number of transactions, even where no budget is
/// configured.
#[tokio::test]
async fn a_payer_has_so_much_under_way() {
    let (chain, store) = start().await;
    let fee = once(&chain, "max_fee").await;
    let net = replica(&chain.url(), &store, &fee);
    let mut open = Vec::new();
    // What a transaction takes of the highest fee differs with the chain's gas, and is at most all
    // of it.
    let refused = loop {
        match order(&net, RICH).await {
            Ok(next) => {
                leave_open(&chain, &net, &next).await;
                open.push(next);
            }
            Err(refused) => break refused,
        }
        assert!(open.len() < 60, "so many are under way");
    };
    assert!(refused.detail.contains("under way"), "{refused:?}");
    assert!(open.len() >= 10, "{} of ten highest fees", open.len());
    order(&net, OTHER).await.unwrap();
    // The last, since the first's window may be over by now.
    let last = open.last().unwrap();
    reference(suite::in_the_end(&net, last).await);
    order(&net, RICH).await.unwrap();
}

/// Protects: another fee payer's budget is another one.
#[tokio::test]
async fn a_budget_is_its_fee_payers() {
    let (chain, store) = start().await;
    let mut budget = once(&chain, "daily_budget").await;
    let one = replica(&chain.url(), &store, &budget);
    let first = order(&one, RICH).await.unwrap();
    leave_open(&chain, &one, &first).await;
    budget["private_key"] = json!(OTHER);
    let two = replica(&chain.url(), &store, &budget);
    let second = order(&two, RICH).await.unwrap();
    reference(two.settle(&second).await);
}

/// A store that takes no writes for a while.
#[derive(Default)]
struct Shaky {
    refuses: AtomicBool,
    refused: AtomicUsize,
}

impl Between for Shaky {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, farebox_core::Fault>> + Send,
    ) -> Result<T, farebox_core::Fault> {
        if matches!(call, Call::Write(_)) && self.refuses.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(farebox_core::Fault::unavailable("the store is away"));
        }
        reply.await
    }
}

/// Protects: a fee that cannot be counted at once is counted later, and nobody waits for it.
#[tokio::test]
async fn a_count_that_fails_is_made_later() {
    let (chain, _) = start().await;
    let shaky = Arc::new(Proxy::new(Arc::<MemoryStore>::default(), Shaky::default()));
    let store: Arc<dyn Store> = shaky.clone();
    let budget = once(&chain, "daily_budget").await;
    let net = replica(&chain.url(), &store, &budget);
    let sent = order(&net, RICH).await.unwrap();
    leave_open(&chain, &net, &sent).await;
    let most = total(&store).await;
    shaky.refuses.store(true, Ordering::Relaxed);
    reference(suite::in_the_end(&net, &sent).await);
    let deadline = Instant::now() + Duration::from_secs(60);
    while shaky.refused.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < deadline, "it is not tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(total(&store).await, most);
    shaky.refuses.store(false, Ordering::Relaxed);
    while total(&store).await == most {
        assert!(Instant::now() < deadline, "it is never counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(total(&store).await > 0);
}

/// Protects: once the day's fees are spent, payers are asked for their own, and pay.
#[tokio::test]
async fn what_all_payers_cost_ends_the_offer() {
    let (chain, store) = start().await;
    let budget = once(&chain, "daily_budget").await;
    let net = replica(&chain.url(), &store, &budget);
    let challenge = net.challenge("0.01").await;
    assert_eq!(challenge.request.value()["methodDetails"]["feePayer"], true);
    let first = order(&net, RICH).await.unwrap();
    leave_open(&chain, &net, &first).await;
    let refused = order(&net, OTHER).await.unwrap_err();
    assert!(
        refused.detail.contains("in a day are used up"),
        "{refused:?}"
    );

    let challenge = net.challenge("0.01").await;
    assert_eq!(
        challenge.request.value()["methodDetails"]["feePayer"],
        Value::Null
    );
    let own = net.pay(challenge, OTHER).await.unwrap();
    reference(net.settle(&net.verify(&own).await.unwrap()).await);
    let terms = json!({ "amount": "0.01", "fee_payer": true });
    assert!(matches!(
        net.rail.quote(&terms).await,
        Err(NoQuote::Declined(_))
    ));
}

/// Protects: a reverted transaction has cost its fee, and one that was never sent has cost nothing.
#[tokio::test]
async fn what_failed_is_counted_as_what_it_cost() {
    let (chain, store) = start().await;
    let budget = once(&chain, "daily_budget").await;
    let net = replica(&chain.url(), &store, &budget);
    let sent = order(&net, RICH).await.unwrap();
    let sync = "eth_sendRawTransactionSync";
    chain.fail_next(sync, 1, Fault::error(-32003, "invalid signature"));
    assert!(matches!(net.settle(&sent).await, Outcome::Declined(_)));
    assert_eq!(total(&store).await, 0);
    let next = order(&net, RICH).await.unwrap();
    reference(net.settle(&next).await);
    let spent = total(&store).await;
    assert!(spent > 0 && spent < most(&chain).await / 2, "{spent}");
}

/// Protects: a budget that cannot be counted signs for nothing.
#[tokio::test]
async fn a_budget_without_a_store_sponsors_nothing() {
    let (chain, _) = start().await;
    let mut config = config(&chain.url());
    config["fee_payer"] = json!({ "private_key": FEE_PAYER, "daily_budget": "1" });
    let rail = (farebox_tempo::CHARGE.build)(&config).unwrap();
    let net = Net {
        url: chain.url(),
        rail,
    };
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    match net.verify(&credential).await {
        Err(Refusal::Fault(fault)) => assert!(fault.to_string().contains("store"), "{fault}"),
        other => panic!("{other:?}"),
    }
}

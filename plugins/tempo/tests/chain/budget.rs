//! What the server pays for others a day.

use std::sync::Arc;

use farebox_core::{Outcome, Refusal, StoredOrder, Tally, prelude::*};
use farebox_engine::MemoryStore;
use farebox_sandbox_tempo::Fault;
use serde_json::{Value, json};

use crate::{
    ground::Ground,
    net::{Net, RICH, config, reference},
    sponsored::FEE_PAYER,
    suite,
};

/// Development account 4.
const OTHER: &str = "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a";

/// A process that shares `store` with others.
fn replica(url: &str, store: &Arc<MemoryStore>, budget: &Value) -> Net {
    let mut config = config(url);
    config["fee_payer"] = json!({ "private_key": FEE_PAYER });
    for (key, value) in budget.as_object().unwrap() {
        config["fee_payer"][key] = value.clone();
    }
    let rail = (farebox_tempo::CHARGE.build)(&config).unwrap();
    rail.entrust(Tally::new(store.clone(), "tempo/charge"));
    let url = url.to_owned();
    Net { url, rail }
}

async fn start() -> (Ground, Arc<MemoryStore>) {
    (Ground::start().await, Arc::default())
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
    let price = Net::at(&chain.url()).rpc("eth_gasPrice", json!([])).await;
    let price = price.as_str().unwrap().trim_start_matches("0x");
    u128::from_str_radix(price, 16).unwrap() * 2 * 1_250_000
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
    let refused = order(&two, RICH).await.unwrap_err();
    assert!(refused.detail.contains("for one payer"), "{refused:?}");
    let problem = serde_json::to_value(&refused.problem).unwrap();
    assert!(
        problem.to_string().contains("fee-budget-exhausted"),
        "{problem}"
    );
    order(&two, OTHER).await.unwrap();
    // The actual fee is a tenth of what was set aside.
    reference(one.settle(&first).await);
    let second = order(&two, RICH).await.unwrap();
    reference(suite::in_the_end(&two, &second).await);
}

/// Protects: one credential reserves once, however often it comes.
#[tokio::test]
async fn a_credential_that_comes_again_reserves_nothing_more() {
    let (chain, store) = start().await;
    let budget = once(&chain, "daily_budget").await;
    let net = replica(&chain.url(), &store, &budget);
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    for _ in 0..3 {
        drop(net.verify(&credential).await.unwrap());
    }
}

/// Protects: once the day's fees are spent, payers are asked for their own, and pay.
#[tokio::test]
async fn what_all_payers_cost_ends_the_offer() {
    let (chain, store) = start().await;
    let budget = once(&chain, "daily_budget").await;
    let net = replica(&chain.url(), &store, &budget);
    let challenge = net.challenge("0.01").await;
    assert_eq!(challenge.request.value()["methodDetails"]["feePayer"], true);
    order(&net, RICH).await.unwrap();
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
    let tally = Tally::new(store, "tempo/charge");
    let day = crate::net::now() / 86_400;
    let name = format!("total:{day}");
    let account = farebox_core::Account {
        name: &name,
        limit: 0,
        keep: std::time::Duration::ZERO,
    };
    assert_eq!(tally.total(account).await.unwrap(), 0);
    let next = order(&net, RICH).await.unwrap();
    reference(net.settle(&next).await);
    let spent = tally.total(account).await.unwrap();
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

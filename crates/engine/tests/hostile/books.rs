//! What an operator reads: every payment and channel, and nothing that pays or collects.

use farebox_core::{Typed, prelude::*};
use farebox_engine::Standing;
use farebox_testkit::{Bank, TestRail};
use serde_json::{Value, json};

use crate::common::{
    Act, Got, T0, Till, World, challenge, charge_gate, credential, pay, present, scripted,
    session_gate,
};

/// One payment in each state that a process can leave behind.
#[tokio::test(start_paused = true)]
async fn the_books_show_every_payment_as_it_stands() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    let (mut ids, mut tokens) = (Vec::new(), Vec::new());
    let no = Outcome::Declined(Rejection::verification("no"));
    for (n, act) in [
        Act::Say(Outcome::settled("ref-0")),
        Act::Say(no),
        Act::Say(Outcome::Unknown),
        Act::Say(Outcome::settled("ref-3")),
    ]
    .into_iter()
    .enumerate()
    {
        script.then_settle(act);
        let challenge = challenge(&gate).await;
        let token = format!("tok_{n}_secret");
        let credential = pay(&challenge, &token);
        if n == 3 {
            let admission = gate.present(credential, &Default::default()).await.unwrap();
            admission.into_serving().unwrap().failed().await.unwrap();
        } else {
            present(&gate, &credential).await;
        }
        ids.push(challenge.id);
        tokens.push(token);
        world.pass(1);
    }
    let books = engine.books().await.unwrap();
    let seen: Vec<_> = books.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(seen, ids, "in the order they came");
    let states: Vec<_> = books.iter().map(|entry| entry.state).collect();
    use Standing::{Attempted, Declined, Delivered, Paid};
    assert_eq!(states, [Delivered, Declined, Attempted, Paid]);

    let first = serde_json::to_value(&books[0]).unwrap();
    let expected = json!({
        "id": ids[0], "method": "test/charge", "offer": "test/charge", "state": "delivered",
        "amount": "100", "currency": "usd", "reference": "ref-0", "refunded": null, "externalId": null,
        "challengeId": ids[0], "presented": Timestamp::from_unix_millis(T0),
        "expires": Timestamp::from_unix_millis(T0 + 300_000), "ageSeconds": 4,
    });
    assert_eq!(first, expected, "the stable members, and no others");
    for (entry, token) in books.iter().zip(&tokens) {
        let text = serde_json::to_string(entry).unwrap() + &format!("{entry:?}");
        assert!(!text.contains(token.as_str()), "an order is a secret");
        assert!(
            !text.contains(ProofKey::of("test", token).as_str()),
            "{text}"
        );
    }
}

/// A record that a newer version wrote does not hide the others.
#[tokio::test(start_paused = true)]
async fn one_unreadable_record_does_not_close_the_books() {
    let (world, bank) = (World::new(), std::sync::Arc::new(Bank::default()));
    let engine = world.engine(world.store());
    let rail = Typed::<_, Charge>::new(TestRail::settling(bank, farebox_testkit::Fuse::endless()));
    let gate = charge_gate(&engine, std::sync::Arc::new(rail), "100");
    let credential = pay(&challenge(&gate).await, "t");
    assert_eq!(present(&gate, &credential).await, Got::Served);
    farebox_core::Store::compare_and_swap(&*world.disk, "pay:x", None, Some("{\"v\":9}"), None)
        .await
        .unwrap();
    assert_eq!(engine.books().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn channels_show_their_balances() {
    let world = World::new();
    let till = std::sync::Arc::new(Typed::<_, Session>::new(Till::held()));
    let engine = world.engine(world.store());
    let gate = session_gate(&engine, till);
    let open = json!({"do": "open", "n": 100, "proof": "p"});
    let opened = credential(&challenge(&gate).await, &open);
    assert_eq!(present(&gate, &opened).await, Got::Served);
    let meter = engine.meter(Till::channel());
    meter.debit(Amount::new(7)).await.unwrap();
    let lease = meter.lease(Amount::new(20)).await.unwrap();
    let channels = engine.channels().await.unwrap();
    let expected = json!([{
        "rail": "test", "id": "x", "deposit": "100", "authorized": "100", "spent": "7",
        "held": "20", "units": 7, "settled": "0", "refunded": "0", "owed": "0", "refund": "none",
        "closeRequested": false, "closing": false, "closed": false,
    }]);
    assert_eq!(serde_json::to_value(&channels).unwrap(), expected);
    lease.finish().await.unwrap();

    // A session's payment is told apart by less than what says who may collect.
    let books = serde_json::to_value(engine.books().await.unwrap()).unwrap();
    let record: Value = world.record().await;
    let fingerprint = record["fingerprint"].as_str().unwrap();
    assert_eq!(books[0]["offer"], "test/session");
    assert!(!books.to_string().contains(fingerprint));
}

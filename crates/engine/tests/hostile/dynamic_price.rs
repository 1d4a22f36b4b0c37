//! A price that depends on the request buys that request and no other.

use farebox_core::{Offer, PricingContext, Typed, compose, prelude::*};
use farebox_engine::Inbound;
use farebox_testkit::{Bank, Fuse, TestRail};
use std::sync::Arc;

use crate::common::{Got, World, challenge, charge_gate, pay, present, refused};

fn at(target: &str) -> Inbound<'_> {
    Inbound {
        target,
        ..Inbound::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_cheap_item_of_a_route_does_not_buy_the_dear_one() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let engine = world.engine(world.store());
    let rail = TestRail::settling(bank.clone(), Fuse::endless());
    let offer = Offer::dynamic::<Charge, _, _>(
        Arc::new(Typed::<_, Charge>::new(rail)),
        |cx: PricingContext<'_>| {
            let dear = cx.target.contains("big") || cx.body.is_some_and(|b| b.len() > 3);
            let amount = if dear { "1000000" } else { "1" };
            async move { Ok(ChargeTerms::amount(amount)) }
        },
    )
    .unwrap();
    let gate = engine
        .gate("GET /items/{id}", compose([offer]).unwrap())
        .unwrap();
    // As long as the dear one's, so that its very text counts.
    let small = at("/items/wee");
    let cheap = gate.challenges(&small).await.unwrap().remove(0);
    assert_eq!(cheap.request.value()["amount"], "1");

    let long = Inbound {
        body: Some(b"a long body"),
        ..small
    };
    for dear in [at("/items/big"), at("/items/wee?size=big"), long] {
        let refusal = gate.present(pay(&cheap, "t"), &dear).await.unwrap_err();
        assert_eq!(refused(refusal), Got::Pay("invalid-challenge".into()));
    }
    assert_eq!(bank.moved(), 0);
    // The handler that fails for the cheap one, or whose client goes away, leaves it collectable.
    let admission = gate.present(pay(&cheap, "t"), &small).await.unwrap();
    admission.into_serving().unwrap().failed().await.unwrap();
    for dear in [at("/items/big"), long] {
        let refusal = gate.present(pay(&cheap, "t"), &dear).await.unwrap_err();
        assert_eq!(refused(refusal), Got::Pay("invalid-challenge".into()));
    }
    let admission = gate.present(pay(&cheap, "t"), &small).await.unwrap();
    admission
        .into_serving()
        .unwrap()
        .delivered(None)
        .await
        .unwrap();
    assert_eq!(bank.moved(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_paid_before_a_price_change_is_collected_and_what_was_not_is_asked_anew() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let rail = || {
        let rail = TestRail::settling(bank.clone(), Fuse::endless());
        Arc::new(Typed::<_, Charge>::new(rail))
    };
    let gate = charge_gate(&world.engine(world.store()), rail(), "100");
    let (paid, unpaid) = (
        pay(&challenge(&gate).await, "paid"),
        pay(&challenge(&gate).await, "unpaid"),
    );
    let admission = gate.present(paid.clone(), &Inbound::default()).await;
    admission
        .unwrap()
        .into_serving()
        .unwrap()
        .failed()
        .await
        .unwrap();

    let gate = charge_gate(&world.engine(world.store()), rail(), "101");
    assert_eq!(present(&gate, &paid).await, Got::Served);
    assert_eq!(
        present(&gate, &unpaid).await,
        Got::Pay("invalid-challenge".into())
    );
    assert_eq!(bank.moved(), 1);
}

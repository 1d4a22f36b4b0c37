//! A restart with other terms: what was paid by then is honoured as issued, and nothing else is.

use std::sync::{Arc, Mutex};

use farebox_core::{Method, Offer, Typed, compose, prelude::*, wire::BodyDigest};
use farebox_engine::{Gate, Inbound};
use farebox_testkit::{Bank, Fuse, TestPayload, TestRail};
use serde_json::{Map, Value, json};

use crate::common::{
    Got, Till, World, challenge, charge_gate, credential, pay, present, refused, request,
};

fn prepaid() -> Arc<dyn Method> {
    let rail = TestRail::prepaid(Arc::default(), Fuse::endless());
    Arc::new(Typed::<_, Charge>::new(rail))
}

fn settling(bank: &Arc<Bank>) -> Arc<dyn Method> {
    let rail = TestRail::settling(bank.clone(), Fuse::endless());
    Arc::new(Typed::<_, Charge>::new(rail))
}

fn anew() -> Got {
    Got::Pay("invalid-challenge".into())
}

/// The joke, at these offers.
fn shop(world: &World, offers: &[(&Arc<dyn Method>, &str)]) -> Arc<Gate> {
    let offers = offers.iter().map(|(method, price)| {
        Offer::new::<Charge>(Arc::clone(method), ChargeTerms::amount(*price)).unwrap()
    });
    let engine = world.engine(world.store());
    Arc::new(engine.gate("GET /joke", compose(offers).unwrap()).unwrap())
}

async fn nothing_is_claimed(world: &World) {
    assert_eq!(world.count("pay:").await, 0);
    assert_eq!(world.count("proof:").await, 0);
}

/// `cash/charge`: the proof is the payment. Remembers for how much it was asked.
#[derive(Default)]
struct Cash {
    asked: Mutex<Vec<Amount>>,
    settler: NoSettler,
}

impl Rail<Charge> for Cash {
    const METHOD: &'static str = "cash";
    type Details = Map<String, Value>;
    type Payload = TestPayload;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        Ok(Quote::new(request(terms)?, Map::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        ask: &Ask<Charge, Self::Details>,
        payload: TestPayload,
    ) -> Result<Plan<Once, Never>, Refusal> {
        self.asked.lock().unwrap().push(ask.request.amount);
        Ok(Plan::paid(
            ProofKey::of("cash", &payload.token),
            payload.token,
        ))
    }

    fn settler(&self) -> &NoSettler {
        &self.settler
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_paid_is_honoured_as_issued_at_any_later_price() {
    for later in ["1", "99", "101", "1000000"] {
        let (world, cash) = (World::new(), Arc::new(Typed::new(Cash::default())));
        let gate = |price| charge_gate(&world.engine(world.store()), cash.clone(), price);
        let issued = challenge(&gate("100")).await;
        let changed = gate(later);
        world.pass(299);
        assert_eq!(present(&changed, &pay(&issued, "t")).await, Got::Served);
        assert_eq!(*cash.rail().asked.lock().unwrap(), [Amount::new(100)]);
        assert_eq!(world.record().await["amount"], "100");
        // Once, whichever of the two prices is asked for.
        for gate in [changed, gate("100")] {
            assert_eq!(present(&gate, &pay(&issued, "t")).await, Got::Spent);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_price_makes_nothing_live_longer_and_no_proof_pay_twice() {
    let world = World::new();
    let gate = |price| charge_gate(&world.engine(world.store()), prepaid(), price);
    let old = gate("100");
    let issued = [
        challenge(&old).await,
        challenge(&old).await,
        challenge(&old).await,
    ];
    let changed = gate("101");
    let forged = Got::Pay("verification-failed".into());
    assert_eq!(present(&changed, &pay(&issued[0], "forged")).await, forged);
    nothing_is_claimed(&world).await;
    assert_eq!(present(&changed, &pay(&issued[0], "t")).await, Got::Served);
    assert_eq!(present(&changed, &pay(&issued[1], "t")).await, Got::Spent);
    world.pass(300);
    let expired = Got::Pay("payment-expired".into());
    assert_eq!(present(&changed, &pay(&issued[2], "u")).await, expired);
}

#[tokio::test(start_paused = true)]
async fn what_would_have_to_be_settled_is_asked_for_anew() {
    for later in ["1", "99", "101"] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let gate = |price| charge_gate(&world.engine(world.store()), settling(&bank), price);
        let issued = challenge(&gate("100")).await;
        let changed = gate(later);
        for _ in 0..2 {
            assert_eq!(present(&changed, &pay(&issued, "t")).await, anew());
        }
        assert_eq!(bank.transfers(), 0);
        nothing_is_claimed(&world).await;
        // The proof is as good as before.
        let fresh = pay(&challenge(&changed).await, "t");
        assert_eq!(present(&changed, &fresh).await, Got::Served);
    }
}

/// Whoever proved something free has lost nothing, and does not get what has a price by now.
#[tokio::test(start_paused = true)]
async fn what_was_free_is_not_honoured_at_a_price() {
    let (world, cash) = (World::new(), Arc::new(Typed::new(Cash::default())));
    let gate = |price| charge_gate(&world.engine(world.store()), cash.clone(), price);
    let issued = challenge(&gate("0")).await;
    assert_eq!(present(&gate("100"), &pay(&issued, "t")).await, anew());
    assert!(cash.rail().asked.lock().unwrap().is_empty());
    nothing_is_claimed(&world).await;
    assert_eq!(present(&gate("0"), &pay(&issued, "t")).await, Got::Served);
}

#[tokio::test(start_paused = true)]
async fn what_is_paid_finds_its_method_in_another_order() {
    let world = World::new();
    let (test, cash) = (
        prepaid(),
        Arc::new(Typed::new(Cash::default())) as Arc<dyn Method>,
    );
    let old = shop(&world, &[(&cash, "100"), (&test, "100")]);
    let issued = old.challenges(&Inbound::default()).await.unwrap().remove(1);
    for (n, offers) in [
        // Its very offer, elsewhere.
        vec![(&test, "100"), (&cash, "100")],
        // Another offer of its method, elsewhere and in its place.
        vec![(&test, "101")],
        vec![(&cash, "100"), (&test, "99")],
        vec![(&test, "5"), (&cash, "5"), (&test, "6")],
    ]
    .into_iter()
    .enumerate()
    {
        let changed = shop(&world, &offers);
        let issued = match n {
            0 => issued.clone(),
            _ => old.challenges(&Inbound::default()).await.unwrap().remove(1),
        };
        let credential = pay(&issued, &n.to_string());
        assert_eq!(present(&changed, &credential).await, Got::Served, "{n}");
    }
    // Its method is gone.
    let issued = old.challenges(&Inbound::default()).await.unwrap().remove(1);
    let gone = shop(&world, &[(&cash, "100"), (&cash, "101")]);
    assert_eq!(present(&gone, &pay(&issued, "u")).await, Got::Wrong);
}

/// An authorisation is settled at the offer it was issued for, in its place.
#[tokio::test(start_paused = true)]
async fn another_order_settles_nothing() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let test = settling(&bank);
    let old = shop(&world, &[(&test, "100"), (&test, "200")]);
    let issued = challenge(&old).await;
    let swapped = shop(&world, &[(&test, "200"), (&test, "100")]);
    assert_eq!(present(&swapped, &pay(&issued, "t")).await, anew());
    assert_eq!(bank.transfers(), 0);
    nothing_is_claimed(&world).await;
}

/// Of two instances of one method the wrong one might take what it cannot judge.
#[tokio::test(start_paused = true)]
async fn nobody_guesses_which_instance_was_paid() {
    let world = World::new();
    let named = |name: &str| {
        let rail = TestRail::prepaid(Arc::default(), Fuse::endless());
        Arc::new(Typed::<_, Charge>::named(rail, name)) as Arc<dyn Method>
    };
    let (a, b) = (named("a"), named("b"));
    let cash: Arc<dyn Method> = Arc::new(Typed::new(Cash::default()));
    let issued = challenge(&shop(&world, &[(&a, "100")])).await;
    let unclear = shop(&world, &[(&cash, "100"), (&b, "101"), (&a, "101")]);
    assert_eq!(present(&unclear, &pay(&issued, "t")).await, anew());
    nothing_is_claimed(&world).await;
    // The terms say whose they were.
    let clear = shop(&world, &[(&cash, "100"), (&b, "100"), (&a, "100")]);
    assert_eq!(present(&clear, &pay(&issued, "t")).await, Got::Served);
    assert_eq!(world.record().await["method"], "a");
}

/// A price that was computed for a request is no fixed one.
#[tokio::test(start_paused = true)]
async fn a_computed_price_that_became_fixed_is_asked_for_anew() {
    let world = World::new();
    let engine = world.engine(world.store());
    let price = |_: farebox_core::PricingContext<'_>| async { Ok(ChargeTerms::amount("100")) };
    let method = prepaid();
    let offer = Offer::dynamic::<Charge, _, _>(method.clone(), price).unwrap();
    let gate = engine.gate("GET /joke", compose([offer]).unwrap()).unwrap();
    let issued = challenge(&gate).await;
    let fixed = charge_gate(&engine, method, "100");
    assert_eq!(present(&fixed, &pay(&issued, "t")).await, anew());
    nothing_is_claimed(&world).await;
    // A fixed one that became computed is honoured as it was issued.
    let issued = challenge(&fixed).await;
    assert_eq!(present(&gate, &pay(&issued, "t")).await, Got::Served);
}

#[tokio::test(start_paused = true)]
async fn a_changed_price_loosens_no_other_tie() {
    let world = World::new();
    let digest = BodyDigest::of(b"a body");
    let with_body = Inbound {
        digest: Some(&digest),
        ..Inbound::default()
    };
    let old = charge_gate(&world.engine(world.store()), prepaid(), "100");
    let issued = old.challenges(&with_body).await.unwrap().remove(0);
    let (engine, method) = (world.engine(world.store()), prepaid());
    let changed = charge_gate(&engine, method.clone(), "101");
    let offer = Offer::new::<Charge>(method, ChargeTerms::amount("101")).unwrap();
    let elsewhere = engine.gate("GET /poem", compose([offer]).unwrap()).unwrap();
    let other_realm = Inbound {
        realm: Some("other.example"),
        ..with_body
    };
    let other_body = Inbound::default();
    for (gate, inbound) in [
        (&*changed, other_realm),
        (&*changed, other_body),
        (&elsewhere, with_body),
    ] {
        let refusal = gate.present(pay(&issued, "t"), &inbound).await.unwrap_err();
        assert_eq!(refused(refusal), anew());
    }
    let mut cheaper = issued.clone();
    cheaper.request =
        farebox_core::wire::Encoded::encode(&json!({"amount": "1", "currency": "usd"})).unwrap();
    let refusal = changed.present(pay(&cheaper, "t"), &with_body).await;
    assert_eq!(refused(refusal.unwrap_err()), anew());
    nothing_is_claimed(&world).await;
    assert!(changed.present(pay(&issued, "t"), &with_body).await.is_ok());
}

/// A deposit is money that is in; an order, a voucher or a close comes again under a fresh challenge.
#[tokio::test(start_paused = true)]
async fn a_deposit_that_is_in_opens_its_channel_at_any_later_price() {
    let world = World::new();
    let till = Arc::new(Typed::new(Till::held()));
    let gate = |price: &str| {
        let terms = SessionTerms {
            amount: price.into(),
            unit: "token".into(),
            ..Default::default()
        };
        let offer = Offer::new::<Session>(till.clone(), terms).unwrap();
        let engine = world.engine(world.store());
        engine
            .gate("POST /stream", compose([offer]).unwrap())
            .unwrap()
    };
    let old = gate("1");
    let issued = challenge(&old).await;
    let changed = gate("2");
    let order = json!({"do": "open", "n": 5, "proof": "a", "slow": true});
    assert_eq!(
        present(&changed, &credential(&issued, &order)).await,
        anew()
    );
    nothing_is_claimed(&world).await;
    let open = json!({"do": "open", "n": 5, "proof": "a"});
    assert_eq!(
        present(&changed, &credential(&issued, &open)).await,
        Got::Served
    );
    for action in [json!({"do": "bearer"}), json!({"do": "close"})] {
        assert_eq!(
            present(&changed, &credential(&issued, &action)).await,
            anew()
        );
    }
    let more = json!({"do": "topup", "n": 5, "proof": "b"});
    assert_eq!(
        present(&changed, &credential(&issued, &more)).await,
        Got::Managed
    );
}

//! The fail points are where the table says, so that a crash test that names one stops there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};

use farebox_core::{
    Charge, ChargeTerms, Offer, Typed, compose,
    wire::{Credential, Payload},
};
use farebox_engine::{EFFECTS, Engine, Inbound, MemoryStore};
use farebox_testkit::{Bank, Fuse, TestPayload, TestRail, test_secrets};

#[tokio::test(start_paused = true)]
async fn a_settled_payment_passes_its_effects_in_order() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    for name in EFFECTS {
        for point in [format!("{name}.before"), format!("{name}.after")] {
            let (seen, said) = (seen.clone(), point.clone());
            fail::cfg_callback(point, move || seen.lock().unwrap().push(said.clone())).unwrap();
        }
    }
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::builder("test.example", test_secrets(), store)
        .build()
        .unwrap();
    let rail = TestRail::settling(Arc::new(Bank::default()), Fuse::endless());
    let method = Arc::new(Typed::<_, Charge>::new(rail));
    let offer = Offer::new::<Charge>(method, ChargeTerms::amount("100")).unwrap();
    let gate = engine.gate("GET /joke", compose([offer]).unwrap()).unwrap();
    let challenge = gate
        .challenges(&Inbound::default())
        .await
        .unwrap()
        .remove(0);
    let token = "token".to_owned();
    let credential = Credential {
        challenge,
        source: None,
        payload: Payload::from_value(&TestPayload { token }).unwrap(),
    };
    let admission = gate.present(credential, &Inbound::default()).await.unwrap();
    admission
        .into_serving()
        .unwrap()
        .delivered(None)
        .await
        .unwrap();

    let expected = [
        "pay.reserved",
        "proof.claimed",
        "todo.listed",
        "pay.attempted",
        "settle",
        "pay.paid",
        "todo.struck",
        "pay.serving",
        "pay.delivered",
    ];
    let expected = expected.map(|name| [format!("{name}.before"), format!("{name}.after")]);
    assert_eq!(*seen.lock().unwrap(), expected.concat());
}

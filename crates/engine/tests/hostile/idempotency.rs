//! A request repeated under its key gets the response it got; a payment buys no other one.

use std::sync::Arc;

use farebox_core::{
    Store, Typed,
    prelude::*,
    wire::{BodyDigest, Credential},
};
use farebox_engine::{Admission, FREE_REPLY, Gate, Inbound, Kept};
use farebox_testkit::{Bank, Fuse, TestRail};

use crate::common::{Got, World, charge_gate, pay, refused};

const KEY: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

struct Shop {
    world: World,
    bank: Arc<Bank>,
    gate: Arc<Gate>,
}

impl Shop {
    fn new(store: impl FnOnce(&World) -> Arc<dyn Store>) -> Self {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let rail = TestRail::settling(bank.clone(), Fuse::endless());
        let (_, gate) = world.charge(store(&world), Arc::new(Typed::<_, Charge>::new(rail)));
        Self { world, bank, gate }
    }

    async fn challenge(&self, request: &Request) -> Credential {
        let digest = BodyDigest::of(request.body);
        let challenges = self.gate.challenges(&request.inbound(&digest)).await;
        pay(&challenges.unwrap()[0], "t")
    }

    async fn present(&self, credential: &Credential, request: &Request) -> Result<Admission, Got> {
        let digest = BodyDigest::of(request.body);
        let inbound = request.inbound(&digest);
        let admission = self.gate.present(credential.clone(), &inbound).await;
        admission.map_err(refused)
    }

    /// What the payer gets when the handler answers `kept`.
    async fn get(&self, credential: &Credential, request: &Request, kept: Option<Kept>) -> Got {
        match self.present(credential, request).await {
            Ok(Admission::Serve(serving)) => {
                assert_eq!(serving.keyed(), request.key.is_some());
                serving.delivered(kept).await.unwrap();
                Got::Served
            }
            Ok(other) => panic!("nothing was kept yet: {other:?}"),
            Err(got) => got,
        }
    }
}

#[derive(Clone, Copy)]
struct Request {
    method: &'static str,
    target: &'static str,
    body: &'static [u8],
    key: Option<&'static str>,
}

const ORDER: Request = Request {
    method: "POST",
    target: "/joke?about=rails",
    body: b"{\"n\":1}",
    key: Some(KEY),
};

impl Request {
    fn inbound<'a>(&'a self, digest: &'a BodyDigest) -> Inbound<'a> {
        Inbound {
            method: self.method,
            target: self.target,
            body: Some(self.body),
            digest: Some(digest),
            idempotency_key: self.key,
            ..Inbound::default()
        }
    }
}

fn kept() -> Kept {
    Kept {
        status: 201,
        headers: vec![("x-joke".into(), vec![b'7', 0xFF])],
        body: b"a \0 secret joke".to_vec(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_gets_the_response_it_got() {
    let shop = Shop::new(|world| world.store());
    let credential = shop.challenge(&ORDER).await;
    assert_eq!(
        shop.get(&credential, &ORDER, Some(kept())).await,
        Got::Served
    );
    for _ in 0..2 {
        let Ok(Admission::Replay(reply)) = shop.present(&credential, &ORDER).await else {
            panic!("the response was kept");
        };
        let Kept {
            status,
            headers,
            body,
        } = kept();
        assert_eq!(
            (reply.status, &reply.headers, &reply.body),
            (status, &headers, &body)
        );
        assert_eq!(
            reply.receipt.reference,
            format!("mpp_{}", credential.challenge.id)
        );
        assert!(!format!("{reply:?}").contains("115"), "no body in Debug");
    }
    assert_eq!(shop.bank.transfers(), 1);
    let record = shop.world.record().await.to_string();
    assert!(!record.contains(KEY), "keys are stored hashed");
}

#[tokio::test(start_paused = true)]
async fn another_request_under_the_key_is_a_conflict() {
    let shop = Shop::new(|world| world.store());
    let credential = shop.challenge(&ORDER).await;
    let others = [
        Request {
            body: b"{\"n\":2}",
            ..ORDER
        },
        Request {
            target: "/joke?about=fares",
            ..ORDER
        },
        Request {
            method: "PUT",
            ..ORDER
        },
    ];
    // Before there is an answer the body decides, as without a key.
    let early = shop.present(&credential, &others[0]).await;
    assert_eq!(early.unwrap_err(), Got::Pay("invalid-challenge".into()));
    shop.get(&credential, &ORDER, Some(kept())).await;
    for other in others {
        assert_eq!(shop.get(&credential, &other, None).await, Got::Conflict);
    }
    assert_eq!(shop.bank.moved(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_its_key_a_replay_is_refused() {
    let shop = Shop::new(|world| world.store());
    let credential = shop.challenge(&ORDER).await;
    shop.get(&credential, &ORDER, Some(kept())).await;
    for key in [None, Some("another"), Some("")] {
        let replay = Request { key, ..ORDER };
        assert_eq!(shop.get(&credential, &replay, None).await, Got::Spent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_comes_late_or_keeps_nothing_opens_nothing() {
    for first in [Request { key: None, ..ORDER }, ORDER] {
        let shop = Shop::new(|world| world.store());
        let credential = shop.challenge(&ORDER).await;
        assert_eq!(shop.get(&credential, &first, None).await, Got::Served);
        assert_eq!(shop.get(&credential, &ORDER, None).await, Got::Spent);
    }
}

/// Protects: strangers who pay nothing cannot fill the store with responses.
#[tokio::test(start_paused = true)]
async fn what_costs_nothing_is_kept_if_it_is_small() {
    for (length, again) in [(16, true), (FREE_REPLY, false)] {
        let mut shop = Shop::new(|world| world.store());
        let rail = TestRail::settling(shop.bank.clone(), Fuse::endless());
        let engine = shop.world.engine(shop.world.store());
        shop.gate = charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(rail)), "0");
        let credential = shop.challenge(&ORDER).await;
        let Ok(Admission::Serve(serving)) = shop.present(&credential, &ORDER).await else {
            panic!("free");
        };
        let body = vec![0; length];
        let _ = serving
            .delivered(Some(Kept { body, ..kept() }))
            .await
            .unwrap();
        assert_eq!(shop.world.record().await["reply"].is_null(), !again);
        let got = shop.present(&credential, &ORDER).await;
        assert_eq!(matches!(got, Ok(Admission::Replay(_))), again, "{got:?}");
        assert_eq!(got.is_err(), !again, "refused as used");
    }
}

/// Two payers who chose the same key, and one payer's second payment.
#[tokio::test(start_paused = true)]
async fn a_key_is_its_payments_own() {
    let shop = Shop::new(|world| world.store());
    let credential = shop.challenge(&ORDER).await;
    shop.get(&credential, &ORDER, Some(kept())).await;
    let second = pay(&shop.challenge(&ORDER).await.challenge, "another token");
    assert_eq!(shop.get(&second, &ORDER, Some(kept())).await, Got::Served);
    // The challenge is no secret: without the proof it gives nobody the response.
    let thief = pay(&credential.challenge, "guessed");
    assert_eq!(shop.get(&thief, &ORDER, None).await, Got::Spent);
    assert_eq!(shop.bank.moved(), 2);
}

/// The delivery and the response are one write: whoever is told to come again finds both.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_of_the_store_loses_no_response() {
    let shop = Shop::new(|world| {
        let store = world.store();
        store.lose_reply_of(|write| write.puts("pay:", "\"delivered\""));
        store
    });
    let credential = shop.challenge(&ORDER).await;
    assert_eq!(
        shop.get(&credential, &ORDER, Some(kept())).await,
        Got::Served
    );
    let again = shop.present(&credential, &ORDER).await;
    assert!(matches!(again, Ok(Admission::Replay(_))));
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_in_flight_waits_and_a_failed_handler_answers_nothing() {
    let shop = Shop::new(|world| world.store());
    let credential = shop.challenge(&ORDER).await;
    let Ok(Admission::Serve(serving)) = shop.present(&credential, &ORDER).await else {
        panic!("paid");
    };
    let twin = shop.present(&credential, &ORDER).await;
    assert_eq!(twin.unwrap_err(), Got::Later);
    serving.failed().await.unwrap();
    assert_eq!(
        shop.get(&credential, &ORDER, Some(kept())).await,
        Got::Served
    );
    assert_eq!(shop.bank.moved(), 1);
}

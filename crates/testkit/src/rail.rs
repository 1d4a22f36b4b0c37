//! The rules every rail must keep, as tests over a fixture.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use farebox_core::{
    AnyPlan, IdempotencyKey, Invalid, Method, Offer, Outcome, Plugin, Presented, Refusal, Step,
    compose,
    wire::{Challenge, Credential, Payload, Timestamp},
};
use farebox_engine::{Engine, Gate, Inbound, MemoryStore, Refused};
use serde_json::{Value, json};

use crate::{TEST_REALM, test_secrets};

/// What a rail brings to its conformance tests.
#[async_trait]
pub trait RailFixture: Send + Sync + 'static {
    /// The rail, ready to serve.
    async fn method(&self) -> Arc<dyn Method>;

    /// Terms it accepts.
    fn terms(&self) -> Value;

    /// Pays a challenge for real and answers the payload, and the source if the rail wants one.
    async fn pay(&self, challenge: &Challenge) -> (Value, Option<String>);

    /// Payloads of the right shape that do not pay for the challenge. At least one.
    async fn forged(&self, challenge: &Challenge) -> Vec<Value>;

    /// The plugin and a configuration of it that holds, for the rules about configuration. `None`
    /// for a rail that is made in code only.
    fn configured(&self) -> Option<(&'static Plugin, Value)> {
        None
    }
}

/// A fixture behind a gate.
pub struct Bench<F> {
    fixture: F,
    method: Arc<dyn Method>,
    gate: Gate,
}

impl<F> std::fmt::Debug for Bench<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bench")
    }
}

impl<F: RailFixture> Bench<F> {
    /// Sets a fixture up.
    pub async fn new(fixture: F) -> Self {
        let method = fixture.method().await;
        let offer = Offer::from_value(method.clone(), fixture.terms()).expect("its own terms fit");
        let store = Arc::new(MemoryStore::new());
        // The rules are not about how fast a rail is.
        let patience = Duration::from_secs(60);
        let engine = Engine::builder(TEST_REALM, test_secrets(), store)
            .quote_deadline(patience)
            .settle_deadline(patience)
            .build()
            .expect("an engine");
        let gate = engine
            .gate("GET /", compose([offer]).expect("one offer"))
            .expect("a gate");
        Self {
            fixture,
            method,
            gate,
        }
    }

    async fn challenge(&self) -> Challenge {
        let challenges = self.gate.challenges(&Inbound::default()).await;
        challenges.expect("the rail quotes").remove(0)
    }

    async fn paid(&self) -> Credential {
        let challenge = self.challenge().await;
        let (payload, source) = self.fixture.pay(&challenge).await;
        credential(challenge, payload, source)
    }

    /// A challenge is complete, and no two are alike.
    pub async fn challenges_are_complete_and_distinct(&self) {
        let (a, b) = (self.challenge().await, self.challenge().await);
        assert_ne!(
            a.id, b.id,
            "two payers must not share a single-use challenge"
        );
        assert_eq!(a.offer(), self.method.offer());
        let header = a.to_header().expect("a challenge fits a header");
        assert!(header.len() < 8 * 1024, "a challenge stays under 8 KB");
        let request = a.request.value();
        assert!(request["amount"].is_string() && request["currency"].is_string());
        assert!(
            request.get("expires").is_none(),
            "expiry is the challenge's, not the request's"
        );
    }

    /// A good proof pays once; a second presentation is refused without another challenge.
    pub async fn a_good_proof_pays_exactly_once(&self) {
        let credential = self.paid().await;
        let inbound = Inbound::default();
        let admission = self.gate.present(credential.clone(), &inbound).await;
        let receipt = admission
            .expect("a good proof is accepted")
            .into_serving()
            .expect("nothing was answered before")
            .delivered(None)
            .await;
        assert!(
            !receipt.expect("delivered").receipt.reference.is_empty(),
            "a receipt names the movement"
        );
        match self.gate.present(credential, &inbound).await {
            Err(Refused::Spent(_)) => {}
            other => panic!("a replay must be refused as spent, not {other:?}"),
        }
    }

    /// A verify that never rejects is a give-away.
    pub async fn forged_proofs_are_the_payers_fault(&self) {
        let challenge = self.challenge().await;
        let forged = self.fixture.forged(&challenge).await;
        assert!(!forged.is_empty(), "a fixture shows at least one forgery");
        for payload in forged {
            let credential = credential(challenge.clone(), payload, None);
            match self.gate.present(credential, &Inbound::default()).await {
                Err(Refused::Payment(_) | Refused::Spent(_)) => {}
                other => panic!("a forged proof must be the payer's fault, not {other:?}"),
            }
        }
    }

    /// Any JSON a stranger sends is the payer's fault, never ours.
    pub async fn nonsense_is_the_payers_fault(&self) {
        let challenge = self.challenge().await;
        for payload in [
            json!({}),
            json!({"type": 1}),
            json!({"x": [null, {"y": "\u{0}"}]}),
        ] {
            let credential = credential(challenge.clone(), payload, None);
            match self.gate.present(credential, &Inbound::default()).await {
                Err(Refused::Payment(_)) => {}
                other => panic!("nonsense must be refused with a fresh challenge, not {other:?}"),
            }
        }
    }

    /// The proof of one challenge does not open another.
    pub async fn a_proof_is_for_its_challenge(&self) {
        let first = self.paid().await;
        let inbound = Inbound::default();
        let admission = self
            .gate
            .present(first.clone(), &inbound)
            .await
            .expect("accepted");
        admission
            .into_serving()
            .expect("not answered before")
            .delivered(None)
            .await
            .expect("delivered");
        let stolen = Credential {
            challenge: self.challenge().await,
            ..first
        };
        match self.gate.present(stolen, &inbound).await {
            Err(Refused::Payment(_) | Refused::Spent(_)) => {}
            other => panic!("a used proof must not open a second challenge: {other:?}"),
        }
    }

    /// A wrong configuration says which key is wrong and what to do, and repeats no value: each key
    /// of a good one is left out, given the wrong type and joined by one that nobody knows.
    pub async fn problems_have_a_key_and_a_remedy(&self) {
        let Some((plugin, good)) = self.fixture.configured() else {
            return;
        };
        let refused = |config: &Value| (plugin.build)(config).err();
        for key in keys(&good, "") {
            let (table, name) = key.rsplit_once('/').expect("a pointer");
            let mut config = good.clone();
            *config.pointer_mut(&key).expect("it is there") = json!([["hunter2"]]);
            let invalid = refused(&config).unwrap_or_else(|| panic!("{key} takes any type"));
            helps(&invalid);
            let dotted = key.trim_start_matches('/').replace('/', ".");
            let named = |key: &str| key.replace('[', ".").starts_with(&dotted);
            assert!(
                invalid.issues().iter().any(|issue| named(&issue.key)),
                "{dotted} is of the wrong type, and the problems are: {invalid}"
            );

            let mut config = good.clone();
            let without = config.pointer_mut(table).and_then(Value::as_object_mut);
            without.expect("a table").remove(name);
            if let Some(invalid) = refused(&config) {
                helps(&invalid);
            }
        }
        helps(&refused(&json!({ "hunter": 2 })).expect("an unknown key is refused"));
    }

    /// Many callers, one proof: one is served.
    pub async fn parallel_presentations_are_served_once(self: Arc<Self>) {
        let credential = self.paid().await;
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (bench, credential) = (self.clone(), credential.clone());
                tokio::spawn(async move {
                    let admission = bench.gate.present(credential, &Inbound::default()).await;
                    match admission {
                        Ok(admission) => admission
                            .into_serving()
                            .expect("not answered before")
                            .delivered(None)
                            .await
                            .is_ok(),
                        Err(_) => false,
                    }
                })
            })
            .collect();
        let mut served = 0;
        for task in tasks {
            served += usize::from(task.await.expect("no panic"));
        }
        assert_eq!(served, 1);
    }

    /// Settling twice under one key moves money once, and a lookup knows it.
    pub async fn settlement_is_idempotent(&self) {
        let credential = self.paid().await;
        let now = Timestamp::now();
        let cx = Presented::new(&credential.challenge, &now).by(credential.source.as_deref());
        let plan = match self.method.verify(&cx, &credential.payload).await {
            Ok(AnyPlan::Once(plan)) => plan,
            Ok(AnyPlan::Channel(_)) => return,
            Err(Refusal::Rejected(r)) => panic!("a good proof was rejected: {}", r.detail),
            Err(Refusal::Fault(f)) => panic!("the rail is away: {f}"),
        };
        assert!(!plan.proofs.is_empty());
        let Step::Settle(order) = plan.step else {
            return;
        };
        let key = IdempotencyKey::for_challenge(&credential.challenge.id);
        let settler = self.method.settler();
        if let Outcome::Settled { .. } = settler
            .lookup(&IdempotencyKey::for_challenge("none"), &order)
            .await
        {
            // A lookup that carries the order out is allowed to settle it.
            return;
        }
        let Outcome::Settled { reference, .. } = settler.settle(&key, &order).await else {
            panic!("a good order settles");
        };
        for outcome in [
            settler.lookup(&key, &order).await,
            settler.settle(&key, &order).await,
        ] {
            match outcome {
                Outcome::Settled {
                    reference: again, ..
                } => assert_eq!(reference, again),
                other => panic!("settled money stays settled under one reference: {other:?}"),
            }
        }
    }
}

/// The keys of a table and of the tables in it, as JSON pointers.
fn keys(value: &Value, at: &str) -> Vec<String> {
    let table = value.as_object().into_iter().flatten();
    let key = |(key, value): (&String, &Value)| {
        let at = format!("{at}/{key}");
        let within = keys(value, &at);
        // Where a secret is has keys of its own, which are one value here.
        let source = within
            .iter()
            .any(|k| k.ends_with("/env") || k.ends_with("/file"));
        let within = if source { Vec::new() } else { within };
        std::iter::once(at).chain(within).collect::<Vec<_>>()
    };
    table.flat_map(key).collect()
}

/// Every problem has a key, says what to do and repeats no value.
fn helps(invalid: &Invalid) {
    for issue in invalid.issues() {
        let (key, problem) = (&issue.key, &issue.problem);
        assert!(!key.is_empty(), "no key: {problem}");
        assert!(!problem.contains("hunter2"), "{key}: {problem}");
        let bare = problem.ends_with("is missing") || problem.starts_with("invalid type");
        assert!(!bare, "no remedy: {key}: {problem}");
    }
}

fn credential(challenge: Challenge, payload: Value, source: Option<String>) -> Credential {
    let payload = Payload::from_value(&payload).expect("a payload is a JSON object");
    Credential {
        challenge,
        source,
        payload,
    }
}

/// Runs every rule for rails. `$fixture` is an expression for a [`RailFixture`], evaluated once
/// per test.
///
/// ```text
/// farebox_testkit::rail_conformance!(giftcard, MyFixture::new().await);
/// ```
#[macro_export]
macro_rules! rail_conformance {
    ($name:ident, $fixture:expr) => {
        mod $name {
            use super::*;

            $crate::rail_conformance!(@tests $fixture;
                challenges_are_complete_and_distinct,
                a_good_proof_pays_exactly_once,
                forged_proofs_are_the_payers_fault,
                nonsense_is_the_payers_fault,
                a_proof_is_for_its_challenge,
                parallel_presentations_are_served_once,
                settlement_is_idempotent,
                problems_have_a_key_and_a_remedy,
            );
        }
    };
    (@tests $fixture:expr; $($rule:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let bench = std::sync::Arc::new($crate::rail::Bench::new($fixture).await);
                bench.$rule().await;
            }
        )*
    };
}

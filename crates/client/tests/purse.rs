//! The rules of paying, each against a wallet that records what it was made to do.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use farebox_client::{Approved, Budget, ClientError, Cost, Limit, Origin, Payer, Purse, Reason};
use farebox_core::{
    Fault, Paid, PayError, Paying,
    wire::{AcceptPayment, Amount, Challenge, Encoded, OfferId, Payload, Timestamp},
};
use serde_json::json;

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Pays,
    Broke,
    Refuses,
    Fails,
    Loses,
}

/// Pays whatever the request says, or fails in a chosen way.
struct Fake {
    method: &'static str,
    mood: Mood,
    paid: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Payer for Fake {
    fn offer(&self) -> OfferId {
        OfferId::new(self.method, "charge")
    }

    fn price(&self, cx: &Paying<'_>) -> Result<Cost, PayError> {
        if self.mood == Mood::Refuses {
            return Err(PayError::Refused("the recipient is a stranger".into()));
        }
        let request = cx.challenge.request.value();
        let amount = request["amount"]
            .as_str()
            .and_then(|a| Amount::parse(a).ok());
        let amount = amount.ok_or_else(|| PayError::Unsupported("no amount".into()))?;
        Ok(Cost {
            amount,
            currency: "sat".into(),
            recipient: None,
        })
    }

    async fn funded(&self, _: &Cost) -> bool {
        self.mood != Mood::Broke
    }

    async fn pay(&self, cx: &Paying<'_>, approved: Approved) -> Result<Paid<Payload>, PayError> {
        tokio::task::yield_now().await;
        match self.mood {
            Mood::Fails => return Err(PayError::NotPaid(Fault::new("no route"))),
            Mood::Loses => return Err(PayError::Unknown(Fault::new("the node went away"))),
            _ => {}
        }
        self.paid.lock().unwrap().push(cx.challenge.id.clone());
        let payload = json!({ "spent": approved.cost().amount, "host": cx.host });
        Ok(Paid::new(Payload::from_value(&payload).unwrap()).by("did:example:1"))
    }
}

type Log = Arc<Mutex<Vec<String>>>;

fn purse(total: u128, wallets: &[(&'static str, Mood)]) -> (Purse, Log) {
    let log = Log::default();
    let limit = Limit::per_request("sat", Amount::new(1000)).total(Amount::new(total));
    let purse = wallets
        .iter()
        .fold(Purse::new(Budget::new([limit])), |purse, (method, mood)| {
            purse.payer(Arc::new(Fake {
                method,
                mood: *mood,
                paid: log.clone(),
            }))
        });
    (purse, log)
}

fn challenge(id: &str, method: &str, amount: &str) -> Challenge {
    Challenge {
        id: id.into(),
        realm: "shop.example".into(),
        method: method.into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({ "amount": amount })).unwrap(),
        expires: Some(Timestamp::from_unix_millis(10_000)),
        digest: None,
        description: Some("only 1 sat!".into()),
        opaque: Some(Encoded::encode(&json!({ "nonce": "n" })).unwrap()),
        header: None,
    }
}

fn at(millis: i64) -> impl Fn() -> Timestamp + Send + Sync {
    move || Timestamp::from_unix_millis(millis)
}

fn shop() -> Origin {
    Origin::new("https", "shop.example", 443)
}

fn reasons(error: ClientError) -> Vec<Reason> {
    match error {
        ClientError::NothingPayable(skipped) => skipped.into_iter().map(|s| s.reason).collect(),
        other => panic!("{other}"),
    }
}

/// Protects: the credential echoes the challenge, names the payer, and the host reaches the wallet.
#[tokio::test]
async fn pays_the_first_that_has_a_wallet() {
    let (purse, log) = purse(100, &[("b", Mood::Pays)]);
    let purse = purse.clock(at(0));
    let offered = [
        challenge("1", "a", "5"),
        challenge("2", "b", "7"),
        challenge("3", "b", "1"),
    ];
    let payment = purse.pay(&offered, &shop()).await.unwrap();
    assert_eq!(payment.credential().challenge, offered[1]);
    assert_eq!(
        payment.credential().source.as_deref(),
        Some("did:example:1")
    );
    assert!(payment.credential().payload.get().contains("shop.example"));
    assert_eq!(payment.cost().amount, Amount::new(7));
    assert_eq!(payment.offer().to_string(), "b/charge");
    assert_eq!(*log.lock().unwrap(), ["2"], "one payment for one call");
    payment.accepted(None);
    assert_eq!(purse.budget().spent("sat"), Amount::new(7));
}

/// Protects: own preference before the server's order, and `q=0` or an unlisted offer never.
#[tokio::test]
async fn preference_ranks_and_excludes() {
    let (purse, log) = purse(
        100,
        &[("a", Mood::Pays), ("b", Mood::Pays), ("c", Mood::Pays)],
    );
    let purse = purse.clock(at(0));
    assert_eq!(
        purse.accept().unwrap().to_string(),
        "a/charge, b/charge, c/charge"
    );
    let purse = purse.prefer(AcceptPayment::parse("a/*;q=0.1, b/*;q=0.9, c/*;q=0").unwrap());
    assert_eq!(
        purse.accept().unwrap().to_string(),
        "a/charge;q=0.1, b/charge;q=0.9"
    );
    let offered = [
        challenge("1", "c", "1"),
        challenge("2", "a", "1"),
        challenge("3", "b", "1"),
    ];
    purse.pay(&offered, &shop()).await.unwrap().accepted(None);
    assert_eq!(*log.lock().unwrap(), ["3"]);
    let only_c = purse.pay(&offered[..1], &shop()).await.unwrap_err();
    assert!(matches!(reasons(only_c)[..], [Reason::NotWanted]));
    assert!(Purse::new(Budget::new([])).accept().is_none());
}

/// Protects: what cannot be paid is passed over, with its reason, for the next rail.
#[tokio::test]
async fn falls_through_to_the_next_rail_while_nothing_moved() {
    let all = [
        ("a", Mood::Broke),
        ("b", Mood::Refuses),
        ("c", Mood::Fails),
        ("d", Mood::Pays),
    ];
    let offered = ["a", "b", "c", "d"].map(|method| challenge(method, method, "90"));
    let (rich, log) = purse(100, &all);
    let rich = rich.clock(at(0));
    rich.pay(&offered, &shop()).await.unwrap().accepted(None);
    assert_eq!(*log.lock().unwrap(), ["d"]);
    assert_eq!(
        rich.budget().spent("sat"),
        Amount::new(90),
        "what was not paid is given back"
    );

    let (poor, log) = purse(100, &all[..3]);
    let error = poor
        .clock(at(0))
        .pay(&offered[..3], &shop())
        .await
        .unwrap_err();
    assert!(matches!(
        reasons(error)[..],
        [Reason::NotFunded(_), Reason::Refused(_), Reason::NotPaid(_)]
    ));
    assert!(log.lock().unwrap().is_empty());
}

/// Protects: once nobody knows whether money moved, no other rail is tried and the amount counts.
#[tokio::test]
async fn an_unknown_outcome_stops_everything() {
    let (purse, log) = purse(100, &[("a", Mood::Loses), ("b", Mood::Pays)]);
    let purse = purse.clock(at(0));
    let offered = [challenge("1", "a", "60"), challenge("2", "b", "60")];
    let error = purse.pay(&offered, &shop()).await.unwrap_err();
    assert!(
        matches!(error, ClientError::OutcomeUnknown { .. }),
        "{error}"
    );
    assert!(log.lock().unwrap().is_empty());
    assert_eq!(purse.budget().spent("sat"), Amount::new(60));
    // The same challenge is never paid a second time, and the budget holds the first amount.
    let again = reasons(purse.pay(&offered[..1], &shop()).await.unwrap_err());
    assert!(matches!(again[..], [Reason::OverBudget(_)]), "{again:?}");
}

/// Protects: `expires == now` is expired, and so is everything before it.
#[tokio::test]
async fn expired_challenges_are_skipped() {
    let (purse, log) = purse(100, &[("a", Mood::Pays)]);
    let mut fresh = challenge("2", "a", "1");
    fresh.expires = Some(Timestamp::from_unix_millis(10_001));
    let purse = purse.clock(at(10_000));
    let error = purse
        .pay(&[challenge("1", "a", "1")], &shop())
        .await
        .unwrap_err();
    assert!(matches!(reasons(error)[..], [Reason::Expired]));
    purse
        .pay(&[challenge("1", "a", "1"), fresh], &shop())
        .await
        .unwrap()
        .accepted(None);
    assert_eq!(*log.lock().unwrap(), ["2"]);
}

/// Protects: one challenge is paid once, however often it is offered; another server's challenge
/// of the same id is another challenge; a lapsed one is forgotten.
#[tokio::test]
async fn a_challenge_is_paid_once() {
    let (purse, log) = purse(100, &[("a", Mood::Pays)]);
    let now = Arc::new(AtomicI64::new(0));
    let clock = now.clone();
    let purse = purse.clock(move || Timestamp::from_unix_millis(clock.load(Ordering::SeqCst)));
    let offered = [challenge("1", "a", "1")];
    purse.pay(&offered, &shop()).await.unwrap().unknown();
    let again = reasons(purse.clone().pay(&offered, &shop()).await.unwrap_err());
    assert!(matches!(again[..], [Reason::AlreadyPaid]));
    assert_eq!(
        purse.budget().spent("sat"),
        Amount::new(1),
        "a refusal reserves nothing"
    );
    let other = Origin::new("https", "other.example", 443);
    purse.pay(&offered, &other).await.unwrap().not_accepted();
    now.store(20_000, Ordering::SeqCst);
    let mut renewed = challenge("1", "a", "1");
    renewed.expires = None;
    purse.pay(&[renewed], &shop()).await.unwrap().accepted(None);
    assert_eq!(log.lock().unwrap().len(), 3);
}

/// Protects: nothing is paid over plain http except on this machine.
#[tokio::test]
async fn plain_http_is_never_paid() {
    let (purse, log) = purse(100, &[("a", Mood::Pays)]);
    let purse = purse.clock(at(0));
    let offered = [challenge("1", "a", "1")];
    let error = purse
        .pay(&offered, &Origin::new("http", "shop.example", 80))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::InsecureOrigin(_)));
    assert!(log.lock().unwrap().is_empty());
    purse
        .pay(&offered, &Origin::new("http", "127.0.0.1", 80))
        .await
        .unwrap()
        .accepted(None);
}

/// Protects: the budget goes by the request and never by the description, names its limit, and
/// leaves room for a cheaper rail.
#[tokio::test]
async fn over_budget_is_skipped_and_said() {
    let (purse, log) = purse(100, &[("a", Mood::Pays), ("b", Mood::Pays)]);
    let purse = purse.clock(at(0));
    let offered = [
        challenge("1", "a", "1001"),
        challenge("2", "b", "1000000000000000000000000"),
    ];
    let error = purse.pay(&offered, &shop()).await.unwrap_err();
    assert!(
        error
            .over_budget()
            .unwrap()
            .to_string()
            .contains("per request"),
        "{error}"
    );
    let cheaper = [challenge("3", "a", "101"), challenge("4", "b", "100")];
    purse.pay(&cheaper, &shop()).await.unwrap().accepted(None);
    assert_eq!(*log.lock().unwrap(), ["4"]);
}

/// Protects: calls in parallel cannot overspend together.
#[tokio::test]
async fn parallel_calls_stay_within_the_total() {
    let (purse, log) = purse(10, &[("a", Mood::Pays)]);
    let purse = purse.clock(at(0));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..64 {
        let purse = purse.clone();
        calls.spawn(async move {
            let offered = [challenge(&n.to_string(), "a", "3")];
            purse
                .pay(&offered, &shop())
                .await
                .map(|payment| payment.accepted(None))
                .is_ok()
        });
    }
    let paid = calls
        .join_all()
        .await
        .into_iter()
        .filter(|paid| *paid)
        .count();
    assert_eq!((paid, log.lock().unwrap().len()), (3, 3));
    assert_eq!(purse.budget().spent("sat"), Amount::new(9));
}

/// Protects: no credential, payload or source in what is logged.
#[tokio::test]
async fn debug_output_shows_no_proof() {
    let (purse, _) = purse(10, &[("a", Mood::Pays)]);
    let purse = purse.clock(at(0));
    let payment = purse
        .pay(&[challenge("1", "a", "3")], &shop())
        .await
        .unwrap();
    let text = format!("{payment:?} {purse:?}");
    assert!(
        !text.contains("spent\"") && !text.contains("did:"),
        "{text}"
    );
}

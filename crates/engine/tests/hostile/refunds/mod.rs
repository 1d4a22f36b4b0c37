//! What is given back: once, whoever gives it and however it is spelled, and then not served for.

mod rail;

use std::sync::{Arc, atomic::Ordering::SeqCst};

use farebox_core::wire::Credential;
use farebox_engine::{Engine, Gate, Heeded, Inbound, RefundError, RefundRequest, RefundState};

use crate::common::{Got, World, challenge, charge_gate, pay, present};
use rail::{Account, Cash};

const RAIL: &str = "cash/charge";

/// A seller on one rail.
struct Seller {
    world: World,
    account: Arc<Account>,
    engine: Engine,
    gate: Arc<Gate>,
}

impl Seller {
    fn new() -> Self {
        let (world, account) = (World::new(), Arc::<Account>::default());
        let (engine, gate) = world.charge(world.store(), Cash::over(&account, RAIL));
        Self {
            world,
            account,
            engine,
            gate,
        }
    }

    /// A payment that is in and that nobody was served for, `pay_<token>`.
    async fn unserved(&self, token: &str) -> Credential {
        let credential = pay(&challenge(&self.gate).await, token);
        let inbound = Inbound::default();
        let presented = self.gate.present(credential.clone(), &inbound);
        let serving = presented.await.unwrap().into_serving().unwrap();
        serving.failed().await.unwrap();
        credential
    }

    async fn sold(&self, token: &str) {
        let credential = pay(&challenge(&self.gate).await, token);
        assert_eq!(present(&self.gate, &credential).await, Got::Served);
    }

    /// The provider calls about a payment.
    async fn call(&self, about: &str) -> Heeded {
        let heeded = self.engine.heed(RAIL, &[], about.as_bytes());
        heeded.await.unwrap()
    }

    async fn called_with(&self, payment: &str, paid: &Credential) -> Heeded {
        self.call(&format!("{payment} {}", paid.challenge.id)).await
    }

    async fn refund(&self, request: RefundRequest) -> Result<bool, RefundError> {
        self.engine.refund(request).await.map(|gave| gave.repeated)
    }
}

fn all(reference: &str) -> RefundRequest {
    RefundRequest::new(reference)
}

/// Protects: two spellings of a payment are one, so its refunds are counted together.
#[tokio::test(start_paused = true)]
async fn however_it_is_spelled_a_payment_has_one_record_of_refunds() {
    let seller = Seller::new();
    seller.sold("1").await;
    let part = |reference: &str| all(reference).part("30");
    assert!(!seller.refund(part("pay_1")).await.unwrap());
    assert!(seller.refund(part("branch/pay_1")).await.unwrap());
    assert_eq!(seller.account.returned("pay_1"), 30);
    let more = seller.refund(all("branch/pay_1").part("71")).await;
    assert!(matches!(more, Err(RefundError::TooMuch { .. })), "{more:?}");
    assert!(!seller.refund(all("branch/pay_1")).await.unwrap());
    assert!(seller.refund(all("pay_1")).await.unwrap());
    assert_eq!(seller.account.returned("pay_1"), 100);
    let books = seller.engine.refunds().await.unwrap();
    assert_eq!((books.len(), books[0].reference.as_str()), (1, "pay_1"));
    assert_eq!(seller.world.count("owed:").await, 0);
}

/// Protects: nor does a second rail on the same account give anything back again, at once or later.
#[tokio::test(start_paused = true)]
async fn two_rails_on_one_account_do_not_give_back_twice() {
    let seller = Seller::new();
    let second = Cash::over(&seller.account, "other/charge");
    let _gate = charge_gate(&seller.engine, second, "50");
    seller.sold("1").await;
    let on = |rail: &str| all("pay_1").on(rail);
    let both = tokio::join!(
        seller.refund(on("other/charge").part("40")),
        seller.refund(on(RAIL).part("40")),
    );
    let both = [both.0, both.1].map(|gave| gave.is_ok_and(|repeated| !repeated));
    assert_eq!(both.iter().filter(|moved| **moved).count(), 1);
    assert!(!seller.refund(on("other/charge")).await.unwrap());
    assert!(seller.refund(on(RAIL)).await.unwrap());
    assert_eq!(seller.account.returned("pay_1"), 100);
    assert_eq!(seller.engine.refunds().await.unwrap().len(), 1);
}

/// Protects: an operator hears what is wrong with a reference, and nothing is asked or moved.
#[tokio::test(start_paused = true)]
async fn a_reference_that_is_none_is_refused_and_says_why() {
    let seller = Seller::new();
    for request in [all("0xabc"), all("0xabc").on(RAIL)] {
        let error = seller.refund(request).await.unwrap_err();
        assert!(matches!(error, RefundError::Invalid(_)), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("`0xabc` is no payment, pay_…"), "{said}");
        assert!(said.contains(RAIL), "{said}");
    }
    assert_eq!(seller.account.asked.load(SeqCst), 0);
}

/// Protects: a note at the provider can be copied; what a refund bars is the payment whose receipt it
/// is, and no other.
#[tokio::test(start_paused = true)]
async fn a_refund_of_another_payment_with_the_same_note_bars_nothing() {
    let seller = Seller::new();
    let unserved = seller.unserved("1").await;
    seller.account.charge("pay_copy", &unserved.challenge.id);
    assert!(!seller.refund(all("pay_copy")).await.unwrap());
    assert_eq!(present(&seller.gate, &unserved).await, Got::Served);
}

/// Protects: what the seller gave back in the provider's dashboard is not served for once the provider
/// has said so, and is again if the money comes back; and collecting costs no call.
#[tokio::test(start_paused = true)]
async fn what_others_gave_back_in_full_is_not_served_for() {
    let seller = Seller::new();
    let unserved = seller.unserved("1").await;
    seller.account.give("pay_1", 40, None);
    assert_eq!(
        seller.called_with("pay_1", &unserved).await,
        Heeded::Done,
        "a part"
    );
    assert_eq!(
        seller.engine.books().await.unwrap()[0].state.as_str(),
        "paid"
    );
    seller.account.give("pay_1", 60, None);
    assert_eq!(
        seller.called_with("branch/pay_1", &unserved).await,
        Heeded::Done
    );
    let asked = seller.account.asked.load(SeqCst);
    assert_eq!(present(&seller.gate, &unserved).await, Got::Spent);
    assert_eq!(seller.account.asked.load(SeqCst), asked, "no call");
    let books = seller.engine.refunds().await.unwrap();
    assert_eq!((books[0].net.get(), books[0].refunds.len()), (0, 0));
    let left = seller.refund(all("pay_1")).await;
    assert!(matches!(left, Err(RefundError::NothingLeft)), "{left:?}");

    // This call does not say what was paid; it is on record.
    seller.account.fail("pay_1");
    assert_eq!(seller.call("pay_1").await, Heeded::Done);
    assert_eq!(present(&seller.gate, &unserved).await, Got::Served);
    // Delivered is delivered.
    seller.account.give("pay_1", 100, None);
    assert_eq!(seller.called_with("pay_1", &unserved).await, Heeded::Done);
    assert_eq!(present(&seller.gate, &unserved).await, Got::Spent);
}

/// Protects: a call about what is none of ours asks the provider nothing.
#[tokio::test(start_paused = true)]
async fn a_call_about_others_payments_costs_nothing() {
    let seller = Seller::new();
    seller.sold("1").await;
    seller.account.give("pay_1", 100, None);
    for about in ["pay_1", "pay_2 nobody", "nonsense"] {
        assert_eq!(seller.call(about).await, Heeded::Done);
    }
    assert_eq!(seller.account.asked.load(SeqCst), 0);
}

/// Protects: while its payer is being served, nobody decides that there is nothing to serve; if that
/// fails, the next call finds it.
#[tokio::test(start_paused = true)]
async fn what_is_being_served_is_looked_at_afterwards() {
    let seller = Seller::new();
    let credential = pay(&challenge(&seller.gate).await, "1");
    let inbound = Inbound::default();
    let presented = seller.gate.present(credential.clone(), &inbound);
    let serving = presented.await.unwrap().into_serving().unwrap();
    seller.account.give("pay_1", 100, None);
    assert_eq!(
        seller.called_with("pay_1", &credential).await,
        Heeded::Later
    );
    serving.failed().await.unwrap();
    assert_eq!(seller.called_with("pay_1", &credential).await, Heeded::Done);
    assert_eq!(present(&seller.gate, &credential).await, Got::Spent);
}

/// Protects: without calls from outside, asking for the refund is enough, also where the dashboard is
/// faster by a moment.
#[tokio::test(start_paused = true)]
async fn an_operator_who_comes_second_bars_it_too() {
    for overtaken in [false, true] {
        let seller = Seller::new();
        let unserved = seller.unserved("1").await;
        if overtaken {
            *seller.account.overtaken.lock().unwrap() = true;
        } else {
            seller.account.give("pay_1", 100, None);
        }
        let refused = seller.refund(all("pay_1")).await;
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(present(&seller.gate, &unserved).await, Got::Spent);
        assert_eq!(seller.account.returned("pay_1"), 100);
    }
}

/// Protects: a refund that was done and then failed stays failed, though whoever made it says late
/// that it was done; its payment stays collectable until it is refunded anew.
#[tokio::test(start_paused = true)]
async fn a_done_that_straggles_does_not_hide_that_the_refund_failed() {
    let seller = Seller::new();
    let unserved = seller.unserved("1").await;
    *seller.account.hold.lock().unwrap() = true;
    let engine = seller.engine.clone();
    let slow = tokio::spawn(async move { engine.refund(all("pay_1")).await });
    seller.account.reached.notified().await;
    // Another process takes it over, and finds it done; then the bank sends the money back.
    seller.world.pass(100);
    let method = Cash::over(&seller.account, RAIL);
    let (second, gate) = seller.world.charge(seller.world.store(), method);
    assert_eq!(second.reconcile_refunds().await.unwrap().done, 1);
    seller.account.fail("pay_1");
    let heard = second.heed(RAIL, &[], b"pay_1").await.unwrap();
    assert_eq!(heard, Heeded::Done);
    let state = async || second.refunds().await.unwrap()[0].refunds[0].state;
    assert_eq!(state().await, RefundState::Refused);

    seller.account.go.notify_one();
    let slow = slow.await.unwrap();
    assert!(matches!(slow, Err(RefundError::Refused(_))), "{slow:?}");
    assert_eq!(state().await, RefundState::Refused);
    assert_eq!(second.refunds().await.unwrap()[0].net.get(), 100);
    assert_eq!(present(&gate, &unserved).await, Got::Served);
}

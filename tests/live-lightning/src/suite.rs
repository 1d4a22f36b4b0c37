//! What a backend promises, over any two nodes.

use std::sync::Arc;
use std::time::Duration;

use farebox::rails::lightning::bolt11::Bolt11;
use farebox::rails::lightning::node::{InvoiceState, NewInvoice, NodeError, Payment, SendOrder};
use farebox::rails::lightning::{Network, Node, PaymentHash, Preimage};
use tokio::time::{Instant, sleep};

use crate::Pair;

/// How long an invoice can be paid: longer than a busy machine needs for anything here.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
/// How long anything is waited for that must come: only what hangs takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const NO_WAIT: Duration = Duration::ZERO;

/// Everything below, on one pair.
pub async fn every_rule(pair: Arc<dyn Pair>) {
    nodes_say_who_they_are(&*pair).await;
    strangers_are_unknown(&*pair).await;
    an_invoice_is_paid_once(&*pair).await;
    a_settlement_is_waited_for(&*pair).await;
    an_expired_invoice_is_not_paid(&*pair).await;
    an_open_invoice_is_paid_what_the_payer_says(&*pair).await;
    a_fee_one_msat_over_the_limit_is_not_paid(&*pair).await;
    what_was_sent_is_found_after_a_restart(&*pair).await;
}

async fn mint(pair: &dyn Pair, msat: u64, expiry: Duration) -> (String, PaymentHash) {
    let invoice = NewInvoice::new(msat, "a joke", expiry);
    let minted = pair.seller().create_invoice(invoice).await.expect("minted");
    (minted.bolt11, minted.payment_hash)
}

async fn state(pair: &dyn Pair, hash: PaymentHash, wait: Duration) -> Option<InvoiceState> {
    pair.seller().look_up(hash, wait).await.expect("looked up")
}

pub(crate) fn proof(payment: Payment, hash: PaymentHash) -> Preimage {
    match payment {
        Payment::Succeeded { preimage, .. } => {
            assert_eq!(preimage.hash(), hash, "a preimage of this very payment");
            preimage
        }
        other => panic!("expected a payment, not {other:?}"),
    }
}

/// The id that a node gives itself is the one that its invoices name.
async fn nodes_say_who_they_are(pair: &dyn Pair) {
    let info = pair.seller().info().await.expect("info");
    assert_eq!(info.network, Some(Network::Regtest));
    let (bolt11, hash) = mint(pair, 1_000, HOUR).await;
    let invoice = Bolt11::parse(&bolt11).expect("BOLT11");
    assert_eq!(invoice.payee, info.id);
    assert_eq!(invoice.payment_hash, hash);
    assert_eq!(invoice.amount_msat, Some(1_000));
    assert_eq!(invoice.network, Some(Network::Regtest));
}

/// Neither side mistakes the unknown for the unpaid, or its own invoices for its payments.
async fn strangers_are_unknown(pair: &dyn Pair) {
    let stranger = Preimage::new([9; 32]).hash();
    assert_eq!(state(pair, stranger, NO_WAIT).await, None);
    assert!(pair.payer().track(stranger, NO_WAIT).await.is_none());
    let (_, own) = mint(pair, 1_000, HOUR).await;
    assert!(pair.seller().track(own, NO_WAIT).await.is_none());
}

/// Money moves once, however often it is asked for, and both sides know it.
async fn an_invoice_is_paid_once(pair: &dyn Pair) {
    let (bolt11, hash) = mint(pair, 21_000, HOUR).await;
    assert_eq!(state(pair, hash, NO_WAIT).await, Some(InvoiceState::Open));
    let before = pair.payer().balance_msat().await.expect("balance");
    let order = || SendOrder::new(bolt11.clone(), hash, pair.fee_msat(), PATIENCE);
    let first = proof(pair.payer().pay(order()).await, hash);
    assert_eq!(
        state(pair, hash, PATIENCE).await,
        Some(InvoiceState::Settled)
    );
    let again = proof(pair.payer().pay(order()).await, hash);
    assert!(first == again, "one payment, one preimage");
    let tracked = pair.payer().track(hash, PATIENCE).await.expect("tracked");
    assert!(first == proof(tracked, hash));
    // A node may need a moment to count what it has paid.
    let expected = before - 21_000 - pair.fee_msat();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let after = pair.payer().balance_msat().await.expect("balance");
        // A channel's own fees and reserves move a little with every payment.
        if after.abs_diff(expected) < 10_000 {
            break;
        }
        assert!(Instant::now() < deadline, "{before} became {after} msat");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A seller that asks before the money has come is told when it comes.
async fn a_settlement_is_waited_for(pair: &dyn Pair) {
    let (bolt11, hash) = mint(pair, 5_000, HOUR).await;
    let order = SendOrder::new(bolt11, hash, pair.fee_msat(), PATIENCE);
    let payer = pair.payer();
    let pay = async {
        assert_eq!(state(pair, hash, NO_WAIT).await, Some(InvoiceState::Open));
        payer.pay(order).await
    };
    let (paid, settled) = tokio::join!(pay, state(pair, hash, PATIENCE));
    proof(paid, hash);
    assert_eq!(settled, Some(InvoiceState::Settled));
    // Nothing to wait for: it comes back when the time is up.
    let (_, unpaid) = mint(pair, 5_000, HOUR).await;
    let brief = Duration::from_millis(300);
    assert_eq!(state(pair, unpaid, brief).await, Some(InvoiceState::Open));
}

async fn an_expired_invoice_is_not_paid(pair: &dyn Pair) {
    let (bolt11, hash) = mint(pair, 5_000, Duration::from_secs(1)).await;
    let expires = Bolt11::parse(&bolt11).expect("BOLT11").expires;
    while farebox::wire::Timestamp::now() <= expires {
        sleep(Duration::from_millis(100)).await;
    }
    // Nodes count whole seconds.
    sleep(Duration::from_secs(1)).await;
    let order = SendOrder::new(bolt11, hash, pair.fee_msat(), PATIENCE);
    let refused = pair.payer().pay(order).await;
    assert!(matches!(refused, Payment::Failed(_)), "{refused:?}");
    assert_ne!(
        state(pair, hash, NO_WAIT).await,
        Some(InvoiceState::Settled)
    );
}

/// A refund is paid to an invoice that leaves the amount to whoever pays.
async fn an_open_invoice_is_paid_what_the_payer_says(pair: &dyn Pair) {
    let bolt11 = pair.open_invoice().await;
    let invoice = Bolt11::parse(&bolt11).expect("BOLT11");
    assert_eq!(invoice.amount_msat, None);
    let hash = invoice.payment_hash;
    let order = SendOrder::new(bolt11, hash, pair.fee_msat(), PATIENCE);
    let unnamed = pair.payer().pay(order.clone()).await;
    assert!(matches!(unnamed, Payment::Failed(_)), "{unnamed:?}");
    proof(pair.payer().pay(order.amount_msat(7_000)).await, hash);
    assert_eq!(
        state(pair, hash, PATIENCE).await,
        Some(InvoiceState::Settled)
    );
}

/// Nothing to test between neighbours, who charge no fee.
async fn a_fee_one_msat_over_the_limit_is_not_paid(pair: &dyn Pair) {
    let Some(below) = pair.fee_msat().checked_sub(1) else {
        return;
    };
    let (bolt11, hash) = mint(pair, 21_000, HOUR).await;
    let order = |fee| SendOrder::new(bolt11.clone(), hash, fee, PATIENCE);
    let refused = pair.payer().pay(order(below)).await;
    assert!(matches!(refused, Payment::Failed(_)), "{refused:?}");
    assert_eq!(state(pair, hash, NO_WAIT).await, Some(InvoiceState::Open));
    proof(pair.payer().pay(order(below + 1)).await, hash);
}

/// Nobody hears the answer, and the process ends: the payment is found by its hash.
async fn what_was_sent_is_found_after_a_restart(pair: &dyn Pair) {
    let (bolt11, hash) = mint(pair, 9_000, HOUR).await;
    let order = SendOrder::new(bolt11, hash, pair.fee_msat(), PATIENCE);
    abandon(pair, order.clone()).await;
    pair.restart_payer().await;
    let found = pair
        .payer()
        .track(hash, PATIENCE)
        .await
        .expect("it was sent");
    let preimage = proof(found, hash);
    assert!(preimage == proof(pair.payer().pay(order).await, hash));
    assert_eq!(
        state(pair, hash, PATIENCE).await,
        Some(InvoiceState::Settled)
    );
}

/// A handle that was connected goes on once the node is back, under another certificate too, and
/// what was minted before is still known.
pub async fn a_node_comes_back(node: Arc<dyn Node>, restart: impl AsyncFnOnce()) {
    let invoice = || NewInvoice::new(1_000, "a joke", HOUR);
    let before = node.create_invoice(invoice()).await.expect("minted");
    restart().await;
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        match node.look_up(before.payment_hash, NO_WAIT).await {
            Ok(found) => break found,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(found, Some(InvoiceState::Open));
    node.create_invoice(invoice()).await.expect("minted again");
}

/// What lets a shop mint invoices lets nobody spend: its files are worth little to a thief. `stranger`
/// has what lets it in at another node. That neither has paid is certain.
pub async fn a_shop_cannot_spend(pair: &dyn Pair, stranger: Arc<dyn Node>) {
    let shop = pair.shop();
    let invoice = NewInvoice::new(1_000, "a joke", HOUR);
    let minted = pair.payer().create_invoice(invoice).await.expect("minted");
    let order = SendOrder::new(minted.bolt11, minted.payment_hash, 0, PATIENCE);
    let refused = shop.pay(order.clone()).await;
    assert!(matches!(refused, Payment::Unsent(_)), "{refused:?}");
    let refused = stranger.pay(order).await;
    assert!(matches!(refused, Payment::Unsent(_)), "{refused:?}");
    let balance = shop.balance_msat().await;
    assert!(matches!(balance, Err(NodeError::Refused(_))), "{balance:?}");
}

/// Pays the seller, so that there is something on its side of the channel, the reserve apart.
pub async fn give_the_seller(pair: &dyn Pair, sats: u64) {
    let (bolt11, hash) = mint(pair, sats * 1_000, HOUR).await;
    let order = SendOrder::new(bolt11, hash, pair.fee_msat(), PATIENCE);
    proof(pair.payer().pay(order).await, hash);
}

/// Starts a payment, and forgets it as soon as the seller has the money.
pub async fn abandon(pair: &dyn Pair, order: SendOrder) {
    let (payer, hash) = (pair.payer(), order.payment_hash);
    let paying = tokio::spawn(async move { drop(payer.pay(order).await) });
    let settled = state(pair, hash, PATIENCE).await;
    paying.abort();
    assert_eq!(settled, Some(InvoiceState::Settled));
}

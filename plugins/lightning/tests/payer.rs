//! The payer's side against the sandbox's LND.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{method, pay, pay_approved, payer, quote, rail, tampered, wallet, wallet_config};
use farebox_core::{Cost, PayError, Paying};
use farebox_lightning::node::{
    InvoiceState, Minted, NewInvoice, NodeError, NodeInfo, Payment, SendOrder,
};
use farebox_lightning::{LightningWallet, Network, Node, PaymentHash, Preimage, lnd::Lnd};
use farebox_lnd::lnrpc::Invoice;
use farebox_lnd::lnrpc::lightning_client::LightningClient;
use farebox_wire::{Amount, Timestamp};
use serde_json::Value;

fn refusal(result: Result<farebox_wire::Payload, PayError>) -> String {
    match result {
        Err(PayError::Refused(why)) => why,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

/// LNC-7, LNC-8: what the challenge says beside the invoice must be what the invoice says; each
/// refusal says which, and nothing is paid.
#[tokio::test]
async fn an_invoice_that_says_something_else_is_not_paid() {
    let ln = common::start().await;
    let challenge = quote(&method(rail(ln.seller())), 21).await.unwrap();
    let payer = payer(wallet(ln.agent()));
    let refused =
        async |change: fn(&mut Value)| refusal(pay(&payer, &tampered(&challenge, change)).await);
    assert!(
        refused(|r| r["amount"] = "22".into())
            .await
            .contains("21000 msat")
    );
    assert!(
        refused(|r| r["amount"] = "20".into())
            .await
            .contains("20 sat")
    );
    let hash = refused(|r| r["methodDetails"]["paymentHash"] = "0".repeat(64).into()).await;
    assert!(hash.contains("payment hash"));
    let broken = refused(|r| r["methodDetails"]["invoice"] = "lnbcrt1".into()).await;
    assert!(broken.contains("BOLT11"));

    // Another network or currency is no lie: another wallet may pay it.
    for change in [
        (|r: &mut Value| r["methodDetails"]["network"] = "mainnet".into()) as fn(&mut Value),
        |r| {
            drop(
                r["methodDetails"]
                    .as_object_mut()
                    .unwrap()
                    .remove("network"),
            )
        },
        |r| r["currency"] = "BTC".into(),
        |r| r["methodDetails"]["network"] = "testnet".into(),
    ] {
        let other = pay(&payer, &tampered(&challenge, change)).await;
        assert!(matches!(other, Err(PayError::Unsupported(_))), "{other:?}");
    }
    assert_eq!(ln.agent().balance_sat(), 1_000_000);
    pay(&payer, &challenge).await.unwrap();
}

#[tokio::test]
async fn an_invoice_without_an_amount_is_not_paid() {
    let ln = common::start().await;
    let challenge = quote(&method(rail(ln.seller())), 21).await.unwrap();
    let mut admin = LightningClient::new(common::dial(ln.seller()));
    let open = admin
        .add_invoice(Invoice::default())
        .await
        .unwrap()
        .into_inner();
    let amountless = tampered(&challenge, |r| {
        r["methodDetails"]["invoice"] = open.payment_request.into();
        r["methodDetails"]["paymentHash"] = hex::encode(open.r_hash).into();
    });
    let why = refusal(pay(&payer(wallet(ln.agent())), &amountless).await);
    assert!(why.contains("no amount"), "{why}");
}

/// The earlier of the two expiries counts.
#[tokio::test]
async fn what_has_expired_is_not_paid() {
    let ln = common::start().await;
    let payer = payer(wallet(ln.agent()));
    let short = method(rail(ln.seller()).invoice_expiry(Duration::from_secs(1)));
    let mut challenge = quote(&short, 21).await.unwrap();
    common::until("the invoice expires", async || {
        payer.price(&Paying::new(&challenge, None)).is_err()
    })
    .await;
    assert!(refusal(pay(&payer, &challenge).await).contains("expired"));

    challenge = quote(&method(rail(ln.seller())), 21).await.unwrap();
    challenge.expires = Some(Timestamp::now());
    assert!(refusal(pay(&payer, &challenge).await).contains("expired"));
    assert_eq!(ln.agent().balance_sat(), 1_000_000);
}

/// The sandbox takes 1000 msat for routing: a limit one msat below it pays nothing, and neither
/// limit can be passed by the other.
#[tokio::test]
async fn routing_fees_have_a_limit() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()));
    let challenge = quote(&method, 21).await.unwrap();
    let wallet = || wallet(ln.agent());
    // 47619 ppm of 21000 msat is 999 msat.
    for tight in [wallet().max_fee_msat(999), wallet().max_fee_ppm(47_619)] {
        let failed = pay(&payer(tight), &challenge).await;
        let Err(PayError::NotPaid(fault)) = failed else {
            panic!("{failed:?}")
        };
        let why = fault.to_string();
        assert!(
            why.contains("no_route") && why.contains("999 msat"),
            "{why}"
        );
    }
    assert_eq!(ln.agent().balance_sat(), 1_000_000);

    // The price is the worst case, and the limit on the total holds against it.
    let enough = payer(wallet().max_fee_msat(1_000));
    let cost = enough.price(&Paying::new(&challenge, None)).unwrap();
    assert_eq!(
        (cost.amount, cost.currency.as_str()),
        (Amount::new(22), "sat")
    );
    assert_eq!(cost.recipient, Some(ln.seller().public_key()));
    let capped = payer(wallet().max_fee_msat(1_000).max_total_sat(21));
    assert!(refusal(pay(&capped, &challenge).await).contains("limit is 21 sat"));

    // An approval is for this price: neither for less nor, as a blank cheque, for more.
    for other in [20, 21, 23] {
        let amount = Amount::new(other);
        let cost = Cost {
            amount,
            ..cost.clone()
        };
        let refused = refusal(pay_approved(&enough, &challenge, cost).await);
        assert!(refused.contains("approved"), "{other}: {refused}");
    }
    pay(&enough, &challenge).await.unwrap();
    assert_eq!(ln.agent().balance_sat(), 1_000_000 - 22);
}

/// The answer is lost after the money moved: the wallet finds the payment by its hash.
#[tokio::test]
async fn a_lost_reply_is_resolved_and_never_paid_again() {
    let ln = common::start().await;
    let challenge = quote(&method(rail(ln.seller())), 21).await.unwrap();
    let payer = payer(wallet(ln.agent()));
    ln.agent().drop_next_reply_after_settle();
    let first = pay(&payer, &challenge).await.unwrap();
    // Asked again, LND answers that it is paid already, and the proof is the same one.
    let second = pay(&payer, &challenge).await.unwrap();
    assert_eq!(first.get(), second.get());
    assert_eq!(ln.seller().settled().len(), 1);
    assert_eq!(ln.agent().balance_sat(), 1_000_000 - 22);
}

/// The node says no and has no record of the payment: that is certain, whatever its error code.
#[tokio::test]
async fn a_payment_the_node_refuses_to_start_is_not_paid() {
    let ln = common::start().await;
    let own = quote(&method(rail(ln.agent())), 21).await.unwrap();
    let refused = pay(&payer(wallet(ln.agent())), &own).await;
    let Err(PayError::NotPaid(fault)) = refused else {
        panic!("{refused:?}")
    };
    assert!(fault.to_string().contains("self-payments"), "{fault}");
}

/// A payment under way is neither paid nor unpaid, and can be followed to its end.
async fn a_hanging_payment_is_unknown(settle: bool) {
    let ln = common::start().await;
    let node: Lnd = common::lnd(ln.agent());
    let challenge = quote(&method(rail(ln.seller())), 21).await.unwrap();
    let details = challenge.request.value()["methodDetails"].clone();
    let hex_hash = details["paymentHash"].as_str().unwrap();
    let mut hash = [0; 32];
    hex::decode_to_slice(hex_hash, &mut hash).unwrap();
    let hash = PaymentHash::new(hash);
    assert!(
        node.track(hash, Duration::ZERO).await.is_none(),
        "never sent"
    );

    ln.agent().hang_next_send();
    let bolt11 = details["invoice"].as_str().unwrap();
    // Long enough for the order to be with the node on a machine that does much else.
    let order = SendOrder::new(bolt11, hash, 1_000, Duration::from_secs(5));
    assert!(matches!(
        node.pay(order).await,
        Payment::Unknown(NodeError::InFlight)
    ));
    let tracked = node.track(hash, Duration::ZERO).await;
    assert!(matches!(
        tracked,
        Some(Payment::Unknown(NodeError::InFlight))
    ));
    ln.agent().finish_hung(hex_hash, settle);
    match node.track(hash, Duration::from_secs(60)).await {
        Some(Payment::Succeeded { preimage, fee_msat }) if settle => {
            assert_eq!((preimage.hash(), fee_msat), (hash, 1_000));
        }
        Some(Payment::Failed(_)) if !settle => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_hanging_payment_is_unknown_until_it_is_settled() {
    a_hanging_payment_is_unknown(true).await;
}

#[tokio::test]
async fn a_hanging_payment_is_unknown_until_it_has_failed() {
    a_hanging_payment_is_unknown(false).await;
}

/// Before anything was sent, a failure is certain; a node that is down costs nothing.
#[tokio::test]
async fn a_node_that_cannot_be_reached_has_not_paid() {
    let ln = common::start().await;
    let challenge = quote(&method(rail(ln.seller())), 21).await.unwrap();
    let mut config = wallet_config(ln.agent());
    // Bound and closed again: nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    config.endpoint = Some(format!("https://{closed}"));
    let down = pay(&payer(LightningWallet::new(config).unwrap()), &challenge).await;
    assert!(matches!(down, Err(PayError::NotPaid(_))), "{down:?}");

    let mut config = wallet_config(ln.agent());
    config.macaroon = Some(common::file(ln.agent().invoice_macaroon_path()));
    let forbidden = pay(&payer(LightningWallet::new(config).unwrap()), &challenge).await;
    assert!(
        matches!(forbidden, Err(PayError::NotPaid(_))),
        "{forbidden:?}"
    );

    let mut config = wallet_config(ln.agent());
    config.tls_cert = Some(common::file(ln.seller().tls_cert_path()));
    let impostor = pay(&payer(LightningWallet::new(config).unwrap()), &challenge).await;
    assert!(
        matches!(impostor, Err(PayError::NotPaid(_))),
        "{impostor:?}"
    );
    assert_eq!(ln.agent().balance_sat(), 1_000_000);
}

#[tokio::test]
async fn a_wallet_knows_whether_it_is_funded() {
    let ln = common::start().await;
    let payer = payer(wallet(ln.agent()));
    let sats = |amount| Cost {
        amount: Amount::new(amount),
        currency: "sat".into(),
        recipient: None,
    };
    assert!(payer.funded(&sats(1_000_000)).await);
    assert!(!payer.funded(&sats(1_000_001)).await);
    ln.agent().set_unavailable(true);
    assert!(
        payer.funded(&sats(1_000_001)).await,
        "one that cannot tell says yes"
    );
}

/// A node that answers whatever a test wants: the seam takes any backend.
struct Scripted {
    pay: fn() -> Payment,
    track: fn() -> Option<Payment>,
}

#[async_trait]
impl Node for Scripted {
    fn network(&self) -> Network {
        Network::Regtest
    }
    async fn create_invoice(&self, _: NewInvoice) -> Result<Minted, NodeError> {
        Err(NodeError::Refused("a payer's node".into()))
    }
    async fn start(&self) -> Result<(), NodeError> {
        Ok(())
    }
    async fn info(&self) -> Result<NodeInfo, NodeError> {
        Ok(NodeInfo::new("02", Some(Network::Regtest)))
    }
    async fn look_up(
        &self,
        _: PaymentHash,
        _: Duration,
    ) -> Result<Option<InvoiceState>, NodeError> {
        Ok(None)
    }
    async fn pay(&self, _: SendOrder) -> Payment {
        (self.pay)()
    }
    async fn track(&self, _: PaymentHash, _: Duration) -> Option<Payment> {
        (self.track)()
    }
    async fn balance_msat(&self) -> Result<u64, NodeError> {
        Ok(0)
    }
}

/// Only the preimage ends the doubt: after a lost request, "never heard of it" may mean "not yet",
/// and a failure may be that of an attempt before.
#[tokio::test]
async fn doubt_stays_doubt() {
    fn unknown() -> Payment {
        Payment::Unknown(NodeError::InFlight)
    }
    let ln = common::start().await;
    let challenge = quote(&method(rail(ln.seller())), 21).await.unwrap();
    let outcome = async |track: fn() -> Option<Payment>| {
        let node = Scripted {
            pay: unknown,
            track,
        };
        pay(&payer(LightningWallet::on(Arc::new(node))), &challenge).await
    };
    assert!(matches!(outcome(|| None).await, Err(PayError::Unknown(_))));
    assert!(matches!(
        outcome(|| Some(unknown())).await,
        Err(PayError::Unknown(_))
    ));
    assert!(matches!(
        outcome(|| Some(Payment::Failed("no_route".into()))).await,
        Err(PayError::Unknown(_))
    ));
    let paid = outcome(|| {
        Some(Payment::Succeeded {
            preimage: Preimage::new([1; 32]),
            fee_msat: 0,
        })
    });
    let presented: Value = paid.await.unwrap().decode().unwrap();
    assert_eq!(presented["preimage"], "01".repeat(32));
}

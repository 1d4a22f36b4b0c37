//! What is refused, and that nothing moves then.

use farebox_core::{SessionTerms, wire::Payload};
use farebox_lightning::node::{NewInvoice, Node as _};
use farebox_lnd::lnrpc::{self, lightning_client::LightningClient};
use serde_json::{Value, json};

use crate::shop::{Shop, connector, lnd, problem, terms};

/// The first example of BOLT11: no amount, on mainnet.
const MAINNET: &str = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";

fn value(payload: &Payload) -> Value {
    payload.decode().unwrap()
}

fn changed(payload: &Payload, change: impl FnOnce(&mut Value)) -> Payload {
    let mut changed = value(payload);
    change(&mut changed);
    Payload::from_value(&changed).unwrap()
}

/// Protects: a deposit opens one session, under its own challenge, and is never a top-up as well.
#[tokio::test]
async fn a_deposit_counts_once() {
    let shop = Shop::open().await;
    let first = shop.challenge().await;
    let (payload, channel) = shop.deposit(&first).await;
    shop.serve(&first, payload.clone(), 0).await.unwrap();
    let other = shop.challenge().await;
    let refused = problem(shop.present(&other, payload.clone()).await);
    assert!(refused.ends_with("lightning/invalid-preimage"), "{refused}");
    // The opening's own preimage as a top-up of the session that it opened.
    let preimage = value(&payload)["preimage"].clone();
    let top_up = Payload::from_value(&json!({
        "action": "topUp", "sessionId": channel.id, "topUpPreimage": preimage,
    }))
    .unwrap();
    assert!(shop.present(&first, top_up.clone()).await.is_err());
    let refused = problem(shop.present(&other, top_up).await);
    assert!(refused.ends_with("lightning/invalid-preimage"), "{refused}");
    let state = shop
        .engine
        .meter(farebox_core::ChannelId::of("lightning", &channel.id));
    assert_eq!(state.state().await.unwrap().deposit.get(), 100);
}

/// Protects: a top-up is credited once, however often it is presented.
#[tokio::test]
async fn a_top_up_counts_once() {
    let shop = Shop::open().await;
    let channel = shop.session().await;
    let (challenge, payload, channel) = shop.top_up(&channel).await;
    for _ in 0..3 {
        let (answer, _) = shop.manage(&challenge, payload.clone()).await.unwrap();
        assert_eq!(answer, json!({ "status": "ok" }));
    }
    shop.spend(&channel, 100).await.unwrap();
    assert!(shop.spend(&channel, 1).await.is_err());
}

/// Protects: each thing wrong with a refund's invoice has words of its own, and the deposit is not
/// taken for it: the same preimage opens the session with a good one.
#[tokio::test]
async fn return_invoices_are_held_to_their_rules() {
    let shop = Shop::open().await;
    let challenge = shop.challenge().await;
    let (payload, _) = shop.deposit(&challenge).await;
    let agent = lnd(shop.sandbox.agent());
    let minute = std::time::Duration::from_secs(60);
    let priced = agent
        .create_invoice(NewInvoice::new(1_000, "", minute))
        .await;
    let mainnet = MAINNET;
    for (invoice, word) in [
        (priced.unwrap().bolt11.as_str(), "amount"),
        (mainnet, "regtest"),
        ("lnbcrt1nonsense", "BOLT11"),
    ] {
        let bad = changed(&payload, |p| p["returnInvoice"] = invoice.into());
        match shop.present(&challenge, bad).await {
            Err(farebox_engine::Refused::Payment(rejection)) => {
                let problem = rejection.problem.type_uri();
                assert!(
                    problem.ends_with("lightning/invalid-return-invoice"),
                    "{problem}"
                );
                assert!(rejection.detail.contains(word), "{}", rejection.detail);
            }
            other => panic!("{word}: {other:?}"),
        }
    }
    shop.serve(&challenge, payload, 1).await.unwrap();
}

/// Protects: two sessions cannot name one invoice for their refunds, of which a node pays one.
#[tokio::test]
async fn a_return_invoice_is_for_one_session() {
    let shop = Shop::open().await;
    let first = shop.challenge().await;
    let (one, _) = shop.deposit(&first).await;
    let second = shop.challenge().await;
    let (two, _) = shop.deposit(&second).await;
    shop.serve(&first, one.clone(), 0).await.unwrap();
    let back = value(&one)["returnInvoice"].clone();
    let stolen = changed(&two, |p| p["returnInvoice"] = back);
    assert!(shop.present(&second, stolen).await.is_err());
    shop.serve(&second, two, 0).await.unwrap();
}

/// Protects: nobody spends or ends a session by its id, which every receipt shows.
#[tokio::test]
async fn the_id_alone_opens_nothing() {
    let shop = Shop::open().await;
    let channel = shop.session().await;
    let challenge = shop.challenge().await;
    for action in ["bearer", "close"] {
        let present = async |payload: Value| {
            let payload = Payload::from_value(&payload).unwrap();
            problem(shop.present(&challenge, payload).await)
        };
        let guess =
            json!({ "action": action, "sessionId": channel.id, "preimage": "00".repeat(32) });
        let refused = present(guess).await;
        assert!(refused.ends_with("lightning/invalid-preimage"), "{refused}");
        let bare = json!({ "action": action, "sessionId": channel.id });
        let refused = present(bare).await;
        assert!(
            refused.ends_with("lightning/malformed-credential"),
            "{refused}"
        );
        let lost =
            json!({ "action": action, "sessionId": "11".repeat(32), "preimage": "00".repeat(32) });
        let refused = present(lost).await;
        assert!(
            refused.ends_with("lightning/session-not-found"),
            "{refused}"
        );
    }
    shop.spend(&channel, 1).await.unwrap();
}

/// Protects: an unpaid deposit opens nothing, even with the right preimage.
#[tokio::test]
async fn a_preimage_of_an_unpaid_deposit_opens_nothing() {
    let shop = Shop::open().await;
    let challenge = shop.challenge().await;
    let hash = challenge.request.value()["paymentHash"].clone();
    let r_hash = hex::decode(hash.as_str().unwrap()).unwrap();
    let mut admin = LightningClient::new(connector(shop.sandbox.seller()).channel());
    let found = admin.lookup_invoice(lnrpc::PaymentHash { r_hash }).await;
    let preimage = hex::encode(found.unwrap().into_inner().r_preimage);
    let agent = lnd(shop.sandbox.agent());
    let day = std::time::Duration::from_secs(86_400);
    let back = agent
        .create_invoice(NewInvoice::open("", day))
        .await
        .unwrap();
    let payload = Payload::from_value(&json!({
        "action": "open", "preimage": preimage, "returnInvoice": back.bolt11,
    }))
    .unwrap();
    let refused = problem(shop.present(&challenge, payload).await);
    assert!(refused.ends_with("verification-failed"), "{refused}");
}

/// Protects: terms that cannot be offered are refused at startup, by the key that is wrong.
#[tokio::test]
async fn terms_are_checked_before_they_are_offered() {
    use farebox_core::Rail as _;
    let shop = Shop::open().await;
    let rail = farebox_lightning::LightningSession::on(lnd(shop.sandbox.seller()));
    for (bad, key) in [
        (terms("0", None), "amount"),
        (terms("0.5", None), "amount"),
        (terms("10", Some("5")), "suggested_deposit"),
        (
            SessionTerms {
                unit: " ".into(),
                ..terms("1", None)
            },
            "unit",
        ),
        (
            SessionTerms {
                currency: Some("usd".into()),
                ..terms("1", None)
            },
            "currency",
        ),
    ] {
        let invalid = rail.check(&bad).unwrap_err();
        assert_eq!(invalid.issues()[0].key, key, "{invalid}");
    }
    assert!(rail.check(&terms("3", None)).is_ok());
}

/// Protects: a top-up that comes after the close is not taken, and the payment still opens another
/// session: nobody keeps what no refund could reach.
#[tokio::test]
async fn a_top_up_after_the_close_is_not_taken() {
    let shop = Shop::open().await;
    let channel = shop.session().await;
    let (challenge, late, topped) = shop.top_up(&channel).await;
    let (closing, payload) = shop.close(&topped).await;
    shop.manage(&closing, payload).await.unwrap();
    let refused = problem(shop.present(&challenge, late.clone()).await);
    assert!(refused.ends_with("lightning/session-closed"), "{refused}");
    let agent = lnd(shop.sandbox.agent());
    let day = std::time::Duration::from_secs(86_400);
    let back = agent
        .create_invoice(NewInvoice::open("", day))
        .await
        .unwrap();
    let open = Payload::from_value(&json!({
        "action": "open", "preimage": value(&late)["topUpPreimage"],
        "returnInvoice": back.bolt11,
    }))
    .unwrap();
    shop.serve(&challenge, open, 1).await.unwrap();
}

//! The seller's side against the sandbox's LND.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{file, method, pay, payer, payload, present, problem, quote, rail, seller_config};
use farebox_core::{Charge, ChargeTerms, NoQuote, Offer, Refusal, SecretSource, compose};
use farebox_engine::{Engine, Inbound, MemoryStore};
use farebox_lightning::{Config, Lightning, Network, PaymentHash};
use farebox_lnd::lnrpc;
use farebox_lnd::lnrpc::lightning_client::LightningClient;
use farebox_testkit::test_secrets;
use farebox_wire::{Payload, Timestamp};
use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};

const PROBLEMS: &str = "https://paymentauth.org/problems/";

/// The whole rail: a fresh invoice, a real payment, a preimage that opens, money moved by the price.
#[tokio::test]
async fn a_paid_invoices_preimage_opens() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()));
    let challenge = quote(&method, 21).await.unwrap();
    let request = challenge.request.value();
    assert_eq!(request["amount"], "21");
    assert_eq!(request["currency"], "sat");
    assert_eq!(request["description"], "a joke");
    let details = &request["methodDetails"];
    assert_eq!(details["network"], "regtest");
    assert!(
        details["invoice"]
            .as_str()
            .unwrap()
            .starts_with("lnbcrt210n1")
    );

    let paid = pay(&payer(common::wallet(ln.agent())), &challenge)
        .await
        .unwrap();
    let preimage: Value = paid.decode().unwrap();
    assert_eq!(
        preimage.as_object().unwrap().len(),
        1,
        "only the preimage is presented"
    );
    let reference = present(&method, &challenge, &paid, &Timestamp::now())
        .await
        .unwrap();
    assert_eq!(
        reference, details["paymentHash"],
        "the receipt names the hash"
    );
    assert_ne!(reference, preimage["preimage"], "and never the preimage");
    let settled = ln.seller().settled();
    assert_eq!((settled.len(), settled[0].amount_msat), (1, 21_000));
    assert_eq!(settled[0].memo, "a joke");
    assert_eq!(settled[0].payment_hash, reference);
}

/// LNC-5, LNC-6: no two challenges share a hash, and a challenge lapses with its invoice.
#[tokio::test]
async fn every_challenge_has_an_invoice_of_its_own() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()).invoice_expiry(Duration::from_secs(60)));
    let terms = serde_json::to_value(ChargeTerms::amount("21")).unwrap();
    let before = Timestamp::now();
    let (a, b) = (
        method.quote(&terms).await.unwrap(),
        method.quote(&terms).await.unwrap(),
    );
    let hash = |quote: &farebox_core::AnyQuote| {
        quote.request.value()["methodDetails"]["paymentHash"].clone()
    };
    assert_ne!(hash(&a), hash(&b));
    let until = a.not_after.unwrap();
    // An invoice counts whole seconds, so it may be up to one second short.
    assert!(until > before.plus(Duration::from_millis(58_999)));
    assert!(until <= Timestamp::now().plus(Duration::from_secs(60)));
}

/// Protects: a payer from an invoice that can be paid when its challenge cannot be presented any more.
#[tokio::test]
async fn no_invoice_outlives_its_challenge() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()).invoice_expiry(Duration::from_secs(600)));
    for (ttl, whole) in [(90_900, 90), (300_000, 90), (60_000, 60)] {
        let store = Arc::new(MemoryStore::new());
        let engine = Engine::builder("test.example", test_secrets(), store)
            .challenge_ttl(Duration::from_millis(ttl))
            .build()
            .unwrap();
        let offer = Offer::new::<Charge>(method.clone(), ChargeTerms::amount("21")).unwrap();
        let gate = engine.gate("GET /joke", compose([offer]).unwrap()).unwrap();
        let challenge = gate
            .challenges(&Inbound::default())
            .await
            .unwrap()
            .remove(0);
        let details = &challenge.request.value()["methodDetails"];
        let invoice: Bolt11Invoice = details["invoice"].as_str().unwrap().parse().unwrap();
        // Two engines know the rail: the shorter time holds.
        assert_eq!(invoice.expiry_time(), Duration::from_secs(whole));
        let payable = invoice.expires_at().unwrap().as_millis();
        let presentable = challenge.expires.unwrap().unix_millis();
        assert!(payable <= u128::try_from(presentable).unwrap());
    }
    // A node would read no time as its own default, an hour or a day.
    method.challenges_last(Duration::from_millis(900));
    let none = quote(&method, 21).await;
    assert!(matches!(none, Err(NoQuote::Declined(_))), "{none:?}");
}

/// LNC-9, LNC-14, LNC-15: form, then hash; each under the rail's own problem type.
#[tokio::test]
async fn other_preimages_are_refused() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()));
    let challenge = quote(&method, 21).await.unwrap();
    let now = Timestamp::now();
    let zeros = "0".repeat(64);
    for malformed in [
        json!({}),
        json!({ "preimage": null }),
        json!({ "preimage": 7 }),
        json!({ "preimage": "" }),
        json!({ "preimage": &zeros[1..] }),
        json!({ "preimage": format!("{zeros}00") }),
        json!({ "preimage": "AB".repeat(32) }),
        json!({ "preimage": "zz".repeat(32) }),
        json!({ "preimage": format!("0x{}", &zeros[2..]) }),
    ] {
        let payload = Payload::from_value(&malformed).unwrap();
        let refused = present(&method, &challenge, &payload, &now).await;
        let expected = format!("{PROBLEMS}lightning/malformed-credential");
        assert_eq!(problem(refused), expected, "{malformed}");
    }
    let wrong = present(&method, &challenge, &payload(&zeros), &now).await;
    assert_eq!(
        problem(wrong),
        format!("{PROBLEMS}lightning/invalid-preimage")
    );

    let other = quote(&method, 21).await.unwrap();
    let paid = pay(&payer(common::wallet(ln.agent())), &other)
        .await
        .unwrap();
    let stolen = present(&method, &challenge, &paid, &now).await;
    assert_eq!(
        problem(stolen),
        format!("{PROBLEMS}lightning/invalid-preimage")
    );
}

/// A node knows the preimages of its unpaid invoices; reading one there must open nothing.
#[tokio::test]
async fn an_unpaid_invoices_preimage_opens_nothing() {
    let ln = common::start().await;
    let strict = method(rail(ln.seller()));
    let challenge = quote(&strict, 21).await.unwrap();
    let hash = challenge.request.value()["methodDetails"]["paymentHash"].clone();
    let r_hash = hex::decode(hash.as_str().unwrap()).unwrap();
    let mut admin = LightningClient::new(common::dial(ln.seller()));
    let found = admin
        .lookup_invoice(lnrpc::PaymentHash { r_hash })
        .await
        .unwrap();
    let leaked = payload(&hex::encode(found.into_inner().r_preimage));

    let now = Timestamp::now();
    let refused = present(&strict, &challenge, &leaked, &now).await;
    assert_eq!(problem(refused), format!("{PROBLEMS}verification-failed"));
    // The documented alternative: without strict mode the preimage alone decides.
    let loose = method(rail(ln.seller()).strict(false));
    assert_eq!(
        present(&loose, &challenge, &leaked, &now).await.unwrap(),
        hash
    );
}

/// LNC-16: the invoice's own expiry counts, whatever the challenge says.
#[tokio::test]
async fn an_expired_invoice_is_refused() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()));
    // However long minting and paying takes, the invoice begins between these two.
    let before = Timestamp::now();
    let challenge = quote(&method, 21).await.unwrap();
    let late = Timestamp::now().plus(Duration::from_secs(301));
    let paid = pay(&payer(common::wallet(ln.agent())), &challenge)
        .await
        .unwrap();
    let refused = present(&method, &challenge, &paid, &late).await;
    assert_eq!(
        problem(refused),
        format!("{PROBLEMS}lightning/expired-invoice")
    );
    let in_time = before.plus(Duration::from_secs(298));
    assert!(present(&method, &challenge, &paid, &in_time).await.is_ok());
}

fn passes(fault: &farebox_core::Fault) -> bool {
    fault.retry_after().is_some()
}

/// A node that is away is our fault: no challenge, no rejection, and a reason to come again.
#[tokio::test]
async fn a_node_that_is_away_is_a_fault() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()));
    let challenge = quote(&method, 21).await.unwrap();
    let paid = pay(&payer(common::wallet(ln.agent())), &challenge)
        .await
        .unwrap();

    ln.seller().set_unavailable(true);
    for _ in 0..2 {
        let verdict = present(&method, &challenge, &paid, &Timestamp::now()).await;
        assert!(
            matches!(&verdict, Err(Refusal::Fault(f)) if passes(f)),
            "{verdict:?}"
        );
    }
    ln.seller().set_unavailable(false);
    let now = Timestamp::now();
    assert!(
        present(&method, &challenge, &paid, &now).await.is_ok(),
        "it recovers"
    );

    let endpoint = ln.seller().endpoint();
    drop(ln);
    let address = endpoint.trim_start_matches("https://");
    common::until("the node is gone", async || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    let verdict = present(&method, &challenge, &paid, &now).await;
    assert!(
        matches!(&verdict, Err(Refusal::Fault(f)) if passes(f)),
        "{verdict:?}"
    );
    let no_quote = quote(&method, 21).await;
    assert!(
        matches!(&no_quote, Err(NoQuote::Fault(f)) if passes(f)),
        "{no_quote:?}"
    );
}

/// A wrong macaroon and a node with another certificate: nothing is quoted, and the fault that is
/// logged does not show the macaroon.
#[tokio::test]
async fn the_node_must_be_the_configured_one() {
    let ln = common::start().await;
    let (seller, agent) = (ln.seller(), ln.agent());
    let config = |cert: &farebox_sandbox_lightning::NodeHandle, macaroon: SecretSource| {
        let cert = file(cert.tls_cert_path());
        Config::lnd(seller.endpoint(), cert, macaroon, Network::Regtest)
    };
    let strange = file(agent.invoice_macaroon_path());
    let wrong_macaroon = method(Lightning::new(config(seller, strange)).unwrap());
    let right = file(seller.invoice_macaroon_path());
    let wrong_certificate = method(Lightning::new(config(agent, right)).unwrap());
    for method in [wrong_macaroon, wrong_certificate] {
        let no_quote = quote(&method, 21).await;
        let Err(NoQuote::Fault(fault)) = no_quote else {
            panic!("expected a fault, not {no_quote:?}");
        };
        assert!(!fault.to_string().contains(agent.invoice_macaroon_hex()));
    }
    assert_eq!(seller.invoice_count(), 0);
}

/// A server whose configuration names another network must not issue what its node mints.
#[tokio::test]
async fn a_node_on_another_network_is_noticed_before_issuing() {
    let ln = common::start().await;
    let mut config = seller_config(ln.seller());
    config.network = "mainnet".into();
    let no_quote = quote(&method(Lightning::new(config).unwrap()), 21).await;
    let Err(NoQuote::Fault(fault)) = no_quote else {
        panic!("expected a fault, not {no_quote:?}");
    };
    assert!(fault.to_string().contains("not for mainnet"), "{fault}");
}

/// Everything wrong is reported at once, each with its key.
#[tokio::test]
async fn configuration_problems_are_listed_together() {
    let plugin = &farebox_lightning::CHARGE;
    assert_eq!(
        (plugin.name, plugin.rail()),
        ("lightning/charge", "lightning")
    );
    let keys = |config: Value| -> Vec<String> {
        let problems = (plugin.build)(&config).err().expect("refused");
        let issues = problems.issues().iter();
        issues.map(|issue| issue.key.clone()).collect()
    };
    let wrong = json!({
        "backend": "lnd",
        "endpoint": "http://127.0.0.1:10009",
        "tls_cert": { "file": "/does/not/exist/tls.cert" },
        "macaroon": "invoice.macaroon",
        "network": "testnet",
        "invoice_expiry": 1,
    });
    assert_eq!(
        keys(wrong),
        [
            "invoice_expiry",
            "network",
            "endpoint",
            "tls_cert",
            "macaroon"
        ]
    );
    let unknown = json!({
        "backend": "lnf", "endpoint": "", "tls_cert": "", "macaroon": "", "network": "testnet",
    });
    assert_eq!(keys(unknown), ["network", "backend"]);
    let problems = |config: Value| (plugin.build)(&config).err().expect("refused").to_string();
    assert_eq!(
        problems(json!({})),
        "backend: is missing; give \"lnd\", \"cln\" or \"ldk\""
    );
    let text = problems(json!({ "backend": "lnd", "invoice_expiry": "5m" }));
    for line in [
        "invoice_expiry: is text; give a whole number, such as 300",
        "macaroon: is missing; give its hex or { file = \"path\" }",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in: {text}");
    }
    let typo = json!({ "backend": "lnd", "endpont": "https://127.0.0.1:10009" });
    assert_eq!(keys(typo)[0], "endpont");

    // The example says nothing wrong but names files that are not here.
    let example: Value = toml::from_str(plugin.example).unwrap();
    assert_eq!(keys(example), ["tls_cert", "macaroon"]);
}

/// Each of these would be a price nobody meant.
#[tokio::test]
async fn terms_are_whole_sats() {
    let ln = common::start().await;
    let method = method(rail(ln.seller()));
    let keys = |terms: ChargeTerms| -> Vec<String> {
        match method.check(&serde_json::to_value(terms).unwrap()) {
            Ok(()) => Vec::new(),
            Err(problems) => problems.issues().iter().map(|i| i.key.clone()).collect(),
        }
    };
    assert!(keys(ChargeTerms::amount("21").currency("sat")).is_empty());
    for bad in [
        "",
        "0",
        "0.5",
        "1.0",
        "-1",
        "+1",
        "1e3",
        "0x10",
        "2100000000000001",
    ] {
        assert_eq!(keys(ChargeTerms::amount(bad)), ["amount"], "{bad}");
    }
    let mut terms = ChargeTerms::amount("x").currency("usd").option("memo", "m");
    terms.recipient = Some("me".into());
    terms.description = Some("d".repeat(640));
    assert_eq!(
        keys(terms),
        ["memo", "amount", "currency", "recipient", "description"]
    );
}

/// Bearer secrets stay out of whatever is logged.
#[tokio::test]
async fn secrets_do_not_show() {
    let ln = common::start().await;
    let rail = rail(ln.seller());
    let preimage = farebox_lightning::Preimage::new([0xab; 32]);
    let payload = farebox_lightning::Payload {
        preimage: Some(preimage.clone()),
    };
    let shown = format!("{preimage:?} {payload:?}");
    assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    let shown = format!("{rail:?} {:?}", seller_config(ln.seller()));
    assert!(!shown.contains(ln.seller().invoice_macaroon_hex()));
    let hash: PaymentHash = preimage.hash();
    assert_eq!(hash.to_string().len(), 64);
}

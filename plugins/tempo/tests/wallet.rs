//! What the wallet does not pay, and what is wrong with a configuration.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::sync::Arc;

use farebox_core::{Budget, Limit, Payer, Paying, Secret, SecretSource, config, prelude::*};
use farebox_proof::LocalKey;
use farebox_tempo::{CHARGE, Config, FeePayerConfig, Tempo, TempoWallet, WalletConfig};
use farebox_wire::Encoded;
use serde_json::{Value, json};

const TOKEN: &str = "0x20c0000000000000000000000000000000000000";
const RECIPIENT: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const KEY: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const OWN: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

fn payer(more: &Value) -> Arc<dyn Payer> {
    let mut config =
        json!({ "private_key": KEY, "rpc_url": "http://127.0.0.1:9", "chain_id": 1337 });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    CHARGE.wallet.unwrap()(&config).unwrap()
}

fn price(payer: &dyn Payer, change: impl Fn(&mut Value)) -> Result<Cost, PayError> {
    let mut request = json!({
        "amount": "10000",
        "currency": TOKEN,
        "recipient": RECIPIENT,
        "methodDetails": { "chainId": 1337, "supportedModes": ["pull"] },
    });
    change(&mut request);
    let challenge = Challenge {
        id: "id".into(),
        realm: "api.example.com".into(),
        method: "tempo".into(),
        intent: "charge".into(),
        request: Encoded::encode(&request).unwrap(),
        expires: None,
        digest: None,
        description: Some("only 1 cent".into()),
        opaque: None,
        header: None,
    };
    payer.price(&Paying::new(&challenge, Some("api.example.com")))
}

#[test]
fn the_price_is_what_the_request_says() {
    let cost = price(payer(&json!({})).as_ref(), |_| ()).unwrap();
    assert_eq!(cost.amount, Amount::new(10_000));
    assert_eq!(cost.currency, TOKEN);
    assert_eq!(cost.recipient.as_deref(), Some(RECIPIENT));
    // Absent modes mean both; members nobody knows are ignored.
    let open = |r: &mut Value| r["methodDetails"] = json!({ "chainId": 1337, "new": true });
    assert!(price(payer(&json!({})).as_ref(), open).is_ok());
}

/// Protects: a budget's list of recipients, and its limit for each, from payees that it cannot see.
#[test]
fn splits_are_paid_to_nobody_in_particular() {
    let other = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65";
    let cost = |wallet: Value, to: &str| {
        let split = json!([{ "amount": "1000", "recipient": to }]);
        price(payer(&wallet).as_ref(), |r| {
            r["methodDetails"]["splits"] = split.clone();
        })
        .unwrap()
    };
    let split = cost(json!({}), other);
    assert_eq!(split.recipient, None);
    let budget = Budget::new([Limit::per_request(TOKEN, Amount::new(10_000))]);
    assert!(budget.approve(split.clone()).is_ok());
    assert!(budget.only_recipients([RECIPIENT]).approve(split).is_err());
    let own = cost(json!({}), RECIPIENT);
    assert_eq!(own.recipient.as_deref(), Some(RECIPIENT));
    let listed = cost(json!({ "recipients": [RECIPIENT, other] }), other);
    assert_eq!(listed.recipient.as_deref(), Some(RECIPIENT));
}

/// Protects: an access key that is moved into a KMS goes on paying out of its account.
#[test]
fn another_signer_is_a_key_of_the_same_account() {
    let wallet = TempoWallet::new(WalletConfig {
        private_key: Some(SecretSource::Text(Secret::new(KEY))),
        rpc_url: Some("http://127.0.0.1:9".into()),
        chain_id: Some(1337),
        account: Some(RECIPIENT.into()),
        ..WalletConfig::default()
    });
    let signer = LocalKey::parse("key", &Secret::new("22".repeat(32))).unwrap();
    let wallet = wallet.unwrap().with_signer(signer);
    assert_eq!(wallet.address().to_string(), RECIPIENT);
}

/// Protects: a budget per payee or currency, which a seller could multiply by spelling addresses in
/// several ways.
#[test]
fn one_payee_has_one_spelling() {
    let wallet = payer(&json!({}));
    for recipient in [
        RECIPIENT,
        &RECIPIENT[2..],
        &RECIPIENT.to_ascii_lowercase(),
        &RECIPIENT[2..].to_ascii_uppercase(),
    ] {
        for currency in [TOKEN, &TOKEN[2..], &TOKEN[2..].to_ascii_uppercase()] {
            let cost = price(wallet.as_ref(), |r| {
                r["recipient"] = json!(recipient);
                r["currency"] = json!(currency);
            });
            let cost = cost.unwrap();
            assert_eq!(cost.recipient.as_deref(), Some(RECIPIENT), "{recipient}");
            assert_eq!(cost.currency, TOKEN, "{currency}");
        }
    }
}

/// Protects: another wallet may pay these; this one says why it does not.
#[test]
fn challenges_for_other_wallets() {
    let one_token = json!({ "currency": "0x20c0000000000000000000000000000000000001" });
    let unsupported = |more: &Value, change: fn(&mut Value), says: &str| match price(
        payer(more).as_ref(),
        change,
    ) {
        Err(PayError::Unsupported(why)) => assert!(why.contains(says), "{why}"),
        other => panic!("{says}: {other:?}"),
    };
    let any = json!({});
    unsupported(
        &any,
        |r| r["methodDetails"]["chainId"] = json!(4217),
        "chain 4217",
    );
    unsupported(&any, |r| r["methodDetails"] = json!({}), "names no chain");
    unsupported(
        &any,
        |r| r["methodDetails"]["supportedModes"] = json!(["carrier pigeon"]),
        "neither pull mode nor push mode",
    );
    unsupported(
        &any,
        |r| {
            r["methodDetails"]["feePayer"] = json!(true);
            r["methodDetails"]["supportedModes"] = json!(["push"]);
        },
        "neither pull mode nor push mode",
    );
    unsupported(&any, |r| r["currency"] = json!("usd"), "no token address");
    unsupported(&one_token, |_| (), "is in the token");
    let two_tokens = json!({ "currencies": ["0x20c0000000000000000000000000000000000001", TOKEN] });
    assert!(price(payer(&two_tokens).as_ref(), |_| ()).is_ok());
}

/// Protects: the wallet calls nothing but tokens, and pays nobody who cannot be a payee.
#[test]
fn challenges_nobody_should_pay() {
    let wallet = payer(&json!({}));
    for (member, value) in [
        ("currency", json!(OWN)),
        ("recipient", json!(OWN)),
        ("recipient", json!(TOKEN)),
        (
            "recipient",
            json!("0x0000000000000000000000000000000000000000"),
        ),
        ("recipient", json!("alice")),
        ("recipient", Value::Null),
    ] {
        let result = price(wallet.as_ref(), |r| r[member] = value.clone());
        assert!(
            matches!(result, Err(PayError::Refused(_))),
            "{member} {value}: {result:?}"
        );
    }
    let other = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
    let split = |amount: &str, to: &str| json!({ "amount": amount, "recipient": to });
    for (splits, fits) in [
        (json!([split("1", other)]), true),
        (json!([split("9999", other)]), true),
        (json!([split("10000", other)]), false),
        (json!([split("5000", other), split("5000", other)]), false),
        (json!([split("0", other)]), false),
        (json!([split("1", OWN)]), false),
        (json!([split("1", TOKEN)]), false),
        (json!([{ "amount": "1" }]), false),
        (json!(vec![split("1", other); 10]), true),
        (json!(vec![split("1", other); 11]), false),
    ] {
        let result = price(wallet.as_ref(), |r| {
            r["methodDetails"]["splits"] = splits.clone();
        });
        let refused = matches!(result, Err(PayError::Refused(_)));
        assert!(refused != fits, "{splits}: {result:?}");
        assert!(result.is_ok() == fits, "{splits}: {result:?}");
    }
    // Whom it pays is the wallet's to say, for every part.
    let careful = payer(&json!({ "recipients": [RECIPIENT] }));
    assert!(price(careful.as_ref(), |_| ()).is_ok());
    for (pointer, value) in [
        ("recipient", json!(other)),
        (
            "methodDetails",
            json!({ "chainId": 1337, "splits": [split("1", other)] }),
        ),
    ] {
        let result = price(careful.as_ref(), |r| r[pointer] = value.clone());
        assert!(
            matches!(&result, Err(PayError::Refused(why)) if why.contains("recipients")),
            "{result:?}"
        );
    }
    let foreign = price(wallet.as_ref(), |r| r["amount"] = json!("0"));
    assert!(foreign.is_ok(), "a proof for the host that was asked");
}

/// Protects: one start, one list of everything that is wrong, with no secret in it.
#[test]
fn every_configuration_problem_at_once() {
    let config = Config {
        rpc_url: Some("ftp://user:hunter2@node.example".into()),
        currency: Some("0x0000000000000000000000000000000000000000".into()),
        recipient: Some("alice".into()),
        decimals: Some(77),
        ..Config::default()
    };
    assert!(!format!("{config:?}").contains("hunter2"));
    let invalid = Tempo::new(config).unwrap_err();
    let keys: Vec<_> = invalid.issues().iter().map(|i| i.key.as_str()).collect();
    assert_eq!(
        keys,
        ["rpc_url", "chain_id", "currency", "recipient", "decimals"]
    );
    assert!(!invalid.to_string().contains("hunter2"), "{invalid}");

    let fee_payer = FeePayerConfig {
        fee_token: Some("0x20c0000000000000000000000000000000000001".into()),
        max_fee: Some("a lot".into()),
        window_seconds: Some(14),
        ..FeePayerConfig::default()
    };
    let config = Config {
        fee_payer: Some(fee_payer),
        ..Config::default()
    };
    let invalid = Tempo::new(config).unwrap_err();
    let keys: Vec<_> = invalid.issues().iter().map(|i| i.key.as_str()).collect();
    for key in ["private_key", "fee_token", "max_fee", "window_seconds"] {
        assert!(
            keys.contains(&format!("fee_payer.{key}").as_str()),
            "{keys:?}"
        );
    }

    let value = json!({ "rpc_ulr": "http://127.0.0.1", "chainid": 1 });
    let invalid = config::read::<Config>(&value).unwrap_err();
    assert_eq!(invalid.issues().len(), 2, "{invalid}");
    assert!(
        invalid.to_string().contains("did you mean `rpc_url`"),
        "{invalid}"
    );

    let error = CHARGE.wallet.unwrap()(&json!({ "private_key": "hunter2", "fee_token": OWN }));
    let invalid = error.map(drop).unwrap_err();
    let keys: Vec<_> = invalid.issues().iter().map(|i| i.key.as_str()).collect();
    assert_eq!(keys, ["private_key", "rpc_url", "chain_id", "fee_token"]);
    assert!(!invalid.to_string().contains("hunter2"), "{invalid}");
}

/// Protects: the example that `farebox rails` shows is a working configuration.
#[test]
fn the_example_builds() {
    let config: serde_json::Map<String, Value> = CHARGE
        .example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(" = ").unwrap())
        .map(|(key, value)| (key.to_owned(), serde_json::from_str(value).unwrap()))
        .collect();
    let method = (CHARGE.build)(&Value::Object(config)).unwrap();
    assert_eq!(
        (CHARGE.name, method.name()),
        ("tempo/charge", "tempo/charge")
    );
    for (amount, fits) in [
        ("0.01", true),
        ("0", true),
        ("0.0000001", false),
        ("0x10", false),
    ] {
        assert_eq!(
            method.check(&json!({ "amount": amount })).is_ok(),
            fits,
            "{amount}"
        );
    }
    let invalid = method
        .check(&json!({ "amount": "1e3", "recipient": "bob" }))
        .unwrap_err();
    assert_eq!(invalid.issues().len(), 2, "{invalid}");
}

/// Protects: an offer whose splits nobody could pay is found at the start.
#[test]
fn splits_and_modes_that_make_no_offer() {
    let config = json!({
        "rpc_url": "http://127.0.0.1:9", "chain_id": 1337, "currency": TOKEN, "recipient": RECIPIENT,
    });
    let method = (CHARGE.build)(&config).unwrap();
    let split = |amount: &str| json!({ "amount": amount, "recipient": OWN });
    for (key, value, says) in [
        ("splits", json!([split("0.001")]), None),
        ("splits", json!(vec![split("0.0001"); 10]), None),
        ("splits", json!([]), Some("1 to 10")),
        ("splits", json!(vec![split("0.0001"); 11]), Some("1 to 10")),
        ("splits", json!([split("0.01")]), Some("must be less")),
        (
            "splits",
            json!([split("0.005"), split("0.005")]),
            Some("must be less"),
        ),
        ("splits", json!([split("0")]), Some("is zero")),
        ("splits", json!([split("1e-3")]), Some("splits.0.amount")),
        (
            "splits",
            json!([{ "amount": "0.001", "recipient": "bob" }]),
            Some("splits.0.recipient"),
        ),
        (
            "splits",
            json!([{ "amount": "0.001", "recipent": OWN }]),
            Some("splits"),
        ),
        ("modes", json!(["push"]), None),
        ("modes", json!(["pull", "push"]), None),
        ("modes", json!([]), Some("modes")),
        ("modes", json!(["fax"]), Some("modes")),
    ] {
        let mut terms = json!({ "amount": "0.01" });
        terms[key] = value;
        match (method.check(&terms), says) {
            (Ok(()), None) => {}
            (Err(invalid), Some(says)) => {
                assert!(invalid.to_string().contains(says), "{terms}: {invalid}");
            }
            (result, _) => panic!("{terms}: {result:?}"),
        }
    }
    let free = json!({ "amount": "0", "splits": [split("0.001")] });
    assert!(method.check(&free).is_err(), "nothing cannot be split");
}

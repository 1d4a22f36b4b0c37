//! A rail declared with `plugin!`: what is registered, how it is built, and how mistakes read.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use farebox_core::{
    ComposeError, Method, Offer, Place, PricingContext, Registry, RegistryError, Typed, compose,
    prelude::*,
    wire::{Encoded, OfferId},
};
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    issuer: String,
    #[serde(default)]
    limit: u32,
}

struct GiftCard {
    issuer: String,
    settler: NoSettler,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Details {
    issuer: String,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

impl GiftCard {
    fn new(config: Config) -> Result<Self, Invalid> {
        if config.issuer.is_empty() {
            return Err(Invalid::new("issuer", "is empty; name the issuer"));
        }
        assert!(config.limit < 10);
        Ok(Self {
            issuer: config.issuer,
            settler: NoSettler,
        })
    }
}

impl Rail<Charge> for GiftCard {
    const METHOD: &'static str = "giftcard";
    type Details = Details;
    type Payload = Code;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        let request = terms.request(
            Amount::from_decimal(&terms.amount, 2)
                .map_err(|e| Fault::new("amount").caused_by(e))?,
            "usd",
        );
        Ok(Quote::new(
            request,
            Details {
                issuer: self.issuer.clone(),
            },
        ))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Charge, Details>,
        payload: Code,
    ) -> Result<Plan<Once, Never>, Refusal> {
        if payload.code != "ABCD" {
            return Err(Rejection::rail("unknown-code", "no such code").into());
        }
        Ok(Plan::paid(
            ProofKey::of("giftcard", &payload.code),
            &cx.challenge.id,
        ))
    }

    fn settler(&self) -> &NoSettler {
        &self.settler
    }
}

plugin! {
    /// `giftcard/charge`.
    static CHARGE = Charge: GiftCard::new, example: "issuer = \"acme\"";
}

mod rival {
    use super::*;
    plugin! {
        /// The same name from elsewhere; not submitted twice, since each test binary links both.
        pub(super) static CHARGE = Charge: GiftCard::new, name: "rival/charge";
    }
}

fn registry() -> Registry {
    Registry::default()
        .with(&CHARGE)
        .unwrap()
        .with_linked()
        .unwrap()
}

fn build(config: Value) -> Result<Arc<dyn Method>, Invalid> {
    (registry().get("giftcard/charge").unwrap().build)(&config)
}

/// Both doors lead to one value, names decide the order, and a name given wins over the pair.
#[test]
fn a_plugin_is_registered_once_under_its_name() {
    let names: Vec<&str> = registry().plugins().map(|p| p.name).collect();
    assert_eq!(names, ["giftcard/charge", "rival/charge"]);
    assert_eq!(
        (CHARGE.method, CHARGE.intent, CHARGE.package),
        ("giftcard", "charge", "farebox-core")
    );
    assert_eq!(
        (rival::CHARGE.rail(), rival::CHARGE.method),
        ("rival", "giftcard")
    );
    assert!(CHARGE.wallet.is_none());
}

/// Two packages under one name are a startup error that names both.
#[test]
fn a_name_claimed_twice_is_an_error() {
    let twin: &'static farebox_core::Plugin = Box::leak(Box::new(farebox_core::Plugin {
        name: "giftcard/charge",
        package: "acme-rail",
        ..farebox_core::Plugin { ..copy(&CHARGE) }
    }));
    let error = registry().with(twin).unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Duplicate {
                second: "acme-rail",
                ..
            }
        ),
        "{error}"
    );
}

fn copy(plugin: &farebox_core::Plugin) -> farebox_core::Plugin {
    farebox_core::Plugin {
        name: plugin.name,
        method: plugin.method,
        intent: plugin.intent,
        package: plugin.package,
        version: plugin.version,
        example: plugin.example,
        build: plugin.build,
        wallet: plugin.wallet,
        session_wallet: plugin.session_wallet,
    }
}

/// Protects: a rail whose members stand beside the shared ones is written and read like that, and
/// its members are not looked for in `methodDetails`.
#[test]
fn a_rails_members_may_stand_beside_the_shared_ones() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Beside {
        deposit_invoice: String,
    }
    let ask = Ask::<Charge, Beside> {
        request: serde_json::from_value(serde_json::json!({"amount": "2", "currency": "sat"}))
            .unwrap(),
        details: Beside {
            deposit_invoice: "lnbc1".to_owned(),
        },
    };
    let encoded = ask.encode_at(Place::Beside).unwrap();
    assert_eq!(
        encoded.json(),
        r#"{"amount":"2","currency":"sat","depositInvoice":"lnbc1"}"#
    );
    let read = Ask::<Charge, Beside>::decode_at(Place::Beside, &encoded).unwrap();
    assert_eq!((read.request, read.details), (ask.request, ask.details));
    assert!(Ask::<Charge, Beside>::decode(&encoded).is_err());
}

/// An unknown rail says what there is, what was probably meant, and the two usual reasons.
#[test]
fn an_unknown_rail_is_explained() {
    let text = registry().get("giftcart/charge").unwrap_err().to_string();
    for part in [
        "did you mean `giftcard/charge`",
        "`rival/charge`",
        "Cargo feature",
        "use the_crate as _",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

/// Every unknown key is reported, with the nearest known one.
#[test]
fn configuration_errors_come_together() {
    let error = build(json!({"isuer": "acme", "limmit": 1, "issuer": "acme"}))
        .err()
        .unwrap();
    assert_eq!(error.issues().len(), 2, "{error}");
    assert!(
        error.to_string().contains("did you mean `issuer`"),
        "{error}"
    );
    let missing = build(json!({})).err().unwrap();
    assert_eq!(
        missing.to_string(),
        "issuer: is missing; give text in quotes, such as \"acme\""
    );
    assert!(build(json!({"issuer": ""})).is_err());
}

/// Unknown terms are refused when the offer is made, not when somebody wants to pay.
#[test]
fn terms_are_checked_at_startup() {
    let method = build(json!({"issuer": "acme"})).unwrap();
    let terms = json!({"amount": "1", "curency": "usd"});
    match Offer::from_value(method, terms) {
        Err(ComposeError::Terms(_, invalid)) => {
            assert!(
                invalid.to_string().contains("did you mean `currency`"),
                "{invalid}"
            );
        }
        other => panic!("{other:?}"),
    }
}

fn offer(terms: ChargeTerms) -> Offer {
    Offer::new::<Charge>(build(json!({"issuer": "acme"})).unwrap(), terms).unwrap()
}

/// Offers that cannot be told apart do not go together; the same rail at two prices does.
#[test]
fn ambiguous_offers_do_not_compose() {
    assert!(matches!(compose([]), Err(ComposeError::Empty)));
    let one = || offer(ChargeTerms::amount("1"));
    assert!(matches!(
        compose([one(), one()]),
        Err(ComposeError::Duplicate(_))
    ));
    let offers = compose([one(), offer(ChargeTerms::amount("2"))]).unwrap();
    assert!(offers.offers(&OfferId::new("giftcard", "charge")));
    assert_eq!(offers.iter().len(), 2);
}

/// A price that depends on the request is asked for each time, and has no fingerprint to compare.
#[tokio::test]
async fn prices_may_depend_on_the_request() {
    let method = build(json!({"issuer": "acme"})).unwrap();
    let offer = Offer::dynamic::<Charge, _, _>(method, |cx| {
        let amount = cx.target.len().to_string();
        async move { Ok(ChargeTerms::amount(amount)) }
    })
    .unwrap();
    assert_eq!(offer.fingerprint(), None);
    let terms = offer
        .terms(PricingContext::new("GET /", "/long", None))
        .await
        .unwrap();
    assert_eq!(terms["amount"], "5");
}

/// The request on the wire has the shared members and the rail's own, and reads back.
#[tokio::test]
async fn quotes_and_asks_are_inverse() {
    let method = build(json!({"issuer": "acme"})).unwrap();
    let terms = json!({"amount": "0.10", "external_id": "order-7"});
    let quote = method.quote(&terms).await.unwrap();
    let wire = json!({
        "amount": "10", "currency": "usd", "externalId": "order-7",
        "methodDetails": {"issuer": "acme"},
    });
    assert_eq!(quote.request.value(), wire);
    assert_eq!(
        method.intent().external_id(&quote.request).as_deref(),
        Some("order-7")
    );
    let ask = Ask::<Charge, Details>::decode(&quote.request).unwrap();
    assert_eq!(ask.encode().unwrap().as_str(), quote.request.as_str());
    let plain = Ask::<Charge, Map<String, Value>> {
        request: ask.request,
        details: Map::new(),
    };
    assert!(
        plain
            .encode()
            .unwrap()
            .value()
            .get("methodDetails")
            .is_none()
    );
}

/// A rail's own problem type is put under the rail's name.
#[tokio::test]
async fn rail_problems_carry_the_rails_name() {
    use farebox_core::wire::Payload;
    let method = Typed::<GiftCard, Charge>::new(
        GiftCard::new(Config {
            issuer: "acme".into(),
            limit: 0,
        })
        .unwrap(),
    );
    let challenge = Challenge {
        id: "id".into(),
        realm: "test".into(),
        method: "giftcard".into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({
            "amount": "1", "currency": "usd", "methodDetails": {"issuer": "acme"}
        }))
        .unwrap(),
        expires: None,
        digest: None,
        description: None,
        opaque: None,
        header: None,
    };
    let now = Timestamp::from_unix_millis(0);
    let cx = Presented::new(&challenge, &now);
    let verify = async |code: &str| {
        method
            .verify(&cx, &Payload::from_value(&json!({"code": code})).unwrap())
            .await
    };
    match verify("WXYZ").await {
        Err(Refusal::Rejected(rejection)) => {
            assert!(
                rejection
                    .problem
                    .type_uri()
                    .ends_with("/problems/giftcard/unknown-code")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(verify("ABCD").await.is_ok());
}

//! Stripe's webhooks: a signed call says that a PaymentIntent or a refund has come to its end, so that
//! it is looked at now (docs.stripe.com/webhooks).

use std::fmt;

use farebox_core::{Delivery, Hint, Issue, Secret, SecretSource, Unheeded};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

/// How old or how far ahead a call may be, seconds: Stripe's own libraries' default.
const TOLERANCE: u32 = 300;

pub(crate) const fn tolerance() -> u32 {
    TOLERANCE
}

/// How many signatures of one call are tried: one for each secret that Stripe still has, two while
/// one is replaced.
const SIGNATURES: usize = 8;

/// What tells genuine calls from others.
#[derive(Clone, Default)]
pub(crate) struct Webhooks {
    /// Any of them may have signed.
    secrets: Vec<Secret>,
    tolerance: u32,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhooks({} secrets)", self.secrets.len())
    }
}

impl Webhooks {
    pub(crate) fn check(secrets: &[SecretSource], tolerance: u32, issues: &mut Vec<Issue>) -> Self {
        let mut read = Vec::new();
        for (n, source) in secrets.iter().enumerate() {
            let key = format!("webhook_secrets[{n}]");
            match source.read(&key) {
                Ok(secret)
                    if secret.expose().len() > 6 && secret.expose().starts_with("whsec_") =>
                {
                    read.push(secret);
                }
                Ok(_) => issues.push(Issue::new(key, "is no signing secret, `whsec_…`")),
                Err(issue) => issues.push(issue),
            }
        }
        if !(1..=3600).contains(&tolerance) {
            let problem = "is no such time; give 1 to 3600 seconds";
            issues.push(Issue::new("webhook_tolerance", problem));
        }
        Self {
            secrets: read,
            tolerance,
        }
    }

    pub(crate) fn listens(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// What a call is about. One that is genuine and about nothing of ours is heeded, and asks for
    /// nothing.
    pub(crate) fn heed(&self, delivery: &Delivery<'_>) -> Result<Vec<Hint>, Unheeded> {
        let header = delivery.header("stripe-signature");
        let header = header.ok_or(Unheeded("a call without one Stripe-Signature"))?;
        self.genuine(header, delivery)?;
        let event: Event = serde_json::from_slice(delivery.body)
            .map_err(|_| Unheeded("a signed call that is no event"))?;
        Ok(event.hints())
    }

    /// The header is `t=<Unix seconds>,v1=<hex>,…`; what is signed is the time, a dot and the body.
    fn genuine(&self, header: &str, delivery: &Delivery<'_>) -> Result<(), Unheeded> {
        let members = || {
            header
                .split(',')
                .filter_map(|member| member.split_once('='))
        };
        let mut times = members().filter(|(name, _)| name.trim() == "t");
        let time = match (times.next(), times.next()) {
            (Some((_, text)), None) => text,
            _ => return Err(Unheeded("a signature without one time")),
        };
        let at: i64 = time
            .parse()
            .map_err(|_| Unheeded("a signature without one time"))?;
        let signatures = members().filter(|(name, _)| name.trim() == "v1");
        let known = signatures
            .take(SIGNATURES)
            .filter_map(|(_, text)| hex::decode(text.trim()).ok())
            .any(|signature| self.signed(time, delivery.body, &signature));
        if !known {
            return Err(Unheeded("a call that nobody signed"));
        }
        // After the signature, so that only Stripe's own old calls are told from forged ones.
        if delivery.now.abs_diff(at) > u64::from(self.tolerance) {
            return Err(Unheeded("a call that is too old, or from the future"));
        }
        Ok(())
    }

    /// Compared in constant time.
    fn signed(&self, time: &str, body: &[u8], signature: &[u8]) -> bool {
        self.secrets.iter().any(|secret| {
            let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes());
            mac.is_ok_and(|mac| {
                let mac = mac.chain_update(time).chain_update(".").chain_update(body);
                mac.verify_slice(signature).is_ok()
            })
        })
    }
}

/// What is used of an event.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    /// The connected account it is of.
    account: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    id: Option<String>,
    payment_intent: Option<Value>,
    #[serde(default)]
    metadata: Value,
}

impl Event {
    fn hints(self) -> Vec<Hint> {
        let object = self.data.object;
        let member = |key: &str| Some(object.metadata.get(key)?.as_str()?.to_owned());
        match self.kind.as_str() {
            "payment_intent.succeeded"
            | "payment_intent.payment_failed"
            | "payment_intent.canceled" => member("mpp_challenge_id")
                .map(|challenge| Hint::Payment {
                    challenge,
                    reference: object.id,
                })
                .into_iter()
                .collect(),
            // `charge.refunded` comes for what others give back too. A charge has its PaymentIntent's
            // metadata, and a refund its own, so that only the first says what was paid.
            "charge.refunded"
            | "charge.refund.updated"
            | "refund.created"
            | "refund.updated"
            | "refund.failed" => {
                let challenge = member("mpp_challenge_id");
                let Some(Value::String(id)) = object.payment_intent else {
                    return Vec::new();
                };
                let reference = match self.account {
                    Some(account) => format!("{account}/{id}"),
                    None => id,
                };
                vec![Hint::Refund {
                    reference,
                    challenge,
                }]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;

    fn webhooks() -> Webhooks {
        Webhooks {
            secrets: ["whsec_new", "whsec_old"].map(Secret::new).to_vec(),
            tolerance: TOLERANCE,
        }
    }

    fn sign(secret: &str, at: i64, body: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        let mac = mac.chain_update(format!("{at}.{body}"));
        hex::encode(mac.finalize().into_bytes())
    }

    fn event(kind: &str) -> String {
        let object = json!({ "id": "pi_1", "metadata": { "mpp_challenge_id": "c-1" } });
        json!({ "id": "evt_1", "type": kind, "data": { "object": object } }).to_string()
    }

    fn heed(header: &str, body: &str) -> Result<Vec<Hint>, Unheeded> {
        let headers = [("Stripe-Signature", header.as_bytes())];
        webhooks().heed(&Delivery::new(&headers, body.as_bytes(), NOW))
    }

    /// Protects: the scheme is the published one: HMAC-SHA256 of `t.body`, in hex, under the whole
    /// secret. The value was computed with OpenSSL.
    #[test]
    fn the_signature_is_stripes() {
        assert_eq!(
            sign("whsec_new", NOW, "{}"),
            "1986deab7895a14a054fddb484fae2a14b005d2d05f7c0337957417e34d10bfe"
        );
    }

    #[test]
    fn either_secret_signs_while_one_is_replaced() {
        let body = event("payment_intent.succeeded");
        let expected = vec![Hint::Payment {
            challenge: "c-1".to_owned(),
            reference: Some("pi_1".to_owned()),
        }];
        for secret in ["whsec_new", "whsec_old"] {
            let good = sign(secret, NOW, &body);
            assert_eq!(
                heed(&format!("t={NOW},v1={good}"), &body),
                Ok(expected.clone())
            );
            // Stripe signs with both for a while, and with an old scheme beside.
            let two = format!("t={NOW},v1={},v1={good},v0=00", "00".repeat(32));
            assert_eq!(heed(&two, &body), Ok(expected.clone()));
        }
        let failed = event("payment_intent.payment_failed");
        let good = sign("whsec_new", NOW, &failed);
        assert_eq!(heed(&format!("t={NOW},v1={good}"), &failed), Ok(expected));
    }

    /// Protects: nobody but Stripe has a payment looked at.
    #[test]
    fn forged_and_stale_calls_are_not_heeded() {
        let body = event("payment_intent.succeeded");
        let good = sign("whsec_new", NOW, &body);
        let old = NOW - i64::from(TOLERANCE) - 1;
        let stale = sign("whsec_new", old, &body);
        let ahead = NOW + i64::from(TOLERANCE) + 1;
        let future = sign("whsec_new", ahead, &body);
        for header in [
            String::new(),
            format!("v1={good}"),
            format!("t={NOW}"),
            format!("t={NOW},v1="),
            format!("t={NOW},v1={}", &good[..62]),
            format!("t={NOW},v0={good}"),
            format!("t={},v1={good}", NOW + 1),
            format!("t={NOW},t={NOW},v1={good}"),
            format!("t={NOW},v1={}", sign("whsec_other", NOW, &body)),
            format!("t={NOW},v1={}", sign("", NOW, &body)),
            format!("t={old},v1={stale}"),
            format!("t={ahead},v1={future}"),
        ] {
            assert!(heed(&header, &body).is_err(), "{header}");
        }
        let other = body.replace("c-1", "c-2");
        assert!(heed(&format!("t={NOW},v1={good}"), &other).is_err());
        let twice = [
            ("stripe-signature", good.as_bytes()),
            ("Stripe-Signature", b"x"),
        ];
        let twice = webhooks().heed(&Delivery::new(&twice, body.as_bytes(), NOW));
        assert!(twice.is_err());
    }

    /// Protects: what Stripe also sends to the same address is taken, and asks for nothing.
    #[test]
    fn other_events_are_none_of_ours() {
        let ours = |kind: &str, body: String| {
            let good = sign("whsec_new", NOW, &body);
            let hints = heed(&format!("t={NOW},v1={good}"), &body);
            hints.unwrap_or_else(|e| panic!("{kind}: {e}"))
        };
        assert_eq!(ours("charge.succeeded", event("charge.succeeded")), []);
        let stranger = event("payment_intent.succeeded").replace("mpp_challenge_id", "order");
        assert_eq!(ours("no challenge", stranger), []);
    }

    /// Protects: what others give back is heard of, with what was paid where the call says; a payment
    /// is named as its account has it.
    #[test]
    fn refunds_are_looked_at_whoever_made_them() {
        let hints = |kind: &str, account: Value, metadata: Value| {
            let object = json!({ "id": "x", "payment_intent": "pi_1", "metadata": metadata });
            let event = json!({ "type": kind, "account": account, "data": { "object": object } });
            let body = event.to_string();
            let good = sign("whsec_new", NOW, &body);
            heed(&format!("t={NOW},v1={good}"), &body).unwrap()
        };
        let refund = |reference: &str, challenge: Option<&str>| Hint::Refund {
            reference: reference.to_owned(),
            challenge: challenge.map(str::to_owned),
        };
        assert_eq!(
            hints("refund.failed", Value::Null, json!({})),
            [refund("pi_1", None)]
        );
        assert_eq!(
            hints("refund.updated", "acct_1".into(), Value::Null),
            [refund("acct_1/pi_1", None)]
        );
        let paid = json!({ "mpp_challenge_id": "c-1" });
        assert_eq!(
            hints("charge.refunded", Value::Null, paid),
            [refund("pi_1", Some("c-1"))]
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut issues = Vec::new();
        let wrong = SecretSource::Text(Secret::new("sk_test_1"));
        Webhooks::check(&[wrong], 0, &mut issues);
        let keys: Vec<&str> = issues.iter().map(|issue| issue.key.as_str()).collect();
        assert_eq!(keys, ["webhook_secrets[0]", "webhook_tolerance"]);
        assert!(!format!("{issues:?} {:?}", webhooks()).contains("_test_"));
        assert!(!format!("{:?}", webhooks()).contains("whsec"));
    }
}

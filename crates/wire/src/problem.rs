//! What can go wrong, as RFC 9457 problem types.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const BASE: &str = "https://paymentauth.org/problems/";

/// A problem type (draft-httpauth-payment §Error Codes, and those that
/// deployed peers know). Its JSON form is for stores; bodies are [`ProblemDetails`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Problem {
    /// Nothing was paid yet. 402.
    PaymentRequired,
    /// The credential cannot be read. 402.
    MalformedCredential,
    /// The challenge is unknown, forged, or belongs elsewhere. 402.
    InvalidChallenge,
    /// The proof does not hold. 402.
    VerificationFailed,
    /// The challenge has lapsed. 402.
    PaymentExpired,
    /// Less was paid than asked. 402.
    PaymentInsufficient,
    /// The payer has to act first, such as a card's second factor. 402.
    PaymentActionRequired,
    /// The payload does not have the rail's form. 402.
    InvalidPayload,
    /// The offer is not accepted here. 400.
    MethodUnsupported,
    /// The request is wrong in a way that paying does not mend. 400.
    BadRequest,
    /// The challenge or proof was used before. 403, a `verification-failed`.
    AlreadyUsed,
    /// Paid, and refused by policy. 403.
    Forbidden,
    /// The body exceeds what is buffered before payment. 413.
    BodyTooLarge,
    /// An `Idempotency-Key` came back with another request. 422.
    IdempotencyMismatch,
    /// More challenges were asked for than one client may leave unpaid. 429.
    TooManyRequests,
    /// A fault of ours or of the rail's. 500.
    Internal,
    /// The outcome is not known yet, or nothing can be quoted now. 503.
    TemporarilyUnavailable,
    /// A type of one rail's own, or of an intent's such as `session`. 402; 410 for a session's
    /// `channel-not-found` and `channel-finalized`; 503 for its [`BALANCE_HELD`].
    Rail {
        /// The rail or intent that defines it.
        rail: String,
        /// Its name there.
        name: String,
    },
}

/// The name of a session's problem that the drafts do not have: the balance would do, but streams
/// hold it for the moment. Nothing was served, nothing was spent, and the same credential may come
/// again. 503, with `Retry-After` and no challenge.
pub const BALANCE_HELD: &str = "balance-held";

impl Problem {
    /// A rail's own type: `rail("lightning", "invalid-preimage")` is
    /// `…/problems/lightning/invalid-preimage`.
    pub fn rail(rail: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Rail {
            rail: rail.into(),
            name: name.into(),
        }
    }

    /// A type of the session intent, `…/problems/session/<name>`.
    pub fn session(name: impl Into<String>) -> Self {
        Self::rail("session", name)
    }

    /// The registered name, if the type is one of the protocol's.
    fn slug(&self) -> Option<&'static str> {
        Some(match self {
            Self::PaymentRequired => "payment-required",
            Self::MalformedCredential => "malformed-credential",
            Self::InvalidChallenge => "invalid-challenge",
            Self::VerificationFailed | Self::AlreadyUsed => "verification-failed",
            Self::PaymentExpired => "payment-expired",
            Self::PaymentInsufficient => "payment-insufficient",
            Self::PaymentActionRequired => "payment-action-required",
            Self::InvalidPayload => "invalid-payload",
            Self::MethodUnsupported => "method-unsupported",
            Self::BadRequest => "bad-request",
            Self::Internal => "internal-payment-error",
            _ => return None,
        })
    }

    /// The `type` member. `about:blank` where only the status says something
    /// (RFC 9457 §4.2.1).
    #[must_use]
    pub fn type_uri(&self) -> Cow<'static, str> {
        match (self, self.slug()) {
            (Self::Rail { rail, name }, _) => format!("{BASE}{rail}/{name}").into(),
            (_, Some(slug)) => format!("{BASE}{slug}").into(),
            _ => "about:blank".into(),
        }
    }

    /// The `title` member: the same text for every occurrence.
    #[must_use]
    pub fn title(&self) -> Cow<'static, str> {
        match self {
            Self::PaymentRequired => "Payment Required",
            Self::MalformedCredential => "Malformed Credential",
            Self::InvalidChallenge => "Invalid Challenge",
            Self::VerificationFailed | Self::AlreadyUsed => "Verification Failed",
            Self::PaymentExpired => "Payment Expired",
            Self::PaymentInsufficient => "Payment Insufficient",
            Self::PaymentActionRequired => "Payment Action Required",
            Self::InvalidPayload => "Invalid Payload",
            Self::MethodUnsupported => "Method Unsupported",
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::BodyTooLarge => "Content Too Large",
            Self::IdempotencyMismatch => "Unprocessable Content",
            Self::TooManyRequests => "Too Many Requests",
            Self::Internal => "Internal Payment Error",
            Self::TemporarilyUnavailable => "Service Unavailable",
            Self::Rail { name, .. } => return titled(name).into(),
        }
        .into()
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::MethodUnsupported | Self::BadRequest => 400,
            Self::AlreadyUsed | Self::Forbidden => 403,
            Self::BodyTooLarge => 413,
            Self::IdempotencyMismatch => 422,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::TemporarilyUnavailable => 503,
            Self::Rail { rail, name }
                if rail == "session"
                    && matches!(name.as_str(), "channel-not-found" | "channel-finalized") =>
            {
                410
            }
            Self::Rail { rail, name } if rail == "session" && name == BALANCE_HELD => 503,
            _ => 402,
        }
    }
}

/// `invalid-preimage` as `Invalid Preimage`.
fn titled(name: &str) -> String {
    let mut title = String::with_capacity(name.len());
    for word in name.split(['-', '/']).filter(|word| !word.is_empty()) {
        if !title.is_empty() {
            title.push(' ');
        }
        let mut chars = word.chars();
        title.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        title.push_str(chars.as_str());
    }
    title
}

/// An `application/problem+json` body (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// The problem type's URI.
    #[serde(rename = "type", default = "about_blank")]
    pub problem_type: String,
    /// What kind of problem it is.
    #[serde(default)]
    pub title: String,
    /// The HTTP status; 0 in a received body without one.
    #[serde(default)]
    pub status: u16,
    /// What happened this time. Shown to the payer: no secrets, no internals.
    #[serde(default)]
    pub detail: String,
    /// The challenge sent along, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_id: Option<String>,
    /// How to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Further members, such as `requiredTopUp`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl ProblemDetails {
    /// The body for a problem.
    pub fn new(problem: &Problem, detail: impl Into<String>) -> Self {
        Self {
            problem_type: problem.type_uri().into_owned(),
            title: problem.title().into_owned(),
            status: problem.status(),
            detail: detail.into(),
            challenge_id: None,
            hint: None,
            extra: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_keep_members_they_do_not_know() {
        let text = r#"{"type":"x","title":"t","status":402,"detail":"d","challengeId":"c","hint":"h","requiredTopUp":"5"}"#;
        let body: ProblemDetails = serde_json::from_str(text).unwrap();
        assert_eq!(body.challenge_id.as_deref(), Some("c"));
        assert_eq!(body.extra["requiredTopUp"], "5");
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
    }

    #[test]
    fn foreign_bodies_need_no_member() {
        let body: ProblemDetails = serde_json::from_str("{}").unwrap();
        assert_eq!(
            (body.problem_type.as_str(), body.status),
            ("about:blank", 0)
        );
    }
}

//! Challenges in JSON-RPC errors.

use farebox_wire::{
    Challenge, Credential, FormatError, MAX_CREDENTIAL_BYTES, Problem, ProblemDetails,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{ErrorObject, PAYMENT_REQUIRED, VERIFICATION_FAILED, meta::PAYMENT_REQUIRED_RESULT};

/// How many challenges of one error are read; more are left out.
pub const MAX_CHALLENGES: usize = 64;

/// A challenge and its JSON, which a client has to give back unchanged: members that are not known
/// here and the spelling of numbers included.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    challenge: Challenge,
    json: Map<String, Value>,
}

impl Ask {
    /// A challenge to send, its `request` a native object.
    ///
    /// # Errors
    /// If a peer would refuse it, see [`Challenge::check`].
    pub fn new(challenge: Challenge) -> Result<Self, FormatError> {
        let json = serde_json::to_value(&challenge);
        let mut json = match json.map_err(|error| FormatError::Json(error.to_string()))? {
            Value::Object(json) => json,
            _ => Map::new(),
        };
        json.insert("request".to_owned(), challenge.request.value());
        Ok(Self { challenge, json })
    }

    /// A received challenge. Its `request` may also be base64url text, as older peers send it.
    ///
    /// # Errors
    /// Says what is wrong, by the same rules as for a header.
    pub fn read(value: &Value) -> Result<Self, String> {
        let Value::Object(json) = value else {
            return Err("a challenge is an object".to_owned());
        };
        let text = value.to_string();
        if text.len() > MAX_CREDENTIAL_BYTES {
            return Err(format!(
                "a challenge is longer than {MAX_CREDENTIAL_BYTES} bytes"
            ));
        }
        match serde_json::from_str(&text) {
            Ok(challenge) => Ok(Self {
                challenge,
                json: json.clone(),
            }),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The challenge.
    #[must_use]
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// What goes over the wire.
    #[must_use]
    pub fn json(&self) -> &Map<String, Value> {
        &self.json
    }

    /// The JSON of a credential for this challenge, the challenge as it came. As good as money.
    ///
    /// # Errors
    /// If the credential cannot be written, or a server would refuse it as too long.
    pub fn credential(&self, credential: &Credential) -> Result<Value, FormatError> {
        credential_json(&self.json, credential)
    }
}

pub(crate) fn credential_json(
    challenge: &Map<String, Value>,
    credential: &Credential,
) -> Result<Value, FormatError> {
    let payload = serde_json::to_value(&credential.payload)
        .map_err(|_| FormatError::Json("the payload".to_owned()))?;
    let mut json = json!({ "challenge": challenge, "payload": payload });
    if let Some(source) = &credential.source {
        json["source"] = source.as_str().into();
    }
    if json.to_string().len() > MAX_CREDENTIAL_BYTES {
        return Err(FormatError::TooLarge {
            limit: MAX_CREDENTIAL_BYTES,
        });
    }
    Ok(json)
}

/// What was wrong with a payment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An error that asks for payment or refuses one: codes [`PAYMENT_REQUIRED`] and
/// [`VERIFICATION_FAILED`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PaymentError {
    /// Which of the two.
    pub code: i64,
    /// What can be paid. None where a payment is refused for good.
    pub challenges: Vec<Ask>,
    /// Why others cannot be read. They do not hide those that can.
    pub unreadable: Vec<String>,
    /// What happened, as over HTTP.
    pub problem: Option<ProblemDetails>,
    /// What was wrong with the credential.
    pub failure: Option<Failure>,
}

impl PaymentError {
    /// An error for these challenges. Its `problem` names the first of them.
    #[must_use]
    pub fn new(problem: &Problem, detail: &str, challenges: Vec<Ask>) -> Self {
        let mut details = ProblemDetails::new(problem, detail);
        let first = challenges.first();
        details.challenge_id = first.map(|ask| ask.challenge.id.clone());
        let (code, failure) = match problem {
            Problem::PaymentRequired => (PAYMENT_REQUIRED, None),
            _ => {
                let reason = details.problem_type.rsplit_once("/problems/");
                let failure = Failure {
                    reason: reason.map(|(_, reason)| reason.to_owned()),
                    detail: Some(detail.to_owned()),
                };
                (VERIFICATION_FAILED, Some(failure))
            }
        };
        Self {
            code,
            challenges,
            unreadable: Vec::new(),
            problem: Some(details),
            failure,
        }
    }

    /// The error object.
    #[must_use]
    pub fn to_error(&self) -> ErrorObject {
        let status = self.problem.as_ref().map_or(402, |problem| problem.status);
        let mut data = Map::from_iter([("httpStatus".to_owned(), json!(status))]);
        let challenges: Vec<_> = self.challenges.iter().map(Ask::json).collect();
        if !challenges.is_empty() {
            data.insert("challenges".to_owned(), json!(challenges));
        }
        if let Some(problem) = &self.problem {
            data.insert("problem".to_owned(), json!(problem));
        }
        if let Some(failure) = &self.failure {
            data.insert("failure".to_owned(), json!(failure));
        }
        let message = match self.code {
            PAYMENT_REQUIRED => "Payment Required",
            _ => "Payment Verification Failed",
        };
        ErrorObject::new(self.code, message).with(data)
    }

    /// The payment side of a received error; `None` if it has another code.
    #[must_use]
    pub fn of(error: &ErrorObject) -> Option<Self> {
        matches!(error.code, PAYMENT_REQUIRED | VERIFICATION_FAILED)
            .then(|| Self::read(error.code, error.data.as_ref()))
    }

    /// What a tool result asks for in its `_meta`, where it stands for an error.
    #[must_use]
    pub fn of_result(meta: &Map<String, Value>) -> Option<Self> {
        let data = meta.get(PAYMENT_REQUIRED_RESULT)?;
        Some(Self::read(PAYMENT_REQUIRED, Some(data)))
    }

    fn read(code: i64, data: Option<&Value>) -> Self {
        let member = |name: &str| data.and_then(|data| data.get(name));
        let (mut challenges, mut unreadable) = (Vec::new(), Vec::new());
        let all = member("challenges").and_then(Value::as_array);
        for challenge in all.into_iter().flatten().take(MAX_CHALLENGES) {
            match Ask::read(challenge) {
                Ok(ask) => challenges.push(ask),
                Err(why) => unreadable.push(why),
            }
        }
        let read = |name| member(name).cloned();
        Self {
            code,
            challenges,
            unreadable,
            problem: read("problem").and_then(|value| serde_json::from_value(value).ok()),
            failure: read("failure").and_then(|value| serde_json::from_value(value).ok()),
        }
    }
}

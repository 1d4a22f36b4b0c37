//! Headers, receipts, base64url and challenge ids.

use farebox::wire::{self, Challenge, Credential, Encoded, Receipt, base64url};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::protocol::{Answer, Failure, Kind, failed, read};

/// Stands where a challenge has to have text that is not looked at.
const ANY: &str = "-";

#[derive(Deserialize)]
struct Header {
    header: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

/// A challenge, with its request decoded.
fn shown(challenge: &Challenge) -> Value {
    let mut shown = json!({
        "id": challenge.id,
        "realm": challenge.realm,
        "method": challenge.method,
        "intent": challenge.intent,
        "request": challenge.request.value(),
    });
    let optional = [
        (
            "expires",
            challenge.expires.as_ref().map(wire::Timestamp::as_str),
        ),
        ("description", challenge.description.as_deref()),
        (
            "digest",
            challenge.digest.as_ref().map(wire::BodyDigest::as_str),
        ),
        ("opaque", challenge.opaque.as_ref().map(Encoded::as_str)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            shown[name] = value.into();
        }
    }
    shown
}

/// A receipt; what the protocol does not define stands in `extra`.
pub(crate) fn shown_receipt(receipt: &Receipt) -> Value {
    let mut shown = json!({
        "status": receipt.status,
        "method": receipt.method,
        "timestamp": receipt.timestamp,
        "reference": receipt.reference,
    });
    let mut extra = receipt.extra.clone();
    if extra.get("externalId").is_some_and(Value::is_string)
        && let Some(id) = extra.remove("externalId")
    {
        shown["externalId"] = id;
    }
    if !extra.is_empty() {
        shown["extra"] = extra.into();
    }
    shown
}

pub(crate) fn parse_challenge(input: &Value) -> Answer {
    let Header { header } = read(Kind::ParseError, input)?;
    // A value may list several; the first one answers.
    let first = Challenge::parse_each(&header).next();
    let challenge = first
        .ok_or_else(|| Failure::new(Kind::ParseError, "there is no Payment challenge"))?
        .map_err(failed(Kind::ParseError))?;
    Ok(shown(&challenge))
}

pub(crate) fn format_challenge(input: &Value) -> Answer {
    let challenge = Challenge::deserialize(input).map_err(failed(Kind::FormatError))?;
    let header = challenge.to_header().map_err(failed(Kind::FormatError))?;
    Ok(json!({ "header": header }))
}

pub(crate) fn challenge_id(input: &Value) -> Answer {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Input {
        secret_key: String,
        realm: String,
        #[serde(flatten)]
        rest: Map<String, Value>,
    }
    let Input {
        secret_key,
        realm,
        mut rest,
    } = read(Kind::GenerationError, input)?;
    // The realm is bound as it is; what else is bound has to be what a challenge may hold.
    rest.insert("id".to_owned(), ANY.into());
    rest.insert("realm".to_owned(), ANY.into());
    let challenge: Challenge = read(Kind::GenerationError, &rest.into())?;
    let challenge = Challenge { realm, ..challenge };
    let id = wire::challenge_id(secret_key.as_bytes(), &challenge);
    Ok(json!({ "id": id }))
}

pub(crate) fn parse_credential(input: &Value) -> Answer {
    let Header { header } = read(Kind::ParseError, input)?;
    let credential = Credential::parse(header.as_bytes())
        .map_err(failed(Kind::ParseError))?
        .ok_or_else(|| Failure::new(Kind::ParseError, "there is no Payment credential"))?;
    let payload: Value = credential
        .payload
        .decode()
        .map_err(failed(Kind::ParseError))?;
    let mut value = json!({ "challenge": shown(&credential.challenge), "payload": payload });
    if let Some(source) = credential.source {
        value["source"] = source.into();
    }
    Ok(value)
}

pub(crate) fn format_credential(input: &Value) -> Answer {
    let credential = Credential::from_value(input).map_err(failed(Kind::FormatError))?;
    let header = credential.to_header().map_err(failed(Kind::FormatError))?;
    Ok(json!({ "header": header }))
}

pub(crate) fn parse_receipt(input: &Value) -> Answer {
    let Header { header } = read(Kind::ParseError, input)?;
    let receipt = Receipt::parse(&header).map_err(failed(Kind::ParseError))?;
    Ok(shown_receipt(&receipt))
}

pub(crate) fn format_receipt(input: &Value) -> Answer {
    let mut members: Map<String, Value> = read(Kind::FormatError, input)?;
    if let Some(Value::Object(extra)) = members.remove("extra") {
        for (name, value) in extra {
            members.entry(name).or_insert(value);
        }
    }
    let receipt: Receipt = read(Kind::FormatError, &members.into())?;
    let header = receipt.to_header().map_err(failed(Kind::FormatError))?;
    Ok(json!({ "header": header }))
}

pub(crate) fn encode(input: &Value) -> Answer {
    let Text { text } = read(Kind::EncodingError, input)?;
    Ok(json!({ "text": base64url::encode(text.as_bytes()) }))
}

pub(crate) fn decode(input: &Value) -> Answer {
    let Text { text } = read(Kind::EncodingError, input)?;
    let bytes = base64url::decode(&text).map_err(failed(Kind::EncodingError))?;
    let text = String::from_utf8(bytes).map_err(failed(Kind::EncodingError))?;
    Ok(json!({ "text": text }))
}

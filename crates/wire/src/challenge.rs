//! Challenges: what a 402 asks for.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::auth_params::{Content, Element, SCHEME, elements, latin1, push_param};
use crate::encoded::{Object, Wire};
use crate::offer::{check_intent, check_method};
use crate::{BodyDigest, Encoded, FormatError, OfferId, ParseError, Timestamp};

/// A payment challenge (draft-httpauth-payment §Required Parameters, §Optional
/// Parameters).
///
/// Fields are open so that servers and tests can build one. Writing or reading
/// one in any form applies the same rules, see [`Challenge::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Binds the other parameters; single use. Made by [`SecretRing::sign`](crate::SecretRing::sign).
    pub id: String,
    /// The protection space, usually the server's public host name.
    pub realm: String,
    /// The rail, such as `tempo`.
    pub method: String,
    /// What the payment means, such as `charge`.
    pub intent: String,
    /// The terms; their schema belongs to the method and intent.
    pub request: Encoded,
    /// When the challenge lapses; the instant itself is already too late.
    pub expires: Option<Timestamp>,
    /// The body that the paid request must carry.
    pub digest: Option<BodyDigest>,
    /// Text for people. Not bound, and never a reason to pay or to refuse.
    pub description: Option<String>,
    /// The server's own data, returned unchanged by the client.
    pub opaque: Option<Encoded>,
    /// The header the credential goes into, where it is not `Authorization`.
    pub header: Option<CredentialHeader>,
}

/// The request header that carries a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialHeader {
    /// `Authorization`, the default. Never advertised.
    Authorization,
    /// `Payment-Authorization`, for routes whose `Authorization` is taken.
    PaymentAuthorization,
}

impl CredentialHeader {
    /// The field name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "Authorization",
            Self::PaymentAuthorization => "Payment-Authorization",
        }
    }

    /// A server may not steer credentials into any other header, such as `Cookie`.
    fn parse(name: &str) -> Result<Self, ParseError> {
        let name = Some(name).filter(|n| n.eq_ignore_ascii_case("Payment-Authorization"));
        name.map(|_| Self::PaymentAuthorization).ok_or(HEADER_RULE)
    }
}

const HEADER_RULE: ParseError =
    ParseError::invalid("header", "may only name `Payment-Authorization`");

impl Challenge {
    /// The pair the challenge belongs to.
    #[must_use]
    pub fn offer(&self) -> OfferId {
        OfferId::parts(self.method.as_str(), self.intent.as_str())
    }

    /// The rules of every form: identifiers follow their grammar, `id` and
    /// `realm` are not empty, no bound field holds the binding's separator `|`,
    /// no text holds a line break, and only `Payment-Authorization` is advertised.
    ///
    /// # Errors
    /// Names the first field that breaks them.
    pub fn check(&self) -> Result<(), ParseError> {
        check_text("id", &self.id)?;
        if self.id.is_empty() {
            return Err(ParseError::invalid("id", "must not be empty"));
        }
        check_text("realm", &self.realm)?;
        if self.realm.is_empty() || self.realm.contains('|') {
            return Err(ParseError::invalid(
                "realm",
                "must not be empty or contain `|`",
            ));
        }
        check_method(&self.method)?;
        check_intent(&self.intent)?;
        check_text(
            "description",
            self.description.as_deref().unwrap_or_default(),
        )?;
        match self.header {
            Some(CredentialHeader::Authorization) => Err(HEADER_RULE),
            _ => Ok(()),
        }
    }

    /// One `WWW-Authenticate` value, in printable ASCII.
    ///
    /// # Errors
    /// If a parser would refuse it, see [`Challenge::check`].
    pub fn to_header(&self) -> Result<String, FormatError> {
        self.check()?;
        let mut header = String::with_capacity(256 + self.request.as_str().len());
        header.push_str(SCHEME);
        let params = [
            ("id", Some(self.id.as_str())),
            ("realm", Some(&self.realm)),
            ("method", Some(&self.method)),
            ("intent", Some(&self.intent)),
            ("request", Some(self.request.as_str())),
            ("description", self.description.as_deref()),
            ("digest", self.digest.as_ref().map(BodyDigest::as_str)),
            ("expires", self.expires.as_ref().map(Timestamp::as_str)),
            ("opaque", self.opaque.as_ref().map(Encoded::as_str)),
            ("header", self.header.map(CredentialHeader::as_str)),
        ];
        for (name, value) in params {
            if let Some(value) = value {
                push_param(&mut header, name, value);
            }
        }
        Ok(header)
    }

    /// Reads a value that holds exactly one `Payment` challenge; other schemes
    /// may surround it.
    ///
    /// # Errors
    /// If there is none, more than one, or it is malformed.
    pub fn parse_one(value: &str) -> Result<Self, ParseError> {
        let mut found = Self::parse_each(value);
        let first = found
            .next()
            .unwrap_or(Err(ParseError::Syntax("no Payment challenge")));
        match found.next() {
            None => first,
            Some(_) => Err(ParseError::Syntax("more than one Payment challenge")),
        }
    }

    /// The `Payment` challenges of all `WWW-Authenticate` values of a response,
    /// in order. A malformed one does not hide the others, and other schemes
    /// are skipped (RFC 9110 §11.6.1).
    pub fn parse_all<'a>(
        headers: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<Result<Self, ParseError>> {
        let mut all = Vec::new();
        for header in headers {
            all.extend(Self::parse_each(&latin1(header)));
        }
        all
    }

    /// [`Challenge::parse_all`] for one value that is text already, as the
    /// header maps of other languages have it.
    pub fn parse_each(value: &str) -> impl Iterator<Item = Result<Self, ParseError>> {
        elements(value).filter_map(from_element)
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), ParseError> {
    if text.bytes().any(|b| matches!(b, b'\r' | b'\n')) {
        return Err(ParseError::invalid(field, "must not contain a line break"));
    }
    Ok(())
}

fn from_element(element: Element<'_>) -> Option<Result<Challenge, ParseError>> {
    let payment = element.scheme.eq_ignore_ascii_case(SCHEME);
    payment.then(|| match element.content? {
        Content::Params(params) => from_params(params),
        Content::Token68(_) => Err(ParseError::Syntax("a challenge has parameters")),
    })
}

/// Parameter names in the order they are written; also the slots of [`from_params`].
const NAMES: [&str; 10] = [
    "id",
    "realm",
    "method",
    "intent",
    "request",
    "description",
    "digest",
    "expires",
    "opaque",
    "header",
];

fn from_params(params: Vec<(&str, Cow<'_, str>)>) -> Result<Challenge, ParseError> {
    let mut slots: [Option<Cow<'_, str>>; NAMES.len()] = Default::default();
    let mut unknown = Vec::new();
    for (name, value) in params {
        // Unknown parameters are ignored, but like the known ones occur once.
        let known = |known: &&str| known.eq_ignore_ascii_case(name);
        match NAMES.iter().zip(&mut slots).find(|(n, _)| known(n)) {
            Some((name, slot)) => {
                if slot.replace(value).is_some() {
                    return Err(ParseError::Duplicate(Cow::Borrowed(name)));
                }
            }
            None => unknown.push(name.to_ascii_lowercase()),
        }
    }
    unknown.sort_unstable();
    if let Some([name, _]) = unknown.array_windows().find(|[a, b]| a == b) {
        return Err(ParseError::Duplicate(name.clone().into()));
    }
    let [
        id,
        realm,
        method,
        intent,
        request,
        description,
        digest,
        expires,
        opaque,
        header,
    ] = slots;
    let own = |slot: Option<Cow<'_, str>>| slot.map(Cow::into_owned);
    ChallengeWire {
        id: own(id),
        realm: own(realm),
        method: own(method),
        intent: own(intent),
        request: request.map(Wire::Text),
        description: own(description),
        digest: own(digest),
        expires: own(expires),
        opaque: opaque.map(Wire::Text),
        header: own(header),
    }
    .into_challenge()
}

/// A challenge as text, before its rules are applied: the one road from a
/// header, from JSON and from an echo.
#[derive(Deserialize)]
pub(crate) struct ChallengeWire<'a> {
    id: Option<String>,
    realm: Option<String>,
    method: Option<String>,
    intent: Option<String>,
    #[serde(borrow)]
    request: Option<Wire<'a>>,
    description: Option<String>,
    digest: Option<String>,
    expires: Option<String>,
    #[serde(borrow)]
    opaque: Option<Wire<'a>>,
    header: Option<String>,
}

impl ChallengeWire<'_> {
    pub(crate) fn into_challenge(self) -> Result<Challenge, ParseError> {
        let challenge = Challenge {
            id: self.id.ok_or(ParseError::Missing("id"))?,
            realm: self.realm.ok_or(ParseError::Missing("realm"))?,
            method: self.method.ok_or(ParseError::Missing("method"))?,
            intent: self.intent.ok_or(ParseError::Missing("intent"))?,
            request: self
                .request
                .ok_or(ParseError::Missing("request"))?
                .into_encoded("request")?,
            expires: self.expires.as_deref().map(Timestamp::parse).transpose()?,
            digest: self.digest.as_deref().map(BodyDigest::parse).transpose()?,
            description: self.description,
            opaque: self.opaque.map(Wire::into_opaque).transpose()?,
            header: self
                .header
                .as_deref()
                .map(CredentialHeader::parse)
                .transpose()?,
        };
        challenge.check()?;
        Ok(challenge)
    }
}

/// Members in alphabetical order, so that the JSON is canonical (RFC 8785).
#[derive(Serialize)]
struct ChallengeJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a BodyDigest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<&'a Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<&'a str>,
    id: &'a str,
    intent: &'a str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    opaque: Option<&'a Encoded>,
    realm: &'a str,
    request: &'a Encoded,
}

impl Serialize for Challenge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.check().map_err(serde::ser::Error::custom)?;
        ChallengeJson {
            description: self.description.as_deref(),
            digest: self.digest.as_ref(),
            expires: self.expires.as_ref(),
            header: self.header.map(CredentialHeader::as_str),
            id: &self.id,
            intent: &self.intent,
            method: &self.method,
            opaque: self.opaque.as_ref(),
            realm: &self.realm,
            request: &self.request,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Challenge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(wire) = Object::<ChallengeWire<'_>>::deserialize(deserializer)?;
        wire.into_challenge().map_err(serde::de::Error::custom)
    }
}

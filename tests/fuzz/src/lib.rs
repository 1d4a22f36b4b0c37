//! What several targets need: ways to get bytes to a parser, structured input, and naive models.

use std::collections::HashSet;

use arbitrary::Arbitrary;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farebox_wire::{BodyDigest, Challenge, CredentialHeader, Encoded, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub mod model;

/// Base64url, so that a fuzzer need not find it: it changes the JSON inside instead.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The first byte chooses what is done with the rest.
#[must_use]
pub fn choose(data: &[u8], of: u8) -> Option<(u8, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((first % of, rest))
}

/// A challenge from arbitrary parts, which need not be valid ones.
#[derive(Arbitrary, Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub id: String,
    pub realm: String,
    pub method: String,
    pub intent: String,
    pub request: Vec<(String, Leaf)>,
    pub expires: Option<i64>,
    pub digest: Option<[u8; 4]>,
    pub description: Option<String>,
    pub opaque: Option<Vec<(String, Leaf)>>,
    pub header: bool,
}

/// A member of an object.
#[derive(Arbitrary, Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
    Texts(Vec<String>),
}

impl From<Leaf> for Value {
    fn from(leaf: Leaf) -> Self {
        match leaf {
            Leaf::Null => Self::Null,
            Leaf::Bool(value) => value.into(),
            Leaf::Integer(value) => value.into(),
            Leaf::Text(value) => value.into(),
            Leaf::Texts(values) => values.into(),
        }
    }
}

/// A JSON value whose objects serialise in the order given.
#[derive(Arbitrary, Clone, Debug)]
pub enum Tree {
    Leaf(Leaf),
    Float(f64),
    Items(Vec<Tree>),
    Members(Vec<(String, Tree)>),
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaf(leaf) => Value::from(leaf.clone()).serialize(serializer),
            // JSON has no infinities, and what is not a number is nothing.
            Self::Float(number) if number.is_finite() => serializer.serialize_f64(*number),
            Self::Float(_) => serializer.serialize_unit(),
            Self::Items(items) => serializer.collect_seq(items),
            Self::Members(members) => {
                let mut seen = HashSet::new();
                let new = members.iter().filter(|(name, _)| seen.insert(name));
                serializer.collect_map(new.map(|(name, value)| (name, value)))
            }
        }
    }
}

fn object(members: Vec<(String, Leaf)>) -> Option<Encoded> {
    let members: Map<_, _> = members.into_iter().map(|(k, v)| (k, v.into())).collect();
    Encoded::encode(&members).ok()
}

impl Parts {
    /// The challenge; `None` if its request or opaque is too long.
    #[must_use]
    pub fn challenge(self) -> Option<Challenge> {
        Some(Challenge {
            id: self.id,
            realm: self.realm,
            method: self.method,
            intent: self.intent,
            request: object(self.request)?,
            expires: self.expires.map(Timestamp::from_unix_millis),
            digest: self.digest.as_ref().map(|body| BodyDigest::of(body)),
            description: self.description,
            opaque: match self.opaque {
                Some(members) => Some(object(members)?),
                None => None,
            },
            header: self
                .header
                .then_some(CredentialHeader::PaymentAuthorization),
        })
    }
}

/// A challenge that was read can be written, and reads back as itself in both forms.
///
/// # Panics
/// If that is not so.
pub fn round_trips(challenge: &Challenge) {
    let header = challenge.to_header().expect("what was read can be written");
    assert!(header.bytes().all(|b| (b' '..=b'~').contains(&b)));
    let again = Challenge::parse_one(&header).expect("what was written can be read");
    same(challenge, &again);
    let json = serde_json::to_string(challenge).expect("what was read can be written");
    let again = serde_json::from_str(&json).expect("what was written can be read");
    same(challenge, &again);
}

/// Equal, and in the same words: two spellings of one digest are equal values.
///
/// # Panics
/// If they are not.
pub fn same(a: &Challenge, b: &Challenge) {
    assert_eq!(a, b);
    let spelling = |c: &Challenge| c.digest.as_ref().map(|d| d.as_str().to_owned());
    assert_eq!(spelling(a), spelling(b));
}

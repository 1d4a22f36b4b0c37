//! Base64url text of a JSON object, kept as it was received.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::URL_SAFE_NO_PAD};
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::{EncodeError, ParseError};

/// The longest accepted text of a `request` or `opaque`, in bytes, inclusive.
pub const MAX_ENCODED_BYTES: usize = 16 * 1024;

/// The member under which serde_json hides raw JSON: a `Value` shows what is in
/// its text instead of the object, other types show the object.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

const RAW_MEMBER: &str = "\"$serde_json::private::RawValue\":";

const RESERVED: &str = "a member has a reserved name";

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const URL_SAFE_ANY: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD_ANY: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// Decodes either alphabet, with or without padding: peers differ.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let url_safe = URL_SAFE_ANY.decode(text);
    url_safe.or_else(|_| STANDARD_ANY.decode(text)).ok()
}

/// RFC 4648 §5 without padding, the form this crate writes.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A JSON object as base64url text: a challenge's `request` or `opaque`.
///
/// The text is kept as received, since a client echoes it and the server's
/// binding covers it byte for byte (draft-httpauth-payment §Challenge Binding).
/// Equality is equality of that text.
#[derive(Clone)]
pub struct Encoded {
    text: String,
    /// What is inside, decoded once; empty for a foreign `opaque` that is not text.
    json: String,
}

impl Encoded {
    /// Encodes a value as base64url of its canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// If the value is not a JSON object, or its text would exceed [`MAX_ENCODED_BYTES`].
    pub fn encode<T: Serialize>(value: &T) -> Result<Self, EncodeError> {
        let json =
            canonical::to_string(value).map_err(|error| EncodeError::Json(error.to_string()))?;
        if !json.starts_with('{') {
            return Err(EncodeError::NotAnObject);
        }
        // Canonical text spells a member's name in one way only.
        if json.contains('$') && json.contains(RAW_MEMBER) {
            return Err(EncodeError::Json(RESERVED.to_owned()));
        }
        let text = encode_base64(json.as_bytes());
        if text.len() > MAX_ENCODED_BYTES {
            return Err(EncodeError::TooLarge {
                limit: MAX_ENCODED_BYTES,
            });
        }
        Ok(Self { text, json })
    }

    /// Takes received text over: base64url or standard alphabet, padded or not.
    ///
    /// # Errors
    /// If it exceeds [`MAX_ENCODED_BYTES`] or does not decode to a JSON object.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_as("request", text)
    }

    pub(crate) fn parse_as(field: &'static str, text: &str) -> Result<Self, ParseError> {
        let json = decode_field(field, text)?;
        let json = String::from_utf8(json)
            .map_err(|_| ParseError::invalid(field, "does not decode to UTF-8"))?;
        if serde_json::from_str::<Readable>(&json).is_err() {
            return Err(ParseError::invalid(field, "does not decode to JSON"));
        }
        if !json.trim_ascii_start().starts_with('{') {
            return Err(ParseError::invalid(
                field,
                "does not decode to a JSON object",
            ));
        }
        let text = text.to_owned();
        Ok(Self { text, json })
    }

    /// A received `opaque`: any base64 text. Only its issuer may look inside, and a
    /// client has to return it unchanged (draft-httpauth-payment §Optional Parameters).
    pub(crate) fn parse_opaque(text: &str) -> Result<Self, ParseError> {
        let json = String::from_utf8(decode_field("opaque", text)?).unwrap_or_default();
        let text = text.to_owned();
        Ok(Self { text, json })
    }

    /// The text as received or encoded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The object as a type of the caller's.
    ///
    /// # Errors
    /// If the object does not have the form of `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.json)
    }

    /// The JSON text inside, as its author wrote it.
    #[must_use]
    pub fn json(&self) -> String {
        self.json.clone()
    }

    /// The object as a JSON value; `Null` for a foreign `opaque` that is not JSON.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        self.decode().unwrap_or_default()
    }
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Encoded {}

impl Hash for Encoded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

fn decode_field(field: &'static str, text: &str) -> Result<Vec<u8>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::invalid(field, "must not be empty"));
    }
    if text.len() > MAX_ENCODED_BYTES {
        return Err(ParseError::TooLarge {
            field,
            limit: MAX_ENCODED_BYTES,
        });
    }
    decode_base64(text).ok_or(ParseError::invalid(field, "is not base64url"))
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoded").field(&self.text).finish()
    }
}

impl Serialize for Encoded {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?
            .into_encoded("request")
            .map_err(de::Error::custom)
    }
}

/// The JSON forms of an encoded object: its text, or the object itself, as MCP
/// and older peers send it.
pub(crate) enum Wire<'a> {
    Text(Cow<'a, str>),
    Object(serde_json::Value),
}

impl Wire<'_> {
    pub(crate) fn into_encoded(self, field: &'static str) -> Result<Encoded, ParseError> {
        match self {
            Self::Text(text) => Encoded::parse_as(field, &text),
            Self::Object(object) => from_object(field, &object),
        }
    }

    pub(crate) fn into_opaque(self) -> Result<Encoded, ParseError> {
        match self {
            Self::Text(text) => Encoded::parse_opaque(&text),
            Self::Object(object) => from_object("opaque", &object),
        }
    }
}

fn from_object(field: &'static str, object: &serde_json::Value) -> Result<Encoded, ParseError> {
    Encoded::encode(object).map_err(|error| match error {
        EncodeError::TooLarge { limit } => ParseError::TooLarge { field, limit },
        _ => ParseError::invalid(field, "cannot be written as canonical JSON"),
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Wire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WireVisitor;
        impl<'de> Visitor<'de> for WireVisitor {
            type Value = Wire<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64url text or a JSON object")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Wire::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Wire::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                serde_json::Map::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(|object| Wire::Object(object.into()))
            }
        }
        deserializer.deserialize_any(WireVisitor)
    }
}

/// A struct that is read from an object only: serde would also take its members
/// from an array, by position.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// Checks JSON without building it, with serde_json's limits on depth and numbers,
/// so that text accepted here can always be read as a `Value` later.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadableVisitor)
    }
}

struct ReadableVisitor;

impl<'de> Visitor<'de> for ReadableVisitor {
    type Value = Readable;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_str<E>(self, _: &str) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_unit<E>(self) -> Result<Readable, E> {
        Ok(Readable)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Readable, A::Error> {
        while seq.next_element::<Readable>()?.is_some() {}
        Ok(Readable)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Readable, A::Error> {
        while map.next_entry::<MemberName, Readable>()?.is_some() {}
        Ok(Readable)
    }
}

/// A member's name, which must mean the same to every reader.
struct MemberName;

impl<'de> Deserialize<'de> for MemberName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = MemberName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<MemberName, E> {
                if name == RAW_VALUE {
                    return Err(E::custom(RESERVED));
                }
                Ok(MemberName)
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

//! JSON values without serde_json's reserved member.
//!
//! With its feature `raw_value`, which the workspace needs, serde_json puts what is in the text of
//! `{"$serde_json::private::RawValue": "…"}` in the object's place, and counts its depth anew: a
//! message of a megabyte could nest deep enough to exhaust a stack.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

const RESERVED: &str = "$serde_json::private::RawValue";

pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Plain>(text).map(|plain| plain.0)
}

struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Self)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Plain(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Plain(value))) = map.next_entry::<String, _>()? {
            if name == RESERVED {
                return Err(de::Error::custom("a member has a reserved name"));
            }
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// Protects: everything else is read as serde_json reads it.
    #[test]
    fn values_are_read_as_ever() {
        for text in [
            r#"{"a":[1,-1,1.5,1e300,18446744073709551615,true,false,null,"é\n"],"b":{},"a2":""}"#,
            r#"{"a":1,"a":2}"#,
            "[]",
            " 7 ",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()).unwrap(), expected);
        }
        for text in [
            r#"{"$serde_json::private::RawValue":"1"}"#,
            r#"{"\u0024serde_json::private::RawValue":"1"}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err());
        }
    }
}

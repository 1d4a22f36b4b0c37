//! What a call asks for, as far as its price and its challenge depend on it.

use farebox_wire::BodyDigest;
use serde_json::{Map, Value};

/// What is bought: a method, and for MCP's covered operations the tool, prompt or resource.
///
/// A challenge is bound to the [`scope`](Self::scope) and, by digest, to the [`body`](Self::body),
/// so that a challenge for one tool or one set of arguments does not pay for another. The draft
/// asks for the first and leaves the second open; a client has nothing to do for either but to send
/// the same call again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    scope: String,
    method: String,
    body: Option<String>,
    digest: Option<BodyDigest>,
}

impl Operation {
    /// The operation of a call. For `tools/call` and `prompts/get` the body is `name` and
    /// `arguments`, for `resources/read` it is `uri`, for any other method it is all of `params`;
    /// never `_meta`, and nothing that may change between rounds of one call.
    #[must_use]
    pub fn new(method: &str, params: Option<&Value>) -> Self {
        let (named, members): (_, &[&str]) = match method {
            "tools/call" | "prompts/get" => (Some("name"), &["arguments", "name"]),
            "resources/read" => (Some("uri"), &["uri"]),
            _ => (None, &[]),
        };
        let member = |name: &str| params.and_then(|params| params.get(name));
        let scope = match named.and_then(member).and_then(Value::as_str) {
            Some(name) => format!("{method} {name}"),
            None => method.to_owned(),
        };
        let bought = match (named, params) {
            (Some(_), _) => {
                let members = members.iter().filter_map(|name| {
                    let value = member(name).filter(|value| !value.is_null())?;
                    Some(((*name).to_owned(), value.clone()))
                });
                Some(Value::Object(members.collect()))
            }
            (None, Some(Value::Object(params))) => {
                let members = params.iter().filter(|(name, _)| *name != "_meta");
                let members = members.map(|(name, value)| (name.clone(), value.clone()));
                Some(Value::Object(members.collect::<Map<_, _>>()))
            }
            (None, params) => params.cloned(),
        };
        let empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
        // JSON values have a canonical form, RFC 8785.
        let body = bought
            .filter(|value| !empty(value))
            .and_then(|value| serde_json_canonicalizer::to_string(&value).ok());
        let digest = body.as_ref().map(|body| BodyDigest::of(body.as_bytes()));
        Self {
            scope,
            method: method.to_owned(),
            body,
            digest,
        }
    }

    /// `tools/call web-search`, `resources/read file:///a`, `prompts/get greet`, or the method.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The method alone.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// What is bought, as canonical JSON; `None` for a call without parameters.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// The digest of the body.
    #[must_use]
    pub fn digest(&self) -> Option<&BodyDigest> {
        self.digest.as_ref()
    }
}

/// Whether a result is what was bought: not one of a tool that says `isError`, nor one that asks for
/// more input first.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn is_delivery(result: &Value) -> bool {
    let failed = result.get("isError").and_then(Value::as_bool) == Some(true);
    let incomplete = result.get("resultType").and_then(Value::as_str) == Some("input_required");
    !failed && !incomplete
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::*;

    /// Protects: one tool's challenge is not another's, and neither are its arguments'.
    #[test]
    fn what_is_bought_is_told_apart() {
        let call = |params: Value| Operation::new("tools/call", Some(&params));
        let joke = call(json!({"name": "joke", "arguments": {"about": "a", "n": 1}}));
        assert_eq!(joke.scope(), "tools/call joke");
        let same = call(json!({
            "arguments": {"n": 1.0, "about": "a"}, "name": "joke", "_meta": {"progressToken": 7},
            "requestState": "s", "inputResponses": {},
        }));
        assert_eq!(joke, same);
        for other in [
            json!({"name": "poem", "arguments": {"about": "a", "n": 1}}),
            json!({"name": "joke", "arguments": {"about": "b", "n": 1}}),
            json!({"name": "joke"}),
        ] {
            assert_ne!(joke.digest(), call(other).digest());
        }
        let read = Operation::new("resources/read", Some(&json!({"uri": "file:///a b"})));
        assert_eq!(read.scope(), "resources/read file:///a b");
    }

    /// Protects: any JSON-RPC method can be priced, with positional parameters or none.
    #[test]
    fn generic_methods_bind_all_their_parameters() {
        let of = |params: Option<Value>| Operation::new("eth_call", params.as_ref());
        let latest = of(Some(json!(["latest", false])));
        assert_eq!(
            (latest.scope(), latest.body()),
            ("eth_call", Some(r#"["latest",false]"#))
        );
        assert_ne!(latest.digest(), of(Some(json!(["latest", true]))).digest());
        assert_eq!(of(None).digest(), None);
        assert_eq!(of(Some(json!({"_meta": {"x": 1}}))).digest(), None);
        assert_eq!(of(Some(json!({"name": "x"}))).scope(), "eth_call");
    }
}

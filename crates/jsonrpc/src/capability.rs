//! Saying in advance what can be paid with: `{"methods": {"tempo": {"intents": ["charge"]}}}`.
//!
//! It is a hint on both sides. A server that hears nothing offers everything, and a client pays a
//! challenge it can pay whatever was advertised.

use farebox_wire::{AcceptPayment, OfferId};
use serde_json::{Map, Value, json};

/// The member of MCP's `capabilities.experimental` that holds [`capability`].
pub const CAPABILITY: &str = "payment";

/// The capability object of these offers: each method with the array of its intents.
#[must_use]
pub fn capability(offers: impl IntoIterator<Item = OfferId>) -> Map<String, Value> {
    let mut methods = Map::new();
    for offer in offers {
        let method = methods
            .entry(offer.method)
            .or_insert_with(|| json!({ "intents": [] }));
        if let Some(Value::Array(intents)) = method.get_mut("intents") {
            let intent = Value::from(offer.intent.as_ref());
            if !intents.contains(&intent) {
                intents.push(intent);
            }
        }
    }
    Map::from_iter([("methods".to_owned(), methods.into())])
}

/// A peer's capability object as a preference, for a server that leaves out what its client cannot
/// pay. `None` where it says nothing usable.
#[must_use]
pub fn accept(capability: &Map<String, Value>) -> Option<AcceptPayment> {
    let methods = capability.get("methods")?.as_object()?;
    let mut ranges = Vec::new();
    for (method, about) in methods {
        let intents = about.get("intents").and_then(Value::as_array);
        for intent in intents.into_iter().flatten().filter_map(Value::as_str) {
            // One that is nothing does not hide the others.
            ranges.extend(format!("{method}/{intent}").parse::<OfferId>());
        }
    }
    let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    AcceptPayment::from_ranges(ranges.iter().map(|range| (range.as_str(), 1000))).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// Protects: every method says its intents, each once, and a peer reads what was meant.
    #[test]
    fn what_is_said_is_understood() {
        let offers = [
            OfferId::parts("tempo", "charge"),
            OfferId::parts("tempo", "session"),
            OfferId::parts("tempo", "charge"),
            OfferId::parts("stripe", "charge"),
        ];
        let said = capability(offers.clone());
        let expected = json!({"methods": {
            "tempo": {"intents": ["charge", "session"]}, "stripe": {"intents": ["charge"]},
        }});
        assert_eq!(Value::from(said.clone()), expected);
        let heard = accept(&said).unwrap();
        for offer in &offers {
            assert_eq!(heard.quality(offer), 1000);
        }
        assert_eq!(heard.quality(&OfferId::parts("lightning", "charge")), 0);
        assert!(accept(&Map::new()).is_none());
    }
}

//! Edge cases that no vector shows; numbers are those of `spec/edge-cases.toml`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use farebox_wire::{Challenge, ParseError, Receipt};

const REST: &str = r#"realm="r", method="m", intent="c", request="e30""#;

/// 14: what opens a challenge is a scheme and not its name somewhere.
#[test]
fn a_parameter_named_like_the_scheme_is_a_parameter() {
    for header in [
        r#"Bearer Payment="x", realm="y""#.to_owned(),
        format!(r#"Bearer Payment = x, id="i", {REST}"#),
        format!("Bearer error=1, Payment=\"id\", id=\"i\", {REST}"),
        format!(r#"Payment="x", id="i", {REST}"#),
    ] {
        assert!(
            Challenge::parse_all([header.as_bytes()]).is_empty(),
            "{header}"
        );
    }
    let header = format!(r#"Payment Payment="x", id="i", {REST}"#);
    assert_eq!(Challenge::parse_one(&header).unwrap().id, "i");
    let twice = format!(r#"Payment Payment="x", payment="y", id="i", {REST}"#);
    assert!(matches!(
        Challenge::parse_one(&twice),
        Err(ParseError::Duplicate(_))
    ));
}

/// 18: a line break would end the header that the value is written into.
#[test]
fn line_breaks_are_refused_however_they_are_written() {
    for (written, in_json) in [
        ("\r", r"\r"),
        ("\n", r"\n"),
        ("\\\n", r"\r\n"),
        (r"\u000d", r"\u000d"),
        (r"\u000a", r"\u000A"),
        (r"\u000D\u000A", r"\u000d\u000a"),
    ] {
        let value = format!("a{written}Set-Cookie: b");
        for header in [
            format!(r#"Payment id="{value}", {REST}"#),
            format!(r#"Payment id="i", {REST}, description="{value}""#),
            format!(r#"Payment id="i", {REST}"#).replace("\"r\"", &format!("\"{value}\"")),
        ] {
            assert!(Challenge::parse_one(&header).is_err(), "{header}");
        }
        for member in ["id", "realm", "description"] {
            let mut members = vec![
                ("id", "i"),
                ("realm", "r"),
                ("method", "m"),
                ("intent", "c"),
                ("request", "e30"),
            ];
            members.retain(|(name, _)| *name != member);
            let members = members.iter().map(|(n, v)| format!(r#""{n}":"{v}","#));
            let members: String = members.collect();
            let json = format!(r#"{{{members}"{member}":"a{in_json}b"}}"#);
            let read = serde_json::from_str::<Challenge>(&json);
            assert!(read.is_err(), "{json}");
        }
    }
}

/// 24: who reads a response has to know which of its headers is broken.
#[test]
fn broken_receipts_are_not_called_challenges() {
    // Nothing, no base64, an array, and no method.
    for text in ["", "!", "W10", "eyJzdGF0dXMiOiJzdWNjZXNzIn0"] {
        let field = match Receipt::parse(text).unwrap_err() {
            ParseError::Invalid { field, .. } | ParseError::Missing(field) => field,
            other => panic!("{other}"),
        };
        assert!(
            ["receipt", "method"].contains(&field),
            "{text:?} is blamed on {field}"
        );
    }
}

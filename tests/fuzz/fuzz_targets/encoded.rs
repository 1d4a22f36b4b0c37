//! Base64url of JSON objects: as it is, and as the JSON inside; canonical JSON against the
//! general serializer.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use farebox_fuzz::{Tree, base64url, choose};
use farebox_wire::{Encoded, MAX_ENCODED_BYTES};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = choose(data, 3) else {
        return;
    };
    if how == 2 {
        return canonical(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let parsed = match how {
        0 => Encoded::parse(text),
        _ => Encoded::parse(&base64url(rest)),
    };
    if how == 1 {
        // One opinion of what a JSON object is, except for a name that serde_json keeps for itself.
        let object = serde_json::from_slice::<Map<String, Value>>(rest).is_ok();
        let reserved = text.contains("$serde_json") || text.contains('\\');
        let expected = object && base64url(rest).len() <= MAX_ENCODED_BYTES;
        assert!(parsed.is_ok() == expected || (expected && reserved));
    }
    let Ok(encoded) = parsed else { return };
    let value = encoded.value();
    assert!(value.is_object());
    let again = Encoded::parse(encoded.as_str()).expect("its own text");
    assert_eq!(encoded, again);
    let Ok(canonical) = Encoded::encode(&value) else {
        return;
    };
    let general = serde_json_canonicalizer::to_string(&value).expect("a value is JSON");
    assert_eq!(canonical.json(), general);
    let again = Encoded::encode(&canonical.value()).expect("no longer than before");
    assert_eq!(again, canonical);
});

/// Whatever order members are written in.
fn canonical(data: &[u8]) {
    let Ok(tree) = Tree::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let Ok(encoded) = Encoded::encode(&tree) else {
        return;
    };
    let general = serde_json_canonicalizer::to_string(&tree).expect("a tree is JSON");
    assert_eq!(encoded.json(), general);
}

//! Body digests: spelling is kept, colons do not matter, and a digest is of one body.
#![no_main]

use farebox_wire::BodyDigest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let own = BodyDigest::of(data);
    assert!(own.matches(data));
    let bare = BodyDigest::parse(&own.as_str().replace(':', "")).expect("without colons");
    assert!(bare == own && bare.matches(data));
    let mut other = data.to_vec();
    other.push(0);
    assert!(!own.matches(&other));
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(digest) = BodyDigest::parse(text)
    {
        assert_eq!(digest.as_str(), text);
        assert!(!text.contains(['|', '"', '\\', '\r', '\n']));
        assert_eq!(BodyDigest::parse(digest.as_str()).as_ref(), Ok(&digest));
    }
});

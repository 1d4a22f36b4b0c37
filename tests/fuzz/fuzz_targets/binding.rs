//! The challenge id: it verifies for exactly the fields that it was made for, whatever they hold
//! and wherever a `|` stands in them.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use farebox_fuzz::Parts;
use farebox_wire::{Challenge, SecretRing};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    issued: Parts,
    /// The challenge that is presented under the issued one's id.
    other: Parts,
    /// Which fields of `other` are the issued ones.
    kept: u16,
    /// Where text of one slot is moved over its border to the next one.
    moved: Option<u8>,
}

static RING: LazyLock<SecretRing> = LazyLock::new(|| {
    SecretRing::new(["a secret of 32 bytes, for fuzzing".into()]).expect("long enough")
});

/// Every bound field as it stands on the wire.
fn bound(c: &Challenge) -> [Option<&str>; 8] {
    [
        Some(&c.realm),
        Some(&c.method),
        Some(&c.intent),
        Some(c.request.as_str()),
        c.expires.as_ref().map(|at| at.as_str()),
        c.digest.as_ref().map(|digest| digest.as_str()),
        c.opaque.as_ref().map(|opaque| opaque.as_str()),
        c.header.map(|header| header.as_str()),
    ]
}

fuzz_target!(|input: Input| {
    let Input {
        issued,
        mut other,
        kept,
        moved,
    } = input;
    let keep = |bit: u16| kept >> bit & 1 == 1;
    if keep(0) {
        other.realm.clone_from(&issued.realm)
    }
    if keep(1) {
        other.method.clone_from(&issued.method)
    }
    if keep(2) {
        other.intent.clone_from(&issued.intent)
    }
    if keep(3) {
        other.request.clone_from(&issued.request)
    }
    if keep(4) {
        other.expires = issued.expires
    }
    if keep(5) {
        other.digest = issued.digest
    }
    if keep(6) {
        other.opaque.clone_from(&issued.opaque)
    }
    if keep(7) {
        other.header = issued.header
    }
    if let Some(cut) = moved {
        // The same bytes between the same separators, cut elsewhere.
        let joined = format!("{}|{}|{}", issued.realm, issued.method, issued.intent);
        let bars: Vec<usize> = joined.match_indices('|').map(|(at, _)| at).collect();
        let first = usize::from(cut >> 4) % (bars.len() - 1);
        let second = first + 1 + usize::from(cut & 15) % (bars.len() - first - 1);
        other.realm = joined[..bars[first]].to_owned();
        other.method = joined[bars[first] + 1..bars[second]].to_owned();
        other.intent = joined[bars[second] + 1..].to_owned();
    }
    let (Some(mut issued), Some(mut other)) = (issued.challenge(), other.challenge()) else {
        return;
    };
    RING.sign(&mut issued);
    if issued.check().is_ok() {
        assert!(RING.verify(&issued));
    }
    other.id.clone_from(&issued.id);
    let same = bound(&issued) == bound(&other);
    assert_eq!(RING.verify(&other), same && RING.verify(&issued));
    RING.sign(&mut other);
    assert!(same == (other.id == issued.id) || !RING.verify(&other) || !RING.verify(&issued));
});

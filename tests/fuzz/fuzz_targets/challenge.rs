//! Challenges from arbitrary fields: what `check` allows is written and read back as it was, and
//! what it refuses is never written.
#![no_main]

use farebox_fuzz::{Parts, round_trips};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: Parts| {
    let Some(challenge) = parts.challenge() else {
        return;
    };
    if challenge.check().is_ok() {
        round_trips(&challenge);
    } else {
        assert!(challenge.to_header().is_err());
        assert!(serde_json::to_string(&challenge).is_err());
    }
});

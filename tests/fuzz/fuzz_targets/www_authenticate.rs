//! `WWW-Authenticate`: any number of values, one a line.
#![no_main]

use farebox_wire::Challenge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for challenge in Challenge::parse_all(data.split(|&b| b == b'\n'))
        .into_iter()
        .flatten()
    {
        farebox_fuzz::round_trips(&challenge);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(challenge) = Challenge::parse_one(text)
    {
        farebox_fuzz::round_trips(&challenge);
    }
    // A malformed header in front does not hide a good one behind it.
    let good = "Payment id=\"x\", realm=\"r\", method=\"m\", intent=\"i\", request=\"e30\"";
    let both = Challenge::parse_all([data, good.as_bytes()]);
    assert!(both.last().is_some_and(Result::is_ok));
});

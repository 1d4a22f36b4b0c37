//! Timestamps against a calendar that counts days.
#![no_main]

use std::time::Duration;

use farebox_fuzz::model::unix_millis;
use farebox_wire::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let read = Timestamp::parse(text).ok();
        assert_eq!(
            read.as_ref().map(Timestamp::unix_millis),
            unix_millis(text),
            "{text}"
        );
        assert!(read.is_none_or(|at| at.as_str() == text));
    }
    let Some((number, rest)) = data.split_first_chunk() else {
        return;
    };
    let at = Timestamp::from_unix_millis(i64::from_le_bytes(*number));
    assert_eq!(Timestamp::parse(at.as_str()).as_ref(), Ok(&at));
    assert_eq!(unix_millis(at.as_str()), Some(at.unix_millis()));
    let Some((millis, _)) = rest.split_first_chunk() else {
        return;
    };
    let later = at.plus(Duration::from_millis(u64::from_le_bytes(*millis)));
    assert!(later >= at && Timestamp::parse(later.as_str()).as_ref() == Ok(&later));
});

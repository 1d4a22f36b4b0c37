//! `Payment-Receipt`: as it is, and as the JSON inside.
#![no_main]

use farebox_fuzz::{base64url, choose};
use farebox_wire::Receipt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = choose(data, 2) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let receipt = match how {
        0 => Receipt::parse(text),
        _ => Receipt::parse(&base64url(rest)),
    };
    let Ok(receipt) = receipt else { return };
    let header = receipt.to_header().expect("what was read can be written");
    let again = Receipt::parse(&header).expect("what was written can be read");
    // Canonical JSON has one form of a number, so extra members may change once, and only once.
    assert_eq!(
        (&receipt.method, &receipt.timestamp, &receipt.reference),
        (&again.method, &again.timestamp, &again.reference)
    );
    assert!(receipt.extra.keys().eq(again.extra.keys()));
    assert_eq!(again.to_header().as_ref(), Ok(&header));
});

//! Amounts against a model that computes with strings.
#![no_main]

use farebox_fuzz::model::base_units;
use farebox_wire::Amount;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u128, u128, &str)| {
    let (decimals, a, b, text) = input;
    let read = Amount::from_decimal(text, decimals).ok();
    assert_eq!(
        read.map(|amount| amount.to_string()),
        base_units(text, decimals)
    );
    let plain = Amount::parse(text).ok().map(|amount| amount.to_string());
    assert_eq!(plain, base_units(text, 0).filter(|digits| digits == text));
    for amount in read.into_iter().chain([Amount::new(a)]) {
        let human = amount.to_decimal(decimals);
        assert_eq!(
            Amount::from_decimal(&human, decimals),
            Ok(amount),
            "{human}"
        );
        assert_eq!(Amount::parse(&amount.to_string()), Ok(amount));
    }
    let (x, y) = (Amount::new(a), Amount::new(b));
    assert_eq!(x.checked_add(y).map(Amount::get), a.checked_add(b));
    assert_eq!(x.checked_sub(y).map(Amount::get), a.checked_sub(b));
});

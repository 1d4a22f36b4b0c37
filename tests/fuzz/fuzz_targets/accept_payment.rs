//! `Accept-Payment`: text to and fro, and ranking against a naive model.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use farebox_fuzz::choose;
use farebox_wire::{AcceptPayment, OfferId};
use libfuzzer_sys::fuzz_target;

const METHODS: [&str; 4] = ["*", "tempo", "stripe", "a:b_1-c"];
const INTENTS: [&str; 4] = ["*", "charge", "Charge", "session"];

#[derive(Arbitrary, Debug)]
struct Ranking {
    ranges: Vec<(u8, u8, u16)>,
    offers: Vec<(u8, u8)>,
}

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = choose(data, 2) else {
        return;
    };
    match how {
        0 => text(rest),
        _ => ranking(rest),
    }
});

fn text(data: &[u8]) {
    let Ok(accept) = AcceptPayment::parse_bytes(data) else {
        return;
    };
    let written = accept.to_string();
    assert_eq!(AcceptPayment::parse(&written), Ok(accept));
}

fn ranking(data: &[u8]) {
    let Ok(Ranking { ranges, offers }) = Ranking::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let pick = |names: [&'static str; 4], i: u8| names[usize::from(i) % 4];
    let ranges: Vec<(&str, &str, u16)> = ranges
        .into_iter()
        .map(|(m, i, q)| (pick(METHODS, m), pick(INTENTS, i), q % 1001))
        .collect();
    let texts: Vec<String> = ranges.iter().map(|(m, i, _)| format!("{m}/{i}")).collect();
    let given = texts
        .iter()
        .zip(&ranges)
        .map(|(text, (_, _, q))| (text.as_str(), *q));
    let Ok(accept) = AcceptPayment::from_ranges(given) else {
        assert!(ranges.is_empty());
        return;
    };
    assert_eq!(
        AcceptPayment::parse(&accept.to_string()).as_ref(),
        Ok(&accept)
    );
    let offers: Vec<(usize, &str, &str)> = offers
        .into_iter()
        .filter(|(m, i)| m % 4 > 0 && i % 4 > 0)
        .enumerate()
        .map(|(at, (m, i))| (at, pick(METHODS, m), pick(INTENTS, i)))
        .collect();
    // Exact beats method/*, which beats */intent, which beats */*; then the first one counts.
    let quality = |method: &str, intent: &str| {
        let patterns = [(method, intent), (method, "*"), ("*", intent), ("*", "*")];
        let found = patterns
            .iter()
            .find_map(|p| ranges.iter().find(|r| (r.0, r.1) == *p));
        found.map_or(0, |range| range.2)
    };
    let mut weighed: Vec<_> = offers
        .iter()
        .map(|o| (1000 - quality(o.1, o.2), o.0))
        .collect();
    weighed.sort_unstable();
    let wanted = weighed.iter().filter(|(under, _)| *under < 1000);
    let mut expected: Vec<_> = wanted.map(|(_, at)| offers[*at]).collect();
    if expected.is_empty() {
        expected.clone_from(&offers);
    }
    assert_eq!(
        accept.rank(offers, |(_, m, i)| OfferId::parts(*m, *i)),
        expected
    );
}

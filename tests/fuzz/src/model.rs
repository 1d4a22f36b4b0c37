//! The same rules written naively, for the parsers to agree with.

/// The digits of `text` as base units of a currency with `decimals` digits after the point,
/// without leading zeros. `None` where it is no amount of that currency.
#[must_use]
pub fn base_units(text: &str, decimals: u8) -> Option<String> {
    let (whole, fraction) = match text.find('.') {
        Some(point) => (&text[..point], Some(&text[point + 1..])),
        None => (text, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !fraction.is_none_or(digits) || (whole != "0" && whole.starts_with('0')) {
        return None;
    }
    let mut all = whole.to_owned() + fraction.unwrap_or("");
    let given = fraction.map_or(0, str::len);
    if given > usize::from(decimals) {
        return None;
    }
    all.push_str(&"0".repeat(usize::from(decimals) - given));
    let bare = all.trim_start_matches('0');
    let bare = if bare.is_empty() { "0" } else { bare };
    let max = u128::MAX.to_string();
    let fits = bare.len() < max.len() || (bare.len() == max.len() && bare <= max.as_str());
    fits.then(|| bare.to_owned())
}

/// Unix milliseconds of an RFC 3339 date-time, rounded down.
#[must_use]
pub fn unix_millis(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, len: usize| -> Option<i64> {
        let digits = bytes.get(from..from + len)?;
        let all = digits.iter().all(u8::is_ascii_digit);
        all.then(|| digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|b| any.contains(b));
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if is(at, b".") {
        let digits = bytes[at + 1..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if digits == 0 {
            return None;
        }
        for place in 0..3 {
            let digit = if place < digits {
                number(at + 1 + place, 1)?
            } else {
                0
            };
            millis = millis * 10 + digit;
        }
        at += 1 + digits;
    }
    let offset = if is(at, b"Zz") {
        at += 1;
        0
    } else {
        let sign = if is(at, b"-") {
            -1
        } else if is(at, b"+") {
            1
        } else {
            return None;
        };
        let (h, m) = (number(at + 1, 2)?, number(at + 4, 2)?);
        if !is(at + 3, b":") || h > 23 || m > 59 {
            return None;
        }
        at += 6;
        sign * (h * 60 + m)
    };
    if at != bytes.len() || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if day < 1 || day > days_in(year, month) {
        return None;
    }
    let leaps = (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let mut days = year * 365 + leaps;
    for m in 1..month {
        days += days_in(year, m);
    }
    days += day - 1 - 719_528; // from 0000-01-01 to 1970-01-01
    let minutes = days * 1440 + hour * 60 + minute - offset;
    if second == 60 {
        // A leap second ends a month in UTC, and counts as the end of the second before it.
        let first_of_month = minutes_are_the_last_of_a_month(minutes);
        return first_of_month.then_some(minutes * 60_000 + 59_999);
    }
    Some((minutes * 60 + second) * 1000 + millis)
}

fn leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn minutes_are_the_last_of_a_month(minutes: i64) -> bool {
    let next = minutes + 1;
    if next.rem_euclid(1440) != 0 {
        return false;
    }
    let mut day = next.div_euclid(1440) + 719_528;
    let mut year = 0;
    while year >= -1 && day < 0 {
        year -= 1;
        day += if leap(year) { 366 } else { 365 };
    }
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    for month in 1..=12 {
        if day == 0 {
            return true;
        }
        day -= days_in(year, month);
    }
    false
}

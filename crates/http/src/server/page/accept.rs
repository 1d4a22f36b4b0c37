//! Whether whoever asks would rather read a page than a problem.

use http::{HeaderMap, header::ACCEPT};
use mediatype::{MediaType, MediaTypeList, Name, ReadParams as _, names};

/// Whether `Accept` prefers HTML to JSON (RFC 9110, 12.5.1). HTML must be named: a client that takes
/// anything is no browser, and gets the problem that programs read. So does one that likes both
/// alike.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    // What most programs send needs no reading.
    let names_text = |value: &[u8]| value.windows(5).any(|w| w.eq_ignore_ascii_case(b"text/"));
    let mut values = headers.get_all(ACCEPT).iter();
    if !values.any(|value| names_text(value.as_bytes())) {
        return false;
    }
    let mut html = Best::default();
    let (mut problem, mut json) = (Best::default(), Best::default());
    for value in headers.get_all(ACCEPT) {
        let Ok(text) = value.to_str() else { continue };
        for range in MediaTypeList::new(text).flatten() {
            let quality = quality(&range);
            let rank = |subtypes: &[&str], ty: Name<'_>| specificity(&range, ty, subtypes);
            html.see(rank(&["html"], names::TEXT), quality);
            problem.see(rank(&["problem+json"], names::APPLICATION), quality);
            json.see(rank(&["json"], names::APPLICATION), quality);
        }
    }
    html.rank > ANY && html.quality > 0 && html.quality > problem.quality.max(json.quality)
}

/// What the most specific range says about a type.
#[derive(Default)]
struct Best {
    rank: u8,
    /// In thousandths.
    quality: u16,
}

impl Best {
    fn see(&mut self, rank: u8, quality: u16) {
        if rank > self.rank {
            *self = Self { rank, quality };
        }
    }
}

/// The rank of `*/*`.
const ANY: u8 = 1;

/// How closely a range names a type: not at all (0), as anything, by its first half, or in full.
fn specificity(range: &MediaType<'_>, ty: Name<'_>, subtypes: &[&str]) -> u8 {
    let subtype = match range.suffix {
        Some(suffix) => format!("{}+{suffix}", range.subty),
        None => range.subty.to_string(),
    };
    if range.ty == names::_STAR && subtype == "*" {
        return ANY;
    }
    match range.ty == ty {
        true if subtypes
            .iter()
            .any(|name| subtype.eq_ignore_ascii_case(name)) =>
        {
            3
        }
        true if subtype == "*" => 2,
        _ => 0,
    }
}

fn quality(range: &MediaType<'_>) -> u16 {
    let Some(q) = range.get_param(names::Q) else {
        return 1000;
    };
    let (whole, part) = q.as_str().split_once('.').unwrap_or((q.as_str(), ""));
    let part = format!("{part:0<3}");
    match (whole, part.get(..3).map(str::parse::<u16>)) {
        ("0", Some(Ok(thousandths))) => thousandths,
        ("1", _) => 1000,
        // What cannot be read is not asked for.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Protects: browsers get the page, and every program keeps what it had.
    #[test]
    fn a_page_is_for_who_asks_for_one() {
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,\
                      image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";
        let own = "application/problem+json, text/html;q=0.9, */*;q=0.8";
        for (accept, page) in [
            (&[chrome][..], true),
            (&["text/html"], true),
            (&["TEXT/HTML"], true),
            (&["text/*"], true),
            (&["text/html;q=0.9, application/json;q=0.8"], true),
            (&["application/json;q=0.8", "text/html"], true),
            (&["text/html;level=1, */*;q=0.5"], true),
            (&[], false),
            (&["*/*"], false),
            (&["application/json, text/plain, */*"], false),
            (&["text/html, application/json"], false),
            (&["text/html;q=0.5, application/json"], false),
            (&["text/html;q=0.5, application/problem+json;q=0.6"], false),
            (&["text/html;q=0.5, application/*"], false),
            (&["text/html;q=0, */*"], false),
            (&["text/html;q=0"], false),
            (&["text/html;q=2"], false),
            (&["text/*;q=0, */*"], false),
            (&["text/html;q=0, text/*"], false),
            (&["text"], false),
            (&[own], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(prefers_html(&headers), page, "{accept:?}");
        }
    }
}

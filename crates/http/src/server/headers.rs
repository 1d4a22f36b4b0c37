//! Reading credentials and preferences out of request headers, and merging cache directives.

use farebox_core::wire::{AcceptPayment, Credential, CredentialError};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, Entry},
};

use crate::ACCEPT_PAYMENT;

/// What a request presents.
#[derive(Debug)]
pub(crate) enum Presented {
    /// No `Payment` credential.
    Nothing,
    /// One.
    One(Box<Credential>),
    /// One that cannot be read; the text says why.
    Malformed(String),
    /// Several.
    Several,
}

/// Takes the `Payment` credentials out of `name`, so that nothing downstream can log them, and
/// leaves other schemes there.
pub(crate) fn take_credential(headers: &mut HeaderMap, name: &HeaderName) -> Presented {
    let Entry::Occupied(entry) = headers.entry(name) else {
        return Presented::Nothing;
    };
    let mut presented = Presented::Nothing;
    let mut rest = Vec::new();
    for value in entry.remove_entry_mult().1 {
        let found = match Credential::parse(value.as_bytes()) {
            Ok(None) => {
                rest.push(value);
                continue;
            }
            Ok(Some(credential)) => Presented::One(Box::new(credential)),
            Err(CredentialError::Multiple) => Presented::Several,
            Err(CredentialError::TooLarge) if !starts_with_payment(value.as_bytes()) => {
                rest.push(value);
                continue;
            }
            Err(error) => Presented::Malformed(error.to_string()),
        };
        rest.extend(without_payment(&value));
        presented = match presented {
            Presented::Nothing => found,
            _ => Presented::Several,
        };
    }
    for value in rest {
        headers.append(name, value);
    }
    presented
}

fn starts_with_payment(element: &[u8]) -> bool {
    let element = element.trim_ascii_start();
    let Some((scheme, rest)) = element.split_at_checked(b"Payment".len()) else {
        return false;
    };
    let ends = rest.first().is_none_or(|b| matches!(b, b' ' | b'\t'));
    scheme.eq_ignore_ascii_case(b"Payment") && ends
}

/// What is left of a list of credentials, or `None` if nothing is.
fn without_payment(value: &HeaderValue) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = list(value.as_bytes())
        .into_iter()
        .filter(|e| !starts_with_payment(e))
        .collect();
    if kept.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&kept.join(&b", "[..])).ok()
}

/// The elements of a comma-separated list, trimmed, empty ones left out; commas in quotes do not
/// separate.
fn list(value: &[u8]) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(|b| {
            let separates = *b == b',' && !quoted;
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            separates
        })
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
        .collect()
}

/// The elements of a header's lists.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    let values = headers.get_all(name).iter();
    values.flat_map(|value| list(value.as_bytes())).collect()
}

/// The payer's preferences. Malformed ones count as absent.
pub(crate) fn accept(headers: &HeaderMap) -> Option<AcceptPayment> {
    let values: Vec<&[u8]> = headers
        .get_all(ACCEPT_PAYMENT)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if values.is_empty() {
        return None;
    }
    AcceptPayment::parse_bytes(&values.join(&b", "[..])).ok()
}

/// Whether shared caches take their orders from this header and not from `Cache-Control` (RFC 9213).
fn is_targeted(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "surrogate-control"
        || name == "cdn-cache-control"
        || name.ends_with("-cdn-cache-control")
}

/// Makes a response's cache directives `private`, keeping what else they say. Those that are meant
/// for certain shared caches go.
pub(crate) fn make_private(headers: &mut HeaderMap) {
    let targeted: Vec<_> = headers
        .keys()
        .filter(|name| is_targeted(name))
        .cloned()
        .collect();
    for name in targeted {
        headers.remove(name);
    }
    let entry = match headers.entry(CACHE_CONTROL) {
        Entry::Occupied(entry) => entry,
        Entry::Vacant(entry) => {
            entry.insert(HeaderValue::from_static("private"));
            return;
        }
    };
    let values: Vec<HeaderValue> = entry.iter().cloned().collect();
    let named = |element: &[u8], name: &str| element.eq_ignore_ascii_case(name.as_bytes());
    let mut directives: Vec<&[u8]> = vec![b"private"];
    for value in &values {
        // `private="field"` would restrict only that field, so the bare directive goes first.
        directives.extend(
            list(value.as_bytes())
                .into_iter()
                .filter(|element| !named(element, "public") && !named(element, "private")),
        );
    }
    let merged = HeaderValue::from_bytes(&directives.join(&b", "[..]));
    headers.insert(
        CACHE_CONTROL,
        merged.unwrap_or(HeaderValue::from_static("private")),
    );
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// Protects: no trace of a payment credential is left, and nothing else is touched.
    #[test]
    fn only_payment_credentials_are_taken() {
        for (given, kept) in [
            (&["Bearer x"][..], &["Bearer x"][..]),
            (&["Payment !!!"], &[]),
            (&["payment e30"], &[]),
            (
                &["Bearer x", "PAYMENT e30", "Basic eA=="],
                &["Bearer x", "Basic eA=="],
            ),
            (&["Bearer x, Payment e30"], &["Bearer x"]),
            (
                &[r#"Digest a="1, Payment e30""#],
                &[r#"Digest a="1, Payment e30""#],
            ),
            (&["Paymental x"], &["Paymental x"]),
        ] {
            let mut headers = headers(given);
            take_credential(&mut headers, &AUTHORIZATION);
            let left: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
            assert_eq!(left, kept, "{given:?}");
        }
    }

    /// Protects: an oversized header of another scheme is not ours to judge.
    #[test]
    fn oversized_headers_are_judged_by_their_scheme() {
        let long = "x".repeat(70 * 1024);
        let mut bearer = headers(&[&format!("Bearer {long}")]);
        assert!(matches!(
            take_credential(&mut bearer, &AUTHORIZATION),
            Presented::Nothing
        ));
        assert_eq!(bearer.len(), 1);
        let mut payment = headers(&[&format!("Payment {long}")]);
        assert!(matches!(
            take_credential(&mut payment, &AUTHORIZATION),
            Presented::Malformed(_)
        ));
        assert!(payment.is_empty());
    }

    /// Protects: two are two, however they are written and whatever they are worth.
    #[test]
    fn several_credentials_are_several() {
        for values in [
            &["Payment e30", "Payment e30"][..],
            &["Payment e30, payment !"],
        ] {
            let taken = take_credential(&mut headers(values), &AUTHORIZATION);
            assert!(matches!(taken, Presented::Several), "{values:?}");
        }
    }

    /// Protects: a shared cache never keeps a paid response, and other directives survive.
    #[test]
    fn cache_directives_are_merged() {
        for (given, expected) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "private, max-age=60"),
            (&["no-store"], "private, no-store"),
            (&["Private", "max-age=1"], "private, max-age=1"),
            (
                &[r#"private="a, public", must-revalidate"#],
                r#"private, private="a, public", must-revalidate"#,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            make_private(&mut headers);
            let all: Vec<_> = headers.get_all(CACHE_CONTROL).iter().collect();
            assert_eq!(all, [expected]);
        }
    }

    /// Protects: no cache is told apart that it may share a paid response.
    #[test]
    fn targeted_cache_directives_go() {
        let mut headers = HeaderMap::new();
        for name in [
            "cdn-cache-control",
            "surrogate-control",
            "cloudflare-cdn-cache-control",
        ] {
            headers.append(name, HeaderValue::from_static("max-age=60"));
            headers.append(name, HeaderValue::from_static("public"));
        }
        headers.insert("etag", HeaderValue::from_static("\"7\""));
        make_private(&mut headers);
        assert_eq!(headers[CACHE_CONTROL], "private");
        assert_eq!((headers.len(), headers.contains_key("etag")), (2, true));
    }
}

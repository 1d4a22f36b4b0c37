//! What a trusted proxy says about how a request reached it: `Forwarded` (RFC 7239) and the
//! `X-Forwarded-*` that came before it.
//!
//! Each proxy appends what it saw, so a list is believed from its right end up to and including the
//! first hop that is no trusted proxy itself; what stands left of it is anybody's words.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header::FORWARDED};

use crate::Network;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a request reached the outermost proxy that is trusted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: no proxy forwarded it.
    Nothing,
    /// Something that cannot be read, or that contradicts itself.
    Nonsense,
    /// This.
    Hop {
        /// Over TLS.
        tls: bool,
        /// The host that was asked for.
        host: Option<String>,
    },
}

/// What a peer that is one of `trusted` says. Where both spellings are there, a proxy may have
/// written one and passed the other on unread, so they must agree.
pub(super) fn said(headers: &HeaderMap, trusted: &[Network]) -> Said {
    let one = match headers.contains_key(FORWARDED) {
        true => forwarded(headers, trusted).unwrap_or(Said::Nonsense),
        false => Said::Nothing,
    };
    let legacy = [FOR, PROTO, HOST];
    let other = match legacy.iter().any(|name| headers.contains_key(name)) {
        true => x_forwarded(headers, trusted).unwrap_or(Said::Nonsense),
        false => Said::Nothing,
    };
    match (one, other) {
        (Said::Nothing, said) | (said, Said::Nothing) => said,
        (Said::Hop { tls: a, host: x }, Said::Hop { tls: b, host: y }) if a == b => Said::Hop {
            tls: a,
            host: match (x, y) {
                (Some(x), Some(y)) if !x.eq_ignore_ascii_case(&y) => None,
                (x, y) => x.or(y),
            },
        },
        _ => Said::Nonsense,
    }
}

/// The client's address, as the outermost of the `trusted` proxies names it. `None` where none does, or
/// where it is named in two ways.
pub(super) fn client(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let one = outermost(headers, trusted).and_then(|hop| hop.node);
    let hops = list(headers, FOR)?;
    let other = back(&hops, trusted).and_then(|back| hop_node(hops.iter().rev().nth(back)?));
    match (one, other) {
        (Some(Node::Address(one)), Some(Node::Address(other))) => (one == other).then_some(one),
        (Some(Node::Address(one)), None) | (None, Some(Node::Address(one))) => Some(one),
        _ => None,
    }
}

/// One element of a `Forwarded`.
#[derive(Default)]
struct Element {
    node: Option<Node>,
    proto: Option<String>,
    host: Option<String>,
}

/// Who asked a proxy.
enum Node {
    Address(IpAddr),
    /// `unknown`, or a name only the proxy understands.
    Hidden,
}

impl Node {
    fn is_one_of(&self, trusted: &[Network]) -> bool {
        match self {
            Self::Address(address) => trusted.iter().any(|network| network.contains(*address)),
            Self::Hidden => false,
        }
    }
}

fn forwarded(headers: &HeaderMap, trusted: &[Network]) -> Option<Said> {
    let hop = outermost(headers, trusted)?;
    Some(Said::Hop {
        tls: is_tls(hop.proto.as_deref()?),
        host: hop.host,
    })
}

/// What the outermost trusted proxy saw.
fn outermost(headers: &HeaderMap, trusted: &[Network]) -> Option<Element> {
    let mut elements = Vec::new();
    for value in headers.get_all(FORWARDED) {
        elements.extend(Elements(value.to_str().ok()?).parse()?);
    }
    let mut hop = None;
    for element in elements.into_iter().rev() {
        let inside = element.node.as_ref().is_some_and(|n| n.is_one_of(trusted));
        hop = Some(element);
        if !inside {
            break;
        }
    }
    hop
}

/// A reader of `for=192.0.2.1;proto=https, for="[2001:db8::1]:4711"`.
struct Elements<'a>(&'a str);

impl<'a> Elements<'a> {
    /// `None` where it is not what RFC 7239 says. Blanks around `;` are common and harmless.
    fn parse(mut self) -> Option<Vec<Element>> {
        let mut elements = Vec::new();
        let (mut element, mut empty) = (Element::default(), true);
        loop {
            self.blanks();
            match self.0.bytes().next() {
                None | Some(b',') => {
                    if !empty {
                        elements.push(std::mem::take(&mut element));
                        empty = true;
                    }
                    match self.0.get(1..) {
                        None => return Some(elements),
                        Some(rest) => self.0 = rest,
                    }
                }
                Some(b';') => self.0 = self.0.get(1..)?,
                Some(_) => {
                    self.pair(&mut element)?;
                    empty = false;
                    self.blanks();
                    if !matches!(self.0.bytes().next(), None | Some(b',' | b';')) {
                        return None;
                    }
                }
            }
        }
    }

    fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn pair(&mut self, element: &mut Element) -> Option<()> {
        let name = self.token()?;
        self.0 = self.0.strip_prefix('=')?;
        let value = match self.0.strip_prefix('"') {
            Some(rest) => self.quoted(rest)?,
            None => self.token()?.to_owned(),
        };
        // A parameter that is there twice says two things.
        if name.eq_ignore_ascii_case("for") {
            element.node.is_none().then_some(())?;
            element.node = Some(node(&value)?);
        } else if name.eq_ignore_ascii_case("proto") {
            element.proto.is_none().then_some(())?;
            element.proto = Some(value);
        } else if name.eq_ignore_ascii_case("host") {
            element.host.is_none().then_some(())?;
            element.host = Some(value);
        }
        Some(())
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let end = self.0.bytes().position(|b| !is_token(b));
        let (token, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    fn quoted(&mut self, text: &'a str) -> Option<String> {
        let mut value = String::new();
        let mut chars = text.char_indices();
        loop {
            match chars.next()? {
                (end, '"') => {
                    self.0 = text.get(end + 1..)?;
                    return Some(value);
                }
                (_, '\\') => value.push(chars.next()?.1),
                (_, other) => value.push(other),
            }
        }
    }
}

/// `192.0.2.43`, `192.0.2.43:47011`, `[2001:db8::1]:4711`, `unknown` or `_hidden`.
fn node(text: &str) -> Option<Node> {
    let name = text.split(':').next().unwrap_or(text);
    if name.eq_ignore_ascii_case("unknown") || name.starts_with('_') {
        return Some(Node::Hidden);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address = match bare {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().map(IpAddr::V6).ok(),
        None => text.parse::<std::net::Ipv4Addr>().map(IpAddr::V4).ok(),
    };
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()));
    if address.is_none() && text.starts_with('[') {
        // A port may be hidden as well.
        let (inside, port) = text.strip_prefix('[')?.split_once("]:")?;
        port.starts_with('_').then_some(())?;
        return Some(Node::Address(inside.parse().ok()?));
    }
    Some(Node::Address(address?))
}

fn is_tls(proto: &str) -> bool {
    proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss")
}

fn x_forwarded(headers: &HeaderMap, trusted: &[Network]) -> Option<Said> {
    let (hops, protos, hosts) = (
        list(headers, FOR)?,
        list(headers, PROTO)?,
        list(headers, HOST)?,
    );
    let back = back(&hops, trusted)?;
    let of_hop = |values: &[&str]| {
        match values {
            [one] => Some(*one),
            many if many.len() == hops.len() => many.iter().rev().nth(back).copied(),
            _ => None,
        }
        .map(str::to_owned)
    };
    let tls = match of_hop(&protos) {
        Some(proto) => is_tls(&proto),
        // Nobody knows which of them is whose.
        None => !protos.is_empty() && protos.iter().all(|proto| is_tls(proto)),
    };
    let host = of_hop(&hosts);
    Some(Said::Hop { tls, host })
}

/// From the right: how many hops back the first one is that is no trusted proxy.
fn back(hops: &[&str], trusted: &[Network]) -> Option<usize> {
    let mut back = 0;
    for (n, hop) in hops.iter().rev().enumerate() {
        back = n;
        if !hop_node(hop)?.is_one_of(trusted) {
            break;
        }
    }
    Some(back)
}

/// An element of `X-Forwarded-For`, where an IPv6 address may come without brackets.
fn hop_node(hop: &str) -> Option<Node> {
    let bare = hop.parse::<IpAddr>().ok().map(Node::Address);
    bare.or_else(|| node(hop))
}

/// The elements of a list, over all of its lines. `None` where one is no text.
fn list(headers: &HeaderMap, name: HeaderName) -> Option<Vec<&str>> {
    let mut elements = Vec::new();
    for value in headers.get_all(name) {
        let parts = value.to_str().ok()?.split(',').map(str::trim);
        elements.extend(parts.filter(|part| !part.is_empty()));
    }
    Some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[(&'static str, &str)]) -> Said {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|n| Network::parse(n).unwrap());
        said(&headers, &trusted)
    }

    fn hop(tls: bool, host: Option<&str>) -> Said {
        let host = host.map(str::to_owned);
        Said::Hop { tls, host }
    }

    /// Protects: of a chain, the hop counts that met the outermost trusted proxy.
    #[test]
    fn forwarded_is_believed_from_the_right() {
        for (value, expected) in [
            ("proto=https", hop(true, None)),
            ("for=192.0.2.1;proto=https;by=10.0.0.1", hop(true, None)),
            ("For=\"[2001:db8::1]:4711\";Proto=HTTPS", hop(true, None)),
            (
                "for=_secret ; proto=https; host=\"a.example:443\"",
                hop(true, Some("a.example:443")),
            ),
            ("for=192.0.2.1;proto=http", hop(false, None)),
            // The client's own words stand on the left.
            (
                "for=1.1.1.1;proto=https, for=192.0.2.1;proto=http",
                hop(false, None),
            ),
            (
                "for=1.1.1.1;proto=http;host=evil, for=192.0.2.1;proto=https;host=a",
                hop(true, Some("a")),
            ),
            // The inner proxies speak plain HTTP to each other.
            (
                "for=192.0.2.1;proto=https;host=a, for=10.0.0.9;proto=http;host=b",
                hop(true, Some("a")),
            ),
            (
                "for=192.0.2.1;proto=http, for=10.0.0.9;proto=https",
                hop(false, None),
            ),
            (
                "for=unknown;proto=http, for=\"[fd00::2]\";proto=https",
                hop(false, None),
            ),
            (
                "for=10.0.0.8;proto=https, for=10.0.0.9;proto=http",
                hop(true, None),
            ),
            // A hop without a name could be anybody.
            ("proto=https, proto=http", hop(false, None)),
            (",, proto=https ,", hop(true, None)),
            ("ext=\"a, \\\" b\";proto=https", hop(true, None)),
        ] {
            assert_eq!(told(&[("forwarded", value)]), expected, "{value}");
        }
        let lines = [
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("forwarded", "for=192.0.2.1;proto=http"),
        ];
        assert_eq!(told(&lines), hop(false, None));
    }

    /// Protects: what cannot be read is not taken for TLS.
    #[test]
    fn malformed_forwarded_is_nonsense() {
        for value in [
            "",
            "https",
            "proto",
            "proto=",
            "proto = https",
            "proto=https;proto=http",
            "for=192.0.2.1",
            "proto=\"https",
            "proto=https x",
            "proto=ht tps",
            "=https",
            "for=1.2.3;proto=https",
            "for=2001:db8::1;proto=https",
            "for=;proto=https",
            "for=192.0.2.1:x;proto=https",
            "proto=https, for=192.0.2.1",
            "proto=https, \"",
            "proto=https\"",
            "for=[::1;proto=https",
        ] {
            assert_eq!(told(&[("forwarded", value)]), Said::Nonsense, "{value}");
        }
    }

    #[test]
    fn x_forwarded_is_believed_from_the_right() {
        for (hops, protos, expected) in [
            ("", "https", true),
            ("192.0.2.1", "https", true),
            ("192.0.2.1:5555", "https", true),
            ("2001:db8::1", "HTTPS", true),
            ("192.0.2.1", "http", false),
            ("192.0.2.1", "", false),
            ("1.1.1.1, 192.0.2.1", "https", true),
            ("1.1.1.1, 192.0.2.1", "https, http", false),
            ("192.0.2.1, 10.0.0.9", "https, http", true),
            ("192.0.2.1, 10.0.0.9", "http, https", false),
            ("192.0.2.1", "https, http", false),
            ("192.0.2.1", "http, https", false),
            ("192.0.2.1", "https, https", true),
        ] {
            let lines = [("x-forwarded-for", hops), ("x-forwarded-proto", protos)];
            assert_eq!(told(&lines), hop(expected, None), "{hops} {protos}");
        }
        let host = |hosts| {
            told(&[
                ("x-forwarded-for", "1.1.1.1, 192.0.2.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", hosts),
            ])
        };
        assert_eq!(host("a.example"), hop(true, Some("a.example")));
        assert_eq!(host("evil, a.example"), hop(true, Some("a.example")));
        assert_eq!(host("a, b, c"), hop(true, None));
        let strange = [
            ("x-forwarded-for", "somebody"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(told(&strange), Said::Nonsense);
    }

    /// Protects: clients from being counted as one, and the count from what a client says of itself.
    #[test]
    fn a_client_is_who_met_the_outermost_proxy() {
        let named = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            let trusted = [Network::parse("10.0.0.0/8").unwrap()];
            client(&headers, &trusted).map(|address| address.to_string())
        };
        for (name, value, expected) in [
            (
                "forwarded",
                "for=1.1.1.1, for=192.0.2.1, for=10.0.0.9",
                Some("192.0.2.1"),
            ),
            (
                "forwarded",
                "for=\"[2001:db8::1]:4711\"",
                Some("2001:db8::1"),
            ),
            ("forwarded", "for=unknown", None),
            ("forwarded", "proto=https", None),
            ("forwarded", "?", None),
            (
                "x-forwarded-for",
                "1.1.1.1, 192.0.2.1, 10.0.0.9",
                Some("192.0.2.1"),
            ),
            ("x-forwarded-for", "192.0.2.1:5555", Some("192.0.2.1")),
            ("x-forwarded-for", "2001:db8::1", Some("2001:db8::1")),
            ("x-forwarded-for", "10.0.0.8", Some("10.0.0.8")),
            ("x-forwarded-for", "somebody", None),
            ("x-forwarded-for", "", None),
        ] {
            assert_eq!(named(&[(name, value)]).as_deref(), expected, "{value}");
        }
        let both = |other| named(&[("forwarded", "for=192.0.2.1"), ("x-forwarded-for", other)]);
        assert_eq!(both("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(both("192.0.2.2"), None);
    }

    /// Protects: a spelling that a proxy passes on unread does not outvote the one it writes.
    #[test]
    fn both_spellings_must_agree() {
        assert_eq!(told(&[]), Said::Nothing);
        let both = |one, other| told(&[("forwarded", one), ("x-forwarded-proto", other)]);
        assert_eq!(both("proto=https", "https"), hop(true, None));
        assert_eq!(both("proto=https", "http"), Said::Nonsense);
        assert_eq!(both("proto=http", "https"), Said::Nonsense);
        assert_eq!(both("?", "https"), Said::Nonsense);
        let hosts = [
            ("forwarded", "proto=https;host=a"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b"),
        ];
        assert_eq!(told(&hosts), hop(true, None));
    }
}

//! The hosts that a server answers as.

use std::{fmt, sync::Arc};

/// Hosts that may each be a realm of their own.
///
/// Anybody can write any `Host`, so only what is listed here is taken from a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hosts(Arc<[Host]>);

#[derive(Debug, PartialEq, Eq)]
struct Host {
    /// Lower case, without a default port: what challenges say.
    realm: String,
    name: String,
    port: Option<u16>,
}

/// What is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` is no host; give a name, and a port unless it is 80 or 443: \"api.example.com\"")]
pub struct InvalidHost {
    /// Its place in the list.
    pub index: usize,
    /// The text.
    pub host: String,
}

impl Hosts {
    /// Names with or without a port. Without one, 80 and 443 are meant.
    ///
    /// # Errors
    /// The first that is no host.
    pub fn parse<H: AsRef<str>>(hosts: impl IntoIterator<Item = H>) -> Result<Self, InvalidHost> {
        let hosts = hosts.into_iter().enumerate().map(|(index, host)| {
            let host = host.as_ref();
            let parts = split(host).filter(|(name, _)| is_name(name));
            let (name, port) = parts.ok_or_else(|| InvalidHost {
                index,
                host: host.to_owned(),
            })?;
            let name = name.to_ascii_lowercase();
            let realm = port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
            Ok(Host { realm, name, port })
        });
        Ok(Self(hosts.collect::<Result<_, _>>()?))
    }

    /// The realm that an authority, `api.example.com` or `API.example.com:443`, stands for.
    /// `None` where it is not listed.
    pub fn realm(&self, authority: &str) -> Option<&str> {
        if self.is_empty() {
            return None;
        }
        let (name, port) = split(authority)?;
        let listed = self
            .0
            .iter()
            .find(|host| host.port == port && host.name.eq_ignore_ascii_case(name));
        listed.map(|host| host.realm.as_str())
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The realms, in order.
    pub fn realms(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|host| host.realm.as_str())
    }
}

/// A name and the port that is not its scheme's own.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((inside, rest)) => {
            let name = authority.get(..inside.len() + 2)?;
            let port = if rest.is_empty() {
                None
            } else {
                Some(rest.strip_prefix(':')?)
            };
            (name, port)
        }
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None | Some("") => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse::<u16>().ok()?),
        Some(_) => return None,
    };
    // One dot at the end names the same host from the root.
    let name = name.strip_suffix('.').unwrap_or(name);
    Some((name, port.filter(|port| !matches!(port, 80 | 443))))
}

/// A DNS name, an IPv4 address or an IPv6 address in brackets.
fn is_name(name: &str) -> bool {
    if let Some(inside) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        return inside.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.realms()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: only what is listed becomes a realm, and it is spelled as it was listed.
    #[test]
    fn listed_hosts_are_realms_and_nothing_else_is() {
        let hosts = Hosts::parse(["API.example.com", "localhost:8402", "[::1]:9000"]).unwrap();
        for (authority, realm) in [
            ("api.example.com", Some("api.example.com")),
            ("Api.Example.COM", Some("api.example.com")),
            ("api.example.com.", Some("api.example.com")),
            ("api.example.com:443", Some("api.example.com")),
            ("api.example.com:80", Some("api.example.com")),
            ("api.example.com:", Some("api.example.com")),
            ("api.example.com:8443", None),
            ("localhost:8402", Some("localhost:8402")),
            ("localhost", None),
            ("[::1]:9000", Some("[::1]:9000")),
            ("[::1]", None),
            ("evil.example", None),
            ("api.example.com@evil.example", None),
            ("api.example.com.evil.example", None),
            ("xapi.example.com", None),
            ("api.example.com:+443", None),
            ("api.example.com:443:443", None),
            ("api.example.com:99999999", None),
            ("api.example.com, evil.example", None),
            ("", None),
            (":443", None),
            ("[", None),
        ] {
            assert_eq!(hosts.realm(authority), realm, "{authority}");
        }
        for bad in [
            "",
            "*",
            "*.example.com",
            "https://example.com",
            "a b",
            "a\"b",
            "a|b",
            "a:x",
            "[1]",
            "a..b",
            "a/b",
        ] {
            assert!(Hosts::parse([bad]).is_err(), "{bad}");
        }
        assert_eq!(Hosts::parse(["good.example", "?"]).unwrap_err().index, 1);
    }
}

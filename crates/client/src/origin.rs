//! Where a challenge comes from, as far as paying depends on it.

use std::{fmt, net::IpAddr};

use crate::error::ClientError;

/// A web origin (RFC 6454): two are the same if scheme, host and port are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// An origin. `host` is a name or an address, IPv6 in brackets.
    #[must_use]
    pub fn new(scheme: &str, host: &str, port: u16) -> Self {
        Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_ascii_lowercase(),
            port,
        }
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the host is this machine by name or address. A name that merely resolves to
    /// loopback does not count, since whoever answers for it may change.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }

    /// Whether payments may travel there: over TLS, or not beyond this machine.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "wss") || self.is_loopback()
    }

    /// The origin whose challenges may be paid after a request to `self` was answered by
    /// `reached`.
    ///
    /// # Errors
    /// If redirects led elsewhere: the caller chose to deal with `self` and nobody else.
    pub fn followed_to(self, reached: Self) -> Result<Self, ClientError> {
        if self == reached {
            return Ok(reached);
        }
        Err(ClientError::Redirected {
            asked: self,
            reached,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: "loopback" is decided by what the host says, not by what it looks like.
    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "LOCALHOST",
            "api.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
        ] {
            assert!(Origin::new("http", host, 80).is_secure(), "{host}");
        }
        for host in [
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "10.0.0.1",
            "0.0.0.0",
            "[::2]",
            "128.0.0.1",
            "",
        ] {
            assert!(!Origin::new("http", host, 80).is_secure(), "{host}");
            assert!(Origin::new("HTTPS", host, 443).is_secure(), "{host}");
        }
    }

    /// Protects: a redirect to another scheme, host or port is another origin.
    #[test]
    fn any_difference_is_another_origin() {
        let asked = Origin::new("https", "a.example", 443);
        assert!(
            asked
                .clone()
                .followed_to(Origin::new("HTTPS", "A.example", 443))
                .is_ok()
        );
        for (scheme, host, port) in [
            ("http", "a.example", 443),
            ("https", "b.example", 443),
            ("https", "a.example", 8443),
        ] {
            let reached = Origin::new(scheme, host, port);
            let refused = asked.clone().followed_to(reached);
            assert!(matches!(refused, Err(ClientError::Redirected { .. })));
        }
    }
}

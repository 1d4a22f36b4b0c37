//! Whether a request may carry payment, and which host it was for.

use std::borrow::Cow;
#[cfg(feature = "axum")]
use std::sync::Arc;

use http::{Uri, header::HOST, request::Parts};

#[cfg(feature = "axum")]
use crate::Network;

/// How requests reach the server. Challenges and credentials must travel over TLS, or not leave
/// the machine (draft-httpauth-payment, Transport Security).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Over TLS, ended by this process or by a proxy in front of it, or from this machine only. The
    /// operator's word, and the default: a service cannot see how it is reached.
    #[default]
    Declared,
    /// From this machine only, checked by axum's `ConnectInfo<SocketAddr>` on each request. Anyone
    /// else, and anyone where the server records no peer, gets 403 without a challenge.
    #[cfg(feature = "axum")]
    Loopback,
    /// From this machine, or through one of these proxies, which say in `Forwarded` (RFC 7239) or
    /// `X-Forwarded-Proto` that it came to them over TLS; the peer is axum's
    /// `ConnectInfo<SocketAddr>`. Anyone else gets 403 without a challenge, whatever they say.
    ///
    /// Of a chain of proxies the outermost that is listed is believed. One that says nothing, or
    /// what cannot be read, did not say TLS. `X-Forwarded-Host` and `host=` are believed along with
    /// it, which matters where [`hosts`](crate::PaymentLayer::hosts) are set.
    #[cfg(feature = "axum")]
    Proxied(Arc<[Network]>),
}

impl Transport {
    /// Through these proxies, or from this machine.
    #[cfg(feature = "axum")]
    pub fn proxied(proxies: impl IntoIterator<Item = Network>) -> Self {
        Self::Proxied(proxies.into_iter().collect())
    }

    /// The host a request was for, where it may carry payment; or why it may not.
    pub(super) fn admit<'a>(&self, parts: &'a Parts) -> Result<Option<Cow<'a, str>>, &'static str> {
        #[cfg(feature = "axum")]
        if *self != Self::Declared {
            return self.admit_peer(parts);
        }
        Ok(host(parts).map(Cow::Borrowed))
    }

    /// The address a request came from: the peer's, or the one that trusted proxies name. `None` where
    /// the server records no peer.
    #[cfg(feature = "axum")]
    pub(super) fn client(&self, parts: &Parts) -> Option<std::net::IpAddr> {
        use axum::extract::ConnectInfo;

        let ConnectInfo(peer) = parts
            .extensions
            .get::<ConnectInfo<std::net::SocketAddr>>()?;
        let peer = peer.ip().to_canonical();
        let named = match self {
            Self::Proxied(proxies) if proxies.iter().any(|network| network.contains(peer)) => {
                super::forwarded::client(&parts.headers, proxies)
            }
            _ => None,
        };
        Some(named.map_or(peer, |address| address.to_canonical()))
    }

    #[cfg(feature = "axum")]
    fn admit_peer<'a>(&self, parts: &'a Parts) -> Result<Option<Cow<'a, str>>, &'static str> {
        use super::forwarded::{Said, said};
        use axum::extract::ConnectInfo;

        let peer = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>();
        let ConnectInfo(peer) = peer.ok_or("the server records no peer")?;
        let peer = peer.ip().to_canonical();
        let proxies: &[Network] = match self {
            Self::Proxied(proxies) => proxies,
            Self::Declared | Self::Loopback => &[],
        };
        let said = match proxies.iter().any(|network| network.contains(peer)) {
            true => said(&parts.headers, proxies),
            false => Said::Nothing,
        };
        match said {
            Said::Nothing if peer.is_loopback() => Ok(host(parts).map(Cow::Borrowed)),
            Said::Nothing => Err("neither this machine nor a trusted proxy that says TLS"),
            Said::Nonsense => Err("what the trusted proxy says cannot be read"),
            Said::Hop { tls: false, .. } => Err("it reached the trusted proxy without TLS"),
            Said::Hop {
                tls: true,
                host: None,
            } => Ok(host(parts).map(Cow::Borrowed)),
            Said::Hop { tls: true, host } => Ok(host.map(Cow::Owned)),
        }
    }
}

/// The authority of a request's target (HTTP/2's `:authority`), or its one `Host`. `None` where the
/// two disagree.
fn host(parts: &Parts) -> Option<&str> {
    let mut named = parts.headers.get_all(HOST).iter();
    let (header, more) = (named.next(), named.next());
    if more.is_some() {
        return None;
    }
    let header = header.map(|value| value.to_str());
    match (Uri::authority(&parts.uri), header) {
        (Some(authority), Some(header)) => {
            let same = header.is_ok_and(|header| authority.as_str().eq_ignore_ascii_case(header));
            same.then_some(authority.as_str())
        }
        (Some(authority), None) => Some(authority.as_str()),
        (None, Some(header)) => header.ok(),
        (None, None) => None,
    }
}

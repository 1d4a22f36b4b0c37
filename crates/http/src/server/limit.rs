//! How many challenges one client may leave unpaid: on some rails each one costs its seller
//! something, such as an invoice at a Lightning node.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::request::Parts;
use tokio::time::Instant;

use super::transport::Transport;

/// How many clients are remembered; beyond it, those that have nothing unpaid are forgotten first.
const CLIENTS: usize = 10_000;

type Name = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// Who a client is.
enum Key {
    /// Where it asks from, as the layer's [`Transport`] has it.
    #[cfg(feature = "axum")]
    Address,
    Of(Box<Name>),
}

/// How many challenges a client may leave unpaid. One that is paid for does not count, so whoever
/// pays is never held back.
///
/// Counted in this process, for every clone of the limit together: share one between routes.
#[derive(Clone)]
pub struct ChallengeLimit(Arc<Inner>);

struct Inner {
    unpaid: u32,
    forgiven_every: Duration,
    key: Key,
    /// Said once: clients cannot be told apart.
    #[cfg(feature = "axum")]
    blind: std::sync::Once,
    clients: Mutex<HashMap<String, Client>>,
}

/// What a client has left unpaid, as of a moment.
struct Client {
    unpaid: u32,
    since: Instant,
}

impl fmt::Debug for ChallengeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChallengeLimit")
            .field("unpaid", &self.0.unpaid)
            .field("forgiven_every", &self.0.forgiven_every)
            .finish_non_exhaustive()
    }
}

/// Two limits are equal if they count together.
impl PartialEq for ChallengeLimit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ChallengeLimit {}

impl ChallengeLimit {
    /// At most `unpaid` challenges (at least 1) for each client, one of which is forgiven every
    /// `forgiven_every`. `key` says who a client is: an API key, an address. Without one (`None`)
    /// all such requests are one client.
    pub fn new(
        unpaid: u32,
        forgiven_every: Duration,
        key: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::by(unpaid, forgiven_every, Key::Of(Box::new(key)))
    }

    fn by(unpaid: u32, forgiven_every: Duration, key: Key) -> Self {
        Self(Arc::new(Inner {
            unpaid: unpaid.max(1),
            forgiven_every: forgiven_every.max(Duration::from_millis(1)),
            key,
            #[cfg(feature = "axum")]
            blind: std::sync::Once::new(),
            clients: Mutex::default(),
        }))
    }

    /// The same by the peer's address, which axum records as `ConnectInfo<SocketAddr>`; of an IPv6
    /// address the network, which is one client's. Behind proxies that the layer's
    /// [`Transport::proxied`] lists it is the address that they name in `Forwarded` or
    /// `X-Forwarded-For`, which they must write themselves: one that passes a client's own words on
    /// lets it be anybody. Behind a proxy that is not listed or names nobody, and where no peer is
    /// recorded, all requests are one client, which the log says: there, name a client with
    /// [`new`](Self::new), by a header that the proxy sets.
    #[cfg(feature = "axum")]
    pub fn by_peer(unpaid: u32, forgiven_every: Duration) -> Self {
        Self::by(unpaid, forgiven_every, Key::Address)
    }

    /// Who is asking.
    pub(super) fn client(&self, parts: &Parts, transport: &Transport) -> String {
        match &self.0.key {
            #[cfg(feature = "axum")]
            Key::Address => self.address(parts, transport),
            Key::Of(key) => {
                let _ = transport;
                key(parts).unwrap_or_default()
            }
        }
    }

    #[cfg(feature = "axum")]
    fn address(&self, parts: &Parts, transport: &Transport) -> String {
        use std::net::IpAddr;

        let address = transport.client(parts);
        let unnamed = match transport {
            Transport::Declared => {
                let forwarded = ["forwarded", "x-forwarded-for"];
                let forwarded = forwarded
                    .iter()
                    .any(|name| parts.headers.contains_key(*name));
                forwarded && address.is_some_and(|address| address.is_loopback())
            }
            Transport::Loopback => false,
            Transport::Proxied(proxies) => address
                .is_some_and(|address| proxies.iter().any(|network| network.contains(address))),
        };
        if address.is_none() || unnamed {
            self.0.blind.call_once(|| {
                tracing::warn!(
                    "what clients leave unpaid is counted as one client's: serve with \
                     `into_make_service_with_connect_info::<SocketAddr>()`, and behind a proxy list it \
                     in `Transport::proxied` and have it write `X-Forwarded-For`"
                );
            });
        }
        match address {
            None => String::new(),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => format!("{:?}", &address.segments()[..4]),
        }
    }

    /// Counts one challenge, or says how long until there may be another.
    pub(super) fn count(&self, client: &str) -> Result<(), Duration> {
        self.count_at(client, Instant::now())
    }

    fn count_at(&self, client: &str, now: Instant) -> Result<(), Duration> {
        let every = self.0.forgiven_every;
        let mut clients = self
            .0
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS && !clients.contains_key(client) {
            clients.retain(|_, client| {
                client.forgive(every, now);
                client.unpaid > 0
            });
            if clients.len() >= CLIENTS {
                return Err(every);
            }
        }
        let new = || Client {
            unpaid: 0,
            since: now,
        };
        let client = clients.entry(client.to_owned()).or_insert_with(new);
        client.forgive(every, now);
        if client.unpaid >= self.0.unpaid {
            return Err((client.since + every).saturating_duration_since(now));
        }
        client.unpaid += 1;
        Ok(())
    }

    /// One of them has been paid for.
    pub(super) fn paid(&self, client: &str) {
        let mut clients = self
            .0
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(client) {
            client.unpaid = client.unpaid.saturating_sub(1);
        }
    }
}

impl Client {
    fn forgive(&mut self, every: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos() / every.as_nanos();
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX);
        if forgiven >= self.unpaid {
            (self.unpaid, self.since) = (0, now);
        } else {
            self.unpaid -= forgiven;
            self.since += every * forgiven;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a node from minting for whoever never pays, and payers from those.
    #[test]
    fn what_is_left_unpaid_is_counted_for_each_client() {
        let second = Duration::from_secs(1);
        let limit = ChallengeLimit::new(2, second, |_| None);
        let start = Instant::now();
        assert!(limit.count_at("a", start).is_ok());
        assert!(limit.count_at("a", start).is_ok());
        assert_eq!(limit.count_at("a", start), Err(second));
        assert!(limit.count_at("b", start).is_ok(), "another client");
        // What is paid for does not count.
        limit.paid("a");
        assert!(limit.count_at("a", start).is_ok());
        assert!(limit.count_at("a", start).is_err());
        // One is forgiven every second.
        let later = start + Duration::from_millis(1_500);
        assert!(limit.count_at("a", later).is_ok());
        assert_eq!(limit.count_at("a", later), Err(second / 2));
        assert!(limit.count_at("a", start + 60 * second).is_ok());
    }

    /// Protects: memory from a flood of addresses; those with nothing unpaid make room.
    #[test]
    fn clients_are_bounded() {
        let second = Duration::from_secs(1);
        let limit = ChallengeLimit::new(1, second, |_| None);
        let start = Instant::now();
        for n in 0..CLIENTS {
            assert!(limit.count_at(&n.to_string(), start).is_ok());
        }
        assert!(limit.count_at("one more", start).is_err());
        assert!(limit.count_at("one more", start + second).is_ok());
    }
}

//! Configuration files: TOML in, a [`Server`] with its routes out, or every problem at once.
//!
//! The command reads its file with this, and so can a service that keeps its prices out of its
//! code; that is why the model lives here. It has two uses of a route: [`Config::gateway`] wants
//! an `upstream` or a text to `respond` with, [`Config::service`] leaves answering to handlers.
//!
//! ```
//! use farebox::config::Config;
//!
//! let problems = Config::service(
//!     r#"
//!     realm   = "api.example.com"
//!     secrets = ["too short"]
//!     stor    = "memory:"
//!     "#,
//! )
//! .unwrap_err();
//! let keys: Vec<_> = problems.issues().iter().map(|issue| issue.key.as_str()).collect();
//! assert_eq!(keys, ["secrets[0]", "store", "stor"]);
//! assert!(problems.to_string().contains("did you mean `store`?"));
//! ```

mod routes;
mod section;
mod timing;
mod wallets;

use std::{net::SocketAddr, str::FromStr as _};

use farebox_core::{Invalid, Issue, SecretSource};
use serde_json::{Map, Value};

pub use routes::{Answer, Route};
pub use timing::{DEFAULT_RECONCILE, DEFAULT_SHUTDOWN};
pub use wallets::{Wallets, from_env, tables};

use crate::{builder::unbuilt, server::Server};
use section::{Section, wrong};
use timing::Timing;

const TOP: &[&str] = &[
    "listen",
    "realm",
    "secrets",
    "store",
    "trusted_proxies",
    "timing",
    "rails",
    "routes",
];

/// Where a server listens unless told otherwise: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8402";

/// A configuration that holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Peers that may forward what reached them over TLS: addresses, or networks as `10.0.0.0/8`.
    /// Empty where only this machine may ask.
    pub trusted_proxies: Vec<Network>,
    /// How often payments are looked after that a crash or a lost answer left open.
    pub reconcile: std::time::Duration,
    /// How long what is under way may take to finish when the server is told to end.
    pub shutdown: std::time::Duration,
    /// The engine and the rails.
    pub server: Server,
    /// The paid routes, in the file's order.
    pub routes: Vec<Route>,
}

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: std::net::IpAddr,
    bits: u8,
}

impl Network {
    /// An address, or an address with a number of leading bits: `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(u8::from_str(bits).ok()?)),
            None => (text, None),
        };
        let address = std::net::IpAddr::from_str(address).ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(Self { address, bits })
    }

    /// Whether `address` is one of them. An IPv4 address may come mapped into IPv6.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        let bits = |address: std::net::IpAddr| match address.to_canonical() {
            std::net::IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
            std::net::IpAddr::V6(v6) => (128, u128::from(v6)),
        };
        let ((width, own), (other_width, other)) = (bits(self.address), bits(address));
        let differing = u32::from(self.bits);
        width == other_width && (own ^ other).checked_shr(width - differing).unwrap_or(0) == 0
    }
}

impl Config {
    /// A configuration whose routes each have an `upstream` or a text to `respond` with.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn gateway(text: &str) -> Result<Self, Invalid> {
        read(&parse(text)?, true)
    }

    /// A configuration whose routes are answered by code: they say only what is offered where.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn service(text: &str) -> Result<Self, Invalid> {
        read(&parse(text)?, false)
    }

    /// The route with this scope, `GET /joke`.
    pub fn route(&self, scope: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.gate.route() == scope)
    }
}

/// TOML as a value. Its own message quotes the line, which may hold a secret, so only the place
/// and the reason are kept.
pub(crate) fn parse(text: &str) -> Result<Value, Invalid> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("line {line}, column {column}: ")
        });
        let reason = error.message().lines().next().unwrap_or("cannot be read");
        Invalid::new("", format!("the file is not TOML: {place}{reason}"))
    })
}

fn read(value: &Value, gateway: bool) -> Result<Config, Invalid> {
    let mut issues = Vec::new();
    let mut top = Section::open(value.clone(), "", TOP, &mut issues);
    let trusted_proxies = trusted_proxies(&mut top, &mut issues);
    let listen = listen(&mut top, trusted_proxies.is_empty(), &mut issues);
    let realm = top.text("realm", REALM, &mut issues);
    if realm.is_none() && value.get("realm").is_none() {
        issues.push(Issue::new("realm", format!("is missing; {REALM}")));
    }
    let mut builder = Server::builder(realm.unwrap_or_else(|| "unknown".to_owned()));
    let secrets = top.list("secrets", SECRETS, &mut issues);
    for (n, secret) in secrets.into_iter().flatten().enumerate() {
        match secret_source(secret) {
            Ok(source) => builder = builder.secret_from(source),
            Err(why) => issues.push(Issue::new(format!("secrets[{n}]"), why)),
        }
    }
    match top.take("store").map(secret_source) {
        Some(Ok(url)) => builder = builder.store_from(url),
        Some(Err(_)) => issues.push(Issue::new("store", format!("cannot be read; {STORE}"))),
        None => {}
    }
    let timing = Timing::read(top.take("timing"), &mut issues);
    let (reconcile, shutdown) = (timing.reconcile(), timing.shutdown());
    builder = builder.engine(|engine| timing.tune(engine));
    let routes = top.list("routes", ROUTES, &mut issues).unwrap_or_default();
    let rails = match top.take("rails") {
        None => Map::new(),
        Some(Value::Object(rails)) => rails,
        Some(other) => {
            issues.push(Issue::new(
                "rails",
                wrong(&other, "give tables `[rails.<name>]`"),
            ));
            Map::new()
        }
    };
    for (rail, config) in rails {
        builder = builder.rail(rail, config);
    }
    let mut draft = builder.draft();
    // What was left out for being wrong is not missing.
    let said = |key: &str| {
        issues
            .iter()
            .any(|issue: &Issue| issue.key.starts_with(key))
    };
    draft.issues.retain(|issue| !said(&issue.key));
    issues.append(&mut draft.issues);
    let routes = routes::read(routes, &draft, gateway, &mut issues);
    top.finish(&mut issues);
    Invalid::unless_empty(issues)?;
    Ok(Config {
        listen,
        trusted_proxies,
        reconcile,
        shutdown,
        server: draft.finish().map_err(unbuilt)?,
        routes,
    })
}

const REALM: &str = "give the host that clients ask, such as \"api.example.com\"";
const SECRETS: &str =
    "give a list of secrets, each a string, { env = \"NAME\" } or { file = \"path\" }";
const STORE: &str = "give a store's URL, { env = \"NAME\" } or { file = \"path\" }";
const ROUTES: &str = "give tables `[[routes]]`";
const PROXIES: &str = "give a list of addresses or networks, such as [\"10.0.0.0/8\"]";

fn secret_source(value: Value) -> Result<SecretSource, String> {
    serde_json::from_value(value).map_err(|error| format!("cannot be read: {error}"))
}

fn trusted_proxies(top: &mut Section, issues: &mut Vec<Issue>) -> Vec<Network> {
    let mut networks = Vec::new();
    let given = top.list("trusted_proxies", PROXIES, issues);
    for (n, value) in given.into_iter().flatten().enumerate() {
        match value.as_str().and_then(Network::parse) {
            Some(network) => networks.push(network),
            None => {
                let problem = "is no address or network; give one such as \"10.0.0.0/8\"";
                issues.push(Issue::new(format!("trusted_proxies[{n}]"), problem));
            }
        }
    }
    networks
}

/// Challenges may leave the machine only over TLS, and this server speaks plain HTTP.
fn listen(top: &mut Section, only_here: bool, issues: &mut Vec<Issue>) -> SocketAddr {
    let shape = format!("give an address and a port, such as \"{DEFAULT_LISTEN}\"");
    let default = SocketAddr::from(([127, 0, 0, 1], 8402));
    let Some(text) = top.text("listen", &shape, issues) else {
        return default;
    };
    let Ok(address) = SocketAddr::from_str(&text) else {
        issues.push(Issue::new(
            "listen",
            format!("is no socket address; {shape}"),
        ));
        return default;
    };
    if only_here && !address.ip().to_canonical().is_loopback() {
        let problem = "is reachable from other machines, and challenges must not travel without \
                       TLS; listen on 127.0.0.1, or name the TLS proxy in front of it in \
                       `trusted_proxies`";
        issues.push(Issue::new("listen", problem));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses() {
        for (network, address, held) in [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
            ("::/0", "::1", true),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                held,
                "{network:?} {address}"
            );
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "example.com"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    /// Protects: a secret on a broken line is not repeated in the error.
    #[test]
    fn a_syntax_error_names_the_place_and_not_the_text() {
        let error = Config::service("realm = \"a\"\nsecrets = [\"hunter2\" oops]").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 2"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

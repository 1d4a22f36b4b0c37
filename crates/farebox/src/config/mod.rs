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

mod limit;
#[cfg(feature = "page")]
mod page;
mod routes;
mod section;
mod timing;
mod wallets;

use std::{net::SocketAddr, str::FromStr as _};

use farebox_core::{Invalid, Issue, SecretSource};
use farebox_http::{InvalidOrigin, Network, Origins};
use serde_json::{Map, Value};

pub use limit::UnpaidLimit;
pub use routes::{Answer, Route};
pub use timing::{DEFAULT_RECONCILE, DEFAULT_SHUTDOWN};
pub use wallets::{Wallets, from_env, tables};

use crate::{builder::unbuilt, server::Server};
use section::{Section, wrong};
use timing::Timing;

const TOP: &[&str] = &[
    "listen",
    "realm",
    "hosts",
    "secrets",
    "store",
    "trusted_proxies",
    "cors",
    "body_limit",
    "reply_limit",
    "challenge_limit",
    "hooks",
    "timing",
    "page",
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
    /// Proxies that are believed when they say that a request came to them over TLS. Empty where
    /// only this machine may ask.
    pub trusted_proxies: Vec<Network>,
    /// The pages that may pay; `None` where no page of another origin may.
    pub cors: Option<Origins>,
    /// The largest request body that is read before anything is paid, in bytes, where it says.
    pub body_limit: Option<usize>,
    /// The largest response body that is kept under an `Idempotency-Key`, in bytes, where it says.
    pub reply_limit: Option<usize>,
    /// How many challenges one client may leave unpaid; `None` for as many as it likes.
    pub challenge_limit: Option<UnpaidLimit>,
    #[cfg(feature = "axum")]
    unpaid: Option<farebox_http::ChallengeLimit>,
    /// The page that browsers get; `None` where the file says `page = false`.
    #[cfg(feature = "page")]
    pub page: Option<farebox_http::Page>,
    /// The path under which rails are called from outside, `<hooks>/<method>/<intent>`: see
    /// [`Engine::heed`](farebox_engine::Engine::heed).
    pub hooks: Option<String>,
    /// How often payments are looked after that a crash or a lost answer left open.
    pub reconcile: std::time::Duration,
    /// How long what is under way may take to finish when the server is told to end.
    pub shutdown: std::time::Duration,
    /// The engine and the rails. A layer that it makes alone ([`Server::paid`], [`Server::layer`])
    /// knows nothing of `trusted_proxies`, `body_limit`, `reply_limit`, `challenge_limit` and `page`;
    /// those of [`Config::paid`](Self::paid) and [`Config::layer`](Self::layer) do.
    pub server: Server,
    /// The paid routes, in the file's order.
    pub routes: Vec<Route>,
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

    /// What puts a price on one of its routes: a layer that takes requests from this machine, and
    /// through `trusted_proxies`. It goes by the peers' addresses, which axum records when it serves
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    #[cfg(feature = "axum")]
    pub fn layer(&self, route: &Route) -> farebox_http::PaymentLayer {
        self.around(route.gate.clone())
    }

    /// A paid route whose price is in code: [`Server::paid`], with all that the file says about
    /// answering: `trusted_proxies`, `body_limit`, `reply_limit`, `challenge_limit` and `page`.
    ///
    /// As with [`layer`](Self::layer), axum must record the peers' addresses, or every request is
    /// refused: serve the router with `into_make_service_with_connect_info::<SocketAddr>()`.
    ///
    /// # Errors
    /// As [`Server::gate`].
    #[cfg(feature = "axum")]
    pub fn paid<O: Into<crate::OfferSpec>>(
        &self,
        route: impl Into<String>,
        offers: impl IntoIterator<Item = O>,
    ) -> Result<farebox_http::PaymentLayer, Invalid> {
        let gate = self.server.gate(route, offers)?;
        Ok(self.around(std::sync::Arc::new(gate)))
    }

    /// The layer of a gate, as the file wants it.
    #[cfg(feature = "axum")]
    fn around(&self, gate: std::sync::Arc<crate::Gate>) -> farebox_http::PaymentLayer {
        let proxies = self.trusted_proxies.iter().copied();
        let layer = self
            .server
            .layer(gate)
            .transport(farebox_http::Transport::proxied(proxies));
        #[cfg(feature = "page")]
        let layer = match &self.page {
            Some(page) => layer.page(page.clone()),
            None => layer,
        };
        let layer = match self.body_limit {
            Some(limit) => layer.body_limit(limit),
            None => layer,
        };
        let layer = match self.reply_limit {
            Some(limit) => layer.reply_limit(limit),
            None => layer,
        };
        match &self.unpaid {
            Some(limit) => layer.limit_challenges(limit.clone()),
            None => layer,
        }
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
    let cors = cors(&mut top, &mut issues);
    let body_limit = size(&mut top, "body_limit", BODY_MAX, &mut issues);
    let reply_limit = size(&mut top, "reply_limit", REPLY_MAX, &mut issues);
    let proxied = !trusted_proxies.is_empty();
    let challenge_limit = UnpaidLimit::read(top.take("challenge_limit"), proxied, &mut issues);
    #[cfg(feature = "page")]
    let page = page::read(top.take("page"), &mut issues);
    #[cfg(not(feature = "page"))]
    if top.take("page").is_some() {
        let problem = "is not in this binary; build it with the feature `page`";
        issues.push(Issue::new("page", problem));
    }
    let hooks = hooks(&mut top, &mut issues);
    let mut builder = match (top.text("realm", REALM, &mut issues), value.get("realm")) {
        (Some(realm), _) => Server::builder(realm),
        (None, None) => Server::builder_on_platform(),
        (None, Some(_)) => Server::builder("unknown"),
    };
    for (n, host) in top
        .list("hosts", HOSTS, &mut issues)
        .into_iter()
        .flatten()
        .enumerate()
    {
        match host {
            Value::String(host) => builder = builder.host(host),
            other => issues.push(Issue::new(format!("hosts[{n}]"), wrong(&other, HOSTS))),
        }
    }
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
                wrong(&other, "give tables `[rails.<rail>]`"),
            ));
            Map::new()
        }
    };
    #[cfg(feature = "page")]
    if page.is_some()
        && proxied
        && value.get("challenge_limit").is_none()
        && rails.values().any(page::prepares)
    {
        issues.push(Issue::new("challenge_limit", PREPARED));
    }
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
    if let (Some(path), Some(engine)) = (&hooks, &draft.engine) {
        let under = |route: &&Route| route.path.starts_with(path.as_str());
        if let Some(route) = routes.iter().find(under) {
            let problem = format!("is where the route {} is; give another path", route.path);
            issues.push(Issue::new("hooks", problem));
        } else if issues.is_empty() && engine.listeners().is_empty() {
            let problem = "is there, and no rail takes calls; give the rail what tells genuine \
                           calls, like `webhook_secrets` of `[rails.stripe]`, or drop it";
            issues.push(Issue::new("hooks", problem));
        }
    }
    Invalid::unless_empty(issues)?;
    Ok(Config {
        hooks,
        listen,
        trusted_proxies,
        cors,
        body_limit,
        reply_limit,
        #[cfg(feature = "axum")]
        unpaid: challenge_limit.as_ref().map(UnpaidLimit::counter),
        challenge_limit,
        #[cfg(feature = "page")]
        page,
        reconcile,
        shutdown,
        server: draft.finish().map_err(unbuilt)?,
        routes,
    })
}

const HOOKS: &str = "give a path such as \"/hooks\"";

/// A path of plain segments.
fn hooks(top: &mut Section, issues: &mut Vec<Issue>) -> Option<String> {
    let path = top.text("hooks", HOOKS, issues)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    if !path.starts_with('/') || path.len() < 2 || !path.bytes().all(plain) {
        issues.push(Issue::new("hooks", format!("`{path}` is no path; {HOOKS}")));
        return None;
    }
    Some(path.trim_end_matches('/').to_owned())
}

#[cfg(feature = "page")]
const PREPARED: &str = "is missing: behind a proxy every client has its address, and any one of them \
                        could use up what a page may have prepared for all; give a table such as \
                        { unpaid = 60, header = \"x-real-ip\" }";
const REALM: &str = "give the host that clients ask, such as \"api.example.com\"";
const HOSTS: &str = "give a list of the hosts that clients may ask, such as [\"api.example.com\"]";
const CORS: &str = "give a list of origins, such as [\"https://app.example\"], or \"*\"";
const SECRETS: &str =
    "give a list of secrets, each a string, { env = \"NAME\" } or { file = \"path\" }";
const STORE: &str = "give a store's URL, { env = \"NAME\" } or { file = \"path\" }";
const ROUTES: &str = "give tables `[[routes]]`";
const PROXIES: &str = "give a list of addresses or networks, such as [\"10.0.0.0/8\"]";

fn secret_source(value: Value) -> Result<SecretSource, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
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

fn cors(top: &mut Section, issues: &mut Vec<Issue>) -> Option<Origins> {
    let before = issues.len();
    let texts = match top.take("cors")? {
        Value::String(text) => vec![text],
        Value::Array(list) => list
            .into_iter()
            .enumerate()
            .filter_map(|(n, value)| match value {
                Value::String(text) => Some(text),
                other => {
                    issues.push(Issue::new(format!("cors[{n}]"), wrong(&other, CORS)));
                    None
                }
            })
            .collect(),
        other => {
            issues.push(Issue::new("cors", wrong(&other, CORS)));
            return None;
        }
    };
    if issues.len() > before {
        return None;
    }
    let problem = |error: InvalidOrigin| {
        issues.push(Issue::new(
            format!("cors[{}]", error.index),
            error.to_string(),
        ));
    };
    Origins::parse(texts).map_err(problem).ok()
}

/// A request's body is held in memory before anything is paid.
const BODY_MAX: u64 = 1024 * 1024 * 1024;

/// Beyond this a payment's record is too much for a store that holds it in one value.
const REPLY_MAX: u64 = 16 * 1024 * 1024;

/// A number of bytes.
fn size(top: &mut Section, key: &str, most: u64, issues: &mut Vec<Issue>) -> Option<usize> {
    let value = top.take(key)?;
    let given = value.as_u64().filter(|bytes| *bytes <= most);
    let bytes = given.and_then(|bytes| usize::try_from(bytes).ok());
    if bytes.is_none() {
        let problem = format!("is no size; give a number of bytes up to {most}");
        issues.push(Issue::new(key, problem));
    }
    bytes
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

    /// Protects: a secret on a broken line is not repeated in the error.
    #[test]
    fn a_syntax_error_names_the_place_and_not_the_text() {
        let error = Config::service("realm = \"a\"\nsecrets = [\"hunter2\" oops]").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 2"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

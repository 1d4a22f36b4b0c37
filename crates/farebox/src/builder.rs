//! Makes a [`Server`], finding everything that is wrong on the way.

use std::{collections::BTreeMap, fmt, sync::Arc};

use farebox_core::{
    Invalid, Issue, Method, Plugin, Registry, Secret, SecretSource, Store, config::did_you_mean,
};
use farebox_engine::{Engine, EngineBuilder};
use farebox_http::Hosts;
use farebox_wire::{MIN_SECRET_BYTES, SecretRing};
use serde_json::Value;

use crate::{
    realm,
    server::Server,
    stand_in::{self, Built},
    store::{self, Chosen, Late},
};

enum StoreChoice {
    Missing,
    Url(SecretSource),
    Given(Arc<dyn Store>),
}

/// Makes a [`Server`]. Nothing is checked before [`build`](Self::build), which reports every
/// problem at once.
#[must_use]
pub struct ServerBuilder {
    realm: Option<String>,
    hosts: Vec<String>,
    secrets: Vec<SecretSource>,
    store: StoreChoice,
    rails: Vec<(String, Value)>,
    methods: Vec<Arc<dyn Method>>,
    plugins: Vec<&'static Plugin>,
    registry: Option<Registry>,
    tune: Option<Tune>,
}

impl ServerBuilder {
    pub(crate) fn new(realm: Option<String>) -> Self {
        Self {
            realm,
            hosts: Vec::new(),
            secrets: Vec::new(),
            store: StoreChoice::Missing,
            rails: Vec::new(),
            methods: Vec::new(),
            plugins: Vec::new(),
            registry: None,
            tune: None,
        }
    }

    /// A host that clients may ask instead of the realm, and be challenged under: a name, and a
    /// port unless it is 80 or 443. A request's `Host` counts for nothing unless it is one of
    /// these.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// A secret of at least 32 bytes that challenges are bound with. The first one signs, all
    /// verify, so that a secret can be replaced.
    pub fn secret(self, secret: impl Into<String>) -> Self {
        self.secret_from(SecretSource::Text(Secret::new(secret)))
    }

    /// A secret from the environment or a file.
    pub fn secret_from(mut self, source: SecretSource) -> Self {
        self.secrets.push(source);
        self
    }

    /// Where payments are remembered, by URL: `sqlite://farebox.db`, `redis://…`, `postgres://…`,
    /// each with the feature of that name. `memory:` forgets them with the process. The path of a
    /// file is relative to the working directory. [`Server::connect`] opens it.
    pub fn store(self, url: impl Into<String>) -> Self {
        self.store_from(SecretSource::Text(Secret::new(url)))
    }

    /// Where payments are remembered, by a URL from the environment or a file, since it may hold
    /// a password.
    pub fn store_from(mut self, url: SecretSource) -> Self {
        self.store = StoreChoice::Url(url);
        self
    }

    /// Where payments are remembered.
    pub fn store_with(mut self, store: Arc<dyn Store>) -> Self {
        self.store = StoreChoice::Given(store);
        self
    }

    /// Configures a rail of the [registry](crate::registry()): the keys of `[rails.<rail>]`.
    pub fn rail(mut self, name: impl Into<String>, config: impl Into<Value>) -> Self {
        self.rails.push((name.into(), config.into()));
        self
    }

    /// Adds a rail that was built in code, under its own name.
    pub fn method(mut self, method: Arc<dyn Method>) -> Self {
        self.methods.push(method);
        self
    }

    /// Makes a plugin known that the registry may not have: one whose crate is not linked by
    /// anything else.
    pub fn plugin(mut self, plugin: &'static Plugin) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// Takes rails from this registry instead of [`registry()`](crate::registry()).
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Changes what the engine lets be changed: deadlines, leases, the clock.
    pub fn engine(mut self, tune: impl FnOnce(EngineBuilder) -> EngineBuilder + 'static) -> Self {
        self.tune = Some(Box::new(tune));
        self
    }

    /// The server. Pure: no rail is reached; see [`Server::connect`].
    ///
    /// Before it serves, let it reconcile:
    /// `let _reconciler = server.engine().spawn_reconciler(Duration::from_secs(10));`
    /// ([`Engine::spawn_reconciler`]). Without the reconciler a payment whose outcome got lost waits
    /// for its payer, and no session's channel is settled or closed; dropping the handle stops it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn build(self) -> Result<Server, Invalid> {
        self.draft().finish().map_err(unbuilt)
    }

    pub(crate) fn draft(self) -> Draft {
        let mut issues = Vec::new();
        let ring = ring(&self.secrets, &mut issues);
        let (store, late) = open(self.store, &mut issues);
        let realm = realm(self.realm, &mut issues);
        let hosts = Hosts::parse(self.hosts).unwrap_or_else(|error| {
            issues.push(Issue::new(
                format!("hosts[{}]", error.index),
                error.to_string(),
            ));
            Hosts::default()
        });
        let engine = engine(realm, ring, store, self.tune, &mut issues);
        let registry = match self.registry.map_or_else(crate::registry, Ok) {
            Ok(registry) => registry,
            Err(error) => {
                issues.push(Issue::new("rails", error.to_string()));
                Registry::default()
            }
        };
        let registry = self.plugins.iter().try_fold(registry, |r, p| r.with(p));
        let registry = registry.unwrap_or_else(|error| {
            issues.push(Issue::new("rails", error.to_string()));
            Registry::default()
        });
        let mut draft = Draft {
            registry,
            engine,
            hosts,
            late,
            methods: BTreeMap::new(),
            broken: BTreeMap::new(),
            issues,
        };
        for method in self.methods {
            let name = method.name().to_owned();
            if draft.methods.insert(name.clone(), method).is_some() {
                draft.issues.push(Issue::new(name, TWICE));
            }
        }
        for (rail, config) in self.rails {
            draft.configure(&rail, config);
        }
        draft.adopt();
        draft
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rails: Vec<_> = self.rails.iter().map(|(rail, _)| rail).collect();
        f.debug_struct("ServerBuilder")
            .field("realm", &self.realm)
            .field("rails", &rails)
            .finish_non_exhaustive()
    }
}

/// A server as far as it could be made, with everything that is wrong so far.
pub(crate) struct Draft {
    pub(crate) registry: Registry,
    pub(crate) engine: Option<Engine>,
    hosts: Hosts,
    late: Option<Arc<Late>>,
    pub(crate) methods: BTreeMap<String, Arc<dyn Method>>,
    /// Rails whose configuration is wrong, and what their offers can be checked with.
    pub(crate) broken: BTreeMap<&'static str, Option<Arc<dyn Method>>>,
    pub(crate) issues: Vec<Issue>,
}

impl Draft {
    fn configure(&mut self, rail: &str, config: Value) {
        let plugins: Vec<_> = self
            .registry
            .plugins()
            .filter(|p| p.rail() == rail)
            .collect();
        let at = format!("rails.{rail}");
        if plugins.is_empty() {
            self.issues.push(Issue::new(at, self.no_such_rail(rail)));
            return;
        }
        for plugin in plugins {
            let mut found = Vec::new();
            match stand_in::build(plugin, &config, &mut found) {
                Built::Whole(method) => {
                    if self
                        .methods
                        .insert(plugin.name.to_owned(), method)
                        .is_some()
                    {
                        self.issues.push(Issue::new(&at, TWICE));
                    }
                }
                Built::Broken(method) => drop(self.broken.insert(plugin.name, method)),
            }
            // Two intents of one rail read the same table and find the same problems.
            for issue in found.into_iter().map(|issue| issue.under(&at)) {
                if !self.issues.contains(&issue) {
                    self.issues.push(issue);
                }
            }
        }
    }

    fn no_such_rail(&self, rail: &str) -> String {
        let mut known: Vec<&str> = self.registry.plugins().map(Plugin::rail).collect();
        known.dedup();
        let hint = did_you_mean(rail, &known);
        format!(
            "no rail `{rail}` in this binary{hint}. Either its Cargo feature is off, or its crate \
             is only named in Cargo.toml: mention it in code (`use the_crate as _;`)"
        )
    }

    /// Has the engine know every rail, so that it can reconcile what it no longer offers.
    fn adopt(&mut self) {
        let Some(engine) = &self.engine else { return };
        for method in self.methods.values() {
            if let Err(error) = engine.adopt(method.clone()) {
                self.issues.push(Issue::new("rails", error.to_string()));
            }
        }
    }

    /// The server, if nothing was wrong.
    pub(crate) fn finish(self) -> Result<Server, Vec<Issue>> {
        match self.engine {
            Some(engine) if self.issues.is_empty() => Ok(Server {
                engine,
                hosts: self.hosts,
                methods: self.methods,
                late: self.late,
            }),
            _ => Err(self.issues),
        }
    }
}

/// An error out of issues that are there whenever a part is missing.
pub(crate) fn unbuilt(issues: Vec<Issue>) -> Invalid {
    match Invalid::unless_empty(issues) {
        Err(invalid) => invalid,
        Ok(()) => Invalid::new("", "the server could not be made"),
    }
}

const TWICE: &str = "is configured twice; drop one of the two";

const NEW_SECRET: &str = "`openssl rand -base64 32` makes one";

fn ring(sources: &[SecretSource], issues: &mut Vec<Issue>) -> Option<SecretRing> {
    if sources.is_empty() {
        let problem = format!(
            "is missing; give a list of one or more secrets of at least {MIN_SECRET_BYTES} bytes, \
             each a string, {{ env = \"NAME\" }} or {{ file = \"path\" }}; {NEW_SECRET}"
        );
        issues.push(Issue::new("secrets", problem));
        return None;
    }
    let before = issues.len();
    let mut secrets = Vec::new();
    for (n, source) in sources.iter().enumerate() {
        let key = format!("secrets[{n}]");
        match source.read(&key) {
            Err(issue) => issues.push(issue),
            Ok(secret) => {
                let len = secret.expose().len();
                if len < MIN_SECRET_BYTES {
                    let problem = format!(
                        "is {len} bytes long; give at least {MIN_SECRET_BYTES} random bytes: \
                         {NEW_SECRET}"
                    );
                    issues.push(Issue::new(key, problem));
                } else {
                    secrets.push(secret.into_inner());
                }
            }
        }
    }
    if issues.len() > before {
        return None;
    }
    let ring = SecretRing::new(secrets);
    ring.map_err(|error| issues.push(Issue::new("secrets", error.to_string())))
        .ok()
}

/// The store, and the same once more if it is yet to be opened.
fn open(
    choice: StoreChoice,
    issues: &mut Vec<Issue>,
) -> (Option<Arc<dyn Store>>, Option<Arc<Late>>) {
    let chosen = match choice {
        StoreChoice::Given(store) => return (Some(store), None),
        StoreChoice::Url(url) => store::choose(&url, issues),
        StoreChoice::Missing => {
            let problem = format!("is missing; {}", store::shape());
            issues.push(Issue::new("store", problem));
            None
        }
    };
    match chosen {
        Some(Chosen::Memory(store)) => (Some(store), None),
        Some(Chosen::Late(late)) => (Some(late.clone()), Some(late)),
        None => (None, None),
    }
}

type Tune = Box<dyn FnOnce(EngineBuilder) -> EngineBuilder>;

fn realm(given: Option<String>, issues: &mut Vec<Issue>) -> Option<String> {
    if given.is_some() {
        return given;
    }
    let Some((variable, realm)) = realm::of_platform(|name| std::env::var(name).ok()) else {
        issues.push(Issue::new("realm", realm::missing()));
        return None;
    };
    tracing::info!(
        variable,
        realm,
        "the realm is the one that the platform names"
    );
    Some(realm)
}

fn engine(
    realm: Option<String>,
    ring: Option<SecretRing>,
    store: Option<Arc<dyn Store>>,
    tune: Option<Tune>,
    issues: &mut Vec<Issue>,
) -> Option<Engine> {
    let realm = realm?;
    // The engine checks the realm as well, but only once it has secrets and a store.
    if realm.is_empty() || realm.contains(['"', '|', '\r', '\n']) {
        let problem = "must not be empty, nor hold a quote, `|` or a line break; give the host that \
                       clients ask, such as `api.example.com`";
        issues.push(Issue::new("realm", problem));
        return None;
    }
    let builder = Engine::builder(realm, ring?, store?);
    let builder = match tune {
        Some(tune) => tune(builder),
        None => builder,
    };
    builder
        .build()
        .map_err(|error| issues.push(Issue::new("realm", error.to_string())))
        .ok()
}

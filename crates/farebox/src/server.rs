//! A server as most sellers need it: an engine, and rails by name.

use std::{collections::BTreeMap, fmt, sync::Arc};

use farebox_core::{
    ComposeError, Fault, Invalid, Issue, Method, Offer, compose, config::did_you_mean,
};
use farebox_engine::{Engine, Gate};
use farebox_http::Hosts;
use serde_json::{Map, Value};

use crate::{builder::ServerBuilder, store::Late};

/// An engine, and rails that can be offered by name.
///
/// Everything here can be had without it: [`Engine`] for the lifecycle, a rail's own constructor
/// for the method, [`compose()`] for the offers. What it adds is names, the same in code and in
/// configuration files, and all problems at once.
#[derive(Clone)]
pub struct Server {
    pub(crate) engine: Engine,
    pub(crate) hosts: Hosts,
    pub(crate) methods: BTreeMap<String, Arc<dyn Method>>,
    /// The store, if it was named by URL and is opened late.
    pub(crate) late: Option<Arc<Late>>,
}

impl Server {
    /// A server for `realm`, the protection space: usually the host that clients ask.
    pub fn builder(realm: impl Into<String>) -> ServerBuilder {
        ServerBuilder::new(Some(realm.into()))
    }

    /// A server whose realm is what the platform it runs on calls it: the first of `MPP_REALM`,
    /// `FLY_APP_NAME`, `HEROKU_APP_NAME`, `RAILWAY_PUBLIC_DOMAIN`, `RENDER_EXTERNAL_HOSTNAME`,
    /// `VERCEL_URL` and `WEBSITE_HOSTNAME` that is set; the log says which. Without any, building
    /// it is an error.
    pub fn builder_on_platform() -> ServerBuilder {
        ServerBuilder::new(None)
    }

    /// Opens the store, and has every rail do what it does once at the start.
    ///
    /// | rail | what it does | what is an error |
    /// |---|---|---|
    /// | Tempo | asks each endpoint for its chain id | another chain; one that is away is only logged |
    /// | Stripe | tries the key | a key that Stripe does not know; an outage is only logged |
    /// | Lightning | starts the node inside the process; LND and Core Lightning are not asked | that it does not start |
    /// | `proof` | nothing | nothing |
    ///
    /// Without it, the store is opened when it is first needed, and what is wrong with it is only
    /// found then.
    ///
    /// # Errors
    /// The rails that cannot serve, and the store under the name `store`.
    pub async fn connect(&self) -> Result<(), ConnectError> {
        let mut failed = Vec::new();
        if let Some(late) = &self.late
            && let Err(fault) = late.store().await
        {
            failed.push(("store".to_owned(), fault));
        }
        for (name, method) in &self.methods {
            if let Err(fault) = method.connect().await {
                failed.push((name.clone(), fault));
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(ConnectError(failed))
        }
    }

    /// A paid route. `route` is its scope, `GET /joke`: a credential for one does not open another.
    ///
    /// # Errors
    /// Every problem with the offers, under `offers[n]`.
    pub fn gate<O: Into<OfferSpec>>(
        &self,
        route: impl Into<String>,
        offers: impl IntoIterator<Item = O>,
    ) -> Result<Gate, Invalid> {
        let specs: Vec<OfferSpec> = offers.into_iter().map(Into::into).collect();
        let mut issues = Vec::new();
        let find = |name: &str| {
            let known: Vec<&str> = self.methods.keys().map(String::as_str).collect();
            self.methods.get(name).cloned().ok_or_else(|| {
                let hint = did_you_mean(name, &known);
                format!("`{name}` is no rail of this server{hint}")
            })
        };
        let mut offers = Vec::new();
        for (n, spec) in specs.into_iter().enumerate() {
            match find(&spec.rail) {
                Ok(method) => offers.extend(spec.on(method, &format!("offers[{n}]"), &mut issues)),
                Err(why) => issues.push(Issue::new(format!("offers[{n}].rail"), why)),
            }
        }
        Invalid::unless_empty(issues)?;
        gate(&self.engine, route.into(), offers)
    }

    /// A paid route, as a layer for axum or tower: around the handlers of that one route, with
    /// `route_layer`, or with `layer` where a session is among the offers (see
    /// [`PaymentLayer`](farebox_http::PaymentLayer)).
    ///
    /// # Errors
    /// As [`gate`](Self::gate).
    #[cfg(feature = "tower")]
    pub fn paid<O: Into<OfferSpec>>(
        &self,
        route: impl Into<String>,
        offers: impl IntoIterator<Item = O>,
    ) -> Result<farebox_http::PaymentLayer, Invalid> {
        Ok(self.layer(Arc::new(self.gate(route, offers)?)))
    }

    /// A gate of this server as a layer, which knows the server's [hosts](ServerBuilder::host).
    #[cfg(feature = "tower")]
    pub fn layer(&self, gate: Arc<Gate>) -> farebox_http::PaymentLayer {
        farebox_http::PaymentLayer::new(gate).hosts(self.hosts.clone())
    }

    /// The rail called `name`, for offers whose price depends on the request
    /// ([`Offer::dynamic`]).
    ///
    /// The price is an async function of the request's target and of its body:
    ///
    /// ```
    /// use farebox::{Charge, Offer, PricingContext, compose, prelude::*};
    /// # use farebox::core::prelude::*;
    /// # struct Free(NoSettler);
    /// # impl Free { fn new(_: Config) -> Result<Self, Invalid> { Ok(Self(NoSettler)) } }
    /// # #[derive(Deserialize)] struct Config {}
    /// # #[derive(Deserialize)] struct Payload {}
    /// # impl Rail<Charge> for Free {
    /// #     const METHOD: &'static str = "copier";
    /// #     type Details = std::collections::BTreeMap<String, String>;
    /// #     type Payload = Payload;
    /// #     type Settler = NoSettler;
    /// #     async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
    /// #         let cents = Amount::from_decimal(&terms.amount, 2).unwrap();
    /// #         Ok(Quote::new(terms.request(cents, "usd"), Default::default()))
    /// #     }
    /// #     async fn verify(&self, cx: &Presented<'_>, _: &Ask<Charge, Self::Details>, _: Payload)
    /// #         -> Result<Plan<Once, Never>, Refusal> {
    /// #         Ok(Plan::paid(ProofKey::of("copier", &cx.challenge.id), "free"))
    /// #     }
    /// #     fn settler(&self) -> &NoSettler { &self.0 }
    /// # }
    /// # plugin! { static CHARGE = Charge: Free::new; }
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let server = Server::builder("api.example.com").secret("a secret of 32 bytes, only for docs")
    /// #     .store("memory:").plugin(&CHARGE).rail("copier", serde_json::json!({})).build()?;
    /// let rail = server.method("copier/charge").ok_or("not configured")?.clone();
    /// // Two cents, or ten for the long version.
    /// let offer = Offer::dynamic::<Charge, _, _>(rail, |request: PricingContext<'_>| {
    ///     let long = request.target.ends_with("?long");
    ///     async move { Ok(ChargeTerms::amount(if long { "0.10" } else { "0.02" })) }
    /// })?;
    /// let gate = server.engine().gate("GET /joke", compose([offer])?)?;
    /// // With the feature `tower`, `server.layer(gate.into())` goes around the route.
    /// # let mut inbound = farebox::engine::Inbound::default();
    /// # inbound.target = "/joke?long";
    /// # assert_eq!(gate.challenges(&inbound).await?[0].request.value()["amount"], "10");
    /// # assert_eq!(gate.challenges(&Default::default()).await?[0].request.value()["amount"], "2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn method(&self, name: &str) -> Option<&Arc<dyn Method>> {
        self.methods.get(name)
    }

    /// The rails by name: `tempo/charge`.
    pub fn methods(&self) -> impl Iterator<Item = (&str, &Arc<dyn Method>)> {
        self.methods.iter().map(|(name, m)| (name.as_str(), m))
    }

    /// The hosts that are realms beside the engine's own.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("realm", &self.engine.realm())
            .field("rails", &self.methods.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Composes offers into a gate; problems are under `offers`.
pub(crate) fn gate(engine: &Engine, route: String, offers: Vec<Offer>) -> Result<Gate, Invalid> {
    let offers = compose(offers).map_err(|error| Invalid::new("offers", error.to_string()))?;
    engine
        .gate(route, offers)
        .map_err(|error| Invalid::new("offers", error.to_string()))
}

/// What cannot serve: rails, or the store.
#[derive(Debug)]
pub struct ConnectError(Vec<(String, Fault)>);

impl ConnectError {
    /// The rails by name, and what each met; the store is called `store`.
    pub fn rails(&self) -> &[(String, Fault)] {
        &self.0
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, fault)) in self.0.iter().enumerate() {
            let line = if n > 0 { "\n" } else { "" };
            write!(f, "{line}{name} cannot serve: {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}

/// One offer by name: a rail and its terms, as a configuration file would have them.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferSpec {
    pub(crate) rail: String,
    pub(crate) terms: Map<String, Value>,
}

impl OfferSpec {
    /// `amount` on `rail` (`"tempo/charge"`): a decimal in the currency's usual unit, `"0.10"`
    /// dollars or `"21"` sats.
    pub fn new(rail: impl Into<String>, amount: impl Into<String>) -> Self {
        let rail = rail.into();
        let terms = Map::from_iter([("amount".to_owned(), Value::String(amount.into()))]);
        Self { rail, terms }
    }

    /// In this currency, where the rail has several.
    pub fn currency(self, currency: impl Into<String>) -> Self {
        self.with("currency", currency.into())
    }

    /// With text for the payer. It never decides anything.
    pub fn description(self, description: impl Into<String>) -> Self {
        self.with("description", description.into())
    }

    /// With any other term.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.terms.insert(key.into(), value.into());
        self
    }

    /// As it would stand in a configuration file.
    pub fn to_value(&self) -> Value {
        let mut keys = self.terms.clone();
        keys.insert("rail".to_owned(), self.rail.clone().into());
        Value::Object(keys)
    }

    /// The offer on `method`; problems go to `issues` under `at`.
    pub(crate) fn on(
        self,
        method: Arc<dyn Method>,
        at: &str,
        issues: &mut Vec<Issue>,
    ) -> Option<Offer> {
        let invalid = match Offer::from_value(method, Value::Object(self.terms)) {
            Ok(offer) => return Some(offer),
            Err(ComposeError::Terms(_, invalid)) => invalid,
            Err(other) => Invalid::new("", other.to_string()),
        };
        issues.extend(invalid.under(at).into_issues());
        None
    }
}

impl<R: Into<String>, A: Into<String>> From<(R, A)> for OfferSpec {
    fn from((rail, amount): (R, A)) -> Self {
        Self::new(rail, amount)
    }
}

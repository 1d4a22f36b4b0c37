//! The Stripe rail: `stripe/charge` over Shared Payment Tokens (draft-stripe-charge).
//!
//! The payer's agent grants the seller a token limited to the price; the seller charges it as a
//! PaymentIntent, confirmed as it is created. `verify` reads only: the charge is an order that the
//! engine stores first and then has settled, under an idempotency key made of the challenge alone,
//! so that neither a crash nor a token minted anew charges twice.
//!
//! ```
//! use farebox_core::{Secret, SecretSource};
//! use farebox_stripe::{Config, Stripe};
//!
//! let key = SecretSource::Text(Secret::new("sk_test_123"));
//! assert!(Stripe::new(Config::new(key, "internal")).is_ok());
//!
//! let key = SecretSource::Text(Secret::new("pk_test_123"));
//! let problems = Stripe::new(Config::new(key, "internal").api_base("http://example.com"));
//! assert_eq!(problems.unwrap_err().issues().len(), 2);
//! ```
//!
//! # Which Stripe crate
//!
//! Requests are built by async-stripe's generated types (`async-stripe-core`), the maintained
//! successor of the crate `stripe-rust`. They follow Stripe's published description of the API, and
//! the parameter that it does not have yet, the token, is appended to the form. Sending and reading
//! is done here, for four reasons found in 1.0.0-rc.10: its clients fix `Stripe-Version` to one that
//! does not know the token, drop response headers (`Idempotent-Replayed`, `Request-Id`), read a whole
//! PaymentIntent of that version, so that a field renamed in a preview would hide a charge that
//! succeeded, and bring a second HTTP stack. Built with [`StripeRequest::build`], a request is four
//! public fields, so its `StripeClient` trait is not needed in between.
//!
//! The price is compile time. On two cores the three crates and what they need took 57 s in a debug
//! build and about two and a half minutes in a release build, nearly all of it
//! `async-stripe-shared`, of which little is used here. It is paid only with this rail.
//!
//! [`StripeRequest::build`]: https://docs.rs/async-stripe-client-core/1.0.0-rc.10/stripe_client_core/trait.StripeRequest.html

use std::{fmt, sync::Arc};

use farebox_core::{
    Ask, Charge, ChargeTerms, Fault, Invalid, NoQuote, Once, PagePart, Plan, Presented, Quote,
    Rail, Refusal, plugin,
    wire::{Challenge, Payload as Collected},
};
#[cfg(feature = "webhooks")]
use farebox_core::{Delivery, Hint, Unheeded};
use reqwest::StatusCode;
use stripe_client_core::StripeRequest as _;
use stripe_core::payment_intent::ListPaymentIntent;

mod api;
mod config;
mod connect;
mod currency;
mod find;
mod issued;
mod order;
mod outcome;
mod page;
mod quote;
mod refund;
mod settle;
mod token;
mod verify;
mod wallet;
#[cfg(feature = "webhooks")]
mod webhook;

pub use config::{Config, WalletConfig};
pub use connect::{ConnectConfig, Settlement};
pub use issued::IssuedTokens;
pub use order::Order;
pub use quote::Details;
pub use refund::RefundPolicy;
pub use settle::StripeSettler;
pub use token::{SharedPaymentToken, TokenParameter};
pub use verify::Payload;
pub use wallet::{ConfiguredTokens, MintToken, StripeWallet, TestHelperTokens, TokenRequest};

use connect::Connect;
use page::PageConfig;
use quote::Quoting;

/// The method's name on the wire.
pub(crate) const METHOD: &str = "stripe";

plugin! {
    /// `stripe/charge`.
    pub static CHARGE = Charge: Stripe::new, wallet: ConfiguredWallet::new,
        example: include_str!("example.toml");
}

/// What a configuration can describe.
type ConfiguredWallet = StripeWallet<ConfiguredTokens>;

/// The seller's side of `stripe/charge`.
pub struct Stripe {
    quoting: Quoting,
    token_parameter: TokenParameter,
    connect: Connect,
    page: Option<PageConfig>,
    settler: StripeSettler,
    #[cfg(feature = "webhooks")]
    webhooks: webhook::Webhooks,
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripe")
            .field("network_id", &self.quoting.network_id)
            .field("api", &self.settler.api)
            .finish_non_exhaustive()
    }
}

impl Stripe {
    /// The rail as configured. Pure.
    ///
    /// # Errors
    /// Everything wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, Invalid> {
        let checked = config.check()?;
        let account = checked.connect.account().map(str::to_owned);
        Ok(Self {
            quoting: Quoting {
                network_id: checked.network_id,
                payment_method_types: checked.payment_method_types,
                minimums: checked.minimums,
            },
            token_parameter: checked.token_parameter,
            connect: checked.connect,
            page: checked.page,
            settler: StripeSettler {
                api: Arc::new(checked.api),
                account,
                refunds: checked.refunds,
            },
            #[cfg(feature = "webhooks")]
            webhooks: checked.webhooks,
        })
    }

    /// Settles each charge over Connect as `decide` says, from what the challenge asked for. A
    /// library's way to what `[rails.stripe.connect]` says for all charges alike.
    #[must_use]
    pub fn settling(
        mut self,
        decide: impl Fn(&Ask<Charge, Details>) -> Settlement + Send + Sync + 'static,
    ) -> Self {
        self.connect = Connect::Custom(Arc::new(decide));
        self.settler.account = None;
        self
    }

    /// What goes with refunds over Connect; otherwise `[rails.stripe.connect.refund]` says it.
    #[must_use]
    pub fn refunding(mut self, policy: RefundPolicy) -> Self {
        self.settler.refunds = policy;
        self
    }
}

impl Rail<Charge> for Stripe {
    const METHOD: &'static str = METHOD;
    type Details = Details;
    type Payload = Payload;
    type Settler = StripeSettler;

    fn check(&self, terms: &ChargeTerms) -> Result<(), Invalid> {
        self.quoting.check(terms, &self.connect)
    }

    /// Tries the key. Only a key that Stripe does not know stops the server: an outage passes.
    async fn connect(&self) -> Result<(), Fault> {
        let request = ListPaymentIntent::new().limit(1).build();
        match self.settler.api.send(request, self.connect.account()).await {
            Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                Err(Fault::new("Stripe does not accept the rail's secret_key"))
            }
            Ok(answer) if !answer.status.is_success() => {
                tracing::warn!(
                    status = answer.status.as_u16(),
                    request_id = answer.request_id,
                    "Stripe does not list PaymentIntents for this key; charges may fail as well"
                );
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(lost) => {
                tracing::warn!(error = %lost, "Stripe cannot be reached for now");
                Ok(())
            }
        }
    }

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        self.quoting.quote(terms, &self.connect)
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Charge, Details>,
        payload: Payload,
    ) -> Result<Plan<Once, Order>, Refusal> {
        let version = self.settler.api.version();
        verify::verify(
            self.token_parameter,
            version,
            &self.connect,
            cx,
            ask,
            payload,
        )
    }

    fn settler(&self) -> &StripeSettler {
        &self.settler
    }

    fn page(&self, _: &Challenge, ask: &Ask<Charge, Details>) -> Option<PagePart> {
        self.page.as_ref()?.part(self.connect.account(), ask)
    }

    async fn prepare(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Charge, Details>,
        collected: Collected,
    ) -> Result<Collected, Refusal> {
        let (api, account) = (&self.settler.api, self.connect.account());
        page::prepare(self.page.as_ref(), api, account, cx, ask, collected).await
    }

    #[cfg(feature = "webhooks")]
    fn listens(&self) -> bool {
        self.webhooks.listens()
    }

    #[cfg(feature = "webhooks")]
    fn heed(&self, delivery: &Delivery<'_>) -> Result<Vec<Hint>, Unheeded> {
        self.webhooks.heed(delivery)
    }
}

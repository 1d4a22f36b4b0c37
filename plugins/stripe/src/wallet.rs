//! The paying side: a token for each challenge.

use std::{collections::BTreeMap, fmt, future::Future, time::Duration};

use farebox_core::{Approved, Ask, Charge, Cost, Fault, Invalid, Paid, PayError, Paying, Wallet};
use farebox_wire::{Amount, Timestamp};
use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::{
    METHOD, api::Api, config::WalletConfig, issued::IssuedTokens, quote::Details,
    token::SharedPaymentToken, verify::Payload,
};

/// How long a token outlives its challenge, seconds: a credential presented at the last moment must
/// still be charged, and looked up after that.
pub(crate) const OUTLIVES: i64 = 600;
/// The life of a token for a challenge that does not lapse, seconds.
const DEFAULT_LIFE: i64 = 3600;
/// How long minting may take, unless the wallet says otherwise.
const MINT_TIMEOUT: Duration = Duration::from_secs(30);

/// The token that a challenge needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The most it may charge, in Stripe's units: exactly what is asked.
    pub amount: Amount,
    /// The currency it may charge, lower case.
    pub currency: String,
    /// The Business Network profile it must be granted to.
    pub network_id: String,
    /// What it may stand for; any one of these.
    pub payment_method_types: Vec<String>,
    /// When it must lapse, Unix seconds.
    pub expires_at: i64,
    /// What the seller will write on the PaymentIntent.
    pub metadata: BTreeMap<String, String>,
}

/// Makes tokens: a call to the agent's own backend, a prompt, Stripe's API. Any
/// `async fn(TokenRequest) -> Result<SharedPaymentToken, Fault>` is one.
///
/// A token moves no money. So an error means that nothing was paid, also when the token may exist;
/// and so does a call that is dropped because it took too long.
pub trait MintToken: Send + Sync + 'static {
    /// Makes a token with exactly these limits.
    fn mint(
        &self,
        request: TokenRequest,
    ) -> impl Future<Output = Result<SharedPaymentToken, Fault>> + Send;
}

impl<F, Fut> MintToken for F
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<SharedPaymentToken, Fault>> + Send,
{
    async fn mint(&self, request: TokenRequest) -> Result<SharedPaymentToken, Fault> {
        self(request).await
    }
}

/// Mints tokens with Stripe's test helper: test mode only, no money, no agent account.
#[derive(Debug)]
pub struct TestHelperTokens {
    api: Api,
    payment_method: String,
}

impl TestHelperTokens {
    /// As configured. Pure.
    ///
    /// # Errors
    /// Everything wrong with the configuration; a live key is.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        config.check_test()
    }

    pub(crate) fn with(api: Api, payment_method: String) -> Self {
        Self {
            api,
            payment_method,
        }
    }

    async fn grant(&self, request: &TokenRequest, seller: bool) -> Result<Granted, Fault> {
        #[derive(Serialize)]
        struct Form<'a> {
            payment_method: &'a str,
            usage_limits: Limits<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            seller_details: Option<Seller<'a>>,
        }
        #[derive(Serialize)]
        struct Limits<'a> {
            currency: &'a str,
            max_amount: u64,
            expires_at: i64,
        }
        #[derive(Serialize)]
        struct Seller<'a> {
            network_id: &'a str,
        }
        #[derive(Deserialize)]
        struct Token {
            id: SharedPaymentToken,
        }
        let max_amount = u64::try_from(request.amount.get())
            .map_err(|_| Fault::new("minting a test token: the amount is too large"))?;
        let form = Form {
            payment_method: &self.payment_method,
            usage_limits: Limits {
                currency: &request.currency,
                max_amount,
                expires_at: request.expires_at,
            },
            seller_details: seller.then_some(Seller {
                network_id: &request.network_id,
            }),
        };
        let path = "/test_helpers/shared_payment/granted_tokens";
        let call = RequestBuilder::new(StripeMethod::Post, path).form(&form);
        let answer = self
            .api
            .send(call, None)
            .await
            .map_err(|lost| Fault::unavailable("minting a test token").caused_by(lost))?;
        if answer.status.is_success() {
            let token: Token = answer
                .read()
                .map_err(|_| Fault::new("minting a test token: the answer holds no token"))?;
            return Ok(Granted::Token(token.id));
        }
        let error = answer.error();
        let param = error.param.as_deref().unwrap_or_default();
        if error.code.as_deref() == Some("parameter_unknown") && param.starts_with("seller_details")
        {
            return Ok(Granted::WithoutSeller);
        }
        let code = error.code.unwrap_or(error.kind);
        let why = format!(
            "{} {code} {param}, request {}",
            answer.status, answer.request_id
        );
        Err(Fault::new("minting a test token: Stripe refuses").caused_by(why))
    }
}

enum Granted {
    Token(SharedPaymentToken),
    /// This version of the helper has no sellers.
    WithoutSeller,
}

impl MintToken for TestHelperTokens {
    async fn mint(&self, request: TokenRequest) -> Result<SharedPaymentToken, Fault> {
        for seller in [true, false] {
            if let Granted::Token(token) = self.grant(&request, seller).await? {
                return Ok(token);
            }
        }
        Err(Fault::new(
            "minting a test token: Stripe knows no such parameters",
        ))
    }
}

/// Tokens of the sort that a configuration asks for.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfiguredTokens {
    /// Of Stripe's test helper.
    Test(TestHelperTokens),
    /// Of the account's own.
    Issued(IssuedTokens),
}

impl MintToken for ConfiguredTokens {
    async fn mint(&self, request: TokenRequest) -> Result<SharedPaymentToken, Fault> {
        match self {
            Self::Test(tokens) => tokens.mint(request).await,
            Self::Issued(tokens) => tokens.mint(request).await,
        }
    }
}

/// The payer's side of `stripe/charge`: answers challenges with tokens that `M` makes.
pub struct StripeWallet<M> {
    tokens: M,
    timeout: Duration,
}

impl<M> fmt::Debug for StripeWallet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StripeWallet")
    }
}

impl StripeWallet<ConfiguredTokens> {
    /// A wallet as configured: of test cards, or of an account that issues its own tokens. Pure.
    ///
    /// # Errors
    /// Everything wrong with the configuration.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        // Two calls at the most, each with its own limit.
        let both = Duration::from_secs(config.timeout).saturating_mul(2);
        let tokens = config.check()?;
        Ok(Self::with_tokens(tokens).mint_timeout(both))
    }
}

impl<M: MintToken> StripeWallet<M> {
    /// A wallet with tokens of one's own making.
    ///
    /// ```
    /// use farebox_core::Fault;
    /// use farebox_stripe::{SharedPaymentToken, StripeWallet, TokenRequest};
    ///
    /// let wallet = StripeWallet::with_tokens(async |request: TokenRequest| {
    ///     let limits = (request.amount, request.currency, request.expires_at);
    ///     # async fn ask_my_backend<T>(_: T) -> Result<String, std::io::Error> { Ok("spt_1".into()) }
    ///     let token = ask_my_backend(limits).await;
    ///     let token = token.map_err(|e| Fault::unavailable("minting a token").caused_by(e))?;
    ///     Ok::<_, Fault>(SharedPaymentToken::new(token))
    /// });
    /// ```
    pub fn with_tokens(tokens: M) -> Self {
        Self {
            tokens,
            timeout: MINT_TIMEOUT,
        }
    }

    /// How long making a token may take before the payment is given up, unpaid. Default 30 s.
    #[must_use]
    pub fn mint_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<M: MintToken> Wallet<Charge> for StripeWallet<M> {
    const METHOD: &'static str = METHOD;
    type Details = Details;
    type Payload = Payload;

    fn price(&self, _: &Paying<'_>, ask: &Ask<Charge, Details>) -> Result<Cost, PayError> {
        let refused = |why: &str| Err(PayError::Refused(why.to_owned()));
        let currency = ask.request.currency.as_str();
        if ask.request.amount.is_zero() {
            return refused("it asks for nothing, which no token can pay");
        }
        if i64::try_from(ask.request.amount.get()).is_err() {
            return refused("its amount is beyond anything Stripe charges");
        }
        if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_alphabetic()) {
            return refused("its currency is no ISO 4217 code");
        }
        if ask.details.network_id.trim().is_empty() {
            return refused("it does not say to whom a token must be granted");
        }
        if ask.details.payment_method_types.is_empty() {
            return refused("it allows no payment method");
        }
        Ok(Cost {
            amount: ask.request.amount,
            currency: currency.to_ascii_lowercase(),
            // The profile is what a token is bound to, so it is what a budget should name.
            recipient: Some(ask.details.network_id.clone()),
        })
    }

    async fn pay(
        &self,
        cx: &Paying<'_>,
        ask: Ask<Charge, Details>,
        approved: Approved,
    ) -> Result<Paid<Payload>, PayError> {
        let cost = self.price(cx, &ask)?;
        let allowed = approved.cost();
        if cost.amount > allowed.amount
            || cost.currency != allowed.currency
            || cost.recipient != allowed.recipient
        {
            return Err(PayError::Refused("it is not what was approved".to_owned()));
        }
        let now = Timestamp::now().unix_millis().div_euclid(1000);
        let expires = cx
            .challenge
            .expires
            .as_ref()
            .map(|at| at.unix_millis().div_euclid(1000));
        if expires.is_some_and(|expires| expires <= now) {
            return Err(PayError::Refused("it has expired".to_owned()));
        }
        let request = TokenRequest {
            amount: cost.amount,
            currency: cost.currency,
            network_id: ask.details.network_id,
            payment_method_types: ask.details.payment_method_types,
            expires_at: expires.map_or(now + DEFAULT_LIFE, |expires| {
                expires.saturating_add(OUTLIVES)
            }),
            metadata: ask.details.metadata.unwrap_or_default(),
        };
        // Whatever becomes of the token, it was not handed over.
        let spt = tokio::time::timeout(self.timeout, self.tokens.mint(request))
            .await
            .unwrap_or_else(|_| Err(Fault::unavailable("minting a token: no answer in time")))
            .map_err(PayError::NotPaid)?;
        if !spt.is_well_formed() {
            let fault = Fault::new("minting a token: what was made is no Shared Payment Token");
            return Err(PayError::NotPaid(fault));
        }
        Ok(Paid::new(Payload::new(spt, ask.request.external_id)))
    }
}

//! The keys of sessions, under `session` of the rail's and of the wallet's table.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use alloy::{primitives::Address, signers::Signer};
use farebox_core::{Invalid, Issue, Schedule, SecretSource};
use farebox_proof::{LocalKey, terms};
use farebox_wire::Amount;
use serde::Deserialize;
use tempo_contracts::precompiles::TIP20_CHANNEL_RESERVE_ADDRESS;

use super::{
    Domain, SessionSettler, TempoSession, TempoSessionWallet, channel::MAX_AMOUNT,
    operator::Operator, states::States,
};
use crate::{
    Config, Tempo, TempoWallet, WalletConfig,
    config::{collect, unreported},
};

/// How old a channel's state may be to serve by.
const STATE_TTL: Duration = Duration::from_secs(5);

/// How often open channels are looked at, used or not. The grace period of a close by force is 15
/// minutes.
const WATCH: Duration = Duration::from_secs(60);

/// The server's side.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionConfig {
    /// The secp256k1 private key of the account that settles and closes, hexadecimal: the
    /// recipient's own, or an operator's, which every channel then names. No session can be offered
    /// without.
    pub operator_key: Option<SecretSource>,
    /// The channel reserve; the chain's own if left out.
    pub escrow_contract: Option<String>,
    /// The least by which a voucher must exceed the one before: `"0.001"`. Any if left out.
    pub min_voucher_delta: Option<String>,
    /// A deposit to suggest where an offer does not.
    pub suggested_deposit: Option<String>,
    /// How old a channel's state on the chain may be to serve by; 5 if left out, 60 at most.
    pub channel_state_ttl_seconds: Option<u64>,
    /// The stablecoin that settling is paid in; the channel's token if left out.
    pub fee_token: Option<String>,
    /// When to settle what is open. Without it a channel is settled when it closes.
    pub settlement_schedule: Option<SettlementConfig>,
    /// Close a channel that was not used for so long.
    pub idle_close_seconds: Option<u64>,
}

/// When to settle an open channel: whichever comes first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettlementConfig {
    /// After so many units.
    pub units: Option<NonZeroU64>,
    /// After so much: `"1.50"`.
    pub amount: Option<String>,
    /// After so long.
    pub interval_seconds: Option<NonZeroU64>,
}

/// The client's side.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionWalletConfig {
    /// The most that one channel may hold, top-ups included, in the token's usual unit (6 digits):
    /// `"10"`. Only the budget limits it if left out.
    pub max_deposit: Option<String>,
    /// Deposit into any contract that a server names, instead of the chain's own reserve only.
    #[serde(default)]
    pub allow_custom_escrow: bool,
}

impl TempoSession {
    /// The rail. Pure, but for reading secrets.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let mut session = config.session.clone().unwrap_or_default();
        let key = session.operator_key.take();
        let key = key.and_then(|source| collect(operator_key(&source), &mut issues));
        let signer = key.map(|key| Arc::new(key) as Arc<dyn Signer + Send + Sync>);
        Self::read(config, &session, signer, issues)
    }

    /// The same with an operator whose key is elsewhere; `session.operator_key` stays out.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn operated(
        config: Config,
        operator: impl Signer + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let session = config.session.clone().unwrap_or_default();
        let mut issues = Vec::new();
        if session.operator_key.is_some() {
            let problem = "is of no use beside another operator; leave it out";
            issues.push(Issue::new("operator_key", problem));
        }
        Self::read(config, &session, Some(Arc::new(operator)), issues)
    }

    fn read(
        config: Config,
        session: &SessionConfig,
        signer: Option<Arc<dyn Signer + Send + Sync>>,
        mut issues: Vec<Issue>,
    ) -> Result<Self, Invalid> {
        let decimals = config.decimals.unwrap_or(terms::DECIMALS);
        let escrow = match session.escrow_contract.as_deref() {
            None => Some(TIP20_CHANNEL_RESERVE_ADDRESS),
            Some(text) => collect(terms::account("escrow_contract", text), &mut issues),
        };
        let text = session.fee_token.as_deref();
        let fee_token = text.and_then(|t| collect(terms::token("fee_token", t), &mut issues));
        let delta = session.min_voucher_delta.as_deref();
        let min_delta = amount("min_voucher_delta", delta, decimals, &mut issues);
        let deposit = session.suggested_deposit.as_deref();
        amount("suggested_deposit", deposit, decimals, &mut issues);
        let ttl = session.channel_state_ttl_seconds.map(Duration::from_secs);
        if ttl.is_some_and(|ttl| ttl > WATCH) {
            let problem = "is more than 60; a payer who closes by force must be noticed";
            issues.push(Issue::new("channel_state_ttl_seconds", problem));
        }
        let schedule = session.schedule(decimals, &mut issues);
        let mut issues: Vec<_> = match Invalid::unless_empty(issues) {
            Ok(()) => Vec::new(),
            Err(invalid) => invalid.under("session").into_issues(),
        };
        let base = Tempo::new(config)
            .map_err(|e| issues.extend(e.into_issues()))
            .ok();
        Invalid::unless_empty(issues)?;
        let (Some(base), Some(escrow)) = (base, escrow) else {
            return Err(unreported());
        };
        let chain = Arc::clone(&base.chain);
        let states = Arc::new(States::new(chain, escrow, ttl.unwrap_or(STATE_TTL)));
        Ok(Self {
            domain: Domain::new(base.chain.id(), escrow),
            operator: signer.map(|signer| Operator::new(signer, fee_token)),
            settler: SessionSettler::new(base.settler.clone(), Arc::clone(&states)),
            states,
            min_delta: min_delta.unwrap_or_default(),
            suggested_deposit: session.suggested_deposit.clone(),
            schedule,
            base,
        })
    }
}

impl SessionConfig {
    fn schedule(&self, decimals: u8, issues: &mut Vec<Issue>) -> Schedule {
        let mut schedule = Schedule::default().watch(WATCH);
        if let Some(seconds) = self.idle_close_seconds {
            schedule = schedule.idle(Duration::from_secs(seconds));
        }
        let Some(settlement) = &self.settlement_schedule else {
            return schedule;
        };
        if let Some(units) = settlement.units {
            schedule = schedule.units(units);
        }
        let at = "settlement_schedule.amount";
        if let Some(amount) = amount(at, settlement.amount.as_deref(), decimals, issues) {
            schedule = schedule.amount(amount);
        }
        if let Some(seconds) = settlement.interval_seconds {
            schedule = schedule.every(Duration::from_secs(seconds.get()));
        }
        schedule
    }
}

impl TempoSessionWallet {
    /// A wallet with a key of its own. Pure, but for reading secrets.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        let session = config.session.clone().unwrap_or_default();
        Self::of(TempoWallet::new(config)?, &session)
    }

    /// A wallet whose key is elsewhere, as [`TempoWallet::signing`].
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn signing(
        config: WalletConfig,
        signer: impl Signer + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let session = config.session.clone().unwrap_or_default();
        Self::of(TempoWallet::signing(config, signer)?, &session)
    }

    fn of(base: TempoWallet, session: &SessionWalletConfig) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let most = session.max_deposit.as_deref();
        let most = amount("max_deposit", most, terms::DECIMALS, &mut issues);
        Invalid::unless_empty(issues).map_err(|invalid| invalid.under("session"))?;
        Ok(Self {
            base,
            max_deposit: most.map_or(MAX_AMOUNT, Amount::get),
            allow_custom_escrow: session.allow_custom_escrow,
        })
    }
}

fn amount(at: &str, text: Option<&str>, decimals: u8, issues: &mut Vec<Issue>) -> Option<Amount> {
    let amount = Amount::from_decimal(text?, decimals)
        .map_err(|error| Issue::new(at, error.to_string()))
        .and_then(|amount| {
            let problem = "is more than a channel can hold (2^96 - 1 base units)";
            let fits = amount.get() <= MAX_AMOUNT;
            fits.then_some(amount)
                .ok_or_else(|| Issue::new(at, problem))
        });
    collect(amount, issues)
}

fn operator_key(source: &SecretSource) -> Result<LocalKey, Issue> {
    let at = "operator_key";
    LocalKey::parse(at, &source.read(at)?)
}

/// A reserve that a wallet deposits into.
pub(super) fn is_canonical(escrow: Address) -> bool {
    escrow == TIP20_CHANNEL_RESERVE_ADDRESS
}

//! The paying side: an invoice is paid once, and only if it says what the challenge says.

use std::sync::Arc;
use std::time::Duration;

use farebox_core::{Approved, Ask, Charge, Cost, Fault, Invalid, Paid, PayError, Paying, Wallet};
use farebox_wire::{Amount, Timestamp};

use crate::bolt11::{Details, Invoice, Payload, PaymentHash, Preimage};
use crate::charge::quote::CURRENCY;
use crate::config::{self, DEFAULT_MAX_FEE_MSAT, DEFAULT_PAYMENT_TIMEOUT, WalletConfig};
use crate::node::{Node, NodeError, Payment, SendOrder};

/// How long to wait for the end of a payment whose answer was lost.
const RESOLVE_WAIT: Duration = Duration::from_secs(5);

/// Pays BOLT11 invoices from a node.
///
/// What it prices is the worst case, the invoice and the highest routing fee it accepts, rounded up
/// to a sat: a budget approves what can leave the wallet, not what the seller asks for. The two
/// limits on the fee and the limit on the total hold for each payment.
#[derive(Clone)]
pub struct LightningWallet {
    pub(crate) node: Arc<dyn Node>,
    max_fee_msat: u64,
    max_fee_ppm: Option<u64>,
    max_total_sat: Option<u64>,
    pub(crate) payment_timeout: Duration,
}

impl std::fmt::Debug for LightningWallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LightningWallet")
            .field("network", &self.node.network())
            .field("max_fee_msat", &self.max_fee_msat)
            .finish_non_exhaustive()
    }
}

impl LightningWallet {
    /// A wallet as configured. Pure: the node is reached at the first payment.
    ///
    /// # Errors
    ///
    /// Everything wrong with the configuration.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let payment_timeout = config.payment_timeout(&mut issues);
        let node = config.node(&mut issues);
        let node = config::finish(node, issues)?;
        Ok(Self {
            node,
            max_fee_msat: config.max_fee_msat.unwrap_or(DEFAULT_MAX_FEE_MSAT),
            max_fee_ppm: config.max_fee_ppm,
            max_total_sat: config.max_total_sat,
            payment_timeout,
        })
    }

    /// A wallet on a node of one's own, with the default limits.
    #[must_use]
    pub fn on(node: Arc<dyn Node>) -> Self {
        Self {
            node,
            max_fee_msat: DEFAULT_MAX_FEE_MSAT,
            max_fee_ppm: None,
            max_total_sat: None,
            payment_timeout: DEFAULT_PAYMENT_TIMEOUT,
        }
    }

    /// See [`WalletConfig::max_fee_msat`].
    #[must_use]
    pub fn max_fee_msat(mut self, msat: u64) -> Self {
        self.max_fee_msat = msat;
        self
    }

    /// See [`WalletConfig::max_fee_ppm`].
    #[must_use]
    pub fn max_fee_ppm(mut self, ppm: u64) -> Self {
        self.max_fee_ppm = Some(ppm);
        self
    }

    /// See [`WalletConfig::max_total_sat`].
    #[must_use]
    pub fn max_total_sat(mut self, sat: u64) -> Self {
        self.max_total_sat = Some(sat);
        self
    }

    /// See [`WalletConfig::payment_timeout`](field@WalletConfig::payment_timeout).
    #[must_use]
    pub fn payment_timeout(mut self, timeout: Duration) -> Self {
        self.payment_timeout = timeout;
        self
    }

    pub(crate) fn fee_limit_msat(&self, amount_msat: u64) -> u64 {
        let relative = self.max_fee_ppm.map_or(u128::MAX, |ppm| {
            u128::from(amount_msat).saturating_mul(ppm.into()) / 1_000_000
        });
        let relative = u64::try_from(relative).unwrap_or(u64::MAX);
        self.max_fee_msat.min(relative)
    }

    /// The invoice, the moment by which it must be paid, and the worst case in sats.
    fn examine(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Charge, Details>,
    ) -> Result<(Invoice, Timestamp, u64), PayError> {
        if ask.request.currency != CURRENCY {
            let why = format!("the currency is not \"{CURRENCY}\"");
            return Err(PayError::Unsupported(why));
        }
        let (theirs, ours) = (ask.details.network, self.node.network());
        if theirs != ours {
            let why = format!("it is for {theirs} and this wallet's node is on {ours}");
            return Err(PayError::Unsupported(why));
        }
        let refused = |why: String| PayError::Refused(why);
        let invoice = Invoice::check(ask.request.amount, &ask.details)
            .map_err(|disagreement| refused(disagreement.to_string()))?;
        let deadline = match &cx.challenge.expires {
            Some(expires) if *expires < invoice.expires => expires.clone(),
            _ => invoice.expires.clone(),
        };
        if deadline <= Timestamp::now() {
            return Err(refused("the invoice or its challenge has expired".into()));
        }
        let total = self.check_total(invoice.amount_msat)?;
        Ok((invoice, deadline, total))
    }

    /// What an invoice may cost with its routing fee, sats.
    pub(crate) fn check_total(&self, amount_msat: u64) -> Result<u64, PayError> {
        let total_msat = amount_msat.saturating_add(self.fee_limit_msat(amount_msat));
        let total = total_msat.div_ceil(1_000);
        match self.max_total_sat {
            Some(most) if total > most => Err(PayError::Refused(format!(
                "it may cost {total} sat with its routing fee; the wallet's limit is {most} sat"
            ))),
            _ => Ok(total),
        }
    }

    /// What became of a payment that this wallet's node was told to make, by its payment hash, in
    /// this process or an earlier one; `None` when the node never sent it. Waits at most `wait` for
    /// it to end. Paying the same challenge again has the same effect as long as it holds: the node
    /// answers with the payment that it made.
    pub async fn track(&self, payment: PaymentHash, wait: Duration) -> Option<Payment> {
        self.node.track(payment, wait).await
    }

    /// Asks once more for a payment of which nobody knows how it ended.
    pub(crate) async fn resolve(&self, payment: PaymentHash, unknown: NodeError) -> Payment {
        match self.node.track(payment, RESOLVE_WAIT).await {
            // "Never sent" may only mean "not yet", and a failure may be an earlier attempt's: the
            // request can still be on its way.
            None | Some(Payment::Failed(_) | Payment::Unsent(_)) => Payment::Unknown(unknown),
            Some(found) => found,
        }
    }
}

/// A node's reason for not paying.
#[derive(Debug, thiserror::Error)]
#[error("the payment failed: {why}; routing was allowed {max_fee_msat} msat")]
struct NotSent {
    why: String,
    max_fee_msat: u64,
}

impl Wallet<Charge> for LightningWallet {
    const METHOD: &'static str = crate::METHOD;
    type Details = Details;
    type Payload = Payload;

    fn price(&self, cx: &Paying<'_>, ask: &Ask<Charge, Details>) -> Result<Cost, PayError> {
        let (invoice, _, total) = self.examine(cx, ask)?;
        Ok(Cost {
            amount: Amount::new(total.into()),
            currency: CURRENCY.into(),
            recipient: Some(invoice.payee),
        })
    }

    async fn funded(&self, cost: &Cost) -> bool {
        match self.node.balance_msat().await {
            Ok(balance) => u128::from(balance) >= cost.amount.get().saturating_mul(1_000),
            Err(_) => true,
        }
    }

    async fn pay(
        &self,
        cx: &Paying<'_>,
        ask: Ask<Charge, Details>,
        approved: Approved,
    ) -> Result<Paid<Payload>, PayError> {
        let (invoice, deadline, _) = self.examine(cx, &ask)?;
        let approved_msat = approved.cost().amount.get().saturating_mul(1_000);
        let left = approved_msat.checked_sub(invoice.amount_msat.into());
        let Some(left) = left else {
            return Err(PayError::Refused("it costs more than was approved".into()));
        };
        let max_fee_msat = self
            .fee_limit_msat(invoice.amount_msat)
            .min(u64::try_from(left).unwrap_or(u64::MAX));
        // A payment that ends after the challenge has lapsed buys nothing.
        let remaining = deadline.unix_millis() - Timestamp::now().unix_millis();
        let remaining = Duration::from_millis(u64::try_from(remaining).unwrap_or(0));
        let order = SendOrder::new(
            invoice.bolt11.clone(),
            invoice.payment_hash,
            max_fee_msat,
            self.payment_timeout.min(remaining),
        );
        let payment = match self.node.pay(order).await {
            Payment::Unknown(error) => self.resolve(invoice.payment_hash, error).await,
            ended => ended,
        };
        match payment {
            Payment::Succeeded { preimage, .. } => Ok(Paid::new(proof(preimage))),
            Payment::Failed(why) => {
                let fault = Fault::new("paying a Lightning invoice")
                    .caused_by(NotSent { why, max_fee_msat });
                Err(PayError::NotPaid(fault))
            }
            Payment::Unsent(error) => {
                let fault = Fault::new("paying a Lightning invoice").caused_by(error);
                Err(PayError::NotPaid(fault))
            }
            Payment::Unknown(error) => {
                let fault = Fault::new("paying a Lightning invoice").caused_by(error);
                Err(PayError::Unknown(fault))
            }
        }
    }
}

fn proof(preimage: Preimage) -> Payload {
    Payload {
        preimage: Some(preimage),
    }
}

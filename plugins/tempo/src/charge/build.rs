//! Building what a wallet signs, and broadcasting it where the server does not.

use std::{
    fmt,
    num::NonZeroU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy::{
    primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex, keccak256},
    signers::Signer,
};
use async_trait::async_trait;
use farebox_core::{Fault, PayError, Paying};
use farebox_proof::sign_hash;
use tempo_contracts::precompiles::STABLECOIN_DEX_ADDRESS;
use tempo_primitives::{
    TempoTransaction,
    transaction::{
        Call, SignedKeyAuthorization, TEMPO_EXPIRING_NONCE_KEY, TempoSignature,
        calc_gas_balance_spending,
    },
};

use crate::{
    TempoWallet,
    chain::Receipt,
    charge::calls::{TokenCall, Transfers},
    charge::sponsor::{FLOOR, SponsorLimits},
    charge::swap::Swap,
    charge::tx::{request, with_key},
    charge::wallet::Account,
    envelope,
    explain::{never_taken, not_taken_now, payers_fault},
    rpc::RpcError,
};

/// How long a signed transaction can be included, in seconds. A chain takes no expiring nonce that
/// lasts longer than 30.
const WINDOW: u64 = 25;

/// Below this a transaction is not worth signing: a node takes none that ends within 3 seconds.
pub(crate) const SHORTEST: u64 = 5;

/// What a sponsored transaction must have beside the sponsor's floor: the time until it is there.
pub(crate) const ON_THE_WAY: u64 = 2;

/// The least gas limit to sign. Unused gas is not charged, new state is dear on Tempo (250 000 a
/// slot), and some servers simulate on nodes that price a batch of calls as a contract creation.
pub(crate) const LEAST_GAS: u64 = 1_000_000;

/// The least for each transfer of several: a node that ignores `calls` estimates one of them.
pub(crate) const GAS_A_TRANSFER: u64 = 300_000;

/// For buying the token first: an allowance, a purchase, and balances that were not there.
const SWAP_GAS: u64 = 1_400_000;

/// For each slot that a key's authorisation takes: nodes may not know of it when they estimate.
const GAS_A_SLOT: u64 = 260_000;

/// The dearest gas to pay for, attodollars (1e-18 USD): a budget does not see the fee, and a node
/// could name any. A transfer then costs a few cents at most.
pub(crate) const DEAREST_GAS: u128 = 100_000_000_000;

/// How long to look for the receipt of a transaction whose broadcast has no known outcome.
const LOOK: Duration = Duration::from_secs(2);

/// Between attempts to hand over a transaction that a node does not take for now.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
];

/// A wallet that builds, signs and broadcasts by itself and hands nobody a signed transaction: a
/// custodian's, a browser's. Payments with it go in push mode.
#[async_trait]
pub trait Broadcaster: fmt::Debug + Send + Sync + 'static {
    /// The account that pays.
    fn address(&self) -> Address;

    /// Makes one transaction of these calls, in this order, all of them or none, and returns its
    /// hash once it is broadcast. `until` is when it must be included at the latest, Unix seconds.
    ///
    /// # Errors
    /// [`PayError::NotPaid`] only if nothing was broadcast and nothing will be; otherwise
    /// [`PayError::Unknown`].
    async fn send(&self, calls: &[TokenCall], until: u64) -> Result<B256, PayError>;
}

impl TempoWallet {
    /// The signed transaction of these transfers, hexadecimal. Nothing has moved yet. A sponsored one
    /// leaves the fee token and the fee payer's place open.
    pub(crate) async fn sign(
        &self,
        cx: &Paying<'_>,
        transfers: &Transfers,
        sponsored: bool,
    ) -> Result<String, PayError> {
        let Account::Signs(key) = &self.account else {
            let why = "it takes a signature, and this wallet can only broadcast";
            return Err(PayError::Unsupported(why.to_owned()));
        };
        let tx = self.prepare(cx, transfers, sponsored).await?;
        let raw = if sponsored {
            key.seal_open(tx).await?
        } else {
            key.seal(tx).await?
        };
        Ok(hex::encode_prefixed(raw))
    }

    /// Broadcasts a transaction of these transfers, and its hash.
    pub(crate) async fn push(
        &self,
        cx: &Paying<'_>,
        transfers: &Transfers,
    ) -> Result<B256, PayError> {
        match &self.account {
            Account::Sends(broadcaster) => {
                let end = end_of_window(cx, SHORTEST)?;
                broadcaster.send(&transfers.calls(), end).await
            }
            Account::Signs(key) => {
                let tx = self.prepare(cx, transfers, false).await?;
                let raw = key.seal(tx).await?;
                self.broadcast(&raw.into()).await
            }
        }
    }

    /// Sends, again where the node says that it has not taken the transaction and may take it in a
    /// moment, and looks for the receipt where the answer got lost. A hash of which nothing is known
    /// is presented all the same: the server asks again until it is in a block, and a payment that
    /// was made is not lost.
    pub(crate) async fn broadcast(&self, raw: &Bytes) -> Result<B256, PayError> {
        let hash = keccak256(raw);
        let reverted = || {
            let text = "the transaction was included and reverted; nothing was transferred";
            PayError::NotPaid(Fault::new("the payment failed").caused_by(text))
        };
        let mut pauses = PAUSES.into_iter();
        let error = loop {
            let error = match self.submit(raw).await {
                Ok(receipt) if receipt.transaction_hash == hash => {
                    return receipt.succeeded().then_some(hash).ok_or_else(reverted);
                }
                Ok(_) => RpcError::Unreadable("eth_sendRawTransactionSync"),
                Err(error) if error.was_not_sent() => return Err(not_paid(error)),
                Err(error) => error,
            };
            match &error {
                RpcError::Refused(refused) if not_taken_now(refused) => {}
                _ => break error,
            }
            // One node that looks at the chain at another moment says something else.
            let Some(pause) = pauses.next() else {
                break error;
            };
            tracing::debug!(%hash, %error, "a transaction is not taken yet");
            tokio::time::sleep(pause).await;
        };
        let refused = match &error {
            RpcError::Refused(refused) => never_taken(refused) || not_taken_now(refused),
            _ => false,
        };
        match self.chain.await_receipt(hash, LOOK).await {
            Ok(Some(receipt)) if receipt.transaction_hash == hash => {
                receipt.succeeded().then_some(hash).ok_or_else(reverted)
            }
            // Nobody but this wallet has the transaction, and it is forgotten here.
            Ok(None) if refused => Err(not_paid(error)),
            _ => {
                tracing::warn!(%hash, %error, "a broadcast has no known outcome");
                Ok(hash)
            }
        }
    }

    /// Sends once and waits for the receipt, if the node does.
    async fn submit(&self, raw: &Bytes) -> Result<Receipt, RpcError> {
        match self.chain.send_sync(raw).await {
            Err(RpcError::Refused(refused)) if refused.code == -32601 => {
                self.chain.send(raw).await?;
                Err(RpcError::Unreadable("eth_sendRawTransactionSync"))
            }
            answer => answer,
        }
    }

    /// Gas and price filled in; nothing has been signed yet.
    async fn prepare(
        &self,
        cx: &Paying<'_>,
        transfers: &Transfers,
        sponsored: bool,
    ) -> Result<TempoTransaction, PayError> {
        let least = if sponsored {
            FLOOR + ON_THE_WAY
        } else {
            SHORTEST
        };
        let end = end_of_window(cx, least)?;
        let call = |call: TokenCall| Call {
            to: TxKind::Call(call.to),
            value: U256::ZERO,
            input: call.input,
        };
        let mut tx = TempoTransaction {
            chain_id: self.chain.id(),
            fee_token: self.fee_token.or(transfers.pays_in()),
            calls: transfers.calls().into_iter().map(call).collect(),
            nonce_key: TEMPO_EXPIRING_NONCE_KEY,
            valid_before: NonZeroU64::new(end),
            ..TempoTransaction::default()
        };
        if let Account::Signs(key) = &self.account {
            tx.key_authorization = key.riding(&self.chain).await.map_err(PayError::NotPaid)?;
        }
        let least = GAS_A_TRANSFER.saturating_mul(transfers.transfers.len() as u64);
        match transfers.swap {
            None => self.price_gas(&mut tx, least, sponsored).await?,
            Some(swap) => self.price_swap(&mut tx, swap, least, sponsored).await?,
        }
        if !sponsored {
            self.check_fee(&tx, transfers).await?;
        }
        Ok(tx)
    }

    /// Whether the account can pay the fee as well, since a node says of it only that funds are short.
    async fn check_fee(&self, tx: &TempoTransaction, calls: &Transfers) -> Result<(), PayError> {
        let Some(token) = tx.fee_token else {
            return Ok(());
        };
        // A node that does not answer now is asked to take the transaction in a moment.
        let Ok(held) = self.chain.balance(token, self.address()).await else {
            return Ok(());
        };
        let fee = calc_gas_balance_spending(tx.gas_limit, tx.max_fee_per_gas);
        let need = fee.saturating_add(calls.takes(token));
        if held >= need {
            return Ok(());
        }
        let why = format!(
            "the account holds {held} base units of {token}, in which it pays the network fee; with \
             the fee the payment may take {need}. Tempo has no native gas token: fund the account \
             with the stablecoin fee token, or name another as `fee_token`"
        );
        Err(PayError::NotPaid(
            Fault::new("the payment would fail").caused_by(why),
        ))
    }

    /// Fills in gas for a payment whose token is bought first. Nodes that simulate one call of several
    /// would find that the account does not hold the token yet, so the exchange is asked instead.
    async fn price_swap(
        &self,
        tx: &mut TempoTransaction,
        swap: Swap,
        least: u64,
        sponsored: bool,
    ) -> Result<(), PayError> {
        let quote = self.chain.view(STABLECOIN_DEX_ADDRESS, swap.quote());
        let (quote, price) = tokio::join!(quote, self.chain.gas_price());
        let cost = Swap::read_quote(&quote.map_err(not_paid)?);
        let cost = cost.ok_or_else(|| not_paid(RpcError::Unreadable("a quote")))?;
        if cost > swap.most {
            let (token, most) = (swap.token_in, swap.most);
            let why = format!(
                "buying it takes {cost} base units of {token}, at most {most} may be given"
            );
            return Err(PayError::NotPaid(
                Fault::new("the token asked for is too dear now").caused_by(why),
            ));
        }
        let price = affordable(price.map_err(not_paid)?)?;
        self.set_gas(tx, 0, SWAP_GAS.saturating_add(least), price, sponsored);
        Ok(())
    }

    /// Fills in the gas limit, `least` at least unless a sponsor would not pay for it, and its price.
    pub(crate) async fn price_gas(
        &self,
        tx: &mut TempoTransaction,
        least: u64,
        sponsored: bool,
    ) -> Result<(), PayError> {
        let mut simulation = request(self.address(), tx, false);
        if let Account::Signs(key) = &self.account {
            with_key(&mut simulation, key.by());
        }
        let (gas, price) = tokio::join!(self.chain.estimate(&simulation), self.chain.gas_price());
        let (gas, price) = (gas.map_err(not_paid)?, price.map_err(not_paid)?);
        let price = affordable(price)?;
        // Room for state that changes until inclusion, and for a base fee that rises meanwhile.
        let gas = gas.saturating_add(gas / 5);
        self.set_gas(tx, gas, least.max(LEAST_GAS), price, sponsored);
        Ok(())
    }

    /// Gas for the calls, and for the key that may ride along. Where somebody else pays, what is only
    /// assumed ends where sponsors usually do; what a node has found does not.
    fn set_gas(
        &self,
        tx: &mut TempoTransaction,
        estimated: u64,
        assumed: u64,
        price: u128,
        sponsored: bool,
    ) {
        let slots = tx.key_authorization.as_ref().map_or(0, slots);
        let granting = GAS_A_SLOT.saturating_mul(slots as u64);
        let gas = estimated.max(assumed).saturating_add(granting);
        let usual = SponsorLimits::of_chain(self.chain.id()).gas;
        tx.gas_limit = match sponsored {
            true => gas.min(usual).max(estimated),
            false => gas,
        };
        tx.max_fee_per_gas = price.saturating_mul(2);
        tx.max_priority_fee_per_gas = price / 10;
    }
}

/// What gas may cost.
fn affordable(price: u128) -> Result<u128, PayError> {
    if price <= DEAREST_GAS {
        return Ok(price);
    }
    let why = format!("gas costs {price} attodollars; this wallet pays {DEAREST_GAS}");
    Err(PayError::NotPaid(
        Fault::new("the network fee is too high").caused_by(why),
    ))
}

/// At most as many slots as a key's authorisation takes in a keychain.
fn slots(grant: &SignedKeyAuthorization) -> usize {
    let scopes = grant.allowed_calls.iter().flatten();
    let scopes = scopes.map(|scope| {
        let rules = scope.selector_rules.iter();
        let rules = rules.map(|rule| 3 + 2 * rule.recipients.len());
        3 + rules.sum::<usize>()
    });
    let limits = grant.limits.as_ref().map_or(0, Vec::len);
    1 + 2 * limits + scopes.sum::<usize>()
}

/// The signed transaction's bytes.
pub(crate) async fn seal(
    signer: &(dyn Signer + Send + Sync),
    tx: TempoTransaction,
) -> Result<Vec<u8>, PayError> {
    let signature = sign_hash(signer, &tx.signature_hash())
        .await
        .map_err(PayError::NotPaid)?;
    let mut raw = Vec::new();
    tx.into_signed(TempoSignature::from(signature))
        .eip2718_encode(&mut raw);
    Ok(raw)
}

/// The bytes of a signed transaction that leaves the fee token and the fee payer's place open.
pub(crate) async fn seal_open(
    signer: &(dyn Signer + Send + Sync),
    mut tx: TempoTransaction,
) -> Result<Vec<u8>, PayError> {
    mark_open(&mut tx);
    let signature = sign_hash(signer, &tx.signature_hash())
        .await
        .map_err(PayError::NotPaid)?;
    tx.fee_payer_signature = None;
    let signed = tx.into_signed(TempoSignature::from(signature));
    // Not reached: what was built here has every field.
    envelope::write(&signed, signer.address())
        .ok_or_else(|| PayError::NotPaid(Fault::new("a sponsored transaction cannot be written")))
}

/// Marks the fee payer's place, as the payer signs it.
pub(crate) fn mark_open(tx: &mut TempoTransaction) {
    tx.fee_token = None;
    tx.fee_payer_signature = Some(Signature::new(U256::ZERO, U256::ZERO, false));
}

/// When a transaction that answers no challenge has to be in a block, Unix seconds.
pub(crate) fn end_of_window_from_now() -> u64 {
    now().saturating_add(WINDOW)
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// When a transaction that is signed now has to be in a block, Unix seconds; in `least` seconds at
/// the earliest.
pub(crate) fn end_of_window(cx: &Paying<'_>, least: u64) -> Result<u64, PayError> {
    let now = now();
    let expires = cx
        .challenge
        .expires
        .as_ref()
        .map(|at| at.unix_millis().div_euclid(1000));
    let expires = expires.map_or(u64::MAX, |at| u64::try_from(at).unwrap_or(0));
    let end = now.saturating_add(WINDOW).min(expires);
    if end < now.saturating_add(least) {
        return Err(PayError::Refused(
            "it expires too soon to be paid".to_owned(),
        ));
    }
    Ok(end)
}

/// Before anything is signed or sent, every failure means that nothing moves.
pub(crate) fn not_paid(error: RpcError) -> PayError {
    let why = match &error {
        RpcError::Refused(refused) => payers_fault(refused),
        _ => None,
    };
    PayError::NotPaid(match why {
        Some(text) => Fault::new("the payment would fail").caused_by(text),
        None => Fault::unavailable("preparing a tempo transaction").caused_by(error),
    })
}

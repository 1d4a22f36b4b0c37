//! Paying: building and signing the transaction that a challenge asks for.

use std::{
    fmt,
    num::NonZeroU64,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use alloy::{
    primitives::{Address, TxKind, U256, hex},
    signers::Signer,
};
use farebox_core::{Approved, Ask, Charge, Cost, Fault, Paid, PayError, Paying, Wallet};
use farebox_proof::{Proven, Realms, Source, sign_hash, sign_proof, terms};
use serde::Serialize;
use tempo_primitives::{
    TempoTransaction,
    transaction::{Call, TEMPO_EXPIRING_NONCE_KEY, TempoSignature},
};

use crate::{
    Details,
    chain::{Chain, Transfer},
    explain::payers_fault,
    memo,
    rpc::RpcError,
    tx::request,
};

/// How long a signed transaction can be included, in seconds. A chain takes no expiring nonce that
/// lasts longer than 30.
const WINDOW: u64 = 25;

/// Below this a transaction is not worth signing: a node takes none that ends within 3 seconds.
const SHORTEST: u64 = 5;

/// The least gas limit to sign. Unused gas is not charged, new state is dear on Tempo (250 000 a
/// slot), and some servers simulate on nodes that price a batch of calls as a contract creation.
const LEAST_GAS: u64 = 1_000_000;

/// The dearest gas to pay for, attodollars (1e-18 USD): a budget does not see the fee, and a node
/// could name any. A transfer then costs a few cents at most.
const DEAREST_GAS: u128 = 100_000_000_000;

/// Pays `tempo/charge`: a transfer in pull mode, or a proof where the amount is zero.
#[derive(Clone)]
pub struct TempoWallet {
    pub(crate) signer: Arc<dyn Signer + Send + Sync>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) currency: Option<Address>,
    pub(crate) fee_token: Option<Address>,
    pub(crate) realms: Realms,
}

impl fmt::Debug for TempoWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TempoWallet")
            .field("address", &self.signer.address())
            .field("chain_id", &self.chain.id())
            .finish_non_exhaustive()
    }
}

/// What the wallet presents: a signed transaction that the server broadcasts, or a proof.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Payment(Form);

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Form {
    Transaction {
        #[serde(rename = "type")]
        kind: &'static str,
        signature: String,
    },
    Proof(Proven),
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payment([redacted])")
    }
}

fn unsupported<T>(why: impl Into<String>) -> Result<T, PayError> {
    Err(PayError::Unsupported(why.into()))
}

fn refused<T>(why: impl Into<String>) -> Result<T, PayError> {
    Err(PayError::Refused(why.into()))
}

impl TempoWallet {
    /// The same wallet with another signer of raw hashes: a KMS, a remote wallet.
    pub fn with_signer(mut self, signer: impl Signer + Send + Sync + 'static) -> Self {
        self.signer = Arc::new(signer);
        self
    }

    /// The account that pays.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Reads a priced request. Everything is checked before anything is signed, and the bytes that
    /// are signed come from here.
    fn transfer(&self, cx: &Paying<'_>, ask: &Ask<Charge, Details>) -> Result<Transfer, PayError> {
        if ask.details.fee_payer == Some(true) {
            return unsupported("the server wants to pay the network fee, which needs sponsoring");
        }
        if ask
            .details
            .splits
            .as_ref()
            .is_some_and(|splits| !splits.is_empty())
        {
            return unsupported("the payment is split between several recipients");
        }
        let modes = ask.details.supported_modes.as_deref();
        if modes.is_some_and(|modes| !modes.iter().any(|mode| mode == "pull")) {
            return unsupported("it does not take a signed transaction (pull mode)");
        }
        let Ok(token) = ask.request.currency.parse::<Address>() else {
            return unsupported("its currency is no token address");
        };
        if self.currency.is_some_and(|own| own != token) {
            return unsupported(format!("it is in the token {token}"));
        }
        // A call to anything else would be a call of the server's choice in our name.
        if !terms::is_token(token) {
            return refused("its currency is no TIP-20 token");
        }
        let recipient = ask.request.recipient.as_deref().unwrap_or_default();
        let Ok(to) = recipient.parse::<Address>() else {
            return refused("its recipient is no address");
        };
        if to.is_zero() || to == self.signer.address() || terms::is_token(to) {
            return refused("its recipient is the zero address, a token or this wallet itself");
        }
        Ok(Transfer {
            token,
            from: self.signer.address(),
            to,
            amount: U256::from(ask.request.amount.get()),
            memo: ask
                .details
                .memo
                .unwrap_or_else(|| memo::attribution(cx.challenge)),
        })
    }

    fn check_chain(&self, details: &Details) -> Result<(), PayError> {
        let own = self.chain.id();
        match details.chain_id {
            Some(asked) if asked == own => Ok(()),
            Some(asked) => unsupported(format!(
                "it is for chain {asked}, this wallet pays on {own}"
            )),
            // The drafts disagree on the default.
            None => unsupported("it names no chain"),
        }
    }

    /// Gas and price filled in; nothing has been signed yet.
    async fn prepare(
        &self,
        cx: &Paying<'_>,
        transfer: &Transfer,
    ) -> Result<TempoTransaction, PayError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let expires = cx
            .challenge
            .expires
            .as_ref()
            .map(|at| at.unix_millis().div_euclid(1000));
        let expires = expires.map_or(u64::MAX, |at| u64::try_from(at).unwrap_or(0));
        let end = now.saturating_add(WINDOW).min(expires);
        if end < now.saturating_add(SHORTEST) {
            return refused("it expires too soon to be paid");
        }
        let mut tx = TempoTransaction {
            chain_id: self.chain.id(),
            fee_token: Some(self.fee_token.unwrap_or(transfer.token)),
            calls: vec![Call {
                to: TxKind::Call(transfer.token),
                value: U256::ZERO,
                input: transfer.input(),
            }],
            nonce_key: TEMPO_EXPIRING_NONCE_KEY,
            valid_before: NonZeroU64::new(end),
            ..TempoTransaction::default()
        };
        let simulation = request(transfer.from, &tx, false);
        let (gas, price) = tokio::join!(self.chain.estimate(&simulation), self.chain.gas_price());
        let (gas, price) = (gas.map_err(not_paid)?, price.map_err(not_paid)?);
        if price > DEAREST_GAS {
            let why = format!("gas costs {price} attodollars; this wallet pays {DEAREST_GAS}");
            return Err(PayError::NotPaid(
                Fault::new("the network fee is too high").caused_by(why),
            ));
        }
        // Room for state that changes until inclusion, and for a base fee that rises meanwhile.
        tx.gas_limit = gas.saturating_add(gas / 5).max(LEAST_GAS);
        tx.max_fee_per_gas = price.saturating_mul(2);
        tx.max_priority_fee_per_gas = price / 10;
        Ok(tx)
    }
}

/// Before anything is signed, every failure means that nothing moves.
fn not_paid(error: RpcError) -> PayError {
    let why = match &error {
        RpcError::Refused(refused) => payers_fault(refused),
        _ => None,
    };
    PayError::NotPaid(match why {
        Some(text) => Fault::new("the payment would fail").caused_by(text),
        None => Fault::unavailable("preparing a tempo transaction").caused_by(error),
    })
}

impl Wallet<Charge> for TempoWallet {
    const METHOD: &'static str = "tempo";
    type Details = Details;
    type Payload = Payment;

    fn price(&self, cx: &Paying<'_>, ask: &Ask<Charge, Details>) -> Result<Cost, PayError> {
        self.check_chain(&ask.details)?;
        let amount = ask.request.amount;
        if amount.is_zero() {
            self.realms.check(&cx.challenge.realm, cx.host)?;
            return Ok(Cost {
                amount,
                currency: ask.request.currency.to_ascii_lowercase(),
                recipient: ask.request.recipient.clone(),
            });
        }
        // Written anew: an address has several spellings, and limits go by the text.
        let transfer = self.transfer(cx, ask)?;
        Ok(Cost {
            amount,
            currency: format!("{:#x}", transfer.token),
            recipient: Some(transfer.to.to_string()),
        })
    }

    async fn funded(&self, cost: &Cost) -> bool {
        let (Ok(token), false) = (cost.currency.parse(), cost.amount.is_zero()) else {
            return true;
        };
        let balance = self.chain.balance(token, self.signer.address()).await;
        balance.map_or(true, |balance| balance >= U256::from(cost.amount.get()))
    }

    async fn pay(
        &self,
        cx: &Paying<'_>,
        ask: Ask<Charge, Details>,
        approved: Approved,
    ) -> Result<Paid<Payment>, PayError> {
        let cost = self.price(cx, &ask)?;
        let limit = approved.cost();
        if cost.amount > limit.amount || cost.currency != limit.currency {
            return refused("it costs more than was approved");
        }
        let (chain_id, address) = (self.chain.id(), self.signer.address());
        if cost.amount.is_zero() {
            let paid = sign_proof(self.signer.as_ref(), chain_id, cx.challenge).await;
            let Paid {
                payload, source, ..
            } = paid.map_err(PayError::NotPaid)?;
            return Ok(Paid {
                payload: Payment(Form::Proof(payload)),
                source,
            });
        }
        let tx = self.prepare(cx, &self.transfer(cx, &ask)?).await?;
        let signature = sign_hash(self.signer.as_ref(), &tx.signature_hash())
            .await
            .map_err(PayError::NotPaid)?;
        let mut raw = Vec::new();
        tx.into_signed(TempoSignature::from(signature))
            .eip2718_encode(&mut raw);
        let signature = hex::encode_prefixed(raw);
        let payload = Payment(Form::Transaction {
            kind: "transaction",
            signature,
        });
        Ok(Paid::new(payload).by(Source { chain_id, address }.to_string()))
    }
}

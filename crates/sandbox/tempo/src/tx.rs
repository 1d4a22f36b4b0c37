//! Signed transactions: decoding, who signed and who pays, and the checks a node makes before it
//! lets one into its pool.

use std::num::NonZeroU64;

use alloy::{
    consensus::{Transaction, transaction::SignerRecoverable},
    eips::eip2718::Decodable2718,
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
};
use tempo_primitives::{
    TempoTxEnvelope,
    transaction::{calc_gas_balance_spending, validate_calls},
};

use crate::{
    error::RpcError,
    exec::{Message, Payment, intrinsic_gas, resolve_fee_token},
    keychain::{self, Grant},
    ledger::{Ledger, Slot},
};

/// Gas one block, and therefore one transaction, may use.
pub(crate) const BLOCK_GAS_LIMIT: u64 = 30_000_000;

/// A transaction must stay valid this much longer than now, in seconds, to enter the pool.
const MIN_REMAINING: u64 = 3;

/// The furthest `valid_before` of an expiring nonce (TIP-1009), in seconds from now.
const MAX_EXPIRY: u64 = 30;

/// What keeps a transaction from being included twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// The next number of a sequence; key zero is the protocol nonce.
    Sequence { key: U256, nonce: u64 },
    /// Included once before `valid_before`, known by an id that no fee payer can change.
    Expiring { id: B256, valid_before: u64 },
}

/// A transaction whose signatures have been checked.
#[derive(Clone, Debug)]
pub(crate) struct Tx {
    pub(crate) envelope: TempoTxEnvelope,
    pub(crate) hash: B256,
    pub(crate) sender: Address,
    pub(crate) fee_payer: Address,
    pub(crate) replay: Replay,
    pub(crate) calls: Vec<(Address, Bytes)>,
    keys: Keys,
}

/// Keys besides the account's own.
#[derive(Clone, Debug, Default)]
struct Keys {
    /// The access key that signed for the sender, and its type.
    signed: Option<(Address, u8)>,
    /// The key that the transaction adds.
    grant: Option<Grant>,
}

/// What the chain is like at the moment of a check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) chain_id: u64,
    pub(crate) base_fee: u64,
    /// Unix seconds.
    pub(crate) now: u64,
}

impl Tx {
    /// Decodes an EIP-2718 envelope and recovers its signers.
    ///
    /// # Errors
    /// -32602 for bytes that are no transaction, -32003 for one that this chain can never execute.
    pub(crate) fn decode(raw: &[u8]) -> Result<Self, RpcError> {
        if raw.is_empty() {
            return Err(RpcError::params("Empty transaction data"));
        }
        let mut rest = raw;
        let envelope = TempoTxEnvelope::decode_2718(&mut rest)
            .ok()
            .filter(|_| rest.is_empty())
            .ok_or_else(|| RpcError::params("Failed to decode transaction"))?;
        check_supported(&envelope)?;
        let calls = envelope
            .calls()
            .map(|(to, input)| match to {
                TxKind::Call(to) => Ok((to, input.clone())),
                TxKind::Create => Err(RpcError::rejected("contract creation is not supported")),
            })
            .collect::<Result<_, _>>()?;
        let sender = match &envelope {
            // A system transaction carries an empty signature and would recover to nobody.
            TempoTxEnvelope::Legacy(_) if envelope.is_system_tx() => None,
            _ => envelope.recover_signer().ok(),
        }
        .ok_or_else(|| RpcError::rejected("invalid signature"))?;
        let fee_payer = envelope
            .fee_payer(sender)
            .map_err(|_| RpcError::rejected("invalid fee payer signature"))?;
        let replay = match envelope.as_aa().map(|aa| aa.tx()) {
            Some(tx) if tx.is_expiring_nonce_tx() => Replay::Expiring {
                id: envelope.unique_tx_identifier(sender),
                valid_before: tx.valid_before.map_or(0, NonZeroU64::get),
            },
            Some(tx) => Replay::Sequence {
                key: tx.nonce_key,
                nonce: tx.nonce,
            },
            None => Replay::Sequence {
                key: U256::ZERO,
                nonce: envelope.nonce(),
            },
        };
        let keys = keys(&envelope, sender)?;
        Ok(Self {
            hash: keccak256(raw),
            envelope,
            sender,
            fee_payer,
            replay,
            calls,
            keys,
        })
    }

    /// The pool's checks, in the order of a real node: what cannot be included now or later.
    ///
    /// # Errors
    /// -32003 or -32000 with the reason.
    pub(crate) fn admit(&self, ledger: &Ledger, head: Head) -> Result<(), RpcError> {
        let tx = &self.envelope;
        if tx.chain_id() != Some(head.chain_id) {
            return Err(RpcError::rejected("invalid chain id for signer"));
        }
        if tx.gas_limit() > BLOCK_GAS_LIMIT {
            let text = "intrinsic gas too high -- tx.gas_limit > env.block.gas_limit";
            return Err(RpcError::new(-32000, text));
        }
        if tx.gas_limit() < self.intrinsic(ledger) {
            return Err(RpcError::rejected("intrinsic gas too low"));
        }
        if tx.max_fee_per_gas() < u128::from(head.base_fee) {
            return Err(RpcError::rejected(
                "max fee per gas less than block base fee",
            ));
        }
        if tx
            .max_priority_fee_per_gas()
            .is_some_and(|tip| tip > tx.max_fee_per_gas())
        {
            return Err(RpcError::rejected(
                "max priority fee per gas higher than max fee per gas",
            ));
        }
        if !tx.value().is_zero() {
            return Err(RpcError::rejected("native value transfer not allowed"));
        }
        self.check_window(head.now)?;
        self.check_replay(ledger)?;
        self.check_fee(ledger)?;
        self.check_keys(ledger, head.now)
    }

    fn check_window(&self, now: u64) -> Result<(), RpcError> {
        if let Some(before) = self.envelope.valid_before()
            && before <= now.saturating_add(MIN_REMAINING)
        {
            return Err(RpcError::rejected(format!(
                "Tempo tx valid_before ({before}) must be > current time + {MIN_REMAINING}s ({})",
                now.saturating_add(MIN_REMAINING)
            )));
        }
        if let Replay::Expiring { valid_before, .. } = self.replay {
            if valid_before == 0 || valid_before > now.saturating_add(MAX_EXPIRY) {
                return Err(RpcError::rejected(format!(
                    "expiring nonce needs valid_before within {MAX_EXPIRY}s"
                )));
            }
            if self.envelope.nonce() != 0 {
                return Err(RpcError::rejected("expiring nonce needs nonce 0"));
            }
        }
        Ok(())
    }

    fn check_replay(&self, ledger: &Ledger) -> Result<(), RpcError> {
        match self.replay {
            Replay::Expiring { id, .. } if ledger.is_spent(&id) => {
                Err(RpcError::rejected("expiring nonce already used"))
            }
            Replay::Sequence { key, nonce } if nonce < ledger.nonce(self.sender, key) => {
                Err(RpcError::rejected("nonce too low"))
            }
            _ => Ok(()),
        }
    }

    fn check_fee(&self, ledger: &Ledger) -> Result<(), RpcError> {
        let token = self.fee_token(ledger);
        let have = ledger.balance(token, self.fee_payer);
        let need =
            calc_gas_balance_spending(self.envelope.gas_limit(), self.envelope.max_fee_per_gas());
        if ledger.token(token).is_none() || have < need {
            return Err(RpcError::rejected(format!(
                "insufficient fee token balance: have {have}, need {need}"
            )));
        }
        Ok(())
    }

    /// Whether the key that comes along can be added, and the one that signed may sign and pay.
    fn check_keys(&self, ledger: &Ledger, now: u64) -> Result<(), RpcError> {
        let grant = self.keys.grant.as_ref();
        if let Some(failure) = grant.and_then(|grant| grant.objection(ledger, self.sender, now)) {
            let why = RpcError::from(failure).message().to_owned();
            return Err(RpcError::rejected(format!("key authorization: {why}")));
        }
        let Some((key, kind)) = self.keys.signed else {
            return Ok(());
        };
        let fee = (self.fee_payer == self.sender).then(|| {
            let (gas, price) = (self.envelope.gas_limit(), self.envelope.max_fee_per_gas());
            (
                self.fee_token(ledger),
                calc_gas_balance_spending(gas, price),
            )
        });
        let objection = match grant {
            Some(grant) if grant.key == key => {
                let short = fee.is_some_and(|(token, most)| {
                    grant.allowance(token).is_some_and(|left| left < most)
                });
                if grant.kind != kind {
                    Some("access key is of another type")
                } else {
                    short.then_some("fee exceeds the access key's spending limit")
                }
            }
            Some(_) => Some("key authorization needs the account's own key"),
            None => keychain::objection(ledger, now, (self.sender, key), kind, fee),
        };
        objection.map_or(Ok(()), |why| Err(RpcError::rejected(why)))
    }

    fn fee_token(&self, ledger: &Ledger) -> Address {
        resolve_fee_token(
            ledger,
            self.envelope.fee_token(),
            self.fee_payer,
            &self.calls,
        )
    }

    fn intrinsic(&self, ledger: &Ledger) -> u64 {
        let grant = self.keys.grant.as_ref().map_or(0, Grant::gas);
        intrinsic_gas(ledger, self.sender, self.replay, &self.calls).saturating_add(grant)
    }

    /// What to execute, paying `price` per gas.
    pub(crate) fn message(&self, ledger: &Ledger, base_fee: u64) -> Message {
        let token = self.fee_token(ledger);
        let price = self.envelope.effective_gas_price(Some(base_fee));
        Message {
            sender: self.sender,
            calls: self.calls.clone(),
            intrinsic: self.intrinsic(ledger),
            gas_limit: self.envelope.gas_limit(),
            context: self.envelope.unique_tx_identifier(self.sender),
            key: self.keys.signed.map_or(Address::ZERO, |(key, _)| key),
            grant: self.keys.grant.clone(),
            fee: Some(Payment {
                token,
                payer: self.fee_payer,
                price,
            }),
        }
    }

    /// Whether the transaction's turn has come.
    pub(crate) fn readiness(&self, ledger: &Ledger, now: u64) -> Readiness {
        if self
            .envelope
            .valid_before()
            .is_some_and(|before| before <= now)
            || self.check_replay(ledger).is_err()
            || self.check_fee(ledger).is_err()
            || self.check_keys(ledger, now).is_err()
        {
            return Readiness::Never;
        }
        let waits = self.envelope.valid_after().is_some_and(|after| after > now);
        let gap = matches!(self.replay, Replay::Sequence { key, nonce } if nonce > ledger.nonce(self.sender, key));
        if waits || gap {
            Readiness::Later
        } else {
            Readiness::Now
        }
    }

    /// Uses up the nonce or the expiring id.
    pub(crate) fn consume(&self, ledger: &mut Ledger) {
        match self.replay {
            Replay::Expiring { id, valid_before } => ledger.spend(id, valid_before),
            Replay::Sequence { key, nonce } => {
                let slot = Slot::Nonce {
                    account: self.sender,
                    key,
                };
                ledger.set(slot, U256::from(nonce.saturating_add(1)));
            }
        }
    }
}

/// When a pooled transaction can be included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Now,
    Later,
    Never,
}

fn keys(envelope: &TempoTxEnvelope, sender: Address) -> Result<Keys, RpcError> {
    let Some(aa) = envelope.as_aa() else {
        return Ok(Keys::default());
    };
    let signed = match aa.signature().as_keychain() {
        Some(signed) if signed.is_legacy() => {
            let text = "keychain signatures of version 1 are no longer accepted";
            return Err(RpcError::rejected(text));
        }
        Some(signed) => {
            let key = signed.key_id(&aa.signature_hash());
            let key = key.map_err(|_| RpcError::rejected("invalid signature"))?;
            Some((key, signed.signature.signature_type().into()))
        }
        None => None,
    };
    let chain_id = aa.tx().chain_id;
    let grant = aa.tx().key_authorization.as_ref();
    let grant = grant
        .map(|signed| Grant::carried(signed, sender, chain_id))
        .transpose();
    let grant = grant.map_err(RpcError::rejected)?;
    Ok(Keys { signed, grant })
}

/// Features of the envelope this chain does not have: it says so instead of ignoring them.
fn check_supported(envelope: &TempoTxEnvelope) -> Result<(), RpcError> {
    if envelope.authorization_list().is_some() {
        return Err(RpcError::rejected("EIP-7702 is not supported"));
    }
    let Some(aa) = envelope.as_aa() else {
        return Ok(());
    };
    let tx = aa.tx();
    if !tx.tempo_authorization_list.is_empty() {
        return Err(RpcError::rejected("authorization lists are not supported"));
    }
    validate_calls(&tx.calls, false).map_err(RpcError::rejected)?;
    tx.validate().map_err(RpcError::rejected)
}

//! A signed transaction: reading it, and whether it pays for a challenge. No I/O.

use alloy::{
    eips::eip2718::Decodable2718,
    primitives::{Address, B256, Bytes, TxKind, U64, hex},
    sol_types::SolCall,
};
use farebox_core::Rejection;
use farebox_wire::{Challenge, Problem, Timestamp};
use serde_json::{Value, json};
use tempo_contracts::precompiles::ITIP20;
use tempo_primitives::{
    AASigned, TempoTransaction,
    transaction::{Call, TEMPO_EXPIRING_NONCE_KEY, TEMPO_TX_TYPE_ID},
};

use crate::{
    chain::Transfer,
    charge::{
        legs::{self, Asked},
        swap::Swap,
    },
    envelope::FEE_PAYER_ENVELOPE,
    keys::SignedBy,
};

/// How long a transaction must still be valid, in seconds: a node takes none that ends within 3.
const SOONEST: u64 = 4;

/// A transaction whose signature has been checked.
#[derive(Debug)]
pub(crate) struct SignedTx {
    signed: AASigned,
    /// Canonical encoding; what is broadcast and what the hash is of.
    pub(crate) raw: Bytes,
    pub(crate) sender: Address,
    /// With which of the sender's keys.
    pub(crate) by: SignedBy,
    pub(crate) hash: B256,
    /// The same for every signature over this payload by this sender: the chain includes one.
    pub(crate) unique: B256,
}

fn no(detail: impl Into<String>) -> Rejection {
    Rejection::verification(detail)
}

impl SignedTx {
    /// Reads hexadecimal text that an account's own key has signed.
    ///
    /// # Errors
    /// If it is no signed type-0x76 transaction, or the signature is nobody's or an access key's.
    pub(crate) fn read(text: &str) -> Result<Self, Rejection> {
        let signed = Self::read_any(text)?;
        if signed.by.key.is_some() || signed.tx().key_authorization.is_some() {
            return Err(no(
                "access keys are not accepted here; sign with the account's own key",
            ));
        }
        Ok(signed)
    }

    /// Reads hexadecimal text that any key has signed. Of an access key only the chain can tell whose
    /// it is: see [`SignedBy::may_spend`].
    ///
    /// # Errors
    /// If it is no signed type-0x76 transaction, or the signature is nobody's.
    pub(crate) fn read_any(text: &str) -> Result<Self, Rejection> {
        let shape = || {
            Rejection::malformed(
                "the payload's `signature` is no signed Tempo transaction (0x76…, hexadecimal)",
            )
        };
        let bytes = hex::decode(text.strip_prefix("0x").ok_or_else(shape)?).map_err(|_| shape())?;
        match bytes.first() {
            Some(&TEMPO_TX_TYPE_ID) => {}
            Some(&FEE_PAYER_ENVELOPE) => return Err(sponsored()),
            Some(_) => return Err(no("only Tempo transactions (type 0x76) are accepted")),
            None => return Err(shape()),
        }
        let mut rest = bytes.as_slice();
        let signed = AASigned::decode_2718(&mut rest).map_err(|_| shape())?;
        if !rest.is_empty() {
            return Err(shape());
        }
        Self::of(signed)
    }

    /// A transaction that has been read already, its signature checked anew.
    ///
    /// # Errors
    /// If the signature is nobody's.
    pub(crate) fn of(signed: AASigned) -> Result<Self, Rejection> {
        let by = SignedBy::of(signed.signature(), &signed.signature_hash())?;
        let sender = by.account;
        let mut raw = Vec::new();
        signed.eip2718_encode(&mut raw);
        let (hash, unique) = (*signed.hash(), signed.expiring_nonce_hash(sender));
        Ok(Self {
            signed,
            raw: raw.into(),
            sender,
            by,
            hash,
            unique,
        })
    }

    pub(crate) fn tx(&self) -> &TempoTransaction {
        self.signed.tx()
    }

    /// Checks everything that can be checked without the chain, and says what will be moved and
    /// until when.
    ///
    /// # Errors
    /// The first thing that differs from what was asked for.
    pub(crate) fn check(
        &self,
        asked: &Asked<'_>,
        chain_id: u64,
        now: &Timestamp,
    ) -> Result<(Vec<Transfer>, u64), Rejection> {
        let end = self.frame(asked.challenge, chain_id, now)?;
        let transfers = self.transfers(asked)?;
        if self.sender == asked.recipient {
            return Err(no("the payer and the recipient are the same account"));
        }
        Ok((transfers, end))
    }

    /// Checks what has nothing to do with the calls, and says until when it can be included.
    ///
    /// # Errors
    /// The first thing that is not accepted.
    pub(crate) fn frame(
        &self,
        challenge: &Challenge,
        chain_id: u64,
        now: &Timestamp,
    ) -> Result<u64, Rejection> {
        let tx = self.tx();
        if tx.chain_id != chain_id {
            let is = tx.chain_id;
            return Err(no(format!(
                "the transaction is for chain {is}, not {chain_id}"
            )));
        }
        if tx.fee_payer_signature.is_some() {
            return Err(sponsored());
        }
        if !tx.tempo_authorization_list.is_empty() {
            return Err(no(
                "a transaction with an authorization list is not accepted",
            ));
        }
        self.nonce()?;
        if tx.max_priority_fee_per_gas > tx.max_fee_per_gas {
            return Err(no(
                "the transaction's max_priority_fee_per_gas is higher than its max_fee_per_gas",
            ));
        }
        self.window(challenge, now)
    }

    /// The last `count` calls as transfers, which somebody has checked.
    ///
    /// # Errors
    /// If one of them is none.
    pub(crate) fn last_transfers(&self, count: usize) -> Result<Vec<Transfer>, Rejection> {
        let calls = self.tx().calls.as_slice();
        let (_, last) = calls.split_at(calls.len().saturating_sub(count));
        let transfer = |call: &Call| {
            let made = legs::transfer(&call.input, self.sender)?;
            Ok(Transfer {
                token: call.to.to().copied().unwrap_or_default(),
                from: made.from,
                to: made.to,
                amount: made.amount,
                memo: made.memo,
            })
        };
        last.iter().map(transfer).collect()
    }

    /// Expiring nonces only, which is what mppx and mpp sign unless told otherwise. A simulation
    /// does not say whether another nonce is the account's next, and a transaction that waits for
    /// the ones before it would hold up its settlement until its window closes, for nothing.
    fn nonce(&self) -> Result<(), Rejection> {
        let tx = self.tx();
        if tx.nonce_key != TEMPO_EXPIRING_NONCE_KEY {
            return Err(no(
                "the transaction needs an expiring nonce (nonce_key 2^256 - 1)",
            ));
        }
        if tx.nonce != 0 {
            return Err(no("an expiring transaction has the nonce 0"));
        }
        Ok(())
    }

    /// The calls there may be, in any order: the transfers asked for and nothing else, but for buying
    /// the token first. With other
    /// calls among them, what all of them move together could not be told from the calls alone.
    fn transfers(&self, asked: &Asked<'_>) -> Result<Vec<Transfer>, Rejection> {
        let calls = self.tx().calls.as_slice();
        let calls = match Swap::of(self.tx())? {
            Some(swap) => {
                swap.buys(asked.token, asked.total())?;
                calls.get(2..).unwrap_or_default()
            }
            None => calls,
        };
        if calls.len() != asked.len() {
            let (calls, asked) = (calls.len(), asked.len());
            let plural = if asked == 1 {
                "one, transferWithMemo"
            } else {
                "one a transfer"
            };
            return Err(no(format!(
                "the transaction has {calls} calls where {asked} are asked for; it must have {plural}"
            )));
        }
        let transfers: Vec<Transfer> = calls
            .iter()
            .map(|call| self.transfer(call, asked))
            .collect::<Result<_, _>>()?;
        if let [transfer] = transfers.as_slice() {
            only(transfer, asked)?;
        }
        let made: Vec<_> = transfers.iter().map(Transfer::made).collect();
        asked.check(&made)?;
        Ok(transfers)
    }

    fn transfer(&self, call: &Call, asked: &Asked<'_>) -> Result<Transfer, Rejection> {
        let token = asked.token;
        if call.to != TxKind::Call(token) {
            return Err(no(format!(
                "the transaction does not call the token asked for, {token}"
            )));
        }
        if !call.value.is_zero() {
            return Err(no(
                "the call carries a native value, which Tempo does not have",
            ));
        }
        let from = self.sender;
        let (to, amount, memo) = if call.input.starts_with(&ITIP20::transferCall::SELECTOR) {
            let plain = ITIP20::transferCall::abi_decode(&call.input)
                .map_err(|_| no("the transaction's call is not transferWithMemo"))?;
            (plain.to, plain.amount, None)
        } else {
            let made = ITIP20::transferWithMemoCall::abi_decode(&call.input)
                .map_err(|_| no("the transaction's call is not transferWithMemo"))?;
            (made.to, made.amount, Some(made.memo))
        };
        let transfer = Transfer {
            token,
            from,
            to,
            amount,
            memo,
        };
        // One transfer, one encoding: no bytes after the arguments, no dirty padding.
        if transfer.input() != call.input {
            return Err(no(
                "the call's arguments are not in their canonical encoding",
            ));
        }
        Ok(transfer)
    }

    /// When the window closes, Unix seconds. Without an end the transaction could be included long
    /// after everyone has given the payment up.
    fn window(&self, challenge: &Challenge, now: &Timestamp) -> Result<u64, Rejection> {
        let tx = self.tx();
        let end = tx
            .valid_before
            .ok_or_else(|| no("the transaction needs a valid_before within the challenge's time"))?
            .get();
        let now = u64::try_from(now.unix_millis().div_euclid(1000)).unwrap_or(0);
        if end < now.saturating_add(SOONEST) {
            return Err(no(
                "the transaction's valid_before has passed or is too close; sign it again",
            ));
        }
        if let Some(expires) = &challenge.expires {
            // Rounded up: a client cannot say half a second.
            let limit = expires.unix_millis().saturating_add(999).div_euclid(1000);
            if i64::try_from(end).map_or(true, |end| end > limit) {
                return Err(no("the transaction is valid for longer than the challenge"));
            }
        }
        if tx.valid_after.is_some_and(|start| start.get() > now) {
            return Err(no("the transaction's valid_after lies in the future"));
        }
        Ok(end)
    }

    /// The request that simulates it, with all that decides whether a node would include it.
    pub(crate) fn simulation(&self) -> Value {
        let mut request = request(self.sender, self.tx(), true);
        with_key(&mut request, self.by);
        request
    }
}

/// What is wrong with the one transfer there is, in its own words.
fn only(transfer: &Transfer, asked: &Asked<'_>) -> Result<(), Rejection> {
    if transfer.memo.is_none() {
        return Err(no(
            "a plain transfer names no challenge; call transferWithMemo with the attribution memo",
        ));
    }
    if transfer.to != asked.recipient {
        let (to, asked) = (transfer.to, asked.recipient);
        return Err(no(format!("the transfer goes to {to}, not to {asked}")));
    }
    if transfer.amount != asked.rest {
        let (is, asked) = (transfer.amount, asked.rest);
        let text = format!("the transfer is of {is} base units, {asked} are asked for");
        return Err(if is < asked {
            Rejection::new(Problem::PaymentInsufficient, text)
        } else {
            no(text)
        });
    }
    Ok(())
}

fn sponsored() -> Rejection {
    no("sponsored transactions are not accepted here; sign one that pays its own fee")
}

/// The request that simulates what somebody else pays the fee of: the sender pays no gas, so its
/// price is left out, and the limit is kept.
pub(crate) fn sponsored_request(by: SignedBy, tx: &TempoTransaction) -> Value {
    let mut request = request(by.account, tx, false);
    with_key(&mut request, by);
    request["gas"] = json!(U64::from(tx.gas_limit));
    request
}

/// Which key signs, where a node asks what it may.
pub(crate) fn with_key(request: &mut Value, by: SignedBy) {
    if let Some(key) = by.key {
        request["keyId"] = json!(key.id);
        request["keyType"] = json!(key.kind);
    }
}

/// `tx` as `eth_call` and `eth_estimateGas` take it. The last call is written the way that every
/// node reads, and the ones before it under `calls`, which a Tempo node puts before it and anvil
/// ignores. With `priced`, the sender must also afford the gas.
pub(crate) fn request(from: Address, tx: &TempoTransaction, priced: bool) -> Value {
    let quantity = |n: u128| json!(alloy::primitives::U128::from(n));
    let mut request = json!({
        "type": "0x76",
        "chainId": quantity(tx.chain_id.into()),
        "from": from,
        "nonceKey": tx.nonce_key,
        "nonce": quantity(tx.nonce.into()),
    });
    if let Some((last, before)) = tx.calls.split_last() {
        request["to"] = json!(last.to.to());
        request["data"] = json!(last.input);
        if !before.is_empty() {
            request["calls"] = before
                .iter()
                .map(|call| json!({ "to": call.to.to(), "value": "0x0", "input": call.input }))
                .collect();
        }
    }
    if let Some(token) = tx.fee_token {
        request["feeToken"] = json!(token);
    }
    for (name, bound) in [
        ("validBefore", tx.valid_before),
        ("validAfter", tx.valid_after),
    ] {
        if let Some(bound) = bound {
            request[name] = quantity(bound.get().into());
        }
    }
    if let Some(authorization) = &tx.key_authorization {
        request["keyAuthorization"] = json!(authorization);
    }
    if priced {
        request["gas"] = quantity(tx.gas_limit.into());
        request["maxFeePerGas"] = quantity(tx.max_fee_per_gas);
        request["maxPriorityFeePerGas"] = quantity(tx.max_priority_fee_per_gas);
    }
    request
}

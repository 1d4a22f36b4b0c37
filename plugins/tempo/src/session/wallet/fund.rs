//! The transactions of a payer: opening, topping up, and getting the money back by force.

use std::num::NonZeroU64;

use alloy::{
    primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex},
    sol_types::SolCall,
};
use farebox_core::{Fault, OpenChannel, PayError, Paying};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};
use tempo_contracts::precompiles::ITIP20ChannelReserve::{
    openCall, requestCloseCall, topUpCall, withdrawCall,
};
use tempo_primitives::{
    AASigned, TempoTransaction,
    transaction::{Call, TEMPO_EXPIRING_NONCE_KEY, TempoSignature},
};

use super::{SessionHeld, TempoSessionWallet, Terms};
use crate::{
    charge::{
        build::{
            ON_THE_WAY, SHORTEST, end_of_window, end_of_window_from_now, mark_open, not_paid, seal,
            seal_open,
        },
        sponsor::FLOOR,
    },
    session::channel::{Descriptor, u96},
};

/// More than a charge's: a channel is new state, and so may be the reserve's balance.
const LEAST_GAS: u64 = 1_200_000;

/// A deposit or top-up that is worked out. The transaction is not signed, so it can only be sent by
/// whoever has the key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Movement {
    pub(crate) amount: Amount,
    tx: TempoTransaction,
    sponsored: bool,
    /// The block at which it was worked out; nothing before it is about it.
    pub(crate) since: u64,
}

impl Movement {
    /// When its window closes, Unix seconds.
    pub(crate) fn end(&self) -> u64 {
        self.tx.valid_before.map_or(0, NonZeroU64::get)
    }
}

impl TempoSessionWallet {
    /// A new channel, and the transaction that opens it. Its id follows from what will be signed,
    /// not from the signature.
    pub(super) async fn draft_deposit(
        &self,
        cx: &Paying<'_>,
        terms: &Terms,
        deposit: Amount,
    ) -> Result<SessionHeld, PayError> {
        let mut salt = B256::ZERO;
        getrandom::fill(salt.as_mut_slice())
            .map_err(|_| PayError::NotPaid(Fault::new("the system has no random numbers")))?;
        let call = openCall {
            payee: terms.payee,
            operator: terms.operator,
            token: terms.token,
            deposit: u96(deposit.get()),
            salt,
            authorizedSigner: Address::ZERO,
        };
        let movement = self
            .movement(cx, terms, call.abi_encode().into(), deposit)
            .await?;
        Ok(SessionHeld {
            descriptor: Descriptor {
                payer: self.address(),
                payee: terms.payee,
                operator: terms.operator,
                token: terms.token,
                salt,
                authorized_signer: Address::ZERO,
                expiring_nonce_hash: unique(&movement.tx, self.address()),
            },
            chain_id: terms.domain.chain_id(),
            escrow: terms.domain.escrow(),
            deposit: Amount::ZERO,
            movement: Some(movement),
        })
    }

    /// More money for an open channel.
    pub(super) async fn draft_addition(
        &self,
        cx: &Paying<'_>,
        terms: &Terms,
        channel: &OpenChannel<SessionHeld>,
        additional: Amount,
    ) -> Result<SessionHeld, PayError> {
        let call = topUpCall {
            descriptor: channel.held.descriptor.abi(),
            additionalDeposit: u96(additional.get()),
        };
        let mut movement = self
            .movement(cx, terms, call.abi_encode().into(), additional)
            .await?;
        if let Some(last) = &channel.held.movement
            && last.tx.valid_before == movement.tx.valid_before
        {
            // Two top-ups alike would be one transaction, which moves money once.
            let gas = last.tx.gas_limit.saturating_add(1);
            movement.tx.gas_limit = movement.tx.gas_limit.max(gas);
        }
        Ok(SessionHeld {
            deposit: channel.deposit,
            movement: Some(movement),
            ..channel.held.clone()
        })
    }

    async fn movement(
        &self,
        cx: &Paying<'_>,
        terms: &Terms,
        input: Bytes,
        amount: Amount,
    ) -> Result<Movement, PayError> {
        let least = if terms.sponsored {
            FLOOR + ON_THE_WAY
        } else {
            SHORTEST
        };
        let end = end_of_window(cx, least)?;
        let head = self.base.chain.head();
        let tx = self.transaction(terms.domain.escrow(), terms.token, input, end);
        let (tx, head) = tokio::join!(tx, head);
        let (mut tx, (since, _)) = (tx?, head.map_err(not_paid)?);
        if terms.sponsored {
            mark_open(&mut tx);
        }
        Ok(Movement {
            amount,
            tx,
            sponsored: terms.sponsored,
            since,
        })
    }

    async fn transaction(
        &self,
        escrow: Address,
        token: Address,
        input: Bytes,
        end: u64,
    ) -> Result<TempoTransaction, PayError> {
        let mut tx = TempoTransaction {
            chain_id: self.base.chain.id(),
            fee_token: self.base.fee_token.or(Some(token)),
            calls: vec![Call {
                to: TxKind::Call(escrow),
                value: U256::ZERO,
                input,
            }],
            nonce_key: TEMPO_EXPIRING_NONCE_KEY,
            valid_before: NonZeroU64::new(end),
            ..TempoTransaction::default()
        };
        self.base.price_gas(&mut tx, LEAST_GAS, false).await?;
        Ok(tx)
    }

    /// The transaction of a recorded draft, signed. However often it is signed, the chain includes
    /// it once.
    pub(super) async fn signed(&self, held: &SessionHeld) -> Result<String, PayError> {
        let movement = held.movement.as_ref();
        let movement = movement
            .ok_or_else(|| PayError::NotPaid(Fault::new("a draft without its transaction")))?;
        let signer = self.signer()?;
        let tx = movement.tx.clone();
        let raw = if movement.sponsored {
            seal_open(signer, tx).await?
        } else {
            seal(signer, tx).await?
        };
        Ok(hex::encode_prefixed(raw))
    }

    /// Asks the chain for the money back, where a server does not close. It gives no more service
    /// then, and after the reserve's grace period of 15 minutes [`withdraw`](Self::withdraw) pays
    /// out what was not settled.
    ///
    /// # Errors
    /// [`PayError::NotPaid`] if the transaction was not sent or has failed.
    pub async fn request_close(&self, held: &SessionHeld) -> Result<B256, PayError> {
        let descriptor = held.descriptor.abi();
        let call = requestCloseCall { descriptor };
        self.send(held, call.abi_encode().into()).await
    }

    /// Takes back what was not settled, once the grace period after
    /// [`request_close`](Self::request_close) has passed.
    ///
    /// # Errors
    /// As [`request_close`](Self::request_close).
    pub async fn withdraw(&self, held: &SessionHeld) -> Result<B256, PayError> {
        let descriptor = held.descriptor.abi();
        let call = withdrawCall { descriptor };
        self.send(held, call.abi_encode().into()).await
    }

    async fn send(&self, held: &SessionHeld, input: Bytes) -> Result<B256, PayError> {
        let end = end_of_window_from_now();
        let tx = self.transaction(held.escrow, held.descriptor.token, input, end);
        let raw = seal(self.signer()?, tx.await?).await?;
        self.base.broadcast(&raw.into()).await
    }
}

/// What the chain knows a transaction of `sender` by: the payload, not the signature.
fn unique(tx: &TempoTransaction, sender: Address) -> B256 {
    let nobodys = Signature::new(U256::ZERO, U256::ZERO, false);
    AASigned::new_unhashed(tx.clone(), TempoSignature::from(nobodys)).expiring_nonce_hash(sender)
}

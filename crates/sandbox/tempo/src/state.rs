//! The node: ledger, blocks, pool and clock. One transaction to a block, so that a receipt's block
//! says everything about when it happened.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy::{
    consensus::{
        Header, Sealable, Sealed, TxReceipt,
        proofs::{calculate_receipt_root, calculate_transaction_root},
    },
    primitives::{Address, B256, Bloom, Log, U256, logs_bloom},
};
use tempo_primitives::{TempoHeader, TempoReceipt};

use crate::{
    chain::ChainConfig,
    contracts::Setting,
    error::RpcError,
    exec::{Executed, Message, run},
    ledger::Ledger,
    tx::{BLOCK_GAS_LIMIT, Head, Readiness, Replay, Tx},
};

/// A transaction in a block.
#[derive(Clone, Debug)]
pub(crate) struct Included {
    pub(crate) tx: Tx,
    pub(crate) success: bool,
    pub(crate) gas_used: u64,
    pub(crate) price: u128,
    pub(crate) fee_token: Address,
    pub(crate) logs: Vec<Log>,
    pub(crate) bloom: Bloom,
}

/// A sealed block: empty, or one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) header: Sealed<TempoHeader>,
    pub(crate) included: Option<Box<Included>>,
}

impl Block {
    pub(crate) fn number(&self) -> u64 {
        self.header.inner.number
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) paused: bool,
    chain_id: u64,
    base_fee: u64,
    refuse_known: bool,
    blocks: Vec<Block>,
    by_hash: HashMap<B256, u64>,
    pool: Vec<Tx>,
    /// How far the chain's clock runs ahead of the machine's.
    ahead: Duration,
    close_grace: Duration,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    Included,
    Pooled,
    /// Left the pool without being included.
    Gone,
}

impl State {
    pub(crate) fn new(ledger: Ledger, config: &ChainConfig) -> Self {
        let mut state = Self {
            ledger,
            paused: false,
            chain_id: config.chain_id,
            base_fee: config.base_fee,
            refuse_known: config.refuse_known,
            blocks: Vec::new(),
            by_hash: HashMap::new(),
            pool: Vec::new(),
            ahead: Duration::ZERO,
            close_grace: config.close_grace,
        };
        state.seal(state.next_millis(), None);
        state
    }

    pub(crate) fn head(&self) -> Head {
        Head {
            chain_id: self.chain_id,
            base_fee: self.base_fee,
            now: self.millis() / 1000,
        }
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.ahead = self.ahead.saturating_add(by);
    }

    pub(crate) fn ahead(&self) -> Duration {
        self.ahead
    }

    /// Height of the newest block.
    pub(crate) fn height(&self) -> u64 {
        self.blocks.len().saturating_sub(1) as u64
    }

    pub(crate) fn block(&self, number: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn block_by_hash(&self, hash: &B256) -> Option<&Block> {
        self.blocks
            .iter()
            .rev()
            .find(|block| block.header.seal() == *hash)
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The block that holds a transaction.
    pub(crate) fn included(&self, hash: &B256) -> Option<(&Block, &Included)> {
        let block = self.block(*self.by_hash.get(hash)?)?;
        Some((block, block.included.as_ref()?))
    }

    pub(crate) fn pooled(&self, hash: &B256) -> Option<&Tx> {
        self.pool.iter().find(|tx| tx.hash == *hash)
    }

    pub(crate) fn whereabouts(&self, hash: &B256) -> Whereabouts {
        match (self.by_hash.contains_key(hash), self.pooled(hash)) {
            (true, _) => Whereabouts::Included,
            (false, Some(_)) => Whereabouts::Pooled,
            (false, None) => Whereabouts::Gone,
        }
    }

    /// The nonce the account would use next, counting the pool's unbroken run.
    pub(crate) fn pending_nonce(&self, account: Address) -> u64 {
        let mut next = self.ledger.nonce(account, U256::ZERO);
        let waiting = |nonce| {
            self.pool.iter().any(|tx| {
                tx.sender == account
                    && tx.replay
                        == Replay::Sequence {
                            key: U256::ZERO,
                            nonce,
                        }
            })
        };
        while waiting(next) {
            next += 1;
        }
        next
    }

    /// Takes a transaction into the pool and includes what is due. The same bytes again are answered
    /// with the hash when `again_ok`, unless this chain is set to refuse them.
    ///
    /// # Errors
    /// The pool's reasons; "already imported" for known bytes.
    pub(crate) fn submit(&mut self, raw: &[u8], again_ok: bool) -> Result<B256, RpcError> {
        let tx = Tx::decode(raw)?;
        let hash = tx.hash;
        if self.whereabouts(&hash) != Whereabouts::Gone {
            if again_ok && !self.refuse_known {
                return Ok(hash);
            }
            return Err(RpcError::rejected("transaction already imported"));
        }
        tx.admit(&self.ledger, self.head())?;
        self.pool.push(tx);
        self.mine();
        Ok(hash)
    }

    /// Includes every transaction whose turn has come, and forgets those whose turn never will.
    pub(crate) fn mine(&mut self) {
        if self.paused {
            return;
        }
        let now = self.head().now;
        let mut at = 0;
        while let Some(tx) = self.pool.get(at) {
            match tx.readiness(&self.ledger, now) {
                Readiness::Later => at += 1,
                Readiness::Never => drop(self.pool.remove(at)),
                Readiness::Now => {
                    let tx = self.pool.remove(at);
                    self.include(tx);
                    // It may have closed a gap before one already passed over.
                    at = 0;
                }
            }
        }
    }

    /// One beat of the chain: due transactions, or an empty block.
    pub(crate) fn tick(&mut self) {
        let before = self.height();
        self.ledger.prune_spent(self.head().now);
        self.mine();
        if !self.paused && self.height() == before {
            self.seal(self.next_millis(), None);
        }
    }

    /// Runs a message on the latest state and leaves no trace.
    pub(crate) fn simulate(&mut self, message: &Message) -> Executed {
        let mark = self.ledger.checkpoint();
        let setting = self.setting(self.next_millis());
        let executed = run(&mut self.ledger, setting, message);
        self.ledger.revert(mark);
        executed
    }

    fn include(&mut self, tx: Tx) {
        let message = tx.message(&self.ledger, self.base_fee);
        tx.consume(&mut self.ledger);
        let millis = self.next_millis();
        let setting = self.setting(millis);
        let executed = run(&mut self.ledger, setting, &message);
        self.ledger.commit();
        let fee = message.fee;
        let bloom = logs_bloom(&executed.logs);
        let included = Included {
            success: executed.result.is_ok(),
            gas_used: executed.gas_used,
            price: fee.map(|fee| fee.price).unwrap_or_default(),
            fee_token: fee.map(|fee| fee.token).unwrap_or_default(),
            logs: executed.logs,
            bloom,
            tx,
        };
        self.seal(millis, Some(included));
    }

    fn setting(&self, millis: u64) -> Setting {
        Setting {
            chain_id: self.chain_id,
            now: millis / 1000,
            close_grace: self.close_grace.as_secs(),
        }
    }

    /// When the next block would be.
    fn next_millis(&self) -> u64 {
        let parent = self.blocks.last().map(|block| &block.header);
        // Several blocks may share a second, but not a millisecond.
        let earliest = parent.map_or(0, |header| header.timestamp_millis() + 1);
        self.millis().max(earliest)
    }

    fn seal(&mut self, millis: u64, included: Option<Included>) {
        let parent = self.blocks.last().map(|block| &block.header);
        let mut inner = Header {
            parent_hash: parent.map(Sealed::seal).unwrap_or_default(),
            number: self.blocks.len() as u64,
            gas_limit: BLOCK_GAS_LIMIT,
            timestamp: millis / 1000,
            base_fee_per_gas: Some(self.base_fee),
            ..Header::default()
        };
        if let Some(one) = &included {
            let receipt = TempoReceipt {
                tx_type: one.tx.envelope.tx_type(),
                success: one.success,
                cumulative_gas_used: one.gas_used,
                logs: one.logs.clone(),
            };
            inner.gas_used = one.gas_used;
            inner.logs_bloom = one.bloom;
            inner.transactions_root = calculate_transaction_root(&[&one.tx.envelope]);
            inner.receipts_root = calculate_receipt_root(&[receipt.into_with_bloom()]);
            self.by_hash.insert(one.tx.hash, inner.number);
        }
        let header = TempoHeader {
            general_gas_limit: BLOCK_GAS_LIMIT,
            shared_gas_limit: 0,
            timestamp_millis_part: millis % 1000,
            inner,
            consensus_context: None,
        };
        self.blocks.push(Block {
            header: header.seal_slow(),
            included: included.map(Box::new),
        });
    }

    fn millis(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(now.saturating_add(self.ahead).as_millis()).unwrap_or(u64::MAX)
    }
}

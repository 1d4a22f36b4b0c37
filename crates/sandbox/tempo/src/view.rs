//! How blocks, transactions, receipts and logs look in JSON.

use alloy::{
    consensus::Transaction,
    primitives::{Address, B256, Log, U64, U128, U256},
};
use serde_json::{Map, Value, json};

use crate::{
    state::{Block, Included, State},
    tx::Tx,
};

pub(crate) fn block(block: &Block, full: bool) -> Value {
    let header = &block.header;
    let mut out = object(serde_json::to_value(header.inner()));
    let transactions: Vec<Value> = block
        .included
        .iter()
        .map(|one| {
            if full {
                transaction(&one.tx, Some((block, one)))
            } else {
                json!(one.tx.hash)
            }
        })
        .collect();
    out.insert("hash".into(), json!(header.seal()));
    out.insert(
        "timestampMillis".into(),
        json!(U64::from(header.timestamp_millis())),
    );
    out.insert("totalDifficulty".into(), json!("0x0"));
    out.insert(
        "size".into(),
        json!(U64::from(alloy::consensus::InMemorySize::size(
            &header.inner().inner
        ))),
    );
    out.insert("uncles".into(), json!([]));
    out.insert("transactions".into(), Value::Array(transactions));
    out.into()
}

/// A transaction, with its place when it has one.
pub(crate) fn transaction(tx: &Tx, place: Option<(&Block, &Included)>) -> Value {
    let mut out = object(serde_json::to_value(&tx.envelope));
    let price = place.map_or_else(|| tx.envelope.max_fee_per_gas(), |(_, one)| one.price);
    out.insert("hash".into(), json!(tx.hash));
    out.insert("from".into(), json!(tx.sender));
    out.insert("gasPrice".into(), json!(U128::from(price)));
    out.insert(
        "blockHash".into(),
        json!(place.map(|(block, _)| block.header.seal())),
    );
    out.insert(
        "blockNumber".into(),
        json!(place.map(|(block, _)| U64::from(block.number()))),
    );
    out.insert("transactionIndex".into(), json!(place.map(|_| U64::ZERO)));
    if let Some((block, _)) = place {
        let timestamp = U64::from(block.header.inner().inner.timestamp);
        out.insert("blockTimestamp".into(), json!(timestamp));
    }
    out.into()
}

pub(crate) fn receipt(block: &Block, one: &Included) -> Value {
    let logs: Vec<Value> = (0..)
        .zip(&one.logs)
        .map(|(i, entry)| log(block, one, i, entry))
        .collect();
    json!({
        "type": U64::from(u8::from(one.tx.envelope.tx_type())),
        "status": U64::from(u64::from(one.success)),
        "cumulativeGasUsed": U64::from(one.gas_used),
        "gasUsed": U64::from(one.gas_used),
        "effectiveGasPrice": U128::from(one.price),
        "logs": logs,
        "logsBloom": one.bloom,
        "transactionHash": one.tx.hash,
        "transactionIndex": "0x0",
        "blockHash": block.header.seal(),
        "blockNumber": U64::from(block.number()),
        "from": one.tx.sender,
        "to": one.tx.envelope.to(),
        "contractAddress": null,
        "feePayer": one.tx.fee_payer,
        "feeToken": (one.price > 0).then_some(one.fee_token),
    })
}

fn log(block: &Block, one: &Included, index: u64, log: &Log) -> Value {
    json!({
        "address": log.address,
        "topics": log.topics(),
        "data": log.data.data,
        "blockHash": block.header.seal(),
        "blockNumber": U64::from(block.number()),
        "blockTimestamp": U64::from(block.header.inner().inner.timestamp),
        "transactionHash": one.tx.hash,
        "transactionIndex": "0x0",
        "logIndex": U64::from(index),
        "removed": false,
    })
}

/// What `eth_getLogs` asks for.
#[derive(Debug)]
pub(crate) struct LogFilter {
    pub(crate) blocks: std::ops::RangeInclusive<u64>,
    /// Empty matches any address.
    pub(crate) addresses: Vec<Address>,
    /// By position; an empty list matches any topic, a missing topic nothing else.
    pub(crate) topics: Vec<Vec<B256>>,
}

impl LogFilter {
    fn matches(&self, log: &Log) -> bool {
        let topics = log.topics();
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self.topics.iter().enumerate().all(|(at, any)| {
                any.is_empty() || topics.get(at).is_some_and(|topic| any.contains(topic))
            })
    }
}

pub(crate) fn logs(state: &State, filter: &LogFilter) -> Value {
    let mut found = Vec::new();
    for block in state
        .blocks()
        .iter()
        .filter(|block| filter.blocks.contains(&block.number()))
    {
        let Some(one) = &block.included else { continue };
        for (index, entry) in (0..).zip(&one.logs) {
            if filter.matches(entry) {
                found.push(log(block, one, index, entry));
            }
        }
    }
    found.into()
}

/// `eth_feeHistory` of a chain whose base fee never moves.
pub(crate) fn fee_history(
    state: &State,
    count: u64,
    newest: u64,
    percentiles: Option<usize>,
) -> Value {
    let count = count.clamp(1, newest.saturating_add(1).min(1024));
    let oldest = newest.saturating_add(1).saturating_sub(count);
    let base = U64::from(state.head().base_fee);
    let ratios: Vec<f64> = (oldest..=newest)
        .map(|number| {
            let used = state
                .block(number)
                .map_or(0, |block| block.header.inner().inner.gas_used);
            used as f64 / crate::tx::BLOCK_GAS_LIMIT as f64
        })
        .collect();
    let mut out = json!({
        "oldestBlock": U64::from(oldest),
        "baseFeePerGas": vec![base; ratios.len() + 1],
        "gasUsedRatio": ratios,
    });
    if let Some(columns) = percentiles {
        out["reward"] = json!(vec![vec![U256::ZERO; columns]; ratios.len()]);
    }
    out
}

/// Serializing our own types into JSON cannot fail; were it to, the reply would be an empty object.
fn object(value: Result<Value, serde_json::Error>) -> Map<String, Value> {
    match value {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

//! A chain of our own behind Esplora's HTTP interface: as much of it as LDK reads. Its proof of work
//! is regtest's and no script is run; a transaction that is posted stays in the pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Block, Header, Version};
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::consensus::encode::{deserialize_hex, serialize, serialize_hex};
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::{
    Address, Amount, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, transaction,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// The easiest target there is.
const REGTEST_BITS: u32 = 0x207f_ffff;

pub(crate) struct Chain {
    pub(crate) blocks: Vec<Block>,
    pub(crate) pending: Vec<Transaction>,
}

impl Chain {
    fn mine(&mut self, transactions: Vec<Transaction>) {
        let tip = &self.blocks[self.blocks.len() - 1].header;
        let header = Header {
            version: Version::TWO,
            prev_blockhash: tip.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: tip.time + 600,
            bits: CompactTarget::from_consensus(REGTEST_BITS),
            nonce: u32::try_from(self.blocks.len()).unwrap(),
        };
        let mut block = Block {
            header,
            txdata: transactions,
        };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let target = block.header.target();
        while block.header.validate_pow(target).is_err() {
            block.header.nonce += 1;
        }
        self.blocks.push(block);
    }

    /// Takes a transaction; the answer is its id.
    pub(crate) fn post(&mut self, tx: Transaction) -> String {
        let txid = tx.compute_txid().to_string();
        if self.find(&txid).is_none() {
            self.pending.push(tx);
        }
        txid
    }

    /// Every transaction with the height of its block, the pending ones last.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = (&Transaction, Option<usize>)> {
        let mined = self.blocks.iter().enumerate().skip(1);
        let mined = mined.flat_map(|(at, block)| block.txdata.iter().map(move |tx| (tx, Some(at))));
        mined.chain(self.pending.iter().map(|tx| (tx, None)))
    }

    pub(crate) fn find(&self, txid: &str) -> Option<(&Transaction, Option<usize>)> {
        let mut all = self.transactions();
        all.find(|(tx, _)| tx.compute_txid().to_string() == txid)
    }

    pub(crate) fn spent(&self, output: &OutPoint) -> Option<&TxOut> {
        let (tx, _) = self.find(&output.txid.to_string())?;
        tx.output.get(output.vout as usize)
    }

    fn status(&self, height: Option<usize>) -> Value {
        match height {
            None => json!({ "confirmed": false }),
            Some(at) => json!({
                "confirmed": true,
                "block_height": at,
                "block_hash": self.blocks[at].block_hash().to_string(),
                "block_time": self.blocks[at].header.time,
            }),
        }
    }

    fn describe(&self, tx: &Transaction, height: Option<usize>) -> Value {
        let output = |out: &TxOut| json!({ "value": out.value.to_sat(), "scriptpubkey": format!("{:x}", out.script_pubkey) });
        let inputs = tx.input.iter().map(|input| {
            json!({
                "txid": input.previous_output.txid.to_string(),
                "vout": input.previous_output.vout,
                "prevout": self.spent(&input.previous_output).map(output),
                "scriptsig": "",
                "witness": [],
                "sequence": input.sequence.0,
                "is_coinbase": false,
            })
        });
        json!({
            "txid": tx.compute_txid().to_string(),
            "version": 2,
            "locktime": 0,
            "vin": inputs.collect::<Vec<_>>(),
            "vout": tx.output.iter().map(output).collect::<Vec<_>>(),
            "size": tx.total_size(),
            "weight": tx.weight().to_wu(),
            "status": self.status(height),
            "fee": 0,
        })
    }

    /// The ten blocks up to `height`, newest first.
    fn summaries(&self, height: usize) -> Value {
        let from = height.min(self.blocks.len() - 1);
        let summary = |at: usize| {
            let block = &self.blocks[at];
            let previous = (at > 0).then(|| block.header.prev_blockhash.to_string());
            json!({
                "id": block.block_hash().to_string(),
                "height": at,
                "version": 1,
                "timestamp": block.header.time,
                "tx_count": block.txdata.len(),
                "size": 285,
                "weight": 816,
                "merkle_root": block.header.merkle_root.to_string(),
                "previousblockhash": previous,
                "mediantime": block.header.time,
                "nonce": block.header.nonce,
                "bits": REGTEST_BITS,
                "difficulty": 0,
            })
        };
        Value::Array((0..=from).rev().take(10).map(summary).collect())
    }

    pub(crate) fn block(&self, id: &str) -> Option<usize> {
        let mut blocks = self.blocks.iter();
        blocks.position(|block| block.block_hash().to_string() == id)
    }

    /// What concerns a script, newest first.
    fn by_script(&self, wanted: &str) -> Value {
        let is =
            |out: &TxOut| sha256::Hash::hash(out.script_pubkey.as_bytes()).to_string() == wanted;
        let concerned = self.transactions().filter(|(tx, _)| {
            let mut spent = tx
                .input
                .iter()
                .filter_map(|i| self.spent(&i.previous_output));
            tx.output.iter().any(is) || spent.any(is)
        });
        let mut found: Vec<_> = concerned.map(|(tx, at)| self.describe(tx, at)).collect();
        found.reverse();
        Value::Array(found)
    }

    pub(crate) fn outspend(&self, output: &OutPoint) -> Value {
        let spender = self.transactions().find_map(|(tx, at)| {
            let input = tx.input.iter().position(|i| i.previous_output == *output)?;
            Some((tx.compute_txid(), input, at))
        });
        match spender {
            None => json!({ "spent": false }),
            Some((txid, input, at)) => json!({
                "spent": true, "txid": txid.to_string(), "vin": input, "status": self.status(at),
            }),
        }
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> Option<Vec<u8>> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let tip = self.blocks.len() - 1;
        let text = match (method.as_str(), parts.as_slice()) {
            ("POST", ["tx"]) => {
                let tx: Transaction = deserialize_hex(std::str::from_utf8(body).ok()?).ok()?;
                self.post(tx)
            }
            ("GET", ["fee-estimates"]) => "{}".into(),
            ("GET", ["blocks", "tip", "hash"]) => self.blocks[tip].block_hash().to_string(),
            ("GET", ["blocks", "tip", "height"]) => tip.to_string(),
            ("GET", ["blocks"]) => self.summaries(tip).to_string(),
            ("GET", ["blocks", height]) => self.summaries(height.parse().ok()?).to_string(),
            ("GET", ["block-height", height]) => {
                let block = self.blocks.get(height.parse::<usize>().ok()?)?;
                block.block_hash().to_string()
            }
            ("GET", ["block", id, "header"]) => serialize_hex(&self.blocks[self.block(id)?].header),
            ("GET", ["block", id, "status"]) => {
                let height = self.block(id)?;
                json!({ "in_best_chain": true, "height": height, "next_best": null }).to_string()
            }
            ("GET", ["scripthash", script, "txs"]) => self.by_script(script).to_string(),
            // A later page.
            ("GET", ["scripthash", _, "txs", ..]) => "[]".into(),
            ("GET", ["tx", id]) => {
                let (tx, at) = self.find(id)?;
                self.describe(tx, at).to_string()
            }
            ("GET", ["tx", id, "status"]) => self.status(self.find(id)?.1).to_string(),
            ("GET", ["tx", id, "raw"]) => return Some(serialize(self.find(id)?.0)),
            ("GET", ["tx", id, "outspend", output]) => {
                let output = OutPoint::new(id.parse().ok()?, output.parse().ok()?);
                self.outspend(&output).to_string()
            }
            _ => return None,
        };
        Some(text.into_bytes())
    }
}

/// A running stand-in; it ends with its handle.
pub struct Esplora {
    chain: Arc<Mutex<Chain>>,
    url: String,
    server: AbortHandle,
}

impl std::fmt::Debug for Esplora {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Esplora({})", self.url)
    }
}

impl Drop for Esplora {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) fn lock(chain: &Mutex<Chain>) -> MutexGuard<'_, Chain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    State(chain): State<Arc<Mutex<Chain>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    match lock(&chain).answer(&method, uri.path(), &body) {
        Some(answer) => (StatusCode::OK, answer),
        None => (StatusCode::NOT_FOUND, Vec::new()),
    }
}

impl Esplora {
    /// A chain of regtest's first block.
    pub async fn start() -> Self {
        let chain = Arc::new(Mutex::new(Chain {
            blocks: vec![genesis_block(Network::Regtest)],
            pending: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(serve).with_state(Arc::clone(&chain));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            chain,
            url,
            server: server.abort_handle(),
        }
    }

    /// The chain, for its other faces.
    pub(crate) fn chain(&self) -> Arc<Mutex<Chain>> {
        Arc::clone(&self.chain)
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Nobody answers there any more.
    pub fn stop(&mut self) {
        self.server.abort();
    }

    /// Gives `sat` to an address out of nothing, and buries it under six blocks.
    pub fn fund(&self, address: &Address, sat: u64) {
        let mut chain = lock(&self.chain);
        let seed = chain.blocks.len() as u64;
        chain.mine(coin(seed, Some((address, sat))));
        for n in 1..=6 {
            chain.mine(coin(seed + n, None));
        }
    }
}

/// A block's reward, and a transaction that spends it at once; `seed` makes them unlike the others.
fn coin(seed: u64, to: Option<(&Address, u64)>) -> Vec<Transaction> {
    let output = to.map(|(address, sat)| TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: address.script_pubkey(),
    });
    let transaction = |previous_output, script_sig, output| Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    };
    let reward = TxOut {
        value: Amount::from_int_btc(50),
        script_pubkey: ScriptBuf::new(),
    };
    let mark = ScriptBuf::from_bytes(seed.to_be_bytes().to_vec());
    let reward = transaction(OutPoint::null(), mark, vec![reward]);
    let from = OutPoint::new(reward.compute_txid(), 0);
    let coin = transaction(from, ScriptBuf::new(), output.into_iter().collect());
    vec![reward, coin]
}

//! The chain of [`esplora`](crate::esplora) behind the two other interfaces that LDK reads: as much
//! of Bitcoin Core's RPC and of an Electrum server as it asks for.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::{Hash as _, sha256, sha256d};
use bitcoin::{OutPoint, Transaction};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::esplora::{Chain, Esplora, lock};

/// The user and the password of the RPC interface.
pub const RPC_USER: &str = "test";
/// `test:test` as `Authorization` carries it.
const RPC_AUTHORIZATION: &str = "Basic dGVzdDp0ZXN0";

/// A server that ends with its handle.
#[derive(Debug)]
pub struct Face {
    port: u16,
    server: AbortHandle,
}

impl Drop for Face {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Face {
    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bitcoin Core's RPC over HTTP.
    pub async fn bitcoind(chain: &Esplora) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(rpc).with_state(chain.chain());
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            port,
            server: server.abort_handle(),
        }
    }

    /// An Electrum server over TCP.
    pub async fn electrum(chain: &Esplora) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let chain = chain.chain();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(electrum(stream, Arc::clone(&chain)));
            }
        });
        Self {
            port,
            server: server.abort_handle(),
        }
    }
}

async fn rpc(
    State(chain): State<Arc<Mutex<Chain>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    if headers
        .get(AUTHORIZATION)
        .is_none_or(|v| v != RPC_AUTHORIZATION)
    {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let ask: Value = serde_json::from_slice(&body).unwrap();
    let (method, params) = (ask["method"].as_str().unwrap(), &ask["params"]);
    let (status, result, error) = match core(&mut lock(&chain), method, params) {
        Some(result) => (StatusCode::OK, result, Value::Null),
        None => {
            let error = json!({ "code": -5, "message": format!("{method}: not found") });
            (StatusCode::INTERNAL_SERVER_ERROR, Value::Null, error)
        }
    };
    let answer = json!({ "result": result, "error": error, "id": ask["id"] });
    (status, answer.to_string())
}

/// What Bitcoin Core answers.
fn core(chain: &mut Chain, method: &str, params: &Value) -> Option<Value> {
    let first = || params[0].as_str();
    let tip = chain.blocks.len() - 1;
    Some(match method {
        "getblockchaininfo" => json!({
            "chain": "regtest",
            "blocks": tip,
            "bestblockhash": chain.blocks[tip].block_hash().to_string(),
        }),
        "getblockhash" => {
            let height = usize::try_from(params[0].as_u64()?).ok()?;
            chain.blocks.get(height)?.block_hash().to_string().into()
        }
        "getblockheader" => {
            let height = chain.block(first()?)?;
            let header = &chain.blocks[height].header;
            let upto = chain.blocks[..=height].iter();
            let work = upto.map(|block| block.header.work()).reduce(|a, b| a + b)?;
            let mut answer = json!({
                "hash": header.block_hash().to_string(),
                "height": height,
                "version": header.version.to_consensus(),
                "merkleroot": header.merkle_root.to_string(),
                "time": header.time,
                "bits": format!("{:08x}", header.bits.to_consensus()),
                "nonce": header.nonce,
                "chainwork": hex::encode(work.to_be_bytes()),
            });
            if height > 0 {
                answer["previousblockhash"] = header.prev_blockhash.to_string().into();
            }
            answer
        }
        "getblock" => serialize_hex(&chain.blocks[chain.block(first()?)?]).into(),
        "getrawmempool" => {
            let pending = chain.pending.iter();
            pending.map(|tx| tx.compute_txid().to_string()).collect()
        }
        "getmempoolentry" => {
            let (_, None) = chain.find(first()?)? else {
                return None;
            };
            json!({ "time": chain.blocks[tip].header.time, "height": tip })
        }
        "getmempoolinfo" => json!({ "mempoolminfee": 0.00001 }),
        "estimatesmartfee" => json!({ "feerate": 0.00001, "blocks": 2 }),
        "getrawtransaction" => serialize_hex(chain.find(first()?)?.0).into(),
        "sendrawtransaction" => {
            let tx: Transaction = deserialize_hex(first()?).ok()?;
            chain.post(tx).into()
        }
        "gettxout" => {
            let vout = u32::try_from(params[1].as_u64()?).ok()?;
            let output = OutPoint::new(first()?.parse().ok()?, vout);
            let unspent = chain.outspend(&output)["spent"] == false;
            match chain.spent(&output).filter(|_| unspent) {
                None => Value::Null,
                Some(out) => json!({
                    "value": out.value.to_btc(),
                    "scriptPubKey": { "hex": out.script_pubkey.to_hex_string() },
                }),
            }
        }
        _ => return None,
    })
}

/// Questions and answers, one a line, until the client goes.
async fn electrum(stream: TcpStream, chain: Arc<Mutex<Chain>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let ask: Value = serde_json::from_str(&line).unwrap();
        let (method, params) = (ask["method"].as_str().unwrap(), &ask["params"]);
        let answer = match index(&mut lock(&chain), method, params) {
            Some(result) => json!({ "jsonrpc": "2.0", "id": ask["id"], "result": result }),
            None => {
                let error = json!({ "code": 1, "message": format!("{method}: unknown") });
                json!({ "jsonrpc": "2.0", "id": ask["id"], "error": error })
            }
        };
        if write
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

/// What an Electrum server answers.
fn index(chain: &mut Chain, method: &str, params: &Value) -> Option<Value> {
    let first = || params[0].as_str();
    let tip = chain.blocks.len() - 1;
    let number = |at: usize| usize::try_from(params[at].as_u64()?).ok();
    Some(match method {
        "server.version" => json!(["stand-in", "1.4"]),
        "server.ping" => Value::Null,
        "blockchain.headers.subscribe" => json!({
            "height": tip,
            "hex": serialize_hex(&chain.blocks[tip].header),
        }),
        "blockchain.block.header" => serialize_hex(&chain.blocks.get(number(0)?)?.header).into(),
        "blockchain.block.headers" => {
            let blocks = chain.blocks.iter().skip(number(0)?).take(number(1)?);
            let headers: Vec<_> = blocks.map(|block| serialize_hex(&block.header)).collect();
            json!({ "count": headers.len(), "hex": headers.concat(), "max": 2_016 })
        }
        "blockchain.estimatefee" | "blockchain.relayfee" => json!(0.00001),
        "blockchain.scripthash.get_history" => {
            let mut wanted: Vec<u8> = hex::decode(first()?).ok()?;
            // Electrum writes hashes backwards.
            wanted.reverse();
            let is = |script: &bitcoin::Script| {
                sha256::Hash::hash(script.as_bytes()).as_byte_array() == wanted.as_slice()
            };
            let found = chain.transactions().filter(|(tx, _)| {
                let spent = tx
                    .input
                    .iter()
                    .filter_map(|i| chain.spent(&i.previous_output));
                let mut outputs = tx.output.iter().chain(spent);
                outputs.any(|out| is(&out.script_pubkey))
            });
            let entry = |(tx, height): (&Transaction, Option<usize>)| {
                let txid = tx.compute_txid().to_string();
                json!({ "tx_hash": txid, "height": height.unwrap_or(0) })
            };
            found.map(entry).collect()
        }
        "blockchain.transaction.get" => serialize_hex(chain.find(first()?)?.0).into(),
        "blockchain.transaction.broadcast" => {
            let tx: Transaction = deserialize_hex(first()?).ok()?;
            chain.post(tx).into()
        }
        "blockchain.transaction.get_merkle" => {
            let (_, height) = chain.find(first()?)?;
            let block = &chain.blocks[height?];
            let ids = block.txdata.iter().map(Transaction::compute_txid);
            let ids: Vec<_> = ids.collect();
            let at = ids
                .iter()
                .position(|id| Some(id.to_string().as_str()) == first())?;
            let leaves = ids.iter().map(|id| id.to_raw_hash()).collect();
            json!({ "block_height": height, "pos": at, "merkle": branch(leaves, at) })
        }
        _ => return None,
    })
}

/// The hashes beside the way from a leaf to the root.
fn branch(mut level: Vec<sha256d::Hash>, mut at: usize) -> Vec<String> {
    let mut beside = Vec::new();
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.push(level[level.len() - 1]);
        }
        beside.push(level[at ^ 1].to_string());
        let parent = |pair: &[sha256d::Hash]| {
            sha256d::Hash::hash(&[pair[0].to_byte_array(), pair[1].to_byte_array()].concat())
        };
        level = level.chunks(2).map(parent).collect();
        at /= 2;
    }
    beside
}

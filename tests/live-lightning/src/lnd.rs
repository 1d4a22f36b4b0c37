//! Two LND on a chain of btcd's, each a process of its own. `./tests/run` builds them from the Go
//! module beside this package and says where in `FAREBOX_LND_BIN`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Address, Amount, CompressedPublicKey, Network as Chain, OutPoint, ScriptBuf, Sequence,
    Transaction, TxIn, TxOut, Txid, Witness, transaction,
};
use farebox::rails::lightning::lnd::Lnd;
use farebox::rails::lightning::node::{NewInvoice, Payment, SendOrder};
use farebox::rails::lightning::{Network, Node, PaymentHash, Preimage};
use farebox_grpc::Pem;
use farebox_lnd::connect::{Connector, Macaroon};
use farebox_test_services::free_port;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{Pair, sandbox};

const DEADLINE: Duration = Duration::from_secs(240);
/// Segregated witness is voted on in windows of 144 blocks: it holds from the fourth on.
const SEGWIT_SINCE: u32 = 3 * 144;
/// What a miner gets for each of regtest's first blocks.
const SUBSIDY: Amount = Amount::from_int_btc(50);
const FUNDING: Amount = Amount::from_int_btc(1);
const FEE: Amount = Amount::from_sat(10_000);
const CHANNEL_SAT: u64 = 1_000_000;
/// Between processes of this test, on loopback.
const RPC_USER: &str = "test";

/// Where the daemons are, if they have been built.
fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("FAREBOX_LND_BIN")
        .expect("FAREBOX_LND_BIN names the folder of lnd and btcd; ./tests/run builds them");
    PathBuf::from(folder).join(name)
}

/// A daemon that ends with its handle.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn spawn(name: &str, folder: &Path, arguments: &[String]) -> Self {
        let log = File::create(folder.join(format!("{name}.log"))).unwrap();
        let child = Command::new(binary(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.expect("it starts"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn http() -> reqwest::Client {
    // Loopback, between processes of this test: their certificates are made as they start.
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true);
    client.timeout(Duration::from_secs(60)).build().unwrap()
}

/// Asks again and again until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// btcd, mining for a key of the test's own.
#[derive(Debug)]
struct Btcd {
    _daemon: Daemon,
    rpc: String,
    cert: PathBuf,
    secp: Secp256k1<All>,
    key: SecretKey,
}

impl Btcd {
    async fn start(folder: &Path) -> Self {
        let (secp, key) = (Secp256k1::new(), SecretKey::from_slice(&[1; 32]).unwrap());
        let (rpc, cert) = (
            format!("127.0.0.1:{}", free_port()),
            folder.join("rpc.cert"),
        );
        let path = |name: &str| folder.join(name).display().to_string();
        let daemon = Daemon::spawn(
            "btcd",
            folder,
            &[
                "--regtest".into(),
                "--nolisten".into(),
                "--txindex".into(),
                format!("--datadir={}", path("data")),
                format!("--logdir={}", path("logs")),
                format!("--configfile={}", path("btcd.conf")),
                format!("--rpccert={}", cert.display()),
                format!("--rpckey={}", path("rpc.key")),
                format!("--rpclisten={rpc}"),
                format!("--rpcuser={RPC_USER}"),
                format!("--rpcpass={RPC_USER}"),
                format!("--miningaddr={}", address(&secp, &key)),
            ],
        );
        let btcd = Self {
            _daemon: daemon,
            rpc: format!("https://{rpc}"),
            cert,
            secp,
            key,
        };
        eventually("btcd answers", async || {
            btcd.ask("getblockcount", json!([])).await
        })
        .await;
        btcd.mine(SEGWIT_SINCE + 8).await;
        btcd
    }

    async fn ask(&self, method: &str, params: Value) -> Option<Value> {
        let body = json!({ "jsonrpc": "1.0", "id": 1, "method": method, "params": params });
        let request = http().post(&self.rpc).basic_auth(RPC_USER, Some(RPC_USER));
        let answer: Value = request.json(&body).send().await.ok()?.json().await.ok()?;
        assert_eq!(answer["error"], Value::Null, "{method}");
        Some(answer["result"].clone())
    }

    async fn mine(&self, blocks: u32) {
        self.ask("generate", json!([blocks])).await.expect("mined");
    }

    /// Pays an address from the first block's coins, and buries that under six blocks.
    async fn fund(&self, to: &str) {
        let block = self.ask("getblockhash", json!([1])).await.unwrap();
        let block = self.ask("getblock", json!([block, 1])).await.unwrap();
        let coinbase = Txid::from_str(block["tx"][0].as_str().unwrap()).unwrap();
        let to = Address::from_str(to).unwrap().assume_checked();
        let own = address(&self.secp, &self.key).script_pubkey();
        let output = |value, script_pubkey| TxOut {
            value,
            script_pubkey,
        };
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(coinbase, 0),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![
                output(FUNDING, to.script_pubkey()),
                output(SUBSIDY - FUNDING - FEE, own.clone()),
            ],
        };
        let kind = EcdsaSighashType::All;
        let hash = SighashCache::new(&tx).p2wpkh_signature_hash(0, &own, SUBSIDY, kind);
        let message = Message::from_digest(hash.unwrap().to_byte_array());
        let signature = bitcoin::ecdsa::Signature {
            signature: self.secp.sign_ecdsa(&message, &self.key),
            sighash_type: kind,
        };
        let public = PublicKey::from_secret_key(&self.secp, &self.key);
        tx.input[0].witness = Witness::p2wpkh(&signature, &public);
        let sent = self.ask("sendrawtransaction", json!([serialize_hex(&tx)]));
        sent.await.expect("sent");
        self.mine(6).await;
    }
}

fn address(secp: &Secp256k1<All>, key: &SecretKey) -> Address {
    let public = CompressedPublicKey(PublicKey::from_secret_key(secp, key));
    Address::p2wpkh(&public, Chain::Regtest)
}

/// One LND.
#[derive(Debug)]
struct Lightningd {
    daemon: Mutex<Option<Daemon>>,
    arguments: Vec<String>,
    folder: PathBuf,
    grpc: String,
    rest: String,
    peers: String,
}

impl Lightningd {
    async fn start(folder: PathBuf, btcd: &Btcd) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let local = || format!("127.0.0.1:{}", free_port());
        let (grpc, rest, peers) = (local(), local(), local());
        let arguments = vec![
            format!("--lnddir={}", folder.display()),
            "--noseedbackup".into(),
            "--nobootstrap".into(),
            "--debuglevel=warn".into(),
            "--bitcoin.regtest".into(),
            "--bitcoin.node=btcd".into(),
            format!("--btcd.rpchost={}", btcd.rpc.trim_start_matches("https://")),
            format!("--btcd.rpcuser={RPC_USER}"),
            format!("--btcd.rpcpass={RPC_USER}"),
            format!("--btcd.rpccert={}", btcd.cert.display()),
            format!("--rpclisten={grpc}"),
            format!("--restlisten={rest}"),
            format!("--listen={peers}"),
        ];
        let lnd = Self {
            daemon: Mutex::new(Some(Daemon::spawn("lnd", &folder, &arguments))),
            arguments,
            grpc: format!("https://{grpc}"),
            rest: format!("https://{rest}"),
            peers,
            folder,
        };
        lnd.synced().await;
        lnd
    }

    async fn synced(&self) {
        eventually("lnd is synced", async || {
            let info = self.ask("getinfo", None).await?;
            (info["synced_to_chain"] == true).then_some(())
        })
        .await;
    }

    /// Ends it and starts it again, with a certificate that it makes anew.
    async fn restart_with_new_certificate(&self) {
        let old = std::fs::read(self.folder.join("tls.cert")).unwrap();
        let running = || self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        // It has ended once its handle is dropped.
        *running() = None;
        for file in ["tls.cert", "tls.key"] {
            std::fs::remove_file(self.folder.join(file)).unwrap();
        }
        *running() = Some(Daemon::spawn("lnd", &self.folder, &self.arguments));
        self.synced().await;
        assert_ne!(std::fs::read(self.folder.join("tls.cert")).unwrap(), old);
    }

    /// A macaroon for invoices and nothing else, where LND's own `invoice.macaroon` also allows
    /// addresses and a look at the chain's wallet.
    async fn bake_for_invoices(&self) -> Macaroon {
        let permission = |action| json!({ "entity": "invoices", "action": action });
        let body = json!({ "permissions": [permission("read"), permission("write")] });
        let baked = eventually("a macaroon", async || {
            self.ask("macaroon", Some(body.clone())).await
        });
        Macaroon::new(baked.await["macaroon"].as_str().unwrap().as_bytes()).unwrap()
    }

    fn macaroon(&self, name: &str) -> PathBuf {
        self.folder.join("data/chain/bitcoin/regtest").join(name)
    }

    /// A call of the REST interface; `None` while it does not answer, or says no.
    async fn ask(&self, path: &str, body: Option<Value>) -> Option<Value> {
        let macaroon = std::fs::read(self.macaroon("admin.macaroon")).ok()?;
        let url = format!("{}/v1/{path}", self.rest);
        let request = match body {
            Some(body) => http().post(url).json(&body),
            None => http().get(url),
        };
        let request = request.header("Grpc-Metadata-macaroon", hex::encode(macaroon));
        let answer = request.send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }

    fn admin(&self) -> Macaroon {
        let bytes = std::fs::read(self.macaroon("admin.macaroon")).unwrap();
        Macaroon::new(&bytes).unwrap()
    }

    fn connector(&self, macaroon: Macaroon) -> Connector {
        let pin = Pem::file(self.folder.join("tls.cert"));
        Connector::new(&self.grpc, pin, macaroon, Duration::from_secs(30)).unwrap()
    }

    fn node(&self, macaroon: Macaroon) -> Arc<dyn Node> {
        Arc::new(Lnd::new(self.connector(macaroon), Network::Regtest))
    }
}

/// Two LND with a channel from the payer to the seller.
#[derive(Debug)]
pub struct LndPair {
    seller: Lightningd,
    payer: Lightningd,
    for_invoices: Macaroon,
    _btcd: Btcd,
    // Last: the others write into it until they end.
    _folder: TempDir,
}

impl LndPair {
    /// Starts the chain and both nodes, and opens the channel.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let btcd = Btcd::start(folder.path()).await;
        let (payer, seller) = tokio::join!(
            Lightningd::start(folder.path().join("payer"), &btcd),
            Lightningd::start(folder.path().join("seller"), &btcd),
        );
        let address = eventually("an address", async || payer.ask("newaddress", None).await);
        btcd.fund(address.await["address"].as_str().unwrap()).await;
        let info = eventually("the seller's id", async || {
            seller.ask("getinfo", None).await
        });
        let id = info.await["identity_pubkey"].as_str().unwrap().to_owned();
        let peer = json!({ "addr": { "pubkey": id, "host": seller.peers } });
        eventually("the nodes meet", async || {
            payer.ask("peers", Some(peer.clone())).await
        })
        .await;
        // It says no until it has seen its money.
        let open = json!({
            "node_pubkey_string": id, "local_funding_amount": CHANNEL_SAT.to_string(),
            "sat_per_vbyte": "2",
        });
        eventually("a channel", async || {
            payer.ask("channels", Some(open.clone())).await
        })
        .await;
        for node in [&payer, &seller] {
            eventually("the channel is ready", async || {
                btcd.mine(1).await;
                let found = node.ask("channels?active_only=true", None).await?;
                found["channels"].as_array()?.first().map(drop)
            })
            .await;
        }
        let pair = Self {
            for_invoices: seller.bake_for_invoices().await,
            seller,
            payer,
            _btcd: btcd,
            _folder: folder,
        };
        // A channel that is active is not yet one that payments find.
        eventually("a first payment", async || {
            let invoice = NewInvoice::new(100_000, "first", DEADLINE);
            let minted = pair.seller().create_invoice(invoice).await.ok()?;
            let order = SendOrder::new(minted.bolt11, minted.payment_hash, 0, DEADLINE);
            match pair.payer().pay(order).await {
                Payment::Succeeded { .. } => Some(()),
                _ => None,
            }
        })
        .await;
        pair
    }
}

impl LndPair {
    /// Ends the seller's node and starts it again with another certificate.
    pub async fn restart_seller_with_new_certificate(&self) {
        self.seller.restart_with_new_certificate().await;
    }

    /// The seller's node with the payer's macaroon.
    pub fn stranger(&self) -> Arc<dyn Node> {
        self.seller.node(self.payer.admin())
    }
}

#[async_trait]
impl Pair for LndPair {
    fn seller(&self) -> Arc<dyn Node> {
        self.seller.node(self.seller.admin())
    }

    fn shop(&self) -> Arc<dyn Node> {
        self.seller.node(self.for_invoices.clone())
    }

    fn payer(&self) -> Arc<dyn Node> {
        self.payer.node(self.payer.admin())
    }

    /// Every handle is a new connection; LND itself is another process.
    async fn restart_payer(&self) {}

    async fn leak(&self, invoice: PaymentHash) -> Preimage {
        sandbox::leak(&self.seller.connector(self.seller.admin()), invoice).await
    }

    async fn open_invoice(&self) -> String {
        sandbox::open_invoice(&self.seller.connector(self.seller.admin())).await
    }

    fn fee_msat(&self) -> u64 {
        0
    }
}

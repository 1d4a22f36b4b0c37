//! A started node: its threads, its events, and the lock on its folder.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldk_node::Event;
use ldk_node::lightning::events::PaymentFailureReason;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::logger::{LogLevel, LogRecord, LogWriter};
use ldk_node::payment::{PaymentDetails, PaymentDirection, PaymentKind, PaymentStatus};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, spawn_blocking};

use super::journal::Journal;
use super::settings::Settings;
use super::{explain, ldk_hash};
use crate::bolt11::{PaymentHash, Preimage};
use crate::node::{NodeError, Payment};

/// How many payments may end before a waiter that lags behind just looks again.
const BACKLOG: usize = 256;
/// How long the node's threads get to end once it has been stopped.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// What ended: a payment in either direction, and for a failed one the reason.
pub(super) type Ended = (PaymentHash, Option<String>);

/// Threads of the node's own: it blocks them, and it must not end with its caller's runtime.
struct Threads(Option<Runtime>);

impl Threads {
    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime may not be waited for from within another one.
        if let Some(runtime) = self.0.take() {
            std::thread::spawn(move || runtime.shutdown_timeout(LAST_BREATH));
        }
    }
}

pub(super) struct Running {
    node: Arc<ldk_node::Node>,
    ended: broadcast::Sender<Ended>,
    journal: Journal,
    reader: AbortHandle,
    lock: File,
    threads: Threads,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reader.abort();
        let node = Arc::clone(&self.node);
        if let Some(runtime) = self.threads.0.take() {
            // Its threads must last until it has stopped, and nobody can wait for that here.
            std::thread::spawn(move || {
                // One that has been stopped says so.
                let stop = runtime.spawn_blocking(move || node.stop());
                let _ = runtime.block_on(stop);
                runtime.shutdown_timeout(LAST_BREATH);
            });
        }
    }
}

/// Only what a person must see: on lower levels LDK writes of single payments.
struct Log;

impl LogWriter for Log {
    fn log<'a>(&self, record: LogRecord<'a>) {
        let module = record.module_path;
        match record.level {
            LogLevel::Error => tracing::error!(module, "{}", record.args),
            LogLevel::Warn => tracing::warn!(module, "{}", record.args),
            _ => {}
        }
    }
}

fn refused(what: &str, error: impl std::fmt::Display) -> NodeError {
    NodeError::Refused(format!("{what}: {error}"))
}

/// Takes the folder for this process: two nodes with one set of channels would lose their money.
fn lock(data_dir: &Path) -> Result<File, NodeError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let folder = data_dir.display();
    builder
        .create(data_dir)
        .map_err(|e| refused(&format!("cannot create {folder}"), e))?;
    let mut options = OpenOptions::new();
    options.create(true).write(true);
    let file = options
        .open(data_dir.join("lock"))
        .map_err(|e| refused(&format!("cannot write to {folder}"), e))?;
    file.try_lock()
        .map_err(|_| NodeError::Refused(format!("{folder} is in use by another process")))?;
    Ok(file)
}

impl Running {
    pub(super) async fn begin(settings: Settings) -> Result<Self, NodeError> {
        // LDK Node installs ring otherwise; the whole of Farebox uses this one. The second time it
        // is there already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let lock = lock(&settings.data_dir)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("lightning")
            .enable_all()
            .build()
            .map_err(|e| refused("cannot start threads", e))?;
        let handle = runtime.handle().clone();
        let threads = Threads(Some(runtime));
        let journal = Journal::open(&settings.data_dir)
            .map_err(|e| refused("cannot write to the node's folder", e))?;
        let start = {
            let handle = handle.clone();
            move || start(settings, handle)
        };
        let node = handle.spawn_blocking(start).await;
        let node = Arc::new(node.map_err(|e| refused("starting the node", e))??);
        let ended = broadcast::Sender::new(BACKLOG);
        let reader = read_events(Arc::clone(&node), journal.clone(), ended.clone());
        let reader = handle.spawn(reader).abort_handle();
        Ok(Self {
            node,
            ended,
            journal,
            reader,
            lock,
            threads,
        })
    }

    pub(super) fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// What ends from now on.
    pub(super) fn ended(&self) -> broadcast::Receiver<Ended> {
        self.ended.subscribe()
    }

    /// Runs `work` on the node's threads, where it may block.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ldk_node::Node) -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        let gone = || NodeError::Unreachable("the node has been stopped".into());
        let handle = self.threads.handle().ok_or_else(gone)?;
        let node = Arc::clone(&self.node);
        let done = handle.spawn_blocking(move || work(&node)).await;
        done.map_err(|_| gone())
    }

    pub(super) async fn payment(
        &self,
        hash: PaymentHash,
    ) -> Result<Option<PaymentDetails>, NodeError> {
        self.with(move |node| node.payment(&id(hash))).await
    }

    /// Where a payment that was sent stands; `None` when it never was.
    pub(super) async fn outgoing(&self, hash: PaymentHash) -> Result<Option<Payment>, NodeError> {
        let journal = self.journal();
        let read = move |node: &ldk_node::Node| match node.payment(&id(hash)) {
            Some(details) if details.direction == PaymentDirection::Outbound => {
                Some(outcome(details, hash))
            }
            _ => journal.read(hash),
        };
        self.with(read).await
    }

    pub(super) async fn stop(&self) {
        self.reader.abort();
        // Its error says that it has been stopped before.
        let _ = self.with(ldk_node::Node::stop).await;
        let _ = self.lock.unlock();
    }
}

/// LDK Node names a BOLT11 payment by its hash.
pub(super) fn id(hash: PaymentHash) -> PaymentId {
    PaymentId(ldk_hash(hash).0)
}

fn outcome(details: PaymentDetails, hash: PaymentHash) -> Payment {
    match details.status {
        PaymentStatus::Pending => Payment::Unknown(NodeError::InFlight),
        PaymentStatus::Failed => Payment::Failed("the payment failed".into()),
        PaymentStatus::Succeeded => {
            let preimage = match details.kind {
                PaymentKind::Bolt11 { preimage, .. } => preimage.map(|p| Preimage::new(p.0)),
                _ => None,
            };
            match preimage.filter(|preimage| preimage.hash() == hash) {
                Some(preimage) => Payment::Succeeded {
                    preimage,
                    fee_msat: details.fee_paid_msat.unwrap_or(0),
                },
                None => Payment::Unknown(NodeError::Nonsense("a preimage of another payment")),
            }
        }
    }
}

/// Why a node did not start, with the key to look at where that is its chain source.
fn not_started(error: ldk_node::NodeError, chain_key: &str) -> NodeError {
    let why = match error {
        // Nobody else is connected to so early.
        ldk_node::NodeError::ConnectionFailed => {
            format!("its chain source does not answer: {error}")
        }
        other => match explain(other) {
            NodeError::Unreachable(why) => why,
            refused => return refused,
        },
    };
    NodeError::Unreachable(format!(
        "{why}; see that the server of `{chain_key}` is up, and that its address is right"
    ))
}

/// Blocks: it reads the database, and asks the chain source for the fees.
fn start(settings: Settings, handle: Handle) -> Result<ldk_node::Node, NodeError> {
    let peers = settings.peers.clone();
    let chain_key = settings.chain_key();
    let mut builder = settings.builder()?;
    builder.set_runtime(handle);
    builder.set_custom_logger(Arc::new(Log));
    let node = builder
        .build()
        .map_err(|e| refused("the node cannot be built", e))?;
    node.start()
        .map_err(|error| not_started(error, chain_key))?;
    for (peer, address) in peers {
        if let Err(error) = node.connect(peer, address, true) {
            tracing::warn!(%peer, %error, "a peer of the Lightning node cannot be reached");
        }
    }
    let listening = node.listening_addresses().unwrap_or_default();
    let address = node.onchain_payment().new_address().map_err(explain)?;
    tracing::info!(
        node_id = %node.node_id(),
        listening = listening.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        deposit_address = %address,
        channels = node.list_channels().len(),
        "the Lightning node is up"
    );
    Ok(node)
}

/// Reads the node's events, one by one, for as long as it runs.
async fn read_events(node: Arc<ldk_node::Node>, journal: Journal, ended: broadcast::Sender<Ended>) {
    loop {
        let event = node.next_event_async().await;
        let (node, journal, ended) = (Arc::clone(&node), journal.clone(), ended.clone());
        let handled = spawn_blocking(move || {
            if let Some(news) = handle_event(&node, &journal, event)? {
                // Nobody may be waiting.
                let _ = ended.send(news);
            }
            node.event_handled().map_err(std::io::Error::other)
        });
        if let Ok(Err(error)) = handled.await {
            tracing::error!(%error, "an event of the Lightning node was not handled; it comes again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A reason in the words that LND has for it.
fn words(reason: PaymentFailureReason) -> String {
    match reason {
        PaymentFailureReason::RouteNotFound => "no_route".into(),
        PaymentFailureReason::RetriesExhausted => "timeout".into(),
        PaymentFailureReason::RecipientRejected => "incorrect_payment_details".into(),
        other => format!("{other:?}"),
    }
}

/// Whether what ended is in LDK's own records; where it is not, it goes into the journal.
fn handle_event(
    node: &ldk_node::Node,
    journal: &Journal,
    event: Event,
) -> std::io::Result<Option<Ended>> {
    let recorded = |hash| node.payment(&id(hash)).is_some();
    Ok(match event {
        Event::PaymentReceived { payment_hash, .. } => {
            Some((PaymentHash::new(payment_hash.0), None))
        }
        Event::PaymentSuccessful {
            payment_hash,
            payment_preimage,
            fee_paid_msat,
            ..
        } => {
            let hash = PaymentHash::new(payment_hash.0);
            if let Some(preimage) = payment_preimage.filter(|_| !recorded(hash)) {
                let preimage = Preimage::new(preimage.0);
                journal.end(hash, Ok((&preimage, fee_paid_msat.unwrap_or(0))))?;
            }
            Some((hash, None))
        }
        Event::PaymentFailed {
            payment_hash: Some(hash),
            reason,
            ..
        } => {
            let hash = PaymentHash::new(hash.0);
            if !recorded(hash) {
                journal.end(hash, Err(()))?;
            }
            Some((hash, reason.map(words)))
        }
        Event::ChannelReady { channel_id, .. } => {
            tracing::info!(channel = %channel_id, "a Lightning channel is ready");
            None
        }
        Event::ChannelClosed {
            channel_id, reason, ..
        } => {
            let reason = reason.map(|reason| reason.to_string());
            tracing::warn!(channel = %channel_id, reason, "a Lightning channel was closed");
            None
        }
        _ => None,
    })
}

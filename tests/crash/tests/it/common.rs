//! Stores, nodes that are started again when they die, and what every test ends with.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use farebox_crash_tests::{Books, ChannelBooks, Node, NodeConfig, Payer, RAILS, World};
use farebox_test_services::{Postgres, Redis};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, Semaphore},
    task::{JoinHandle, JoinSet},
};

/// The server with fail points in it.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_farebox-mortal");

/// A store that outlives the servers.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    pub(crate) service: Service,
}

/// What has to be kept for as long as the store is used.
pub(crate) enum Service {
    Sqlite(#[expect(dead_code, reason = "held, not read")] TempDir),
    Redis(Redis),
    Postgres(Postgres),
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("farebox.db").display());
        Self {
            name: "SQLite",
            url,
            service: Service::Sqlite(folder),
        }
    }

    pub(crate) fn redis() -> Self {
        let redis = Redis::start();
        Self {
            name: "Redis",
            url: redis.url(),
            service: Service::Redis(redis),
        }
    }

    pub(crate) fn postgres() -> Self {
        let postgres = Postgres::start();
        let url = postgres.database();
        Self {
            name: "PostgreSQL",
            url,
            service: Service::Postgres(postgres),
        }
    }
}

/// How long what must happen may take, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Short leases, so that a crash is over in seconds and not minutes. A disk may be slower.
pub(crate) fn timing() -> Value {
    json!({
        "settle": "2s",
        "settle_at_most": "3s",
        "reservation": "2s",
        "serving_lease": "2s",
        "slack": "1s",
        "store": "20s",
        "reconcile": "1s",
    })
}

/// Where nobody dies: no lease lapses, however slow the machine.
pub(crate) fn patient() -> Value {
    json!({
        "settle": "60s",
        "settle_at_most": "60s",
        "reservation": "60s",
        "serving_lease": "60s",
        "slack": "30s",
        "store": "20s",
        "reconcile": "1s",
    })
}

pub(crate) fn node(world: &World, folder: &TempDir, name: &str, store: &str) -> Node {
    timed(timing(), world, folder, name, store)
}

/// The same with another timing.
pub(crate) fn timed(
    timing: Value,
    world: &World,
    folder: &TempDir,
    name: &str,
    store: &str,
) -> Node {
    let config = NodeConfig {
        binary: PathBuf::from(BINARY),
        folder: folder.path().to_owned(),
        name: name.to_owned(),
        store: store.to_owned(),
        timing,
    };
    Node::new(world, &config).unwrap()
}

/// Starts it until it listens, as a service manager does: where the store is slow to answer it gives
/// up.
async fn start(node: &mut Node, fail_points: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(problem) = node.start(fail_points).await {
        assert!(Instant::now() < deadline, "{problem}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A node that is started again whenever it ends, as a service manager does.
pub(crate) struct Supervised {
    pub(crate) address: String,
    node: Arc<Mutex<Node>>,
    restarts: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts `node` with `fail_points`; from the second start on it has none.
    pub(crate) async fn start(mut node: Node, fail_points: &str) -> Self {
        start(&mut node, fail_points).await;
        let address = node.address();
        let (node, restarts) = (Arc::new(Mutex::new(node)), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (node, restarts, stop) = (node.clone(), restarts.clone(), stop.clone());
            async move {
                while !stop.load(SeqCst) {
                    let mut node = node.lock().await;
                    if node.ended().unwrap().is_some() {
                        restarts.fetch_add(1, SeqCst);
                        start(&mut node, "").await;
                    }
                    drop(node);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self {
            address,
            node,
            restarts,
            stop,
            task,
        }
    }

    /// Kills it; it is started again at once.
    pub(crate) async fn kill(&self) {
        // One that died by itself is being started already.
        let mut node = self.node.lock().await;
        node.kill().unwrap();
        self.restarts.fetch_add(1, SeqCst);
        start(&mut node, "").await;
    }

    pub(crate) fn restarts(&self) -> usize {
        self.restarts.load(SeqCst)
    }

    /// Payments by state, once nothing is under way any more.
    pub(crate) async fn settled_books(&self) -> BTreeMap<String, usize> {
        let deadline = Instant::now() + PATIENCE;
        let twin = self.node.lock().await.twin();
        loop {
            // The sandboxes and the payers are in this process, and shall not wait for another. A store
            // that was away may not be back for everybody yet.
            let states = tokio::task::block_in_place(|| twin.states());
            match states {
                Ok((states, false)) => return states,
                left => assert!(Instant::now() < deadline, "left open: {left:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Has it die somewhere; see [`Node::arm`].
    pub(crate) async fn arm(&self, point: &str, count: usize) {
        self.node.lock().await.arm(point, count).unwrap();
    }

    /// The fail points that it reached since it was armed first.
    pub(crate) async fn reached(&self) -> Vec<String> {
        self.node.lock().await.reached().unwrap()
    }

    /// Where it died.
    pub(crate) async fn deaths(&self) -> Vec<String> {
        self.node.lock().await.deaths().unwrap()
    }

    /// Starts it no more.
    pub(crate) fn abandon(&self) {
        self.stop.store(true, SeqCst);
        self.task.abort();
    }

    /// The channels in its books, once nothing will happen to them any more.
    pub(crate) async fn settled_channels(&self) -> Vec<ChannelBooks> {
        let deadline = Instant::now() + PATIENCE;
        let twin = self.node.lock().await.twin();
        loop {
            // As above.
            match tokio::task::block_in_place(|| twin.channels()) {
                // A reservation that nobody comes back for claims nothing, and is forgotten in time.
                Ok((channels, false)) if channels.iter().all(ChannelBooks::is_over) => {
                    return channels;
                }
                left => assert!(Instant::now() < deadline, "left open: {left:?}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    pub(crate) async fn stop(self) -> Node {
        self.stop.store(true, SeqCst);
        self.task.await.unwrap();
        Arc::into_inner(self.node).unwrap().into_inner()
    }
}

/// Kills one of `servers` again and again, at random moments, until it is dropped. On a thread of
/// its own: payers keep the test's runtime busy.
pub(crate) struct Killer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Killer {
    pub(crate) fn of(servers: Vec<Arc<Supervised>>) -> Self {
        Self::pausing(servers, 50..600)
    }

    /// The same with so many milliseconds between two kills. When and whom follows from a seed, which
    /// `FAREBOX_CRASH_SEED` may say.
    pub(crate) fn pausing(servers: Vec<Arc<Supervised>>, pause: Range<u64>) -> Self {
        let given = std::env::var("FAREBOX_CRASH_SEED").ok();
        let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
        println!("kills by FAREBOX_CRASH_SEED={seed}");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            fastrand::seed(seed);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.unwrap();
            let mut slowness = 1;
            while !stopped.load(SeqCst) {
                let pause = Duration::from_millis(fastrand::u64(pause.clone()));
                std::thread::sleep(pause * slowness);
                let killed = Instant::now();
                runtime.block_on(servers[fastrand::usize(..servers.len())].kill());
                // On a busy machine servers that are always killed before they have done anything
                // would serve nobody.
                slowness = u32::try_from(killed.elapsed().as_millis() / 300)
                    .unwrap_or(1)
                    .clamp(1, 100);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(Err(panic)) = self.thread.take().map(std::thread::JoinHandle::join) {
            assert!(std::thread::panicking(), "the killer failed: {panic:?}");
        }
    }
}

/// Buys on every rail in turn, `count` times in all, `at_once` at once.
pub(crate) async fn buy_many(world: &World, address: &str, count: usize, at_once: usize) -> Books {
    let room = Arc::new(Semaphore::new(at_once));
    let mut payers = JoinSet::new();
    for n in 0..count {
        let (rail, _) = RAILS[n % RAILS.len()];
        let payer = Payer::new(world, rail, address).unwrap();
        let room = room.clone();
        payers.spawn(async move {
            let _here = room.acquire_owned().await.unwrap();
            (rail, payer.buy().await)
        });
    }
    let mut books = Books::default();
    while let Some(bought) = payers.join_next().await {
        let (rail, bought) = bought.unwrap();
        books.enter(rail, bought.unwrap());
    }
    books
}

/// The same, and then more until `killed` says that there were `kills`: how many there are meanwhile
/// depends on the machine.
pub(crate) async fn buy_amid(
    kills: usize,
    killed: impl Fn() -> usize,
    world: &World,
    address: &str,
    (count, at_once): (usize, usize),
) -> Books {
    let mut books = buy_many(world, address, count, at_once).await;
    while killed() < kills {
        books.extend(buy_many(world, address, at_once, at_once).await);
    }
    books
}

/// One payer after the other on every rail.
pub(crate) async fn buy_on_every_rail(world: &World, address: &str) -> Books {
    buy_on(&RAILS.map(|(rail, _)| rail), world, address).await
}

/// One payer after the other on each of `rails`.
pub(crate) async fn buy_on(rails: &[&str], world: &World, address: &str) -> Books {
    let mut books = Books::default();
    for rail in rails {
        let payer = Payer::new(world, rail, address).unwrap();
        books.enter(rail, payer.buy().await.unwrap());
    }
    books
}

/// One line for people who compare runs.
pub(crate) fn report(what: &str, books: &Books, kills: usize, world: &World) {
    println!(
        "{what}: {} payments, {kills} kills, moved {:?}, served {}, recovered {}, slowest {:.1} s, \
         upstream ran {} times",
        books.total(),
        world.moved().unwrap(),
        books.total(),
        books.recovered(),
        books.slowest().as_secs_f64(),
        world.served(),
    );
}

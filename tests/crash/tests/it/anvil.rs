//! `tempo/charge` on a real chain: servers that die before, during and after a broadcast.

use std::{path::PathBuf, sync::Arc};

use farebox_crash_tests::{Anvil, Books, MODES, Mode, Moment, NodeConfig, TempoWorld};
use tempfile::TempDir;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::common::{BINARY, Killer, Supervised, timing};

/// Effects at which a server dies, where the money is on its way.
const EFFECTS: [&str; 10] = [
    "pay.reserved",
    "proof.claimed",
    "todo.listed",
    "pay.attempted",
    "settle",
    "lookup",
    "pay.paid",
    "todo.struck",
    "pay.serving",
    "pay.delivered",
];

/// Servers at once, each with a seller of its own.
const AT_ONCE: usize = 5;

/// Payers at least where servers are killed at random, and how many of them at once.
const PAYERS: usize = 90;
const PAYERS_AT_ONCE: usize = 9;

/// Kills, fewer of which would not mean anything.
const KILLS: usize = 10;

/// A seller and its server, whose store is a file.
struct Shop {
    world: Arc<TempoWorld>,
    server: Arc<Supervised>,
    _folder: TempDir,
}

impl Shop {
    async fn open(chain: Arc<Anvil>, fail_points: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = TempoWorld::on(chain).await.unwrap();
        let config = NodeConfig {
            binary: PathBuf::from(BINARY),
            folder: folder.path().to_owned(),
            name: "server".to_owned(),
            store: format!("sqlite://{}", folder.path().join("farebox.db").display()),
            timing: timing(),
        };
        let server = Supervised::start(world.node(&config).unwrap(), fail_points).await;
        Self {
            world: Arc::new(world),
            server: Arc::new(server),
            _folder: folder,
        }
    }

    /// `count` payers, of each mode in turn, so many at once.
    async fn sell(&self, count: usize, at_once: usize) -> Books {
        let room = Arc::new(Semaphore::new(at_once));
        let mut payers = JoinSet::new();
        for mode in MODES.into_iter().cycle().take(count) {
            let payer = self.world.payer(mode, &self.server.address).unwrap();
            let room = room.clone();
            payers.spawn(async move {
                let _here = room.acquire_owned().await.unwrap();
                (mode, payer.buy().await)
            });
        }
        let mut books = Books::default();
        while let Some(bought) = payers.join_next().await {
            let (mode, bought) = bought.unwrap();
            books.enter(mode.name(), bought.unwrap());
        }
        books
    }

    /// The chain's account, the payers' and the server's are the same.
    async fn balance(&self, what: &str, books: &Books) {
        println!(
            "{what}: {} payments, {} kills, moved {}, recovered {}, slowest {:.1} s, upstream ran \
             {} times",
            books.total(),
            self.server.restarts(),
            self.world.moved().await.unwrap(),
            books.recovered(),
            books.slowest().as_secs_f64(),
            self.world.served(),
        );
        let balance = self.world.balance(books).await;
        assert!(balance.is_ok(), "{what}: {balance:?}");
        let states = self.server.settled_books().await;
        let delivered = states.get("delivered");
        assert_eq!(delivered, Some(&books.total()), "{what}: {states:?}");
    }
}

/// Each says for itself what went wrong; none keeps the others from being tried.
async fn all_succeed(mut runs: JoinSet<()>) {
    let mut failed = 0;
    while let Some(run) = runs.join_next().await {
        failed += usize::from(run.is_err());
    }
    assert_eq!(failed, 0, "runs after which the books do not balance");
}

/// Protects: dying before or after any one effect neither moves money twice nor loses a payment,
/// whichever way it is handed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs anvil: FAREBOX_ANVIL names the binary, ./tests/run installs it"]
async fn killed_at_every_effect_on_anvil() {
    let chain = Arc::new(Anvil::start().await.unwrap());
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut runs = JoinSet::new();
    let points = EFFECTS.map(|effect| ["before", "after"].map(|when| format!("{effect}.{when}")));
    for point in points.into_iter().flatten() {
        let (chain, room) = (chain.clone(), room.clone());
        runs.spawn(async move {
            let _here = room.acquire_owned().await.unwrap();
            let shop = Shop::open(chain, &format!("{point}=1*panic")).await;
            // A lookup needs a payment of which nothing is known.
            let denied = point
                .starts_with("lookup")
                .then(|| shop.world.wire.hold(Moment::Denied));
            let books = shop.sell(MODES.len(), MODES.len()).await;
            shop.balance(&point, &books).await;
            assert!(shop.server.restarts() > 0, "{point} never happened");
            drop(denied);
        });
    }
    all_succeed(runs).await;
}

/// Protects: what was sent when the server died is found again, and what was not is sent; once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs anvil: FAREBOX_ANVIL names the binary, ./tests/run installs it"]
async fn killed_during_a_broadcast_on_anvil() {
    let chain = Arc::new(Anvil::start().await.unwrap());
    let mut runs = JoinSet::new();
    for moment in [Moment::Lost, Moment::Taken, Moment::Included] {
        for mode in [Mode::Pull, Mode::Sponsored] {
            let chain = chain.clone();
            runs.spawn(async move {
                let shop = Shop::open(chain, "").await;
                let reached = shop.world.wire.hold(moment);
                let payer = shop.world.payer(mode, &shop.server.address).unwrap();
                let buying = tokio::spawn(async move { payer.buy().await });
                reached.await.unwrap();
                shop.server.kill().await;
                let mut books = Books::default();
                books.enter(mode.name(), buying.await.unwrap().unwrap());
                let what = format!("killed when a broadcast was {moment:?}, {}", mode.name());
                shop.balance(&what, &books).await;
            });
        }
    }
    all_succeed(runs).await;
}

/// Protects: every payer pays once and is served once, wherever SIGKILL hits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs anvil: FAREBOX_ANVIL names the binary, ./tests/run installs it"]
async fn killed_at_random_on_anvil() {
    let chain = Arc::new(Anvil::start().await.unwrap());
    let shop = Shop::open(chain, "").await;
    let killer = Killer::pausing(vec![shop.server.clone()], 300..2_000);
    let mut books = shop.sell(PAYERS, PAYERS_AT_ONCE).await;
    while shop.server.restarts() < KILLS {
        books.extend(shop.sell(PAYERS_AT_ONCE, PAYERS_AT_ONCE).await);
    }
    drop(killer);
    shop.balance("random kills, Tempo on anvil", &books).await;
}

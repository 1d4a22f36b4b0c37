//! Sessions whose servers are killed at random, one or three that share the channels.

use std::{sync::Arc, time::Duration};

use farebox_crash_tests::{
    Address, DEPOSIT, NodeConfig, SessionPayer, SessionRail, SessionWorld, Tally, Upkeep, balance,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::common::{BINARY, Killer, Place, Supervised, timing};

/// Payers at once, each with a channel.
const PAYERS: usize = 5;

/// What each of them does so many times: two words, and a stream of tokens.
const TIMES: usize = 4;
const TOKENS: u64 = 6;

/// Kills, fewer of which would not mean anything.
const KILLS: usize = 3;

/// Milliseconds between two kills.
const PAUSE: std::ops::Range<u64> = 300..1_200;

macro_rules! on_stores {
    ($($test:ident: $rail:ident, $replicas:expr;)*) => {
        $(
            mod $test {
                use super::*;

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn on_sqlite() {
                    killed_at_random(Place::sqlite(), SessionRail::$rail, $replicas).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs redis-server"]
                async fn on_redis() {
                    killed_at_random(Place::redis(), SessionRail::$rail, $replicas).await;
                }
            }
        )*
    };
}

on_stores! {
    tempo: Tempo, 1;
    tempo_replicas: Tempo, 3;
    lightning: Lightning, 1;
    lightning_replicas: Lightning, 3;
}

/// What a dead stream held is free again after a while; what a live one holds is not taken from it, on a
/// slow machine either: it would have served units that are not charged.
fn leases() -> Value {
    let mut leases = timing();
    leases["balance_lease"] = "10s".into();
    leases["serving_lease"] = "5s".into();
    leases
}

async fn servers(
    world: &SessionWorld,
    place: &Place,
    folder: &TempDir,
    count: usize,
) -> Vec<Arc<Supervised>> {
    let mut servers = Vec::new();
    for n in 0..count {
        let config = NodeConfig {
            binary: BINARY.into(),
            folder: folder.path().to_owned(),
            name: format!("server-{n}"),
            store: place.url.clone(),
            timing: leases(),
        };
        let upkeep = Upkeep {
            units: Some(2 * DEPOSIT),
            ..Upkeep::default()
        };
        let node = world.node(&config, upkeep).unwrap();
        servers.push(Arc::new(Supervised::start(node, "").await));
    }
    servers
}

/// Buys and closes, whatever happens, and says what came of it.
async fn buy(mut payer: SessionPayer, servers: Vec<Arc<Supervised>>) -> Tally {
    for _ in 0..TIMES {
        payer.word().await.unwrap();
        payer.tokens(TOKENS).await.unwrap();
        payer.word().await.unwrap();
    }
    // How many kills there are meanwhile depends on the machine.
    while kills(&servers) < KILLS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        payer.word().await.unwrap();
    }
    payer.close().await.unwrap();
    payer.tally().clone()
}

fn kills(servers: &[Arc<Supervised>]) -> usize {
    servers.iter().map(|server| server.restarts()).sum()
}

/// Protects: wherever SIGKILL hits, and whichever server comes next, all payers are served and get
/// back what they did not spend, and the books agree.
async fn killed_at_random(place: Place, rail: SessionRail, replicas: usize) {
    let folder = tempfile::tempdir().unwrap();
    let world = SessionWorld::start(rail).await.unwrap();
    let servers = servers(&world, &place, &folder, replicas).await;
    let addresses = servers.iter().map(|server| server.address.clone());
    let front = Address::in_front_of(addresses.collect()).await.unwrap();
    // What is in front of one server only would say nothing of its being down.
    let address = match &*servers {
        [server] => &server.address,
        _ => front.address(),
    };
    let killer = Killer::pausing(servers.clone(), PAUSE);
    let mut payers = JoinSet::new();
    for n in 0..PAYERS {
        let channels = folder.path().join(format!("channels-{n}.json"));
        let payer = SessionPayer::new(&world, address, &channels).unwrap();
        payers.spawn(buy(payer, servers.clone()));
    }
    let (mut all, mut block) = (Tally::default(), 0);
    while let Some(tally) = payers.join_next().await {
        let tally = tally.unwrap();
        block = block.max(match rail {
            // Vouchers are signed one unit ahead, beside what may have got lost.
            SessionRail::Tempo => 1 + tally.lost,
            SessionRail::Lightning => TOKENS,
        });
        all.add(tally);
    }
    drop(killer);
    let channels = servers[0].settled_channels().await;
    let kills = kills(&servers);
    let moved = world.moved().unwrap();
    println!(
        "{rail:?}, {}: {kills} kills, {moved:?}, {all:?}",
        place.name
    );
    let in_flight = u64::try_from(kills * PAYERS).unwrap();
    balance(rail, &channels, moved, &all, block, in_flight).unwrap();
}

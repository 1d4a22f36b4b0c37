//! Stores that go away while servers and payers stay.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use farebox_crash_tests::{Node, Payer, RAILS, World};
use farebox_test_services::{Postgres, Redis};
use http::{StatusCode, header::WWW_AUTHENTICATE};
use tempfile::TempDir;

use crate::common::{
    Place, Service, Supervised, buy_many, buy_on_every_rail, report, timed, timing,
};

/// How long an answer may take: far more than the store's deadline of 2 s, twice, since the machine
/// may be busy. What waits for the store waits for ever: it is back when all have their answers.
const IN_TIME: Duration = Duration::from_secs(30);

/// How long the store is away.
const OUTAGE: Duration = Duration::from_secs(5);

/// Something that befalls a store, and its end.
trait Outage {
    fn begin(&mut self);
    fn end(&mut self);
}

macro_rules! outages {
    ($($test:ident: $needs:literal, $place:expr, $begin:expr, $end:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = $needs]
            async fn $test() {
                struct This(Place);
                impl Outage for This {
                    fn begin(&mut self) {
                        $begin(&mut self.0.service);
                    }
                    fn end(&mut self) {
                        $end(&mut self.0.service);
                    }
                }
                let place = $place;
                let url = place.url.clone();
                endured(stringify!($test), &url, This(place)).await;
            }
        )*
    };
}

outages! {
    redis_is_stopped: "needs redis-server", Place::redis(),
        |s: &mut Service| redis(s).stop(), |s: &mut Service| redis(s).restart();
    redis_is_slow: "needs redis-server", Place::redis(),
        |s: &mut Service| redis(s).pause(), |s: &mut Service| redis(s).resume();
    redis_is_read_only: "needs redis-server", Place::redis(),
        |s: &mut Service| redis(s).set_read_only(true),
        |s: &mut Service| redis(s).set_read_only(false);
    postgres_is_stopped: "needs postgres", Place::postgres(),
        |s: &mut Service| postgres(s).stop(), |s: &mut Service| postgres(s).restart();
    postgres_is_slow: "needs postgres", Place::postgres(),
        |s: &mut Service| postgres(s).pause(), |s: &mut Service| postgres(s).resume();
    postgres_is_read_only: "needs postgres", Place::postgres(),
        |s: &mut Service| postgres(s).set_read_only(true),
        |s: &mut Service| postgres(s).set_read_only(false);
}

fn redis(service: &mut Service) -> &mut Redis {
    match service {
        Service::Redis(redis) => redis,
        _ => panic!("this is about Redis"),
    }
}

fn postgres(service: &mut Service) -> &mut Postgres {
    match service {
        Service::Postgres(postgres) => postgres,
        _ => panic!("this is about PostgreSQL"),
    }
}

/// A server that waits for its store no longer than one does by default.
fn node(world: &World, folder: &TempDir, store: &str) -> Node {
    let mut timing = timing();
    timing["store"] = "2s".into();
    timed(timing, world, folder, "server", store)
}

/// Protects: while the store is away every request is told so in time and without a challenge,
/// nothing is served, and once it is back the same process serves all who paid, once.
async fn endured(what: &str, store: &str, mut outage: impl Outage) {
    let (world, folder) = (World::start().await.unwrap(), tempfile::tempdir().unwrap());
    let server = Supervised::start(node(&world, &folder, store), "").await;
    let mut books = buy_on_every_rail(&world, &server.address).await;
    let mut paid = Vec::new();
    for (rail, _) in RAILS {
        let payer = Payer::new(&world, rail, &server.address).unwrap();
        let credential = payer.pay(true).await.unwrap();
        paid.push((rail, payer, credential));
    }
    let served = world.served();

    tokio::task::block_in_place(|| outage.begin());
    let began = Instant::now();
    for (rail, payer, credential) in &paid {
        let asked = Instant::now();
        let answer = payer.present(credential).await.unwrap();
        refused_in_time(rail, &answer, asked);
    }
    // From the first bad news on, nobody is asked for money either.
    for (rail, payer, _) in &paid {
        let asked = Instant::now();
        refused_in_time(rail, &payer.ask().await.unwrap(), asked);
    }
    assert_eq!(world.served(), served, "served without a record");
    let (address, late) = (server.address.clone(), &world);
    let others = async { buy_many(late, &address, 12, 12).await };
    let mended = async {
        tokio::time::sleep(OUTAGE.saturating_sub(began.elapsed())).await;
        tokio::task::block_in_place(|| outage.end());
    };
    // Who comes during the outage waits for its end.
    let (others, ()) = tokio::join!(others, mended);
    for (rail, payer, credential) in paid {
        books.enter(rail, payer.finish(credential).await.unwrap());
    }
    books.extend(others);
    report(what, &books, server.restarts(), &world);
    books.balance(world.moved().unwrap()).unwrap();
    let states = server.settled_books().await;
    assert_eq!(states.get("delivered"), Some(&books.total()), "{states:?}");
    assert_eq!(server.restarts(), 0, "it must recover by itself");
}

fn refused_in_time(rail: &str, answer: &reqwest::Response, asked: Instant) {
    let took = asked.elapsed();
    assert!(took < IN_TIME, "{rail}: {took:?}");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{rail}");
    assert!(!answer.headers().contains_key(WWW_AUTHENTICATE), "{rail}");
}

/// Protects: a database without a connection to spare loses no payment and charges nobody twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgres"]
async fn postgres_has_no_connection_left() {
    let (world, folder) = (World::start().await.unwrap(), tempfile::tempdir().unwrap());
    let postgres = Postgres::start_with(&["max_connections=12"]);
    let store = postgres.database();
    let server = Supervised::start(node(&world, &folder, &store), "").await;
    let mut books = buy_on_every_rail(&world, &server.address).await;
    let over = Arc::new(AtomicBool::new(false));
    let hog = std::thread::spawn({
        let (over, port) = (over.clone(), postgres.port());
        move || hog(port, &over)
    });
    let (payers, ()) = tokio::join!(buy_many(&world, &server.address, 40, 8), async {
        tokio::time::sleep(OUTAGE).await;
        over.store(true, SeqCst);
    });
    hog.join().unwrap();
    books.extend(payers);
    report(
        "PostgreSQL without connections",
        &books,
        server.restarts(),
        &world,
    );
    books.balance(world.moved().unwrap()).unwrap();
    let states = server.settled_books().await;
    assert_eq!(states.get("delivered"), Some(&books.total()), "{states:?}");
    assert_eq!(server.restarts(), 0, "it must recover by itself");
}

/// Takes every connection the database has, and every one that others had, until it is `over`.
fn hog(port: u16, over: &AtomicBool) {
    const END_OTHERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                              WHERE datname LIKE 'farebox%'";
    let mut held = Vec::new();
    while !over.load(SeqCst) {
        while let Some(connection) = connect(port) {
            held.push(connection);
        }
        if let Some(connection) = held.first_mut() {
            let mut query = vec![b'Q'];
            query.extend(u32::try_from(END_OTHERS.len() + 5).unwrap().to_be_bytes());
            query.extend(END_OTHERS.as_bytes());
            query.push(0);
            connection.write_all(&query).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connection as PostgreSQL's protocol opens it, if there is one to be had.
fn connect(port: u16) -> Option<TcpStream> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let mut hello = u32::try_from(parameters.len() + 8)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    hello.extend(196_608_u32.to_be_bytes());
    hello.extend(parameters);
    connection.write_all(&hello).ok()?;
    let mut answer = [0];
    connection.read_exact(&mut answer).ok()?;
    // `R`: welcome. Anything else says that there are too many.
    (answer == *b"R").then_some(connection)
}

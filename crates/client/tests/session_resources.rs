//! One channel for several resources of a server, each of which takes only challenges of its own.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use farebox_client::session::{Answer, Courier, SessionError, Sessions};
use farebox_core::wire::{Challenge, Credential, Encoded, Timestamp};
use serde_json::Value;
use support::{
    Coins, Seller, Server, coins, memory, origin,
    prepaid::{Shop, process},
    sessions,
};

/// A server at one of its resources. By itself it forgets what it issued a challenge for; here it
/// remembers.
struct At<'a, M> {
    server: &'a M,
    resource: &'a str,
    /// The challenges of this and of all others.
    issued: &'a Mutex<HashSet<(String, String)>>,
    age: &'a AtomicU64,
}

impl<M: Seller> At<'_, M> {
    fn challenge(&self) -> Challenge {
        let mut challenge = self.server.challenge();
        challenge.expires = Some(later(self.age).plus(Duration::from_secs(300)));
        let own = (self.resource.to_owned(), challenge.id.clone());
        self.issued.lock().unwrap().insert(own);
        challenge
    }

    fn take(&self, resource: &str, credential: &Credential, units: u128) -> Answer {
        let at = (resource.to_owned(), credential.challenge.id.clone());
        let answer = match self.issued.lock().unwrap().contains(&at) {
            true => self.server.take(credential, units),
            false => self.server.refuse("invalid-challenge"),
        };
        match answer {
            Answer::Refused {
                status, problem, ..
            } => Answer::Refused {
                status,
                problem,
                challenges: vec![self.challenge()],
            },
            other => other,
        }
    }

    async fn served(&self, sessions: &Sessions) -> Result<(), SessionError> {
        let mut call = sessions.begin(&[self.challenge()], &origin(), self.resource)?;
        loop {
            let presentation = call.next(self).await?;
            let answer = self.take(self.resource, presentation.credential(), 1);
            if call.answered(presentation, answer).await? {
                return call.finish().await;
            }
        }
    }
}

impl<M: Seller> Courier for At<'_, M> {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        Ok(vec![self.challenge()])
    }

    async fn deliver(&self, credential: &Credential) -> Answer {
        self.take(self.resource, credential, 0)
    }

    async fn deliver_at(&self, resource: &str, credential: &Credential) -> Answer {
        self.take(resource, credential, 0)
    }
}

/// A server with three resources.
struct Site<M> {
    server: Arc<M>,
    issued: Mutex<HashSet<(String, String)>>,
    /// How many seconds later it is than the clock has it.
    age: Arc<AtomicU64>,
}

fn later(age: &AtomicU64) -> Timestamp {
    Timestamp::now().plus(Duration::from_secs(age.load(Ordering::SeqCst)))
}

impl<M: Seller> Site<M> {
    fn of(server: Arc<M>) -> Self {
        Self {
            server,
            issued: Mutex::default(),
            age: Arc::default(),
        }
    }

    fn at<'a>(&'a self, resource: &'a str) -> At<'a, M> {
        At {
            server: &self.server,
            resource,
            issued: &self.issued,
            age: &self.age,
        }
    }
}

fn is_unknown(result: &Result<(), SessionError>) -> bool {
    matches!(result, Err(SessionError::OutcomeUnknown { .. }))
}

/// Protects: a prepaid deposit whose answer got lost is shown where its invoice came from, whatever
/// resource is asked for next, by this process or another.
#[tokio::test(start_paused = true)]
async fn a_lost_opening_is_shown_where_it_was_asked_for() {
    for restarted in [false, true] {
        let (site, disk) = (Site::of(Shop::new(1, 10)), memory());
        let shop = &site.server;
        let mut sessions = process(shop, &disk);
        shop.lose.store(1, Ordering::SeqCst);
        assert!(is_unknown(&site.at("/a").served(&sessions).await));
        if restarted {
            sessions = process(shop, &disk);
        }
        // Nor is it lost if that does not get through at once.
        shop.lose.store(3, Ordering::SeqCst);
        assert!(is_unknown(&site.at("/b").served(&sessions).await));
        for resource in ["/b", "/c", "/a"] {
            site.at(resource).served(&sessions).await.unwrap();
        }
        assert_eq!(shop.paid(), 10);
        assert_eq!((shop.account().deposit, shop.account().spent), (10, 3));
        assert_eq!(sessions.budget().spent("coin"), coins(10));
        assert_eq!(sessions.channels().await.unwrap()[0].due, coins(3));
    }
}

/// Protects: so is a top-up, and then the calls go on.
#[tokio::test(start_paused = true)]
async fn a_lost_top_up_is_shown_where_it_was_asked_for() {
    for restarted in [false, true] {
        let (site, disk) = (Site::of(Shop::new(5, 10)), memory());
        let shop = &site.server;
        let mut sessions = process(shop, &disk);
        for resource in ["/a", "/b"] {
            site.at(resource).served(&sessions).await.unwrap();
        }
        shop.lose.store(3, Ordering::SeqCst);
        assert!(is_unknown(&site.at("/b").served(&sessions).await));
        assert_eq!((shop.paid(), shop.account().deposit), (20, 10));
        if restarted {
            sessions = process(shop, &disk);
        }
        shop.lose.store(3, Ordering::SeqCst);
        assert!(is_unknown(&site.at("/c").served(&sessions).await));
        for resource in ["/c", "/a"] {
            site.at(resource).served(&sessions).await.unwrap();
        }
        assert_eq!(shop.paid(), 20, "nothing is paid again");
        assert_eq!((shop.account().deposit, shop.account().spent), (20, 20));
    }
}

/// Protects: a close, which is said where the channel was opened, shows a top-up of another resource
/// there.
#[tokio::test(start_paused = true)]
async fn a_close_shows_a_top_up_of_another_resource() {
    let (site, disk) = (Site::of(Shop::new(5, 10)), memory());
    let shop = &site.server;
    let sessions = process(shop, &disk);
    for resource in ["/a", "/b"] {
        site.at(resource).served(&sessions).await.unwrap();
    }
    shop.lose.store(3, Ordering::SeqCst);
    assert!(is_unknown(&site.at("/b").served(&sessions).await));
    let channel = sessions.channels().await.unwrap().remove(0);
    assert_eq!((channel.phase, &*channel.resource), ("topping-up", "/a"));
    let place = site.at(&channel.resource);
    let closed = sessions.close(&channel.key, &origin(), &place).await;
    let closed = closed.unwrap();
    assert!(closed.confirmed);
    assert_eq!((closed.spent, closed.refunded), (coins(10), coins(10)));
}

/// Protects: vouchers too go on from a deposit that another resource asked for, before and after
/// its challenge lapsed.
#[tokio::test(start_paused = true)]
async fn a_signed_deposit_of_another_resource_is_shown_there() {
    for lapsed in [false, true] {
        let (site, disk) = (Site::of(Server::new(1, 2)), memory());
        let server = &site.server;
        let wallet = Coins::new(&server.chain);
        let age = site.age.clone();
        let sessions = sessions(&wallet, &disk, 100).clock(move || later(&age));
        let pass = || {
            site.age
                .fetch_add(if lapsed { 301 } else { 0 }, Ordering::SeqCst)
        };
        server.lose_before.store(1, Ordering::SeqCst);
        assert!(is_unknown(&site.at("/a").served(&sessions).await));
        pass();
        for resource in ["/b", "/c"] {
            site.at(resource).served(&sessions).await.unwrap();
        }
        server.lose_before.store(3, Ordering::SeqCst);
        assert!(is_unknown(&site.at("/c").served(&sessions).await));
        pass();
        for resource in ["/a", "/b"] {
            site.at(resource).served(&sessions).await.unwrap();
        }
        let (id, locked) = server.chain.only();
        assert_eq!((server.chain.opens(), locked.deposit), (1, 4));
        assert_eq!(server.books(&id).spent, 4);
        assert_eq!(wallet.most_signed(), 4);
    }
}

/// A shop that lists somebody else's challenge before its own.
struct Listed(Arc<Shop>);

impl Courier for Listed {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        let own = self.0.challenge();
        let mut request: Value = own.request.decode().unwrap();
        request["recipient"] = "them".into();
        let mut other = own.clone();
        other.request = Encoded::encode(&request).unwrap();
        Ok(vec![other, own])
    }

    async fn deliver(&self, credential: &Credential) -> Answer {
        self.0.deliver(credential).await
    }

    async fn deliver_at(&self, resource: &str, credential: &Credential) -> Answer {
        self.0.deliver_at(resource, credential).await
    }
}

/// Protects: a channel is topped up and closed by its own challenge, whatever else is offered first.
#[tokio::test]
async fn a_channel_goes_on_with_its_own_challenge() {
    let (shop, disk) = (Shop::new(1, 10), memory());
    let (sessions, listed) = (process(&shop, &disk), Listed(shop.clone()));
    for _ in 0..15 {
        let own = [shop.challenge()];
        let mut call = sessions.begin(&own, &origin(), "/").unwrap();
        loop {
            let presentation = call.next(&listed).await.unwrap();
            let answer = shop.take(presentation.credential(), 1);
            if call.answered(presentation, answer).await.unwrap() {
                break;
            }
        }
        call.finish().await.unwrap();
    }
    assert_eq!((shop.paid(), shop.account().spent), (20, 15));
    let channel = sessions.channels().await.unwrap().remove(0);
    let closed = sessions.close(&channel.key, &origin(), &listed).await;
    assert_eq!(closed.unwrap().spent, coins(15));
}

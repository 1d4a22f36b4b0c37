//! Rules for stores that outlive their handles and that several processes share.

use std::{sync::Arc, time::Duration};

use farebox_core::{Durability, Store};

use super::load::add_one;

/// Two handles to one place are two processes: what one wrote the other reads at once, and one
/// swap wins between them.
pub async fn handles_share_their_records<P: Clone>(
    place: P,
    open: impl AsyncFn(P) -> Arc<dyn Store>,
) {
    let handles = [open(place.clone()).await, open(place).await];
    for (n, [writer, reader]) in [[0, 1], [1, 0]].into_iter().enumerate() {
        let key = format!("seen:{n}");
        let [writer, reader] = [&handles[writer], &handles[reader]];
        assert_eq!(reader.get(&key).await.expect("answers"), None);
        let put = writer.compare_and_swap(&key, None, Some("v"), None);
        assert!(put.await.expect("answers"));
        let value = reader.get(&key).await.expect("answers");
        assert_eq!(value.as_deref(), Some("v"));
        assert_eq!(reader.scan(&key).await.expect("answers").len(), 1);
        let again = reader.compare_and_swap(&key, None, Some("w"), None);
        assert!(!again.await.expect("answers"), "it is there already");
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let store = handles[task % 2].clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                add_one(store.as_ref(), "count").await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    for handle in &handles {
        let count = handle.get("count").await.expect("answers");
        assert_eq!(count.as_deref(), Some("160"));
    }
}

/// What was answered is there for whoever opens the place next.
pub async fn records_outlive_handles<P: Clone>(place: P, open: impl AsyncFn(P) -> Arc<dyn Store>) {
    let store = open(place.clone()).await;
    assert_eq!(store.durability(), Durability::Durable);
    let put = store.compare_and_swap("k", None, Some("v"), None);
    assert!(put.await.expect("answers"));
    drop(store);
    let store = open(place).await;
    let value = store.get("k").await.expect("answers");
    assert_eq!(value.as_deref(), Some("v"));
    let take = store.compare_and_swap("k", Some("v"), None, None);
    assert!(take.await.expect("answers"));
}

/// Processes that start together on an empty place all come up, and share it.
pub async fn opening_at_once_is_no_race<P: Clone>(
    place: P,
    open: impl AsyncFn(P) -> Arc<dyn Store>,
) {
    let open = || open(place.clone());
    let (a, b, c, d, e, f) = tokio::join!(open(), open(), open(), open(), open(), open());
    for store in [&a, &b, &c, &d, &e, &f] {
        add_one(store.as_ref(), "opened").await;
    }
    let count = a.get("opened").await.expect("answers");
    assert_eq!(count.as_deref(), Some("6"));
}

/// Where a store carries words between processes, each reaches all who listen, in order, in this
/// process and in others, and no other store's.
pub async fn words_reach_every_handle<P: Clone>(place: P, open: impl AsyncFn(P) -> Arc<dyn Store>) {
    let handles = [open(place.clone()).await, open(place).await];
    let Some(teller) = handles[0].notices() else {
        assert!(handles[1].notices().is_none(), "both or neither");
        return;
    };
    let mut listeners = Vec::new();
    for handle in &handles {
        let notices = handle.notices().expect("both or neither");
        listeners.push(notices.listen().await.expect("listens"));
    }
    let words = ["chan:4:test:ü", "chan:4:test:' \" \\", &"x".repeat(512)];
    for word in words {
        teller.tell(word).await.expect("tells");
    }
    for listener in &mut listeners {
        for word in words {
            let heard = tokio::time::timeout(Duration::from_secs(60), listener.next());
            let heard = heard.await.expect("told in time");
            assert_eq!(heard.as_deref(), Some(word));
        }
    }
}

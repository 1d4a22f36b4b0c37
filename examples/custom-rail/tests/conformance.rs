//! The rules of every rail, and the example as it runs.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use farebox::{core::Method, wire::Challenge};
use farebox_testkit::rail::RailFixture;
use serde_json::{Value, json};

/// A thousand cards, used one by one.
#[derive(Default)]
struct Shop(AtomicU32);

#[async_trait::async_trait]
impl RailFixture for Shop {
    async fn method(&self) -> Arc<dyn Method> {
        let cards: Value = (0..1000)
            .map(|n| (format!("card-{n}"), json!(500)))
            .collect();
        (custom_rail::CHARGE.build)(&cards).unwrap()
    }

    fn terms(&self) -> Value {
        json!({ "amount": "4.50" })
    }

    async fn pay(&self, _: &Challenge) -> (Value, Option<String>) {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        (json!({ "code": format!("card-{n}") }), None)
    }

    async fn forged(&self, _: &Challenge) -> Vec<Value> {
        vec![json!({ "code": "no such card" }), json!({ "code": "" })]
    }
}

farebox_testkit::rail_conformance!(giftcard, Shop::default());

/// Protects: the rail works from its own crate alone, over HTTP, on both sides.
#[test]
fn the_shop_takes_two_cards() {
    let output = Command::new(env!("CARGO_BIN_EXE_custom-rail"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(said.matches(": a joke\n").count(), 2, "{said}");
}

/// Protects: the promise that a rail is a page.
#[test]
fn the_rail_is_at_most_sixty_lines() {
    assert!(include_str!("../src/lib.rs").lines().count() <= 60);
}

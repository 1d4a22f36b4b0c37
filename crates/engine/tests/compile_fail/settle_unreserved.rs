//! Money may not move before the challenge and the proof are claimed.
use farebox_engine::{Payment, Verified};

async fn settle(payment: Payment<Verified>) {
    let _ = payment.settle().await;
}

fn main() {}

//! One reservation settles once.
use farebox_engine::{Payment, Reserved};

async fn settle(payment: Payment<Reserved>) {
    let _ = payment.settle().await;
    let _ = payment.settle().await;
}

fn main() {}

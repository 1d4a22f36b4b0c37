//! Payments between real nodes. What a backend promises and what the rail keeps is written once, in
//! [`suite`], and runs over every [`Pair`] of nodes: the sandbox's behind two interfaces, two LDK nodes
//! in this process, two LND on a chain of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and this is nothing but tests"
)]

use std::sync::Arc;

use async_trait::async_trait;
use farebox::rails::lightning::{Node, PaymentHash, Preimage};

pub mod caps;
pub mod cln;
pub mod esplora;
pub mod faces;
pub mod ldk;
pub mod lnd;
pub mod rail;
pub mod sandbox;
pub mod session;
pub mod suite;

/// Two nodes with a channel between them, whose payer has at least 400 000 sats in it.
#[async_trait]
pub trait Pair: Send + Sync + 'static {
    /// The seller's node.
    fn seller(&self) -> Arc<dyn Node>;

    /// The same node with no more rights than a shop needs.
    fn shop(&self) -> Arc<dyn Node>;

    /// The payer's node.
    fn payer(&self) -> Arc<dyn Node>;

    /// The payer's process ends and begins again: whatever it held in memory is gone.
    async fn restart_payer(&self);

    /// The preimage of an invoice of the seller, read from its own node, paid or not.
    async fn leak(&self, invoice: PaymentHash) -> Preimage;

    /// An invoice of the seller that names no amount.
    async fn open_invoice(&self) -> String;

    /// What the next payment of the payer costs in routing, millisatoshis.
    fn fee_msat(&self) -> u64;
}

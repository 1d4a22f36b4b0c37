//! What a rail author or a store author tests with.
//!
//! - [`rail_conformance!`]: one macro line runs every rule a rail must keep, against the rail's
//!   own fixture;
//! - [`store_conformance!`]: the same for stores;
//! - [`Proxy`]: a store with something [`Between`] it and its process: a [`Fuse`] that dies before
//!   its n-th effect, a bad [`Network`], a [`Counter`], a [`Switch`], or a test's own;
//! - [`Bank`] and [`TestRail`]: money that counts how often it moved.
//!
//! Everything here panics on failure, as test code does.

mod bank;
mod faulty;
mod fixture;
mod fuse;
mod proxy;
pub mod rail;
pub mod store;

pub use bank::{Bank, Teller, TestPayload, TestRail};
pub use faulty::{FaultyStore, Network};
pub use fixture::PluginFixture;
pub use fuse::{Fuse, FusedStore};
pub use proxy::{Between, Call, Counter, Proxy, Switch, Wire, Write};

use farebox_core::wire::SecretRing;
use secrecy::SecretString;

/// The realm of the conformance tests' server.
pub const TEST_REALM: &str = "test.example";

/// A ring of one fixed secret, for tests only.
pub fn test_secrets() -> SecretRing {
    match SecretRing::new([SecretString::from("a secret of 32 bytes, only for tests")]) {
        Ok(ring) => ring,
        Err(error) => panic!("{error}"),
    }
}

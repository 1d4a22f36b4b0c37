//! The sandbox answers what Stripe's published description of its API promises, and the plugin sends
//! what it asks for.
//!
//! The description comes with Stripe's own stand-in, the Go module stripe-mock, which
//! `openapi/go.mod` pins.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod plugin;
mod sandbox;
mod schema;

use std::{env, path::PathBuf};

use schema::Published;

fn published() -> Published {
    let folder = env::var_os("FAREBOX_OPENAPI_FOLDER").expect("FAREBOX_OPENAPI_FOLDER is set");
    Published::open(&PathBuf::from(folder))
}

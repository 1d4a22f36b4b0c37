//! A browser, and a shop for it: Debian's Chromium driven over WebDriver, and a Farebox server on the
//! sandbox.
//!
//! A test that needs the browser is `#[ignore = "needs chromium…"]` and is run by `tests/run`, which
//! installs `chromium`, `chromium-driver` and axe-core. Everything here panics on failure, as test
//! code does.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

mod browser;
mod driver;
mod goods;
mod shop;

pub use browser::{Browser, PATIENCE, Scheme};
pub use goods::FILE_SIZE;
pub use shop::{Door, JOKE, Rails, Shop};

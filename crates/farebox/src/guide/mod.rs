//! How Farebox works, and how to work with it. Documentation only.

#[doc = include_str!("lifecycle.md")]
pub mod lifecycle {}

#[doc = include_str!("sessions.md")]
pub mod sessions {}

#[doc = include_str!("writing_a_rail.md")]
pub mod writing_a_rail {}

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[cfg(feature = "page")]
#[doc = include_str!("pages.md")]
pub mod pages {}

#[doc = include_str!("stores.md")]
pub mod stores {}

#[doc = include_str!("security.md")]
pub mod security {}

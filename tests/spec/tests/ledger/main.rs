//! What `spec/` says, against the tree: every requirement, every edge case and every difference
//! between drafts and deployed SDKs names tests that exist or says why there is none, and every
//! vector is read by a test.
//!
//! A test is named `<package>::<test function>`, for example `farebox-http::a_second_402_is_never_paid`.
//! The rules that every rail must keep are `farebox-conformance-tests::<rule>`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "the counts are the point")]

mod differences;
mod edge_cases;
mod requirements;
mod tree;
mod vectors;

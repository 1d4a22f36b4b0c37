//! Misuse that must not compile, with the compiler's words pinned.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

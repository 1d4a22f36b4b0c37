//! Rules that no other test looks at, mostly from outside: headers and bodies as any peer sees and
//! writes them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod common;
mod drafts;
mod paying;
mod terms;

//! Every effect by name, so that a test can stop a process right before or right after it.
//!
//! With the feature `failpoints` each effect is two points of the crate `fail`,
//! `<name>.before` and `<name>.after`; without it nothing of this is compiled. A process reads the
//! variable `FAILPOINTS` where it calls `fail::FailScenario::setup`.
//!
//! | name | effect |
//! |---|---|
//! | `quote.kept` | what a rail keeps with its challenge is stored |
//! | `pay.reserved` | a payment is reserved: its challenge is claimed, or a reservation is renewed |
//! | `pay.attempted` | an attempt is written ahead, or parked with its outcome unknown |
//! | `pay.paid` | money is recorded as in, or an unserved payment is given back |
//! | `pay.declined` | it is recorded that no money moved, or that it goes back unserved |
//! | `pay.serving` | the serving lease is taken or renewed |
//! | `pay.delivered` | a delivery is recorded |
//! | `pay.freed` | a reservation that came to nothing is removed |
//! | `proof.claimed` | a proof is claimed |
//! | `proof.freed` | a proof is let go |
//! | `todo.listed` | a payment is put on the reconciler's list |
//! | `todo.struck` | it is taken off |
//! | `settle` | the rail moves the money |
//! | `lookup` | the rail is asked what became of it |
//! | `channel.changed` | a channel's balance changes: opened, topped up, raised, spent, closed |
//! | `channel.listed` | a channel is put on the list of those to look after, or taken off |
//! | `channel.frozen` | a channel is held for its close, or let go of again |
//! | `refund.listed` | a refund is put on the reconciler's list |
//! | `refund.attempted` | a refund is written ahead |
//! | `refund` | the rail gives money back |
//! | `refund.lookup` | the rail is asked what became of a refund |
//! | `refund.recorded` | what became of it is recorded, or that nobody knows |
//! | `refund.struck` | it is taken off the list |

/// The names of all effects.
#[cfg(feature = "failpoints")]
pub const EFFECTS: &[&str] = &[
    "quote.kept",
    "pay.reserved",
    "pay.attempted",
    "pay.paid",
    "pay.declined",
    "pay.serving",
    "pay.delivered",
    "pay.freed",
    "proof.claimed",
    "proof.freed",
    "todo.listed",
    "todo.struck",
    "settle",
    "lookup",
    "channel.listed",
    "channel.changed",
    "channel.frozen",
    "refund.listed",
    "refund.attempted",
    "refund",
    "refund.lookup",
    "refund.recorded",
    "refund.struck",
];

/// Carries out an effect between its two fail points.
macro_rules! effect {
    ($name:expr, $effect:expr) => {{
        #[cfg(feature = "failpoints")]
        $crate::effect::reach($name, "before");
        let done = $effect;
        #[cfg(feature = "failpoints")]
        $crate::effect::reach($name, "after");
        done
    }};
}

#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str, when: &str) {
    fail::fail_point!(&format!("{name}.{when}"));
}

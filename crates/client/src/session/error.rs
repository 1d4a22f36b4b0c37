//! Why a session did not go on.

use std::time::Duration;

use farebox_core::{
    BudgetError, Cost, Fault,
    wire::{Amount, ProblemDetails},
};

use crate::origin::Origin;

/// Why nothing more is signed or paid on a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// See [`ClientError::InsecureOrigin`](crate::ClientError::InsecureOrigin).
    #[error("{0} asks for payment without TLS; only https or this machine is paid")]
    InsecureOrigin(Origin),
    /// None of the challenges is for a session that a wallet here can pay. Nothing moved.
    #[error("no session challenge can be paid: {0}")]
    NothingPayable(String),
    /// No [`DepositLimit`](super::DepositLimit) names the currency, so nothing is deposited in it.
    #[error("no deposit limit is set for {currency}, so nothing is deposited in it")]
    NoLimit {
        /// What the server wants to be paid in.
        currency: String,
    },
    /// The limit on the deposit would be passed. Nothing was signed.
    #[error("{needed} {currency} would have to be deposited, and {max_deposit} may be")]
    MaxDeposit {
        /// What the channel would have to hold, base units.
        needed: Amount,
        /// What it may hold.
        max_deposit: Amount,
        /// In this currency.
        currency: String,
    },
    /// The limit on one call would be passed. Nothing was signed.
    #[error("the call would cost more than the {limit} that one call may")]
    CallLimit {
        /// Base units.
        limit: Amount,
    },
    /// The server asks for more than it delivered and one step ahead. Nothing was signed.
    #[error("the server asks for {required} in all, and has delivered for {due}; it is not paid")]
    Overcharged {
        /// What it wants to be authorised, or says was spent. Base units.
        required: Amount,
        /// What has been received or is under way, with the step ahead.
        due: Amount,
    },
    /// The server keeps asking for money that it has, or that brings no service.
    #[error("the server asks for money again and again without delivering; it is not paid")]
    NoProgress,
    /// The server speaks of another channel than the one that pays. Nothing was signed.
    #[error("the server speaks of the channel {0}, which is not the one that pays it")]
    OtherChannel(String),
    /// The server says that it accepted more than was signed: the receipt is false.
    #[error("the receipt speaks of {accepted} authorised, and {signed} were")]
    FalseReceipt {
        /// What it says.
        accepted: Amount,
        /// What was signed.
        signed: Amount,
    },
    /// A limit of the budget would be passed. Nothing was signed.
    #[error("{0}")]
    OverBudget(BudgetError),
    /// The wallet does not hold enough.
    #[error("the wallet does not hold {} {}", .0.amount, .0.currency)]
    NotFunded(Cost),
    /// The wallet will not, and nothing moved.
    #[error("{0}")]
    NotPaid(farebox_core::PayError),
    /// A deposit or top-up may or may not have been made. It is recorded, nothing else is deposited
    /// until it is known, and the next call looks again.
    #[error("it is not known whether {amount} were deposited; nothing else is until it is: {why}")]
    OutcomeUnknown {
        /// Base units.
        amount: Amount,
        /// What got lost.
        why: String,
    },
    /// The server does not accept what is presented.
    #[error("the server does not accept it (status {status}){}", told(.problem))]
    NotAccepted {
        /// The HTTP status or its like.
        status: u16,
        /// What it says.
        problem: Option<Box<ProblemDetails>>,
    },
    /// The channel is being closed; the next call may open another once it is.
    #[error("the channel is being closed")]
    Closing,
    /// There is no such channel.
    #[error("there is no such channel")]
    NoChannel,
    /// The channel store failed, so that nothing may be signed.
    #[error("the channel store failed: {0}")]
    Store(#[source] Fault),
    /// The rail could not be asked how the channel stands.
    #[error("the channel's standing is not known: {0}")]
    Standing(#[source] Fault),
    /// The balance would pay for it, but streams hold it at the server for the moment. Nothing was
    /// served and nothing is owed for it.
    #[error(
        "streams hold what would pay for it; nothing was spent, and it may come again in {retry_after:?}"
    )]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The server gave no answer to a payment message. What was signed stays signed.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
}

fn told(problem: &Option<Box<ProblemDetails>>) -> String {
    problem
        .as_ref()
        .map(|p| format!(": {}: {}", p.title, p.detail))
        .unwrap_or_default()
}

//! The transfers that a request asks for, the payment and its splits, and whether those that were
//! made are these.

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    sol_types::SolCall,
};
use farebox_core::{Ask, Charge, Rejection};
use farebox_wire::{Amount, Challenge, Problem};
use serde::{Deserialize, Serialize};
use tempo_contracts::precompiles::ITIP20;

use crate::{Details, chain::Transfer, charge::memo};

/// As many splits as one payment may have.
pub(crate) const MAX_SPLITS: usize = 10;

/// What a challenge asks for.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) challenge: &'a Challenge,
    pub(crate) token: Address,
    /// Who gets what the splits leave.
    pub(crate) recipient: Address,
    /// What the splits leave, base units.
    pub(crate) rest: U256,
    pub(crate) details: Details,
    legs: Vec<Leg>,
}

/// One transfer that is asked for.
#[derive(Debug)]
struct Leg {
    to: Address,
    amount: U256,
    memo: Memo,
}

/// What a transfer's memo must be. Sorted by how few memos will do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Memo {
    Exactly(B256),
    /// The attribution memo of this challenge.
    Attribution,
    /// Anything but the attribution memo of another one.
    Any,
}

/// A transfer that was made, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) amount: U256,
    pub(crate) memo: Option<B256>,
}

/// A part of the amount that goes to somebody else, as the request has it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Split {
    /// Base units.
    pub(crate) amount: Amount,
    pub(crate) recipient: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memo: Option<B256>,
}

impl<'a> Asked<'a> {
    /// Reads a challenge's request.
    ///
    /// # Errors
    /// If it is none of this rail's, or asks for nothing.
    pub(crate) fn read(challenge: &'a Challenge) -> Result<Self, Rejection> {
        let wrong = |detail: &str| Rejection::new(Problem::InvalidChallenge, detail);
        if (challenge.method.as_str(), challenge.intent.as_str()) != ("tempo", "charge") {
            return Err(wrong("the challenge is not for tempo/charge"));
        }
        let ask: Ask<Charge, Details> = Ask::decode(&challenge.request)
            .map_err(|_| wrong("the challenge's request is none of tempo/charge"))?;
        Self::of(challenge, &ask)
    }

    /// The same from a request that has been read already.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn of(
        challenge: &'a Challenge,
        ask: &Ask<Charge, Details>,
    ) -> Result<Self, Rejection> {
        let wrong = |detail: &str| Rejection::new(Problem::InvalidChallenge, detail);
        let address = |text: &str| text.parse::<Address>().ok().filter(|a| !a.is_zero());
        let token = address(&ask.request.currency)
            .ok_or_else(|| wrong("the request's currency is no token address"))?;
        let recipient = address(ask.request.recipient.as_deref().unwrap_or_default())
            .ok_or_else(|| wrong("the request's recipient is no address"))?;
        let total = ask.request.amount;
        if total.is_zero() {
            return Err(Rejection::verification(
                "an amount of 0 takes a proof instead of a transfer",
            ));
        }
        let splits = ask.details.splits.as_deref().unwrap_or_default();
        if splits.len() > MAX_SPLITS {
            return Err(wrong("the request has too many splits"));
        }
        let mut rest = total;
        let mut legs = Vec::with_capacity(splits.len() + 1);
        for split in splits {
            let split: Split =
                Split::deserialize(split).map_err(|_| wrong("a split cannot be read"))?;
            rest = rest
                .checked_sub(split.amount)
                .filter(|rest| !rest.is_zero() && !split.amount.is_zero())
                .ok_or_else(|| wrong("the splits leave nothing, or one of them is nothing"))?;
            legs.push(Leg {
                to: split.recipient,
                amount: U256::from(split.amount.get()),
                memo: split.memo.map_or(Memo::Any, Memo::Exactly),
            });
        }
        let rest = U256::from(rest.get());
        legs.push(Leg {
            to: recipient,
            amount: rest,
            memo: ask.details.memo.map_or(Memo::Attribution, Memo::Exactly),
        });
        legs.sort_by(|a, b| a.memo.cmp(&b.memo));
        Ok(Self {
            challenge,
            token,
            recipient,
            rest,
            details: ask.details.clone(),
            legs,
        })
    }

    /// The transfers as `from` would make them. The payment itself comes last, where a node that
    /// simulates one call of several is sure to see it.
    pub(crate) fn transfers(&self, from: Address) -> Vec<Transfer> {
        let transfer = |leg: &Leg| Transfer {
            token: self.token,
            from,
            to: leg.to,
            amount: leg.amount,
            memo: match leg.memo {
                Memo::Exactly(memo) => Some(memo),
                Memo::Attribution => Some(memo::attribution(self.challenge)),
                Memo::Any => None,
            },
        };
        let mut transfers: Vec<Transfer> = self.legs.iter().map(transfer).collect();
        transfers.sort_by_key(|made| (made.to, made.amount) == (self.recipient, self.rest));
        transfers
    }

    /// Whom the request pays, the splits' recipients too.
    pub(crate) fn payees(&self) -> impl Iterator<Item = Address> {
        self.legs.iter().map(|leg| leg.to)
    }

    /// How many transfers there are.
    pub(crate) fn len(&self) -> usize {
        self.legs.len()
    }

    /// What all of them move together.
    pub(crate) fn total(&self) -> U256 {
        let amounts = self.legs.iter().map(|leg| leg.amount);
        amounts.fold(U256::ZERO, U256::saturating_add)
    }

    /// Whether `made` holds every transfer that is asked for, each counted once.
    ///
    /// # Errors
    /// The first one that is missing, or that names another challenge.
    pub(crate) fn check(&self, made: &[Made]) -> Result<(), Rejection> {
        let mut left: Vec<&Made> = made.iter().collect();
        for leg in &self.legs {
            let pays = |made: &&Made| made.to == leg.to && made.amount == leg.amount;
            match left.iter().position(|m| pays(m) && self.fits(leg, m)) {
                Some(at) => {
                    left.swap_remove(at);
                }
                None => return Err(self.missing(leg, left.into_iter().find(pays))),
            }
        }
        Ok(())
    }

    /// Whether the recipient was paid under another challenge's memo.
    pub(crate) fn is_for_another(&self, made: &[Made]) -> bool {
        let mut memos = made
            .iter()
            .filter(|made| made.to == self.recipient)
            .filter_map(|made| made.memo);
        memos.any(|memo| memo::is_attribution(&memo) && memo::check(&memo, self.challenge).is_err())
    }

    fn fits(&self, leg: &Leg, made: &Made) -> bool {
        match (&leg.memo, &made.memo) {
            (Memo::Exactly(memo), made) => *made == Some(*memo),
            (Memo::Attribution, made) => {
                made.is_some_and(|memo| memo::check(&memo, self.challenge).is_ok())
            }
            (Memo::Any, Some(memo)) => {
                !memo::is_attribution(memo) || memo::check(memo, self.challenge).is_ok()
            }
            (Memo::Any, None) => true,
        }
    }

    fn missing(&self, leg: &Leg, nearest: Option<&Made>) -> Rejection {
        let Some(made) = nearest else {
            let (amount, to, token) = (leg.amount, leg.to, self.token);
            return Rejection::verification(format!(
                "there is no transfer of {amount} base units of {token} to {to}"
            ));
        };
        match (&leg.memo, made.memo) {
            (Memo::Exactly(_), _) => {
                Rejection::verification("the transfer's memo is not the one asked for")
            }
            (_, Some(memo)) => memo::check(&memo, self.challenge)
                .err()
                .unwrap_or_else(|| Rejection::verification("the transfer is counted already")),
            (_, None) => Rejection::verification(
                "a plain transfer names no challenge; it needs the attribution memo",
            ),
        }
    }
}

/// A call's arguments, if they are in their only canonical encoding: other bytes cost gas too.
pub(crate) fn decode<C: SolCall>(input: &Bytes) -> Result<C, Rejection> {
    let call = C::abi_decode(input).ok();
    call.filter(|call| call.abi_encode() == **input)
        .ok_or_else(|| {
            Rejection::verification("a call is none of a payment, or not in its canonical encoding")
        })
}

/// The transfer that a call of a token makes, with or without a memo.
///
/// # Errors
/// If it makes none.
pub(crate) fn transfer(input: &Bytes, from: Address) -> Result<Made, Rejection> {
    if input.starts_with(&ITIP20::transferCall::SELECTOR) {
        let call: ITIP20::transferCall = decode(input)?;
        return Ok(Made {
            from,
            to: call.to,
            amount: call.amount,
            memo: None,
        });
    }
    let call: ITIP20::transferWithMemoCall = decode(input)?;
    Ok(Made {
        from,
        to: call.to,
        amount: call.amount,
        memo: Some(call.memo),
    })
}

//! What a call presents.

use std::fmt;

use farebox_core::wire::{Amount, Credential};

use super::lane::Turn;

/// What to present, and the right to do so, which is given back when it is dropped.
pub struct Presentation {
    credential: Credential,
    pub(super) kind: Kind,
    _turn: Turn,
}

pub(super) enum Kind {
    Open,
    Voucher(Amount),
}

impl Presentation {
    pub(super) fn new(credential: Credential, kind: Kind, turn: Turn) -> Self {
        Self {
            credential,
            kind,
            _turn: turn,
        }
    }

    /// The credential. It is as good as money.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// It makes a deposit, so that after a lost answer it should be presented again as it is.
    #[must_use]
    pub fn is_deposit(&self) -> bool {
        matches!(self.kind, Kind::Open)
    }
}

impl fmt::Debug for Presentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presentation")
            .field("challenge", &self.credential.challenge.id)
            .field("deposit", &self.is_deposit())
            .finish_non_exhaustive()
    }
}

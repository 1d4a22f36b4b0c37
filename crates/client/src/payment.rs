//! A payment that was made and waits to be presented.

use std::fmt;

use farebox_core::{
    Cost, Reservation,
    wire::{Credential, OfferId, Receipt},
};

/// A payment made, with the credential that proves it.
///
/// Its amount stays counted as spent whatever happens next, dropping it included: a signature or a
/// preimage that has left the wallet cannot be taken back, and a server's word that it did not use
/// it is no proof. So a lost reply is answered by presenting the same credential again, and never
/// by paying again.
#[must_use = "the credential is what was paid for"]
pub struct Payment {
    credential: Credential,
    cost: Cost,
    reservation: Reservation,
}

impl Payment {
    pub(crate) fn new(credential: Credential, cost: Cost, reservation: Reservation) -> Self {
        Self {
            credential,
            cost,
            reservation,
        }
    }

    /// What to present. It is as good as money until it is accepted.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What it cost.
    #[must_use]
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    /// The method and intent it was paid under.
    #[must_use]
    pub fn offer(&self) -> OfferId {
        self.credential.challenge.offer()
    }

    /// The server accepted it, with a receipt where the response carried one.
    pub fn accepted(self, receipt: Option<&Receipt>) {
        let reference = receipt.map(|receipt| receipt.reference.as_str());
        tracing::debug!(offer = %self.offer(), reference, "the payment was accepted");
        self.reservation.commit();
    }

    /// The server said that it does not accept it.
    pub fn not_accepted(self) {
        tracing::warn!(offer = %self.offer(), "the payment was not accepted");
        self.reservation.commit();
    }

    /// Nobody knows whether the server took it.
    pub fn unknown(self) {
        tracing::warn!(offer = %self.offer(), "the outcome of the payment is unknown");
        self.reservation.commit();
    }
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("challenge", &self.credential.challenge.id)
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

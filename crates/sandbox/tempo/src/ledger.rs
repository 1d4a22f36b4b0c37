//! The state of the chain: numbered slots with an undo journal, so a failed batch leaves no trace.

use std::collections::{BTreeMap, HashMap};

use alloy::primitives::{Address, B256, U256, address};
use tempo_contracts::precompiles::IAccountKeychain::CallScope;

/// pathUSD, the first stablecoin of the chain and the fee token of last resort.
pub const PATH_USD: Address = address!("0x20c0000000000000000000000000000000000000");
/// AlphaUSD.
pub const ALPHA_USD: Address = address!("0x20c0000000000000000000000000000000000001");
/// BetaUSD.
pub const BETA_USD: Address = address!("0x20c0000000000000000000000000000000000002");
/// ThetaUSD.
pub const THETA_USD: Address = address!("0x20c0000000000000000000000000000000000003");

/// One number the chain remembers. An unset slot is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    Balance {
        token: Address,
        owner: Address,
    },
    Allowance {
        token: Address,
        owner: Address,
        spender: Address,
    },
    Supply {
        token: Address,
    },
    /// Key zero is the protocol nonce.
    Nonce {
        account: Address,
        key: U256,
    },
    /// The token an account prefers to pay fees in, as an integer.
    FeeToken {
        account: Address,
    },
    /// Whether the exchange has a pair of this token and pathUSD.
    Pair {
        base: Address,
    },
    /// How much of it is for sale there.
    Offered {
        base: Address,
    },
    /// Who sells it.
    Maker {
        base: Address,
    },
    /// What the exchange holds for somebody.
    Proceeds {
        user: Address,
        token: Address,
    },
    /// What a payment channel holds, packed; zero when there is none.
    Channel {
        id: B256,
    },
    /// An access key of an account, packed.
    Key {
        account: Address,
        key: Address,
    },
    /// How much of a token a key may still spend.
    KeyLimit {
        account: Address,
        key: Address,
        token: Address,
    },
    /// The most it may spend and its period, packed.
    KeyRule {
        account: Address,
        key: Address,
        token: Address,
    },
    /// Whether an account took back what this witness stands for.
    BurnedWitness {
        account: Address,
        witness: B256,
    },
    /// How many slots a payer's closed channels left for its next ones.
    ChannelCredits {
        payer: Address,
    },
}

/// What a TIP-20 token says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) name: &'static str,
    pub(crate) symbol: &'static str,
}

/// A point to go back to; only meaningful for the ledger that gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checkpoint(usize);

/// What was there before a write.
#[derive(Debug)]
enum Undo {
    Slot(Slot, U256),
    Scopes((Address, Address), Option<Vec<CallScope>>),
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: HashMap<Slot, U256>,
    /// What keys may call, by account and key; any call if there is nothing.
    scopes: HashMap<(Address, Address), Vec<CallScope>>,
    journal: Vec<Undo>,
    tokens: BTreeMap<Address, Token>,
    /// Expiring transactions already included, by replay id, with their `valid_before`.
    spent: HashMap<B256, u64>,
}

impl Ledger {
    /// A ledger with the four usual stablecoins, all empty.
    pub(crate) fn new() -> Self {
        let tokens = [
            (PATH_USD, "pathUSD", "pathUSD"),
            (ALPHA_USD, "AlphaUSD", "AlphaUSD"),
            (BETA_USD, "BetaUSD", "BetaUSD"),
            (THETA_USD, "ThetaUSD", "ThetaUSD"),
        ];
        let tokens = tokens.map(|(address, name, symbol)| (address, Token { name, symbol }));
        Self {
            tokens: tokens.into(),
            ..Self::default()
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> U256 {
        self.slots.get(&slot).copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, slot: Slot, value: U256) {
        let old = self.slots.insert(slot, value).unwrap_or_default();
        self.journal.push(Undo::Slot(slot, old));
    }

    /// What a key may call; any call if there is nothing.
    pub(crate) fn scopes(&self, key: (Address, Address)) -> Option<&Vec<CallScope>> {
        self.scopes.get(&key)
    }

    pub(crate) fn set_scopes(&mut self, key: (Address, Address), scopes: Option<Vec<CallScope>>) {
        let old = match scopes {
            Some(scopes) => self.scopes.insert(key, scopes),
            None => self.scopes.remove(&key),
        };
        self.journal.push(Undo::Scopes(key, old));
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint(self.journal.len())
    }

    /// Undoes every write since `to`.
    pub(crate) fn revert(&mut self, to: Checkpoint) {
        while self.journal.len() > to.0 {
            match self.journal.pop() {
                Some(Undo::Slot(slot, old)) => drop(self.slots.insert(slot, old)),
                Some(Undo::Scopes(key, Some(old))) => drop(self.scopes.insert(key, old)),
                Some(Undo::Scopes(key, None)) => drop(self.scopes.remove(&key)),
                None => {}
            }
        }
    }

    /// Makes everything so far permanent; earlier checkpoints are void.
    pub(crate) fn commit(&mut self) {
        self.journal.clear();
    }

    pub(crate) fn token(&self, address: Address) -> Option<&Token> {
        self.tokens.get(&address)
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = Address> + '_ {
        self.tokens.keys().copied()
    }

    pub(crate) fn balance(&self, token: Address, owner: Address) -> U256 {
        self.get(Slot::Balance { token, owner })
    }

    /// Creates units out of nothing, as a faucet does. Saturates.
    pub(crate) fn mint(&mut self, token: Address, owner: Address, amount: u128) {
        for slot in [Slot::Balance { token, owner }, Slot::Supply { token }] {
            let value = self.get(slot).saturating_add(U256::from(amount));
            self.set(slot, value);
        }
    }

    pub(crate) fn nonce(&self, account: Address, key: U256) -> u64 {
        self.get(Slot::Nonce { account, key }).saturating_to()
    }

    /// The account's preferred fee token, if it ever set one.
    pub(crate) fn fee_token(&self, account: Address) -> Option<Address> {
        let token = Address::from_word(self.get(Slot::FeeToken { account }).into());
        (!token.is_zero()).then_some(token)
    }

    pub(crate) fn set_fee_token(&mut self, account: Address, token: Address) {
        self.set(Slot::FeeToken { account }, token.into_word().into());
    }

    pub(crate) fn is_spent(&self, id: &B256) -> bool {
        self.spent.contains_key(id)
    }

    pub(crate) fn spend(&mut self, id: B256, valid_before: u64) {
        self.spent.insert(id, valid_before);
    }

    /// Forgets expiring transactions that can no longer be included anyway.
    pub(crate) fn prune_spent(&mut self, now: u64) {
        self.spent.retain(|_, valid_before| *valid_before > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverting_restores_slots_written_several_times() {
        let mut ledger = Ledger::new();
        let slot = Slot::Supply { token: PATH_USD };
        ledger.set(slot, U256::from(1));
        ledger.commit();
        let mark = ledger.checkpoint();
        ledger.set(slot, U256::from(2));
        ledger.set(slot, U256::from(3));
        ledger.revert(mark);
        assert_eq!(ledger.get(slot), U256::from(1));
    }

    #[test]
    fn a_fee_token_preference_survives_the_round_trip_through_an_integer() {
        let mut ledger = Ledger::new();
        let account = Address::repeat_byte(7);
        assert_eq!(ledger.fee_token(account), None);
        ledger.set_fee_token(account, PATH_USD);
        assert_eq!(ledger.fee_token(account), Some(PATH_USD));
    }
}

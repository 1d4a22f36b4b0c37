//! The handle: start a chain, look into it, make it misbehave.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, b256},
    signers::local::PrivateKeySigner,
};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::{
    faults::{Fault, Planned},
    ledger::{ALPHA_USD, BETA_USD, Ledger, PATH_USD, THETA_USD},
    methods::Endpoint,
    node::Node,
    server::serve,
    sponsor::SPONSOR,
    state::State,
};

/// How many development accounts there are.
pub const DEV_ACCOUNTS: usize = 10;

/// Keys of `test test test test test test test test test test test junk`, m/44'/60'/0'/0/i: public
/// knowledge, worthless on any real chain.
const DEV_KEYS: [B256; DEV_ACCOUNTS] = [
    b256!("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"),
    b256!("0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"),
    b256!("0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"),
    b256!("0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"),
    b256!("0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a"),
    b256!("0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba"),
    b256!("0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e"),
    b256!("0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356"),
    b256!("0xdbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97"),
    b256!("0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6"),
];

/// Address and key of development account `index`, below [`DEV_ACCOUNTS`]. Each starts with
/// 2^64 − 1 base units of every token.
///
/// The first three prefer to pay fees in AlphaUSD, BetaUSD and ThetaUSD, the others in pathUSD, as
/// on a local Tempo node: what account 1 pays in pathUSD leaves its pathUSD to the unit.
pub fn dev_account(index: usize) -> Option<(Address, PrivateKeySigner)> {
    let signer = PrivateKeySigner::from_bytes(DEV_KEYS.get(index)?).ok()?;
    Some((signer.address(), signer))
}

/// How a chain starts.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Chain id; 1337 is the local network of the Tempo tools.
    pub chain_id: u64,
    /// Port on 127.0.0.1; zero takes a free one.
    pub port: u16,
    /// Time between empty blocks. A transaction is included at once, in a block of its own.
    pub block_time: Duration,
    /// Base fee per gas, in attodollars (1e-18 USD); it never moves.
    pub base_fee: u64,
    /// Whether `eth_sendRawTransactionSync` refuses a transaction it already knows, as some nodes
    /// do, instead of answering with its receipt.
    pub refuse_known: bool,
    /// How long after its request to close a channel a payer may withdraw, in whole seconds; 15
    /// minutes on a real chain.
    pub close_grace: Duration,
}

impl Default for ChainConfig {
    /// Chain 1337 on a free port, a block every half second, the base fee of an idle Tempo chain
    /// (0.6 gwei: a transfer costs about 0.00007 USD).
    fn default() -> Self {
        Self {
            chain_id: 1337,
            port: 0,
            block_time: Duration::from_millis(500),
            base_fee: 600_000_000,
            refuse_known: false,
            close_grace: Duration::from_secs(15 * 60),
        }
    }
}

/// A running chain. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Chain {
    node: Arc<Node>,
    address: SocketAddr,
    chain_id: u64,
    server: AbortHandle,
}

impl Chain {
    /// Binds 127.0.0.1 and starts answering, on the Tokio runtime of the caller.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub async fn start(config: ChainConfig) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await?;
        let address = listener.local_addr()?;
        let state = State::new(genesis(), &config);
        let node = Arc::new(Node::new(state));
        let beat = config.block_time;
        let server = tokio::spawn(serve(listener, Arc::clone(&node), beat)).abort_handle();
        Ok(Self {
            node,
            address,
            chain_id: config.chain_id,
            server,
        })
    }

    /// `http://127.0.0.1:…`, the JSON-RPC endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The JSON-RPC endpoint of a fee payer on this chain: a node that also answers
    /// `eth_fillTransaction`, for a transaction that asks for a sponsor, with [`Self::sponsor`]'s
    /// signature on its fee, in the fee token named or pathUSD. It signs for anyone; what comes
    /// without its gas is tried here first.
    pub fn sponsor_url(&self) -> String {
        format!("{}{}", self.url(), Endpoint::SPONSOR)
    }

    /// Who pays the fees of what the fee payer signs: the last development account.
    pub fn sponsor(&self) -> Address {
        dev_account(SPONSOR).map_or(Address::ZERO, |(address, _)| address)
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The chain id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Height of the newest block.
    pub fn block_number(&self) -> u64 {
        self.node.state().height()
    }

    /// Balance in base units (1e-6 USD). An unknown token has none.
    pub fn balance(&self, token: Address, owner: Address) -> u128 {
        self.node
            .state()
            .ledger
            .balance(token, owner)
            .saturating_to()
    }

    /// Gives `amount` base units to `owner`, like a faucet: no transaction, no log. A token that
    /// does not exist gives nothing.
    pub fn mint(&self, token: Address, owner: Address, amount: u128) {
        self.node.update(|state| {
            if state.ledger.token(token).is_some() {
                state.ledger.mint(token, owner, amount);
                state.ledger.commit();
            }
        });
    }

    /// Sets the token `account` pays fees in when a transaction names none.
    pub fn prefer_fee_token(&self, account: Address, token: Address) {
        self.node.update(|state| {
            state.ledger.set_fee_token(account, token);
            state.ledger.commit();
        });
    }

    /// Moves the chain's clock ahead of the machine's, to see windows close without waiting.
    pub fn advance_clock(&self, by: Duration) {
        self.node.update(|state| state.advance(by));
    }

    /// Stops including transactions; the pool still takes them.
    pub fn pause_mining(&self) {
        self.node.update(|state| state.paused = true);
    }

    /// Includes what has gathered, and goes on.
    pub fn resume_mining(&self) {
        self.node.update(|state| state.paused = false);
    }

    /// How often a method was called, whether or not it was answered.
    pub fn calls(&self, method: &str) -> usize {
        self.node.faults().count(method)
    }

    /// How often any method was called.
    pub fn total_calls(&self) -> usize {
        self.node.faults().total()
    }

    /// The next `times` calls of `method` meet `fault` and have no effect.
    pub fn fail_next(&self, method: &str, times: usize, fault: Fault) {
        self.node.faults().plan(
            method,
            times,
            &Planned {
                fault,
                after: false,
            },
        );
    }

    /// The next `times` calls of `method` take effect, and only their answer meets `fault`: the
    /// money has moved and the caller does not know.
    pub fn lose_reply(&self, method: &str, times: usize, fault: Fault) {
        self.node
            .faults()
            .plan(method, times, &Planned { fault, after: true });
    }

    /// Forgets every fault not yet met.
    pub fn clear_faults(&self) {
        self.node.faults().clear();
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn genesis() -> Ledger {
    let mut ledger = Ledger::new();
    let tokens: Vec<_> = ledger.tokens().collect();
    let accounts = (0..DEV_ACCOUNTS)
        .filter_map(dev_account)
        .map(|(address, _)| address);
    for (index, account) in accounts.enumerate() {
        for token in &tokens {
            ledger.mint(*token, account, u128::from(u64::MAX));
        }
        let preferred = [ALPHA_USD, BETA_USD, THETA_USD].get(index).copied();
        ledger.set_fee_token(account, preferred.unwrap_or(PATH_USD));
    }
    ledger.commit();
    ledger
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::U256;

    /// Everyone's tools know these ten addresses by heart.
    #[test]
    fn dev_accounts_are_the_well_known_ones() {
        let address = |i| dev_account(i).map(|(address, _)| address.to_string());
        assert_eq!(
            address(0).as_deref(),
            Some("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
        );
        assert_eq!(
            address(9).as_deref(),
            Some("0xa0Ee7A142d267C1f36714E4a8F75612F20a79720")
        );
        assert_eq!(address(10), None);
    }

    /// Fees and transfers must not create or destroy money.
    #[test]
    fn supply_is_the_sum_of_the_accounts() {
        let ledger = genesis();
        let supply = ledger.get(crate::ledger::Slot::Supply { token: PATH_USD });
        assert_eq!(supply, U256::from(u64::MAX) * U256::from(DEV_ACCOUNTS));
    }
}

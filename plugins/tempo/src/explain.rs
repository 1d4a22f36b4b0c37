//! A node's refusal in words for the payer. The node's own text is never passed on: it may name
//! hosts, and what it says differs from node to node.

use alloy::{primitives::Bytes, sol_types::SolInterface};
use tempo_contracts::precompiles::{
    AccountKeychainError, ITIP20::ITIP20Errors, StablecoinDEXError,
};

use crate::rpc::Refused;

/// How Tempo's fees work, for payers who come from chains with a native token.
const FEE: &str = "the account cannot pay the network fee: Tempo has no native gas token, so fund \
                   it with the stablecoin fee token that the transaction names";

const ACCESS_KEY: &str = "the access key may not make this payment: it is revoked, has expired, or \
                          its limits or scopes do not cover it; sign with the account's own key";

/// What nodes say of a transaction that came too late or too early.
const WINDOW: [&str; 3] = ["valid_before", "valid_after", "transaction expired"];

const OUTSIDE: &str = "the transaction is outside its validity window; sign it again";

/// Why a simulated or submitted transaction fails, if the node said so for a reason that lies in
/// the transaction or its sender. `None`: the node itself has a problem.
///
/// The codes that nodes refuse transactions with are also those of gateways that are overloaded or
/// out of credit, so only whole phrases of a node count.
pub(crate) fn payers_fault(refused: &Refused) -> Option<String> {
    if let Some(text) = revert(refused) {
        return Some(text);
    }
    let message = refused.message.to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|phrase| message.contains(phrase));
    // What anvil puts before an error of Tempo's own or of the execution's, whatever the code.
    let tempos = says(&[
        "tempo transaction error",
        "evm error precompileoog",
        "evm error outofgas",
    ]);
    if !matches!(refused.code, 3 | -32000 | -32003) && !tempos {
        return None;
    }
    let text = if says(&[
        "insufficient funds for",
        "lack of funds",
        "insufficient fee token balance",
        "invalid fee token",
        "no fee token preference",
        "liquidity for fee token",
        "liquidity in feeamm",
        "is blacklisted by fee token",
    ]) {
        FEE
    } else if says(&WINDOW) {
        OUTSIDE
    } else if says(&[
        "expiring nonce",
        "nonce too low",
        "nonce too high",
        "nonce has max value",
    ]) {
        "the transaction's nonce is used up or not the account's next; sign it again"
    } else if says(&["invalid signature", "signature verification failed"]) {
        "the chain does not accept the transaction's signature"
    } else if says(&["keychain validation", "access key", "spending limit"]) {
        ACCESS_KEY
    } else if says(&["invalid chain id"]) {
        "the transaction is for another chain"
    } else if says(&[
        "intrinsic gas",
        "gas for intrinsic cost",
        "block base fee",
        "minimum base fee",
        "max fee per gas",
        "transaction underpriced",
        "out of gas",
        "outofgas",
        "precompileoog",
    ]) {
        "the transaction's gas limit or fee per gas does not fit; estimate them again (a first \
         balance of a recipient takes 250 000 gas more)"
    } else if tempos {
        "the chain would refuse the transaction"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// Whether a submission was refused before the node took the transaction in, for a reason that no
/// state of the chain can change: only then can neither another node nor a later attempt include the
/// same bytes. An account can be funded, a base fee can fall, a window that is too far ahead comes
/// nearer, and "already known" or "nonce too low" may mean that this very transaction is included.
pub(crate) fn never_taken(refused: &Refused) -> bool {
    let message = refused.message.to_ascii_lowercase();
    let certain = [
        "invalid signature",
        "invalid chain id",
        "intrinsic gas too low",
        "less than intrinsic gas",
        "insufficient gas for intrinsic cost",
        // Its window has closed, or does so before a block could be built.
        "transaction expired",
        "must be > current time",
        "is too close to current time",
    ];
    certain.iter().any(|phrase| message.contains(phrase))
}

/// Why a fee payer's service does not sign, if that lies in what the payer signed: its calls are
/// reverted, or its window is wrong. Fees, nonces and signatures may be the service's own.
pub(crate) fn senders_fault(refused: &Refused) -> Option<String> {
    if let Some(text) = revert(refused) {
        return Some(text);
    }
    let message = refused.message.to_ascii_lowercase();
    let outside = WINDOW.iter().any(|phrase| message.contains(phrase));
    payers_fault(refused).filter(|_| outside)
}

/// Whether a submission was refused for a reason that the same bytes can outgrow, by a node that has
/// not taken them in. "Already known" and "already used" are no such refusals.
pub(crate) fn not_taken_now(refused: &Refused) -> bool {
    let message = refused.message.to_ascii_lowercase();
    let passing = [
        "insufficient funds for",
        "lack of funds",
        "insufficient fee token balance",
        "block base fee",
        "minimum base fee",
        "max fee per gas",
        "transaction underpriced",
        "seconds from now",
        "must be within",
        "nonce too high",
    ];
    payers_fault(refused).is_some() && passing.iter().any(|phrase| message.contains(phrase))
}

fn revert(refused: &Refused) -> Option<String> {
    let data = match &refused.data {
        Some(serde_json::Value::String(text)) => text.parse::<Bytes>().ok(),
        _ => None,
    };
    let error = data
        .as_ref()
        .and_then(|data| ITIP20Errors::abi_decode(data).ok());
    let text = match error {
        Some(ITIP20Errors::InsufficientBalance(e)) => {
            return Some(format!(
                "the account holds {} base units of the token {} and needs {}; fund it first",
                e.available, e.token, e.required
            ));
        }
        Some(ITIP20Errors::PolicyForbids(_)) => {
            "the token's transfer policy forbids this payer or this recipient"
        }
        Some(ITIP20Errors::ContractPaused(_)) => "the token is paused; nothing moves for now",
        Some(ITIP20Errors::InvalidRecipient(_)) => "the token does not let the recipient be paid",
        Some(ITIP20Errors::Uninitialized(_)) => "the currency is no token on this chain",
        Some(_) => "the token refuses the transfer",
        None if data.as_ref().is_some_and(|data| elsewhere(data).is_some()) => {
            return data.as_ref().and_then(elsewhere);
        }
        None if refused.code == 3
            || refused
                .message
                .to_ascii_lowercase()
                .contains("execution reverted") =>
        {
            "the transfer would be reverted"
        }
        None => return None,
    };
    Some(text.to_owned())
}

/// What a contract says that is no token: the keychain, the exchange.
fn elsewhere(data: &Bytes) -> Option<String> {
    if AccountKeychainError::abi_decode(data).is_ok() {
        return Some(ACCESS_KEY.to_owned());
    }
    let text = match StablecoinDEXError::abi_decode(data).ok()? {
        StablecoinDEXError::PairDoesNotExist(_) | StablecoinDEXError::InsufficientLiquidity(_) => {
            "the chain's exchange does not sell that much of the token; fund the account with the \
             token itself, or buy with another one"
        }
        StablecoinDEXError::MaxInputExceeded(_) => {
            "the token costs more now than may be given for it; try again, or allow more slippage"
        }
        _ => "the chain's exchange refuses the swap",
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use alloy::{primitives::hex, sol_types::SolError};
    use serde_json::json;
    use tempo_contracts::precompiles::{
        IAccountKeychain::SpendingLimitExceeded, IStablecoinDEX::MaxInputExceeded,
    };

    use super::*;

    fn refused(code: i64, message: &str, data: Option<&str>) -> Refused {
        Refused {
            code,
            message: message.into(),
            data: data.map(|d| json!(d)),
        }
    }

    /// Words of real nodes (anvil 1.7.1 in Tempo mode), and whose fault each is.
    #[test]
    fn refusals_are_told_from_outages() {
        let short = "0x832f98b500000000000000000000000000000000000000000000000000000000000000050000\
                     00000000000000000000000000000000000000000000000000000000001000000000000000000000\
                     000020c0000000000000000000000000000000000000";
        for (code, message, data, says) in [
            (
                3,
                "execution reverted: custom error 0x832f98b5",
                Some(short),
                "holds 5 base units",
            ),
            (
                3,
                "execution reverted: custom error 0x1c72fad4",
                Some("0x1c72fad4"),
                "no token",
            ),
            (3, "execution reverted", None, "reverted"),
            (
                -32003,
                "Insufficient funds for gas * price + value",
                None,
                "fee token",
            ),
            (
                -32003,
                "insufficient fee token balance: have 1, need 2",
                None,
                "fee token",
            ),
            (
                -32603,
                "tempo transaction error: transaction expired: current",
                None,
                "window",
            ),
            (
                -32003,
                "Tempo tx valid_before (1) must be > current time",
                None,
                "window",
            ),
            (-32003, "nonce too low", None, "nonce"),
            (-32003, "access key has been revoked", None, "access key"),
            // SpendingLimitExceeded() of the keychain, MaxInputExceeded() of the exchange.
            (
                3,
                "execution reverted",
                Some(&hex::encode_prefixed(SpendingLimitExceeded::SELECTOR)),
                "access key",
            ),
            (
                3,
                "execution reverted",
                Some(&hex::encode_prefixed(MaxInputExceeded::SELECTOR)),
                "slippage",
            ),
            (-32003, "intrinsic gas too low", None, "gas limit"),
            (-32603, "EVM error PrecompileOOG", None, "gas limit"),
            (-32000, "execution reverted", None, "reverted"),
            (
                -32003,
                "'valid_before' 9 is too close to current time (min allowed: 12)",
                None,
                "window",
            ),
            (
                -32603,
                "tempo transaction error: something new",
                None,
                "would refuse",
            ),
        ] {
            let text = payers_fault(&refused(code, message, data)).unwrap();
            assert!(text.contains(says), "{message}: {text}");
        }
        for (code, message) in [
            (-32601, "Method not found: eth_call"),
            (-32603, "Internal error"),
            (
                -32005,
                "rate limit exceeded, upgrade at https://node.example",
            ),
            (-32000, "header not found"),
            (-32000, "API key expired"),
            (-32000, "missing signature in auth token"),
            (-32000, "daily gas for upstream fees exhausted"),
            (-32000, "filter nonce unknown"),
            (-32603, "database reverted to read-only mode"),
            (-32003, "upstream overloaded"),
        ] {
            assert_eq!(
                payers_fault(&refused(code, message, None)),
                None,
                "{message}"
            );
        }
    }

    /// Protects: a transaction that is in a block, or may get into one yet, is not called declined.
    #[test]
    fn only_what_no_state_can_change_is_final() {
        for message in [
            "already known",
            "transaction already imported",
            "nonce too low",
            "expiring nonce already used",
            "transaction was not included within the timeout",
            "Internal error",
            "insufficient funds for gas * price + value",
            "insufficient fee token balance: have 1",
            "max fee per gas less than block base fee",
            "valid_before (9) is more than 30 seconds from now",
            "Expiring nonce 'valid_before' 9 exceeds max allowed 5 (must be within 30s)",
        ] {
            assert!(!never_taken(&refused(-32003, message, None)), "{message}");
        }
        for message in [
            "invalid signature",
            "Tempo tx valid_before (1) must be > current time + 3s (5)",
            "tempo transaction error: expiring nonce transaction expired: valid_before (1)",
        ] {
            let refused = refused(-32003, message, None);
            assert!(never_taken(&refused), "{message}");
            assert!(payers_fault(&refused).is_some(), "{message}");
        }
    }
}

//! A node's refusal in words for the payer. The node's own text is never passed on: it may name
//! hosts, and what it says differs from node to node.

use alloy::{primitives::Bytes, sol_types::SolInterface};
use tempo_contracts::precompiles::ITIP20::ITIP20Errors;

use crate::rpc::Refused;

/// How Tempo's fees work, for payers who come from chains with a native token.
const FEE: &str = "the account cannot pay the network fee: Tempo has no native gas token, so fund \
                   it with the stablecoin fee token that the transaction names";

/// Why a simulated or submitted transaction fails, if the node said so for a reason that lies in
/// the transaction or its sender. `None`: the node itself has a problem.
pub(crate) fn payers_fault(refused: &Refused) -> Option<String> {
    if let Some(text) = revert(refused) {
        return Some(text);
    }
    let message = refused.message.to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|word| message.contains(word));
    if !matches!(refused.code, 3 | -32000 | -32003) && !says(&["tempo transaction error"]) {
        return None;
    }
    let text = if says(&[
        "insufficient funds",
        "insufficient fee",
        "fee token",
        "user fee",
    ]) {
        FEE
    } else if says(&[
        "valid_before",
        "validbefore",
        "expired",
        "valid_after",
        "validafter",
    ]) {
        "the transaction is outside its validity window; sign it again"
    } else if says(&["expiring nonce", "nonce"]) {
        "the transaction's nonce is used up or not the account's next; sign it again"
    } else if says(&["signature", "keychain", "access key"]) {
        "the chain does not accept the transaction's signature"
    } else if says(&["chain id"]) {
        "the transaction is for another chain"
    } else if says(&["gas", "fee cap", "max fee"]) {
        "the transaction's gas limit or fee per gas is too low; estimate them again"
    } else if refused.code != -32000 {
        "the chain would refuse the transaction"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// Whether a submission was refused before the node took the transaction in, for a reason that the
/// same bytes cannot outgrow in their short window. "Already known", "nonce too low" and the like
/// are not: they may mean that the very same transaction has been included.
pub(crate) fn never_taken(refused: &Refused) -> bool {
    let message = refused.message.to_ascii_lowercase();
    let certain = [
        "insufficient funds",
        "insufficient fee",
        "invalid signature",
        "invalid chain id",
        "intrinsic gas too low",
        "block base fee",
        "valid_before",
        "transaction expired",
    ];
    certain.iter().any(|word| message.contains(word))
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
        None if refused.code == 3 || refused.message.to_ascii_lowercase().contains("revert") => {
            "the transfer would be reverted"
        }
        None => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            (-32003, "intrinsic gas too low", None, "gas limit"),
            (-32003, "something new", None, "would refuse"),
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
        ] {
            assert_eq!(
                payers_fault(&refused(code, message, None)),
                None,
                "{message}"
            );
        }
    }

    /// Protects: a transaction that may be in a block is never called declined.
    #[test]
    fn a_known_transaction_is_not_called_refused() {
        for message in [
            "already known",
            "transaction already imported",
            "nonce too low",
            "expiring nonce already used",
            "transaction was not included within the timeout",
            "Internal error",
        ] {
            assert!(!never_taken(&refused(-32003, message, None)), "{message}");
        }
        assert!(never_taken(&refused(
            -32003,
            "insufficient fee token balance: have 1",
            None
        )));
    }
}

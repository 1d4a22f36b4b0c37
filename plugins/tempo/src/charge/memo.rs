//! The attribution memo: 32 bytes on the transfer that tie it to one challenge.
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | the start of `keccak256("mpp")` |
//! | 4 | version 1 |
//! | 5..15 | the start of `keccak256(realm)` |
//! | 15..25 | the start of `keccak256(client id)`, or zeros |
//! | 25..32 | the start of `keccak256(challenge id)` |
//!
//! Every Tempo charge here must carry it. Without it any transfer of the right amount would answer
//! any challenge, and one transfer several.

use alloy::primitives::{B256, keccak256};
use farebox_core::Rejection;
use farebox_wire::Challenge;

const TAG: [u8; 4] = [0xef, 0x1e, 0xd7, 0x12];
const VERSION: u8 = 1;

/// The memo of an anonymous client for `challenge`.
pub fn attribution(challenge: &Challenge) -> B256 {
    let mut memo = [0u8; 32];
    memo[..4].copy_from_slice(&TAG);
    memo[4] = VERSION;
    memo[5..15].copy_from_slice(&keccak256(&challenge.realm)[..10]);
    memo[25..].copy_from_slice(&keccak256(&challenge.id)[..7]);
    memo.into()
}

/// Whether `memo` is an attribution memo, of whatever challenge.
pub(crate) fn is_attribution(memo: &B256) -> bool {
    memo.starts_with(&TAG) && memo[4] == VERSION
}

/// Whether `memo` names this challenge. Any client id will do.
///
/// # Errors
/// What it names instead.
pub fn check(memo: &B256, challenge: &Challenge) -> Result<(), Rejection> {
    let expected = attribution(challenge);
    let differs = |range: std::ops::Range<usize>| memo[range.clone()] != expected[range];
    let problem = if differs(0..5) {
        "the transfer's memo is no attribution memo, version 1; it must name this challenge"
    } else if differs(5..15) {
        "the transfer's memo names another realm"
    } else if differs(25..32) {
        "the transfer's memo names another challenge; sign a transaction for this one"
    } else {
        return Ok(());
    };
    Err(Rejection::verification(problem))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::b256;
    use farebox_wire::Encoded;

    use super::*;

    fn challenge() -> Challenge {
        Challenge {
            id: "h2TTaH7NX-3jdb1nGn0zDjZuukOjloFEkDJrOHSUQtk".into(),
            realm: "api.example.com".into(),
            method: "tempo".into(),
            intent: "charge".into(),
            request: Encoded::encode(&serde_json::json!({})).unwrap(),
            expires: None,
            digest: None,
            description: None,
            opaque: None,
            header: None,
        }
    }

    /// Protects: the bytes that deployed peers compute for the same challenge.
    #[test]
    fn golden() {
        assert_eq!(keccak256("mpp")[..4], TAG);
        assert_eq!(
            attribution(&challenge()),
            b256!("0xef1ed712011ece072f76bd8b82350e00000000000000000000e2197a9d0e15d2")
        );
    }

    #[test]
    fn a_memo_names_one_challenge_of_one_realm() {
        let check = |flip: usize| {
            let mut memo = attribution(&challenge());
            memo[flip] ^= 1;
            super::check(&memo, &challenge()).map_err(|r| r.detail)
        };
        for byte in 0..5 {
            assert!(check(byte).unwrap_err().contains("no attribution memo"));
        }
        for byte in 5..15 {
            assert!(check(byte).unwrap_err().contains("another realm"));
        }
        for byte in 15..25 {
            assert_eq!(check(byte), Ok(()), "the client id is the client's");
        }
        for byte in 25..32 {
            assert!(check(byte).unwrap_err().contains("another challenge"));
        }
    }
}

//! Reading addresses and amounts that people write. Shared with the Tempo rail.

use alloy::primitives::Address;
use farebox_core::{ChargeRequest, ChargeTerms, Invalid, Issue};
use farebox_wire::Amount;

/// Digits after the point of every TIP-20 token.
pub const DECIMALS: u8 = 6;

/// In what and to whom a rail asks to be paid, unless an offer says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payee {
    /// The token's address.
    pub currency: Address,
    /// Who is paid.
    pub recipient: Address,
}

impl Payee {
    /// Reads both from configuration, adding what is wrong to `issues`.
    pub fn read(
        currency: Option<&str>,
        recipient: Option<&str>,
        issues: &mut Vec<Issue>,
    ) -> Option<Self> {
        let mut read = |key: &str, text: Option<&str>, check: fn(&str, &str) -> Parsed| {
            let missing = || Issue::new(key, "is missing; give an address");
            let parsed = text.ok_or_else(missing).and_then(|text| check(key, text));
            parsed.map_err(|issue| issues.push(issue)).ok()
        };
        let currency = read("currency", currency, token);
        let recipient = read("recipient", recipient, account);
        Some(Self {
            currency: currency?,
            recipient: recipient?,
        })
    }

    /// The shared request members for `terms`, in base units of `decimals` digits.
    ///
    /// # Errors
    /// Everything that is wrong with the terms: an option nobody knows, an amount the token cannot
    /// express, an address that is none.
    pub fn request(&self, terms: &ChargeTerms, decimals: u8) -> Result<ChargeRequest, Invalid> {
        self.request_with(terms, decimals, &[])
    }

    /// The same where a rail has `options` of its own, which it reads itself.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn request_with(
        &self,
        terms: &ChargeTerms,
        decimals: u8,
        options: &[&str],
    ) -> Result<ChargeRequest, Invalid> {
        let mut issues = terms
            .only_options(options)
            .err()
            .map(Invalid::into_issues)
            .unwrap_or_default();
        let mut keep = |issue| issues.push(issue);
        let amount = amount(&terms.amount, decimals).map_err(&mut keep);
        let own = |text: &Option<String>, key, check: fn(&str, &str) -> Parsed, default| {
            text.as_deref().map_or(Ok(default), |text| check(key, text))
        };
        let currency = own(&terms.currency, "currency", token, self.currency).map_err(&mut keep);
        let recipient =
            own(&terms.recipient, "recipient", account, self.recipient).map_err(&mut keep);
        Invalid::unless_empty(issues)?;
        match (amount, currency, recipient) {
            (Ok(amount), Ok(currency), Ok(recipient)) => Ok(ChargeRequest {
                recipient: Some(recipient.to_string()),
                ..terms.request(amount, currency.to_string())
            }),
            // Not reached: each error has left an issue.
            _ => Err(Invalid::new("", "the terms cannot be read")),
        }
    }
}

type Parsed = Result<Address, Issue>;

fn amount(text: &str, decimals: u8) -> Result<Amount, Issue> {
    Amount::from_decimal(text, decimals).map_err(|error| {
        Issue::new(
            "amount",
            format!("{error}; write a decimal such as \"0.01\""),
        )
    })
}

/// An account's address: `0x` and 40 hexadecimal digits, not zero. A mixed-case address must carry
/// a good EIP-55 checksum, so a mistyped one is found before money goes there.
///
/// # Errors
/// An issue with `key`.
pub fn account(key: &str, text: &str) -> Result<Address, Issue> {
    let shape = || {
        let len = text.len();
        Issue::new(
            key,
            format!("is no address ({len} characters); give 0x and 40 hexadecimal digits"),
        )
    };
    let digits = text
        .strip_prefix("0x")
        .filter(|d| d.len() == 40)
        .ok_or_else(shape)?;
    let address: Address = text.parse().map_err(|_| shape())?;
    let mixed = digits.bytes().any(|b| b.is_ascii_uppercase())
        && digits.bytes().any(|b| b.is_ascii_lowercase());
    if mixed && Address::parse_checksummed(text, None).is_err() {
        return Err(Issue::new(
            key,
            "has a wrong EIP-55 checksum, so a digit is probably mistyped; copy it again",
        ));
    }
    if address.is_zero() {
        return Err(Issue::new(key, "is the zero address; give a real one"));
    }
    Ok(address)
}

/// A TIP-20 token's address.
///
/// # Errors
/// An issue with `key`.
pub fn token(key: &str, text: &str) -> Result<Address, Issue> {
    let address = account(key, text)?;
    if !is_token(address) {
        return Err(Issue::new(
            key,
            "is no TIP-20 token; their addresses start with 0x20c0",
        ));
    }
    Ok(address)
}

/// Whether the address is in the range of TIP-20 tokens.
pub fn is_token(address: Address) -> bool {
    // The 12-byte prefix that the token factory gives every TIP-20 token.
    const PREFIX: [u8; 12] = [0x20, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    address.as_slice().starts_with(&PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0x20c0000000000000000000000000000000000000";
    const ACCOUNT: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

    fn payee() -> Payee {
        let mut issues = Vec::new();
        Payee::read(Some(TOKEN), Some(ACCOUNT), &mut issues).unwrap()
    }

    #[test]
    fn amounts_are_exact_decimals() {
        let request = |amount: &str| payee().request(&ChargeTerms::amount(amount), DECIMALS);
        assert_eq!(request("0.01").unwrap().amount, Amount::new(10_000));
        for bad in [
            "",
            "0x10",
            "1e3",
            "+1",
            "-1",
            "0.0000001",
            "1.",
            ".5",
            "1,5",
            "01",
        ] {
            let invalid = request(bad).unwrap_err();
            assert_eq!(invalid.issues().len(), 1, "{bad}");
            assert_eq!(invalid.issues()[0].key, "amount", "{bad}");
        }
    }

    /// Protects: one start, one list of everything that is wrong.
    #[test]
    fn every_problem_is_reported_at_once() {
        let terms = ChargeTerms::amount("1e3")
            .currency("usd")
            .option("amout", "1");
        let terms = ChargeTerms {
            recipient: Some("bob".into()),
            ..terms
        };
        let invalid = payee().request(&terms, DECIMALS).unwrap_err();
        let mut keys: Vec<_> = invalid.issues().iter().map(|i| i.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["amount", "amout", "currency", "recipient"]);

        let mut issues = Vec::new();
        assert_eq!(Payee::read(None, Some("0x12"), &mut issues), None);
        assert_eq!(issues.len(), 2);
    }

    #[test]
    fn addresses_that_money_must_not_go_to() {
        let zero = "0x0000000000000000000000000000000000000000";
        let typo = ACCOUNT.replace("FA42", "fA42");
        for (text, says) in [
            (zero, "zero address"),
            (typo.as_str(), "checksum"),
            ("0x3C44", "6 characters"),
            (&ACCOUNT[2..], "no address"),
            ("alice.eth", "no address"),
        ] {
            let issue = account("recipient", text).unwrap_err();
            assert!(issue.problem.contains(says), "{text}: {}", issue.problem);
        }
        assert!(account("recipient", &ACCOUNT.to_lowercase()).is_ok());
        assert!(
            token("currency", ACCOUNT).is_err(),
            "an account is no token"
        );
        assert!(
            token("currency", zero)
                .unwrap_err()
                .problem
                .contains("zero address")
        );
        assert!(token("currency", TOKEN).is_ok());
    }
}

//! Who paid, as a DID.

use std::{fmt, str::FromStr};

use alloy::primitives::Address;

/// An account on a chain: `did:pkh:eip155:<chain id>:<address>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The account.
    pub address: Address,
}

/// The text is no `did:pkh:eip155` DID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSource;

impl fmt::Display for InvalidSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source is `did:pkh:eip155:<chain id>:<0x address>`")
    }
}

impl std::error::Error for InvalidSource {}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "did:pkh:eip155:{}:{}", self.chain_id, self.address)
    }
}

impl FromStr for Source {
    type Err = InvalidSource;

    /// One account has one spelling but for the case of its address: no signs, no leading zeros,
    /// nothing after the address.
    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let rest = text.strip_prefix("did:pkh:eip155:").ok_or(InvalidSource)?;
        let (chain, address) = rest.split_once(':').ok_or(InvalidSource)?;
        let digits = !chain.is_empty() && chain.bytes().all(|b| b.is_ascii_digit());
        if !digits || chain.starts_with('0') || !address.starts_with("0x") || address.len() != 42 {
            return Err(InvalidSource);
        }
        Ok(Self {
            chain_id: chain.parse().map_err(|_| InvalidSource)?,
            address: address.parse().map_err(|_| InvalidSource)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    #[test]
    fn one_account_has_one_spelling_but_for_case() {
        let text = format!("did:pkh:eip155:1337:{ADDRESS}");
        let source: Source = text.parse().unwrap();
        assert_eq!(source.chain_id, 1337);
        assert_eq!(source.to_string(), text);
        assert_eq!(
            text.replace(ADDRESS, &ADDRESS.to_lowercase()).parse(),
            Ok(source)
        );
    }

    /// Protects: two texts cannot stand for one payer, nor one text for another chain.
    #[test]
    fn loose_spellings_are_refused() {
        let short = &ADDRESS[..41];
        let bare = &ADDRESS[2..];
        for bad in [
            String::new(),
            ADDRESS.to_owned(),
            format!("did:pkh:eip155:01337:{ADDRESS}"),
            format!("did:pkh:eip155:0:{ADDRESS}"),
            format!("did:pkh:eip155:+1:{ADDRESS}"),
            format!("did:pkh:eip155:0x1:{ADDRESS}"),
            format!("did:pkh:eip155::{ADDRESS}"),
            format!("did:pkh:eip155:18446744073709551616:{ADDRESS}"),
            format!("did:pkh:eip155:1337:{ADDRESS}:"),
            format!("did:pkh:eip155:1337:{ADDRESS}:1"),
            format!("did:pkh:eip155:1337:{ADDRESS} "),
            format!(" did:pkh:eip155:1337:{ADDRESS}"),
            format!("DID:pkh:eip155:1337:{ADDRESS}"),
            format!("did:pkh:solana:1337:{ADDRESS}"),
            format!("did:pkh:eip155:1337:{short}"),
            format!("did:pkh:eip155:1337:{short}g"),
            format!("did:pkh:eip155:1337:{bare}"),
            format!("did:pkh:eip155:1337:{bare}00"),
            format!("did:pkh:eip155:1337:0X{bare}"),
        ] {
            assert_eq!(bad.parse::<Source>(), Err(InvalidSource), "{bad}");
        }
    }
}

//! Currencies as Stripe counts them: exponents, steps and smallest charges.

use farebox_wire::{Amount, AmountError};

/// The most that Stripe takes in any currency: twelve digits (docs.stripe.com/currencies). Most
/// currencies allow eight; there Stripe itself refuses.
const MAX_UNITS: u128 = 999_999_999_999;

/// Currencies where Stripe's units are not those of ISO 4217 (docs.stripe.com/currencies, "Special
/// cases" and "Zero-decimal currencies").
const EXPONENTS: [(&str, u8); 3] = [("isk", 2), ("mga", 0), ("ugx", 2)];

/// Two decimals by the API, none in truth: the units must come in hundreds.
const WHOLE_ONLY: [&str; 2] = ["isk", "ugx"];

/// The smallest charges in Stripe's units (docs.stripe.com/currencies, "Minimum and maximum charge
/// amounts"). They hold for accounts that settle in the same currency; an account that settles in
/// another one sets its own in the configuration.
const MINIMUMS: [(&str, u64); 31] = [
    ("aed", 200),
    ("ars", 50),
    ("aud", 50),
    ("bgn", 100),
    ("brl", 50),
    ("cad", 50),
    ("chf", 50),
    ("cop", 50),
    ("czk", 1_500),
    ("dkk", 250),
    ("eur", 50),
    ("gbp", 30),
    ("hkd", 400),
    ("huf", 17_500),
    ("idr", 50),
    ("ils", 50),
    ("inr", 50),
    ("jpy", 50),
    ("krw", 50),
    ("mxn", 1_000),
    ("myr", 200),
    ("nok", 300),
    ("nzd", 50),
    ("php", 50),
    ("pln", 200),
    ("ron", 200),
    ("sek", 300),
    ("sgd", 50),
    ("thb", 1_000),
    ("usd", 50),
    ("zar", 50),
];

fn lookup<T: Copy>(table: &[(&str, T)], code: &str) -> Option<T> {
    table
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, value)| *value)
}

/// A currency that Stripe can charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Currency {
    code: String,
    decimals: u8,
    /// Amounts must be a multiple of this.
    step: u64,
}

impl Currency {
    /// From an ISO 4217 code in either case. The error is for the seller.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let code = text.to_ascii_lowercase();
        let iso = iso_currency::Currency::from_code(&code.to_ascii_uppercase());
        let exponent = iso.and_then(iso_currency::Currency::exponent);
        let Some(exponent) = exponent.and_then(|e| u8::try_from(e).ok()) else {
            return Err(format!(
                "`{text}` is no currency; give an ISO 4217 code, like \"usd\""
            ));
        };
        let decimals = lookup(&EXPONENTS, &code).unwrap_or(exponent);
        let step = match decimals {
            // The last digit of three must be 0 (docs.stripe.com/currencies, "Three-decimal").
            3 => 10,
            _ if WHOLE_ONLY.contains(&code.as_str()) => 100,
            _ => 1,
        };
        Ok(Self {
            code,
            decimals,
            step,
        })
    }

    /// The code in lower case, as Stripe and the challenge spell it.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// How many digits of an amount are below one.
    pub(crate) fn decimals(&self) -> usize {
        self.decimals.into()
    }

    /// The same, as amounts are read.
    pub(crate) fn exponent(&self) -> u8 {
        self.decimals
    }

    /// Reads `"0.50"` into Stripe's units. The error is for the seller.
    pub(crate) fn read(&self, text: &str) -> Result<Amount, String> {
        let example = if self.decimals == 0 {
            "\"50\""
        } else {
            "\"0.50\""
        };
        let amount = Amount::from_decimal(text, self.decimals).map_err(|error| match error {
            AmountError::TooPrecise { .. } => {
                format!("`{text}` is finer than {} goes: {error}", self.code)
            }
            _ => format!("`{text}`: {error}; give a decimal, like {example}"),
        })?;
        if amount.is_zero() {
            return Err("is 0; Stripe charges nothing below its minimum".to_owned());
        }
        if amount.get() > MAX_UNITS {
            return Err(format!("`{text}` is more than Stripe takes in one charge"));
        }
        if amount.get() % u128::from(self.step) != 0 {
            let step = Amount::new(u128::from(self.step)).to_decimal(self.decimals);
            return Err(format!(
                "`{text}` is no multiple of {step}, which Stripe asks of {}",
                self.code
            ));
        }
        Ok(amount)
    }

    /// The smallest charge in Stripe's table, if the currency is there.
    pub(crate) fn minimum(&self) -> Amount {
        Amount::new(lookup(&MINIMUMS, &self.code).map_or(0, u128::from))
    }

    /// For people: `0.50 usd`.
    pub(crate) fn show(&self, amount: Amount) -> String {
        format!("{} {}", amount.to_decimal(self.decimals), self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str, code: &str) -> Result<u128, String> {
        Currency::parse(code)
            .and_then(|c| c.read(text))
            .map(Amount::get)
    }

    /// Protects: a price is charged in the units Stripe counts in, not a hundredfold.
    #[test]
    fn decimals_become_stripes_units() {
        for (text, code, expected) in [
            ("0.50", "usd", 50),
            ("0.5", "USD", 50),
            ("12", "eur", 1_200),
            ("500", "jpy", 500),
            ("5", "ugx", 500),
            ("5", "isk", 500),
            ("5", "mga", 5),
            ("1.230", "kwd", 1_230),
            ("175", "huf", 17_500),
        ] {
            assert_eq!(units(text, code), Ok(expected), "{text} {code}");
        }
    }

    #[test]
    fn what_cannot_be_charged_is_refused() {
        for (text, code) in [
            ("0.005", "usd"),
            ("0.5", "jpy"),
            ("5.50", "ugx"),
            ("1.234", "kwd"),
            ("0", "usd"),
            ("", "usd"),
            ("+1", "usd"),
            ("1e3", "usd"),
            ("0x10", "usd"),
            ("10000000000", "usd"),
            ("1", "xau"),
            ("1", "usdc"),
            ("1", ""),
        ] {
            assert!(units(text, code).is_err(), "{text} {code}");
        }
    }

    #[test]
    fn every_minimum_is_of_a_currency_and_chargeable() {
        for (code, minimum) in MINIMUMS {
            let currency = Currency::parse(code).unwrap();
            assert_eq!(currency.minimum().get(), u128::from(minimum));
            assert_eq!(minimum % currency.step, 0, "{code}");
        }
        assert_eq!(Currency::parse("vnd").unwrap().minimum(), Amount::ZERO);
    }
}

//! Terms into a request.

use farebox_core::{Charge, ChargeRequest, ChargeTerms, Fault, Invalid, NoQuote, Quote};

use crate::{Details, Proof, terms::DECIMALS};

/// The request for `terms`, which must cost nothing.
pub(crate) fn check(rail: &Proof, terms: &ChargeTerms) -> Result<ChargeRequest, Invalid> {
    let request = rail.payee.request(terms, DECIMALS)?;
    if !request.amount.is_zero() {
        let text = "a proof moves no money; write \"0\", or offer tempo/charge";
        return Err(Invalid::new("amount", text));
    }
    Ok(request)
}

pub(crate) fn quote(rail: &Proof, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
    let request = check(rail, terms).map_err(|e| Fault::new("quoting a proof").caused_by(e))?;
    Ok(Quote::new(
        request,
        Details {
            chain_id: Some(rail.chain_id),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn rail() -> Proof {
        Proof::new(Config {
            chain_id: Some(1337),
            currency: Some("0x20c0000000000000000000000000000000000000".into()),
            recipient: Some("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into()),
        })
        .unwrap()
    }

    #[test]
    fn only_nothing_can_be_asked_for() {
        assert!(
            check(&rail(), &ChargeTerms::amount("0"))
                .unwrap()
                .amount
                .is_zero()
        );
        let invalid = check(&rail(), &ChargeTerms::amount("0.01")).unwrap_err();
        assert_eq!(invalid.issues()[0].key, "amount");
        assert!(check(&rail(), &ChargeTerms::amount("")).is_err());
    }
}

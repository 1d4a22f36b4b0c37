//! Terms into a request.

use farebox_core::{Charge, ChargeTerms, Fault, NoQuote, Quote};

use crate::{Details, Tempo};

/// The request for `terms`. No I/O: the memo that binds the payment follows from the challenge.
pub(crate) fn quote(rail: &Tempo, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
    let request = rail
        .payee
        .request(terms, rail.decimals)
        .map_err(|e| Fault::new("quoting a tempo charge").caused_by(e))?;
    let chain_id = Some(rail.chain.id());
    // A proof is no submission mode, so a zero-amount request names none.
    let modes = (!request.amount.is_zero()).then(|| vec!["pull".to_owned()]);
    let details = Details {
        chain_id,
        supported_modes: modes,
        ..Details::default()
    };
    Ok(Quote::new(request, details))
}

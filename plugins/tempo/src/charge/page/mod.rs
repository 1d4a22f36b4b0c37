//! The rail's part of a payment page: what is asked for, and a transfer that the browser's wallet can
//! send. The transfer's memo names the challenge, so whoever copies the address by hand would pay for
//! nothing; the page says so.

use alloy::{primitives::U256, sol_types::SolCall};
use farebox_core::{Ask, Charge, PagePart, wire::Challenge};
use serde::Serialize;
use tempo_contracts::precompiles::{ITIP20, PATH_USD_ADDRESS};

use crate::{
    Details,
    charge::{legs::Asked, memo},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    token: String,
    recipient: String,
    chain_id: u64,
    /// The transfer, where a wallet that knows nothing of this protocol can make it.
    call: Option<String>,
}

/// `None` where nothing is asked for: a proof of who asks is a program's work.
pub(crate) fn part(
    challenge: &Challenge,
    ask: &Ask<Charge, Details>,
    decimals: u8,
) -> Option<PagePart> {
    let asked = Asked::of(challenge, ask).ok()?;
    let chain_id = ask.details.chain_id?;
    let plain = ask.details.splits.is_none() && ask.details.memo.is_none();
    let call = (plain && ask.details.takes_hash().is_ok()).then(|| {
        let call = ITIP20::transferWithMemoCall {
            to: asked.recipient,
            amount: U256::from(ask.request.amount.get()),
            memo: memo::attribution(challenge),
        };
        format!("0x{}", alloy::hex::encode(call.abi_encode()))
    });
    let token = asked.token.to_string();
    let name = match asked.token == PATH_USD_ADDRESS {
        true => "pathUSD".to_owned(),
        false => format!("{}…{}", &token[..6], &token[token.len() - 4..]),
    };
    let price = format!("{} {name}", ask.request.amount.to_decimal(decimals));
    let data = Data {
        token,
        recipient: asked.recipient.to_string(),
        chain_id,
        call,
    };
    let part = PagePart::new("Tempo", price)
        .html(include_str!("transfer.html"))
        .script(include_str!("transfer.js"));
    Some(part.data(&data))
}

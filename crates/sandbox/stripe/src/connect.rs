//! What a charge may say of connected accounts (docs.stripe.com/connect/charges).

use crate::{error::ApiError, form::Form, model::Settlement};

/// Reads the parameters of a charge of `amount` by `account`.
pub(crate) fn settlement(
    form: &Form,
    account: Option<&str>,
    amount: u64,
) -> Result<Settlement, ApiError> {
    let id = |name: &str| match form.get(name) {
        Some(id) if !id.starts_with("acct_") => {
            Err(ApiError::invalid(format!("No such destination: '{id}'")).param(name))
        }
        id => Ok(id.map(str::to_owned)),
    };
    let part = |name: &str| match form.get(name) {
        Some(_) => form.required_integer(name).map(Some),
        None => Ok(None),
    };
    let settlement = Settlement {
        application_fee: part("application_fee_amount")?,
        on_behalf_of: id("on_behalf_of")?,
        destination: id("transfer_data[destination]")?,
        transfer: part("transfer_data[amount]")?,
        transfer_group: form.get("transfer_group").map(str::to_owned),
    };
    let refuse = |message: &str, param: &str| Err(ApiError::invalid(message).param(param));
    if settlement.transfer.is_some() && settlement.destination.is_none() {
        return refuse(
            "transfer_data[amount] needs transfer_data[destination].",
            "transfer_data[destination]",
        );
    }
    if let Some(fee) = settlement.application_fee {
        const FEE: &str = "application_fee_amount";
        if account.is_none() && settlement.destination.is_none() {
            return refuse(
                "Can only apply an application_fee_amount to a charge of a connected account.",
                FEE,
            );
        }
        if settlement.transfer.is_some() {
            return refuse(
                "You cannot pass both application_fee_amount and transfer_data[amount].",
                FEE,
            );
        }
        if fee > amount {
            return refuse("Your application fee cannot exceed the charge.", FEE);
        }
    }
    if settlement.transfer.is_some_and(|part| part > amount) {
        return refuse(
            "The transfer's amount must not exceed the charge's.",
            "transfer_data[amount]",
        );
    }
    Ok(settlement)
}

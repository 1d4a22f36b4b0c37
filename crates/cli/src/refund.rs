//! `farebox refund`: giving back what was charged.

use comfy_table::{Table, presets};
use farebox::engine::{RefundError, RefundRequest, RefundState, RefundedEntry};
use serde_json::json;

use crate::{
    args::Refund,
    books::durable,
    failure::{Failure, UNKNOWN, USAGE, printable},
};

pub(crate) async fn run(args: Refund) -> Result<(), Failure> {
    let config = durable(&args.config)?;
    let mut request = RefundRequest::new(&args.reference);
    if let Some(amount) = &args.amount {
        request = request.part(amount);
    }
    if let Some(key) = &args.key {
        request = request.named(key);
    }
    if let Some(rail) = &args.rail {
        request = request.on(rail);
    }
    let gave = config.server.engine().refund(request).await;
    let gave = gave.map_err(failed)?;
    let payment = &gave.payment;
    let show = |amount: farebox::Amount| {
        let amount = amount.to_decimal(payment.decimals);
        format!("{amount} {}", printable(&payment.currency))
    };
    if args.json {
        let line = json!({
            "refund": gave.refund, "repeated": gave.repeated, "payment": payment,
        });
        println!("{line}");
    } else if gave.refund.state == RefundState::Done {
        let reference = gave.refund.reference.as_deref().unwrap_or_default();
        let verb = match gave.repeated {
            true => "was given back before, and nothing moved now",
            false => "given back",
        };
        println!(
            "{} {verb}: {}",
            show(gave.refund.amount),
            printable(reference)
        );
        println!(
            "{}: charged {}, refunded {}, net {}",
            printable(&payment.reference),
            show(payment.charged),
            show(payment.refunded),
            show(payment.net)
        );
    }
    match gave.refund.state {
        RefundState::Done => Ok(()),
        _ => Err(Failure::new(
            UNKNOWN,
            "nobody knows yet whether the money went back; ask again with the same command, which \
             gives it back once at most",
        )),
    }
}

fn failed(error: RefundError) -> Failure {
    let code = match &error {
        RefundError::NoSuchPayment { .. }
        | RefundError::CannotRefund(_)
        | RefundError::NoRail(_)
        | RefundError::Invalid(_)
        | RefundError::TooMuch { .. } => USAGE,
        RefundError::Undecided => UNKNOWN,
        _ => 1,
    };
    Failure::new(code, error.to_string())
}

/// For the books.
pub(crate) fn table(payments: &[RefundedEntry]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "refunded", "method", "payment", "charged", "net", "currency", "refunds",
    ]);
    for payment in payments {
        let refunds = payment.refunds.iter().map(|refund| {
            let reference = refund.reference.as_deref().unwrap_or("-");
            format!("{} {} {reference}", refund.state.as_str(), refund.amount)
        });
        let refunds: Vec<String> = refunds.collect();
        table.add_row([
            payment.refunded.to_string(),
            printable(&payment.method),
            printable(&payment.reference),
            payment.charged.to_string(),
            payment.net.to_string(),
            printable(&payment.currency),
            printable(&refunds.join(", ")),
        ]);
    }
    table
}

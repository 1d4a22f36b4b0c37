//! The rail's part of a payment page: the invoice as a QR code and a link, and ways for the preimage
//! to come back. Only the wallet that pays learns it, so the page asks it over WebLN, or its owner.

use farebox_core::{Ask, Charge, PagePart};
use qrcode::{Color, EcLevel, QrCode};
use serde::Serialize;

use crate::bolt11::Details;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    invoice: &'a str,
    payment_hash: Option<&'a str>,
    qr: String,
}

/// `None` where no code can hold the invoice.
pub(crate) fn part(ask: &Ask<Charge, Details>) -> Option<PagePart> {
    let invoice = ask.details.invoice.as_str();
    let price = format!("{} sats", ask.request.amount);
    let data = Data {
        invoice,
        payment_hash: ask.details.payment_hash.as_deref(),
        qr: svg(invoice)?,
    };
    let part = PagePart::new("Lightning", price)
        .html(include_str!("invoice.html"))
        .script(include_str!("invoice.js"));
    Some(part.data(&data))
}

/// The link as a QR code. Upper case, which codes write in half the room.
fn svg(invoice: &str) -> Option<String> {
    use std::fmt::Write as _;
    let text = format!("LIGHTNING:{}", invoice.to_ascii_uppercase());
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (width, colors) = (code.width(), code.to_colors());
    // Each run of dark modules in a row is a line. The quiet zone is the page's.
    let mut path = String::with_capacity(width * width);
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] == Color::Dark {
                let length = run.len();
                // Writing to a string does not fail.
                let _ = write!(path, "M{x} {y}h{length}v1h-{length}z");
            }
            x += run.len();
        }
    }
    Some(format!(
        "<svg class=\"qr\" viewBox=\"-1 -1 {0} {0}\" role=\"img\" aria-label=\"The invoice as a QR \
         code\" shape-rendering=\"crispEdges\"><path fill=\"#000\" d=\"{path}\"/></svg>",
        width + 2
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: the code is drawn as it was made, and holds the longest invoice there is use for.
    #[test]
    fn a_code_is_drawn() {
        let drawn = svg("lnbc1").unwrap_or_default();
        // The corner's finder pattern: seven dark modules.
        assert!(drawn.contains("M0 0h7v1h-7z"), "{drawn}");
        assert!(svg(&"a".repeat(4_200)).is_some());
        assert!(svg(&"a".repeat(5_000)).is_none());
    }
}

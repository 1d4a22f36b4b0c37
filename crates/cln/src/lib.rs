//! The part of Core Lightning's gRPC interface that Farebox uses: seven calls, and of their messages
//! the fields that are read or written.
//!
//! The `.proto` file is this project's own; names, numbers and types on the wire are Core
//! Lightning's. The client is always here, the service trait with the feature `server`, and a
//! connection to a node with the feature `channel`.

use std::fmt;

#[cfg(feature = "channel")]
pub mod connect;

/// `package cln`: the node's service and its messages.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
pub mod cln {
    tonic::include_proto!("cln");
}

/// Leaves out the preimage.
impl fmt::Debug for cln::XpayResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XpayResponse")
            .field("amount_msat", &self.amount_msat)
            .field("amount_sent_msat", &self.amount_sent_msat)
            .finish_non_exhaustive()
    }
}

/// Leaves out the preimage.
impl fmt::Debug for cln::ListpaysPays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListpaysPays")
            .field("payment_hash", &self.payment_hash)
            .field("status", &self.status())
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::cln::amount_or_any::Value;
    use super::cln::listpays_pays::ListpaysPaysStatus as Status;
    use super::*;
    use prost::Message;

    /// A field number that drifts would still compile, and be silently ignored by a real node.
    #[test]
    fn field_numbers_are_core_lightnings() {
        let amount = |msat| cln::Amount { msat };
        let invoice = cln::InvoiceRequest {
            description: "d".into(),
            label: "l".into(),
            expiry: Some(2),
            amount_msat: Some(cln::AmountOrAny {
                value: Some(Value::Amount(amount(1))),
            }),
        };
        // Tag = number << 3 | wire type: description 2/2, label 3/2, expiry 7/0, amount_msat 10/2.
        assert_eq!(
            invoice.encode_to_vec(),
            [
                0x12, 1, b'd', 0x1a, 1, b'l', 0x38, 2, 0x52, 4, 0x0a, 2, 0x08, 1
            ]
        );
        let send = cln::XpayRequest {
            invstring: "i".into(),
            amount_msat: Some(amount(1)),
            maxfee: Some(amount(0)),
            retry_for: Some(3),
            label: Some("l".into()),
        };
        // A fee of 0 is still there: without it the node would choose one.
        assert_eq!(
            send.encode_to_vec(),
            [
                0x0a, 1, b'i', 0x12, 2, 0x08, 1, 0x1a, 0, 0x28, 3, 0x4a, 1, b'l'
            ]
        );
        let look = cln::ListinvoicesRequest {
            payment_hash: Some(vec![7]),
        };
        assert_eq!(look.encode_to_vec(), [0x1a, 1, 7]);
        let find = cln::ListpaysRequest {
            payment_hash: Some(vec![7]),
        };
        assert_eq!(find.encode_to_vec(), [0x12, 1, 7]);
        let found = cln::ListpaysPays::decode(&[0x10, 2, 0x4a, 2, 0x08, 9, 0x6a, 1, 5][..]);
        let found = found.unwrap_or_default();
        assert_eq!(found.status(), Status::Complete);
        assert_eq!(found.amount_sent_msat, Some(amount(9)));
        assert_eq!(found.preimage, Some(vec![5]));
    }

    #[test]
    fn debug_never_shows_a_preimage() {
        let paid = cln::XpayResponse {
            payment_preimage: vec![0xab; 32],
            ..Default::default()
        };
        let listed = cln::ListpaysPays {
            preimage: Some(vec![0xab; 32]),
            ..Default::default()
        };
        let shown = format!("{paid:?} {listed:?}");
        assert!(!shown.contains("171"), "{shown}");
    }
}

//! The part of LND's gRPC interface that Farebox uses: seven calls, and of their messages the fields
//! that are read or written.
//!
//! The `.proto` files are this project's own; names, numbers and types on the wire are LND's. The
//! clients are always here, the service traits with the feature `server`, and a connection to a node
//! with the feature `channel`.

use std::fmt;

#[cfg(feature = "channel")]
pub mod connect;

/// `package lnrpc`: the node's main service.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
pub mod lnrpc {
    tonic::include_proto!("lnrpc");
}

/// `package routerrpc`: sending payments.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    reason = "generated code"
)]
pub mod routerrpc {
    tonic::include_proto!("routerrpc");
}

/// Leaves out the preimage, which a node returns for its own invoices whether they are paid or not.
impl fmt::Debug for lnrpc::Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invoice")
            .field("payment_request", &self.payment_request)
            .field("state", &self.state())
            .field("value_msat", &self.value_msat)
            .finish_non_exhaustive()
    }
}

/// Leaves out the preimage.
impl fmt::Debug for lnrpc::Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("payment_hash", &self.payment_hash)
            .field("status", &self.status())
            .field("failure_reason", &self.failure_reason())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// A field number that drifts would still compile, and be silently ignored by a real node.
    #[test]
    fn field_numbers_are_lnds() {
        let invoice = lnrpc::Invoice {
            memo: "m".into(),
            value_msat: 1,
            expiry: 2,
            ..Default::default()
        };
        // Tag = number << 3 | wire type: memo 1/2, expiry 11/0, value_msat 23/0.
        assert_eq!(
            invoice.encode_to_vec(),
            [0x0a, 1, b'm', 0x58, 2, 0xb8, 0x01, 1]
        );
        let send = routerrpc::SendPaymentRequest {
            payment_request: "p".into(),
            timeout_seconds: 1,
            fee_limit_msat: 2,
            no_inflight_updates: true,
            ..Default::default()
        };
        assert_eq!(
            send.encode_to_vec(),
            [0x2a, 1, b'p', 0x30, 1, 0x68, 2, 0x90, 0x01, 1]
        );
    }

    #[test]
    fn debug_never_shows_a_preimage() {
        let preimage = vec![0xab; 32];
        let invoice = lnrpc::Invoice {
            r_preimage: preimage.clone(),
            ..Default::default()
        };
        let payment = lnrpc::Payment {
            payment_preimage: "ab".repeat(32),
            ..Default::default()
        };
        let shown = format!("{invoice:?} {payment:?}").to_lowercase();
        assert!(!shown.contains("abab") && !shown.contains("171"));
    }
}

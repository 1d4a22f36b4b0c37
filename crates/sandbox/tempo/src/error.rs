//! JSON-RPC errors with the codes and words of a real node.

use alloy::{primitives::Bytes, sol_types::SolError};
use serde_json::{Value, json};

use crate::contracts::Failure;

/// The error object of a JSON-RPC reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RpcError {
    code: i64,
    message: String,
    data: Option<Bytes>,
}

impl RpcError {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(crate) fn method(name: &str) -> Self {
        Self::new(-32601, format!("Method not found: {name}"))
    }

    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    /// A transaction the node will not take.
    pub(crate) fn rejected(message: impl Into<String>) -> Self {
        Self::new(-32003, message)
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn json(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = &self.data {
            error["data"] = json!(data);
        }
        error
    }
}

impl From<Failure> for RpcError {
    fn from(failure: Failure) -> Self {
        let data = match failure {
            Failure::OutOfGas => {
                return Self::rejected("Out of gas: gas required exceeds allowance");
            }
            Failure::Revert(data) => data,
        };
        let message = match (
            alloy::sol_types::Revert::abi_decode(&data),
            data.first_chunk::<4>(),
        ) {
            (Ok(revert), _) => format!("execution reverted: {}", revert.reason()),
            (_, Some(selector)) => {
                format!(
                    "execution reverted: custom error 0x{:08x}",
                    u32::from_be_bytes(*selector)
                )
            }
            _ => "execution reverted".to_owned(),
        };
        Self {
            code: 3,
            message,
            data: Some(data),
        }
    }
}

//! `Idempotency-Key`: the response to a request that is repeated under the same key.
//!
//! A key belongs to the payment whose credential it came with, so keys of different payers never
//! meet. It is stored hashed, in the same write that records the delivery: there is no moment in
//! which one is known without the other.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use farebox_core::{Fault, wire::Receipt};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::gate::Inbound;

/// The largest response that is kept where nothing was paid: 4 KiB of headers and body. What costs
/// nothing must not fill the store.
pub const FREE_REPLY: usize = 4 * 1024;

/// A response to keep for whoever repeats its request under the same key.
///
/// It is kept as long as the delivery is. How large it may be is the caller's to say; what is too
/// large is not kept, and a repeated request is then refused as any other replay is.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// The HTTP status.
    pub status: u16,
    /// The headers to give again, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Kept {
    /// Whether it may be kept where nothing was paid.
    pub(crate) fn is_small(&self) -> bool {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        headers + self.body.len() <= FREE_REPLY
    }
}

/// The response that was given before, and its receipt. The handler does not run again.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers that were kept, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// The receipt of the payment.
    pub receipt: Receipt,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("status", &self.status)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A request's key and what it asks for, hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keyed {
    key: String,
    request: String,
}

/// How a request that came with a key relates to one that was answered.
pub(crate) enum Repeats {
    /// The same request under the same key.
    Same,
    /// Another request under the same key.
    Other,
    /// Another key.
    Not,
}

impl Keyed {
    /// `None` where the request has no key.
    pub(crate) fn of(inbound: &Inbound<'_>) -> Option<Self> {
        let key = inbound.idempotency_key?;
        Some(Self::under(key, inbound))
    }

    /// A channel's opening needs no key: its credential, presented again with the same request, is
    /// answered as before.
    pub(crate) fn of_channel(inbound: &Inbound<'_>) -> Self {
        Self::of(inbound).unwrap_or_else(|| Self {
            key: String::new(),
            ..Self::under("", inbound)
        })
    }

    fn under(key: &str, inbound: &Inbound<'_>) -> Self {
        let (kind, body) = match (inbound.body, inbound.digest) {
            (Some(body), _) => ("body", body),
            (None, Some(digest)) => ("digest", digest.as_str().as_bytes()),
            (None, None) => ("none", &[][..]),
        };
        let mut request = Sha256::new();
        for part in [inbound.method, inbound.target, kind] {
            request.update((part.len() as u64).to_be_bytes());
            request.update(part);
        }
        request.update(body);
        Self {
            key: BASE64.encode(Sha256::digest(key)),
            request: BASE64.encode(request.finalize()),
        }
    }

    pub(crate) fn repeats(&self, answered: &Self) -> Repeats {
        match self.key == answered.key {
            true if self.request == answered.request => Repeats::Same,
            // Nobody chose the key that is none.
            true if self.key.is_empty() => Repeats::Not,
            true => Repeats::Other,
            false => Repeats::Not,
        }
    }
}

/// A kept response as it is stored. Binary parts are base64.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredReply {
    #[serde(flatten)]
    pub(crate) keyed: Keyed,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl fmt::Debug for StoredReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredReply")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl StoredReply {
    pub(crate) fn new(keyed: Keyed, kept: &Kept) -> Self {
        let headers = kept.headers.iter();
        Self {
            keyed,
            status: kept.status,
            headers: headers
                .map(|(name, value)| (name.clone(), BASE64.encode(value)))
                .collect(),
            body: BASE64.encode(&kept.body),
        }
    }

    pub(crate) fn reply(&self, receipt: &Receipt) -> Result<Reply, Fault> {
        let bytes = |text: &str| {
            let bytes = BASE64.decode(text);
            bytes.map_err(|_| Fault::new("reading a kept response of another version"))
        };
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            headers.push((name.clone(), bytes(value)?));
        }
        Ok(Reply {
            status: self.status,
            headers,
            body: bytes(&self.body)?,
            receipt: receipt.clone(),
        })
    }
}

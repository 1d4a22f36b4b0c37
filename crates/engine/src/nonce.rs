//! Names that nobody chose before: for challenges, reservations, attempts, leases and debits.

use std::cell::RefCell;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_core::Fault;

use crate::engine::Shared;

const BYTES: usize = 12;

/// Drawn at once: the system's randomness costs as much as the rest of a challenge.
struct Pool {
    bytes: [u8; 32 * BYTES],
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool {
            bytes: [0; 32 * BYTES],
            used: 32 * BYTES,
        })
    };
}

impl Pool {
    fn draw(&mut self) -> Result<[u8; BYTES], getrandom::Error> {
        if self.used == self.bytes.len() {
            getrandom::fill(&mut self.bytes)?;
            self.used = 0;
        }
        let mut drawn = [0; BYTES];
        drawn.copy_from_slice(&self.bytes[self.used..self.used + BYTES]);
        self.used += BYTES;
        Ok(drawn)
    }
}

/// A random name: 96 bits, base64url.
pub(crate) fn draw() -> Result<String, getrandom::Error> {
    let bytes = POOL.with_borrow_mut(Pool::draw)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl Shared {
    /// A random name for something of this engine's.
    pub(crate) fn nonce() -> Result<String, Fault> {
        draw().map_err(|error| Fault::new("randomness").caused_by(error))
    }
}

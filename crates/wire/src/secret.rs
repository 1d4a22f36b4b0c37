//! Binding challenges to a server's secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::encoded::encode_base64;
use crate::offer::{check_intent, check_method};
use crate::{BodyDigest, Challenge, CredentialHeader, Encoded, SecretError, Timestamp};

/// The shortest accepted secret, in bytes.
pub const MIN_SECRET_BYTES: usize = 32;

type Key = Hmac<Sha256>;

/// The secrets that bind challenges (draft-httpauth-payment §Challenge Binding,
/// §Challenge-Binding Secret Management): the first signs, all verify, so a
/// secret can be replaced while challenges under the old one are outstanding.
///
/// Holds keyed HMAC states, which are zeroized when dropped.
#[derive(Clone)]
pub struct SecretRing {
    keys: Vec<Key>,
}

impl SecretRing {
    /// A ring of secrets, used as UTF-8 bytes.
    ///
    /// # Errors
    /// If there is none, or one is shorter than [`MIN_SECRET_BYTES`].
    pub fn new(secrets: impl IntoIterator<Item = SecretString>) -> Result<Self, SecretError> {
        let mut keys = Vec::new();
        for (index, secret) in secrets.into_iter().enumerate() {
            let secret = secret.expose_secret().as_bytes();
            if secret.len() < MIN_SECRET_BYTES {
                return Err(SecretError::TooShort {
                    index,
                    len: secret.len(),
                });
            }
            keys.push(keyed(secret));
        }
        if keys.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self { keys })
    }

    /// A ring whose secrets are derived from these and `salt`. With a random
    /// salt per process, challenges do not outlive what a volatile store knows
    /// about them.
    #[must_use]
    pub fn with_salt(&self, salt: &[u8]) -> Self {
        let derive = |key: &Key| {
            let mut mac = key.clone();
            // No challenge's slots start like this: a realm holds no line break.
            mac.update(b"farebox\nsalt\n");
            mac.update(salt);
            keyed(&mac.finalize().into_bytes())
        };
        Self {
            keys: self.keys.iter().map(derive).collect(),
        }
    }

    /// Sets the challenge's `id` from its other parameters and the first secret.
    pub fn sign(&self, challenge: &mut Challenge) {
        if let Some(key) = self.keys.first() {
            challenge.id = id_under(key, challenge);
        }
    }

    /// Whether one of the secrets made this challenge's `id` for exactly these
    /// parameters. Takes the same time whichever secret, or none, did.
    #[must_use]
    pub fn verify(&self, challenge: &Challenge) -> bool {
        // A `|` inside a slot would let one challenge pass for another.
        if challenge.realm.contains('|')
            || check_method(&challenge.method).is_err()
            || check_intent(&challenge.intent).is_err()
        {
            return false;
        }
        // Strict decoding: one challenge has one spelling of its id, the single-use key.
        let mut tag = [0; 32];
        if URL_SAFE_NO_PAD.decode_slice(&challenge.id, &mut tag) != Ok(tag.len()) {
            return false;
        }
        self.keys.iter().fold(false, |found, key| {
            let mut mac = key.clone();
            update(&mut mac, challenge);
            found | mac.verify_slice(&tag).is_ok()
        })
    }
}

impl fmt::Debug for SecretRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRing([redacted; {}])", self.keys.len())
    }
}

/// The id of a challenge under one secret of any length: for test vectors and
/// tools. Servers use [`SecretRing::sign`].
#[must_use]
pub fn challenge_id(secret: &[u8], challenge: &Challenge) -> String {
    id_under(&keyed(secret), challenge)
}

/// Whether a secret of any length made this challenge's `id`: for test vectors
/// and tools. Servers use [`SecretRing::verify`], whose rules these are.
#[must_use]
pub fn is_challenge_id(secret: &[u8], challenge: &Challenge) -> bool {
    let keys = vec![keyed(secret)];
    SecretRing { keys }.verify(challenge)
}

fn keyed(secret: &[u8]) -> Key {
    // A key of one block, made as RFC 2104 §2 says, has a constructor that cannot fail.
    let mut block = Zeroizing::new([0; 64]);
    match block.get_mut(..secret.len()) {
        Some(start) => start.copy_from_slice(secret),
        None => block[..32].copy_from_slice(&Sha256::digest(secret)),
    }
    Key::new((&*block).into())
}

fn id_under(key: &Key, challenge: &Challenge) -> String {
    let mut mac = key.clone();
    update(&mut mac, challenge);
    encode_base64(&mac.finalize().into_bytes())
}

/// Seven slots joined by `|`, empty where a parameter is absent, and an eighth
/// only where a header is advertised. Every slot's text is the one on the wire.
fn update(mac: &mut Key, challenge: &Challenge) {
    let slots = [
        challenge.realm.as_str(),
        &challenge.method,
        &challenge.intent,
        challenge.request.as_str(),
        challenge.expires.as_ref().map_or("", Timestamp::as_str),
        challenge.digest.as_ref().map_or("", BodyDigest::as_str),
        challenge.opaque.as_ref().map_or("", Encoded::as_str),
    ];
    let header = challenge.header.map(CredentialHeader::as_str);
    for (i, slot) in slots.into_iter().chain(header).enumerate() {
        if i > 0 {
            mac.update(b"|");
        }
        mac.update(slot.as_bytes());
    }
}

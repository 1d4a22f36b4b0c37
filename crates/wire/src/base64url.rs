//! The text form of bytes in headers: RFC 4648 §5, without padding.
//!
//! ```
//! use farebox_wire::base64url;
//!
//! assert_eq!(base64url::encode(b"{}"), "e30");
//! assert_eq!(base64url::decode("e30"), Ok(b"{}".to_vec()));
//! ```

use crate::ParseError;
use crate::encoded::{decode_base64, encode_base64};

/// Bytes as text.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    encode_base64(bytes)
}

/// Text as bytes, with the tolerance of every parser here: the standard alphabet
/// and padding are read as well, since deployed peers send them.
///
/// # Errors
/// If it is neither.
pub fn decode(text: &str) -> Result<Vec<u8>, ParseError> {
    decode_base64(text).ok_or(ParseError::Syntax("not base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_is_written_and_every_deployed_one_is_read() {
        let bytes = [0xfb, 0xff, 0xfe, 0x3e];
        assert_eq!(encode(&bytes), "-__-Pg");
        for text in ["-__-Pg", "-__-Pg==", "+//+Pg", "+//+Pg=="] {
            assert_eq!(decode(text), Ok(bytes.to_vec()), "{text}");
        }
        for text in ["-__-P", "-_/+Pg", "-__-Pg!", "é", "not base64"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}

//! The form in which a payer hands over a transaction whose fee somebody else pays: complete but for
//! one field, where the fee payer's signature belongs. The payer leaves it empty, marks it, or (in
//! the envelope 0x78) writes his own address there.

use alloy::{
    eips::eip2718::Decodable2718,
    primitives::{Address, hex},
    rlp::Header,
};
use farebox_core::Rejection;
use tempo_primitives::{AASigned, transaction::TEMPO_TX_TYPE_ID};

/// Handed to a sponsor for a second signature instead of being complete.
pub(crate) const FEE_PAYER_ENVELOPE: u8 = 0x78;

/// How many fields stand before the fee payer's signature.
const BEFORE: usize = 11;

/// An empty field, and one with nothing but a mark.
const EMPTY: [u8; 1] = [0x80];
const MARK: [u8; 1] = [0x00];

/// An address as a field.
const ADDRESS: u8 = 0x80 + 20;

/// Reads hexadecimal text: the transaction without a fee payer's signature, and whose it says it
/// is.
///
/// # Errors
/// If it is none, or complete already.
pub(crate) fn read(text: &str) -> Result<(AASigned, Option<Address>), Rejection> {
    let shape = || {
        Rejection::malformed(
            "the payload's `signature` is no signed Tempo transaction that leaves the fee payer's \
             place open (0x78… or 0x76…, hexadecimal)",
        )
    };
    let bytes = text
        .strip_prefix("0x")
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or_else(shape)?;
    let (first, fields) = bytes.split_first().ok_or_else(shape)?;
    let (open, place) = replace(fields, &EMPTY).ok_or_else(shape)?;
    let payer = match (*first, place) {
        (FEE_PAYER_ENVELOPE, [ADDRESS, address @ ..]) if address.len() == 20 => {
            Some(Address::from_slice(address))
        }
        (TEMPO_TX_TYPE_ID, place) if *place == EMPTY || *place == MARK => None,
        (TEMPO_TX_TYPE_ID, _) => {
            return Err(Rejection::verification(
                "the transaction has a fee payer already",
            ));
        }
        _ => return Err(shape()),
    };
    let whole = [&[TEMPO_TX_TYPE_ID], open.as_slice()].concat();
    let mut rest = whole.as_slice();
    let signed = AASigned::decode_2718(&mut rest).map_err(|_| shape())?;
    rest.is_empty().then_some((signed, payer)).ok_or_else(shape)
}

/// The envelope of a transaction that has no fee payer's signature yet.
pub(crate) fn write(signed: &AASigned, payer: Address) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    signed.eip2718_encode(&mut raw);
    let field = [&[ADDRESS], payer.as_slice()].concat();
    let (fields, _) = replace(raw.get(1..)?, &field)?;
    Some([&[FEE_PAYER_ENVELOPE], fields.as_slice()].concat())
}

/// A list of fields with another one in the fee payer's place, and what stood there.
fn replace<'a>(list: &'a [u8], with: &[u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let mut rest = list;
    let header = Header::decode(&mut rest).ok()?;
    if !header.list || header.payload_length != rest.len() {
        return None;
    }
    let fields = rest;
    for _ in 0..BEFORE {
        rest = skip(rest)?;
    }
    let start = fields.len() - rest.len();
    let end = fields.len() - skip(rest)?.len();
    let mut out = Vec::with_capacity(list.len() + with.len());
    Header {
        list: true,
        payload_length: start + with.len() + (fields.len() - end),
    }
    .encode(&mut out);
    out.extend_from_slice(&fields[..start]);
    out.extend_from_slice(with);
    out.extend_from_slice(&fields[end..]);
    Some((out, &fields[start..end]))
}

/// What follows the next field.
fn skip(mut rest: &[u8]) -> Option<&[u8]> {
    let header = Header::decode(&mut rest).ok()?;
    rest.get(header.payload_length..)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Signature, U256};
    use tempo_primitives::{
        TempoTransaction,
        transaction::{Call, TempoSignature},
    };

    use super::*;

    fn signed() -> AASigned {
        let tx = TempoTransaction {
            chain_id: 1337,
            calls: vec![Call {
                to: alloy::primitives::TxKind::Call(Address::repeat_byte(7)),
                value: U256::ZERO,
                // Long enough for headers of several bytes.
                input: vec![9; 300].into(),
            }],
            ..TempoTransaction::default()
        };
        tx.into_signed(TempoSignature::from(Signature::test_signature()))
    }

    /// Protects: what is read is what was written, in each of the three forms.
    #[test]
    fn a_place_left_open_is_read_in_any_form() {
        let payer = Address::repeat_byte(0x42);
        let envelope = write(&signed(), payer).unwrap();
        assert_eq!(envelope[0], FEE_PAYER_ENVELOPE);
        let mut empty = Vec::new();
        signed().eip2718_encode(&mut empty);
        let (fields, place) = replace(&empty[1..], &MARK).unwrap();
        assert_eq!(place, EMPTY);
        let marked = [&[TEMPO_TX_TYPE_ID], fields.as_slice()].concat();
        for (raw, from) in [(&envelope, Some(payer)), (&empty, None), (&marked, None)] {
            let (read, payer) = read(&hex::encode_prefixed(raw)).unwrap();
            assert_eq!((read.tx(), payer), (signed().tx(), from));
        }
    }

    #[test]
    fn what_is_no_envelope() {
        let envelope = write(&signed(), Address::repeat_byte(0x42)).unwrap();
        let longer = [envelope.as_slice(), &[0]].concat();
        let (cut, _) = envelope.split_at(envelope.len() - 1);
        let (nobody, _) = replace(&envelope[1..], &EMPTY).unwrap();
        let nobody = [&[FEE_PAYER_ENVELOPE], nobody.as_slice()].concat();
        for raw in [longer.as_slice(), cut, &nobody, &[FEE_PAYER_ENVELOPE], &[]] {
            assert!(read(&hex::encode_prefixed(raw)).is_err());
        }
        assert!(read("0x78zz").is_err() && read("78").is_err());
        let (complete, _) = replace(&envelope[1..], &[0xc1, 0x01]).unwrap();
        let complete = [&[TEMPO_TX_TYPE_ID], complete.as_slice()].concat();
        let error = read(&hex::encode_prefixed(complete)).unwrap_err();
        assert!(error.detail.contains("fee payer already"), "{error:?}");
    }
}

//! Whose payment a reference names.

use std::sync::Arc;

use farebox_core::{Method, NoRefund};

use super::{Payment, RefundError, RefundRequest};
use crate::engine::Engine;

/// What fits a key of the store with room to spare.
const LONGEST: usize = 255;

impl Engine {
    /// The rail of a payment: as the request says, as refunds or the books have it, or whichever
    /// rail knows the reference. Payments that were delivered are not in the books for long.
    pub(super) async fn paid_on(&self, request: &RefundRequest) -> Result<Payment, RefundError> {
        let reference = request.reference.clone();
        let visible = reference.bytes().all(|b| b.is_ascii_graphic());
        if reference.is_empty() || reference.len() > LONGEST || !visible {
            let text = "a reference is 1 to 255 visible characters";
            return Err(RefundError::Invalid(text.to_owned()));
        }
        let payment = |method| Payment { method, reference };
        if let Some(rail) = &request.rail {
            let method = self.shared.method(rail);
            return match method {
                Some(method) => Ok(payment(method)),
                None => Err(RefundError::NoRail(rail.clone())),
            };
        }
        let methods = self.shared.methods();
        if let Some(method) = self.on_record(&methods, &request.reference).await? {
            return Ok(payment(method));
        }
        let (mut asked, mut able) = (Vec::new(), false);
        let mut away = None;
        for method in methods {
            asked.push(method.name().to_owned());
            match method.settler().refundable(&request.reference).await {
                Ok(_) | Err(NoRefund::Refused(_)) => return Ok(payment(method)),
                Err(NoRefund::Unsupported) => {}
                Err(NoRefund::NoSuchPayment) => able = true,
                Err(NoRefund::Fault(fault)) => away = Some(fault),
                Err(_) => able = true,
            }
        }
        match away {
            // It may be the one that knows.
            Some(fault) => Err(fault.into()),
            None if able => Err(RefundError::NoSuchPayment {
                reference: request.reference.clone(),
                asked,
            }),
            None => Err(RefundError::CannotRefund(asked.join(", "))),
        }
    }

    async fn on_record(
        &self,
        methods: &[Arc<dyn Method>],
        reference: &str,
    ) -> Result<Option<Arc<dyn Method>>, RefundError> {
        for method in methods {
            let ledger = self.shared.ledger_of(method.name(), reference).await?;
            if ledger.is_some() {
                return Ok(Some(method.clone()));
            }
        }
        let books = self.books().await?;
        let of = |r: &Option<String>| r.as_deref() == Some(reference);
        let entry = books.iter().find(|entry| of(&entry.reference));
        Ok(entry.and_then(|entry| self.shared.method(&entry.method)))
    }
}

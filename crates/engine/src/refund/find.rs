//! Whose payment a reference names.

use std::sync::Arc;

use farebox_core::{Method, NoRefund};

use super::{Payment, RefundError, RefundRequest, ledger::Name};
use crate::engine::Engine;

/// What fits a key of the store with room to spare.
const LONGEST: usize = 255;

impl Engine {
    /// The rail of a payment: as the request says, as refunds or the books have it, or whichever
    /// rail knows the reference. Payments that were delivered are not in the books for long.
    pub(super) async fn paid_on(&self, request: &RefundRequest) -> Result<Payment, RefundError> {
        let spelled = request.reference.as_str();
        let visible = spelled.bytes().all(|b| b.is_ascii_graphic());
        if spelled.is_empty() || spelled.len() > LONGEST || !visible {
            let text = "a reference is 1 to 255 visible characters";
            return Err(RefundError::Invalid(text.to_owned()));
        }
        let payment = |method: &Arc<dyn Method>, name| Payment {
            method: method.clone(),
            name,
            spelled: spelled.to_owned(),
        };
        if let Some(rail) = &request.rail {
            let method = self.shared.method(rail);
            let method = method.ok_or_else(|| RefundError::NoRail(rail.clone()))?;
            let name = Name::of(&*method, spelled);
            let name =
                name.map_err(|why| RefundError::Invalid(format!("`{spelled}` {why} ({rail})")))?;
            return Ok(payment(&method, name));
        }
        let methods = self.shared.methods();
        if let Some((method, name)) = self.on_record(&methods, spelled).await? {
            return Ok(payment(&method, name));
        }
        let (mut asked, mut able) = (Vec::new(), false);
        let (mut away, mut misnamed) = (None, Vec::new());
        for method in &methods {
            asked.push(method.name().to_owned());
            let name = match Name::of(&**method, spelled) {
                Ok(name) => name,
                Err(why) => {
                    misnamed.push(format!("{why} ({})", method.name()));
                    continue;
                }
            };
            match method.settler().refundable(spelled).await {
                Ok(_) | Err(NoRefund::Refused(_)) => return Ok(payment(method, name)),
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
                reference: spelled.to_owned(),
                asked,
            }),
            None if !misnamed.is_empty() => {
                let why = misnamed.join("; ");
                Err(RefundError::Invalid(format!("`{spelled}` {why}")))
            }
            None => Err(RefundError::CannotRefund(asked.join(", "))),
        }
    }

    async fn on_record(
        &self,
        methods: &[Arc<dyn Method>],
        spelled: &str,
    ) -> Result<Option<(Arc<dyn Method>, Name)>, RefundError> {
        let named = |method: &Arc<dyn Method>| Name::of(&**method, spelled).ok();
        for method in methods {
            let Some(name) = named(method) else { continue };
            if self.shared.ledger_of(&name).await?.is_some() {
                return Ok(Some((method.clone(), name)));
            }
        }
        for entry in self.books().await? {
            let Some(reference) = entry.reference else {
                continue;
            };
            let Some(method) = self.shared.method(&entry.method) else {
                continue;
            };
            let Some(name) = named(&method) else { continue };
            if Name::of(&*method, &reference).is_ok_and(|of| of == name) {
                return Ok(Some((method, name)));
            }
        }
        Ok(None)
    }
}

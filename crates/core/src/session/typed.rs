//! A typed session wallet behind its object-safe face.

use async_trait::async_trait;
use farebox_wire::{Amount, OfferId, Payload};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Adopted, Draft, Funded, Held, OpenChannel, SessionPayer, SessionPrice, SessionWallet, Spending,
    Standing,
};
use crate::{
    ask::Ask,
    budget::Approved,
    intent::{IntentSpec, Session},
    payer::{Cost, Paid, PayError, Paying},
    refusal::Fault,
};

/// A [`SessionWallet`] as a [`SessionPayer`].
///
/// Here, once for every rail, vouchers and closes are held to the deposit and movements of money
/// to what was approved.
#[derive(Debug)]
pub struct TypedSessionPayer<W> {
    wallet: W,
}

impl<W> TypedSessionPayer<W> {
    /// Wraps a wallet.
    pub fn new(wallet: W) -> Self {
        Self { wallet }
    }
}

fn ask<W: SessionWallet>(cx: &Paying<'_>) -> Result<Ask<Session, W::Details>, PayError> {
    Ask::decode_at(W::DETAILS, &cx.challenge.request)
        .map_err(|e| PayError::Unsupported(format!("the request cannot be read: {e}")))
}

fn payload<T: Serialize>(paid: Paid<T>) -> Result<Paid<Payload>, Fault> {
    let payload = Payload::from_value(&paid.payload)
        .map_err(|e| Fault::new("serialising a payload").caused_by(e))?;
    Ok(Paid {
        payload,
        source: paid.source,
    })
}

fn write_draft<H: Serialize>(draft: Draft<H>) -> Result<Draft, PayError> {
    Ok(Draft {
        held: Held::write(&draft.held).map_err(PayError::NotPaid)?,
        channel: draft.channel,
        amount: draft.amount,
    })
}

fn read_draft<H: DeserializeOwned>(draft: &Draft) -> Result<Draft<H>, PayError> {
    Ok(Draft {
        channel: draft.channel.clone(),
        amount: draft.amount,
        held: draft.held.read().map_err(PayError::NotPaid)?,
    })
}

fn read_channel<H: DeserializeOwned>(channel: &OpenChannel) -> Result<OpenChannel<H>, PayError> {
    Ok(OpenChannel {
        id: channel.id.clone(),
        deposit: channel.deposit,
        held: channel.held.read().map_err(PayError::NotPaid)?,
    })
}

fn write_channel<H: Serialize>(channel: OpenChannel<H>) -> Result<OpenChannel, Fault> {
    Ok(OpenChannel {
        held: Held::write(&channel.held)?,
        id: channel.id,
        deposit: channel.deposit,
    })
}

/// The money may have moved by now, so what cannot be written is not "not paid".
fn funded<P: Serialize, H: Serialize>(funded: Funded<P, H>) -> Result<Funded<Payload>, PayError> {
    Ok(Funded {
        paid: payload(funded.paid).map_err(PayError::Unknown)?,
        held: Held::write(&funded.held).map_err(PayError::Unknown)?,
    })
}

fn within(cumulative: Amount, deposit: Amount) -> Result<(), PayError> {
    if cumulative > deposit {
        return Err(PayError::Refused(format!(
            "{cumulative} is more than the {deposit} that were deposited"
        )));
    }
    Ok(())
}

impl<W: SessionWallet> TypedSessionPayer<W> {
    /// An approval is for one sum in one currency to one payee.
    fn approved(
        &self,
        cx: &Paying<'_>,
        ask: &Ask<Session, W::Details>,
        draft: &Draft,
        approved: &Approved,
    ) -> Result<(), PayError> {
        let unit = self.wallet.price(cx, ask)?.unit;
        let cost = Cost {
            amount: draft.amount,
            ..unit
        };
        if cost != *approved.cost() {
            return Err(PayError::Refused("it is not what was approved".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl<W: SessionWallet> SessionPayer for TypedSessionPayer<W> {
    fn offer(&self) -> OfferId {
        OfferId::new(W::METHOD, Session::NAME)
    }

    fn spending(&self) -> Spending {
        W::SPENDING
    }

    fn price(&self, cx: &Paying<'_>) -> Result<SessionPrice, PayError> {
        self.wallet.price(cx, &ask::<W>(cx)?)
    }

    async fn funded(&self, cost: &Cost) -> bool {
        self.wallet.funded(cost).await
    }

    async fn draft_open(&self, cx: &Paying<'_>, deposit: Amount) -> Result<Draft, PayError> {
        write_draft(self.wallet.draft_open(cx, &ask::<W>(cx)?, deposit).await?)
    }

    async fn open(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        cumulative: Amount,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError> {
        let ask = ask::<W>(cx)?;
        within(cumulative, draft.amount)?;
        self.approved(cx, &ask, draft, &approved)?;
        let draft = read_draft(draft)?;
        funded(
            self.wallet
                .open(cx, &ask, draft, cumulative, approved)
                .await?,
        )
    }

    async fn voucher(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError> {
        within(cumulative, channel.deposit)?;
        let (ask, channel) = (ask::<W>(cx)?, read_channel(channel)?);
        payload(self.wallet.voucher(cx, &ask, &channel, cumulative).await?)
            .map_err(PayError::NotPaid)
    }

    async fn draft_top_up(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        additional: Amount,
    ) -> Result<Draft, PayError> {
        let (ask, channel) = (ask::<W>(cx)?, read_channel(channel)?);
        write_draft(
            self.wallet
                .draft_top_up(cx, &ask, &channel, additional)
                .await?,
        )
    }

    async fn top_up(
        &self,
        cx: &Paying<'_>,
        draft: &Draft,
        approved: Approved,
    ) -> Result<Funded<Payload>, PayError> {
        let ask = ask::<W>(cx)?;
        self.approved(cx, &ask, draft, &approved)?;
        let draft = read_draft(draft)?;
        funded(self.wallet.top_up(cx, &ask, draft, approved).await?)
    }

    async fn close(
        &self,
        cx: &Paying<'_>,
        channel: &OpenChannel,
        cumulative: Amount,
    ) -> Result<Paid<Payload>, PayError> {
        within(cumulative, channel.deposit)?;
        let (ask, channel) = (ask::<W>(cx)?, read_channel(channel)?);
        payload(self.wallet.close(cx, &ask, &channel, cumulative).await?).map_err(PayError::NotPaid)
    }

    async fn standing(&self, held: &Held) -> Result<Standing, Fault> {
        Ok(match self.wallet.standing(&held.read()?).await? {
            Standing::Open {
                channel,
                taken,
                closing,
            } => Standing::Open {
                channel: write_channel(channel)?,
                taken,
                closing,
            },
            Standing::Closed { taken, held } => Standing::Closed { taken, held },
            Standing::Absent => Standing::Absent,
            Standing::Pending => Standing::Pending,
        })
    }

    async fn adopt(&self, cx: &Paying<'_>, snapshot: Option<&Value>) -> Result<Adopted, PayError> {
        let adopted = self.wallet.adopt(cx, &ask::<W>(cx)?, snapshot).await?;
        if adopted.authorized > adopted.channel.deposit {
            return Err(PayError::Refused(
                "more is signed over than there is in the channel".to_owned(),
            ));
        }
        Ok(Adopted {
            channel: write_channel(adopted.channel).map_err(PayError::NotPaid)?,
            authorized: adopted.authorized,
        })
    }
}

#[cfg(test)]
mod tests {
    use farebox_wire::{Challenge, Encoded};
    use serde_json::json;

    use super::*;
    use crate::{
        budget::{Budget, Limit},
        intent::SessionRequest,
        session::DepositRule,
    };

    /// Signs whatever it is asked to.
    struct Willing;

    fn paid() -> Paid<Value> {
        Paid::new(json!({}))
    }

    impl SessionWallet for Willing {
        const METHOD: &'static str = "test";
        const SPENDING: Spending = Spending::Vouchers;
        type Details = Value;
        type Held = Value;
        type Payload = Value;

        fn price(
            &self,
            _: &Paying<'_>,
            ask: &Ask<Session, Value>,
        ) -> Result<SessionPrice, PayError> {
            let SessionRequest {
                amount, currency, ..
            } = ask.request.clone();
            Ok(SessionPrice {
                unit: Cost {
                    amount,
                    currency,
                    recipient: None,
                },
                deposit: DepositRule::Any { suggested: None },
                min_delta: Amount::new(0),
                reuse: "one".to_owned(),
                hint: None,
            })
        }

        async fn draft_open(
            &self,
            _: &Paying<'_>,
            _: &Ask<Session, Value>,
            amount: Amount,
        ) -> Result<Draft<Value>, PayError> {
            Ok(Draft {
                channel: "c".to_owned(),
                amount,
                held: json!({ "secret": "s3cret" }),
            })
        }

        async fn open(
            &self,
            _: &Paying<'_>,
            _: &Ask<Session, Value>,
            draft: Draft<Value>,
            _: Amount,
            _: Approved,
        ) -> Result<Funded<Value, Value>, PayError> {
            Ok(Funded {
                paid: paid(),
                held: draft.held,
            })
        }

        async fn voucher(
            &self,
            _: &Paying<'_>,
            _: &Ask<Session, Value>,
            _: &OpenChannel<Value>,
            _: Amount,
        ) -> Result<Paid<Value>, PayError> {
            Ok(paid())
        }

        async fn draft_top_up(
            &self,
            cx: &Paying<'_>,
            ask: &Ask<Session, Value>,
            _: &OpenChannel<Value>,
            additional: Amount,
        ) -> Result<Draft<Value>, PayError> {
            self.draft_open(cx, ask, additional).await
        }

        async fn top_up(
            &self,
            cx: &Paying<'_>,
            ask: &Ask<Session, Value>,
            draft: Draft<Value>,
            approved: Approved,
        ) -> Result<Funded<Value, Value>, PayError> {
            self.open(cx, ask, draft, Amount::new(0), approved).await
        }

        async fn close(
            &self,
            _: &Paying<'_>,
            _: &Ask<Session, Value>,
            _: &OpenChannel<Value>,
            _: Amount,
        ) -> Result<Paid<Value>, PayError> {
            Ok(paid())
        }

        async fn standing(&self, _: &Value) -> Result<Standing<Value>, Fault> {
            Ok(Standing::Absent)
        }

        async fn adopt(
            &self,
            _: &Paying<'_>,
            _: &Ask<Session, Value>,
            _: Option<&Value>,
        ) -> Result<Adopted<Value>, PayError> {
            Ok(Adopted {
                channel: OpenChannel {
                    id: "c".to_owned(),
                    deposit: Amount::new(10),
                    held: Value::Null,
                },
                authorized: Amount::new(11),
            })
        }
    }

    fn challenge() -> Challenge {
        Challenge {
            id: "id".into(),
            realm: "localhost".into(),
            method: "test".into(),
            intent: "session".into(),
            request: Encoded::encode(&json!({ "amount": "1", "currency": "sat" })).unwrap(),
            expires: None,
            digest: None,
            opaque: None,
            description: None,
            header: None,
        }
    }

    fn approve(amount: u128) -> Approved {
        let budget = Budget::new([Limit::per_request("sat", Amount::new(100))]);
        let cost = Cost {
            amount: Amount::new(amount),
            currency: "sat".into(),
            recipient: None,
        };
        let (approved, reservation) = budget.approve(cost).unwrap();
        reservation.commit();
        approved
    }

    /// Protects: however willing a wallet is, nothing beyond the deposit is signed, no deposit
    /// beyond what was approved is made, and no server makes it believe more than there is.
    #[tokio::test]
    async fn no_wallet_signs_past_the_deposit_or_the_approval() {
        let payer = TypedSessionPayer::new(Willing);
        let challenge = challenge();
        let cx = Paying::new(&challenge, None);
        let draft = payer.draft_open(&cx, Amount::new(10)).await.unwrap();
        for (cumulative, approved) in [(11, 10), (0, 9), (0, 11)] {
            let cumulative = Amount::new(cumulative);
            let refused = payer.open(&cx, &draft, cumulative, approve(approved)).await;
            assert!(matches!(refused, Err(PayError::Refused(_))), "{approved}");
        }
        assert!(payer.top_up(&cx, &draft, approve(11)).await.is_err());
        let funded = payer.open(&cx, &draft, Amount::new(10), approve(10)).await;
        let channel = OpenChannel {
            id: draft.channel.clone(),
            deposit: draft.amount,
            held: funded.unwrap().held,
        };
        assert!(payer.voucher(&cx, &channel, Amount::new(10)).await.is_ok());
        assert!(payer.voucher(&cx, &channel, Amount::new(11)).await.is_err());
        assert!(payer.close(&cx, &channel, Amount::new(11)).await.is_err());
        assert!(payer.adopt(&cx, None).await.is_err());
    }

    /// Protects: what a rail keeps about a channel may spend it, so it is never printed.
    #[tokio::test]
    async fn what_a_rail_keeps_is_not_printed() {
        let payer = TypedSessionPayer::new(Willing);
        let challenge = challenge();
        let cx = Paying::new(&challenge, None);
        let draft = payer.draft_open(&cx, Amount::new(10)).await.unwrap();
        assert!(!format!("{draft:?} {:?}", draft.held).contains("s3cret"));
        assert!(serde_json::to_string(&draft).unwrap().contains("s3cret"));
        let unreadable = Held(json!("s3cret")).read::<u8>().unwrap_err();
        assert!(!format!("{unreadable:?} {unreadable}").contains("s3cret"));
    }
}

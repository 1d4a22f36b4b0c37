//! Whether a presentation opens, tops up, advances or closes a channel. Reads the chain, changes
//! nothing.
//!
//! The order matters: whose channel it is and who signed follows from the payload alone, so it is
//! checked before the channel is looked up, and a stranger learns nothing about it.

use std::time::Duration;

use alloy::primitives::{B256, Bytes};
use farebox_core::{
    Ask, Change, Channel, ChannelId, ChannelState, Fault, Observed, Plan, Presented, ProofKey,
    Refusal, Rejection, Session, Voucher,
};
use farebox_wire::{Amount, Problem};

use super::{
    Details, Payload, SessionOrder, TempoSession,
    channel::{Descriptor, SignedVoucher},
    kept,
    payload::{Action, Claim, Said},
    quote::Asked,
    signature,
    snapshot::Kept,
    states::OnChain,
    tx::{How, Moved, opens, tops_up},
};
use crate::{
    charge::{
        Order,
        receipt::source,
        tx::SignedTx,
        verify::{Cosigned, cosigned, refusal},
    },
    envelope,
};

/// How long a transaction's keys outlive its challenge; its window has closed by then.
const KEEP: Duration = Duration::from_secs(300);

/// What a route asks for, and what is presented for it.
struct Case<'a> {
    rail: &'a TempoSession,
    cx: &'a Presented<'a>,
    asked: Asked,
    sponsored: bool,
    channel: B256,
    descriptor: Descriptor,
}

pub(super) async fn verify(
    rail: &TempoSession,
    cx: &Presented<'_>,
    ask: &Ask<Session, Details>,
    payload: Payload,
) -> Result<Plan<Channel, SessionOrder>, Refusal> {
    let (details, domain) = (&ask.details, &rail.domain);
    let ours = details.is_spoken()
        && details.chain_id == Some(domain.chain_id())
        && details.escrow_contract == Some(domain.escrow());
    let asked = Asked::of(&ask.request, details)
        .filter(|_| ours)
        .ok_or_else(|| Fault::new("a tempo session request of ours is for another reserve"))?;
    let Said {
        channel,
        descriptor,
        action,
    } = payload.read()?;
    let case = Case {
        rail,
        cx,
        asked,
        sponsored: details.fee_payer == Some(true),
        channel,
        descriptor,
    };
    case.identity()?;
    match action {
        Action::Open {
            transaction,
            voucher,
        } => case.open(&transaction, voucher).await,
        Action::TopUp {
            transaction,
            additional,
        } => case.top_up(&transaction, additional).await,
        Action::Voucher(claim) => case.voucher(claim).await,
        Action::Close(claim) => case.close(claim).await,
    }
}

fn no(detail: impl Into<String>) -> Rejection {
    Rejection::verification(detail)
}

fn session(name: &str, detail: impl Into<String>) -> Rejection {
    Rejection::new(Problem::rail("session", name), detail)
}

fn not_found() -> Rejection {
    session(
        "channel-not-found",
        "there is no such channel here; open one",
    )
}

fn finalized(detail: &str) -> Rejection {
    session("channel-finalized", detail)
}

fn over_deposit() -> Rejection {
    session(
        "amount-exceeds-deposit",
        "the voucher is for more than the deposit; top it up first",
    )
}

impl Case<'_> {
    /// Checks that the channel is one of the route's seller, and of whoever presents it.
    fn identity(&self) -> Result<(), Rejection> {
        let (descriptor, asked) = (&self.descriptor, &self.asked);
        if self.rail.domain.channel_id(descriptor) != self.channel {
            return Err(no(
                "the descriptor does not hash to the `channelId` on this chain and reserve",
            ));
        }
        if descriptor.payee != asked.payee {
            return Err(no("the channel pays somebody else"));
        }
        if descriptor.token != asked.token {
            return Err(no("the channel holds another token"));
        }
        if descriptor.operator != asked.operator {
            return Err(no(
                "the channel has another operator than the one asked for",
            ));
        }
        let source = source(self.cx.source, Some(self.rail.domain.chain_id()))?;
        if source.is_some_and(|who| who != descriptor.payer && who != descriptor.signer()) {
            return Err(no("the account in `source` cannot spend from the channel"));
        }
        Ok(())
    }

    /// The voucher, if the channel's signer made it, as the reserve takes it.
    fn signed(&self, claim: Claim) -> Result<SignedVoucher, Rejection> {
        let digest = self.rail.domain.voucher(self.channel, claim.cumulative);
        let signature = signature::check(&digest, &claim.signature, self.descriptor.signer())?;
        Ok(SignedVoucher {
            cumulative: Amount::new(claim.cumulative),
            signature,
        })
    }

    fn id(&self) -> ChannelId {
        ChannelId::of("tempo", &self.channel.to_string())
    }

    fn kept(&self, voucher: SignedVoucher) -> Result<serde_json::Value, Fault> {
        let kept = Kept {
            descriptor: self.descriptor,
            voucher,
        };
        serde_json::to_value(kept).map_err(|e| Fault::new("writing a voucher").caused_by(e))
    }

    async fn open(
        &self,
        transaction: &str,
        claim: Claim,
    ) -> Result<Plan<Channel, SessionOrder>, Refusal> {
        let escrow = self.rail.domain.escrow();
        let funding = self.funding(transaction)?;
        let (sender, unique) = (funding.sender(), funding.unique());
        let (opened, deposit) = opens(funding.tx(), escrow, sender, unique)?;
        if opened != self.descriptor {
            return Err(no("the transaction opens another channel than the descriptor's").into());
        }
        if deposit < self.asked.amount {
            return Err(session(
                "insufficient-balance",
                format!(
                    "the deposit of {deposit} does not cover one unit at {}",
                    self.asked.amount
                ),
            )
            .into());
        }
        if claim.cumulative > deposit {
            return Err(over_deposit().into());
        }
        let voucher = self.signed(claim)?;
        let deposit = Amount::new(deposit);
        let change = Change::deposit(deposit)
            .authorized(voucher.cumulative)
            .with_rail(self.kept(voucher)?);
        let (order, keys) = funding.order(self, How::Opened(deposit)).await?;
        let [key, also] = keys;
        // One challenge opens one channel.
        let once = ProofKey::of("tempo/session/open", &self.cx.challenge.id).keep_for(KEEP);
        Ok(Plan::open(key, self.id(), change, Some(order))
            .also(also)
            .also(once))
    }

    async fn top_up(
        &self,
        transaction: &str,
        additional: u128,
    ) -> Result<Plan<Channel, SessionOrder>, Refusal> {
        let escrow = self.rail.domain.escrow();
        let funding = self.funding(transaction)?;
        tops_up(
            funding.tx(),
            escrow,
            funding.sender(),
            &self.descriptor,
            additional,
        )?;
        let state = self.known().await?;
        if state.closed {
            return Err(finalized("the channel is closed; open another").into());
        }
        let additional = Amount::new(additional);
        let (order, [key, also]) = funding.order(self, How::ToppedUp(additional)).await?;
        let change = Change::deposit(additional);
        Ok(Plan::top_up(key, self.id(), change, Some(order)).also(also))
    }

    async fn voucher(&self, claim: Claim) -> Result<Plan<Channel, SessionOrder>, Refusal> {
        let voucher = self.signed(claim)?;
        let state = self.known().await?;
        if state.closed {
            return Err(finalized("the channel is closed; open another").into());
        }
        let on_chain = self.rail.states.recent(self.channel).await?;
        self.in_service(&state, &on_chain)?;
        let (cumulative, before) = (voucher.cumulative.get(), state.authorized.get());
        if cumulative > on_chain.deposit && voucher.cumulative > state.deposit {
            return Err(over_deposit().into());
        }
        let least = before.saturating_add(self.rail.min_delta.get());
        if cumulative > before && cumulative < least {
            return Err(session(
                "delta-too-small",
                format!("the next voucher must be for {least} at least"),
            )
            .into());
        }
        let plan = Voucher::to(voucher.cumulative);
        Ok(Plan::advance(
            self.id(),
            plan.with_rail(self.kept(voucher)?),
        ))
    }

    async fn close(&self, claim: Claim) -> Result<Plan<Channel, SessionOrder>, Refusal> {
        let voucher = self.signed(claim)?;
        let state = self.known().await?;
        if state.closed {
            return Err(finalized("the channel is closed already").into());
        }
        let on_chain = self.rail.states.now(self.channel).await;
        let on_chain = on_chain
            .map_err(|error| Fault::unavailable("reading a channel's state").caused_by(error))?;
        if on_chain.deposit == 0 {
            return Err(not_found().into());
        }
        let capture = state.spent.get().max(on_chain.settled);
        if voucher.cumulative.get() < capture {
            return Err(no(format!(
                "the closing voucher must be for {capture} at least, which is what was served or \
                 settled"
            ))
            .into());
        }
        if capture > on_chain.deposit {
            return Err(Fault::unavailable("a channel's deposit is less than was served").into());
        }
        let change = closing(&state, capture);
        // A voucher for less than an earlier one closes as well: what it lacks was never served.
        let (change, best) =
            match kept(&state).filter(|k| k.voucher.cumulative > voucher.cumulative) {
                Some(kept) => (change, kept.voucher),
                None => (
                    change
                        .authorized(voucher.cumulative)
                        .with_rail(self.kept(voucher.clone())?),
                    voucher,
                ),
            };
        let closed = self.rail.operator()?.close(
            self.rail,
            self.channel,
            &self.descriptor,
            &best,
            Amount::new(capture),
        );
        Ok(Plan::close(self.id(), change, Some(closed.await?)))
    }

    /// The channel's record. Only who signed for it gets here.
    async fn known(&self) -> Result<ChannelState, Refusal> {
        let state = self.cx.channel(&self.id()).await?;
        Ok(state.ok_or_else(not_found)?)
    }

    /// Checks that the payer has not asked for the money back.
    fn in_service(&self, state: &ChannelState, on_chain: &OnChain) -> Result<(), Refusal> {
        if on_chain.deposit == 0 {
            // A node may be behind, so nothing is recorded.
            return Err(not_found().into());
        }
        let observed = Observed::default()
            .settled(Amount::new(on_chain.settled))
            .close_requested(on_chain.is_closing());
        if on_chain.is_closing() != state.close_requested || on_chain.settled > state.settled.get()
        {
            self.cx.saw(&self.id(), observed);
        }
        if on_chain.is_closing() {
            let detail = "the payer has asked for the channel to be closed; top it up to take \
                          that back, or open another";
            return Err(finalized(detail).into());
        }
        Ok(())
    }

    /// Reads a transaction, and checks what has nothing to do with its call.
    fn funding(&self, text: &str) -> Result<Funding, Refusal> {
        let (challenge, now) = (self.cx.challenge, self.cx.now);
        if self.sponsored {
            let sponsor = self.rail.base.sponsor.as_ref();
            let sponsor = sponsor
                .ok_or_else(|| Fault::new("a sponsored request of ours without a fee payer"))?;
            let (open, claimed) = envelope::read(text)?;
            let chain_id = self.rail.domain.chain_id();
            // The call is checked by the caller before anything is signed.
            let half = sponsor.examine_calls(chain_id, challenge, open, now, |_, _| Ok(()))?;
            let payer = half.by.account;
            if claimed.is_some_and(|claimed| claimed != payer) {
                return Err(no("the transaction is not signed by the account it names").into());
            }
            if half.by.key.is_some() || half.tx.key_authorization.is_some() {
                return Err(no(
                    "access keys are not accepted here; sign with the account's own key",
                )
                .into());
            }
            return Ok(Funding::Sponsored(Box::new(half)));
        }
        let signed = SignedTx::read(text).map_err(|mut rejection| {
            rejection.detail = rejection.detail.replace("`signature`", "`transaction`");
            rejection
        })?;
        let end = signed.frame(challenge, self.rail.domain.chain_id(), now)?;
        Ok(Funding::Own(Box::new(signed), end))
    }
}

/// A transaction that funds a channel: complete, or with the fee payer's place open.
enum Funding {
    Own(Box<SignedTx>, u64),
    Sponsored(Box<crate::charge::sponsor::Half>),
}

impl Funding {
    fn tx(&self) -> &tempo_primitives::TempoTransaction {
        match self {
            Self::Own(signed, _) => signed.tx(),
            Self::Sponsored(half) => &half.tx,
        }
    }

    fn sender(&self) -> alloy::primitives::Address {
        match self {
            Self::Own(signed, _) => signed.sender,
            Self::Sponsored(half) => half.by.account,
        }
    }

    /// What the chain knows the transaction by, whoever pays its fee.
    fn unique(&self) -> B256 {
        match self {
            Self::Own(signed, _) => signed.unique,
            Self::Sponsored(half) => half.unique(),
        }
    }

    /// Simulates it, and makes an order of it.
    async fn order(
        self,
        case: &Case<'_>,
        how: How,
    ) -> Result<(SessionOrder, [ProofKey; 2]), Refusal> {
        let base = &case.rail.base;
        let (raw, hash, unique, end, share, sponsored): (Bytes, B256, B256, u64, _, bool) =
            match self {
                Self::Own(signed, end) => {
                    let simulated = base.chain.simulate(&signed.simulation()).await;
                    simulated.map_err(refusal)?;
                    (signed.raw, signed.hash, signed.unique, end, None, false)
                }
                Self::Sponsored(half) => {
                    let sponsor = base
                        .sponsor
                        .as_ref()
                        .ok_or_else(|| Fault::new("a sponsored request without a fee payer"))?;
                    let Cosigned {
                        signed,
                        share,
                        unique,
                        end,
                    } = cosigned(base, sponsor, *half).await?;
                    (signed.raw, signed.hash, unique, end, share, true)
                }
            };
        let order = Order {
            raw,
            hash,
            valid_before: end,
            transfers: Vec::new(),
            sponsored,
            share,
            moved: None,
        };
        let moved = Moved {
            escrow: case.rail.domain.escrow(),
            channel: case.channel,
            how,
        };
        let keys = [unique, hash].map(|hash| ProofKey::of("tempo", hash).keep_for(KEEP));
        Ok((SessionOrder::new(order, moved), keys))
    }
}

/// How a channel's balances change when it is closed with `capture` for the payee: the reserve
/// pays the rest back at once.
pub(super) fn closing(state: &ChannelState, capture: u128) -> Change {
    let rest = state.deposit.get().saturating_sub(capture);
    Change::none()
        .settled(Amount::new(capture))
        .refunded(Amount::new(rest))
}

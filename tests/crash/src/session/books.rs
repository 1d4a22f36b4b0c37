//! Whether what sessions cost is what was served, by everybody's account.

use serde_json::Value;

use super::{SessionRail, Tally};
use crate::{Node, Problem};

/// What moved by the rail's own account, base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// What left the payer and did not come back.
    pub left: u128,
    /// What the seller has got.
    pub arrived: u128,
    /// What is in between.
    pub held: u128,
}

/// One channel as `farebox books` has it, in base units where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBooks {
    /// Its id.
    pub id: String,
    /// What was put in.
    pub deposit: u128,
    /// What was signed over.
    pub authorized: u128,
    /// What was served.
    pub spent: u128,
    /// What requests and streams hold.
    pub held: u128,
    /// Units of service.
    pub units: u64,
    /// What is the seller's for good.
    pub settled: u128,
    /// What went back.
    pub refunded: u128,
    /// What is still to go back.
    pub owed: u128,
    /// What became of the refund.
    pub refund: String,
    /// A close is under way.
    pub closing: bool,
    /// It is closed.
    pub closed: bool,
}

impl ChannelBooks {
    fn of(line: &Value) -> Result<Option<Self>, Problem> {
        let Some(channel) = line.get("channel") else {
            return Ok(None);
        };
        let text = |key: &str| {
            let text = channel[key].as_str();
            text.ok_or_else(|| format!("the books' {key} is no text: {channel}"))
        };
        let amount = |key: &str| Ok::<u128, Problem>(text(key)?.parse()?);
        let flag = |key: &str| channel[key] == true;
        Ok(Some(Self {
            id: text("id")?.to_owned(),
            deposit: amount("deposit")?,
            authorized: amount("authorized")?,
            spent: amount("spent")?,
            held: amount("held")?,
            units: channel["units"].as_u64().ok_or("the books' units")?,
            settled: amount("settled")?,
            refunded: amount("refunded")?,
            owed: amount("owed")?,
            refund: text("refund")?.to_owned(),
            closing: flag("closing"),
            closed: flag("closed"),
        }))
    }

    /// Nothing will happen to it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed && !self.closing && self.refund != "pending"
    }

    /// What holds of every channel, open or not.
    pub fn sound(&self) -> Result<(), Problem> {
        let within = self.spent <= self.authorized && self.authorized <= self.deposit;
        if !within || self.settled > self.authorized {
            return Err(format!("more than was authorised or put in: {self:?}").into());
        }
        Ok(())
    }

    /// What holds once it is over: all that was put in is paid out or went back.
    fn ended(&self) -> Result<(), Problem> {
        self.sound()?;
        let done = ["done", "none"].contains(&self.refund.as_str()) && self.owed == 0;
        if !self.is_over() || !done || self.held != 0 {
            return Err(format!("not over: {self:?}").into());
        }
        if self.deposit != self.settled + self.refunded {
            return Err(format!("money is missing: {self:?}").into());
        }
        Ok(())
    }
}

/// The books of the server, of the rail and of its payer agree, and what was served is what was spent,
/// but for what was on its way when a server died:
///
/// - a request whose answer got lost may have cost its unit;
/// - a stream that broke off may have cost units that did not arrive, and have brought units that
///   were not charged; either is a block at most, which is no more than `block` units;
/// - of either there was one at most per payer and death, `in_flight` in all.
///
/// No more was signed over than a unit for each that arrived, got lost or broke off, and one ahead in
/// each channel.
pub fn balance(
    rail: SessionRail,
    channels: &[ChannelBooks],
    moved: Drained,
    tally: &Tally,
    block: u64,
    in_flight: u64,
) -> Result<(), Problem> {
    channels.iter().try_for_each(ChannelBooks::ended)?;
    let sum = |of: fn(&ChannelBooks) -> u128| channels.iter().map(of).sum::<u128>();
    let units = |amount: u128| Ok::<u64, Problem>(u64::try_from(amount / rail.price())?);
    let settled = sum(|channel| channel.settled);
    let agreed = Drained {
        left: settled,
        arrived: settled,
        held: 0,
    };
    let (spent, broken) = (units(sum(|channel| channel.spent))?, tally.broken.len());
    let free: u64 = tally.broken.iter().map(|came| block.min(*came)).sum();
    let by_payers = tally.lost + u64::try_from(broken)? * block;
    let most = tally.received + by_payers.min(in_flight * block);
    let ahead = u64::try_from(channels.len() + broken)?;
    let signed = units(sum(|channel| channel.authorized))?;
    let wrong = if moved != agreed {
        format!("{settled} were settled, and it moved otherwise")
    } else if spent > most {
        format!("{spent} units were spent, and {most} at most were on their way")
    } else if tally.received > spent + free {
        format!("{spent} units were spent, and {free} at most were free")
    } else if rail == SessionRail::Tempo && signed > tally.received + tally.lost + ahead {
        format!("{signed} units were signed over")
    } else {
        return Ok(());
    };
    Err(format!("{wrong}: {moved:?}, {tally:?}, {channels:?}").into())
}

impl Node {
    /// The server's own books: its channels, and whether what became of any payment is not known.
    pub fn channels(&self) -> Result<(Vec<ChannelBooks>, bool), Problem> {
        let lines = self.book_lines()?;
        let channels = lines.iter().map(ChannelBooks::of);
        let channels: Result<_, _> = channels.filter_map(Result::transpose).collect();
        let attempted = lines.iter().any(|entry| entry["state"] == "attempted");
        Ok((channels?, attempted))
    }
}

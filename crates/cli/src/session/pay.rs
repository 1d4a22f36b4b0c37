//! `farebox pay` out of a channel.

use std::io::{self, Write as _};

use farebox::{
    Budget, Limit,
    client::session::{ChannelInfo, DepositLimit, SessionError, Sessions},
    config::Wallets,
    http::{EventStream, PaidFrom, PayOptions, SessionCallError, SessionClient, SseEvent},
    wire::Challenge,
};
use http::{HeaderValue, header};
use reqwest::{Client, Response};
use serde_json::json;

use super::{note, summary::Summary};
use crate::{
    args::Pay,
    failure::{Failure, UNKNOWN},
    pay::{NOT_PAID, PAID_NOT_SERVED, Shown, show},
    request::{Max, Prepared, most, named},
    signals::Signals,
};

const INTERRUPTED: u8 = 130;

/// The challenges of sessions, if they are what to pay: one can be, and the user says so, or nothing
/// else can be.
///
/// # Errors
/// If a session is to be paid from, and none can be.
pub(crate) fn chosen(
    args: &Pay,
    found: &[Challenge],
    wallets: &Wallets,
) -> Result<Option<Vec<Challenge>>, Failure> {
    let flags = &args.session;
    let sessions: Vec<Challenge> = found
        .iter()
        .filter(|challenge| {
            wallets
                .sessions()
                .any(|(_, p)| p.offer() == challenge.offer())
        })
        .cloned()
        .collect();
    if sessions.is_empty() {
        return match flags.session {
            true => Err(Failure::new(
                NOT_PAID,
                "nothing was paid: no session is offered that a wallet here can pay",
            )),
            false => Ok(None),
        };
    }
    let wanted =
        flags.session || flags.close || !flags.max_deposit.is_empty() || !flags.deposit.is_empty();
    let charged = || {
        let mut payers = wallets.iter().map(|(_, payer)| payer.offer());
        payers.any(|offer| found.iter().any(|challenge| challenge.offer() == offer))
    };
    Ok((wanted || !charged()).then_some(sessions))
}

/// Sessions within the limits that the command line sets.
fn sessions(args: &Pay, found: &[Challenge], wallets: &Wallets) -> Result<Sessions, Failure> {
    let flags = &args.session;
    let max = Max::all(&args.wallet.max)?;
    let max_deposit = Max::of("--max-deposit", &flags.max_deposit)?;
    let deposit = Max::of("--deposit", &flags.deposit)?;
    let mut limits: Vec<(Limit, DepositLimit)> = Vec::new();
    let mut known: Vec<String> = Vec::new();
    for challenge in found {
        let request = challenge.request.value();
        let Some(currency) = request["currency"].as_str().map(str::to_ascii_lowercase) else {
            continue;
        };
        if known.contains(&currency) {
            continue;
        }
        let call = most(&currency, &max)?;
        let all = match max_deposit.is_empty() {
            true => call,
            false => named(&currency, &max_deposit)?,
        };
        if let (Some(call), Some(all)) = (call, all) {
            let mut limit = DepositLimit::new(&currency, all).per_call(call);
            match named(&currency, &deposit)? {
                Some(amount) => limit = limit.deposit(amount),
                None if request["suggestedDeposit"].is_null() => limit = limit.deposit(all),
                None => {}
            }
            limits.push((Limit::per_request(&currency, all).total(all), limit));
        }
        known.push(currency);
    }
    let budget = Budget::new(limits.iter().map(|(limit, _)| limit.clone()));
    let mut sessions = Sessions::new(budget, flags.channels.store()?);
    for (_, limit) in limits {
        sessions = sessions.limit(limit);
    }
    for (_, payer) in wallets.sessions() {
        sessions = sessions.payer(payer.clone());
    }
    Ok(sessions)
}

/// Sends the request, and pays for what is served out of a channel.
pub(crate) async fn pay(
    args: &Pay,
    client: Client,
    request: &Prepared,
    found: &[Challenge],
    wallets: &Wallets,
) -> Result<(), Failure> {
    let sessions = sessions(args, found, wallets)?;
    let before = sessions
        .channels()
        .await
        .map_err(|error| failed(error.into(), false))?;
    let options = PayOptions::default().client_follows_no_redirects();
    let mut call = request.on(&client).build().map_err(Failure::general)?;
    // What curl sends: whether it is a stream, the server says.
    let any = HeaderValue::from_static("*/*");
    call.headers_mut().entry(header::ACCEPT).or_insert(any);
    let client = SessionClient::new(client, sessions).options(options);
    let called = Called {
        args,
        client,
        before,
    };
    match called.client.events(call).await {
        Ok(stream) => called.follow(stream).await,
        Err(SessionCallError::NotEvents(response)) => called.answered(*response).await,
        Err(error) => Err(failed(error, false)),
    }
}

/// A call that was accepted.
struct Called<'a> {
    args: &'a Pay,
    client: SessionClient,
    /// The channels as they were before it.
    before: Vec<ChannelInfo>,
}

/// How a stream ended.
enum Ended {
    ByItself,
    Interrupted,
    /// Nobody reads the output any more.
    Unread,
    Badly(SessionCallError),
}

impl Called<'_> {
    /// One response.
    async fn answered(&self, response: Response) -> Result<(), Failure> {
        let paid = response.extensions().get::<PaidFrom>().cloned();
        let shown = show(self.args, response).await;
        let summary = self.conclude(paid.as_ref().map(|paid| paid.channel.as_str()));
        let summary = summary.await?;
        self.end(shown?, summary)
    }

    /// An event stream, as it comes.
    async fn follow(&self, mut stream: EventStream) -> Result<(), Failure> {
        let channel = stream.channel().map(str::to_owned);
        let mut signals = Signals::listen()?;
        let ended = loop {
            tokio::select! {
                event = stream.recv() => match event {
                    None => break Ended::ByItself,
                    Some(Err(error)) => break Ended::Badly(error),
                    Some(Ok(event)) => if self.write(&event).is_err() {
                        break Ended::Unread;
                    },
                },
                () = signals.next() => break Ended::Interrupted,
            }
        };
        let receipt = stream.receipt().cloned();
        stream.stop().await;
        let summary = self.conclude(channel.as_deref()).await?;
        let spent = summary.as_ref().is_some_and(Summary::is_spent);
        match ended {
            Ended::ByItself => self.end(Shown::stream(receipt), summary),
            Ended::Unread => {
                summary.iter().for_each(|summary| note(&summary.text()));
                Ok(())
            }
            Ended::Interrupted => {
                self.end(Shown::stream(receipt), summary)?;
                Err(Failure::new(INTERRUPTED, "interrupted"))
            }
            Ended::Badly(error) => {
                self.end(Shown::stream(receipt), summary)?;
                Err(failed(error, spent))
            }
        }
    }

    /// As it came, or as JSON.
    fn write(&self, event: &SseEvent) -> io::Result<()> {
        let mut out = io::stdout();
        if self.args.json {
            let line = json!({ "event": event.name, "data": event.data, "id": event.id });
            writeln!(out, "{line}")?;
            return out.flush();
        }
        if let Some(id) = &event.id {
            writeln!(out, "id: {id}")?;
        }
        if let Some(name) = &event.name {
            writeln!(out, "event: {name}")?;
        }
        for line in event.data.split('\n') {
            writeln!(out, "data: {line}")?;
        }
        writeln!(out)?;
        out.flush()
    }

    /// What the call came to; closes the channel if asked to. `None` if the call cost nothing.
    async fn conclude(&self, key: Option<&str>) -> Result<Option<Summary>, Failure> {
        let Some(key) = key else { return Ok(None) };
        let channels = self.client.sessions().channels().await;
        let channels = channels.map_err(|error| failed(error.into(), true))?;
        // Another process may have closed it.
        let Some(channel) = channels.into_iter().find(|channel| channel.key == key) else {
            return Ok(None);
        };
        let same = self
            .before
            .iter()
            .find(|old| old.channel == channel.channel);
        let before = same.map(|old| old.due).unwrap_or_default();
        let closed = match self.args.session.close {
            false => None,
            true => match self.client.close(&channel).await {
                Ok(closed) => Some(closed),
                Err(error) => {
                    note(&format!(
                        "channel {} is not closed: {error}",
                        channel.channel
                    ));
                    None
                }
            },
        };
        Ok(Some(Summary {
            channel,
            before,
            closed,
        }))
    }

    /// Says it, and how the command ends.
    fn end(&self, shown: Shown, summary: Option<Summary>) -> Result<(), Failure> {
        let Some(summary) = summary else {
            return shown.end(self.args, json!([]), false, None);
        };
        if !self.args.json {
            note(&summary.text());
        }
        let spent = summary.is_spent();
        shown.end(self.args, summary.spent(), spent, Some(summary.json()))
    }
}

/// What an error says about the money.
fn failed(error: SessionCallError, spent: bool) -> Failure {
    use SessionError as S;
    let code = match &error {
        SessionCallError::Unpaid(error) => crate::pay::code(error),
        SessionCallError::Lost(_) | SessionCallError::Session(S::OutcomeUnknown { .. }) => UNKNOWN,
        _ if spent => PAID_NOT_SERVED,
        SessionCallError::Session(S::NotAccepted { .. }) => PAID_NOT_SERVED,
        SessionCallError::Session(S::Store(_) | S::Standing(_) | S::Unreachable(_)) => 1,
        SessionCallError::Session(_) => NOT_PAID,
        _ => 1,
    };
    let hint = match &error {
        SessionCallError::Session(S::MaxDeposit { .. }) => "; --max-deposit allows more",
        SessionCallError::Session(S::OverBudget(_)) => {
            "; --max-deposit allows more, `farebox session close` gets back what is in a channel"
        }
        SessionCallError::Session(S::CallLimit { .. } | S::NoLimit { .. }) => "; --max allows more",
        SessionCallError::Session(S::Closing) => "; `farebox session close` looks again",
        _ => "",
    };
    Failure::new(code, format!("{error}{hint}"))
}

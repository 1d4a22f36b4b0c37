//! The calls that users make.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose};
use farebox_client::session::{
    Answer, Call, ChannelInfo, Closed, Presentation, SessionError, Sessions,
};
use farebox_core::wire::Challenge;
use http::{HeaderMap, HeaderValue, Method, header::ACCEPT};
use reqwest::{Client, Request, Response, Url};
use serde_json::Value;

use super::{
    courier::{self, HttpCourier},
    error::SessionCallError,
    events::EventStream,
};
use crate::{
    IDEMPOTENCY_KEY, PAYMENT_SESSION_SNAPSHOT,
    client::{
        PayError,
        drive::{self, Asked, Owed, ask},
        ext::PayOptions,
    },
};

/// An HTTP client whose requests are paid from sessions. Clones share them.
#[derive(Clone)]
pub struct SessionClient {
    client: Client,
    sessions: Sessions,
    options: PayOptions,
    /// The last challenge of each resource, which is good for more than one voucher.
    known: Arc<Mutex<Known>>,
}

type Known = HashMap<(Method, Url), Challenge>;

/// Among a response's extensions: it was paid from a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PaidFrom {
    /// The channel's [`key`](farebox_client::session::ChannelInfo::key).
    pub channel: String,
}

/// How long a server may say that streams hold what would pay for a call, before the caller hears of
/// it: what a process that died has taken aside is free after a minute.
const BUSY: Duration = Duration::from_secs(75);

/// For how many resources a challenge is kept.
const KNOWN: usize = 256;

/// A call whose credential was accepted, and what it was answered.
pub(super) struct Paid {
    pub(super) response: Response,
    /// `None` if it cost nothing.
    pub(super) call: Option<(Call, HttpCourier)>,
}

impl SessionClient {
    /// Sends by `client` and pays from `sessions`.
    #[must_use]
    pub fn new(client: Client, sessions: Sessions) -> Self {
        Self {
            client,
            sessions,
            options: PayOptions::default(),
            known: Arc::default(),
        }
    }

    /// With other options.
    #[must_use]
    pub fn options(mut self, options: PayOptions) -> Self {
        self.options = options;
        self
    }

    /// The HTTP client, to build requests with.
    #[must_use]
    pub fn http(&self) -> &Client {
        &self.client
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Sends a request; if it costs something, opens a channel or signs a voucher and sends it
    /// again. The response is whatever the server answers, a 4xx included, but not of another server
    /// that it redirects to after it was paid; one that was paid for has a [`PaidFrom`] among its
    /// extensions.
    ///
    /// # Errors
    /// See [`SessionCallError`].
    pub async fn send(&self, request: Request) -> Result<Response, SessionCallError> {
        let Paid { response, call } = self.paid(request).await?;
        if let Some((call, _)) = call {
            finish(call).await;
        }
        Ok(response)
    }

    /// Sends a request for an event stream, and pays for the events as they come.
    ///
    /// # Errors
    /// See [`SessionCallError`]; [`SessionCallError::NotEvents`] holds what was served instead.
    pub async fn events(&self, mut request: Request) -> Result<EventStream, SessionCallError> {
        let events = HeaderValue::from_static("text/event-stream");
        request.headers_mut().entry(ACCEPT).or_insert(events);
        let paid = self.paid(request).await?;
        EventStream::of(paid).await
    }

    /// Closes a channel: the server keeps what it served, and the rest comes back.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn close(&self, channel: &ChannelInfo) -> Result<Closed, SessionError> {
        let url = Url::parse(&channel.resource);
        let url = url.map_err(|_| SessionError::NoChannel)?;
        let courier = HttpCourier::to(&self.client, url, &self.options);
        self.sessions
            .close(&channel.key, &courier.origin(), &courier)
            .await
    }

    /// Closes every channel on record.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub async fn close_all(&self) -> Result<Vec<Closed>, SessionError> {
        let mut closed = Vec::new();
        let mut failed = None;
        for channel in self.sessions.channels().await? {
            match self.close(&channel).await {
                Ok(done) => closed.push(done),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(closed), Err)
    }

    /// Sends a request and pays for it, until it is served.
    async fn paid(&self, request: Request) -> Result<Paid, SessionCallError> {
        let remembered = self.remembered(&request);
        let used = remembered.is_some();
        let owed = match remembered {
            Some(owed) => owed,
            None => {
                let mut client = self.client.clone();
                let accept = self.sessions.accept();
                match ask(&mut client, request, accept, &self.options).await? {
                    Asked::Owed(owed) => owed,
                    Asked::Served(response) => {
                        let call = None;
                        return Ok(Paid { response, call });
                    }
                }
            }
        };
        let courier = HttpCourier::beside(&self.client, &owed.again, &self.options);
        let mut call = self.begin(&owed)?;
        if used {
            call = call.used();
        }
        let mut busy = None;
        loop {
            let presentation = call.next(&courier).await?;
            let (mut response, answer) = self.present(&owed.again, &presentation).await?;
            if let Answer::Accepted(_) = &answer {
                self.remember(&owed.again, &presentation);
            }
            let unsent = matches!(answer, Answer::Unsent(_));
            let accepted = match call.answered(presentation, answer).await {
                Err(SessionError::Busy { retry_after })
                    if retry_after <= self.options.max_wait
                        && Instant::now() < *busy.get_or_insert_with(|| Instant::now() + BUSY) =>
                {
                    tokio::time::sleep(retry_after).await;
                    continue;
                }
                Err(SessionError::Unreachable(why)) if !unsent => {
                    return Err(SessionCallError::Lost(why));
                }
                other => other?,
            };
            match response.take() {
                Some(mut response) if accepted => {
                    let channel = call.key().to_owned();
                    response.extensions_mut().insert(PaidFrom { channel });
                    let call = Some((call, courier));
                    return Ok(Paid { response, call });
                }
                _ => {}
            }
        }
    }

    /// Presents a credential with the request. A deposit whose answer gets lost is presented again.
    async fn present(
        &self,
        request: &Request,
        presentation: &Presentation,
    ) -> Result<(Option<Response>, Answer), SessionCallError> {
        let header = drive::credential(presentation.credential());
        let (name, value) = header.map_err(|error| SessionCallError::Lost(error.to_string()))?;
        let attempts = match presentation.is_deposit() {
            true => self.options.attempts,
            false => 1,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut again = request.try_clone().ok_or(PayError::StreamedBody)?;
            if let Ok(key) = drive::key(&value) {
                again.headers_mut().entry(IDEMPOTENCY_KEY).or_insert(key);
            }
            again.headers_mut().insert(name.clone(), value.clone());
            let (response, answer, wait) = match self.client.execute(again).await {
                Ok(mut response) => {
                    let wait = drive::retry_after(response.headers());
                    let answer = match Self::is_beside(request, presentation, &response) {
                        true => Answer::Lost("it redirected to another server".to_owned()),
                        false => courier::answer(&mut response, &self.options).await,
                    };
                    (Some(response), answer, wait)
                }
                Err(error) => {
                    let unsent = error.is_connect();
                    let why = error.without_url().to_string();
                    let answer = match unsent {
                        true => Answer::Unsent(why),
                        false => Answer::Lost(why),
                    };
                    (None, answer, None)
                }
            };
            let wait = wait.unwrap_or_default().max(drive::backoff(attempt));
            let lost = match answer {
                Answer::Lost(_) | Answer::Unsent(_) => true,
                Answer::Busy { .. } => presentation.is_deposit(),
                _ => false,
            };
            if !lost || attempt >= attempts || wait > self.options.max_wait {
                return Ok((response, answer));
            }
            tokio::time::sleep(wait.min(Duration::from_secs(60))).await;
        }
    }

    /// Whether another server answers, to which the credential did not go: what it serves may have been
    /// paid for, but it cannot say so of a deposit, nor ask for anything.
    fn is_beside(request: &Request, what: &Presentation, response: &Response) -> bool {
        let status = response.status();
        let refuses = status.is_client_error() || status.is_server_error();
        drive::origin(request.url()) != drive::origin(response.url())
            && (what.is_deposit() || refuses)
    }

    /// Speaks of money with what is at `url`.
    #[cfg(feature = "client-ws")]
    pub(super) fn courier(&self, url: &Url) -> HttpCourier {
        HttpCourier::to(&self.client, url.clone(), &self.options)
    }

    /// A call that is asked for by a plain request to `url`.
    #[cfg(feature = "client-ws")]
    pub(super) async fn call(&self, url: &Url) -> Result<Call, SessionCallError> {
        let request = Request::new(Method::GET, url.clone());
        let mut client = self.client.clone();
        let accept = self.sessions.accept();
        match ask(&mut client, request, accept, &self.options).await? {
            Asked::Owed(owed) => Ok(self.begin(&owed)?),
            Asked::Served(response) => Err(SessionCallError::Ended {
                status: response.status().as_u16(),
                message: "it asks for no payment".to_owned(),
            }),
        }
    }

    fn begin(&self, owed: &Owed) -> Result<Call, SessionError> {
        let resource = resource(owed.again.url());
        let payable = wanted(&owed.again, owed.payable.clone());
        let call = self.sessions.begin(&payable, &owed.origin, &resource)?;
        Ok(match snapshot(&owed.headers) {
            Some(snapshot) => call.snapshot(snapshot),
            None => call,
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each critical section leaves whole entries, so a panic elsewhere does not spoil them.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the resource asked for the last time. If it will not do any more, the server says so.
    fn remembered(&self, request: &Request) -> Option<Box<Owed>> {
        let place = place(request)?;
        let origin = drive::origin(request.url());
        let payable = vec![self.known().get(&place)?.clone()];
        let payable = wanted(request, payable);
        self.sessions.begin(&payable, &origin, "").ok()?;
        Some(Box::new(Owed {
            again: request.try_clone()?,
            payable,
            origin,
            headers: HeaderMap::new(),
        }))
    }

    fn remember(&self, request: &Request, presentation: &Presentation) {
        let challenge = &presentation.credential().challenge;
        let Some(place) = place(request) else { return };
        if challenge.digest.is_some() || presentation.is_deposit() {
            return;
        }
        let mut known = self.known();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(place, challenge.clone());
    }
}

impl fmt::Debug for SessionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionClient")
            .field("sessions", &self.sessions)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Of `challenges` those that the request itself says it accepts, heaviest first: all, where it says
/// nothing.
fn wanted(request: &Request, mut challenges: Vec<Challenge>) -> Vec<Challenge> {
    if let Some(accepted) = drive::accepted(request.headers()) {
        let weight = |challenge: &Challenge| accepted.quality(&challenge.offer());
        challenges.retain(|challenge| weight(challenge) > 0);
        challenges.sort_by_key(|challenge| Reverse(weight(challenge)));
    }
    challenges
}

/// What a challenge may be kept for: bodies are bound one by one.
fn place(request: &Request) -> Option<(Method, Url)> {
    let bare = request.body().is_none();
    bare.then(|| {
        (
            request.method().clone(),
            drive::without_fragment(request.url()),
        )
    })
}

/// Where a channel can be closed, without what may be secret.
fn resource(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    url.set_query(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// How the server says a channel stands. The draft and the deployed servers differ in the alphabet.
fn snapshot(headers: &HeaderMap) -> Option<Value> {
    let text = headers.get(PAYMENT_SESSION_SNAPSHOT)?.to_str().ok()?;
    let text: String = text.trim().trim_end_matches('=').to_owned();
    let standard = text.replace('-', "+").replace('_', "/");
    let json = general_purpose::STANDARD_NO_PAD.decode(standard).ok()?;
    serde_json::from_slice(&json).ok()
}

/// What a call does not cost is not lost if the store fails now; it stays counted.
pub(super) async fn finish(call: Call) {
    if let Err(error) = call.finish().await {
        tracing::warn!(%error, "what a call did not cost stays counted");
    }
}

//! One request through the paying client, with a wallet that hands over what the suite says.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use farebox::{
    Amount, Budget, Fault, Limit,
    client::{Approved, ClientError, Cost, Payer, Purse, Reason},
    core::{Paid, PayError as WalletError, Paying},
    http::{PayError, PayMiddleware, PayOptions},
    wire::{Credential, Encoded, OfferId, Payload},
};
use http::{Extensions, HeaderMap, HeaderValue, header::AUTHORIZATION};
use reqwest::{Request, Response, ResponseBuilderExt as _};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::protocol::{Answer, Failure, Kind, failed, read};

const KIND: Kind = Kind::HttpError;

/// What the pretended wallet's budget is in; what it hands over costs nothing.
const CURRENCY: &str = "conformance";

/// The wallet is asked for these pairs; any other that a server names is learnt from the answer.
const OFFERS: [(&str, &str); 6] = [
    ("tempo", "charge"),
    ("tempo", "session"),
    ("stripe", "charge"),
    ("lightning", "charge"),
    ("lightning", "session"),
    ("evm", "charge"),
];

#[derive(Deserialize)]
struct Input {
    url: String,
    method: String,
    #[serde(default)]
    headers: HashMap<String, String>,
    body: Option<String>,
    payment: Payment,
    mode: Mode,
}

#[derive(Clone, Deserialize)]
struct Payment {
    payload: Value,
    source: Option<Value>,
}

/// What is done to the credential on its way, if anything is paid at all.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Payment,
    Plain,
    InvalidPayload,
    MismatchedRequest,
    InvalidChallengeId,
}

pub(crate) async fn payment_request(input: &Value, timeout: Duration) -> Answer {
    let input: Input = read(KIND, input)?;
    let known = OFFERS.map(|(method, intent)| OfferId::new(method, intent));
    let outcome = input.send(known.into(), timeout).await;
    match outcome {
        Err(Unanswered::Unknown(offers)) => match input.send(offers, timeout).await {
            Ok(answer) => Ok(answer),
            Err(unanswered) => Err(Failure::new(KIND, unanswered)),
        },
        Ok(answer) => Ok(answer),
        Err(unanswered) => Err(Failure::new(KIND, unanswered)),
    }
}

/// Why there is no response to show.
enum Unanswered {
    /// The server asks for these, which no wallet was there for.
    Unknown(Vec<OfferId>),
    Failed(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(_) => f.write_str("no challenge can be paid"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl Input {
    async fn send(&self, offers: Vec<OfferId>, timeout: Duration) -> Result<Value, Unanswered> {
        let wrong = |error: Failure| Unanswered::Failed(format!("{error:?}"));
        let request = self.request(timeout).map_err(wrong)?;
        let tap = Tap {
            mode: self.mode,
            last: Arc::default(),
        };
        let last = tap.last.clone();
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .build()
            .map_err(|error| Unanswered::Failed(error.to_string()))?;
        let mut client = ClientBuilder::new(client);
        if self.mode != Mode::Plain {
            let wallet = |offer| {
                let payment = self.payment.clone();
                Arc::new(Handover { offer, payment }) as Arc<dyn Payer>
            };
            let budget = Budget::new([Limit::per_request(CURRENCY, Amount::new(0))]);
            let purse = offers.into_iter().map(wallet);
            let purse = purse.fold(Purse::new(budget), Purse::payer);
            // The suite counts what it is sent.
            let options = PayOptions::default().attempts(1);
            client = client.with(PayMiddleware::new(purse).options(options));
        }
        let sent = client.with(tap).build().execute(request).await;
        let last = last.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (sent, last) {
            (Ok(_), Some(seen)) => Ok(seen),
            (Err(error), last) => match paying(&error) {
                // Presented, and this is what the server said.
                Some(PayError::NotAccepted(_) | PayError::OutcomeUnknown(_)) => {
                    last.ok_or_else(|| Unanswered::Failed(error.to_string()))
                }
                Some(PayError::Client(ClientError::NothingPayable(skipped)))
                    if skipped.iter().any(|s| matches!(s.reason, Reason::NoWallet)) =>
                {
                    Err(Unanswered::Unknown(
                        skipped.iter().map(|s| s.offer.clone()).collect(),
                    ))
                }
                _ => Err(Unanswered::Failed(error.to_string())),
            },
            (Ok(_), None) => Err(Unanswered::Failed("no response".to_owned())),
        }
    }

    fn request(&self, timeout: Duration) -> Result<Request, Failure> {
        let url = reqwest::Url::parse(&self.url).map_err(failed(KIND))?;
        let method = self.method.parse();
        let method = method.map_err(failed::<http::method::InvalidMethod>(KIND))?;
        let mut request = Request::new(method, url);
        *request.timeout_mut() = Some(timeout);
        *request.headers_mut() =
            HeaderMap::try_from(&self.headers).map_err(failed::<http::Error>(KIND))?;
        *request.body_mut() = self.body.clone().map(Into::into);
        Ok(request)
    }
}

fn paying(error: &Error) -> Option<&PayError<Error>> {
    match error {
        Error::Middleware(error) => error.downcast_ref(),
        Error::Reqwest(_) => None,
    }
}

/// Hands over what it was given, for whatever is asked.
struct Handover {
    offer: OfferId,
    payment: Payment,
}

#[async_trait]
impl Payer for Handover {
    fn offer(&self) -> OfferId {
        self.offer.clone()
    }

    fn price(&self, _: &Paying<'_>) -> Result<Cost, WalletError> {
        Ok(Cost {
            amount: Amount::new(0),
            currency: CURRENCY.to_owned(),
            recipient: None,
        })
    }

    async fn funded(&self, _: &Cost) -> bool {
        true
    }

    async fn pay(&self, _: &Paying<'_>, _: Approved) -> Result<Paid<Payload>, WalletError> {
        let payload = Payload::from_value(&self.payment.payload)
            .map_err(|error| WalletError::NotPaid(Fault::new("the payload").caused_by(error)))?;
        let paid = Paid::new(payload);
        Ok(match &self.payment.source {
            Some(Value::String(source)) => paid.by(source.clone()),
            _ => paid,
        })
    }
}

/// Beneath the payment: spoils the credential where the suite asks for it, and keeps what the
/// server answered last.
struct Tap {
    mode: Mode,
    last: Arc<Mutex<Option<Value>>>,
}

#[async_trait]
impl Middleware for Tap {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        if let Some(spoilt) = self.spoilt(request.headers()) {
            request.headers_mut().insert(AUTHORIZATION, spoilt);
        }
        let response = next.run(request, extensions).await?;
        let (status, url) = (response.status(), response.url().clone());
        let headers = response.headers().clone();
        let body = response.bytes().await?;
        let seen = json!({
            "status": status.as_u16(),
            "headers": text(&headers),
            "body": String::from_utf8_lossy(&body),
        });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        let mut again = http::Response::builder().status(status).url(url);
        if let Some(own) = again.headers_mut() {
            *own = headers;
        }
        again
            .body(body)
            .map(Response::from)
            .map_err(Error::middleware)
    }
}

impl Tap {
    fn spoilt(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let value = headers.get(AUTHORIZATION)?;
        let mut credential = Credential::parse(value.as_bytes()).ok().flatten()?;
        match self.mode {
            Mode::Payment | Mode::Plain => return None,
            Mode::InvalidPayload => {
                credential.payload = Payload::from_value(&json!({ "type": "invalid" })).ok()?;
            }
            Mode::MismatchedRequest => {
                let mut request = credential.challenge.request.value();
                let cheaper = request["amount"] != json!("1");
                request["amount"] = if cheaper { "1" } else { "2" }.into();
                credential.challenge.request = Encoded::encode(&request).ok()?;
            }
            Mode::InvalidChallengeId => credential.challenge.id = "not-issued-here".to_owned(),
        }
        HeaderValue::try_from(credential.to_header().ok()?).ok()
    }
}

/// Headers by name; several of one name as one list.
fn text(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let of = |name| {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        values.join(", ")
    };
    headers
        .keys()
        .map(|name| (name.as_str(), of(name)))
        .collect()
}

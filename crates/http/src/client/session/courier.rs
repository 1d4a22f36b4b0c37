//! Payment messages over HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use farebox_client::{
    Origin,
    session::{Answer, Courier},
};
use farebox_core::wire::{Challenge, Credential, Receipt};
use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use reqwest::{Client, Request, Response, Url};

use crate::{
    ACCEPT_PAYMENT, IDEMPOTENCY_KEY,
    client::{
        drive::{self, challenges, origin, problem, read},
        ext::{PayOptions, ReceiptExt},
    },
};

/// How long a payment message may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Speaks with one resource about money: POSTs without a body, or HEADs where the resource knows no
/// POST.
#[derive(Clone, Debug)]
pub(crate) struct HttpCourier {
    client: Client,
    url: Url,
    /// Where credentials go.
    place: Url,
    /// What the caller sends with its own requests, a key for the API perhaps.
    headers: HeaderMap,
    options: PayOptions,
    head: Arc<AtomicBool>,
}

impl HttpCourier {
    /// Beside `request`.
    pub(crate) fn beside(client: &Client, request: &Request, options: &PayOptions) -> Self {
        let mut headers = request.headers().clone();
        // What is about the request's body or its own payment.
        const OWN: [HeaderName; 6] = [
            CONTENT_TYPE,
            CONTENT_LENGTH,
            CONTENT_ENCODING,
            TRANSFER_ENCODING,
            ACCEPT,
            IDEMPOTENCY_KEY,
        ];
        for name in OWN {
            headers.remove(name);
        }
        let mut url = request.url().clone();
        url.set_fragment(None);
        let mut place = url.clone();
        if request.method() == Method::POST {
            // With its query it would ask for service.
            place.set_query(None);
        }
        Self {
            client: client.clone(),
            url,
            place,
            headers,
            options: options.clone(),
            head: Arc::default(),
        }
    }

    /// With a resource that was recorded.
    pub(crate) fn to(client: &Client, url: Url, options: &PayOptions) -> Self {
        Self::beside(client, &Request::new(Method::POST, url), options)
    }

    pub(crate) fn origin(&self) -> Origin {
        origin(&self.url)
    }

    /// With another resource of the same server.
    fn at(&self, url: Url) -> Self {
        Self {
            place: url.clone(),
            url,
            head: Arc::default(),
            ..self.clone()
        }
    }

    fn request(&self) -> Request {
        let method = match self.head.load(Ordering::Relaxed) {
            true => Method::HEAD,
            false => Method::POST,
        };
        let mut request = Request::new(method, self.url.clone());
        *request.headers_mut() = self.headers.clone();
        *request.timeout_mut() = Some(PATIENCE);
        request
    }

    /// Sends what `make` makes, with the other method if need be.
    async fn send(&self, make: impl Fn() -> Request + Send + Sync) -> Result<Response, String> {
        let response = self.client.execute(make()).await.map_err(text)?;
        let unknown = matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        );
        if !unknown || self.head.swap(true, Ordering::Relaxed) {
            return Ok(response);
        }
        self.client.execute(make()).await.map_err(text)
    }
}

/// Without the URL, which may hold what nobody else should see.
fn text(error: reqwest::Error) -> String {
    error.without_url().to_string()
}

impl Courier for HttpCourier {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        let mut response = self
            .send(|| {
                let mut request = self.request();
                // Whatever the caller pays by, here it is a session.
                request.headers_mut().remove(ACCEPT_PAYMENT);
                request
            })
            .await?;
        if origin(response.url()) != self.origin() {
            return Err("it redirected to another server".to_owned());
        }
        if response.status() != StatusCode::PAYMENT_REQUIRED {
            return Err(format!("it answered {} to no payment", response.status()));
        }
        let found = challenges(response.headers());
        read(&mut response).await;
        let own = drive::payable::<reqwest::Error>(found, &self.request(), &self.options);
        own.map_err(|error| error.to_string())
    }

    async fn deliver_at(&self, resource: &str, credential: &Credential) -> Answer {
        match Url::parse(resource) {
            Ok(url) if origin(&url) == self.origin() => self.at(url).deliver(credential).await,
            _ => Answer::Lost("what asked for the deposit is not of this server".to_owned()),
        }
    }

    async fn deliver(&self, credential: &Credential) -> Answer {
        let (name, value) = match drive::credential(credential) {
            Ok(header) => header,
            Err(error) => return Answer::Lost(error.to_string()),
        };
        let sent = self.send(|| {
            let mut request = self.request();
            request.url_mut().clone_from(&self.place);
            request.headers_mut().insert(name.clone(), value.clone());
            request
        });
        match sent.await {
            // What was reached instead, perhaps without the credential, says nothing about it.
            Ok(response)
                if response.status().is_redirection()
                    || drive::without_fragment(response.url()) != self.place =>
            {
                Answer::Lost("the server redirects payment messages".to_owned())
            }
            Ok(mut response) => answer(&mut response, &self.options).await,
            Err(error) => Answer::Lost(error),
        }
    }
}

/// What a response to a credential says about it.
pub(crate) async fn answer(response: &mut Response, options: &PayOptions) -> Answer {
    let status = response.status();
    match status {
        StatusCode::PAYMENT_REQUIRED | StatusCode::GONE => {
            let challenges = challenges(response.headers()).into_iter();
            let challenges = challenges
                .filter_map(Result::ok)
                // One header is carried on to wherever a redirect leads.
                .filter(|challenge| !drive::is_leaky(challenge, options))
                .collect();
            Answer::Refused {
                status: status.as_u16(),
                problem: problem(response).await.map(Box::new),
                challenges,
            }
        }
        _ if status.is_server_error() => {
            let wait = drive::retry_after(response.headers());
            Answer::of_fault(status.as_u16(), problem(response).await.as_ref(), wait)
        }
        _ if status.is_client_error() => Answer::NotServed {
            status: status.as_u16(),
        },
        _ => Answer::Accepted(response.receipt().map(|receipt: Receipt| Box::new(receipt))),
    }
}

//! Where the credentials of a socket are presented.

use std::sync::Arc;

use bytes::Bytes;
use farebox_core::{ChannelAction, wire::Receipt};
use farebox_engine::{Admission, Gate, Refused, Tap};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use crate::server::{
    answer,
    asked::Asked,
    conclude::give_back,
    headers::{self, Presented},
};

/// A route, and the request that a socket began with.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) gate: Arc<Gate>,
    pub(super) asked: Arc<Asked>,
}

/// What a credential was good for.
pub(super) struct Accepted {
    pub(super) receipt: Receipt,
    /// The challenge it answers.
    pub(super) challenge: String,
    /// What a stream may be paid from.
    pub(super) tap: Option<Tap>,
    /// The session is over.
    pub(super) closed: bool,
}

/// Why nothing was accepted, in words for the payer.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    fn new(status: u16, message: &str) -> Self {
        let message = message.to_owned();
        Self { status, message }
    }

    /// As HTTP would answer, without the challenges, which a frame has no room for and a rail may
    /// pay for.
    async fn of(desk: &Desk, refused: Refused) -> Self {
        if let Refused::Payment(rejection) = refused {
            return Self::new(rejection.problem.status(), &rejection.detail);
        }
        let response = answer::refuse(&desk.gate, &desk.asked.inbound(), refused).await;
        let status = response.status().as_u16();
        let message = detail(response.body());
        Self { status, message }
    }
}

/// What a problem says to people.
fn detail(problem: &Bytes) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(problem).ok();
    let detail = problem
        .as_ref()
        .and_then(|problem| problem["detail"].as_str());
    detail.unwrap_or("the payment was refused").to_owned()
}

impl Desk {
    pub(super) async fn accept(self, credential: String) -> Result<Accepted, Refusal> {
        let value = HeaderValue::from_str(&credential);
        let value = value.map_err(|_| Refusal::new(402, "the credential cannot be read"))?;
        let mut headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let credential = match headers::take_credential(&mut headers, &AUTHORIZATION) {
            Presented::One(credential) => credential,
            Presented::Malformed(why) => return Err(Refusal::new(402, &why)),
            Presented::Nothing => return Err(Refusal::new(402, "the frame has no credential")),
            Presented::Several => return Err(Refusal::new(400, "the frame has two credentials")),
        };
        let challenge = credential.challenge.id.clone();
        let inbound = self.asked.inbound();
        let admission = Box::pin(self.gate.present(*credential, &inbound)).await;
        let serving = match admission {
            Ok(Admission::Serve(serving)) => serving,
            Ok(Admission::Managed(managed)) => {
                return Ok(Accepted {
                    closed: managed.action == ChannelAction::Close,
                    receipt: managed.receipt,
                    challenge,
                    tap: None,
                });
            }
            Ok(_) => return Err(Refusal::new(400, "the payment was answered before")),
            Err(refused) => return Err(Refusal::of(&self, refused).await),
        };
        let Some(meter) = serving.meter().cloned() else {
            give_back(&self.gate, serving).await;
            return Err(Refusal::new(400, "a socket is paid for by a session"));
        };
        let opened = async { Ok((meter.tap()?, serving.delivered(None).await?)) };
        match opened.await {
            Ok((tap, answered)) => Ok(Accepted {
                receipt: answered.receipt,
                challenge,
                tap: Some(tap),
                closed: false,
            }),
            Err(fault) => Err(Refusal::of(&self, Refused::Fault(fault)).await),
        }
    }
}

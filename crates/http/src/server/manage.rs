//! Answers to presentations that ask for no service.

use bytes::Bytes;
use farebox_core::{Answer, Fault};
use farebox_engine::{Gate, Managed};
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use super::{answer, conclude::finish};

/// 204, or 200 with the rail's JSON; with a receipt either way.
pub(crate) fn managed(gate: &Gate, managed: Managed) -> Response<Bytes> {
    let mut response = match &managed.answer {
        Answer::Empty => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Answer::Json(value) => {
            let mut response = Response::new(Bytes::from(value.to_string()));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        _ => {
            let fault = Fault::new("a rail answers in a way that HTTP does not know");
            return answer::fault(gate.route(), &fault);
        }
    };
    let (receipt, attachments) = (&managed.receipt, &managed.attachments);
    finish(
        gate.route(),
        response.status(),
        response.headers_mut(),
        receipt,
        attachments,
    );
    response
}

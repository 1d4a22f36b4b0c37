//! What every backend behind gRPC needs: calls under a deadline, and what their errors prove.

use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Response, Status};

use crate::node::NodeError;

/// How long a connection may take to open, TLS included.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a call that answers at once may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Whether the connection failed to open, so that the request cannot have left.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the node refused the request before looking at the payment: its form or the macaroon.
pub(crate) fn turned_away(status: &Status) -> bool {
    let code = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    );
    code && answered_by_node(status)
}

/// Whether the status is the node's own word. One that tonic made up for a broken connection has a
/// source; one that a proxy's HTTP error was turned into has one of these codes.
pub(crate) fn answered_by_node(status: &Status) -> bool {
    let transport = matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
    );
    status.source().is_none() && !transport
}

pub(crate) fn explain(status: &Status) -> NodeError {
    let text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    if answered_by_node(status) {
        NodeError::Refused(text)
    } else {
        NodeError::Unreachable(text)
    }
}

/// A call that answers at once, under its deadline.
pub(crate) async fn call<T>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(CALL_DEADLINE, answer).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("it did not answer in time")),
    }
}

//! A client whose calls pay.

use std::future::Future;

use rmcp::{
    Peer, RoleClient, ServiceError,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResponse, ClientCapabilities,
        ClientRequest, GetMeta as _, GetPromptRequest, GetPromptRequestParams, GetPromptResponse,
        ReadResourceRequest, ReadResourceRequestParams, ReadResourceResponse, ServerResult,
    },
};
use serde_json::{Map, Value};

use crate::{
    CAPABILITY, ErrorObject,
    client::{Answer, Call, Caller, PayError, Reply},
    operation::is_delivery,
};

/// Says in the `initialize` request what the caller can pay with.
pub fn advertise(capabilities: &mut ClientCapabilities, caller: &Caller) {
    let experimental = capabilities.experimental.get_or_insert_default();
    experimental.insert(CAPABILITY.to_owned(), caller.capability());
}

/// A request to a server, with the credential it is sent with, if any.
#[derive(Clone, Debug)]
pub struct Peered<T> {
    peer: Peer<RoleClient>,
    request: ClientRequest,
    result: fn(ServerResult) -> Result<T, ServiceError>,
}

impl Peered<CallToolResponse> {
    /// `tools/call`.
    #[must_use]
    pub fn tool(peer: &Peer<RoleClient>, params: CallToolRequestParams) -> Self {
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        Self::of(peer, request, |result| match result {
            ServerResult::CallToolResult(result) => Ok(CallToolResponse::Complete(result)),
            ServerResult::InputRequiredResult(result) => {
                Ok(CallToolResponse::InputRequired(result))
            }
            ServerResult::CreateTaskResult(result) => Ok(CallToolResponse::Task(result)),
            _ => Err(ServiceError::UnexpectedResponse),
        })
    }
}

impl Peered<ReadResourceResponse> {
    /// `resources/read`.
    #[must_use]
    pub fn resource(peer: &Peer<RoleClient>, params: ReadResourceRequestParams) -> Self {
        let request = ClientRequest::ReadResourceRequest(ReadResourceRequest::new(params));
        Self::of(peer, request, |result| match result {
            ServerResult::ReadResourceResult(result) => Ok(ReadResourceResponse::Complete(result)),
            ServerResult::InputRequiredResult(result) => {
                Ok(ReadResourceResponse::InputRequired(result))
            }
            _ => Err(ServiceError::UnexpectedResponse),
        })
    }
}

impl Peered<GetPromptResponse> {
    /// `prompts/get`.
    #[must_use]
    pub fn prompt(peer: &Peer<RoleClient>, params: GetPromptRequestParams) -> Self {
        let request = ClientRequest::GetPromptRequest(GetPromptRequest::new(params));
        Self::of(peer, request, |result| match result {
            ServerResult::GetPromptResult(result) => Ok(GetPromptResponse::Complete(result)),
            ServerResult::InputRequiredResult(result) => {
                Ok(GetPromptResponse::InputRequired(result))
            }
            _ => Err(ServiceError::UnexpectedResponse),
        })
    }
}

impl<T> Peered<T> {
    /// Any request, and how its result is read.
    pub fn of(
        peer: &Peer<RoleClient>,
        request: ClientRequest,
        result: fn(ServerResult) -> Result<T, ServiceError>,
    ) -> Self {
        Self {
            peer: peer.clone(),
            request,
            result,
        }
    }
}

impl<T: Send> Call for Peered<T> {
    type Result = T;
    type Error = ServiceError;

    async fn send(&mut self, meta: &Map<String, Value>) -> Result<Reply<T>, ServiceError> {
        let mut request = self.request.clone();
        if !meta.is_empty() {
            request.get_meta_mut().0.0.extend(meta.clone());
        }
        match self.peer.send_request(request).await {
            Ok(result) => {
                let (meta, delivers) = read(&result);
                Ok(Reply::new(Ok((self.result)(result)?), meta, delivers))
            }
            Err(ServiceError::McpError(error)) => {
                let object = ErrorObject {
                    code: error.code.0.into(),
                    message: error.message.into_owned(),
                    data: error.data,
                };
                Ok(Reply::new(Err(object), Map::new(), false))
            }
            Err(error) => Err(error),
        }
    }

    fn is_gone(&self) -> bool {
        self.peer.is_transport_closed()
    }
}

fn read(result: &ServerResult) -> (Map<String, Value>, bool) {
    let (meta, delivers) = match result {
        ServerResult::CallToolResult(result) => (&result.meta, result.is_error != Some(true)),
        ServerResult::CreateTaskResult(result) => (&result.meta, true),
        ServerResult::ReadResourceResult(result) => (&result.meta, true),
        ServerResult::GetPromptResult(result) => (&result.meta, true),
        ServerResult::InputRequiredResult(result) => (&result.meta, false),
        ServerResult::CustomResult(result) => {
            let meta = result.0.get("_meta").and_then(Value::as_object);
            return (meta.cloned().unwrap_or_default(), is_delivery(&result.0));
        }
        _ => (&None, true),
    };
    let meta = meta.as_ref().map(|meta| meta.0.clone());
    (meta.unwrap_or_default(), delivers)
}

/// Paid calls on a client's peer.
pub trait PayPeerExt {
    /// Calls a tool and pays if it asks for it.
    ///
    /// # Errors
    /// As [`Caller::call`].
    fn call_tool_paid(
        &self,
        caller: &Caller,
        params: CallToolRequestParams,
    ) -> impl Future<Output = Result<Answer<CallToolResponse>, PayError<ServiceError>>> + Send;

    /// Reads a resource and pays if it asks for it. Past rmcp's response cache.
    ///
    /// # Errors
    /// As [`Caller::call`].
    fn read_resource_paid(
        &self,
        caller: &Caller,
        params: ReadResourceRequestParams,
    ) -> impl Future<Output = Result<Answer<ReadResourceResponse>, PayError<ServiceError>>> + Send;

    /// Gets a prompt and pays if it asks for it.
    ///
    /// # Errors
    /// As [`Caller::call`].
    fn get_prompt_paid(
        &self,
        caller: &Caller,
        params: GetPromptRequestParams,
    ) -> impl Future<Output = Result<Answer<GetPromptResponse>, PayError<ServiceError>>> + Send;
}

impl PayPeerExt for Peer<RoleClient> {
    async fn call_tool_paid(
        &self,
        caller: &Caller,
        params: CallToolRequestParams,
    ) -> Result<Answer<CallToolResponse>, PayError<ServiceError>> {
        caller.call(&mut Peered::tool(self, params)).await
    }

    async fn read_resource_paid(
        &self,
        caller: &Caller,
        params: ReadResourceRequestParams,
    ) -> Result<Answer<ReadResourceResponse>, PayError<ServiceError>> {
        caller.call(&mut Peered::resource(self, params)).await
    }

    async fn get_prompt_paid(
        &self,
        caller: &Caller,
        params: GetPromptRequestParams,
    ) -> Result<Answer<GetPromptResponse>, PayError<ServiceError>> {
        caller.call(&mut Peered::prompt(self, params)).await
    }
}

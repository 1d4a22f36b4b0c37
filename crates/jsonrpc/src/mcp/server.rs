//! A server whose tools, prompts and resources have prices.

use std::borrow::Cow;

use farebox_engine::Gate;
use rmcp::{
    ErrorData, RoleServer, Service,
    model::{
        ClientCapabilities, ClientNotification, ClientRequest, CustomResult, ErrorCode,
        ProtocolVersion, ServerCapabilities, ServerConfig, ServerResult,
    },
    service::{MaybeSendFuture, NotificationContext, RequestContext},
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    CAPABILITY, ErrorObject, INTERNAL_ERROR, Id, Operation, Placement, Presented, RECEIPT,
    Response,
    operation::is_delivery,
    server::{Admitted, Payment, Tariff, admit, conclude},
    strip_receipt, take_nested_key,
};

/// An MCP server with a [`Tariff`]: calls that have a price are paid before they reach it, and
/// everything else goes through.
///
/// Tools learn about the payment by rmcp's extractor `Extension<Payment>`. The offers are
/// advertised in `capabilities.experimental.payment`, and a client that advertises its own is
/// offered those it can pay, where there are any.
#[derive(Clone, Debug)]
pub struct Paid<S> {
    inner: S,
    tariff: Tariff,
}

impl<S> Paid<S> {
    /// A server behind a tariff.
    #[must_use]
    pub fn new(inner: S, tariff: Tariff) -> Self {
        Self { inner, tariff }
    }

    /// The server.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn advertise(&self, capabilities: &mut ServerCapabilities) {
        let experimental = capabilities.experimental.get_or_insert_default();
        let payment = self.tariff.capability();
        experimental.insert(CAPABILITY.to_owned(), payment);
    }
}

impl<S: Service<RoleServer>> Paid<S> {
    async fn paid(
        &self,
        gate: &Gate,
        operation: &Operation,
        request: ClientRequest,
        mut context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let presented = Presented::take_nested(&mut context.meta);
        let key = take_nested_key(&mut context.meta);
        let accept = context.client_capabilities().as_ref().and_then(accepted);
        let admitted = admit(gate, operation, presented, key.as_deref(), accept.as_ref()).await;
        let (serving, payment) = match admitted.map_err(error)? {
            Admitted::Serve(serving, payment) => (serving, payment),
            Admitted::Replay { result, receipt } => {
                let mut result = ServerResult::CustomResult(CustomResult::new(result));
                put(&mut result, Some(receipt));
                return Ok(result);
            }
        };
        context.extensions.insert::<Payment>(payment);
        let mut outcome = self.inner.handle_request(request, context).await;
        let (mut served, mut kept) = (false, None);
        if let Ok(result) = &mut outcome {
            // An upstream's receipt is not ours to pass on.
            put(result, None);
            served = delivers(result);
            if serving.keyed() {
                kept = serde_json::to_vec(result).ok();
            }
        }
        let concluded = conclude(gate, serving, served, kept).await;
        let receipt = concluded.map_err(error)?;
        if let Ok(result) = &mut outcome {
            put(result, receipt);
        }
        outcome
    }
}

fn accepted(client: &ClientCapabilities) -> Option<farebox_core::wire::AcceptPayment> {
    crate::accept(client.experimental.as_ref()?.get(CAPABILITY)?)
}

fn error(error: ErrorObject) -> ErrorData {
    let code = i32::try_from(error.code).unwrap_or(ErrorCode::INTERNAL_ERROR.0);
    ErrorData::new(ErrorCode(code), error.message, error.data)
}

/// What a request buys, where it is one that can have a price.
fn operation(request: &ClientRequest) -> Result<Option<Operation>, ErrorData> {
    fn of(method: &str, params: impl Serialize) -> Result<Option<Operation>, ErrorData> {
        let params: Value = serde_json::to_value(params)
            .map_err(|_| error(ErrorObject::new(INTERNAL_ERROR, "Internal error")))?;
        Ok(Some(Operation::new(method, Some(&params))))
    }
    match request {
        ClientRequest::CallToolRequest(request) => of("tools/call", &request.params),
        ClientRequest::ReadResourceRequest(request) => of("resources/read", &request.params),
        ClientRequest::GetPromptRequest(request) => of("prompts/get", &request.params),
        ClientRequest::CustomRequest(request) => Ok(Some(Operation::new(
            &request.method,
            request.params.as_ref(),
        ))),
        _ => Ok(None),
    }
}

/// A tool that says `isError`, or that asks for more input first, has not delivered. A task that
/// was accepted is delivered.
fn delivers(result: &ServerResult) -> bool {
    match result {
        ServerResult::CallToolResult(result) => result.is_error != Some(true),
        ServerResult::InputRequiredResult(_) => false,
        ServerResult::CustomResult(result) => is_delivery(&result.0),
        _ => true,
    }
}

/// Puts a receipt where the result's metadata is, instead of any that is there.
fn put(result: &mut ServerResult, receipt: Option<Value>) {
    let meta = match result {
        ServerResult::CallToolResult(result) => &mut result.meta,
        ServerResult::CreateTaskResult(result) => &mut result.meta,
        ServerResult::ReadResourceResult(result) => &mut result.meta,
        ServerResult::GetPromptResult(result) => &mut result.meta,
        ServerResult::CustomResult(result) => {
            let mut response = Response {
                id: Id::Null,
                outcome: Ok(result.0.take()),
                meta: Map::new(),
            };
            strip_receipt(&mut response);
            if let Some(receipt) = receipt {
                Placement::Nested.put_receipt(receipt, &mut response);
            }
            result.0 = response.outcome.unwrap_or_default();
            return;
        }
        _ => return,
    };
    if let Some(meta) = meta {
        meta.remove(RECEIPT);
    }
    if let Some(receipt) = receipt {
        meta.get_or_insert_default()
            .insert(RECEIPT.to_owned(), receipt);
    }
}

impl<S: Service<RoleServer>> Service<RoleServer> for Paid<S> {
    async fn handle_request(
        &self,
        request: ClientRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        if let Some(operation) = operation(&request)?
            && let Some(gate) = self.tariff.gate(&operation)
        {
            return Box::pin(self.paid(gate, &operation, request, context)).await;
        }
        let mut result = self.inner.handle_request(request, context).await?;
        match &mut result {
            ServerResult::InitializeResult(result) => self.advertise(&mut result.capabilities),
            ServerResult::DiscoverResult(result) => self.advertise(&mut result.capabilities),
            _ => {}
        }
        Ok(result)
    }

    fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> impl Future<Output = Result<(), ErrorData>> + MaybeSendFuture + '_ {
        self.inner.handle_notification(notification, context)
    }

    fn get_info(&self) -> ServerConfig {
        let mut info = self.inner.get_info();
        self.advertise(&mut info.capabilities);
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.inner.supported_protocol_versions()
    }
}

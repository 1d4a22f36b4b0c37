//! rmcp on both sides of an in-process pipe.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use farebox_core::{Charge, Method, Typed};
use farebox_engine::{Engine, MemoryStore};
use farebox_jsonrpc::{
    client::{Call, Caller, PayError, Reply},
    mcp::{Paid, PayPeerExt as _, Peered, advertise},
    server::{Payment, Tariff},
};
use farebox_testkit::{Bank, Fuse, TEST_REALM, TestRail, test_secrets};
use rmcp::{
    ClientHandler, ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt as _,
    handler::server::{tool::Extension, wrapper::Parameters},
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientConfig, ContentBlock,
        GetPromptRequestParams, GetPromptResponse, GetPromptResult, InitializeResult,
        ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ResourceContents,
        ServerCapabilities,
    },
    service::{RequestContext, RunningService},
    tool, tool_handler, tool_router,
};
use serde_json::{Value, json};

use crate::support::{Coins, PRICED, gate, purse};

#[derive(Clone, Default)]
struct Desk {
    calls: Arc<AtomicUsize>,
    fails: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Value>>>,
}

#[derive(serde::Deserialize, rmcp::schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct About {
    about: String,
}

#[tool_router]
impl Desk {
    #[tool(description = "A joke about anything")]
    fn joke(
        &self,
        Parameters(About { about }): Parameters<About>,
        Extension(payment): Extension<Payment>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, ErrorData> {
        self.calls.fetch_add(1, SeqCst);
        self.seen.lock().unwrap().push(json!(context.meta));
        if self.fails.load(SeqCst) > 0 {
            self.fails.fetch_sub(1, SeqCst);
            return Err(ErrorData::internal_error("the joke was lost", None));
        }
        Ok(format!("{about}, paid with {}", payment.receipt.method))
    }

    #[tool(description = "A poem, when there is one")]
    fn poem(&self) -> CallToolResult {
        self.calls.fetch_add(1, SeqCst);
        CallToolResult::error(vec![ContentBlock::text("no poem today")])
    }

    #[tool(description = "The time, for nothing")]
    fn time(&self) -> String {
        self.calls.fetch_add(1, SeqCst);
        "noon".to_owned()
    }
}

#[tool_handler]
impl ServerHandler for Desk {
    fn get_info(&self) -> InitializeResult {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources();
        InitializeResult::new(capabilities.enable_prompts().build())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = ResourceContents::text("1, 2, 3", request.uri);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn get_prompt(
        &self,
        _: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        Ok(GetPromptResult::new(Vec::new()).into())
    }
}

struct Agent(ClientConfig);

impl ClientHandler for Agent {
    fn get_info(&self) -> ClientConfig {
        self.0.clone()
    }
}

struct World {
    desk: Desk,
    bank: Arc<Bank>,
    client: RunningService<RoleClient, Agent>,
    caller: Caller,
    _server: tokio::task::JoinHandle<()>,
}

async fn world() -> World {
    let (desk, bank) = (Desk::default(), Arc::new(Bank::default()));
    let engine = Engine::builder(TEST_REALM, test_secrets(), Arc::new(MemoryStore::new()));
    let engine = engine.build().unwrap();
    let rail = TestRail::settling(bank.clone(), Fuse::endless());
    let method: Arc<dyn Method> = Arc::new(Typed::<_, Charge>::new(rail));
    let tariff = Tariff::new(PRICED.map(|route| gate(&engine, &method, route))).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let paid = Paid::new(desk.clone(), tariff);
    let server = tokio::spawn(async move {
        paid.serve(ours).await.unwrap().waiting().await.unwrap();
    });
    let caller = Caller::local(purse(Coins::default()));
    let mut info = ClientConfig::default();
    advertise(&mut info.capabilities, &caller);
    let client = Agent(info).serve(theirs).await.unwrap();
    World {
        desk,
        bank,
        client,
        caller,
        _server: server,
    }
}

fn joke() -> CallToolRequestParams {
    let arguments = json!({"about": "a bus"}).as_object().cloned().unwrap();
    CallToolRequestParams::new("joke").with_arguments(arguments)
}

fn complete(response: CallToolResponse) -> CallToolResult {
    match response {
        CallToolResponse::Complete(result) => result,
        other => panic!("{other:?}"),
    }
}

/// Protects: a real MCP client pays a real MCP server: once, for the tool that has a price, which
/// learns of the payment and never sees the credential.
#[tokio::test]
async fn a_tool_with_a_price_is_paid_for() {
    let world = world().await;
    let answer = world
        .client
        .call_tool_paid(&world.caller, joke())
        .await
        .unwrap();
    let receipt = answer.receipt.unwrap();
    assert!(receipt.extra["challengeId"].is_string());
    let result = complete(answer.result);
    let text = serde_json::to_string(&result.content).unwrap();
    assert!(text.contains("a bus, paid with test"), "{text}");
    assert_eq!(
        (world.desk.calls.load(SeqCst), world.bank.transfers()),
        (1, 1)
    );
    let seen = json!(*world.desk.seen.lock().unwrap()).to_string();
    assert!(!seen.contains("org.paymentauth"), "{seen}");
}

/// Protects: what has no price is served as ever, without a receipt.
#[tokio::test]
async fn a_free_tool_stays_free() {
    let world = world().await;
    let params = CallToolRequestParams::new("time");
    let answer = world
        .client
        .call_tool_paid(&world.caller, params)
        .await
        .unwrap();
    assert!(answer.receipt.is_none() && complete(answer.result).meta.is_none());
    assert_eq!(world.bank.moved(), 0);
    assert_eq!(world.client.list_all_tools().await.unwrap().len(), 3);
}

/// Protects: a client that does not pay sees the error of the draft, and the tool is not run.
#[tokio::test]
async fn an_ordinary_client_is_asked_to_pay() {
    let world = world().await;
    let Err(rmcp::ServiceError::McpError(error)) = world.client.call_tool(joke()).await else {
        panic!("it was served");
    };
    assert_eq!(error.code.0, -32042);
    let data = error.data.unwrap();
    assert_eq!(data["challenges"].as_array().unwrap().len(), 2);
    assert_eq!(world.desk.calls.load(SeqCst), 0);
}

/// Protects: resources and prompts can have prices too.
#[tokio::test]
async fn resources_and_prompts_are_paid_for() {
    let world = world().await;
    let params = ReadResourceRequestParams::new("file:///prices");
    let answer = world
        .client
        .read_resource_paid(&world.caller, params)
        .await
        .unwrap();
    assert!(answer.receipt.is_some());
    assert!(matches!(answer.result, ReadResourceResponse::Complete(_)));
    let params = ReadResourceRequestParams::new("file:///free");
    let answer = world
        .client
        .read_resource_paid(&world.caller, params)
        .await
        .unwrap();
    assert!(answer.receipt.is_none());
    let params = GetPromptRequestParams::new("greet");
    let answer = world
        .client
        .get_prompt_paid(&world.caller, params)
        .await
        .unwrap();
    assert!(answer.receipt.is_some());
    assert_eq!(world.bank.transfers(), 2);
}

/// Protects: a tool that says `isError`, or fails, has not delivered; the same payment collects it.
#[tokio::test(start_paused = true)]
async fn failing_tools_give_the_payment_back() {
    let world = world().await;
    let params = CallToolRequestParams::new("poem");
    let answer = world
        .client
        .call_tool_paid(&world.caller, params)
        .await
        .unwrap();
    assert_eq!(complete(answer.result).is_error, Some(true));
    assert!(answer.receipt.is_none() && answer.unserved.is_some());
    // An internal error leaves the outcome open, so it is asked for again with the same payment.
    world.desk.fails.store(2, SeqCst);
    let answer = world
        .client
        .call_tool_paid(&world.caller, joke())
        .await
        .unwrap();
    assert!(answer.receipt.is_some());
    assert_eq!(
        (world.desk.calls.load(SeqCst), world.bank.transfers()),
        (4, 2)
    );
}

/// Protects: both sides say in `initialize` what they can be paid with, each method with its
/// intents.
#[tokio::test]
async fn both_sides_advertise() {
    let world = world().await;
    let expected = json!({"methods": {"test": {"intents": ["charge"]}}});
    let server = world
        .client
        .peer_info()
        .unwrap()
        .capabilities
        .experimental
        .clone();
    assert_eq!(json!(server.unwrap()["payment"]), expected);
    let client = world.client.service().0.capabilities.experimental.clone();
    assert_eq!(json!(client.unwrap()["payment"]), expected);
}

/// Protects: a connection that is gone is not called over and over; the payment is kept.
#[tokio::test]
async fn a_lost_connection_is_an_error_before_paying() {
    let mut world = world().await;
    world.client.close().await.unwrap();
    let outcome = world.client.call_tool_paid(&world.caller, joke()).await;
    assert!(matches!(outcome, Err(PayError::Call(_))));
    assert_eq!(world.bank.moved(), 0);
}

/// Protects: a result whose reply was lost can be had again, by rmcp's way too.
#[tokio::test]
async fn a_lost_result_is_given_again() {
    let world = world().await;
    let mut lossy = Lossy {
        inner: Peered::tool(&world.client, joke()),
        lose: 1,
    };
    let answer = world.caller.call(&mut lossy).await.unwrap();
    let text = serde_json::to_string(&complete(answer.result).content).unwrap();
    assert!(answer.receipt.is_some() && text.contains("a bus"), "{text}");
    assert_eq!(
        (world.desk.calls.load(SeqCst), world.bank.transfers()),
        (1, 1)
    );
}

/// Loses replies to paid calls.
struct Lossy {
    inner: Peered<CallToolResponse>,
    lose: u32,
}

impl Call for Lossy {
    type Result = CallToolResponse;
    type Error = rmcp::ServiceError;

    async fn send(
        &mut self,
        meta: &serde_json::Map<String, Value>,
    ) -> Result<Reply<CallToolResponse>, rmcp::ServiceError> {
        let reply = self.inner.send(meta).await?;
        if self.lose > 0 && !meta.is_empty() {
            self.lose -= 1;
            return Err(rmcp::ServiceError::TransportClosed);
        }
        Ok(reply)
    }
}

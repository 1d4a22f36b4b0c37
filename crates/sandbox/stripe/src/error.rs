//! Stripe's error object.

use serde_json::{Map, Value, json};

/// What goes wrong, as Stripe says it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    decline_code: Option<String>,
    message: String,
    param: Option<String>,
    payment_intent: Option<Box<Value>>,
    /// Whether an endpoint had begun its work: only then is the answer kept for its key.
    pub(crate) executed: bool,
}

impl ApiError {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            decline_code: None,
            message: message.into(),
            param: None,
            payment_intent: None,
            executed: false,
        }
    }

    /// 400: a parameter is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// 401: no key, or not this account's.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "invalid_request_error", message)
    }

    /// 404: no such object.
    pub(crate) fn missing(what: &str, id: &str, param: &str) -> Self {
        Self::new(
            404,
            "invalid_request_error",
            format!("No such {what}: '{id}'"),
        )
        .code("resource_missing")
        .param(param)
    }

    /// 404: no such URL.
    pub(crate) fn unrecognized(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        Self::new(404, "invalid_request_error", message)
    }

    /// 402: the card was declined.
    pub(crate) fn card(code: &'static str, decline_code: Option<&str>, message: &str) -> Self {
        let mut error = Self::new(402, "card_error", message).code(code).executed();
        error.decline_code = decline_code.map(str::to_owned);
        error
    }

    /// 400: the idempotency key belongs to another request.
    pub(crate) fn idempotency() -> Self {
        Self::new(
            400,
            "idempotency_error",
            "Keys for idempotent requests can only be used with the same parameters they were \
             first used with.",
        )
    }

    /// 409: a request with the same key is being worked on.
    pub(crate) fn in_use() -> Self {
        Self::new(
            409,
            "idempotency_error",
            "There is currently another in-progress request using this Idempotency Key.",
        )
        .code("idempotency_key_in_use")
    }

    /// 409: somebody else holds the object.
    pub(crate) fn conflict() -> Self {
        Self::new(
            409,
            "invalid_request_error",
            "This object cannot be accessed right now.",
        )
        .code("lock_timeout")
    }

    /// 429.
    pub(crate) fn rate_limited() -> Self {
        Self::new(429, "invalid_request_error", "Request rate limit exceeded.").code("rate_limit")
    }

    /// 500.
    pub(crate) fn internal() -> Self {
        Self::new(500, "api_error", "An unknown error occurred.").executed()
    }

    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    pub(crate) fn executed(mut self) -> Self {
        self.executed = true;
        self
    }

    pub(crate) fn payment_intent(mut self, intent: Value) -> Self {
        self.payment_intent = Some(Box::new(intent));
        self
    }

    /// `last_payment_error`, and what `error` wraps.
    pub(crate) fn object(&self) -> Value {
        let mut object = Map::new();
        object.insert("type".into(), self.kind.into());
        object.insert("message".into(), self.message.clone().into());
        if let Some(code) = self.code {
            object.insert("code".into(), code.into());
            object.insert(
                "doc_url".into(),
                format!("https://docs.stripe.com/error-codes#{code}").into(),
            );
        }
        let optional = [("decline_code", &self.decline_code), ("param", &self.param)];
        for (name, value) in optional {
            if let Some(value) = value {
                object.insert(name.into(), value.clone().into());
            }
        }
        Value::Object(object)
    }

    pub(crate) fn body(&self) -> Value {
        let mut object = self.object();
        if let Some(intent) = &self.payment_intent {
            object["payment_intent"] = (**intent).clone();
        }
        json!({ "error": object })
    }
}

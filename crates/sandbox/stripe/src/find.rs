//! Listing and searching PaymentIntents.

use serde_json::{Value, json};

use crate::{error::ApiError, form::Form, ledger::Ledger, model::Intent};

impl Ledger {
    pub(crate) fn list(&self, form: &Form, account: Option<&str>) -> Result<Value, ApiError> {
        form.only(&[
            "limit",
            "created[gte]",
            "created[lte]",
            "starting_after",
            "expand[]",
        ])?;
        let from = form.integer("created[gte]")?.unwrap_or(0);
        let to = form.integer("created[lte]")?.unwrap_or(u64::MAX);
        // Newest first, as Stripe lists.
        let mut found: Vec<&Intent> = self
            .intents
            .iter()
            .rev()
            .filter(|i| i.account.as_deref() == account)
            .filter(|i| (from..=to).contains(&i.created))
            .collect();
        if let Some(after) = form.get("starting_after") {
            let at = found.iter().position(|intent| intent.id == after);
            let at =
                at.ok_or_else(|| ApiError::missing("payment_intent", after, "starting_after"))?;
            found.drain(..=at);
        }
        let found = found.into_iter().map(Intent::json).collect();
        page("list", "/v1/payment_intents", found, form)
    }

    /// `metadata['key']:'value'`, with `AND` between several.
    pub(crate) fn search(
        &self,
        form: &Form,
        account: Option<&str>,
        now: u64,
    ) -> Result<Value, ApiError> {
        form.only(&["query", "limit", "page", "expand[]"])?;
        let wanted = query(form.required("query")?)?;
        let seen = |intent: &&Intent| intent.created + self.search_lag <= now;
        let matches = |intent: &&Intent| {
            wanted
                .iter()
                .all(|(key, value)| intent.metadata.get(key) == Some(value))
        };
        let found: Vec<&Intent> = self
            .intents
            .iter()
            .rev()
            .filter(|intent| intent.account.as_deref() == account)
            .filter(seen)
            .filter(matches)
            .collect();
        let found = found.into_iter().map(Intent::json).collect();
        page("search_result", "/v1/payment_intents/search", found, form)
    }
}

/// The first of what was found.
pub(crate) fn page(
    object: &str,
    url: &str,
    mut found: Vec<Value>,
    form: &Form,
) -> Result<Value, ApiError> {
    let limit = form.integer("limit")?.unwrap_or(10);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::invalid("The limit must be between 1 and 100").param("limit"));
    }
    let limit = usize::try_from(limit).unwrap_or(100);
    let has_more = found.len() > limit;
    found.truncate(limit);
    Ok(json!({ "object": object, "data": found, "has_more": has_more, "url": url }))
}

fn query(text: &str) -> Result<Vec<(String, String)>, ApiError> {
    let clause = |clause: &str| {
        let (key, value) = clause.trim().strip_prefix("metadata[")?.split_once("]:")?;
        let unquote = |text: &str| -> Option<String> {
            ['\'', '"'].into_iter().find_map(|quote| {
                text.strip_prefix(quote)?
                    .strip_suffix(quote)
                    .map(str::to_owned)
            })
        };
        Some((unquote(key)?, unquote(value)?))
    };
    text.split(" AND ")
        .map(|part| {
            clause(part).ok_or_else(|| ApiError::invalid("Cannot read the query").param("query"))
        })
        .collect()
}

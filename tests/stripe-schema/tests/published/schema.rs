//! Stripe's description of its API (OpenAPI 3.0), as JSON Schemas.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

const SCHEMAS: &str = "#/components/schemas/";

/// The description, and what was read of it so far.
pub(crate) struct Published {
    stable: Value,
    preview: Value,
    answers: BTreeMap<String, Validator>,
}

impl Published {
    /// Reads both files of `folder`.
    pub(crate) fn open(folder: &Path) -> Self {
        let read = |name: &str| {
            let text = fs::read(folder.join(name)).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        Self {
            stable: read("spec3.json"),
            preview: read("spec3.beta.sdk.json"),
            answers: BTreeMap::new(),
        }
    }

    /// Where a call is described, and as which path. The preview comes second: it asks more of what
    /// every account gets, so answers are held to it only where the stable version has no such path,
    /// which is for Shared Payment Tokens.
    fn described(&self, path: &str) -> Vec<(&Value, &str)> {
        let found: Vec<_> = [&self.stable, &self.preview]
            .into_iter()
            .filter_map(|document| {
                let templates = document["paths"].as_object()?.keys().map(String::as_str);
                // Literal segments first: `/search` is no id.
                let fitting = templates.filter(|template| fits(template, path));
                let template = fitting.min_by_key(|template| template.matches('{').count())?;
                Some((document, template))
            })
            .collect();
        assert!(!found.is_empty(), "Stripe has no {path}");
        found
    }

    /// What is wrong with an answer, one line each.
    pub(crate) fn answer(
        &mut self,
        method: &str,
        path: &str,
        status: u16,
        body: &Value,
    ) -> Vec<String> {
        let (document, template) = self.described(path)[0];
        let responses = &document["paths"][template][method.to_lowercase()]["responses"];
        assert!(responses.is_object(), "Stripe has no {method} {template}");
        let described = responses.get(status.to_string());
        let schema =
            &described.unwrap_or(&responses["default"])["content"]["application/json"]["schema"];
        let name = match described {
            Some(_) => format!("{method} {template} {status}"),
            None => format!("error of {}", document["info"]["version"]),
        };
        let place = format!("{method} {template} {status}");
        if !self.answers.contains_key(&name) {
            let validator = jsonschema::validator_for(&standalone(document, schema)).unwrap();
            self.answers.insert(name.clone(), validator);
        }
        let wrong = self.answers[&name].iter_errors(body);
        wrong
            .map(|error| format!("{place}: {}: {error}", error.instance_path()))
            .collect()
    }

    /// What is wrong with an object that nobody asked for, as an event has it: `kind` is what its member
    /// `object` says.
    pub(crate) fn object(&mut self, kind: &str, body: &Value) -> Vec<String> {
        let schema = json!({ "$ref": format!("{SCHEMAS}{kind}") });
        let described = &self.stable["components"]["schemas"][kind];
        assert!(described.is_object(), "Stripe has no {kind}");
        if !self.answers.contains_key(kind) {
            let schema = standalone(&self.stable, &schema);
            let validator = jsonschema::validator_for(&schema).unwrap();
            self.answers.insert(kind.to_owned(), validator);
        }
        let wrong = self.answers[kind].iter_errors(body);
        wrong
            .map(|error| format!("{kind}: {}: {error}", error.instance_path()))
            .collect()
    }

    /// The operation that a call is one of.
    pub(crate) fn operation(&self, method: &str, path: &str) -> String {
        format!("{method} {}", self.described(path)[0].1)
    }

    /// The parameters that no version knows, and those that the first misses.
    pub(crate) fn request<'a>(
        &self,
        method: &str,
        path: &str,
        fields: impl Iterator<Item = &'a String>,
    ) -> Vec<String> {
        let described = self.described(path);
        let template = described[0].1;
        let forms = described.iter().map(|(document, template)| {
            let operation = &document["paths"][template][method.to_lowercase()];
            assert!(operation.is_object(), "Stripe has no {method} {template}");
            parameters(operation)
        });
        let forms: Vec<_> = forms.collect();
        let fields: BTreeSet<_> = fields.map(String::as_str).collect();
        let unknown = fields.iter().filter(|name| {
            let parts: Vec<_> = name
                .split('[')
                .map(|part| part.trim_end_matches(']'))
                .collect();
            !forms.iter().any(|form| names(form, &parts))
        });
        let unknown = unknown.map(|name| format!("{method} {template}: unknown {name}"));
        let required = forms[0]["required"].as_array().into_iter().flatten();
        let missing = required.filter_map(Value::as_str).filter(|name| {
            let nested = format!("{name}[");
            !fields
                .iter()
                .any(|field| field == name || field.starts_with(&nested))
        });
        let missing = missing.map(|name| format!("{method} {template}: missing {name}"));
        unknown.chain(missing).collect()
    }
}

/// What a body or a query may hold, as the schema of one object.
fn parameters(operation: &Value) -> Value {
    let form = &operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"];
    let mut known = form["properties"].as_object().cloned().unwrap_or_default();
    let queries = operation["parameters"].as_array().into_iter().flatten();
    for query in queries.filter(|parameter| parameter["in"] == "query") {
        let name = query["name"].as_str().unwrap();
        known.insert(name.to_owned(), query["schema"].clone());
    }
    json!({ "properties": known, "required": form["required"] })
}

/// Whether a path is one of a template's, `/v1/refunds/{refund}`.
fn fits(template: &str, path: &str) -> bool {
    let (wanted, found) = (template.split('/'), path.split('/'));
    wanted.clone().count() == found.clone().count()
        && wanted
            .zip(found)
            .all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
}

/// Whether a form may have this parameter, `["metadata", "order"]`.
fn names(schema: &Value, parts: &[&str]) -> bool {
    let [part, rest @ ..] = parts else {
        return true;
    };
    let inner = [
        schema["properties"].get(*part),
        // `expand[]`, `expand[0]`.
        schema
            .get("items")
            .filter(|_| part.bytes().all(|b| b.is_ascii_digit())),
        schema
            .get("additionalProperties")
            .filter(|values| values.is_object()),
    ];
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    inner.into_iter().flatten().any(|inner| names(inner, rest))
        || alternatives.into_iter().any(|schema| names(schema, parts))
}

/// A schema with everything that it refers to.
fn standalone(document: &Value, schema: &Value) -> Value {
    let mut root = converted(schema);
    let mut components = Map::new();
    let mut open = references(&root);
    while let Some(name) = open.pop_first() {
        if !components.contains_key(&name) {
            let component = converted(&document["components"]["schemas"][&name]);
            open.append(&mut references(&component));
            components.insert(name, component);
        }
    }
    root["components"] = json!({ "schemas": components });
    root
}

fn references(schema: &Value) -> BTreeSet<String> {
    match schema {
        Value::Object(map) => {
            let here = map.get("$ref").and_then(Value::as_str);
            let here = here
                .and_then(|name| name.strip_prefix(SCHEMAS))
                .map(str::to_owned);
            map.values().flat_map(references).chain(here).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => BTreeSet::new(),
    }
}

/// JSON Schema for an OpenAPI 3.0 schema: `nullable` spelled out, members that are not described
/// refused, and ids where a caller would have to ask for the object itself.
fn converted(schema: &Value) -> Value {
    let map = match schema {
        Value::Object(map) => map,
        Value::Array(items) => return items.iter().map(converted).collect(),
        other => return other.clone(),
    };
    let mut map: Map<_, _> = map
        .iter()
        .map(|(key, value)| (key.clone(), converted(value)))
        .collect();
    if map.remove("x-expansionResources").is_some()
        && let Some(Value::Array(alternatives)) = map.get_mut("anyOf")
    {
        alternatives.retain(|alternative| alternative.get("$ref").is_none());
    }
    let described = map.get("properties").and_then(Value::as_object);
    if described.is_some_and(|members| !members.is_empty())
        && map.get("type").is_some_and(|kind| kind == "object")
    {
        map.entry("additionalProperties")
            .or_insert(Value::Bool(false));
    }
    match map.remove("nullable") {
        Some(Value::Bool(true)) => json!({ "anyOf": [map, { "type": "null" }] }),
        // A member of that name.
        Some(other) if other.is_object() => {
            map.insert("nullable".to_owned(), other);
            Value::Object(map)
        }
        _ => Value::Object(map),
    }
}

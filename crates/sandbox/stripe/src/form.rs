//! Stripe's request encoding: form fields with bracket nesting, `usage_limits[currency]=usd`.

use std::collections::BTreeMap;

use url::form_urlencoded;

use crate::error::ApiError;

/// Form fields by their full name, brackets included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, ApiError> {
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            if !well_formed(&name) {
                return Err(ApiError::invalid("Invalid parameter name").param(&name));
            }
            fields.insert(name.into_owned(), value.into_owned());
        }
        Ok(Self(fields))
    }

    /// What is asked for here and not by a request.
    pub(crate) fn of(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(fields.into_iter().collect())
    }

    pub(crate) fn fields(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| {
            ApiError::invalid(format!("Missing required param: {name}."))
                .code("parameter_missing")
                .param(name)
        })
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // `u64::from_str` takes a sign, Stripe does not.
        match text.parse() {
            Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(number)),
            _ => Err(ApiError::invalid(format!("Invalid integer: {text}"))
                .code("parameter_invalid_integer")
                .param(name)),
        }
    }

    pub(crate) fn required_integer(&self, name: &str) -> Result<u64, ApiError> {
        self.required(name)?;
        Ok(self.integer(name)?.unwrap_or_default())
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::invalid(format!("Invalid boolean: {other}")).param(name)),
        }
    }

    /// The members of `name[…]`, one level deep.
    pub(crate) fn map(&self, name: &str) -> BTreeMap<String, String> {
        let member = |key: &str| {
            let key = key
                .strip_prefix(name)?
                .strip_prefix('[')?
                .strip_suffix(']')?;
            (!key.contains('[')).then(|| key.to_owned())
        };
        self.0
            .iter()
            .filter_map(|(key, value)| Some((member(key)?, value.clone())))
            .collect()
    }

    /// Refuses fields beyond `known`; a known name ending in `[]` allows any member.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let allowed = |name: &str| {
            known.iter().any(|k| match k.strip_suffix("[]") {
                Some(map) => name
                    .strip_prefix(map)
                    .is_some_and(|rest| rest.starts_with('[')),
                None => *k == name,
            })
        };
        match self.0.keys().find(|name| !allowed(name)) {
            Some(name) => Err(
                ApiError::invalid(format!("Received unknown parameter: {name}"))
                    .code("parameter_unknown")
                    .param(name),
            ),
            None => Ok(()),
        }
    }

    /// Stripe's limits on metadata: 50 pairs, names to 40 characters, values to 500.
    pub(crate) fn metadata(&self, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let metadata = self.map(name);
        if metadata.len() > 50 {
            return Err(ApiError::invalid("Metadata can have up to 50 keys").param(name));
        }
        for (key, value) in &metadata {
            if key.chars().count() > 40 || value.chars().count() > 500 {
                return Err(ApiError::invalid(
                    "Metadata keys can have up to 40 characters and values up to 500",
                )
                .param(&format!("{name}[{key}]")));
            }
        }
        Ok(metadata)
    }
}

/// `name`, `name[member]`, `name[member][member]`, `name[]`.
fn well_formed(name: &str) -> bool {
    let (head, rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    let mut rest = rest;
    while let Some(inner) = rest.strip_prefix('[') {
        let Some((member, after)) = inner.split_once(']') else {
            return false;
        };
        if member.contains('[') {
            return false;
        }
        rest = after;
    }
    !head.is_empty() && !head.contains(']') && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nested_fields_and_refuses_unknown_ones() {
        let form = Form::parse(b"amount=50&metadata[a]=1&metadata[b%20c]=2&x[y][z]=3").unwrap();
        assert_eq!(form.required_integer("amount").unwrap(), 50);
        let metadata = form.map("metadata");
        assert_eq!(metadata["a"], "1");
        assert_eq!(metadata["b c"], "2");
        assert_eq!(form.get("x[y][z]"), Some("3"));
        assert!(form.only(&["amount", "metadata[]", "x[y][z]"]).is_ok());
        assert!(form.only(&["amount", "metadata[]"]).is_err());
        assert!(form.only(&["metadata[]", "x[]"]).is_err());
    }

    #[test]
    fn refuses_broken_names_and_numbers() {
        for bad in ["a[", "a[b", "a]b", "[a]=1", "a[b]c=1", "a[[b]]=1"] {
            assert!(Form::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["+5", "-5", "5.0", "0x5", "five"] {
            let form = Form(BTreeMap::from([("n".to_owned(), bad.to_owned())]));
            assert!(form.integer("n").is_err(), "{bad}");
        }
    }
}

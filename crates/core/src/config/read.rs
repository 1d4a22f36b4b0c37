//! Reading a typed configuration. serde stops at the first problem; this goes on past it.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use super::{Invalid, Issue, did_you_mean};

/// Reads a typed configuration, reporting every key that is unknown, missing or of the wrong type,
/// and not only the first. No problem repeats a value: it may be a secret in a wrong place.
///
/// Types should be `deny_unknown_fields` and hold text where a value can be wrong in a way that
/// serde cannot say well; their constructor then checks all of it at once.
pub fn read<C: DeserializeOwned>(value: &Value) -> Result<C, Invalid> {
    build(value, "", Ok)
}

/// Reads a typed configuration and makes something of it, with the problems of both. `example`, as
/// TOML, says what to give where a key is missing or of the wrong type.
pub(crate) fn build<C: DeserializeOwned, T>(
    value: &Value,
    example: &str,
    new: impl FnOnce(C) -> Result<T, Invalid>,
) -> Result<T, Invalid> {
    let mut reading = Reading {
        value: value.clone(),
        example,
        issues: Vec::new(),
        reported: BTreeSet::new(),
        stand_ins: BTreeSet::new(),
    };
    let config = reading.run::<C>();
    if reading.issues.is_empty()
        && let Some(config) = config
    {
        return new(config);
    }
    // Looked at all the same, so that this is not found in the next round only.
    if let Some(Err(invalid)) = config.map(new) {
        let more = invalid.into_issues().into_iter();
        let news = more.filter(|issue| !reading.is_reported(&issue.key));
        let news: Vec<_> = news.collect();
        reading.issues.extend(news);
    }
    Err(Invalid(reading.issues))
}

/// A step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

struct Reading<'a> {
    value: Value,
    example: &'a str,
    issues: Vec<Issue>,
    /// The keys with an issue, and those that were taken out along with them.
    reported: BTreeSet<String>,
    /// The keys of the first level whose value is not the configuration's own.
    stand_ins: BTreeSet<String>,
}

impl Reading<'_> {
    /// The configuration; without what was wrong, where it can do without.
    fn run<C: DeserializeOwned>(&mut self) -> Option<C> {
        loop {
            let problem = match attempt::<C>(&self.value) {
                Ok(config) if self.stand_ins.is_empty() => return Some(config),
                Ok(_) => break,
                Err(problem) => problem,
            };
            if !self.mend::<C>(problem) {
                return None;
            }
        }
        for key in std::mem::take(&mut self.stand_ins) {
            self.value.as_object_mut()?.remove(&key);
            self.reported.insert(key);
        }
        attempt(&self.value).ok()
    }

    /// Reports a problem and takes it out of the way. Whether there is a point in reading on.
    fn mend<C: DeserializeOwned>(&mut self, problem: Problem) -> bool {
        let Problem { mut at, text } = problem;
        if let Some(rest) = text.strip_prefix("unknown field `") {
            let known = names(&text);
            // The key is the last step already where serde got as far.
            if !at.last().is_some_and(|last| is_key(last, rest))
                && let Some((key, _)) = rest.split_once('`')
            {
                at.push(Step::Key(key.to_owned()));
            }
            let Some(Step::Key(key)) = at.last() else {
                return false;
            };
            let problem = format!("unknown key{}", did_you_mean(key, &known));
            return self.report(&at, problem) && remove(&mut self.value, &at);
        }
        if let Some((field, _)) = text
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split_once('`'))
        {
            at.push(Step::Key(field.to_owned()));
            if !self.is_reported(&key_of(&at)) {
                let problem = match self.wanted::<C>(&at) {
                    Some(give) => format!("is missing; {give}"),
                    None => "is missing; add it".to_owned(),
                };
                self.report(&at, problem);
            }
            return self.stand_in::<C>(&at, &[]);
        }
        let Some(found) = get(&self.value, &at) else {
            return false;
        };
        let problem = wrong(found, &text, self.example_of(&at));
        if !self.report(&at, problem) {
            return false;
        }
        match at.last() {
            None => false,
            Some(Step::Key(_)) => remove(&mut self.value, &at),
            // Without one item the others would have other numbers.
            Some(Step::Item(_)) => self.stand_in::<C>(&at, &names(&text)),
        }
    }

    /// Notes an issue, unless it is known.
    fn report(&mut self, at: &[Step], problem: String) -> bool {
        let key = key_of(at);
        let new = self.reported.insert(key.clone());
        if new {
            self.issues.push(Issue::new(key, problem));
        }
        new
    }

    /// Whether `key`, or what it is in, has an issue already.
    fn is_reported(&self, key: &str) -> bool {
        self.reported.iter().any(|known| is_in(key, known))
    }

    /// What to give for a key that is not there.
    fn wanted<C: DeserializeOwned>(&self, at: &[Step]) -> Option<String> {
        let mut value = self.value.clone();
        put(&mut value, at, Value::Null)?;
        let refused = attempt::<C>(&value).err().filter(|p| p.at == at)?;
        advice(&refused.text, self.example_of(at))
    }

    /// Puts anything that fits at `at`, so that what comes after it is looked at too. Where nothing
    /// does, what it is in is taken out.
    fn stand_in<C: DeserializeOwned>(&mut self, at: &[Step], names: &[&str]) -> bool {
        let names = names.iter().map(|name| Value::from(*name));
        let plain = [
            "".into(),
            0.into(),
            false.into(),
            Value::Array(Vec::new()),
            Value::Object(Map::new()),
        ];
        let fits = |value: &Value| match attempt::<C>(value) {
            Ok(_) => true,
            Err(problem) => !problem.at.starts_with(at),
        };
        for candidate in names.chain(plain) {
            let mut value = self.value.clone();
            if put(&mut value, at, candidate).is_some() && fits(&value) {
                self.value = value;
                if let Some(Step::Key(first)) = at.first() {
                    self.stand_ins.insert(first.clone());
                }
                return true;
            }
        }
        let around = at.iter().rposition(|step| matches!(step, Step::Key(_)));
        let around = match (around, at.last()) {
            // The list that an item is in, or the table that a key is in.
            (Some(n), Some(Step::Item(_))) => at.get(..=n),
            (Some(n), _) => at.get(..n),
            (None, _) => None,
        };
        match around.filter(|around| matches!(around.last(), Some(Step::Key(_)))) {
            Some(around) => {
                self.reported.insert(key_of(around));
                remove(&mut self.value, around)
            }
            None => false,
        }
    }

    /// What the example gives for a key: the value in the first line that sets it.
    fn example_of(&self, at: &[Step]) -> Option<&str> {
        let wanted = key_of(at);
        let mut table = "";
        for line in self.example.lines() {
            let line = line.trim_start_matches(['#', ' ']);
            if let Some((name, _)) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
                table = name;
            }
            let Some((key, rest)) = line.split_once('=') else {
                continue;
            };
            let value = rest.split(" #").next().unwrap_or(rest).trim();
            let count = |c| value.matches(c).count();
            let whole = count('[') == count(']') && count('{') == count('}');
            if Issue::new(key.trim(), "").under(table).key == wanted
                && whole
                && count('"').is_multiple_of(2)
            {
                return Some(value);
            }
        }
        None
    }
}

/// What serde did not like, and where.
struct Problem {
    at: Vec<Step>,
    text: String,
}

fn attempt<C: DeserializeOwned>(value: &Value) -> Result<C, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| Problem {
        at: steps(error.path(), value),
        text: error.inner().to_string(),
    })
}

/// A path as far as it leads into `value`: a variant of an enum may be no part of it.
fn steps(path: &Path, mut value: &Value) -> Vec<Step> {
    let mut steps = Vec::new();
    for segment in path {
        let (step, next) = match segment {
            Segment::Seq { index } => (Step::Item(*index), value.get(*index)),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                (Step::Key(key.clone()), value.get(key))
            }
            Segment::Unknown => break,
        };
        let Some(next) = next else { break };
        steps.push(step);
        value = next;
    }
    steps
}

fn key_of(at: &[Step]) -> String {
    at.iter().rev().fold(String::new(), |key, step| {
        let step = match step {
            Step::Key(name) => name.clone(),
            Step::Item(n) => format!("[{n}]"),
        };
        Issue::new(key, "").under(&step).key
    })
}

/// Whether `key` is `outer` or in it.
fn is_in(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether this step is the key that `text`, up to a backtick, begins with.
fn is_key(step: &Step, text: &str) -> bool {
    match step {
        Step::Key(key) => text
            .strip_prefix(key.as_str())
            .is_some_and(|rest| rest.starts_with('`')),
        Step::Item(_) => false,
    }
}

fn get<'v>(value: &'v Value, at: &[Step]) -> Option<&'v Value> {
    at.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Item(n) => value.get(*n),
    })
}

fn get_mut<'v>(value: &'v mut Value, at: &[Step]) -> Option<&'v mut Value> {
    at.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Item(n) => value.get_mut(*n),
    })
}

/// Puts `new` where a key or an item is or could be.
fn put(value: &mut Value, at: &[Step], new: Value) -> Option<()> {
    let (last, around) = at.split_last()?;
    let around = get_mut(value, around)?;
    match last {
        Step::Key(key) => drop(around.as_object_mut()?.insert(key.clone(), new)),
        Step::Item(n) => *around.get_mut(*n)? = new,
    }
    Some(())
}

/// Takes a key out. Whether it was there.
fn remove(value: &mut Value, at: &[Step]) -> bool {
    let Some((Step::Key(key), around)) = at.split_last() else {
        return false;
    };
    let around = get_mut(value, around).and_then(Value::as_object_mut);
    around.is_some_and(|table| table.remove(key).is_some())
}

/// What a value is. Never the value.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.as_f64().is_some_and(|n| n < 0.0) => "a negative number",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// What is wrong with a value that serde refused with `text`, which may quote it.
fn wrong(found: &Value, text: &str, example: Option<&str>) -> String {
    if text.starts_with("unknown variant") {
        let hint = did_you_mean(found.as_str().unwrap_or_default(), &names(text));
        return format!("is not known{hint}");
    }
    let kind = kind_of(found);
    if text.starts_with("invalid ") {
        return match advice(text, example) {
            Some(give) => format!("is {kind}; {give}"),
            None => format!("is {kind}, which does not fit here; see the documentation of the key"),
        };
    }
    // The text of somebody's own `Deserialize`.
    let quoted = found.as_str().is_some_and(|value| {
        let value = value.trim();
        !value.is_empty() && text.contains(value)
    });
    if quoted {
        return format!("is {kind} that cannot be read; see the documentation of the key");
    }
    text.to_owned()
}

/// `give …`, out of what serde or a `Deserialize` of our own says.
fn advice(text: &str, example: Option<&str>) -> Option<String> {
    let Some((_, expected)) = text.rsplit_once(", expected ") else {
        let (_, give) = text.split_once("; give ")?;
        return Some(format!("give {give}"));
    };
    let what = match expected {
        "a string" | "a borrowed string" | "path string" | "a character" | "string or map" => {
            "text in quotes"
        }
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a table of keys",
        other if other.starts_with("struct ") => "a table of keys",
        other if other.starts_with("a nonzero ") => "a whole number above 0",
        other => other,
    };
    Some(match example {
        Some(example) => format!("give {what}, such as {example}"),
        None => format!("give {what}"),
    })
}

/// The names that serde lists, in backticks, as what it expected.
fn names(text: &str) -> Vec<&str> {
    let listed = text.rsplit_once(", expected ").map_or("", |(_, list)| list);
    if !listed.contains('`') {
        return Vec::new();
    }
    listed.split('`').skip(1).step_by(2).collect()
}

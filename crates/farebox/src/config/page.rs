//! `[page]`: how the page looks that browsers get.

use std::{fs, path::Path};

use farebox_core::Issue;
use farebox_http::{Look, Page, server::page::Colors};
use serde_json::Value;

use super::section::{Section, wrong};

const KEYS: &[&str] = &["title", "logo", "colors", "dark_colors", "template"];
const COLORS: &[&str] = &["accent", "background", "surface", "text"];
const PAGE: &str = "give a table such as { title = \"Example\" }, or false for no page";
const FILE: &str = "give the path of a file, seen from the working directory";

/// The page: the own one where nothing is said, none where it is `false`.
pub(super) fn read(value: Option<Value>, issues: &mut Vec<Issue>) -> Option<Page> {
    let value = match value {
        Some(Value::Bool(false)) => return None,
        Some(Value::Bool(true)) | None => Value::Object(serde_json::Map::new()),
        Some(table @ Value::Object(_)) => table,
        Some(other) => {
            issues.push(Issue::new("page", wrong(&other, PAGE)));
            return None;
        }
    };
    let mut table = Section::open(value, "page", KEYS, issues);
    let mut look = Look::new();
    let name = "give the name of who is paid";
    if let Some(title) = table.text("title", name, issues) {
        look = look.title(title);
    }
    if let Some(logo) = table.text("logo", FILE, issues) {
        match fs::read(&logo) {
            Ok(bytes) => look = look.logo(logo, bytes),
            Err(error) => issues.push(unreadable("page.logo", &logo, &error)),
        }
    }
    if let Some(template) = table.text("template", FILE, issues) {
        match fs::read_to_string(Path::new(&template)) {
            Ok(text) => look = look.template(text),
            Err(error) => issues.push(unreadable("page.template", &template, &error)),
        }
    }
    let light = colors(&mut table, "colors", issues);
    let dark = colors(&mut table, "dark_colors", issues);
    table.finish(issues);
    match Page::new(look.colors(light, dark)) {
        Ok(page) => Some(page),
        Err(invalid) => {
            issues.extend(invalid.under("page").into_issues());
            None
        }
    }
}

/// Whether a rail, configured so, makes payloads for a page: those with a key for browsers do.
pub(super) fn prepares(rail: &Value) -> bool {
    rail.get("publishable_key").is_some()
}

fn unreadable(key: &str, path: &str, error: &std::io::Error) -> Issue {
    Issue::new(key, format!("`{path}` cannot be read: {error}; {FILE}"))
}

fn colors(table: &mut Section, key: &str, issues: &mut Vec<Issue>) -> Colors {
    let mut colors = Colors::new();
    let Some(value) = table.take(key) else {
        return colors;
    };
    let mut keys = Section::open(value, table.path(key), COLORS, issues);
    let shape = "give a colour such as \"#2554e0\"";
    colors.accent = keys.text("accent", shape, issues);
    colors.background = keys.text("background", shape, issues);
    colors.surface = keys.text("surface", shape, issues);
    colors.text = keys.text("text", shape, issues);
    keys.finish(issues);
    colors
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn keys(text: &str) -> (Vec<String>, bool) {
        let value = crate::config::parse(text).unwrap();
        let mut issues = Vec::new();
        let page = read(value.get("page").cloned(), &mut issues);
        let shown = issues.iter().map(|i| i.key.clone()).collect();
        (shown, page.is_some())
    }

    /// Protects: an operator hears of everything that is wrong with the page at once, by its key.
    #[test]
    fn a_page_is_read_or_every_problem_named() {
        assert_eq!(keys(""), (vec![], true));
        assert_eq!(keys("page = false"), (vec![], false));
        let good = "page = { title = \"Shop\", colors = { accent = \"#2554e0\" } }";
        assert_eq!(keys(good), (vec![], true));
        let (wrong, page) = keys(
            "[page]\ntitle = 7\ntitel = \"x\"\nlogo = \"none.svg\"\ntemplate = \"none.html\"\n\
             colors = { accent = \"#fff\", tint = \"#fff\" }\ndark_colors = { text = \"red\" }\n",
        );
        let expected = [
            "page.title",
            "page.logo",
            "page.template",
            "page.colors.tint",
            "page.titel",
            "page.colors.accent",
            "page.dark_colors.text",
        ];
        assert_eq!(
            (wrong.iter().map(String::as_str).collect::<Vec<_>>(), page),
            (expected.to_vec(), false)
        );
        assert_eq!(keys("page = \"Shop\"").0, ["page"]);
    }
}

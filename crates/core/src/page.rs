//! What a rail adds to the page that a browser gets instead of bare challenges.
//!
//! A part is data: a fragment of HTML, a script and what both may know. The HTTP layer puts the
//! parts of a route together, one tab for each, and carries what a script pays to the server.

use serde::Serialize;
use serde_json::Value;

/// A rail's part of a payment page, for one challenge. Everything in it is public.
///
/// ```
/// use farebox_core::PagePart;
///
/// let part = PagePart::new("Gift card", "2 tokens")
///     .html(r#"<p>Paid to {{ shop }}.</p>"#)
///     .script("farebox.part(\"giftcard/charge\", (part) => { /* … */ });")
///     .data(&serde_json::json!({ "shop": "The corner shop" }));
/// assert_eq!(part.data["shop"], "The corner shop");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PagePart {
    /// What people call this way to pay; the name of its tab.
    pub title: String,
    /// The price as people write it: `$0.50`.
    pub price: String,
    /// A template (Jinja) of the part's HTML. It sees [`data`](Self::data)'s members, `price`, and
    /// `id`, a prefix that makes the ids of its elements its own; all of it escaped.
    pub html: &'static str,
    /// The script that pays; see the guide's chapter on the page for what it may call. It runs once
    /// for all parts of its rail and intent.
    pub script: &'static str,
    /// Scripts of others that it needs, by URL. They are loaded before it.
    pub libraries: Vec<String>,
    /// Origins that its libraries load further scripts from.
    pub scripts: Vec<String>,
    /// Origins that its libraries put into frames.
    pub frames: Vec<String>,
    /// Origins that it and its libraries ask.
    pub connects: Vec<String>,
    /// What the template and the script may know: an object.
    pub data: Value,
}

impl PagePart {
    /// A part without anything to see or to do.
    #[must_use]
    pub fn new(title: impl Into<String>, price: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            price: price.into(),
            data: Value::Object(serde_json::Map::new()),
            ..Self::default()
        }
    }

    /// With this template.
    #[must_use]
    pub fn html(mut self, template: &'static str) -> Self {
        self.html = template;
        self
    }

    /// With this script.
    #[must_use]
    pub fn script(mut self, script: &'static str) -> Self {
        self.script = script;
        self
    }

    /// With another's script.
    #[must_use]
    pub fn library(mut self, url: impl Into<String>) -> Self {
        self.libraries.push(url.into());
        self
    }

    /// Which may load further scripts from these origins.
    #[must_use]
    pub fn scripts<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Self {
        self.scripts.extend(origins.into_iter().map(str::to_owned));
        self
    }

    /// And put these into frames.
    #[must_use]
    pub fn frames<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Self {
        self.frames.extend(origins.into_iter().map(str::to_owned));
        self
    }

    /// May ask these origins, beside the page's own.
    #[must_use]
    pub fn connects<'a>(mut self, origins: impl IntoIterator<Item = &'a str>) -> Self {
        self.connects.extend(origins.into_iter().map(str::to_owned));
        self
    }

    /// What the template and the script may know. What does not become a JSON object is left out.
    #[must_use]
    pub fn data<T: Serialize>(mut self, data: &T) -> Self {
        if let Ok(data @ Value::Object(_)) = serde_json::to_value(data) {
            self.data = data;
        }
        self
    }
}

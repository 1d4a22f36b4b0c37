//! What an operator may change about the page.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use farebox_core::{Invalid, Issue};
use minijinja::{Environment, UndefinedBehavior, Value, context};

use super::theme::{Colors, DARK, LIGHT, Scheme};

/// The largest logo, which is part of every page, in bytes.
const LOGO_MAX: usize = 64 * 1024;

/// How a page looks. What is not given is the page's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Look {
    /// Who is paid: a name. The realm unless given.
    pub title: Option<String>,
    /// A picture: its file's name, which tells its type (svg, png, jpg, webp, gif), and its bytes.
    /// It travels within the page, so 64 KiB at most.
    pub logo: Option<(String, Vec<u8>)>,
    /// Colours for light.
    pub colors: Colors,
    /// Colours for dark.
    pub dark_colors: Colors,
    /// A template (Jinja) in the place of the page's own; see [`Page`](super::Page).
    pub template: Option<String>,
}

impl Look {
    /// The page's own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this name.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// With this picture.
    #[must_use]
    pub fn logo(mut self, file_name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.logo = Some((file_name.into(), bytes.into()));
        self
    }

    /// With these colours, for light and for dark.
    #[must_use]
    pub fn colors(mut self, light: Colors, dark: Colors) -> Self {
        (self.colors, self.dark_colors) = (light, dark);
        self
    }

    /// With this template.
    #[must_use]
    pub fn template(mut self, template: impl Into<String>) -> Self {
        self.template = Some(template.into());
        self
    }

    /// As pages are made of it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn check(self) -> Result<Checked, Invalid> {
        let mut issues = Vec::new();
        let light = scheme(LIGHT, &self.colors, "colors", &mut issues);
        let dark = scheme(DARK, &self.dark_colors, "dark_colors", &mut issues);
        let style = format!(
            ":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{}",
            include_str!("page.css")
        );
        let logo = match self
            .logo
            .as_ref()
            .map(|(name, bytes)| data_uri(name, bytes))
        {
            None => None,
            Some(Ok(uri)) => Some(uri),
            Some(Err(problem)) => {
                issues.push(Issue::new("logo", problem));
                None
            }
        };
        let mut templates = Environment::new();
        // A misspelt name is an error here, and not a hole in a page.
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let own = include_str!("page.html").to_owned();
        let shell = self.template.unwrap_or(own);
        for (name, source) in [
            (SHELL, shell),
            (PAYMENT, include_str!("payment.html").to_owned()),
        ] {
            if let Err(error) = templates.add_template_owned(name, source) {
                issues.push(Issue::new("template", why(&error)));
            }
        }
        if issues.is_empty()
            && let Err(problem) = try_out(&templates)
        {
            issues.push(Issue::new("template", problem));
        }
        Invalid::unless_empty(issues)?;
        Ok(Checked {
            title: self.title.filter(|title| !title.trim().is_empty()),
            logo,
            style,
            templates,
        })
    }
}

/// A look that holds.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) title: Option<String>,
    pub(super) logo: Option<String>,
    pub(super) style: String,
    pub(super) templates: Environment<'static>,
}

pub(super) const SHELL: &str = "page.html";
pub(super) const PAYMENT: &str = "payment.html";

/// The colours' custom properties; the own ones where they cannot be used.
fn scheme(own: Scheme, colors: &Colors, at: &str, issues: &mut Vec<Issue>) -> String {
    let scheme = own.with(colors).unwrap_or_else(|wrong| {
        let wrong = wrong.into_iter();
        issues.extend(wrong.map(|w| Issue::new(format!("{at}.{}", w.name), w.problem)));
        own
    });
    scheme.properties()
}

fn data_uri(name: &str, bytes: &[u8]) -> Result<String, String> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let kind = match extension.to_ascii_lowercase().as_str() {
        "svg" => "svg+xml",
        "png" => "png",
        "jpg" | "jpeg" => "jpeg",
        "webp" => "webp",
        "gif" => "gif",
        _ => {
            return Err(format!(
                "`{name}` is no picture; give a svg, png, jpg, webp or gif"
            ));
        }
    };
    if bytes.is_empty() || bytes.len() > LOGO_MAX {
        let size = bytes.len();
        return Err(format!(
            "`{name}` has {size} bytes; give one with 1 to {LOGO_MAX}"
        ));
    }
    Ok(format!(
        "data:image/{kind};base64,{}",
        STANDARD.encode(bytes)
    ))
}

/// Renders the shell once, since a template can be wrong in ways that only show then.
fn try_out(templates: &Environment<'_>) -> Result<(), String> {
    let needed = ["style", "payment", "script"];
    let mark = |name: &str| format!("\u{1}{name}\u{1}");
    let safe = |name: &str| Value::from_safe_string(mark(name));
    for logo in [None, Some("data:,")] {
        let shell = templates.get_template(SHELL).map_err(|e| why(&e))?;
        let page = shell.render(context! {
            heading => "h", title => "t", logo => logo, nonce => "n",
            style => safe("style"), payment => safe("payment"), script => safe("script"),
        });
        let page = page.map_err(|e| why(&e))?;
        if let Some(missing) = needed.iter().find(|name| !page.contains(&mark(name))) {
            return Err(format!(
                "does not show `{{{{ {missing} }}}}`, without which nobody can pay"
            ));
        }
    }
    Ok(())
}

/// Where a template is wrong, and how; without its text.
fn why(error: &minijinja::Error) -> String {
    let kind = error.kind();
    let detail = error.detail().unwrap_or_default();
    let line = error
        .line()
        .map(|n| format!("line {n}: "))
        .unwrap_or_default();
    format!("{line}{kind}: {detail}")
        .trim_end_matches([':', ' '])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(look: Look) -> Vec<String> {
        match look.check() {
            Ok(_) => Vec::new(),
            Err(invalid) => {
                let issues = invalid.into_issues().into_iter();
                issues
                    .map(|i| format!("{}: {}", i.key, i.problem))
                    .collect()
            }
        }
    }

    /// Protects: what an operator gets wrong is found when the server starts, all at once.
    #[test]
    fn a_look_is_checked() {
        assert!(problems(Look::new()).is_empty());
        let good = "<title>{{ title }}</title>{{ style }}{% if logo %}<img src=\"{{ logo }}\">\
                    {% endif %}{{ payment }}{{ script }}";
        let look = Look::new().template(good).logo("a.b.PNG", *b"png");
        assert!(problems(look).is_empty());

        let wrong = Look::new()
            .logo("logo.bmp", *b"bmp")
            .colors(Colors::new().accent("#fff"), Colors::new().accent("red"))
            .template("{{ style }");
        let wrong = problems(wrong).join("\n");
        for found in [
            "colors.accent",
            "dark_colors.accent",
            "logo",
            "template: line 1",
        ] {
            assert!(wrong.contains(found), "{found}: {wrong}");
        }
        let missing = problems(Look::new().template("{{ style }}{{ payment }}"));
        assert!(missing[0].contains("{{ script }}"), "{missing:?}");
        let misspelt = problems(Look::new().template("\n{{ titel }}"));
        assert!(misspelt[0].contains("line 2"), "{misspelt:?}");
        let large = problems(Look::new().logo("a.svg", vec![b' '; LOGO_MAX + 1]));
        assert!(large[0].contains("65537 bytes"), "{large:?}");
    }
}

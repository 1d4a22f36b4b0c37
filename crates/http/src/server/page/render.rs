//! Putting a page together.

use std::{collections::BTreeSet, time::Duration};

use farebox_core::{
    Fault, PagePart,
    wire::{Challenge, CredentialHeader},
};
use farebox_engine::Gate;
use minijinja::{
    Value, context,
    value::{Serde, merge_maps},
};
use serde::Serialize;

use super::{
    Page,
    look::{PAYMENT, SHELL},
};

/// A page, and where what it runs comes from.
pub(super) struct Rendered {
    pub(super) html: String,
    pub(super) policy: String,
}

/// What is asked of a page.
pub(super) struct Asked<'a> {
    /// The realm that is paid.
    pub(super) realm: &'a str,
    /// The request's method.
    pub(super) method: &'a str,
    /// Its path.
    pub(super) path: &'a str,
    /// What it was refused for, if it is no plain request for payment: a title and a detail.
    pub(super) problem: Option<(&'a str, &'a str)>,
}

/// A challenge with its rail's part.
pub(super) struct Way {
    challenge: Challenge,
    part: PagePart,
    lasts: Duration,
}

impl Way {
    /// The ways that a page can offer, of what was just issued.
    pub(super) fn all(gate: &Gate, challenges: Vec<Challenge>) -> Vec<Self> {
        let mut ways = Vec::new();
        for challenge in challenges {
            let Some(offer) = gate.offer_of(&challenge) else {
                continue;
            };
            match offer.method().page(&challenge) {
                Ok(Some(part)) => {
                    let lasts = gate.lasts(&challenge);
                    ways.push(Self {
                        challenge,
                        part,
                        lasts,
                    });
                }
                Ok(None) => {}
                Err(fault) => tracing::error!(offer = %offer.id(), %fault, "a rail has no page"),
            }
        }
        ways
    }

    fn offer(&self) -> String {
        self.challenge.offer().to_string()
    }
}

/// What the page's script knows.
#[derive(Serialize)]
struct Data<'a> {
    header: &'static str,
    parts: Vec<PartData<'a>>,
}

#[derive(Serialize)]
struct PartData<'a> {
    offer: String,
    price: &'a str,
    challenge: &'a Challenge,
    /// For how long it can be paid, in milliseconds: the payer's clock may be wrong.
    lasts: u32,
    data: &'a serde_json::Value,
}

/// Longer paths are cut for people.
const PATH_SHOWN: usize = 120;

impl Page {
    pub(super) fn render(&self, asked: &Asked<'_>, ways: &[Way]) -> Result<Rendered, Fault> {
        let failed =
            |error: minijinja::Error| Fault::new("rendering a payment page").caused_by(error);
        let nonce = nonce()?;
        let look = &self.0.look;
        // Nothing but a GET can be done again by loading the page.
        let pays = asked.method == "GET" || asked.method == "HEAD";
        let ways = if pays { ways } else { &[] };
        let described = ways
            .iter()
            .find_map(|way| way.challenge.description.as_deref());
        let heading = match (asked.problem, described) {
            (Some((title, _)), _) => title,
            (None, Some(description)) => description,
            (None, None) => "Pay to continue",
        };
        let mut parts = Vec::with_capacity(ways.len());
        for (n, way) in ways.iter().enumerate() {
            parts.push(part(&look.templates, n, way).map_err(failed)?);
        }
        let explain = (!pays && asked.problem.is_none()).then(|| {
            format!(
                "This address is paid for by {} requests, which a page cannot repeat. Nothing has \
                 been charged. Use a program that pays: farebox pay is one.",
                asked.method
            )
        });
        // Without a challenge nothing has told it.
        let realm = match asked.realm {
            "" => "This site",
            realm => realm,
        };
        let shown: String = asked.path.chars().take(PATH_SHOWN).collect();
        let payment = look.templates.get_template(PAYMENT).and_then(|payment| {
            payment.render(context! {
                resource => format!("{}{shown}", asked.realm),
                problem => asked.problem.map(|(_, detail)| detail),
                parts => parts,
                explain => explain,
            })
        });
        let payment = payment.map_err(failed)?;
        let script = script(&nonce, ways)?;
        let style = format!("<style nonce=\"{nonce}\">{}</style>", look.style);
        let shell = look.templates.get_template(SHELL).and_then(|shell| {
            shell.render(context! {
                title => look.title.as_deref().unwrap_or(realm),
                heading => heading,
                logo => look.logo.as_deref(),
                nonce => &nonce,
                style => Value::from_safe_string(style),
                payment => Value::from_safe_string(payment),
                script => Value::from_safe_string(script),
            })
        });
        Ok(Rendered {
            html: shell.map_err(failed)?,
            policy: policy(&nonce, ways),
        })
    }
}

fn part(
    templates: &minijinja::Environment<'_>,
    n: usize,
    way: &Way,
) -> Result<Value, minijinja::Error> {
    let part = &way.part;
    let id = format!("farebox-{n}-");
    let own = context! { id => &id, price => &part.price };
    let data = merge_maps([Value::from(Serde(&part.data)), own]);
    // Named like a page, so that everything is escaped.
    let html = templates.render_named_str("part.html", part.html, data)?;
    Ok(context! {
        id => &id,
        title => &part.title,
        price => &part.price,
        html => Value::from_safe_string(html),
    })
}

/// The scripts: other people's, the page's, and each rail's once.
fn script(nonce: &str, ways: &[Way]) -> Result<String, Fault> {
    let Some(first) = ways.first() else {
        return Ok(String::new());
    };
    let header = first
        .challenge
        .header
        .unwrap_or(CredentialHeader::Authorization);
    let data = Data {
        header: header.as_str(),
        parts: ways.iter().map(data_of).collect(),
    };
    let data = serde_json::to_string(&data)
        .map_err(|e| Fault::new("writing what a page knows").caused_by(e))?;
    let mut html = String::with_capacity(24 * 1024);
    for part in [
        "<script type=\"application/json\" id=\"farebox-data\">",
        &inert(&data),
        "</script>\n",
    ] {
        html.push_str(part);
    }
    let libraries: BTreeSet<&str> = ways
        .iter()
        .flat_map(|way| &way.part.libraries)
        .map(String::as_str)
        .collect();
    for library in libraries.into_iter().filter(|url| is_source(url)) {
        html.push_str(&format!(
            "<script defer nonce=\"{nonce}\" src=\"{library}\"></script>\n"
        ));
    }
    let own = concat!(include_str!("attempt.js"), "\n", include_str!("page.js"));
    let mut seen = BTreeSet::new();
    let rails = ways.iter().filter(|way| seen.insert(way.offer()));
    for script in std::iter::once(own).chain(rails.map(|way| way.part.script)) {
        // A module runs after what is deferred, in order, and has names of its own.
        html.push_str(&format!(
            "<script type=\"module\" nonce=\"{nonce}\">\n{script}</script>\n"
        ));
    }
    Ok(html)
}

fn data_of(way: &Way) -> PartData<'_> {
    PartData {
        offer: way.offer(),
        price: &way.part.price,
        challenge: &way.challenge,
        lasts: u32::try_from(way.lasts.as_millis()).unwrap_or(u32::MAX),
        data: &way.part.data,
    }
}

/// JSON that is the same in a script element, and cannot end it.
fn inert(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// What the page may load: its own by nonce, and what its parts name.
fn policy(nonce: &str, ways: &[Way]) -> String {
    let list = |of: fn(&PagePart) -> &Vec<String>| {
        let sources: BTreeSet<&str> = ways
            .iter()
            .flat_map(|way| of(&way.part))
            .map(String::as_str)
            .filter(|source| is_source(source))
            .collect();
        sources
            .into_iter()
            .fold(String::new(), |list, source| list + " " + source)
    };
    let (libraries, scripts) = (list(|p| &p.libraries), list(|p| &p.scripts));
    let (frames, connects) = (list(|p| &p.frames), list(|p| &p.connects));
    let framed = if frames.is_empty() {
        " 'none'"
    } else {
        &frames
    };
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'{libraries}{scripts}; \
         style-src 'nonce-{nonce}' 'self'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self'{connects}; frame-src{framed}; worker-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
}

/// Whether a text is a URL that means the same in a policy and in an attribute.
fn is_source(url: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/*[]%".contains(&b);
    (url.starts_with("https://") || url.starts_with("http://")) && url.bytes().all(allowed)
}

fn nonce() -> Result<String, Fault> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Fault::new("drawing a nonce").caused_by(e))?;
    Ok(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: no text of a challenge or a rail ends the script it stands in, or adds a policy.
    #[test]
    fn what_is_embedded_stays_where_it_is() {
        let text = inert(r#"{"a":"</script><!--&"}"#);
        assert_eq!(text, r#"{"a":"\u003c/script\u003e\u003c!--\u0026"}"#);
        assert!(is_source("https://js.stripe.com/v3/"));
        assert!(is_source("https://*.js.stripe.com"));
        assert!(is_source("http://[::1]:80"));
        for bad in [
            "https://a b",
            "https://a;",
            "https://a\"",
            "'self'",
            "javascript:x",
            "https://a,b",
        ] {
            assert!(!is_source(bad), "{bad}");
        }
    }
}

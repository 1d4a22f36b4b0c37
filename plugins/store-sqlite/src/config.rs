//! The URL: `sqlite://farebox.db`, `sqlite:///var/lib/farebox.db`, `sqlite:farebox.db`.

use std::path::{Path, PathBuf};

use farebox_core::Invalid;

/// Where the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqlite {
    path: PathBuf,
}

impl Sqlite {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads a URL. Percent escapes are decoded.
    ///
    /// # Errors
    /// If it names no file, or asks for something else.
    pub fn parse(url: &str) -> Result<Self, Invalid> {
        let invalid = |problem: &str| {
            let shape = "give a file, such as `sqlite://farebox.db`";
            Invalid::new("", format!("{problem}; {shape}"))
        };
        let path = match url.split_once(':') {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("sqlite") => path,
            _ => return Err(invalid("is no URL of a SQLite file")),
        };
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.contains(['?', '#']) {
            return Err(invalid("has options, and a SQLite store knows none"));
        }
        if path.is_empty() || path.ends_with('/') {
            return Err(invalid("names no file"));
        }
        if path.starts_with(":memory:") {
            return Err(invalid(
                "asks for memory, which is `memory:` and forgets payments with the process",
            ));
        }
        let path = percent_encoding::percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| invalid("holds escapes that are no text"))?;
        if path.contains('\0') {
            return Err(invalid("holds a zero byte"));
        }
        Ok(Self::new(path.into_owned()))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file() {
        for (url, path) in [
            ("sqlite://farebox.db", "farebox.db"),
            ("sqlite:farebox.db", "farebox.db"),
            ("SQLITE://a/b.db", "a/b.db"),
            ("sqlite:///var/lib/f.db", "/var/lib/f.db"),
            ("sqlite:///a%20b%3F.db", "/a b?.db"),
        ] {
            assert_eq!(Sqlite::parse(url), Ok(Sqlite::new(path)), "{url}");
        }
        for bad in [
            "",
            "sqlite",
            "redis://x",
            "sqlite:",
            "sqlite://",
            "sqlite:///var/",
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite://a.db?mode=ro",
            "sqlite://a%FF.db",
            "sqlite://a%00.db",
        ] {
            assert!(Sqlite::parse(bad).is_err(), "{bad}");
        }
    }
}

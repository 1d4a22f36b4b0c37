//! How a command ends when it does not end well.

use std::fmt;

use farebox::Invalid;

/// What to say, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// The exit code of wrong usage or configuration.
pub(crate) const USAGE: u8 = 2;

/// The exit code of a payment or a refund whose outcome nobody knows.
pub(crate) const UNKNOWN: u8 = 6;

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Something outside went wrong.
    pub(crate) fn general(message: impl fmt::Display) -> Self {
        Self::new(1, message.to_string())
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// Everything that is wrong with `what`.
    pub(crate) fn invalid(what: impl fmt::Display, invalid: &Invalid) -> Self {
        let count = match invalid.issues().len() {
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        };
        let list = invalid.to_string().replace('\n', "\n  ");
        Self::new(
            USAGE,
            format!("{count} in {what}; nothing was started\n  {list}"),
        )
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::general(error)
    }
}

/// What a server said, without control characters: it does not get to move the terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    let replace = |c: char| {
        if c.is_control() && c != '\n' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(replace).collect()
}

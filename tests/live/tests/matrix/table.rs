//! The matrix as text.

use std::{collections::BTreeMap, fmt::Write as _};

use farebox_live_tests::{MODES, PARTIES};

use crate::cell::Cell;

/// What became of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Paid, once. With the calls that the server made of its node, where that is Farebox.
    Paid { calls: Option<usize> },
    /// The peer does not offer it, as this says.
    NotOffered(&'static str),
    /// It does not work.
    Broken,
}

pub(crate) type Results = BTreeMap<Cell, Found>;

/// A line for each client and server, a column for each way to pay, and notes below.
pub(crate) fn print(results: &Results) -> String {
    let mut notes: Vec<&str> = Vec::new();
    let mut text = String::from("\nclient -> server     ");
    for mode in MODES {
        _ = write!(text, "{mode:<13}");
    }
    end_line(&mut text);
    for server in PARTIES {
        for client in PARTIES {
            _ = write!(text, "{client:<8} -> {server:<8} ");
            for mode in MODES {
                let cell = Cell {
                    client,
                    server,
                    mode,
                };
                let found = match results.get(&cell) {
                    None => "not run".to_owned(),
                    Some(Found::Broken) => "BROKEN".to_owned(),
                    Some(Found::Paid { calls: None }) => "paid".to_owned(),
                    Some(Found::Paid { calls: Some(calls) }) => format!("paid, {calls} rpc"),
                    Some(Found::NotOffered(why)) => {
                        let known = notes.iter().position(|note| note == why);
                        let number = known.unwrap_or_else(|| {
                            notes.push(why);
                            notes.len() - 1
                        });
                        format!("- [{}]", number + 1)
                    }
                };
                _ = write!(text, "{found:<13}");
            }
            end_line(&mut text);
        }
    }
    text.push_str(
        "paid: exactly the price, a receipt, and nothing at the second presentation; N rpc: calls \
         that the server made of its node\n",
    );
    for (number, note) in notes.iter().enumerate() {
        _ = writeln!(text, "[{}] {note}", number + 1);
    }
    text
}

fn end_line(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

//! What stands in for a language model: it says the same to everybody, a word at a time.

use std::{convert::Infallible, time::Duration};

use farebox::http::Event;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::sleep;

const WORDS: [&str; 24] = [
    "A",
    "fare",
    "is",
    "paid",
    "for",
    "every",
    "word",
    "that",
    "leaves",
    "this",
    "machine,",
    "and",
    "for",
    "no",
    "other:",
    "who",
    "stops",
    "listening",
    "stops",
    "paying,",
    "whatever",
    "was",
    "put",
    "in.",
];

/// How fast it thinks.
const PACE: Duration = Duration::from_millis(20);

/// `count` tokens. A model that knows what a token took says so with
/// [`units`](Event::units); here each costs one.
pub fn tokens(count: usize) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let words = WORDS.iter().cycle().take(count);
    stream::iter(words).then(|word| async move {
        sleep(PACE).await;
        Ok(Event::new(*word))
    })
}

//! Words between the processes that share a server: its own publishing, which reaches whoever is
//! connected and remembers nothing.

use std::{future::poll_fn, pin::Pin};

use async_trait::async_trait;
use farebox_core::{Fault, Listener, Notices};
use futures_util::Stream as _;
use redis::aio::PubSub;

use crate::{RedisStore, in_time};

impl RedisStore {
    /// Where this store's words go. Channels have no database, but the prefix keeps stores apart.
    fn channel(&self) -> String {
        self.key("notices")
    }
}

#[async_trait]
impl Notices for RedisStore {
    async fn tell(&self, word: &str) -> Result<(), Fault> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.channel()).arg(word);
        let _: i64 = self.ask(&publish).await?;
        Ok(())
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, Fault> {
        let channel = self.channel();
        let connection = in_time(async {
            let mut connection = self.link.client().get_async_pubsub().await?;
            connection.subscribe(channel).await?;
            Ok(connection)
        });
        Ok(Box::new(Heard(connection.await?)))
    }
}

struct Heard(PubSub);

#[async_trait]
impl Listener for Heard {
    async fn next(&mut self) -> Option<String> {
        let mut words = self.0.on_message();
        let message = poll_fn(|cx| Pin::new(&mut words).poll_next(cx)).await?;
        // What is no text is not ours: it wakes nobody.
        Some(message.get_payload().unwrap_or_default())
    }
}

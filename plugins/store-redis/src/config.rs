//! The URL: `redis://user:password@host:6379/0?prefix=shop:`.

use std::{fmt, sync::Arc, time::Duration};

use farebox_core::Invalid;
use redis::{
    Client, IntoConnectionInfo as _, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use url::Url;

/// What keys start with unless the URL says otherwise.
const PREFIX: &str = "farebox:";

/// How long making a connection may take, and how long a dead one may go unnoticed.
const CONNECT: Duration = Duration::from_secs(2);
const DEAD: Duration = Duration::from_secs(10);

/// A server, and where in it.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    prefix: String,
    unchecked: bool,
}

impl Redis {
    /// Reads a URL.
    ///
    /// # Errors
    /// Whatever is wrong with it. The text holds nothing of the URL but its options' names.
    pub fn parse(url: &str) -> Result<Self, Invalid> {
        let invalid = |problem: &str| {
            let shape = "give one such as `redis://user:password@host:6379/0`";
            Invalid::new("", format!("{problem}; {shape}"))
        };
        let mut url = Url::parse(url).map_err(|error| invalid(&format!("is no URL ({error})")))?;
        if !["redis", "rediss", "valkey", "valkeys"].contains(&url.scheme()) {
            return Err(invalid("is no URL of a Redis server"));
        }
        if url.fragment().is_some() {
            return Err(invalid("has a part after `#`, which means nothing here"));
        }
        let (mut prefix, mut unchecked) = (PREFIX.to_owned(), false);
        for (option, value) in url.query_pairs() {
            match (&*option, &*value) {
                ("prefix", value) => prefix = value.to_owned(),
                ("persistence", "unchecked") => unchecked = true,
                ("persistence", _) => {
                    return Err(invalid(
                        "has an option `persistence` other than `unchecked`",
                    ));
                }
                (option, _) => {
                    let known =
                        farebox_core::config::did_you_mean(option, &["persistence", "prefix"]);
                    return Err(invalid(&format!("has an unknown option{known}")));
                }
            }
        }
        url.set_query(None);
        let info = url.as_str().into_connection_info();
        let info = info.map_err(|error| invalid(&format!("cannot be used ({})", what(&error))))?;
        let tcp = TcpSettings::default().set_nodelay(true);
        // Without it, a peer that vanished is only noticed after a quarter of an hour.
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(DEAD);
        let client = Client::open(info.set_tcp_settings(tcp));
        let client =
            client.map_err(|error| invalid(&format!("cannot be used ({})", what(&error))))?;
        Ok(Self {
            client,
            prefix,
            unchecked,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn unchecked(&self) -> bool {
        self.unchecked
    }

    pub(crate) async fn connect(&self) -> Result<ConnectionManager, RedisError> {
        // TLS needs one provider for the process; the first to come may have chosen.
        if CryptoProvider::get_default().is_none() {
            drop(CryptoProvider::install_default(
                aws_lc_rs::default_provider(),
            ));
        }
        // It reconnects, and never sends a command a second time.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(100))
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(crate::PATIENCE));
        ConnectionManager::new_with_config(self.client.clone(), config).await
    }
}

/// An error of the client's own, which holds no text of ours.
fn what(error: &RedisError) -> Arc<str> {
    error.category().into()
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_url_names_a_server_and_a_prefix() {
        let redis = Redis::parse("rediss://me:hunter2@[::1]:6380/3?prefix=shop%3A").unwrap();
        assert_eq!(redis.prefix(), "shop:");
        assert!(!redis.unchecked() && !format!("{redis:?}").contains("hunter2"));
        assert_eq!(Redis::parse("valkey://host").unwrap().prefix(), PREFIX);
        assert!(
            Redis::parse("redis://host?persistence=unchecked")
                .unwrap()
                .unchecked()
        );
        for bad in [
            "",
            "redis",
            "sqlite://x",
            "redis://",
            "redis://me:hunter2@host/hunter2",
            "redis://me:hunter2@host:99999",
            "redis://host?prefx=hunter2",
            "redis://host?persistence=hunter2",
            "rediss://host#insecure",
        ] {
            let error = Redis::parse(bad).map(drop).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

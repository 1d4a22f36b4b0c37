//! Whether a server can be trusted with payments.

use std::collections::HashMap;

use farebox_core::Fault;
use redis::{InfoDict, aio::ConnectionManager};

use crate::{NOT_PERMITTED, RedisStore, in_time};

async fn info(connection: &ConnectionManager) -> Result<InfoDict, Fault> {
    let mut connection = connection.clone();
    in_time(redis::cmd("INFO").query_async(&mut connection)).await
}

/// Refuses a server that is not the one to write to.
fn place(info: &InfoDict) -> Result<(), Fault> {
    let says = |name: &str| info.get::<String>(name).unwrap_or_default();
    // Valkey may say `server_mode` instead.
    if says("redis_mode") == "cluster" || says("cluster_enabled") == "1" {
        return Err(Fault::new(
            "the Redis server is part of a cluster, and this store needs one server",
        ));
    }
    if says("role") == "slave" {
        return Err(Fault::unavailable("the Redis server is a replica"));
    }
    Ok(())
}

/// Whether a server that was reached anew may be used. One that does not say is believed.
pub(crate) async fn primary(connection: &ConnectionManager) -> Result<(), Fault> {
    match info(connection).await {
        Ok(info) => place(&info),
        Err(fault) if fault.what() == NOT_PERMITTED => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Refuses a server that forgets by design, and warns of one that may.
pub(crate) async fn server(store: &RedisStore, unchecked: bool) -> Result<(), Fault> {
    let info = match info(&store.connection()).await {
        Ok(info) => info,
        Err(fault) if fault.what() != NOT_PERMITTED => return Err(fault),
        Err(_) => {
            tracing::warn!("Redis does not say what it keeps: see to its persistence and eviction");
            return Ok(());
        }
    };
    let says = |name: &str| info.get::<String>(name).unwrap_or_default();
    place(&info)?;
    if says("maxmemory") != "0" && !["", "noeviction"].contains(&&*says("maxmemory_policy")) {
        return Err(Fault::new(
            "the Redis server evicts records when its memory is full, and so forgets payments; \
             set `maxmemory-policy noeviction`",
        ));
    }
    let appends = says("aof_enabled") == "1";
    let get = redis::cmd("CONFIG")
        .arg("GET")
        .arg(if appends { "appendfsync" } else { "save" })
        .to_owned();
    let settings: Option<HashMap<String, String>> = store.ask(&get).await.ok();
    let setting = settings.and_then(|settings| settings.into_values().next());
    match (appends, setting.as_deref()) {
        (true, Some("always")) => {}
        (true, _) => tracing::warn!(
            "Redis may lose the payments of its last second in a crash; `appendfsync always` loses \
             none"
        ),
        (false, Some("")) if !unchecked => {
            return Err(Fault::new(
                "the Redis server keeps nothing on disk, and so forgets payments; set `appendonly \
                 yes` and `appendfsync always`, or say `?persistence=unchecked` in the URL",
            ));
        }
        (false, _) => tracing::warn!(
            "Redis forgets payments in a crash, those of minutes or all of them; set `appendonly \
             yes` and `appendfsync always`"
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a cluster is refused by what Redis and what Valkey call it.
    #[test]
    fn a_cluster_is_refused() {
        let refused = |text: &str| place(&InfoDict::new(text)).is_err();
        assert!(refused("redis_mode:cluster\r\nrole:master\r\n"));
        assert!(refused(
            "server_mode:cluster\r\nrole:master\r\ncluster_enabled:1\r\n"
        ));
        assert!(refused("redis_mode:standalone\r\nrole:slave\r\n"));
        assert!(!refused(
            "server_mode:standalone\r\nrole:master\r\ncluster_enabled:0\r\n"
        ));
    }
}

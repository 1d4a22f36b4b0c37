//! Whether a server can be trusted with payments.

use std::collections::HashMap;

use farebox_core::Fault;
use redis::InfoDict;

use crate::{NOT_PERMITTED, RedisStore};

/// Refuses a server that forgets by design, and warns of one that may.
pub(crate) async fn server(store: &RedisStore, unchecked: bool) -> Result<(), Fault> {
    let info: InfoDict = match store.ask(&redis::cmd("INFO")).await {
        Ok(info) => info,
        Err(fault) if fault.what() != NOT_PERMITTED => return Err(fault),
        Err(_) => {
            tracing::warn!("Redis does not say what it keeps: see to its persistence and eviction");
            return Ok(());
        }
    };
    let says = |name: &str| info.get::<String>(name).unwrap_or_default();
    if says("redis_mode") == "cluster" {
        return Err(Fault::new(
            "the Redis server is part of a cluster, and this store needs one server",
        ));
    }
    if says("role") == "slave" {
        return Err(Fault::unavailable("the Redis server is a replica"));
    }
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

//! The swap: one script, one key.

use std::{sync::Arc, time::Duration};

use redis::{Script, ScriptInvocation};

/// `SET` with `PX` counts from the server's clock at the start of the script.
const SWAP: &str = r"
local current = redis.call('GET', KEYS[1])
if ARGV[1] == 'absent' then
    if current then return 0 end
elseif current ~= ARGV[2] then
    return 0
end
if ARGV[3] == 'remove' then
    redis.call('DEL', KEYS[1])
elseif ARGV[5] == '' then
    redis.call('SET', KEYS[1], ARGV[4])
else
    redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1
";

/// Kept beyond what was asked: a replica that takes over may have a clock that is ahead.
const MARGIN: Duration = Duration::from_secs(2);

/// The script, which the server knows by its hash after its first use.
#[derive(Clone, Debug)]
pub(crate) struct Swap(Arc<Script>);

impl Swap {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Script::new(SWAP)))
    }

    pub(crate) fn call(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> ScriptInvocation<'_> {
        let mut call = self.0.key(key);
        call.arg(if expected.is_some() {
            "value"
        } else {
            "absent"
        });
        call.arg(expected.unwrap_or(""));
        call.arg(if next.is_some() { "set" } else { "remove" });
        call.arg(next.unwrap_or(""));
        call.arg(keep.and_then(milliseconds).unwrap_or_default());
        call
    }
}

/// `keep` in the server's unit. What is too long for it is kept until it is removed.
fn milliseconds(keep: Duration) -> Option<String> {
    const LIMIT: u128 = 1 << 52;
    let keep = keep.checked_add(MARGIN)?.as_millis().saturating_add(1);
    (keep < LIMIT).then(|| keep.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_ages_is_kept() {
        let text = |keep| milliseconds(keep);
        assert_eq!(text(Duration::from_millis(1)).as_deref(), Some("2002"));
        assert_eq!(text(Duration::MAX), None);
    }
}

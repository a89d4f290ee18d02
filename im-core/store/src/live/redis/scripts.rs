//! What changes Redis, as scripts: each is one step, so that no node sees a session without its announcement, and
//! nobody undoes what another node has done in between.
//!
//! A stored session begins with its node and token. A script that changes or removes one compares that beginning
//! first: an old session cannot touch its successor.

use super::super::{NodeId, Session};
use super::Keys;
use super::wire;
use redis::aio::ConnectionManager;
use redis::{FromRedisValue, RedisError, Script, ScriptInvocation};
use std::time::Duration;

/// KEYS: user, sessions of the node. ARGV: resource, record, field, channel, change. Returns what was there.
const PUT: &str = r"
local before = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return before
";

/// As above, and ARGV[6]: how the record must begin. Does nothing when another session is there.
const UPDATE: &str = r"
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before and string.sub(before, 1, #ARGV[6]) == ARGV[6] then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    redis.call('HSET', KEYS[2], ARGV[3], ARGV[2])
    redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 0
";

/// KEYS as above. ARGV: resource, field, channel, change, how the record must begin.
const REMOVE: &str = r"
for key, field in pairs({[KEYS[1]] = ARGV[1], [KEYS[2]] = ARGV[2]}) do
    local before = redis.call('HGET', key, field)
    if before and string.sub(before, 1, #ARGV[5]) == ARGV[5] then
        redis.call('HDEL', key, field)
    end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 0
";

/// KEYS: user, sessions of a dead node. ARGV: resource, field, how the record must begin.
const CLEAN: &str = r"
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before and string.sub(before, 1, #ARGV[3]) == ARGV[3] then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('HDEL', KEYS[2], ARGV[2])
return 0
";

/// KEYS: counter. ARGV: window in milliseconds.
const COUNT: &str = r"
local count = redis.call('INCR', KEYS[1])
if count == 1 then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return count
";

/// The scripts, with the hashes that Redis knows them by.
pub(super) struct Scripts {
    put: Script,
    update: Script,
    remove: Script,
    clean: Script,
    count: Script,
}

/// A script with its keys and arguments.
pub(super) struct Call<'a>(ScriptInvocation<'a>);

impl Call<'_> {
    pub(super) async fn run<T: FromRedisValue>(
        self,
        connection: &mut ConnectionManager,
    ) -> Result<T, RedisError> {
        self.0.invoke_async(connection).await
    }
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            put: Script::new(PUT),
            update: Script::new(UPDATE),
            remove: Script::new(REMOVE),
            clean: Script::new(CLEAN),
            count: Script::new(COUNT),
        }
    }

    pub(super) fn put(&self, keys: &Keys, session: &Session, change: &str) -> Call<'_> {
        let mut call = self.put.prepare_invoke();
        call.key(keys.user(&session.bare))
            .key(keys.sessions(&session.node))
            .arg(&*session.resource)
            .arg(wire::write_record(session))
            .arg(wire::field(session))
            .arg(keys.directory())
            .arg(change);
        Call(call)
    }

    pub(super) fn update(&self, keys: &Keys, session: &Session, change: &str) -> Call<'_> {
        let mut call = self.update.prepare_invoke();
        call.key(keys.user(&session.bare))
            .key(keys.sessions(&session.node))
            .arg(&*session.resource)
            .arg(wire::write_record(session))
            .arg(wire::field(session))
            .arg(keys.directory())
            .arg(change)
            .arg(wire::record_head(&session.node, Some(session.token)));
        Call(call)
    }

    pub(super) fn remove(&self, keys: &Keys, session: &Session, change: &str) -> Call<'_> {
        let mut call = self.remove.prepare_invoke();
        call.key(keys.user(&session.bare))
            .key(keys.sessions(&session.node))
            .arg(&*session.resource)
            .arg(wire::field(session))
            .arg(keys.directory())
            .arg(change)
            .arg(wire::record_head(&session.node, Some(session.token)));
        Call(call)
    }

    /// Removes a session of a dead node.
    pub(super) fn clean(
        &self,
        keys: &Keys,
        node: &NodeId,
        bare: &str,
        resource: &str,
        field: &str,
    ) -> Call<'_> {
        let mut call = self.clean.prepare_invoke();
        call.key(keys.user(bare))
            .key(keys.sessions(node))
            .arg(resource)
            .arg(field)
            .arg(wire::record_head(node, None));
        Call(call)
    }

    pub(super) fn count(&self, keys: &Keys, key: &str, window: Duration) -> Call<'_> {
        let mut call = self.count.prepare_invoke();
        call.key(keys.rate(key)).arg(u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1));
        Call(call)
    }
}

//! Keys of a cluster in the store. All have the hash tag `{NAME}`, so that a Redis Cluster keeps
//! them in one slot.

use super::names::NamesDigest;

/// Keys of one cluster.
#[derive(Debug, Clone)]
pub(super) struct StoreKeys {
    prefix: String,
}

impl StoreKeys {
    pub(super) fn new(cluster: &str) -> StoreKeys {
        StoreKeys {
            prefix: format!("ek:{{{cluster}}}:"),
        }
    }

    /// Report of a member.
    pub(super) fn member(&self, id: &str) -> String {
        format!("{}n:{id}", self.prefix)
    }

    /// Set of the ids of all members.
    pub(super) fn members(&self) -> String {
        format!("{}members", self.prefix)
    }

    /// List of names of this digest.
    pub(super) fn names(&self, digest: NamesDigest) -> String {
        format!("{}names:{}", self.prefix, digest.to_hex())
    }

    /// Hash of the operator's states.
    pub(super) fn operator(&self) -> String {
        format!("{}op", self.prefix)
    }

    /// Backend of a client.
    pub(super) fn client(&self, place: &str) -> String {
        format!("{}{place}", self.prefix)
    }

    /// Text that changes whenever that hash does.
    pub(super) fn mark(&self) -> String {
        format!("{}op:rev", self.prefix)
    }
}

/// Sets where a client belongs, unless the store has something else than this and what was before.
/// Returns what it has then.
pub(super) const CLAIM: &str = "\
local is = redis.call('TYPE', KEYS[1])['ok']
if is ~= 'string' and is ~= 'none' then redis.call('DEL', KEYS[1]) end
local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[1] and there ~= ARGV[2] then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]";

/// Sets a field of a hash, or takes it out (`""`), if it still is what the writer has seen, and
/// changes the mark. Keys that somebody has made something else of are made anew. `nil` and `""`
/// are both nothing.
pub(super) const SET_IF_SAME: &str = "\
local function of(key, kind)
  local is = redis.call('TYPE', key)['ok']
  if is ~= kind and is ~= 'none' then redis.call('DEL', key) end
end
of(KEYS[1], 'hash')
of(KEYS[2], 'string')
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
redis.call('SET', KEYS[2], ARGV[4])
return 1";

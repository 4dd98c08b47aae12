//! `hash_key` beside the listeners that use its pool: a key that no connection of theirs has would hash nothing.

use super::super::model::{Balance, HashKey, Listener, Pool, Protocol};
use super::super::table::Table;

/// Notes the keys of `pools` that none of `listeners` can give.
pub fn refuse_unknowable<'a>(
    pools: impl Iterator<Item = (&'a Table<'a>, &'a Pool)>,
    listeners: &[Listener],
) {
    for (table, pool) in pools {
        let Balance::Hash(key) = &pool.balance else {
            continue;
        };
        let mut users = listeners.iter().filter(|one| uses(one, &pool.name));
        // A pool that nobody uses yet hashes nothing, whatever its key.
        let used = users.clone().next().is_some();
        if used && !users.any(|listener| knows(listener, key)) {
            table.conflict("hash_key", why(key));
        }
    }
}

fn uses(listener: &Listener, pool: &str) -> bool {
    let routed = listener.routes.iter().map(|route| &route.pool);
    let mut targets = routed.chain(&listener.pool);
    targets.any(|target| target == pool)
}

fn knows(listener: &Listener, key: &HashKey) -> bool {
    match key {
        HashKey::Sni => listener.tls.is_some(),
        HashKey::Path | HashKey::Header(_) | HashKey::Query(_) | HashKey::Cookie(_) => {
            listener.protocol == Protocol::Websocket
        }
    }
}

fn why(key: &HashKey) -> &'static str {
    match key {
        HashKey::Sni => {
            "no listener of this pool has `tls`, so that no client says an SNI; allowed: `balance = \"ip_hash\"`, or a listener with `tls`"
        }
        _ => {
            "only a listener with protocol = \"websocket\" reads requests, and this pool has none; allowed: `balance = \"ip_hash\"`, or \"sni\" behind `tls`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, listener, right};

    fn hashed(key: &str, keys: &str) -> String {
        listener(keys).replace(
            "[pool.p]\n",
            &format!("[pool.p]\nbalance = \"hash\"\nhash_key = \"{key}\"\n"),
        )
    }

    #[test]
    fn a_key_that_no_listener_of_the_pool_knows_is_refused() {
        let tcp = "protocol = \"tcp\"\npool = \"p\"";
        let websocket = "protocol = \"websocket\"\npool = \"p\"";
        let at = "pool.p.hash_key";
        each_refused([
            (hashed("path", tcp), at, Fault::Conflict),
            (hashed("header:x", tcp), at, Fault::Conflict),
            (hashed("query:x", tcp), at, Fault::Conflict),
            (hashed("cookie:x", tcp), at, Fault::Conflict),
            (hashed("sni", tcp), at, Fault::Conflict),
            (hashed("sni", websocket), at, Fault::Conflict),
        ]);
    }

    #[test]
    fn one_listener_that_knows_the_key_is_enough() {
        let passthrough = "protocol = \"tcp\"\ntls = { passthrough = true }\npool = \"p\"";
        right(&hashed("sni", passthrough));
        let second = "[[listener]]\nname = \"w\"\nbind = \"[::]:81\"\nprotocol = \"websocket\"\n\
                      route = [{ path = \"/a\", pool = \"p\" }]\n";
        let tcp = "protocol = \"tcp\"\npool = \"p\"\n";
        right(&hashed("path", &format!("{tcp}{second}")));
    }
}

//! `[pool.NAME]`: a set of backends with one balancing algorithm, its checks and limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::affinity::{self, Affinity};
use super::backend::{self, Backend, InitState};
use super::backend_tls::{self, BackendTls, tls_or_flag};
use super::balance::Balance;
use super::check::Check;
use super::check_rules;
use super::discover::Discover;
use super::failover::{self, Failover, WhenAllDown};
use super::http::{self, Http};
use super::long_life::{Activity, Drain, Ping};
use super::outlier::Outlier;
use super::rebalance::{self, Rebalance};
use super::resume::{self, HEADER, Resume};
use super::retry_after::RetryAfter;
use super::socket::{self, Dial, ProxyVersion};
use super::sticky::{self, Sticky};
use crate::config::declare::{AsWritten, Declared, FromValue, HasKind, InParts, Parts};
use crate::config::error::ErrorKind;
use crate::config::hash_key::HashKey;
use crate::config::reader::TableReader;
use crate::config::spec::{COUNT_MAX, DAY, HOUR, ValueKind, YEAR, number, seconds, text, time};
use crate::config::value::ValueReader;
use crate::config::value_types;

table! {
    /// A set of backends with one balancing algorithm, its checks and limits.
    pub struct Pool {
        /// How a backend is chosen.
        balance: Balance, keys;
        /// Nodes of the pool. It needs some, or `discover`.
        backends as "backend": Vec<Backend>, empty;
        /// Nodes from DNS or from a registry, beside or in place of `backend`.
        discover: Option<Discover>, optional;
        /// Time limit of one connect to a backend. After 1.5 s without an answer another backend
        /// with room is tried.
        ///
        /// Covers one lost SYN (retransmitted after 1 s) and a second (after 3 s).
        connect_timeout: Duration = time(1, HOUR), default(seconds(5));
        /// Time without a byte either way after which a connection is closed.
        ///
        /// Long-lived connections are quiet for long; most ping well within it.
        idle_timeout: Duration = time(100, YEAR), default(seconds(3600));
        /// Time that a connection may go on that one side has ended.
        ///
        /// A peer that was told the end has this long to finish its own side.
        fin_timeout: Duration = time(100, DAY), default(seconds(30));
        /// Longest life of a session, give or take a tenth, for clients that are to come back now
        /// and then. Not of ordinary HTTP requests. Without it there is no bound.
        max_lifetime: Option<Duration> = time(1_000, YEAR), optional;
        /// Traffic that keeps a session from `idle_timeout`: any byte, or only the messages of a
        /// WebSocket and not its pings and pongs.
        ///
        /// Every byte of a peer says that it is there.
        activity: Activity, default(Activity::Any);
        /// WebSocket pings of our own. Without it there are none.
        ping: Option<Ping>, optional;
        /// How the connections of a drained backend are ended. Without it they end by themselves.
        drain: Option<Drain>, optional;
        /// Moves connections to a backend that was added or has come back. Without it they stay
        /// where they are.
        rebalance: Option<Rebalance>, optional;
        /// WebSockets that outlive their backend. Without it a session ends with its backend.
        resume: Option<Arc<Resume>>, empty by resume::resume;
        /// Field of each request that tells a backend its own name, so that it can say where its
        /// clients are. A client's own field of that name is dropped. Without it there is none.
        name_header: Option<Arc<str>> = text(HEADER),
            optional by value_types::text(resume::read_header);
        /// Time without the beginning of an answer to an HTTP request, which then is a 504;
        /// upgrades have `upgrade_timeout`.
        ///
        /// Above the long polls of the field: SignalR's take 90 to 120 s, Socket.IO's 25 s and a
        /// pong of 20 s.
        response_timeout: Duration = time(100, DAY), default(seconds(180));
        /// Time without a byte of the body of an HTTP request, which then is a 408. A body that
        /// takes longer as a whole must keep `min_body_rate`.
        ///
        /// As nginx's `client_body_timeout`: a client that sends nothing for longer holds a
        /// backend's connection for nothing.
        body_timeout: Duration = time(100, DAY), default(seconds(60));
        /// Further keys of HTTP requests.
        http: Http, keys;
        /// Further tries after a failed connect, each on another backend while there is one.
        ///
        /// Four backends tried in all: more only adds delay when a cluster is down.
        retries: u32 = number(0, 100), default(3);
        /// Failures after which a WebSocket's handshake is tried again: a failed connect always;
        /// with `empty_response` also a backend that took it and ended without a byte of an answer.
        ///
        /// A handshake that kills its backend must not go round the pool.
        retry_on: RetryOn, default(RetryOn::default());
        /// Connections that wait while all backends are full; 0 = refuse at once. It needs
        /// `max_connections` of backends.
        ///
        /// A full pool refuses at once; waiting is a choice.
        max_queue: usize = number(0, COUNT_MAX), default(0);
        /// Longest wait in that queue.
        ///
        /// Longer than a burst, shorter than a client's patience.
        queue_timeout: Duration = time(1, HOUR), default(QUEUE_TIMEOUT);
        /// Time over which the weight of a new or recovered backend grows to its full value; "0s" =
        /// none. Not with hashes.
        ///
        /// Off: it delays recovery unless nodes really need to warm up.
        slow_start: Duration = time(0, DAY), default(Duration::ZERO);
        /// Handling of a client when no backend can be used: `refuse` it, or `try` those that check
        /// or outlier hold down, never drained ones.
        ///
        /// A client that is refused at once may go to another site; one that waits for dead nodes
        /// may not.
        when_all_down: WhenAllDown, default(WhenAllDown::Refuse);
        /// Ejection after repeated connect failures.
        outlier: Outlier, nested;
        /// Live sessions as backends go down and come back.
        failover: Failover, nested;
        /// TLS towards the backends: `true`, or a table of details.
        tls: Option<BackendTls> = ValueKind::FlagOrTable(BackendTls::SPEC),
            default(None) by tls_or_flag;
        /// A signed cookie that brings a client back to its backend; on WebSocket listeners.
        /// Without it there is none.
        sticky: Option<Sticky>, optional;
        /// A client goes back to the backend that it had, by its address or by a key that it
        /// brings. Without it there is none.
        affinity: Option<Affinity>, optional;
        /// When clients that get a 503 may come again.
        retry_after: RetryAfter, nested;
        /// Active health checks. Without it there are none.
        check: Option<Check>, given;
        /// Version of the PROXY header that tells backends who the client is, before any other
        /// byte. Without it: none.
        send_proxy: Option<ProxyVersion>, optional;
        /// Sockets of the connections to backends, and of checks.
        dial: Dial, keys;
    }
    with {
        /// Name behind `pool.`.
        name: String,
    }
}

/// Longer than a burst, shorter than a client's patience.
const QUEUE_TIMEOUT: Duration = seconds(5);

/// Failures beyond a failed connect after which a WebSocket's handshake is sent to another backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// The backend took the handshake and ended without a byte of an answer.
    pub empty_response: bool,
}

const RETRY_ON: [&str; 2] = ["connect", "empty_response"];

impl FromValue for RetryOn {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        let words = value.words(&RETRY_ON);
        Some(RetryOn {
            empty_response: words.contains(&"empty_response"),
        })
    }
}

impl HasKind for RetryOn {
    const KIND: ValueKind = ValueKind::Words(|| RETRY_ON.to_vec());
}

impl AsWritten for RetryOn {
    fn as_written(&self, _: &ValueKind) -> Value {
        let count = 1 + usize::from(self.empty_response);
        json!(RETRY_ON.get(..count))
    }
}

/// A pool as the file has it.
pub(in crate::config) struct ReadPool<'a> {
    pub(in crate::config) table: TableReader<'a>,
    pub(in crate::config) name: String,
    /// `None`: wrong, which was noted.
    pub(in crate::config) pool: Option<Pool>,
}

/// Reads `pool`.
pub(in crate::config) fn pools<'a>(root: &TableReader<'a>) -> Vec<ReadPool<'a>> {
    let pools = root.named("pool").into_iter();
    pools
        .map(|(name, table)| ReadPool {
            pool: pool(&name, &table),
            name,
            table,
        })
        .collect()
}

/// `[pool]` by name.
pub(in crate::config) type Pools = BTreeMap<String, Pool>;

impl HasKind for Pools {
    const KIND: ValueKind = ValueKind::Named(Pool::SPEC);
}

fn pool(name: &str, table: &TableReader<'_>) -> Option<Pool> {
    let mut pool = Pool::parts(table);
    pool.name = Some(name.to_owned());
    if !table.has("discover") && !table.has("backend") {
        let needed = "`backend` or `discover`";
        table.missing("backend", "a pool without backends", needed);
    }
    // TLS that is wrong is TLS that was wanted.
    let has_tls = pool.tls.as_ref().is_none_or(Option::is_some);
    let send_proxy = pool.send_proxy.flatten();
    pool.check = table.optional("check", |value| {
        check_rules::check(&TableReader::within(value)?, has_tls, send_proxy)
    });
    refuse_queue(table, &pool);
    http::refuse_unkept(table, pool.http.as_ref(), send_proxy);
    refuse_by_algorithm(table, &pool);
    let resume = pool.resume.as_ref().and_then(Option::as_deref);
    let name_header = pool.name_header.as_ref().and_then(Option::as_deref);
    resume::refuse_same(table, name_header, resume);
    let has_backups = failover::has_backups(pool.backends.as_ref(), pool.discover.as_ref());
    failover::refuse_baseless(table, pool.failover.as_ref(), has_backups);
    refuse_init_state(table);
    if let Some(backends) = &pool.backends {
        refuse_backends(table, &pool, backends);
    }
    Pool::whole(pool)
}

fn refuse_backends(table: &TableReader<'_>, pool: &Parts<Pool>, backends: &[Backend]) {
    let list = table.value("backend");
    if let Some(list) = list.filter(|list| list.is_empty_list() && !table.has("discover")) {
        list.refuse(ErrorKind::Missing, "a pool without backends");
    }
    backend::refuse_same_names(table, backends);
    let tls = pool.tls.as_ref().and_then(Option::as_ref);
    backend_tls::refuse_nameless(table, tls, backends);
    let check = pool.check.as_ref().and_then(Option::as_ref);
    check_rules::refuse_unix(table, check, backends);
    if let Some(dial) = &pool.dial {
        socket::refuse_unreachable(table, dial, backends);
    }
    if pool.max_queue > Some(0) && !can_be_full(backends, pool.discover.as_ref()) {
        table.conflict(
            "max_queue",
            "no backend of this pool has `max_connections`, so no connection ever waits; it needs \
             `max_connections` on a backend or in `discover`",
        );
    }
}

/// Refuses backends that would stay down for ever.
fn refuse_init_state(pool: &TableReader<'_>) {
    if pool.has("check") {
        return;
    }
    for backend in pool.tables("backend") {
        if backend.optional("init_state", InitState::read) == Some(Some(InitState::Down)) {
            backend.conflict(
                "init_state",
                "without `check` in its pool the backend would stay down for ever",
            );
        }
    }
}

/// The default says nothing: a file may show every key.
fn refuse_queue(table: &TableReader<'_>, pool: &Parts<Pool>) {
    if pool.max_queue == Some(0) && pool.queue_timeout != Some(QUEUE_TIMEOUT) {
        table.conflict(
            "queue_timeout",
            "with `max_queue = 0` no connection waits: it needs `max_queue` above 0",
        );
    }
}

/// Refuses keys that `balance` gives no effect.
fn refuse_by_algorithm(table: &TableReader<'_>, pool: &Parts<Pool>) {
    let balance = pool.balance.as_ref();
    let grows = pool.slow_start.is_some_and(|time| !time.is_zero());
    if grows && balance.is_some_and(Balance::is_hash) {
        table.conflict(
            "slow_start",
            "slow_start has no effect on hash algorithms: changing weights would remap keys",
        );
    }
    rebalance::refuse_fixed(table, balance);
    let sticky = pool.sticky.as_ref().and_then(Option::as_ref);
    sticky::refuse_hashed(table, sticky, balance);
    let affinity = pool.affinity.as_ref().and_then(Option::as_ref);
    affinity::refuse_affinity(table, affinity, balance);
}

impl Pool {
    /// The part of a connection by which it is picked for, or known again; `None`: its address.
    pub fn request_key(&self) -> Option<&HashKey> {
        match (&self.balance, &self.affinity) {
            (Balance::Hash(key), _) => Some(key),
            (_, Some(affinity)) => affinity.key.as_ref(),
            _ => None,
        }
    }
}

/// Whether a backend has a limit. `discover` that is wrong counts as one.
fn can_be_full(backends: &[Backend], discover: Option<&Option<Discover>>) -> bool {
    let found = discover.is_none_or(|discover| {
        let discover = discover.as_ref();
        discover.is_some_and(|discover| discover.max_connections > 0)
    });
    found || backends.iter().any(|backend| backend.max_connections > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{each_refused, pool, right};

    #[test]
    fn each_wrong_value_is_refused() {
        let without = |keys: &str| {
            pool(keys).replace(
                "backend = [{ name = \"n\", address = \"10.0.0.1:80\" }]\n",
                "",
            )
        };
        let web = |keys: &str| pool(keys).replace("\"tcp\"", "\"websocket\"");
        each_refused([
            (
                pool("balance = \"leastconn\""),
                "pool.p.balance",
                ErrorKind::Value,
            ),
            (
                pool("balance = \"hash\""),
                "pool.p.hash_key",
                ErrorKind::Missing,
            ),
            (
                pool("hash_key = \"sni\""),
                "pool.p.hash_key",
                ErrorKind::Conflict,
            ),
            (
                pool("balance = \"hash\"\nhash_key = \"ip\""),
                "pool.p.hash_key",
                ErrorKind::Value,
            ),
            (
                pool("balance = \"ip_hash\"\nslow_start = \"1s\""),
                "pool.p.slow_start",
                ErrorKind::Conflict,
            ),
            (
                pool("connect_timeout = \"0s\""),
                "pool.p.connect_timeout",
                ErrorKind::Value,
            ),
            (
                pool("idle_timeout = \"366d\""),
                "pool.p.idle_timeout",
                ErrorKind::Value,
            ),
            (
                web("response_timeout = \"25h\""),
                "pool.p.response_timeout",
                ErrorKind::Value,
            ),
            (
                web("body_timeout = \"0s\""),
                "pool.p.body_timeout",
                ErrorKind::Value,
            ),
            (pool("retries = 101"), "pool.p.retries", ErrorKind::Value),
            (
                pool("retry_on = [\"timeout\"]"),
                "pool.p.retry_on[0]",
                ErrorKind::Value,
            ),
            (
                pool("queue_timeout = \"9s\""),
                "pool.p.queue_timeout",
                ErrorKind::Conflict,
            ),
            (
                pool("max_queue = 5"),
                "pool.p.max_queue",
                ErrorKind::Conflict,
            ),
            (
                pool("max_queue = 5\ndiscover = { dns = \"a:1\" }"),
                "pool.p.max_queue",
                ErrorKind::Conflict,
            ),
            (
                pool("outlier = { connect_failures = 0, window = \"9s\" }"),
                "pool.p.outlier.window",
                ErrorKind::Conflict,
            ),
            (
                pool("outlier = { connect_failures = 0, base_ejection_time = \"9s\" }"),
                "pool.p.outlier.base_ejection_time",
                ErrorKind::Conflict,
            ),
            (
                pool("outlier = { connect_failures = 0, max_ejection_time = \"9m\" }"),
                "pool.p.outlier.max_ejection_time",
                ErrorKind::Conflict,
            ),
            (
                pool("outlier = { window = \"0s\" }"),
                "pool.p.outlier.window",
                ErrorKind::Value,
            ),
            (
                pool("outlier = { base_ejection_time = \"6m\", max_ejection_time = \"5m\" }"),
                "pool.p.outlier.base_ejection_time",
                ErrorKind::Conflict,
            ),
            (
                pool("outlier = { max_ejection_time = \"400ms\" }"),
                "pool.p.outlier.max_ejection_time",
                ErrorKind::Conflict,
            ),
            (without(""), "pool.p.backend", ErrorKind::Missing),
            (
                without("backend = []"),
                "pool.p.backend",
                ErrorKind::Missing,
            ),
            (
                pool("[pool.\"a b\"]\nbackend = [{ address = \"a:1\" }]"),
                "pool.a b",
                ErrorKind::Value,
            ),
            (pool("[pool]\nq = 1"), "pool.q", ErrorKind::Type),
        ]);
    }

    #[test]
    fn a_hash_has_its_key() {
        let config = right(
            &pool("balance = \"hash\"\nhash_key = \"cookie:sid\"").replace("tcp", "websocket"),
        );
        assert_eq!(
            config.pools["p"].balance,
            Balance::Hash(HashKey::Cookie("sid".to_owned()))
        );
    }

    #[test]
    fn one_backend_that_can_be_full_is_enough_for_a_queue() {
        let limited = "max_connections = 1";
        right(&pool("max_queue = 5").replace(" }]", &format!(", {limited} }}]")));
        let discover = format!("discover = {{ dns = \"a:1\", {limited} }}");
        right(&pool(&format!("max_queue = 5\n{discover}")));
    }

    #[test]
    fn a_hash_may_say_that_it_has_no_slow_start() {
        right(&pool("balance = \"ip_hash\"\nslow_start = \"0s\""));
    }
}

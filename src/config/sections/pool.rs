//! `[pool.NAME]`: a set of backends with one balancing algorithm, its checks and limits.

use super::super::defaults;
use super::super::error::Fault;
use super::super::hash_key::ALLOWED as HASH_KEY;
use super::super::keys::{Absent, COUNT_MAX, DAY, HOUR, Kind, Section, YEAR, key, number, time};
use super::super::model::{
    Activity, Address, Backend, Balance, Check, Discover, Pool, ProxyVersion, RetryOn, WhenAllDown,
};
use super::super::table::Table;
use super::super::words::{Algorithm, RetryCause, words};
use super::{
    backend, backend_tls, check, discover, failover, long_life, outlier, rebalance, resume,
    retry_after, socket, sticky,
};

pub static POOL: Section = Section {
    doc: "A set of backends with one balancing algorithm, its checks and limits.",
    keys: &[
        key(
            "balance",
            Kind::Word(words::<Algorithm>),
            Absent::Text(defaults::BALANCE),
            "How a backend is chosen. `ip_hash` and `hash` keep a client, or a key, on its backend.",
        ),
        key(
            "hash_key",
            Kind::Text(HASH_KEY),
            Absent::None,
            "`balance = \"hash\"` only: what is hashed. A connection without it falls back to the client's address.",
        ),
        key(
            "backend",
            Kind::Tables(&backend::BACKEND),
            Absent::None,
            "The nodes. A pool needs some, or `discover`.",
        ),
        key(
            "discover",
            Kind::Table(&discover::DISCOVER),
            Absent::None,
            "Nodes from DNS, beside or in place of `backend`.",
        ),
        key(
            "connect_timeout",
            time(1, HOUR),
            Absent::Time(defaults::CONNECT_TIMEOUT),
            "Connect to a backend, per try.",
        ),
        key(
            "idle_timeout",
            time(100, YEAR),
            Absent::Time(defaults::IDLE_TIMEOUT),
            "A connection without a byte either way is closed.",
        ),
        key(
            "fin_timeout",
            time(100, DAY),
            Absent::Time(defaults::FIN_TIMEOUT),
            "How long a connection may go on that one side has ended.",
        ),
        key(
            "max_lifetime",
            time(1_000, YEAR),
            Absent::None,
            "Longest life of a session, give or take a tenth; for clients that are to come back now and then. Not of ordinary HTTP requests. Without it there is no bound.",
        ),
        key(
            "activity",
            Kind::Word(words::<Activity>),
            Absent::Text(defaults::ACTIVITY),
            "What keeps a session from `idle_timeout`: any byte, or only the messages of a WebSocket and not its pings and pongs.",
        ),
        key(
            "ping",
            Kind::Table(&long_life::PING),
            Absent::None,
            "WebSocket pings of our own. Without it there are none.",
        ),
        key(
            "drain",
            Kind::Table(&long_life::DRAIN),
            Absent::None,
            "How the connections of a drained backend are ended. Without it they end by themselves.",
        ),
        key(
            "rebalance",
            Kind::Table(&rebalance::REBALANCE),
            Absent::None,
            "Moves connections to a backend that was added or has come back. Without it they stay where they are.",
        ),
        key(
            "resume",
            Kind::Table(&resume::RESUME),
            Absent::None,
            "WebSockets that outlive their backend. Without it a session ends with its backend.",
        ),
        key(
            "name_header",
            Kind::Text(resume::HEADER),
            Absent::None,
            "The field of each request that tells a backend its own name, so that it can say where its clients are. A client's own field of that name is dropped. Without it there is none.",
        ),
        key(
            "response_timeout",
            time(100, DAY),
            Absent::Time(defaults::RESPONSE_TIMEOUT),
            "An HTTP request that the backend does not begin to answer for this long is a 504; upgrades have `upgrade_timeout`.",
        ),
        key(
            "body_timeout",
            time(100, DAY),
            Absent::Time(defaults::BODY_TIMEOUT),
            "An HTTP request of whose body the client sends no byte for this long is a 408.",
        ),
        key(
            "retries",
            number(0, 100),
            Absent::Number(defaults::RETRIES),
            "Further tries after a failed connect, each on another backend while there is one.",
        ),
        key(
            "retry_on",
            Kind::Words(words::<RetryCause>),
            Absent::Texts(defaults::RETRY_ON),
            "What the tries of a WebSocket's handshake repeat: a failed connect always; with `empty_response` also a backend that took the handshake and ended without a byte of an answer.",
        ),
        key(
            "max_queue",
            number(0, COUNT_MAX),
            Absent::Number(defaults::MAX_QUEUE),
            "Connections that wait while all backends are full; 0 = refuse at once. It needs `max_connections` of backends.",
        ),
        key(
            "queue_timeout",
            time(1, HOUR),
            Absent::Time(defaults::QUEUE_TIMEOUT),
            "Longest wait in that queue.",
        ),
        key(
            "slow_start",
            time(0, DAY),
            Absent::Time(defaults::SLOW_START),
            "Time over which the weight of a new or recovered backend grows to its full value; \"0s\" = none. Not with hashes.",
        ),
        key(
            "when_all_down",
            Kind::Word(words::<WhenAllDown>),
            Absent::Text(defaults::WHEN_ALL_DOWN),
            "What becomes of a client when no backend can be used: it is refused, or those that check or outlier hold down are tried.",
        ),
        key(
            "outlier",
            Kind::Table(&outlier::OUTLIER),
            Absent::None,
            "Ejection after repeated connect failures.",
        ),
        key(
            "failover",
            Kind::Table(&failover::FAILOVER),
            Absent::None,
            "What becomes of live sessions as backends go down and come back.",
        ),
        key(
            "tls",
            Kind::FlagOrTable(&backend_tls::TLS),
            Absent::Flag(false),
            "TLS towards the backends: `true`, or a table of details.",
        ),
        key(
            "sticky",
            Kind::Table(&sticky::STICKY),
            Absent::None,
            "A signed cookie that brings a client back to its backend; on WebSocket listeners. Without it there is none.",
        ),
        key(
            "retry_after",
            Kind::Table(&retry_after::RETRY_AFTER),
            Absent::None,
            "When clients that get a 503 may come again.",
        ),
        key(
            "check",
            Kind::Table(&check::CHECK),
            Absent::None,
            "Active health checks. Without it there are none.",
        ),
        key(
            "send_proxy",
            Kind::Word(words::<ProxyVersion>),
            Absent::None,
            "Tell backends who the client is by a PROXY header of this version, before any other byte. Without it: none.",
        ),
        socket::SOURCE,
        socket::TCP_KEEPALIVE,
        socket::TCP_USER_TIMEOUT,
        socket::TCP_CONGESTION,
    ],
};

pub fn decode(name: &str, table: &Table<'_>) -> Option<Pool> {
    let balance = balance(table);
    let backends = backends(table);
    if !table.has("discover") && !table.has("backend") {
        table.missing(
            "backend",
            "a pool without backends",
            "`backend` or `discover`",
        );
    }
    let slow_start = table.time("slow_start");
    if !slow_start.is_zero() && matches!(balance, Some(Balance::IpHash | Balance::Hash(_))) {
        table.conflict(
            "slow_start",
            "a growing weight would move keys about: hashes have no slow start",
        );
    }
    let (max_queue, queue_timeout) = (table.number("max_queue"), table.time("queue_timeout"));
    // The default says nothing: a file may show every key.
    if max_queue == 0 && queue_timeout != defaults::QUEUE_TIMEOUT {
        table.conflict(
            "queue_timeout",
            "without `max_queue` above 0 nobody waits: it needs `max_queue`",
        );
    }
    let discover = table
        .maybe_table("discover")
        .map(|table| discover::decode(&table));
    let tls = backend_tls::decode(table);
    // TLS that is wrong is TLS that was wanted.
    let has_tls = tls.as_ref().is_none_or(Option::is_some);
    let send_proxy = table.maybe_word("send_proxy");
    let dial = socket::dial(table, backends.as_deref());
    let check = table
        .maybe_table("check")
        .map(|table| check::decode(&table, has_tls, send_proxy));
    let failover = failover::decode(
        &table.table("failover"),
        table.has("check"),
        failover::has_backups(backends.as_deref(), discover.as_ref()),
    );
    let sticky = table
        .maybe_table("sticky")
        .map(|table| sticky::decode(&table, balance.as_ref()));
    let rebalance = table
        .maybe_table("rebalance")
        .map(|moves| rebalance::decode(table, &moves, balance.as_ref(), table.has("sticky")));
    let resume = table
        .maybe_table("resume")
        .map(|table| resume::decode(&table));
    let name_header = table.text_by("name_header", resume::header);
    let resumed = resume
        .as_ref()
        .and_then(|resume| resume.as_ref()?.as_deref());
    resume::refuse_same(table, name_header.as_deref(), resumed);
    let drain = table.maybe_table("drain");
    let drain = drain.map(|table| long_life::decode_drain(&table));
    let ping = table.maybe_table("ping");
    if let Some(backends) = &backends {
        backend_tls::refuse_nameless(table, tls.as_ref().and_then(Option::as_ref), backends);
        refuse_check_of_unix(table, check.as_ref().and_then(Option::as_ref), backends);
        if max_queue > 0 && !is_bounded(backends, discover.as_ref()) {
            table.conflict(
                "max_queue",
                "no backend of this pool has `max_connections`, so that nobody ever waits; it needs `max_connections` on a backend or in `discover`",
            );
        }
    }
    Some(Pool {
        name: name.to_owned(),
        connect_timeout: table.time("connect_timeout"),
        idle_timeout: table.time("idle_timeout"),
        fin_timeout: table.time("fin_timeout"),
        max_lifetime: table.maybe_time("max_lifetime"),
        activity: table.word("activity"),
        ping: ping.map(|table| long_life::decode_ping(&table)),
        drain: super::decoded(drain)?,
        rebalance: super::decoded(rebalance)?,
        resume: super::decoded(resume)?.flatten(),
        name_header,
        response_timeout: table.time("response_timeout"),
        body_timeout: table.time("body_timeout"),
        retries: table.number("retries"),
        retry_on: RetryOn {
            empty_response: table
                .words::<RetryCause>("retry_on")
                .contains(&RetryCause::EmptyResponse),
        },
        max_queue,
        queue_timeout,
        slow_start,
        when_all_down: table.word("when_all_down"),
        outlier: outlier::decode(&table.table("outlier")),
        failover: failover?,
        sticky: super::decoded(sticky)?,
        retry_after: retry_after::decode(&table.table("retry_after")),
        discover: super::decoded(discover)?,
        tls: tls?,
        check: super::decoded(check)?,
        send_proxy,
        dial,
        balance: balance?,
        backends: backends?,
    })
}

/// In place of a unix socket only a whole address can be checked: it has no part to take over.
fn refuse_check_of_unix(table: &Table<'_>, check: Option<&Check>, backends: &[Backend]) {
    let is_unix = |backend: &Backend| matches!(backend.address, Address::Unix(_));
    let Some(check) = check.filter(|_| backends.iter().any(is_unix)) else {
        return;
    };
    let (key, lacks) = match (check.port, check.address) {
        (Some(_), None) => ("port", "no IP address; give `address` too"),
        (None, Some(address)) if address.port.is_none() => {
            ("address", "no port; give the address with its port")
        }
        _ => return,
    };
    let why = format!("a backend of this pool is a unix socket: it has {lacks}");
    table.table("check").conflict(key, &why);
}

/// Whether a backend can be full. `discover` that is wrong says nothing.
fn is_bounded(backends: &[Backend], discover: Option<&Option<Discover>>) -> bool {
    let found =
        discover.is_some_and(|found| found.as_ref().is_none_or(|found| found.max_connections > 0));
    found || backends.iter().any(|backend| backend.max_connections > 0)
}

fn balance(table: &Table<'_>) -> Option<Balance> {
    let hash_key = table.text("hash_key");
    let algorithm = table.maybe_word("balance")?;
    if algorithm != Algorithm::Hash {
        table.conflict("hash_key", "only `balance = \"hash\"` has a key");
    } else if !table.has("hash_key") {
        table.missing("hash_key", "`balance = \"hash\"` without a key", HASH_KEY);
    }
    Some(match algorithm {
        Algorithm::RoundRobin => Balance::RoundRobin,
        Algorithm::LeastConn => Balance::LeastConn,
        Algorithm::IpHash => Balance::IpHash,
        Algorithm::Random => Balance::Random,
        Algorithm::Hash => Balance::Hash(hash_key?),
    })
}

fn backends(table: &Table<'_>) -> Option<Vec<Backend>> {
    let tables = table.tables("backend");
    if let Some(entry) = table.entry("backend").filter(|entry| entry.is_empty_list())
        && !table.has("discover")
    {
        entry.refuse(Fault::Missing, "a pool without backends");
    }
    let checked = table.has("check");
    let backends: Vec<_> = tables
        .iter()
        .map(|table| backend::decode(table, checked))
        .collect();
    let mut names = std::collections::BTreeSet::new();
    for (table, backend) in tables.iter().zip(&backends) {
        let Some(backend) = backend else { continue };
        if !names.insert(&backend.name) {
            let key = if table.has("name") { "name" } else { "address" };
            table.conflict(
                key,
                &format!(
                    "another backend of this pool has the name \"{}\"",
                    backend.name
                ),
            );
        }
    }
    backends.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::model::HashKey;
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

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
                Fault::Value,
            ),
            (
                pool("balance = \"hash\""),
                "pool.p.hash_key",
                Fault::Missing,
            ),
            (
                pool("hash_key = \"sni\""),
                "pool.p.hash_key",
                Fault::Conflict,
            ),
            (
                pool("balance = \"hash\"\nhash_key = \"ip\""),
                "pool.p.hash_key",
                Fault::Value,
            ),
            (
                pool("balance = \"ip_hash\"\nslow_start = \"1s\""),
                "pool.p.slow_start",
                Fault::Conflict,
            ),
            (
                pool("connect_timeout = \"0s\""),
                "pool.p.connect_timeout",
                Fault::Value,
            ),
            (
                pool("idle_timeout = \"366d\""),
                "pool.p.idle_timeout",
                Fault::Value,
            ),
            (
                web("response_timeout = \"25h\""),
                "pool.p.response_timeout",
                Fault::Value,
            ),
            (
                web("body_timeout = \"0s\""),
                "pool.p.body_timeout",
                Fault::Value,
            ),
            (pool("retries = 101"), "pool.p.retries", Fault::Value),
            (
                pool("retry_on = [\"timeout\"]"),
                "pool.p.retry_on[0]",
                Fault::Value,
            ),
            (
                pool("queue_timeout = \"9s\""),
                "pool.p.queue_timeout",
                Fault::Conflict,
            ),
            (pool("max_queue = 5"), "pool.p.max_queue", Fault::Conflict),
            (
                pool("max_queue = 5\ndiscover = { dns = \"a:1\" }"),
                "pool.p.max_queue",
                Fault::Conflict,
            ),
            (
                pool("outlier = { connect_failures = 0, window = \"9s\" }"),
                "pool.p.outlier.window",
                Fault::Conflict,
            ),
            (
                pool("outlier = { connect_failures = 0, base_ejection_time = \"9s\" }"),
                "pool.p.outlier.base_ejection_time",
                Fault::Conflict,
            ),
            (
                pool("outlier = { connect_failures = 0, max_ejection_time = \"9m\" }"),
                "pool.p.outlier.max_ejection_time",
                Fault::Conflict,
            ),
            (
                pool("outlier = { window = \"0s\" }"),
                "pool.p.outlier.window",
                Fault::Value,
            ),
            (
                pool("outlier = { base_ejection_time = \"6m\", max_ejection_time = \"5m\" }"),
                "pool.p.outlier.base_ejection_time",
                Fault::Conflict,
            ),
            (
                pool("outlier = { max_ejection_time = \"400ms\" }"),
                "pool.p.outlier.max_ejection_time",
                Fault::Conflict,
            ),
            (without(""), "pool.p.backend", Fault::Missing),
            (without("backend = []"), "pool.p.backend", Fault::Missing),
            (
                pool("[pool.\"a b\"]\nbackend = [{ address = \"a:1\" }]"),
                "pool.a b",
                Fault::Value,
            ),
            (pool("[pool]\nq = 1"), "pool.q", Fault::Type),
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

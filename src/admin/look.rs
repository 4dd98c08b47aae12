//! Takes a look at the server and its parts and writes it down as the views of `admin::view`.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use super::view::*;
use super::{jobs, process};
use crate::config::{Balance, Protocol};
use crate::net::memory::anonymous_bytes;
use crate::observe::{Refusal, RefusalCounts, dropped_log_lines};
use crate::pool::{Backend, Pool};
use crate::relay::{ConnectionInfo, Cursor, TablePage};
use crate::server::jobs::Job;
use crate::server::{ListenerState, ListenerStatus, Server};

pub(super) fn status(server: &Server) -> StatusView {
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: process(server),
        configuration: configuration(server),
        access_log: AccessLogView {
            dropped: server.journal().dropped(),
        },
        log: LogView {
            dropped: dropped_log_lines(),
        },
        listeners: listeners(server),
        pools: pools(server),
        jobs: running(server),
    }
}

fn running(server: &Server) -> Vec<JobView> {
    let jobs = server.jobs().list();
    // One that was aborted may still count what it leaves.
    let running = jobs
        .iter()
        .filter(|job| !job.is_over() && !job.is_aborted());
    running.map(|job| jobs::view(job)).collect()
}

pub(super) fn listeners(server: &Server) -> Vec<ListenerView> {
    server.listeners().iter().map(listener).collect()
}

pub(super) fn pools(server: &Server) -> Vec<PoolView> {
    server.pools().iter().map(|one| pool(server, one)).collect()
}

fn process(server: &Server) -> ProcessView {
    let uptime = server.started_at().elapsed().unwrap_or_default();
    let (in_progress, waiting) = server.handshakes().counts();
    ProcessView {
        id: std::process::id(),
        ready: server.ready(),
        started_at: stamp(server.started_at()),
        uptime_seconds: uptime.as_secs(),
        open_fds: process::open_fds(),
        max_fds: process::max_fds(),
        connections: server.limits().live(),
        setup_connections: server.limits().in_setup(),
        handshakes: in_progress as u64,
        waiting_handshakes: waiting as u64,
        max_connections: server.limits().max_connections(),
        relayed_sessions: server.relay().live(),
        buffered_bytes: server.relay().held_bytes(),
        anonymous_bytes: anonymous_bytes(),
        max_memory: server.limits().max_memory(),
        short_of_memory: server.limits().is_short_of_memory(),
    }
}

fn configuration(server: &Server) -> ConfigurationView {
    let reloads = server.reloads();
    ConfigurationView {
        file: server.source().file().display().to_string(),
        reloads_ok: reloads.ok,
        reloads_failed: reloads.failed,
        last_reload_at: reloads.last_at.map(stamp),
        last_error: reloads.last_error,
    }
}

fn listener(status: &ListenerStatus) -> ListenerView {
    let counters = &status.counters;
    let ends = counters
        .ends
        .seen()
        .into_iter()
        .map(|(end, count)| EndView {
            side: end.side.word().to_owned(),
            phase: end.phase.word().to_owned(),
            how: end.how.word().to_owned(),
            count,
        });
    let certificates = status
        .certificates
        .iter()
        .map(|certificate| CertificateView {
            cert: certificate.cert.display().to_string(),
            name: certificate.subject.clone(),
            not_after: stamp(certificate.not_after),
            days_left: days_left(certificate.not_after, SystemTime::now()),
        });
    ListenerView {
        name: status.name.clone(),
        bind: status.bind.to_string(),
        protocol: protocol_word(status.protocol).to_owned(),
        state: listener_word(status.state).to_owned(),
        live: read(&counters.live),
        accepted: read(&counters.accepted),
        refused: counters.refused.total(),
        refusals: refusals(&counters.refused),
        untracked: read(&counters.untracked),
        handshake_failures: read(&counters.handshake_failures),
        full_handshakes: read(&counters.full_handshakes),
        resumed_handshakes: read(&counters.resumed_handshakes),
        requests: read(&counters.requests),
        upgrades: read(&counters.upgrades),
        lost_frames: read(&counters.lost_frames),
        without_close: read(&counters.without_close),
        bytes_from_client: read(&counters.bytes_from_client),
        bytes_from_backend: read(&counters.bytes_from_backend),
        ends: ends.collect(),
        certificates: certificates.collect(),
        certificate_error: status.certificate_error.clone(),
    }
}

/// Rounded down: what ends within a day has none left.
fn days_left(end: SystemTime, now: SystemTime) -> i64 {
    const DAY: u64 = 24 * 3600;
    let days = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left.as_secs() / DAY),
        Err(past) => -days(past.duration().as_secs().div_ceil(DAY)),
    }
}

fn refusals(counts: &RefusalCounts) -> Vec<RefusalView> {
    let view = |&reason: &Refusal| RefusalView {
        reason: reason.word().to_owned(),
        count: counts.of(reason),
    };
    Refusal::ALL.iter().map(view).collect()
}

pub(super) fn pool(server: &Server, pool: &Pool) -> PoolView {
    let counters = pool.counters();
    let lookups = server.lookups(pool.name());
    let failing = lookups
        .as_ref()
        .map(|lookups| lookups.failing())
        .unwrap_or_default();
    let backends = pool.backends().into_iter().chain(pool.retired());
    let guard = server.guard(pool);
    let panic = guard.as_ref().and_then(|guard| guard.panic());
    PoolView {
        name: pool.name().to_string(),
        balance: balance_word(&pool.settings().balance).to_owned(),
        removed: server.is_removed(pool),
        queued: pool.queued() as u64,
        refused_no_backend: read(&counters.refused_no_backend),
        refused_full: read(&counters.refused_full),
        refused_queue_full: read(&counters.refused_queue_full),
        queue_timeouts: read(&counters.queue_timeouts),
        panic: panic.map(|why| why.to_string()),
        ended_by_health: guard.map_or(0, |guard| guard.ended()),
        retries: read(&counters.retries),
        redispatches: read(&counters.redispatches),
        lookups_ok: lookups
            .as_ref()
            .map_or(0, |lookups| read(&lookups.lookups_ok)),
        lookups_failed: lookups
            .as_ref()
            .map_or(0, |lookups| read(&lookups.lookups_failed)),
        failing_lookups: failing
            .into_iter()
            .map(|(name, error)| LookupView { name, error })
            .collect(),
        file_errors: file_errors(server, pool.name()),
        backends: backends.map(|one| backend(pool, &one)).collect(),
    }
}

fn file_errors(server: &Server, pool: &str) -> Vec<FileErrorView> {
    let files = server.pool_files();
    let of_pool = files.into_iter().filter(|one| one.pool == pool);
    let errors = of_pool.filter_map(|one| {
        let kind = one.kind.to_owned();
        one.error.map(|error| FileErrorView { kind, error })
    });
    errors.collect()
}

pub(super) fn backend(pool: &Pool, backend: &Backend) -> BackendView {
    let counters = backend.counters();
    let (at, error) = backend.last_error().unzip();
    BackendView {
        pool: pool.name().to_string(),
        name: backend.name().to_string(),
        address: backend.address().to_string(),
        endpoint: backend.endpoint().map(|endpoint| endpoint.to_string()),
        state: backend.state(Instant::now()).as_str().to_owned(),
        reason: backend.reason(),
        since: stamp(backend.since()),
        operator: backend.operator().as_str().to_owned(),
        check: check_word(pool, backend).to_owned(),
        weight: backend.weight(),
        backup: backend.backup(),
        max_connections: backend.max_connections(),
        removed: backend.is_retired(),
        live: backend.live(),
        connections: read(&counters.connections),
        connect_failures: read(&counters.connect_failures),
        last_error: error.map(|why| format!("connect to {}: {why}", backend.name())),
        last_error_at: at.map(stamp),
        requests: read(&counters.requests),
        bytes_from_client: read(&counters.bytes_from_client),
        bytes_from_backend: read(&counters.bytes_from_backend),
        checks_ok: read(&counters.checks_ok),
        checks_failed: read(&counters.checks_failed),
        state_changes: read(&counters.state_changes),
        ejections: read(&counters.ejections),
        resumed: read(&counters.resumed),
        not_resumed: read(&counters.not_resumed),
    }
}

pub(super) fn operated(pool: &Pool, one: &Backend, job: Option<&Job>) -> OperatedView {
    let backend = backend(pool, one);
    OperatedView {
        empty: backend.live == 0,
        backend,
        job: job.map(jobs::view),
    }
}

pub(super) fn operated_listener(
    status: &ListenerStatus,
    job: Option<&Job>,
) -> OperatedListenerView {
    let listener = listener(status);
    OperatedListenerView {
        empty: listener.live == 0,
        listener,
        job: job.map(jobs::view),
    }
}

pub(super) fn connections(server: &Server, page: &TablePage) -> ConnectionsView {
    ConnectionsView {
        connections: page.connections.iter().map(connection).collect(),
        next: page.next.map(Cursor::to_number),
        live: server.relay().live(),
    }
}

fn connection(connection: &ConnectionInfo) -> ConnectionView {
    let ConnectionInfo { summary, idle, tls } = connection;
    ConnectionView {
        id: summary.id,
        listener: summary.listener.to_string(),
        client: summary.client.to_string(),
        via: summary.via().map(str::to_owned),
        sni: summary.sni().map(str::to_owned),
        host: summary.host().map(str::to_owned),
        path: summary.path().map(str::to_owned),
        tag: summary.tag().map(str::to_owned),
        client_subject: summary.client_subject().map(str::to_owned),
        pool: summary.pool.as_deref().map(str::to_owned),
        backend: summary.backend.as_deref().map(str::to_owned),
        tls: *tls,
        age_seconds: summary.age.as_secs(),
        idle_seconds: idle.as_secs(),
        bytes_from_client: summary.bytes_from_client,
        bytes_from_backend: summary.bytes_from_backend,
    }
}

fn check_word(pool: &Pool, backend: &Backend) -> &'static str {
    match (&pool.settings().check, backend.check_up()) {
        (None, _) => "none",
        (Some(_), _) if !backend.is_checked() => "unchecked",
        (Some(_), true) => "up",
        (Some(_), false) => "down",
    }
}

fn balance_word(balance: &Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastConn => "least_conn",
        Balance::IpHash => "ip_hash",
        Balance::Random => "random",
        Balance::Hash(_) => "hash",
    }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Websocket => "websocket",
    }
}

fn listener_word(state: ListenerState) -> &'static str {
    match state {
        ListenerState::Listening => "listening",
        ListenerState::Draining => "draining",
        ListenerState::Stopped => "stopped",
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

pub(super) fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

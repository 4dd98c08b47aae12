//! Snapshot of the server and its parts, as the JSON of `admin::view`.

use std::time::{Instant, SystemTime};

use super::view::*;
use super::{cluster, filter, process};
use crate::base::units::format_duration;
use crate::config::{Balance, Protocol};
use crate::discovery::{FaultKind, LookupValues, MemberCounts, SetReport};
use crate::net::memory::anonymous_bytes;
use crate::observe::{Refusal, RefusalCounts, dropped_log_lines};
use crate::pool::{Backend, Pool};
use crate::relay::{ConnectionInfo, Cursor, TablePage};
use crate::server::jobs::{DrainRate, Job, JobAction, JobTarget};
use crate::server::{ListenerState, ListenerStatus, Server};
use crate::tls::CertificateFacts;

pub(super) fn status(server: &Server) -> StatusView {
    status_with(server, pools(server))
}

/// The status with pools that have no backends.
pub(super) fn status_of_pools(server: &Server) -> StatusView {
    let pools = server.pools();
    let totals = pools.iter().map(|one| pool_without_backends(server, one));
    status_with(server, totals.collect())
}

fn status_with(server: &Server, pools: Vec<PoolView>) -> StatusView {
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: process(server),
        configuration: configuration(server),
        access_log: LogView {
            dropped: server.journal().dropped(),
        },
        traces: server.journal().tracer().counters.values(),
        log: LogView {
            dropped: dropped_log_lines(),
        },
        listeners: listeners(server),
        pools,
        jobs: running(server),
        upgrade: upgrade(server),
        cluster: cluster::status(server),
    }
}

pub(super) fn upgrade(server: &Server) -> UpgradeView {
    let status = server.upgrade_status();
    let (at, reasons) = status.last_error.unzip();
    UpgradeView {
        totals: server.upgrade_totals(),
        last_error: reasons.unwrap_or_default(),
        last_error_at: at.map(stamp),
        longest_freeze_seconds: status.longest_freeze.as_secs_f64(),
        predecessor: status.predecessor.map(|one| PredecessorView {
            process: one.pid,
            version: one.version,
            connections: one.connections,
        }),
    }
}

fn running(server: &Server) -> Vec<JobView> {
    let jobs = server.jobs().list();
    // An aborted job may still count what it leaves.
    let running = jobs
        .iter()
        .filter(|job| !job.is_over() && !job.is_aborted());
    running.map(|one| job(one)).collect()
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
        about_to_stop: server.accepts() && !server.ready(),
        started_at: stamp(server.started_at()),
        uptime_seconds: uptime.as_secs(),
        open_fds: process::open_fds(),
        max_fds: process::max_fds(),
        gauges: ProcessGauges {
            connections: server.limits().live(),
            setup_connections: server.limits().in_setup(),
            handshakes: in_progress as u64,
            waiting_handshakes: waiting as u64,
            max_connections: server.limits().max_connections(),
            relayed_sessions: server.relay().live(),
            buffered_bytes: server.relay().held_bytes(),
            max_memory: server.limits().max_memory(),
        },
        anonymous_bytes: anonymous_bytes(),
        short_of_memory: server.limits().is_short_of_memory(),
    }
}

fn configuration(server: &Server) -> ConfigurationView {
    let reloads = server.reloads();
    let in_force = server.configuration();
    ConfigurationView {
        number: in_force.number,
        hash: in_force.hash.clone(),
        loaded_at: stamp(in_force.loaded_at),
        file: server.source().file().display().to_string(),
        reloads_ok: reloads.ok,
        reloads_failed: reloads.failed,
        last_reload_at: reloads.last_at.map(stamp),
        last_error: reloads.last_error,
    }
}

pub(super) fn configuration_text(server: &Server) -> ConfigurationTextView {
    let in_force = server.configuration();
    ConfigurationTextView {
        file: server.source().file().display().to_string(),
        number: in_force.number,
        hash: in_force.hash.clone(),
        loaded_at: stamp(in_force.loaded_at),
        text: in_force.text.to_string(),
    }
}

pub(super) fn hello(server: &Server) -> HelloEvent {
    HelloEvent {
        process: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: stamp(server.started_at()),
        configuration: server.configuration().number,
        resumed: false,
    }
}

pub(super) fn listener(status: &ListenerStatus) -> ListenerView {
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
    ListenerView {
        name: status.name.clone(),
        bind: status.bind.to_string(),
        protocol: protocol_word(status.protocol).to_owned(),
        state: listener_word(status.state).to_owned(),
        counters: counters.values(),
        refused: counters.refused.total(),
        refusals: refusals(&counters.refused),
        ends: ends.collect(),
        certificates: certificates(status),
        certificate_error: status.certificate_error.clone(),
    }
}

pub(super) fn certificates(status: &ListenerStatus) -> Vec<CertificateView> {
    let view = |certificate: &CertificateFacts| CertificateView {
        cert: certificate.cert.display().to_string(),
        name: certificate.subject.clone(),
        not_after: stamp(certificate.not_after),
        days_left: days_left(certificate.not_after, SystemTime::now()),
    };
    status.certificates.iter().map(view).collect()
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
    let backends = pool.backends().into_iter().chain(pool.retired());
    PoolView {
        backends: backends.map(|one| backend(pool, &one)).collect(),
        ..pool_without_backends(server, pool)
    }
}

pub(super) fn pool_without_backends(server: &Server, pool: &Pool) -> PoolView {
    let lookups = server.lookups(pool.name());
    let failing = lookups
        .as_ref()
        .map(|lookups| lookups.failing())
        .unwrap_or_default();
    let guard = server.guard(pool);
    let panic = guard.as_ref().and_then(|guard| guard.panic());
    PoolView {
        name: pool.name().to_string(),
        balance: balance_word(&pool.settings().balance).to_owned(),
        removed: server.is_removed(pool),
        queued: pool.queued() as u64,
        counters: pool.counters().values(),
        panic: panic.map(|why| why.to_string()),
        ended_by_health: guard.map_or(0, |guard| guard.ended()),
        lookups: lookups
            .as_ref()
            .map_or_else(LookupValues::default, |lookups| lookups.values()),
        discovery: lookups
            .as_ref()
            .and_then(|lookups| Some(discovery(&lookups.report()?, &failing))),
        failing_lookups: failing
            .into_iter()
            .map(|(name, error)| LookupView { name, error })
            .collect(),
        file_errors: file_errors(server, pool.name()),
        backends: Vec::new(),
    }
}

/// `failing`: names and sources whose latest lookup gave no answer.
fn discovery(report: &SetReport, failing: &[(String, String)]) -> DiscoveryView {
    let is_failing = failing.iter().any(|(name, _)| *name == report.source);
    let state = match report.last_good {
        _ if report.is_stale => "stale",
        _ if report.held.is_some() => "held",
        _ if is_failing => "failing",
        None => "waiting",
        Some(_) => "good",
    };
    let kinds = FaultKind::ALL.iter().zip(report.faults);
    let errors = kinds.map(|((_, word), count)| DiscoveryErrorView {
        reason: (*word).to_owned(),
        count,
    });
    let MemberCounts {
        ready,
        drain,
        absent,
    } = report.counts;
    DiscoveryView {
        source: report.source.clone(),
        state: state.to_owned(),
        age_seconds: report.last_good.map(|at| at.elapsed().as_secs()),
        revision: report.revision.clone(),
        skipped: report.skipped,
        first_skipped: report.first_skipped.clone(),
        held: report.held.map(|(_, left)| left as u64),
        ready,
        drain,
        absent,
        errors: errors.collect(),
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
        discovery: backend.discovery().as_str().to_owned(),
        check: check_word(pool, backend).to_owned(),
        check_reason: backend.check_reason(),
        weight: backend.weight(),
        backup: backend.backup(),
        max_connections: backend.max_connections(),
        removed: backend.is_retired(),
        live: backend.live(),
        counters: backend.counters().values(),
        last_error: error.map(|why| format!("connect to {}: {why}", backend.name())),
        last_error_at: at.map(stamp),
    }
}

pub(super) fn operated(
    pool: &Pool,
    one: &Backend,
    job: Option<&Job>,
    spread: Option<SpreadView>,
) -> OperatedView {
    OperatedView {
        cluster: spread,
        ..OperatedView::new(backend(pool, one), job.map(self::job))
    }
}

pub(super) fn operated_listener(
    status: &ListenerStatus,
    job: Option<&Job>,
) -> OperatedListenerView {
    OperatedListenerView::new(listener(status), job.map(self::job))
}

pub(super) fn connections(server: &Server, page: &TablePage) -> ConnectionsView {
    ConnectionsView {
        connections: page.connections.iter().map(connection).collect(),
        next: page.next.map(Cursor::to_number),
        live: server.relay().live(),
        matching: None,
    }
}

fn connection(connection: &ConnectionInfo) -> ConnectionView {
    let ConnectionInfo { summary, idle, tls } = connection;
    let names = &summary.names;
    ConnectionView {
        id: summary.id,
        listener: summary.listener.to_string(),
        client: summary.client.to_string(),
        via: names.via().map(str::to_owned),
        sni: names.sni().map(str::to_owned),
        host: names.host().map(str::to_owned),
        path: names.path().map(str::to_owned),
        tag: names.tag().map(str::to_owned),
        client_subject: names.client_subject().map(str::to_owned),
        pool: summary.pool.as_deref().map(str::to_owned),
        backend: summary.backend.as_deref().map(str::to_owned),
        tls: *tls,
        age_seconds: summary.age.as_secs(),
        idle_seconds: idle.as_secs(),
        bytes_from_client: summary.bytes_from_client,
        bytes_from_backend: summary.bytes_from_backend,
    }
}

pub(super) fn job(job: &Job) -> JobView {
    let DrainRate {
        rate,
        deadline,
        after,
        close_frame,
        is_local: _,
    } = &job.pace;
    let rate = rate.map(|rate| rate.to_string());
    let within = deadline.map(|deadline| format!("within {}", format_duration(deadline)));
    let after = (!after.is_zero()).then(|| format!("after {}", format_duration(*after)));
    let pace: Vec<String> = [rate, within, after].into_iter().flatten().collect();
    JobView {
        id: job.id,
        by: job.origin.as_str().to_owned(),
        target: target_name(job),
        phase: job.phase().as_str().to_owned(),
        moves: job.action == JobAction::Move,
        ended: job.ended(),
        left: job.left(),
        left_seconds: job.left_in().map(|left| left.as_secs()),
        pace: pace.join(", "),
        code: close_frame.code,
        started_at: stamp(job.started_at),
    }
}

fn target_name(job: &Job) -> String {
    match &job.target {
        JobTarget::Backend(backend) => format!("{}/{}", backend.pool(), backend.name()),
        JobTarget::Pool(pool) => format!("{} (rebalance)", pool.name()),
        JobTarget::Listener(listener) => format!("listener {}", listener.name),
        JobTarget::Filter(filter) if job.action == JobAction::Move => {
            format!("move of {}", filter::describe(filter))
        }
        JobTarget::Filter(filter) => filter::describe(filter),
    }
}

pub(super) fn check_word(pool: &Pool, backend: &Backend) -> &'static str {
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

pub(super) fn listener_word(state: ListenerState) -> &'static str {
    match state {
        ListenerState::Listening => "listening",
        ListenerState::Draining => "draining",
        ListenerState::Stopped => "stopped",
    }
}

fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

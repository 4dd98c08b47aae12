//! `/metrics`: the same look at the server as `status`, in the OpenMetrics text format. Labels are the names of
//! listeners, pools and backends and closed sets of words, never a client's address.

mod certificates;
mod listeners;
mod page;
mod pools;

use std::fmt;
use std::time::SystemTime;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::{Registry, Unit};

use page::{MetricsPage, alone, epoch_seconds};

use super::refused::{RefusalRow, RefusalTotals};
use super::reply::ApiError;
use super::view::StatusView;
use super::{look, process};
use crate::server::{PoolFileStatus, Server};
use crate::tls::CertificateFacts;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn text(server: &Server, refused: &RefusalTotals) -> Result<String, ApiError> {
    let broken = |_| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be written",
        )
    };
    write(Snapshot::take(server, refused)).map_err(broken)
}

fn write(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut process = Registry::with_prefix("process");
    process.register_collector(Box::new(ProcessPage(snapshot.clone())));
    let mut own = Registry::with_prefix("evenkeel");
    own.register_collector(Box::new(OwnPage(snapshot)));
    let mut page = String::new();
    text::encode_registry(&mut page, &process)?;
    text::encode_registry(&mut page, &own)?;
    text::encode_eof(&mut page)?;
    Ok(page)
}

/// Everything that is shown, taken at one moment.
#[derive(Debug, Clone)]
struct Snapshot {
    status: StatusView,
    started_at: SystemTime,
    last_reload_ok_at: Option<SystemTime>,
    certificates: Vec<CertificateEnd>,
    /// Name of each that terminates TLS, and whether its files as they are now serve.
    tls_files: Vec<(String, bool)>,
    pool_files: Vec<PoolFileStatus>,
    /// Of the endpoints.
    refused: Vec<RefusalRow>,
    resident_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
}

#[derive(Debug, Clone)]
struct CertificateEnd {
    listener: String,
    /// Its file.
    cert: String,
    name: String,
    not_after: SystemTime,
}

impl Snapshot {
    fn take(server: &Server, refused: &RefusalTotals) -> Snapshot {
        let listeners = server.listeners();
        let above = server.endpoint_tls();
        let certificates = listeners
            .iter()
            .map(|one| (one.name.as_str(), one.certificates.clone()));
        let certificates = certificates
            .chain(above.iter().map(|one| (one.name(), one.certificates())))
            .flat_map(|(listener, certificates)| {
                let end = move |one: CertificateFacts| CertificateEnd {
                    listener: listener.to_owned(),
                    cert: one.cert.display().to_string(),
                    name: one.subject,
                    not_after: one.not_after,
                };
                certificates.into_iter().map(end)
            });
        let terminating = listeners.iter().filter(|one| !one.certificates.is_empty());
        let tls_files = terminating
            .map(|one| (one.name.clone(), one.certificate_error.is_none()))
            .chain(
                above
                    .iter()
                    .map(|one| (one.name().to_owned(), one.error().is_none())),
            )
            .collect();
        Snapshot {
            status: look::status(server),
            started_at: server.started_at(),
            last_reload_ok_at: server.reloads().last_ok_at,
            certificates: certificates.collect(),
            tls_files,
            pool_files: server.pool_files(),
            refused: refused.rows(),
            resident_bytes: process::resident_bytes(),
            cpu_seconds: process::cpu_seconds(),
        }
    }
}

/// The names that Prometheus' own client libraries use.
#[derive(Debug)]
struct ProcessPage(Snapshot);

impl Collector for ProcessPage {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = MetricsPage(encoder);
        let process = &self.0.status.process;
        page.gauge(
            "open_fds",
            "File descriptors open",
            None,
            alone(process.open_fds),
        )?;
        page.gauge(
            "max_fds",
            "File descriptors that may be open",
            None,
            alone(process.max_fds),
        )?;
        let resident = alone(self.0.resident_bytes);
        page.gauge(
            "resident_memory",
            "Resident memory",
            Some(Unit::Bytes),
            resident,
        )?;
        let used = alone(self.0.cpu_seconds);
        page.counter("cpu", "User and system time", Some(Unit::Seconds), used)?;
        let started = alone(Some(epoch_seconds(self.0.started_at)));
        page.gauge(
            "start_time",
            "Start, since the epoch",
            Some(Unit::Seconds),
            started,
        )
    }
}

#[derive(Debug)]
struct OwnPage(Snapshot);

impl Collector for OwnPage {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = MetricsPage(encoder);
        self.encode_process(&mut page)?;
        self.encode_endpoints(&mut page)?;
        listeners::encode(&self.0.status.listeners, &mut page)?;
        certificates::encode(&self.0.certificates, &self.0.tls_files, &mut page)?;
        certificates::encode_pool_files(&self.0.pool_files, &mut page)?;
        pools::encode(&self.0.status.pools, &mut page)
    }
}

impl OwnPage {
    fn encode_endpoints(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let rows = self.0.refused.iter().map(|row| {
            let labels = vec![("endpoint", row.endpoint), ("reason", row.reason)];
            (labels, row.count)
        });
        let help = "Connections and requests to [admin] and [metrics] that were turned away";
        page.counter("endpoint_refused_connections", help, None, rows)
    }

    fn encode_process(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let StatusView {
            version,
            process,
            configuration,
            access_log,
            log,
            ..
        } = &self.0.status;
        let build = [(vec![("version", version.as_str())], 1)];
        page.gauge("build_info", "The version that runs", None, build)?;
        page.gauge(
            "ready",
            "1 until the process is stopping",
            None,
            alone(Some(process.ready.into())),
        )?;
        let now = [
            (
                "connections",
                "Client connections open",
                process.connections,
            ),
            (
                "setup_connections",
                "Of these, not yet relayed",
                process.setup_connections,
            ),
            (
                "handshakes",
                "TLS handshakes in progress",
                process.handshakes,
            ),
            (
                "waiting_handshakes",
                "TLS handshakes that wait for their turn",
                process.waiting_handshakes,
            ),
            (
                "max_connections",
                "Client connections that may be open",
                process.max_connections,
            ),
            (
                "relayed_sessions",
                "Sessions that bytes are moved for",
                process.relayed_sessions,
            ),
        ];
        for (name, help, value) in now {
            page.gauge(name, help, None, alone(Some(value)))?;
        }
        page.gauge(
            "buffered",
            "Held for peers that do not take it",
            Some(Unit::Bytes),
            alone(Some(process.buffered_bytes)),
        )?;
        page.gauge(
            "anonymous_memory",
            "Memory that the kernel cannot drop",
            Some(Unit::Bytes),
            alone(process.anonymous_bytes),
        )?;
        page.gauge(
            "max_memory",
            "Above so much of it new connections are refused; 0: no bound",
            Some(Unit::Bytes),
            alone(Some(process.max_memory)),
        )?;
        let reloads = [
            ("ok", configuration.reloads_ok),
            ("failed", configuration.reloads_failed),
        ];
        let reloads = reloads.map(|(result, count)| (vec![("result", result)], count));
        page.counter("reloads", "Reloads by result", None, reloads)?;
        let refused = configuration.last_error.is_some().into();
        page.gauge(
            "configuration_error",
            "1 while the latest reload was refused",
            None,
            alone(Some(refused)),
        )?;
        let succeeded = alone(self.0.last_reload_ok_at.map(epoch_seconds));
        let help = "Latest reload that was applied, since the epoch";
        page.gauge(
            "last_reload_success_timestamp",
            help,
            Some(Unit::Seconds),
            succeeded,
        )?;
        let dropped = alone(Some(access_log.dropped));
        page.counter(
            "access_log_dropped_lines",
            "Access-log lines that were lost",
            None,
            dropped,
        )?;
        page.counter(
            "log_dropped_lines",
            "Lines of the process's own log that were lost",
            None,
            alone(Some(log.dropped)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::view::*;

    fn backend(name: &str) -> BackendView {
        BackendView {
            pool: "chat".into(),
            name: name.into(),
            address: "10.0.0.1:9501".into(),
            endpoint: Some("10.0.0.1:9501".into()),
            state: "up".into(),
            reason: String::new(),
            since: String::new(),
            operator: "ready".into(),
            check: "up".into(),
            weight: 1,
            backup: false,
            max_connections: 0,
            removed: false,
            live: 3,
            connections: 12,
            connect_failures: 1,
            last_error: None,
            last_error_at: None,
            requests: 2,
            bytes_from_client: 100,
            bytes_from_backend: 200,
            checks_ok: 5,
            checks_failed: 6,
            state_changes: 7,
            ejections: 8,
            resumed: 9,
            not_resumed: 10,
        }
    }

    fn pool() -> PoolView {
        PoolView {
            name: "chat".into(),
            balance: "least_conn".into(),
            removed: false,
            queued: 1,
            refused_no_backend: 2,
            refused_full: 3,
            refused_queue_full: 4,
            queue_timeouts: 5,
            panic: Some("none can be used".into()),
            ended_by_health: 13,
            retries: 6,
            redispatches: 7,
            lookups_ok: 8,
            lookups_failed: 9,
            file_errors: Vec::new(),
            failing_lookups: Vec::new(),
            backends: vec![backend("n1"), backend("quote\"d\\\n")],
        }
    }

    fn listener() -> ListenerView {
        ListenerView {
            name: "chat".into(),
            bind: "127.0.0.1:1".into(),
            protocol: "tcp".into(),
            state: "listening".into(),
            live: 1,
            accepted: 2,
            refused: 3,
            refusals: vec![RefusalView {
                reason: "denied".into(),
                count: 3,
            }],
            untracked: 0,
            handshake_failures: 4,
            full_handshakes: 11,
            resumed_handshakes: 12,
            requests: 5,
            upgrades: 6,
            lost_frames: 10,
            without_close: 11,
            bytes_from_client: 7,
            bytes_from_backend: 8,
            ends: vec![EndView {
                side: "client".into(),
                phase: "relay".into(),
                how: "fin".into(),
                count: 9,
            }],
            certificates: Vec::new(),
            certificate_error: None,
        }
    }

    fn snapshot() -> Snapshot {
        let process = ProcessView {
            id: 1,
            ready: true,
            started_at: String::new(),
            uptime_seconds: 1,
            open_fds: Some(20),
            max_fds: None,
            connections: 31,
            setup_connections: 1,
            handshakes: 2,
            waiting_handshakes: 3,
            max_connections: 9000,
            relayed_sessions: 30,
            buffered_bytes: 4096,
            anonymous_bytes: Some(8192),
            max_memory: 1 << 30,
            short_of_memory: false,
        };
        let configuration = ConfigurationView {
            file: "balancer.toml".into(),
            reloads_ok: 1,
            reloads_failed: 2,
            last_reload_at: None,
            last_error: Some("bad".into()),
        };
        let status = StatusView {
            version: "1.2.3".into(),
            process,
            configuration,
            access_log: AccessLogView { dropped: 10 },
            log: LogView { dropped: 13 },
            listeners: vec![listener()],
            jobs: Vec::new(),
            pools: vec![pool()],
        };
        Snapshot {
            status,
            started_at: SystemTime::UNIX_EPOCH,
            last_reload_ok_at: None,
            certificates: vec![CertificateEnd {
                listener: "chat".into(),
                cert: "chat.pem".into(),
                name: "chat.test".into(),
                not_after: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(77),
            }],
            tls_files: vec![("chat".into(), false)],
            pool_files: vec![PoolFileStatus {
                pool: "chat".into(),
                kind: "tls",
                error: None,
            }],
            refused: RefusalTotals::default().rows(),
            resident_bytes: Some(4096),
            cpu_seconds: Some(1.5),
        }
    }

    /// The name of a sample line, after a check of its form: `name{key="value",...} number`.
    fn sample_name(line: &str) -> &str {
        let (series, value) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("no value: {line}"));
        assert!(value.parse::<f64>().is_ok(), "no number: {line}");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(labels.ends_with('}'), "open labels: {line}");
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "bad name: {line}"
        );
        name
    }

    #[test]
    fn the_page_is_valid_text_with_one_family_per_name() {
        let page = write(snapshot()).unwrap();
        assert!(page.ends_with("# EOF\n"), "{page}");
        let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
        let mut family = String::new();
        for line in page.lines().filter(|line| *line != "# EOF") {
            match line.strip_prefix("# ") {
                Some(about) if about.starts_with("TYPE ") => {
                    family = about.split(' ').nth(1).unwrap().to_owned();
                    assert!(families.insert(family.clone()), "twice: {family}");
                }
                Some(_) => {}
                None => {
                    let name = sample_name(line);
                    assert!(
                        name.strip_prefix(&family)
                            .is_some_and(|rest| matches!(rest, "" | "_total")),
                        "{line}"
                    );
                    let (labels, _) = line.rsplit_once(' ').unwrap();
                    assert!(series.insert(labels.to_owned()), "twice: {line}");
                }
            }
        }
        assert!(families.len() > 30);
    }

    #[test]
    fn counters_and_units_follow_the_conventions() {
        let page = write(snapshot()).unwrap();
        for line in [
            "process_cpu_seconds_total 1.5",
            "process_resident_memory_bytes 4096",
            "process_open_fds 20",
            "evenkeel_build_info{version=\"1.2.3\"} 1",
            "evenkeel_reloads_total{result=\"failed\"} 2",
            "evenkeel_configuration_error 1",
            "evenkeel_access_log_dropped_lines_total 10",
            "evenkeel_log_dropped_lines_total 13",
            "evenkeel_listener_from_client_bytes_total{listener=\"chat\"} 7",
            "evenkeel_listener_ends_total{listener=\"chat\",side=\"client\",phase=\"relay\",how=\"fin\"} 9",
            "evenkeel_certificate_expiry_timestamp_seconds{listener=\"chat\",cert=\"chat.pem\",name=\"chat.test\"} 77",
            "evenkeel_certificate_error{listener=\"chat\"} 1",
            "evenkeel_listener_handshakes_total{listener=\"chat\",kind=\"full\"} 11",
            "evenkeel_listener_handshakes_total{listener=\"chat\",kind=\"resumed\"} 12",
            "evenkeel_pool_refused_connections_total{pool=\"chat\",reason=\"full\"} 3",
            "evenkeel_pool_panic{pool=\"chat\"} 1",
            "evenkeel_pool_failover_ended_connections_total{pool=\"chat\"} 13",
            "evenkeel_backend_live_connections{pool=\"chat\",backend=\"n1\"} 3",
            "evenkeel_backend_state{pool=\"chat\",backend=\"n1\",state=\"up\"} 1",
            "evenkeel_backend_state{pool=\"chat\",backend=\"n1\",state=\"down\"} 0",
        ] {
            assert!(
                page.lines().any(|shown| shown == line),
                "{line} is not in\n{page}"
            );
        }
    }

    #[test]
    fn what_is_not_known_has_no_sample() {
        let page = write(snapshot()).unwrap();
        assert!(
            !page
                .lines()
                .any(|line| line.starts_with("process_max_fds "))
        );
        assert!(
            !page
                .lines()
                .any(|line| line.starts_with("evenkeel_last_reload_success_timestamp_seconds "))
        );
    }
}

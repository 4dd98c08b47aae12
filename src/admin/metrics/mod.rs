//! `/metrics`: the same data as `status`, and histograms, as text. Labels are the names of
//! listeners, pools and backends and closed sets of words, never a client's address.

mod certificates;
mod cluster;
mod format;
mod listeners;
mod page;
mod pools;
mod process;
mod scrape;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use format::ClassicText;
use page::MetricsPage;
use scrape::Scrape;

use super::page_body::{self, PageBody, PageWriter};
use super::refusals::RefusalTotals;
use crate::server::Server;

pub(super) use format::PageFormat;

/// A page that is written on a thread for work that blocks: it reads each backend for each of its
/// metrics, and waits for a client that reads slowly.
pub(super) fn page(
    server: &Arc<Server>,
    refused: &Arc<RefusalTotals>,
    per_backend: bool,
    format: PageFormat,
) -> PageBody {
    let (writer, body) = page_body::page();
    let (server, refused) = (Arc::clone(server), Arc::clone(refused));
    tokio::task::spawn_blocking(move || {
        // The client that went away misses nothing, and any other fault breaks its answer off.
        let _ = stream(Scrape::of(&server, &refused, per_backend), format, writer);
    });
    body
}

fn stream(scrape: Scrape, format: PageFormat, mut writer: PageWriter) -> fmt::Result {
    match format {
        PageFormat::Classic => write(scrape, &mut ClassicText::new(&mut writer))?,
        PageFormat::OpenMetrics => write(scrape, &mut writer)?,
    }
    writer.finish()
}

fn write(scrape: Scrape, page: &mut impl fmt::Write) -> fmt::Result {
    let scrape = Arc::new(scrape);
    for (prefix, encode) in [
        ("process", process::encode_process as Encode),
        ("evenkeel", encode_own),
    ] {
        let scrape = Arc::clone(&scrape);
        let mut registry = Registry::with_prefix(prefix);
        registry.register_collector(Box::new(ScrapeCollector { scrape, encode }));
        text::encode_registry(page, &registry)?;
    }
    text::encode_eof(page)
}

type Encode = fn(&Scrape, &mut MetricsPage<'_>) -> fmt::Result;

fn encode_own(scrape: &Scrape, page: &mut MetricsPage<'_>) -> fmt::Result {
    process::encode_own(scrape, page)?;
    cluster::encode(scrape.status.cluster.as_ref(), page)?;
    listeners::encode(scrape, page)?;
    certificates::encode(scrape, page)?;
    pools::encode(scrape, page)
}

/// Metrics under one prefix.
#[derive(Debug)]
struct ScrapeCollector {
    scrape: Arc<Scrape>,
    encode: Encode,
}

impl Collector for ScrapeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.encode)(&self.scrape, &mut MetricsPage(encoder))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::scrape::CertificateEnd;
    use super::*;
    use crate::admin::view::*;
    use crate::config;
    use crate::discovery::LookupValues;
    use crate::observe::{Journal, ListenerCounters, ListenerValues};
    use crate::pool::{Backend, BackendRequest, Lease, Pool, PoolValues};
    use crate::server::PoolFileStatus;

    /// Backends with a connection each, and what holds these.
    fn backends() -> (Vec<Arc<Backend>>, Vec<Lease>) {
        let text = "[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\npool = 'chat'\n\
                    [pool.chat]\nbackend = [{ name = 'n1', address = '127.0.0.1:1' }, { name = 'n2', address = '127.0.0.1:2' }]";
        let config = config::parse(text, Path::new("test.toml")).unwrap();
        let mut settings = config.pools["chat"].clone();
        settings.backends[1].name = "quote\"d\\\n".to_owned();
        let pool = Pool::new(&settings);
        let take = |_| {
            pool.acquire_now(&BackendRequest::default())
                .unwrap()
                .unwrap()
        };
        let leases = (0..2).map(take).collect();
        (pool.backends(), leases)
    }

    fn pool() -> PoolView {
        PoolView {
            name: "chat".into(),
            balance: "least_conn".into(),
            removed: false,
            queued: 1,
            counters: PoolValues {
                refused_no_backend: 2,
                refused_full: 3,
                ..PoolValues::default()
            },
            panic: Some("none can be used".into()),
            ended_by_health: 13,
            lookups: LookupValues::default(),
            file_errors: Vec::new(),
            discovery: Some(DiscoveryView {
                source: "consul chat".into(),
                state: "held".into(),
                age_seconds: Some(7),
                revision: "41".into(),
                skipped: 0,
                first_skipped: None,
                held: Some(1),
                ready: 4,
                drain: 1,
                absent: 2,
                errors: vec![DiscoveryErrorView {
                    reason: "timeout".into(),
                    count: 6,
                }],
            }),
            failing_lookups: Vec::new(),
            backends: Vec::new(),
        }
    }

    fn listener() -> ListenerView {
        ListenerView {
            name: "chat".into(),
            bind: "127.0.0.1:1".into(),
            protocol: "tcp".into(),
            state: "listening".into(),
            counters: ListenerValues {
                live: 1,
                accepted: 2,
                full_handshakes: 11,
                resumed_handshakes: 12,
                bytes_from_client: 7,
                ..ListenerValues::default()
            },
            refused: 3,
            refusals: vec![RefusalView {
                reason: "denied".into(),
                count: 3,
            }],
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

    fn scrape() -> Scrape {
        let process = ProcessView {
            id: 1,
            ready: true,
            started_at: String::new(),
            uptime_seconds: 1,
            open_fds: Some(20),
            max_fds: None,
            gauges: ProcessGauges {
                connections: 31,
                max_connections: 9000,
                ..ProcessGauges::default()
            },
            anonymous_bytes: Some(8192),
            short_of_memory: false,
            about_to_stop: false,
        };
        let configuration = ConfigurationView {
            file: "balancer.toml".into(),
            number: 2,
            hash: String::new(),
            loaded_at: String::new(),
            reloads_ok: 1,
            reloads_failed: 2,
            last_reload_at: None,
            last_error: Some("bad".into()),
        };
        let status = StatusView {
            version: "1.2.3".into(),
            process,
            configuration,
            access_log: LogView { dropped: 10 },
            traces: crate::observe::TraceValues::default(),
            log: LogView { dropped: 13 },
            listeners: vec![listener()],
            jobs: Vec::new(),
            upgrade: UpgradeView::default(),
            cluster: Some(ClusterView {
                alone: true,
                age_seconds: Some(2.5),
                rejected: 4,
                ..ClusterView::default()
            }),
            pools: vec![pool()],
        };
        let journal = Journal::new(&config::AccessLog::default()).unwrap();
        let counters = ListenerCounters::new("chat", &journal);
        counters.times.session.observe(Duration::from_secs(7));
        Scrape {
            status,
            listeners: vec![counters],
            pools: Vec::new(),
            backends: Vec::new(),
            per_backend: true,
            started_at: SystemTime::UNIX_EPOCH,
            last_reload_ok_at: None,
            certificates: vec![CertificateEnd {
                listener: "chat".into(),
                cert: "chat.pem".into(),
                name: "chat.test".into(),
                not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(77),
            }],
            tls_files: vec![("chat".into(), false)],
            pool_files: vec![PoolFileStatus {
                pool: "chat".into(),
                kind: "tls",
                error: None,
            }],
            refused: RefusalTotals::default().values(),
            resident_bytes: Some(4096),
            cpu_seconds: Some(1.5),
        }
    }

    /// The page, with the metrics of each backend or without.
    fn page(per_backend: bool) -> String {
        let ((backends, _leases), mut page) = (backends(), String::new());
        let scrape = Scrape {
            backends,
            per_backend,
            ..scrape()
        };
        write(scrape, &mut page).unwrap();
        page
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
        let page = page(true);
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
                        name.strip_prefix(&family).is_some_and(|rest| matches!(
                            rest,
                            "" | "_total" | "_sum" | "_count" | "_bucket"
                        )),
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
        let page = page(true);
        for line in [
            "process_cpu_seconds_total 1.5",
            "process_resident_memory_bytes 4096",
            "process_open_fds 20",
            "evenkeel_build_info{version=\"1.2.3\"} 1",
            "evenkeel_reloads_total{result=\"failed\"} 2",
            "evenkeel_cluster_alone 1",
            "evenkeel_cluster_members 1",
            "evenkeel_cluster_age_seconds 2.5",
            "evenkeel_cluster_rejected_values_total 4",
            "evenkeel_configuration_error 1",
            "evenkeel_access_log_dropped_lines_total 10",
            "evenkeel_log_dropped_lines_total 13",
            "evenkeel_listener_from_client_bytes_total{listener=\"chat\"} 7",
            "evenkeel_listener_ends_total{listener=\"chat\",side=\"client\",phase=\"relay\",how=\"fin\"} 9",
            "evenkeel_certificate_expiry_timestamp_seconds{listener=\"chat\",cert=\"chat.pem\",name=\"chat.test\"} 77",
            "evenkeel_certificate_error{listener=\"chat\"} 1",
            "evenkeel_listener_responses_total{listener=\"chat\",class=\"5xx\"} 0",
            "evenkeel_listener_session_seconds_sum{listener=\"chat\"} 7.0",
            "evenkeel_listener_session_seconds_bucket{le=\"1.0\",listener=\"chat\"} 0",
            "evenkeel_listener_session_seconds_bucket{le=\"10.0\",listener=\"chat\"} 1",
            "evenkeel_listener_session_seconds_bucket{le=\"+Inf\",listener=\"chat\"} 1",
            "evenkeel_listener_handshakes_total{listener=\"chat\",kind=\"full\"} 11",
            "evenkeel_listener_handshakes_total{listener=\"chat\",kind=\"resumed\"} 12",
            "evenkeel_pool_refused_connections_total{pool=\"chat\",reason=\"full\"} 3",
            "evenkeel_pool_panic{pool=\"chat\"} 1",
            "evenkeel_discovery_age_seconds{pool=\"chat\"} 7",
            "evenkeel_discovery_held{pool=\"chat\"} 1",
            "evenkeel_discovery_errors_total{pool=\"chat\",reason=\"timeout\"} 6",
            "evenkeel_discovery_entries{pool=\"chat\",state=\"absent\"} 2",
            "evenkeel_pool_failover_ended_connections_total{pool=\"chat\"} 13",
            "evenkeel_backend_live_connections{pool=\"chat\",backend=\"n1\"} 1",
            "evenkeel_pool_backends{pool=\"chat\",state=\"up\"} 2",
            "evenkeel_pool_live_connections{pool=\"chat\"} 2",
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
    fn without_metrics_per_backend_those_of_pools_stay() {
        let (with, without) = (page(true), page(false));
        let of_backends = |line: &&str| line.contains("evenkeel_backend_");
        assert!(with.lines().any(|line| of_backends(&line)));
        let others: Vec<&str> = with.lines().filter(|line| !of_backends(line)).collect();
        assert_eq!(without.lines().collect::<Vec<_>>(), others);
    }

    /// The lines of `evenkeel_pool_backends` that count something, without the name.
    fn pool_states(scrape: Scrape) -> Vec<String> {
        let mut page = String::new();
        write(scrape, &mut page).unwrap();
        let lines = page
            .lines()
            .filter_map(|line| line.strip_prefix("evenkeel_pool_backends"));
        let counting = lines.filter(|line| line.starts_with('{') && !line.ends_with(" 0"));
        counting.map(str::to_owned).collect()
    }

    #[test]
    fn removed_backends_have_a_state_of_their_own() {
        let ((backends, _leases), scrape) = (backends(), scrape());
        backends[0].retire();
        let states = pool_states(Scrape { backends, ..scrape });
        let wanted = [
            "{pool=\"chat\",state=\"up\"} 1",
            "{pool=\"chat\",state=\"removed\"} 1",
        ];
        assert_eq!(states, wanted);
    }

    #[test]
    fn a_removed_pool_has_no_states_and_an_empty_one_has_zeros() {
        let ((backends, _leases), mut removed) = (backends(), scrape());
        removed.status.pools[0].removed = true;
        assert_eq!(
            pool_states(Scrape {
                backends,
                ..removed
            }),
            [""; 0]
        );
        let mut page = String::new();
        write(scrape(), &mut page).unwrap();
        let zero = "evenkeel_pool_backends{pool=\"chat\",state=\"up\"} 0";
        assert!(page.lines().any(|line| line == zero), "{page}");
    }

    #[test]
    fn what_is_not_known_has_no_sample() {
        let page = page(true);
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

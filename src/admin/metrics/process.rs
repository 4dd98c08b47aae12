//! Metrics of the process and of evenkeel as a whole.

use std::fmt;

use super::page::{MetricsPage, epoch_seconds};
use super::scrape::Scrape;
use crate::admin::refusals::EndpointValues;
use crate::admin::view::{ProcessGauges, StatusView};
use crate::observe::{Metric, TraceValues};
use crate::server::UpgradeTotals;

const OPEN_FDS: Metric = Metric::gauge("open_fds").help("File descriptors open");
const MAX_FDS: Metric = Metric::gauge("max_fds").help("File descriptors that may be open");
const RESIDENT: Metric = Metric::gauge("resident_memory")
    .bytes()
    .help("Resident memory");
const CPU: Metric = Metric::counter("cpu")
    .seconds()
    .help("User and system time");
const START: Metric = Metric::gauge("start_time")
    .seconds()
    .help("Start, since the epoch");

const BUILD: Metric = Metric::gauge("build_info").help("The version that runs");
const READY: Metric = Metric::gauge("ready").help("1 until the process is stopping");
const ANONYMOUS: Metric = Metric::gauge("anonymous_memory")
    .bytes()
    .help("Memory that the kernel cannot drop");
const RELOADS: Metric = Metric::counter("reloads").help("Reloads by result");
const CONFIGURATION_ERROR: Metric =
    Metric::gauge("configuration_error").help("1 while the latest reload was refused");
const LAST_RELOAD: Metric = Metric::gauge("last_reload_success_timestamp")
    .seconds()
    .help("Latest reload that was applied, since the epoch");
const PREDECESSOR: Metric = Metric::gauge("predecessor_connections")
    .help("Connections that the process before this one still has");
const FREEZE: Metric = Metric::gauge("upgrade_freeze")
    .seconds()
    .help("Longest time that a session stood still when it moved to this process");
const ACCESS_LOG_DROPPED: Metric =
    Metric::counter("access_log_dropped_lines").help("Access-log lines that were lost");
const LOG_DROPPED: Metric =
    Metric::counter("log_dropped_lines").help("Lines of the process's own log that were lost");

/// Encodes the metrics that Prometheus' own client libraries have, under their names.
pub(super) fn encode_process(scrape: &Scrape, page: &mut MetricsPage<'_>) -> fmt::Result {
    page.single(OPEN_FDS, scrape.status.process.open_fds)?;
    page.single(MAX_FDS, scrape.status.process.max_fds)?;
    page.single(RESIDENT, scrape.resident_bytes)?;
    page.single(CPU, scrape.cpu_seconds)?;
    page.single(START, Some(epoch_seconds(scrape.started_at)))
}

pub(super) fn encode_own(scrape: &Scrape, page: &mut MetricsPage<'_>) -> fmt::Result {
    let StatusView {
        version,
        process,
        configuration,
        access_log,
        traces,
        log,
        upgrade,
        ..
    } = &scrape.status;
    page.family(BUILD, [(vec![("version", version.as_str())], 1_u64)])?;
    page.single(READY, Some(u64::from(process.ready)))?;
    page.values(ProcessGauges::METRICS, &[(Vec::new(), &process.gauges)])?;
    page.single(ANONYMOUS, process.anonymous_bytes)?;
    let reloads = [
        ("ok", configuration.reloads_ok),
        ("failed", configuration.reloads_failed),
    ];
    let reloads = reloads.map(|(result, count)| (vec![("result", result)], count));
    page.family(RELOADS, reloads)?;
    page.values(UpgradeTotals::METRICS, &[(Vec::new(), &upgrade.totals)])?;
    let predecessor = upgrade.predecessor.as_ref();
    let left = predecessor.map_or(0, |one| one.connections);
    page.single(FREEZE, Some(upgrade.longest_freeze_seconds))?;
    page.single(PREDECESSOR, Some(left))?;
    let is_refused = configuration.last_error.is_some();
    page.single(CONFIGURATION_ERROR, Some(u64::from(is_refused)))?;
    page.single(LAST_RELOAD, scrape.last_reload_ok_at.map(epoch_seconds))?;
    page.single(ACCESS_LOG_DROPPED, Some(access_log.dropped))?;
    page.single(LOG_DROPPED, Some(log.dropped))?;
    page.values(TraceValues::METRICS, &[(Vec::new(), traces)])?;
    let endpoints: Vec<_> = scrape
        .refused
        .iter()
        .map(|(endpoint, counts)| (vec![("endpoint", *endpoint)], counts))
        .collect();
    page.values(EndpointValues::METRICS, &endpoints)
}

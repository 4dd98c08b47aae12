//! Metrics of the listeners and of the ends of their connections.

use std::fmt;

use super::page::{Labels, MetricsPage};
use super::scrape::Scrape;
use crate::admin::view::ListenerView;
use crate::observe::{ListenerTimes, ListenerValues, Metric};

const LISTENING: Metric = Metric::gauge("listener_listening")
    .help("1 while it takes clients: 0 when it drains or has stopped");
const REFUSED: Metric = Metric::counter("listener_refused_connections")
    .help("Connections and requests that were refused, by reason");
const ENDS: Metric = Metric::counter("listener_ends").help("Connections and requests by end");

pub(super) fn encode(scrape: &Scrape, page: &mut MetricsPage<'_>) -> fmt::Result {
    let all = &scrape.status.listeners;
    let states = all
        .iter()
        .map(|one| (labels(one), u64::from(one.state == "listening")));
    page.family(LISTENING, states)?;
    let owners: Vec<_> = all.iter().map(|one| (labels(one), &one.counters)).collect();
    page.values(ListenerValues::METRICS, &owners)?;
    let times = scrape.listeners.iter();
    let times: Vec<_> = times
        .map(|one| (vec![("listener", &*one.name)], &one.times))
        .collect();
    page.histograms(ListenerTimes::METRICS, &times)?;
    let refused = all.iter().flat_map(|listener| {
        listener.refusals.iter().map(|one| {
            let reason = ("reason", one.reason.as_str());
            ([labels(listener), vec![reason]].concat(), one.count)
        })
    });
    page.family(REFUSED, refused)?;
    let ends = all.iter().flat_map(|listener| {
        listener.ends.iter().map(|end| {
            let end_labels = vec![
                ("side", end.side.as_str()),
                ("phase", end.phase.as_str()),
                ("how", end.how.as_str()),
            ];
            ([labels(listener), end_labels].concat(), end.count)
        })
    });
    page.family(ENDS, ends)
}

fn labels(listener: &ListenerView) -> Labels<'_> {
    vec![("listener", listener.name.as_str())]
}

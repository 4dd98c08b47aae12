//! Metrics of the cluster; none without one.

use std::fmt;

use super::page::MetricsPage;
use crate::admin::view::ClusterView;
use crate::observe::Metric;

const ALONE: Metric = Metric::gauge("cluster_alone")
    .help("1 while the store cannot be reached and this balancer goes on by itself");
const MEMBERS: Metric =
    Metric::gauge("cluster_members").help("Balancers in the cluster, this one among them");
const AGE: Metric = Metric::gauge("cluster_age")
    .seconds()
    .help("Age of the latest good exchange with the store");
const EXCHANGES: Metric =
    Metric::counter("cluster_exchanges").help("Exchanges with the store by result");
const REJECTED: Metric = Metric::counter("cluster_rejected_values")
    .help("Values in the store that nobody with the secret has written");

pub(super) fn encode(cluster: Option<&ClusterView>, page: &mut MetricsPage<'_>) -> fmt::Result {
    let Some(cluster) = cluster else {
        return Ok(());
    };
    page.single(ALONE, Some(u64::from(cluster.alone)))?;
    page.single(MEMBERS, Some(cluster.members.len() as u64 + 1))?;
    page.single(AGE, cluster.age_seconds)?;
    let exchanges = [("ok", cluster.exchanges), ("failed", cluster.failures)];
    let exchanges = exchanges.map(|(result, count)| (vec![("result", result)], count));
    page.family(EXCHANGES, exchanges)?;
    page.single(REJECTED, Some(cluster.rejected))
}

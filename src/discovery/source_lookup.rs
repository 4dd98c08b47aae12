//! Lookups of a pool's `discover` source, by its TTL; the pool gets whole snapshots.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::lookup::{self, LookupRound};
use super::schedule::LookupSchedule;
use super::snapshot::{self, DiscoveredAddress};
use super::status::LookupStatus;
use crate::config::{Discover, DiscoverSource};
use crate::net::Endpoint;
use crate::net::dns::DnsError;
use crate::pool::Pool;

/// Runs until the pool's source changes. `known` is used until the first answer: addresses found by
/// the last source, if they still hold.
pub(super) async fn follow(
    pool: Arc<Pool>,
    source: DiscoverSource,
    status: Arc<LookupStatus>,
    known: Vec<DiscoveredAddress>,
) {
    let mut last = known;
    if let Some(discover) = settings(&pool, &source).filter(|_| !last.is_empty()) {
        pool.apply_discovered(snapshot::to_backends(&last, &discover));
    }
    // A pass per version of the settings: new bounds or weights apply at once, the addresses stay.
    while let Some(discover) = settings(&pool, &source) {
        follow_settings(&pool, &discover, &status, &mut last).await;
    }
}

/// Addresses found by `old` that hold for `new`: when only the port of a name changed, its
/// addresses need no new lookup, and the port takes effect while no name server answers. Empty
/// otherwise.
pub(super) fn known(
    pool: &Pool,
    old: &DiscoverSource,
    new: &DiscoverSource,
) -> Vec<DiscoveredAddress> {
    let (
        DiscoverSource::Dns {
            host: before,
            port: from,
        },
        DiscoverSource::Dns { host, port },
    ) = (old, new)
    else {
        return Vec::new();
    };
    if before != host || from == port {
        return Vec::new();
    }
    let found = pool.backends().into_iter().filter_map(|backend| {
        let address = match backend.endpoint()? {
            Endpoint::Tcp(address) => address,
            Endpoint::Unix(_) => return None,
        };
        let is_found = address.port() == *from && *backend.host() == *host.trim_end_matches('.');
        is_found.then(|| DiscoveredAddress {
            service: lookup::srv_target(host, *port),
            address: SocketAddr::new(address.ip(), *port),
        })
    });
    found.collect()
}

fn settings(pool: &Pool, source: &DiscoverSource) -> Option<Discover> {
    let discover = pool.settings().discover.clone();
    discover.filter(|discover| discover.source == *source)
}

/// Makes rounds until the settings change.
async fn follow_settings(
    pool: &Pool,
    discover: &Discover,
    status: &LookupStatus,
    last: &mut Vec<DiscoveredAddress>,
) {
    let mut schedule = LookupSchedule::new(discover.min_ttl, discover.max_ttl);
    loop {
        let round = lookup::round(discover).await;
        let ttl = take(pool, discover, status, last, round);
        let wait = match ttl {
            Some(ttl) => schedule.answered(ttl, fastrand::f64()),
            None => schedule.failed(fastrand::f64()),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed(pool, discover) => return,
        }
    }
}

/// Returns when the pool's `discover` is not `discover` any more.
async fn changed(pool: &Pool, discover: &Discover) {
    let mut changes = pool.changed();
    while pool.settings().discover.as_ref() == Some(discover) {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Applies a round to the pool; returns the TTL, or `None` when the set was kept as there was no
/// answer.
fn take(
    pool: &Pool,
    discover: &Discover,
    status: &LookupStatus,
    last: &mut Vec<DiscoveredAddress>,
    round: Result<LookupRound, DnsError>,
) -> Option<Duration> {
    let name = lookup::name_of(&discover.source);
    let failure = match round {
        Ok(LookupRound {
            addresses,
            failed,
            ttl,
        }) => {
            let addresses = snapshot::merge(addresses, &failed, last);
            // The settings may have changed during the lookup; their own round is about to begin.
            if pool.settings().discover.as_ref() == Some(discover) && !addresses.is_empty() {
                let found = snapshot::to_backends(&addresses, discover);
                let count = found.len();
                if pool.apply_discovered(found) {
                    tracing::info!(pool = %pool.name(), name, backends = count, "discovered a new set of backends");
                }
                if count == snapshot::MAX_FOUND {
                    tracing::warn!(pool = %pool.name(), name, backends = count, "discovery is cut off at its limit");
                }
                *last = addresses;
            }
            if failed.is_empty() {
                if status.succeeded(name) {
                    tracing::info!(pool = %pool.name(), name, "discovery answers again");
                }
                return Some(ttl);
            }
            format!("part of the answer failed ({} lookups)", failed.len())
        }
        Err(error) => error.to_string(),
    };
    if status.failed(name, &failure) {
        tracing::warn!(
            pool = %pool.name(), name, error = failure, kept = last.len(),
            "discovery failed, keeping the last good set"
        );
    }
    None
}

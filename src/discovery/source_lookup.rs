//! Lookups of a DNS source, by its TTL; each gives a whole answer.

use std::net::SocketAddr;
use std::time::Duration;

use super::entry::Listing;
use super::fault::{Fault, FaultKind};
use super::lookup::{self, LookupRound};
use super::schedule::LookupSchedule;
use super::snapshot::{self, DiscoveredAddress};
use super::source::SourcePublisher;
use crate::config::{Address, Discover, DiscoverSource};
use crate::net::Endpoint;
use crate::net::dns::DnsError;
use crate::pool::Pool;

/// Settings of the lookups of a pool's source.
#[derive(Debug, Clone)]
pub(super) struct DnsLookups(pub Discover);

impl PartialEq for DnsLookups {
    fn eq(&self, other: &DnsLookups) -> bool {
        let (one, other) = (&self.0, &other.0);
        one.source == other.source
            && one.nameservers == other.nameservers
            && (one.min_ttl, one.max_ttl, one.timeout)
                == (other.min_ttl, other.max_ttl, other.timeout)
    }
}

/// Runs until it is dropped. `known` is used until the first answer: addresses found by the last
/// source, if they still hold.
pub(super) async fn follow(
    lookups: DnsLookups,
    publisher: &SourcePublisher,
    known: Vec<DiscoveredAddress>,
) {
    let discover = &lookups.0;
    let mut last = known;
    if !last.is_empty() {
        publisher.answered(listing(&last, discover), "", None);
    }
    let mut schedule = LookupSchedule::new(discover.min_ttl, discover.max_ttl);
    loop {
        let round = lookup::round(discover).await;
        let wait = match take(discover, publisher, &mut last, round) {
            Some(ttl) => schedule.answered(ttl, fastrand::f64()),
            None => schedule.failed(fastrand::f64()),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Not before the floor that the operator set.
            () = async {
                tokio::time::sleep(discover.min_ttl).await;
                publisher.asked().await;
            } => {}
        }
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
    if before != host {
        return Vec::new();
    }
    let found = pool.backends().into_iter().filter_map(|backend| {
        let address = match backend.endpoint()? {
            Endpoint::Tcp(address) => address,
            Endpoint::Unix(_) => return None,
        };
        let is_listed = matches!(backend.address(), Address::Tcp(_)) && !backend.is_absent();
        let is_found = address.port() == *from && *backend.host() == *host.trim_end_matches('.');
        (is_found && is_listed).then(|| DiscoveredAddress {
            service: lookup::srv_target(host, *port),
            address: SocketAddr::new(address.ip(), *port),
        })
    });
    found.collect()
}

fn listing(addresses: &[DiscoveredAddress], discover: &Discover) -> Listing {
    Listing {
        entries: snapshot::to_entries(addresses, &discover.source),
        ..Listing::default()
    }
}

/// Publishes a round; returns the TTL, or `None` when there was no answer, or a part of one.
fn take(
    discover: &Discover,
    publisher: &SourcePublisher,
    last: &mut Vec<DiscoveredAddress>,
    round: Result<LookupRound, DnsError>,
) -> Option<Duration> {
    let LookupRound {
        addresses,
        failed,
        ttl,
    } = match round {
        Ok(round) => round,
        Err(error) => {
            publisher.failed(fault(&error));
            return None;
        }
    };
    let addresses = snapshot::merge(addresses, &failed, last);
    if addresses.len() == snapshot::MAX_FOUND {
        let (name, backends) = (lookup::name_of(&discover.source), addresses.len());
        tracing::warn!(name, backends, "discovery is cut off at its limit");
    }
    let part_failed = (!failed.is_empty()).then(|| {
        let message = format!("part of the answer failed ({} lookups)", failed.len());
        Fault::new(FaultKind::Unreachable, message)
    });
    let is_whole = part_failed.is_none();
    if addresses.is_empty() {
        publisher.failed(Fault::new(FaultKind::Empty, "no addresses"));
        return None;
    }
    publisher.answered(listing(&addresses, discover), "", part_failed);
    *last = addresses;
    is_whole.then_some(ttl)
}

fn fault(error: &DnsError) -> Fault {
    let kind = match error {
        DnsError::NoRecords { .. } => FaultKind::Empty,
        _ => FaultKind::Unreachable,
    };
    Fault::new(kind, error.to_string())
}

//! A round of lookups: every address of a `discover` source, and the lookups that failed.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::snapshot::{DiscoveredAddress, FailedLookup};
use crate::config::{Discover, DiscoverSource};
use crate::net::dns::{DnsAnswer, DnsError, DnsResolver, SrvTarget};

/// SRV targets looked up at once: enough to finish a large set soon, few enough not to flood a name
/// server.
const MAX_PARALLEL_LOOKUPS: usize = 16;

/// Result of a round.
pub(super) struct LookupRound {
    /// May be empty when every target failed: then `failed` has them.
    pub addresses: Vec<DiscoveredAddress>,
    pub failed: Vec<FailedLookup>,
    pub ttl: Duration,
}

/// The name that is looked up, for the log and the status.
pub(super) fn name_of(source: &DiscoverSource) -> &str {
    match source {
        DiscoverSource::Dns { host, .. } => host,
        DiscoverSource::Srv { name } => name,
        DiscoverSource::Registry(registry) => registry.kind.word(),
    }
}

/// An address lookup in the form of an SRV target. Every address has the same weight: `weight` of
/// the settings is applied when the snapshot is made.
pub(super) fn srv_target(host: &str, port: u16) -> SrvTarget {
    SrvTarget {
        target: host.to_owned(),
        port,
        priority: 0,
        weight: 1,
    }
}

/// Makes one round, with a new resolver, so that a changed `/etc/resolv.conf` is followed.
///
/// # Errors
/// Nothing is known about the set: it must be kept as it is.
pub(super) async fn round(discover: &Discover) -> Result<LookupRound, DnsError> {
    let dns = DnsResolver::new(&discover.nameservers, discover.timeout)?;
    match &discover.source {
        DiscoverSource::Dns { host, port } => {
            let answer = dns.lookup_addresses(host).await?;
            let mut round = LookupRound::new(answer.ttl);
            round.add(srv_target(host, *port), Ok(answer));
            Ok(round)
        }
        DiscoverSource::Srv { name } => services(&dns, name).await,
        // Nothing to look up; a registry is asked by another task.
        DiscoverSource::Registry(_) => Ok(LookupRound::new(discover.max_ttl)),
    }
}

async fn services(dns: &DnsResolver, name: &str) -> Result<LookupRound, DnsError> {
    let services = dns.lookup_srv(name).await?;
    let mut round = LookupRound::new(services.ttl);
    let lookups = services.records.into_iter().map(|service| async {
        // The trailing dot: a target is a full name, search domains must not touch it.
        let answer = dns.lookup_addresses(&format!("{}.", service.target)).await;
        (service, answer)
    });
    let mut answers = stream::iter(lookups).buffer_unordered(MAX_PARALLEL_LOOKUPS);
    let mut failed = None;
    while let Some((service, answer)) = answers.next().await {
        failed = round.add(service, answer).or(failed);
    }
    match failed {
        // Nothing new was found: an error, so that the operator sees it.
        Some(error) if round.addresses.is_empty() => Err(error),
        _ => Ok(round),
    }
}

impl LookupRound {
    fn new(ttl: Duration) -> LookupRound {
        LookupRound {
            addresses: Vec::new(),
            failed: Vec::new(),
            ttl,
        }
    }

    /// Adds the answer for one target; returns its error.
    fn add(
        &mut self,
        service: SrvTarget,
        answer: Result<DnsAnswer<std::net::IpAddr>, DnsError>,
    ) -> Option<DnsError> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if !matches!(error, DnsError::NoRecords { .. }) {
                    self.failed.push(FailedLookup {
                        service,
                        family: None,
                    });
                }
                return Some(error);
            }
        };
        self.ttl = self.ttl.min(answer.ttl);
        self.addresses
            .extend(answer.records.iter().map(|ip| DiscoveredAddress {
                service: service.clone(),
                address: SocketAddr::new(*ip, service.port),
            }));
        if answer.incomplete.is_some() {
            self.failed.push(FailedLookup {
                service,
                family: answer.incomplete,
            });
        }
        None
    }
}

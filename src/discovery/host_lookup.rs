//! Lookups of the host name of one static backend: an address of it, kept as long as DNS lists it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::schedule::LookupSchedule;
use super::status::LookupStatus;
use crate::config::defaults::{DISCOVER_TIMEOUT, MAX_TTL, MIN_TTL};
use crate::net::Endpoint;
use crate::net::dns::{DnsAnswer, DnsError, DnsResolver};
use crate::pool::Backend;

/// Runs until it is dropped.
pub(super) async fn follow(
    backend: Arc<Backend>,
    host: String,
    port: u16,
    status: Arc<LookupStatus>,
) {
    let mut schedule = LookupSchedule::new(MIN_TTL, MAX_TTL);
    loop {
        let wait = match look_up(&host).await {
            Ok(answer) => {
                if status.succeeded(&host) {
                    tracing::info!(pool = %backend.pool(), backend = %backend.name(), name = host, "name resolves again");
                }
                if let Some(ip) = choose(&answer, present(&backend, port)) {
                    backend.resolved(Ok(Endpoint::Tcp(SocketAddr::new(ip, port))));
                }
                schedule.answered(answer.ttl, fastrand::f64())
            }
            Err(error) => {
                let error = error.to_string();
                if status.failed(&host, &error) {
                    tracing::warn!(
                        pool = %backend.pool(), backend = %backend.name(), name = host, error,
                        "name does not resolve, the last good address stays if there is one"
                    );
                }
                backend.resolved(Err(error));
                schedule.failed(fastrand::f64())
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// A lookup with a new resolver, so that a changed `/etc/resolv.conf` or `/etc/hosts` is followed.
async fn look_up(host: &str) -> Result<DnsAnswer<IpAddr>, DnsError> {
    DnsResolver::new(&[], DISCOVER_TIMEOUT)?
        .lookup_addresses(host)
        .await
}

fn present(backend: &Backend, port: u16) -> Option<IpAddr> {
    match backend.endpoint()? {
        Endpoint::Tcp(address) if address.port() == port => Some(address.ip()),
        _ => None,
    }
}

/// Chooses the present address while it is listed, or may be: answers rotate, and a backend must
/// not move with each.
fn choose(answer: &DnsAnswer<IpAddr>, present: Option<IpAddr>) -> Option<IpAddr> {
    let unknown = |ip: &IpAddr| answer.incomplete.is_some_and(|family| family.contains(*ip));
    present
        .filter(|ip| answer.records.contains(ip) || unknown(ip))
        .or_else(|| answer.records.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dns::Family;
    use std::time::Duration;

    fn answer(ips: &[&str], incomplete: Option<Family>) -> DnsAnswer<IpAddr> {
        DnsAnswer {
            records: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(1),
            incomplete,
        }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_present_address_stays_while_it_is_listed() {
        let rotated = answer(&["10.0.0.2", "10.0.0.1"], None);
        assert_eq!(choose(&rotated, ip("10.0.0.1")), ip("10.0.0.1"));
        assert_eq!(choose(&rotated, None), ip("10.0.0.2"));
        assert_eq!(choose(&rotated, ip("10.0.0.3")), ip("10.0.0.2"));
    }

    #[test]
    fn the_present_address_stays_while_its_family_cannot_be_looked_up() {
        let partial = answer(&["10.0.0.2"], Some(Family::V6));
        assert_eq!(choose(&partial, ip("fd00::1")), ip("fd00::1"));
        assert_eq!(choose(&partial, ip("10.0.0.1")), ip("10.0.0.2"));
    }
}

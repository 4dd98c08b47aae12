//! Entries of a set, made of the results of a round of DNS lookups. Pure.
//!
//! A family or a target whose lookup failed, while others answered, keeps its last addresses. A
//! name that answered without a record is no failure.

use std::net::SocketAddr;

use super::entry::Entry;
use crate::config::{Address, DiscoverSource, defaults};
use crate::net::dns::{Family, SrvTarget};

/// Backends taken from one round; a pool of more is a mistake in the zone.
pub(super) const MAX_FOUND: usize = crate::net::dns::MAX_RECORDS;

/// An address of an SRV target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiscoveredAddress {
    pub service: SrvTarget,
    pub address: SocketAddr,
}

/// A lookup of a round that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedLookup {
    pub service: SrvTarget,
    /// `None`: both.
    pub family: Option<Family>,
}

/// Adds the last addresses of failed lookups; sorted, each once, at most [`MAX_FOUND`].
pub(super) fn merge(
    mut addresses: Vec<DiscoveredAddress>,
    failed: &[FailedLookup],
    last: &[DiscoveredAddress],
) -> Vec<DiscoveredAddress> {
    for lookup in failed {
        let kept = last.iter().filter(|found| {
            found.service.target == lookup.service.target
                && found.address.port() == lookup.service.port
                && lookup
                    .family
                    .is_none_or(|family| family.contains(found.address.ip()))
        });
        addresses.extend(kept.map(|found| DiscoveredAddress {
            service: lookup.service.clone(),
            address: found.address,
        }));
    }
    // Answers rotate; the snapshot must not, nor may what the cap cuts off.
    // A target listed twice counts with its best priority.
    addresses.sort_by(|a, b| (key(a), rank(a)).cmp(&(key(b), rank(b))));
    addresses.dedup_by(|a, b| key(a) == key(b));
    addresses.truncate(MAX_FOUND);
    addresses
}

fn key(found: &DiscoveredAddress) -> (&str, SocketAddr) {
    (&found.service.target, found.address)
}

fn rank(found: &DiscoveredAddress) -> (u16, u16) {
    (found.service.priority, u16::MAX - found.service.weight)
}

/// The entries, in the addresses' order.
pub(super) fn to_entries(addresses: &[DiscoveredAddress], source: &DiscoverSource) -> Vec<Entry> {
    let is_srv = matches!(source, DiscoverSource::Srv { .. });
    let services = || addresses.iter().map(|found| &found.service);
    let best = services().map(|service| service.priority).min();
    let heaviest = services().map(|service| service.weight).max().unwrap_or(0);
    let found = addresses
        .iter()
        .map(|DiscoveredAddress { service, address }| {
            let target = &service.target;
            // Every name has the address, also of a single one: otherwise a backend would be
            // renamed, and its drain forgotten, when DNS adds or removes an address of its target.
            let name = if is_srv {
                format!("{target}:{}@{}", service.port, address.ip())
            } else {
                address.to_string()
            };
            Entry {
                host: Some(target.trim_end_matches('.').to_owned()),
                weight: is_srv.then(|| scaled(service.weight, heaviest)),
                is_backup: is_srv && Some(service.priority) > best,
                ..Entry::new(&name, Address::Tcp(*address))
            }
        });
    found.collect()
}

/// SRV weights go to 65,535: above ours they are scaled down together. 0 means "small", not "none"
/// (RFC 2782).
fn scaled(weight: u16, heaviest: u16) -> u16 {
    let largest = u32::try_from(defaults::WEIGHT_MAX).unwrap_or(u32::from(u16::MAX));
    let mut scaled = u32::from(weight);
    if u32::from(heaviest) > largest {
        scaled = scaled * largest / u32::from(heaviest);
    }
    u16::try_from(scaled.max(1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dns() -> DiscoverSource {
        DiscoverSource::Dns {
            host: "chat.test".into(),
            port: 80,
        }
    }

    fn srv() -> DiscoverSource {
        DiscoverSource::Srv {
            name: "_ws._tcp.chat.test".into(),
        }
    }

    fn service(target: &str, priority: u16, weight: u16) -> SrvTarget {
        SrvTarget {
            target: target.into(),
            port: 80,
            priority,
            weight,
        }
    }

    fn found(service: &SrvTarget, ip: &str) -> DiscoveredAddress {
        DiscoveredAddress {
            service: service.clone(),
            address: SocketAddr::new(ip.parse().unwrap(), service.port),
        }
    }

    fn names(found: &[Entry]) -> Vec<&str> {
        found.iter().map(|found| found.name.as_str()).collect()
    }

    #[test]
    fn dns_backends_are_named_by_address_and_weigh_alike() {
        let host = service("chat.test", 0, 1);
        let addresses = [found(&host, "10.0.0.1"), found(&host, "fd00::1")];
        let found = to_entries(&addresses, &dns());
        assert_eq!(names(&found), ["10.0.0.1:80", "[fd00::1]:80"]);
        assert!(
            found
                .iter()
                .all(|one| one.weight.is_none() && !one.is_backup)
        );
    }

    #[test]
    fn srv_targets_above_the_lowest_priority_are_backups() {
        let (a, b) = (service("a.test", 10, 5), service("b.test", 20, 0));
        let found = to_entries(&[found(&a, "10.0.0.1"), found(&b, "10.0.0.2")], &srv());
        assert_eq!(names(&found), ["a.test:80@10.0.0.1", "b.test:80@10.0.0.2"]);
        assert_eq!(
            found.iter().map(|one| one.is_backup).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(
            found.iter().map(|one| one.weight).collect::<Vec<_>>(),
            [Some(5), Some(1)]
        );
    }

    #[test]
    fn a_target_with_several_addresses_is_several_backends() {
        let a = service("a.test", 10, 5);
        let found = to_entries(&[found(&a, "10.0.0.1"), found(&a, "10.0.0.2")], &srv());
        assert_eq!(names(&found), ["a.test:80@10.0.0.1", "a.test:80@10.0.0.2"]);
    }

    /// A drained `a.test:80` came back as a ready `a.test:80@10.0.0.1` when DNS added a second
    /// address.
    #[test]
    fn a_backend_keeps_its_name_when_its_target_gets_another_address() {
        let a = service("a.test", 10, 5);
        let alone = to_entries(&[found(&a, "10.0.0.1")], &srv());
        let both = to_entries(&[found(&a, "10.0.0.1"), found(&a, "10.0.0.2")], &srv());
        assert_eq!(names(&alone), names(&both)[..1]);
    }

    #[test]
    fn large_srv_weights_keep_their_proportion() {
        let (a, b) = (service("a.test", 0, 50_000), service("b.test", 0, 25_000));
        let found = to_entries(&[found(&a, "10.0.0.1"), found(&b, "10.0.0.2")], &srv());
        assert_eq!(
            found.iter().map(|one| one.weight).collect::<Vec<_>>(),
            [Some(256), Some(128)]
        );
    }

    #[test]
    fn a_family_that_failed_keeps_its_last_addresses() {
        let host = service("chat.test", 0, 1);
        let last = [found(&host, "10.0.0.1"), found(&host, "fd00::1")];
        let lookup = FailedLookup {
            service: host.clone(),
            family: Some(Family::V6),
        };
        let merged = merge(vec![found(&host, "10.0.0.2")], &[lookup], &last);
        assert_eq!(merged, [found(&host, "10.0.0.2"), found(&host, "fd00::1")]);
    }

    #[test]
    fn a_target_that_failed_keeps_its_addresses_with_the_new_weight() {
        let (old, new) = (service("a.test", 10, 5), service("a.test", 20, 9));
        let lookup = FailedLookup {
            service: new.clone(),
            family: None,
        };
        let merged = merge(Vec::new(), &[lookup], &[found(&old, "10.0.0.1")]);
        assert_eq!(merged, [found(&new, "10.0.0.1")]);
    }

    #[test]
    fn a_target_that_is_gone_from_the_services_is_gone() {
        let (a, b) = (service("a.test", 0, 1), service("b.test", 0, 1));
        let merged = merge(vec![found(&a, "10.0.0.1")], &[], &[found(&b, "10.0.0.2")]);
        assert_eq!(merged, [found(&a, "10.0.0.1")]);
    }

    proptest! {
        #[test]
        fn the_order_of_answers_does_not_matter_and_names_are_unique(
            answers in prop::collection::vec((0u8..4, 0u8..8, 0u16..3, 0u16..=u16::MAX), 0..24).prop_shuffle(),
        ) {
            let addresses: Vec<DiscoveredAddress> = answers
                .iter()
                .map(|(target, ip, priority, weight)| {
                    let service = service(&format!("t{target}.test"), *priority, *weight);
                    found(&service, &format!("10.0.{target}.{ip}"))
                })
                .collect();
            let mut reversed = addresses.clone();
            reversed.reverse();
            let snapshot = to_entries(&merge(addresses, &[], &[]), &srv());
            prop_assert_eq!(&snapshot, &to_entries(&merge(reversed, &[], &[]), &srv()));
            let mut unique = names(&snapshot);
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), snapshot.len());
            prop_assert!(snapshot.iter().all(|one| one.weight.is_some_and(|weight| (1..=256).contains(&weight))));
            prop_assert!(snapshot.is_empty() || snapshot.iter().any(|one| !one.is_backup));
        }
    }
}

//! DNS lookups: addresses and SRV targets of a name, with their TTL. The only file that uses
//! hickory.
//!
//! Nothing is cached here: callers follow the TTL and keep the last good answer, since no resolver
//! serves a stale one. RFC 1035, RFC 2782 (SRV).

#[cfg(test)]
pub(crate) mod fake;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver, system_conf};

use crate::base::units::format_duration;

/// Records taken from one answer. A pool of more backends than this is a mistake in the zone.
pub(crate) const MAX_RECORDS: usize = 1_024;

/// Name servers asked at once: the first that answers decides, and dead ones cannot use up a
/// lookup's time.
const MAX_PARALLEL_SERVERS: usize = 4;

/// TTL of an address literal, which does not come from DNS: a day.
const LITERAL_TTL: Duration = Duration::from_secs(86_400);

/// TTL of names in the hosts file, which has none: the file is cheap to read, and a change is soon
/// followed.
const HOSTS_TTL: Duration = Duration::from_secs(10);

/// CNAMEs followed from one SRV name. As many as other resolvers follow; a longer chain is a loop.
const MAX_ALIASES: usize = 8;

/// Result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DnsAnswer<T> {
    /// At least one, at most [`MAX_RECORDS`], in the answer's order, each once.
    pub records: Vec<T>,
    /// The smallest TTL of all records, CNAMEs included.
    pub ttl: Duration,
    /// The family whose lookup failed while the other one answered. Whether it has records is not
    /// known.
    pub incomplete: Option<Family>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// Whether `ip` is of this family.
    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        match self {
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        }
    }
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SrvTarget {
    /// Host name, lower case, without the trailing dot.
    pub target: String,
    pub port: u16,
    /// Lower is preferred.
    pub priority: u16,
    /// 0..=65,535.
    pub weight: u16,
}

/// Why a lookup gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("set up the resolver: {0}")]
    SetUp(#[source] NetError),
    /// The name does not exist, or has no record of the type asked for.
    #[error("look up {name}: no records")]
    NoRecords { name: String },
    /// The name has addresses, but none that a backend can have.
    #[error("look up {name}: no backend can have the address {ip}")]
    Unusable { name: String, ip: IpAddr },
    #[error("look up {name}: no answer within {}", format_duration(*after))]
    TimedOut { name: String, after: Duration },
    #[error("look up {name}: {source}")]
    Failed { name: String, source: NetError },
}

impl DnsError {
    fn no_records(name: &str) -> DnsError {
        let name = name.to_owned();
        DnsError::NoRecords { name }
    }
}

/// A resolver. Reads `/etc/resolv.conf` and `/etc/hosts` when it is made: make one per round to
/// follow their changes.
pub(crate) struct DnsResolver {
    resolver: TokioResolver,
    /// Read before any name server and any search domain is asked, as by the system's resolver.
    hosts: Option<Hosts>,
    timeout: Duration,
}

impl DnsResolver {
    /// `nameservers` empty: the system's, with its hosts file and search domains. Otherwise only
    /// these are asked, over UDP and, for long answers, TCP. `timeout` bounds each lookup as a
    /// whole.
    ///
    /// # Errors
    /// When the resolver cannot be set up.
    pub(crate) fn new(
        nameservers: &[SocketAddr],
        timeout: Duration,
    ) -> Result<DnsResolver, DnsError> {
        let (config, mut options, hosts) = match nameservers {
            [] => system(),
            some => custom(some),
        };
        // hickory asks the file for the names that the search domains make, not for the name as it
        // stands.
        options.use_hosts_file = ResolveHosts::Never;
        // Callers follow the TTL; a cache below would only add its own.
        options.cache_size = 0;
        // One try with the whole time: hickory sends a UDP query again within it, and a second try
        // would only cut off a slow recursive server.
        options.timeout = timeout;
        options.attempts = 0;
        options.num_concurrent_reqs = MAX_PARALLEL_SERVERS;
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(DnsError::SetUp)?;
        Ok(DnsResolver {
            resolver,
            hosts,
            timeout,
        })
    }

    /// Every A and AAAA record of `host` that a backend can have. A name of the hosts file has only
    /// the addresses in it. A trailing dot keeps the search domains out.
    ///
    /// # Errors
    /// [`DnsError::NoRecords`] when the name has none of either, [`DnsError::Unusable`] when no
    /// backend can have them; another error when no family answered.
    pub(crate) async fn lookup_addresses(&self, host: &str) -> Result<DnsAnswer<IpAddr>, DnsError> {
        if let Ok(ip) = host.parse() {
            return Ok(DnsAnswer {
                records: vec![ip],
                ttl: LITERAL_TTL,
                incomplete: None,
            });
        }
        if let Some(answer) = self.in_hosts(host) {
            return usable(host, answer);
        }
        let (v4, v6) = tokio::join!(
            self.lookup(host, RecordType::A),
            self.lookup(host, RecordType::AAAA)
        );
        usable(host, both_families(host, v4, v6)?)
    }

    /// Addresses of `host` in the hosts file, of both families.
    fn in_hosts(&self, host: &str) -> Option<DnsAnswer<IpAddr>> {
        let hosts = self.hosts.as_ref()?;
        let name = Name::from_str(host).ok()?.to_lowercase();
        let mut records = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let found = hosts.lookup_static_host(&Query::query(name.clone(), kind));
            records.extend(found.iter().flat_map(|found| found.answers().to_vec()));
        }
        let answer = answer(host, &records, None, address).ok()?;
        Some(DnsAnswer {
            ttl: HOSTS_TTL,
            ..answer
        })
    }

    /// Every SRV record of `name`, which may be a CNAME. A target of `.` (RFC 2782: decidedly not
    /// available) is left out.
    ///
    /// # Errors
    /// [`DnsError::NoRecords`] when the name has none.
    pub(crate) async fn lookup_srv(&self, name: &str) -> Result<DnsAnswer<SrvTarget>, DnsError> {
        let followed = self.services_through_aliases(name);
        match tokio::time::timeout(self.timeout, followed).await {
            Ok(answer) => answer,
            Err(_) => Err(self.timed_out(name)),
        }
    }

    /// Follows CNAMEs one by one: hickory takes an SRV record behind a CNAME for one more link of
    /// the chain and asks its target for SRV. A name without a CNAME costs no further query.
    async fn services_through_aliases(&self, name: &str) -> Result<DnsAnswer<SrvTarget>, DnsError> {
        let (mut asked, mut ttl) = (name.to_owned(), LITERAL_TTL);
        for _ in 0..MAX_ALIASES {
            let failed = match self.lookup(&asked, RecordType::SRV).await {
                Ok(lookup) => {
                    let answer = answer(name, lookup.answers(), None, service)?;
                    let ttl = answer.ttl.min(ttl);
                    return Ok(DnsAnswer { ttl, ..answer });
                }
                Err(failed) => failed,
            };
            let Ok(lookup) = self.lookup(&asked, RecordType::CNAME).await else {
                return Err(failed);
            };
            let Ok(alias) = answer(&asked, lookup.answers(), None, alias) else {
                return Err(failed);
            };
            ttl = ttl.min(alias.ttl);
            asked = alias.records.into_iter().next().unwrap_or_default();
        }
        Err(DnsError::no_records(name))
    }

    fn timed_out(&self, name: &str) -> DnsError {
        DnsError::TimedOut {
            name: name.to_owned(),
            after: self.timeout,
        }
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, DnsError> {
        let lookup = self.resolver.lookup(name, kind);
        match tokio::time::timeout(self.timeout, lookup).await {
            Err(_) | Ok(Err(NetError::Timeout)) => Err(self.timed_out(name)),
            Ok(Err(error)) if error.is_no_records_found() => Err(DnsError::no_records(name)),
            Ok(Err(source)) => Err(DnsError::Failed {
                name: name.to_owned(),
                source,
            }),
            Ok(Ok(lookup)) => Ok(lookup),
        }
    }
}

/// The system's configuration; without a usable `/etc/resolv.conf` a name server on this host, as
/// glibc does, so that names of the hosts file still resolve.
fn system() -> (ResolverConfig, ResolverOpts, Option<Hosts>) {
    let (config, options) = system_conf::read_system_conf().unwrap_or_else(|_| {
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
        (config, ResolverOpts::default())
    });
    (config, options, Hosts::from_system().ok())
}

fn custom(nameservers: &[SocketAddr]) -> (ResolverConfig, ResolverOpts, Option<Hosts>) {
    let servers = nameservers.iter().map(|server| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = server.port();
        }
        NameServerConfig::new(server.ip(), true, connections)
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    (config, ResolverOpts::default(), None)
}

/// Leaves out addresses that no backend can have: 0.0.0.0/8 and `::`, multicast, broadcast, and
/// link-local IPv6 addresses, which need a zone that DNS does not have. Such answers come from
/// blocking name servers and from mistakes in a zone.
fn usable(host: &str, mut answer: DnsAnswer<IpAddr>) -> Result<DnsAnswer<IpAddr>, DnsError> {
    let unusable = answer
        .records
        .iter()
        .copied()
        .find(|ip| !can_be_backend(*ip));
    answer.records.retain(|ip| can_be_backend(*ip));
    match unusable {
        Some(ip) if answer.records.is_empty() => Err(DnsError::Unusable {
            name: host.to_owned(),
            ip,
        }),
        _ => Ok(answer),
    }
}

fn can_be_backend(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets()[0] != 0 && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
    }
}

fn both_families(
    host: &str,
    v4: Result<Lookup, DnsError>,
    v6: Result<Lookup, DnsError>,
) -> Result<DnsAnswer<IpAddr>, DnsError> {
    match (v4, v6) {
        (Ok(v4), Ok(v6)) => {
            let mut records = v4.answers().to_vec();
            // Through the search domains the two may have ended at different names: those of one
            // name are taken.
            if v4.query().name() == v6.query().name() {
                records.extend_from_slice(v6.answers());
            }
            answer(host, &records, None, address)
        }
        (Ok(v4), Err(error)) => answer(host, v4.answers(), missing(Family::V6, &error), address),
        (Err(error), Ok(v6)) => answer(host, v6.answers(), missing(Family::V4, &error), address),
        (Err(DnsError::NoRecords { .. }), Err(v6)) => Err(v6),
        (Err(v4), Err(_)) => Err(v4),
    }
}

fn missing(family: Family, error: &DnsError) -> Option<Family> {
    (!matches!(error, DnsError::NoRecords { .. })).then_some(family)
}

fn answer<T: PartialEq>(
    name: &str,
    found: &[Record],
    incomplete: Option<Family>,
    wanted: impl Fn(&RData) -> Option<T>,
) -> Result<DnsAnswer<T>, DnsError> {
    let mut records = Vec::new();
    for record in found.iter().filter_map(|record| wanted(&record.data)) {
        if records.len() < MAX_RECORDS && !records.contains(&record) {
            records.push(record);
        }
    }
    if records.is_empty() {
        return Err(DnsError::no_records(name));
    }
    let ttl_seconds = found.iter().map(|record| record.ttl).min().unwrap_or(0);
    Ok(DnsAnswer {
        records,
        ttl: Duration::from_secs(ttl_seconds.into()),
        incomplete,
    })
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(ip) => Some(ip.0.into()),
        RData::AAAA(ip) => Some(ip.0.into()),
        _ => None,
    }
}

/// The target of a CNAME, as a full name.
fn alias(data: &RData) -> Option<String> {
    match data {
        RData::CNAME(target) => Some(target.0.to_ascii()),
        _ => None,
    }
}

fn service(data: &RData) -> Option<SrvTarget> {
    let RData::SRV(srv) = data else { return None };
    if srv.target.is_root() {
        return None;
    }
    let target = srv.target.to_ascii().to_ascii_lowercase();
    Some(SrvTarget {
        target: target.trim_end_matches('.').to_owned(),
        port: srv.port,
        priority: srv.priority,
        weight: srv.weight,
    })
}

#[cfg(test)]
mod tests {
    use super::fake::{FakeNameServer, Reply};
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn asked(fake: &FakeNameServer, host: &str) -> Result<DnsAnswer<IpAddr>, DnsError> {
        let dns = DnsResolver::new(&[fake.address()], TIMEOUT).unwrap();
        dns.lookup_addresses(host).await
    }

    fn ips(answer: &DnsAnswer<IpAddr>) -> Vec<String> {
        let mut ips: Vec<String> = answer.records.iter().map(ToString::to_string).collect();
        ips.sort();
        ips
    }

    #[tokio::test]
    async fn both_families_are_found_with_the_smallest_ttl() {
        let fake = FakeNameServer::start().await;
        fake.set(
            "chat.test.",
            Reply::records(&["10.0.0.1", "10.0.0.2", "fd00::1"], 7),
        );
        let answer = asked(&fake, "chat.test").await.unwrap();
        assert_eq!(ips(&answer), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert_eq!(answer.ttl, Duration::from_secs(7));
        assert_eq!(answer.incomplete, None);
    }

    #[tokio::test]
    async fn a_repeated_record_counts_once() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::records(&["10.0.0.1", "10.0.0.1"], 7));
        assert_eq!(ips(&asked(&fake, "chat.test").await.unwrap()), ["10.0.0.1"]);
    }

    #[tokio::test]
    async fn each_lookup_asks_anew() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::records(&["10.0.0.1"], 3_600));
        let dns = DnsResolver::new(&[fake.address()], TIMEOUT).unwrap();
        dns.lookup_addresses("chat.test").await.unwrap();
        fake.set("chat.test.", Reply::records(&["10.0.0.2"], 3_600));
        assert_eq!(
            ips(&dns.lookup_addresses("chat.test").await.unwrap()),
            ["10.0.0.2"]
        );
    }

    #[tokio::test]
    async fn an_unknown_name_and_an_empty_answer_have_no_records() {
        let fake = FakeNameServer::start().await;
        fake.set("empty.test.", Reply::records(&[], 7));
        for name in ["empty.test", "unknown.test"] {
            let error = asked(&fake, name).await.unwrap_err();
            assert!(matches!(error, DnsError::NoRecords { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_failure_is_an_error_of_its_own() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::ServerFailure);
        let error = asked(&fake, "chat.test").await.unwrap_err();
        assert!(matches!(error, DnsError::Failed { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_after_the_timeout() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::Silence);
        let dns = DnsResolver::new(&[fake.address()], Duration::from_millis(300)).unwrap();
        let error = dns.lookup_addresses("chat.test").await.unwrap_err();
        assert!(matches!(error, DnsError::TimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn dead_servers_do_not_keep_a_live_one_from_answering() {
        let (dead, live) = (FakeNameServer::start().await, FakeNameServer::start().await);
        dead.set("chat.test.", Reply::Silence);
        live.set("chat.test.", Reply::records(&["10.0.0.1"], 7));
        let servers = [dead.address(), dead.address(), live.address()];
        let dns = DnsResolver::new(&servers, TIMEOUT).unwrap();
        assert_eq!(
            ips(&dns.lookup_addresses("chat.test").await.unwrap()),
            ["10.0.0.1"]
        );
    }

    #[tokio::test]
    async fn a_lost_query_is_sent_again() {
        let fake = FakeNameServer::start().await;
        fake.set(
            "chat.test.",
            Reply::LateBy(1, vec!["10.0.0.1".parse().unwrap()]),
        );
        assert_eq!(ips(&asked(&fake, "chat.test").await.unwrap()), ["10.0.0.1"]);
    }

    #[tokio::test]
    async fn one_failed_family_leaves_the_answer_incomplete() {
        let fake = FakeNameServer::start().await;
        fake.set(
            "chat.test.",
            Reply::V6Failure(vec!["10.0.0.1".parse().unwrap()]),
        );
        let answer = asked(&fake, "chat.test").await.unwrap();
        assert_eq!(ips(&answer), ["10.0.0.1"]);
        assert_eq!(answer.incomplete, Some(Family::V6));
    }

    #[tokio::test]
    async fn a_truncated_answer_is_asked_again_over_tcp() {
        let fake = FakeNameServer::start().await;
        let many: Vec<String> = (0..400)
            .map(|n| format!("10.0.{}.{}", n / 200, n % 200))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        fake.set("big.test.", Reply::records(&many, 7));
        assert_eq!(asked(&fake, "big.test").await.unwrap().records.len(), 400);
    }

    #[tokio::test]
    async fn services_come_with_priority_and_weight() {
        let fake = FakeNameServer::start().await;
        fake.set(
            "_ws._tcp.chat.test.",
            Reply::services(
                &[
                    (10, 5, 9501, "N1.chat.test."),
                    (20, 0, 9502, "."),
                    (30, 1, 9503, "n3.chat.test."),
                ],
                9,
            ),
        );
        let dns = DnsResolver::new(&[fake.address()], TIMEOUT).unwrap();
        let answer = dns.lookup_srv("_ws._tcp.chat.test").await.unwrap();
        let first = SrvTarget {
            target: "n1.chat.test".into(),
            port: 9501,
            priority: 10,
            weight: 5,
        };
        assert_eq!(answer.records.first(), Some(&first));
        assert_eq!(answer.records.len(), 2, "a target of . is not a backend");
        assert_eq!(answer.ttl, Duration::from_secs(9));
    }

    #[tokio::test]
    async fn services_are_found_through_aliases() {
        let fake = FakeNameServer::start().await;
        fake.set(
            "_ws._tcp.chat.test.",
            Reply::Alias("_ws._tcp.blue.test.".into()),
        );
        fake.set(
            "_ws._tcp.blue.test.",
            Reply::Alias("_ws._tcp.real.test.".into()),
        );
        fake.set(
            "_ws._tcp.real.test.",
            Reply::services(&[(10, 5, 9501, "n1.chat.test.")], 9),
        );
        fake.set("_loop._tcp.test.", Reply::Alias("_loop._tcp.test.".into()));
        let dns = DnsResolver::new(&[fake.address()], TIMEOUT).unwrap();
        let answer = dns.lookup_srv("_ws._tcp.chat.test").await.unwrap();
        assert_eq!(answer.records.len(), 1);
        assert_eq!(answer.records[0].target, "n1.chat.test");
        let error = dns.lookup_srv("_loop._tcp.test").await.unwrap_err();
        assert!(error.to_string().contains("_loop._tcp.test"), "{error}");
    }

    #[tokio::test]
    async fn addresses_that_no_backend_can_have_are_left_out() {
        let fake = FakeNameServer::start().await;
        let unusable = [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:0.0.0.0",
        ];
        for ip in unusable {
            fake.set("chat.test.", Reply::records(&[ip], 7));
            let error = asked(&fake, "chat.test").await.unwrap_err();
            assert!(matches!(error, DnsError::Unusable { .. }), "{ip}: {error}");
        }
        let mut mixed = unusable.to_vec();
        mixed.extend(["10.0.0.1", "fd00::1"]);
        fake.set("chat.test.", Reply::records(&mixed, 7));
        assert_eq!(
            ips(&asked(&fake, "chat.test").await.unwrap()),
            ["10.0.0.1", "fd00::1"]
        );
    }

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        let fake = FakeNameServer::start().await;
        assert_eq!(ips(&asked(&fake, "10.1.2.3").await.unwrap()), ["10.1.2.3"]);
        assert_eq!(fake.queries(), 0);
    }

    #[tokio::test]
    async fn localhost_resolves_with_the_system_settings() {
        let dns = DnsResolver::new(&[], TIMEOUT).unwrap();
        let answer = dns.lookup_addresses("localhost").await.unwrap();
        assert!(answer.records.iter().all(IpAddr::is_loopback), "{answer:?}");
    }
}

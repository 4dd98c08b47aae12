//! Backends from DNS and from registries: whole answers for `discover`, addresses of static
//! backends with a host name.
//!
//! A source says what it finds (`source`); pools with the same registry share one. `membership`
//! decides for each pool what of it is believed: an error or an empty answer keeps the last good
//! set. Of checks it knows verdicts only: the pool computes the difference.

mod bounded;
mod entry;
mod fault;
mod host_lookup;
mod lookup;
mod membership;
mod once;
mod registry;
mod schedule;
mod set_file;
mod set_follow;
mod shared;
mod snapshot;
mod source;
mod source_lookup;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::set_follow::PoolSet;
use self::shared::SharedSource;
use self::source::SourceFollower;
use self::source_lookup::DnsLookups;
use crate::config::{Address, Discover, DiscoverSource};
use crate::pool::{self, Backend, Pool};

pub(crate) use fault::FaultKind;
pub(crate) use membership::MemberCounts;
pub(crate) use once::ask_once;
pub(crate) use registry::verify;
#[cfg(feature = "traces")]
pub(crate) use registry::{Collector, CollectorAnswer};
pub(crate) use shared::SharedSources;
pub(crate) use status::{LookupStatus, LookupValues, SetReport};

type Task = AbortOnDropHandle<()>;

/// Follows the names and the registry of `pool` until `stop` is cancelled, through changes of its
/// settings. One task per pool; does nothing while the pool has nothing to look up.
///
/// # Cancel safety
/// Dropping the future ends every lookup; what was found stays in the pool.
pub(crate) async fn watch(
    pool: Arc<Pool>,
    status: Arc<LookupStatus>,
    sources: Arc<SharedSources>,
    stop: CancellationToken,
) {
    let mut followed = PoolLookups {
        set: Arc::new(PoolSet::new(pool.clone(), status.clone())),
        pool: pool.clone(),
        status,
        sources,
        source: None,
        names: HashMap::new(),
    };
    pool::watch_membership(&pool, &stop, || followed.adjust()).await;
}

/// The lookups under way for one pool; dropping one ends it.
struct PoolLookups {
    pool: Arc<Pool>,
    status: Arc<LookupStatus>,
    sources: Arc<SharedSources>,
    set: Arc<PoolSet>,
    source: Option<FollowedSource>,
    /// Lookups of static backends with a host name, by backend name.
    names: HashMap<Arc<str>, NamedLookup>,
}

/// The source of the pool's set.
struct FollowedSource {
    settings: DnsLookups,
    label: String,
    _asking: Asking,
    _following: Task,
}

/// Keeps a source asked.
enum Asking {
    /// Lookups of DNS, of this pool alone.
    Own {
        _task: Task,
    },
    Shared {
        _source: Arc<SharedSource>,
    },
}

struct NamedLookup {
    backend: Arc<Backend>,
    host: String,
    port: u16,
    _task: Task,
}

impl PoolLookups {
    /// Starts and ends lookups to match the pool; a lookup whose name did not change goes on.
    fn adjust(&mut self) {
        self.adjust_source();
        let mut names = HashMap::new();
        for backend in self.pool.backends() {
            if let Address::Name(host, port) = backend.address() {
                let kept = self.names.remove(backend.name());
                let named = match kept.filter(|named| named.is_for(&backend, &host, port)) {
                    Some(named) => named,
                    None => self.start_name(&backend, host, port),
                };
                names.insert(backend.name().clone(), named);
            }
        }
        for ended in std::mem::replace(&mut self.names, names).into_values() {
            let still_asked = self.names.values().any(|named| named.host == ended.host);
            if !still_asked {
                self.status.forget(&ended.host);
            }
        }
    }

    fn adjust_source(&mut self) {
        let settings = self.pool.settings();
        let wanted = settings.discover.clone().map(DnsLookups);
        if self.source.as_ref().map(|source| &source.settings) == wanted.as_ref() {
            return;
        }
        let old = self.source.take();
        if let Some(old) = &old {
            self.status.forget(&old.label);
        }
        let Some(wanted) = wanted else {
            self.set.forget();
            return;
        };
        let label = label(&wanted.0.source);
        if old
            .as_ref()
            .is_some_and(|old| !old.settings.0.source.lists_as(&wanted.0.source))
        {
            self.set.change_source();
        }
        let (asking, follower) = match &wanted.0.source {
            DiscoverSource::Registry(registry) => {
                let shared = self.sources.follow(registry, wanted.0.timeout);
                let follower = shared.follower.clone();
                (Asking::Shared { _source: shared }, follower)
            }
            DiscoverSource::Dns { .. } | DiscoverSource::Srv { .. } => {
                self.look_up(&wanted, old.map(|old| old.settings.0))
            }
        };
        let (set, name) = (Arc::clone(&self.set), label.clone());
        let following = pool::supervise(format!("set of {}", self.pool.name()), move || {
            set_follow::follow(Arc::clone(&set), follower.clone(), name.clone())
        });
        self.source = Some(FollowedSource {
            settings: wanted,
            label,
            _asking: asking,
            _following: AbortOnDropHandle::new(tokio::spawn(following)),
        });
    }

    /// Starts the lookups of DNS.
    fn look_up(&self, wanted: &DnsLookups, old: Option<Discover>) -> (Asking, SourceFollower) {
        let source = &wanted.0.source;
        let known = old.map(|old| source_lookup::known(&self.pool, &old.source, source));
        let known = known.unwrap_or_default();
        let (publisher, follower) = source::source();
        let subject = format!("lookup of {} for {}", label(source), self.pool.name());
        let (publisher, wanted) = (Arc::new(publisher), wanted.clone());
        let task = pool::supervise(subject, move || {
            let (publisher, wanted, known) = (publisher.clone(), wanted.clone(), known.clone());
            async move { source_lookup::follow(wanted, &publisher, known).await }
        });
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        (Asking::Own { _task: task }, follower)
    }

    fn start_name(&self, backend: &Arc<Backend>, host: String, port: u16) -> NamedLookup {
        let subject = format!("lookup of {host} for {}/{}", backend.pool(), backend.name());
        let (named, name, status) = (backend.clone(), host.clone(), self.status.clone());
        let task = pool::supervise(subject, move || {
            host_lookup::follow(named.clone(), name.clone(), port, status.clone())
        });
        NamedLookup {
            backend: backend.clone(),
            host,
            port,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }
}

/// Name of a source, for the log and the status.
pub(crate) fn label(source: &DiscoverSource) -> String {
    match source {
        DiscoverSource::Dns { .. } | DiscoverSource::Srv { .. } => {
            lookup::name_of(source).to_owned()
        }
        DiscoverSource::Registry(registry) => registry.label(),
    }
}

impl NamedLookup {
    fn is_for(&self, backend: &Arc<Backend>, host: &str, port: u16) -> bool {
        Arc::ptr_eq(&self.backend, backend) && self.host == host && self.port == port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::net::Endpoint;
    use crate::net::dns::fake::{FakeNameServer, Reply};
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// A pool named chat from the keys of its table.
    fn settings(keys: &str) -> config::Pool {
        let text = format!(
            "[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\npool = 'chat'\n[pool.chat]\n{keys}"
        );
        let mut config = config::parse(&text, Path::new("test.toml")).unwrap();
        config.pools.remove("chat").unwrap()
    }

    fn dns(fake: &FakeNameServer, more: &str) -> config::Pool {
        let nameserver = fake.address();
        settings(&format!(
            "discover = {{ dns = 'chat.test:9501', nameservers = ['{nameserver}'], min_ttl = '100ms', timeout = '10s' {more} }}"
        ))
    }

    struct Following {
        pool: Arc<Pool>,
        status: Arc<LookupStatus>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Following {
        fn start(settings: &config::Pool) -> Following {
            let (pool, status) = (Pool::new(settings), Arc::new(LookupStatus::default()));
            let stop = CancellationToken::new();
            let sources = Arc::new(SharedSources::default());
            let task = tokio::spawn(watch(pool.clone(), status.clone(), sources, stop.clone()));
            Following {
                pool,
                status,
                stop,
                task,
            }
        }

        fn names(&self) -> Vec<String> {
            let backends = self.pool.backends();
            let listed = backends.iter().filter(|one| !one.is_absent());
            listed.map(|one| one.name().to_string()).collect()
        }

        async fn until(&self, what: &str, reached: impl Fn(&Following) -> bool) {
            let began = Instant::now();
            while !reached(self) {
                assert!(
                    began.elapsed() < Duration::from_secs(20),
                    "{what}: {:?}",
                    self.names()
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }

        async fn stop(self) {
            self.stop.cancel();
            self.task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_pool_follows_its_name_and_survives_bad_answers() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::records(&["10.0.0.1", "10.0.0.2"], 0));
        let following = Following::start(&dns(&fake, ""));
        following
            .until("found", |it| {
                it.names() == ["10.0.0.1:9501", "10.0.0.2:9501"]
            })
            .await;

        fake.set("chat.test.", Reply::records(&["10.0.0.2", "fd00::3"], 0));
        following
            .until("changed", |it| {
                it.names() == ["10.0.0.2:9501", "[fd00::3]:9501"]
            })
            .await;

        for bad in [Reply::ServerFailure, Reply::records(&[], 0)] {
            fake.set("chat.test.", bad);
            following
                .until("failing", |it| !it.status.failing().is_empty())
                .await;
            assert_eq!(following.names(), ["10.0.0.2:9501", "[fd00::3]:9501"]);
            fake.set("chat.test.", Reply::records(&["10.0.0.2", "fd00::3"], 0));
            following
                .until("recovered", |it| it.status.failing().is_empty())
                .await;
        }
        following.stop().await;
    }

    #[tokio::test]
    async fn a_family_that_fails_keeps_its_backends() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::records(&["10.0.0.1", "fd00::1"], 0));
        let following = Following::start(&dns(&fake, ""));
        following.until("found", |it| it.names().len() == 2).await;
        fake.set(
            "chat.test.",
            Reply::V6Failure(vec!["10.0.0.2".parse().unwrap()]),
        );
        following
            .until("changed", |it| {
                it.names() == ["10.0.0.2:9501", "[fd00::1]:9501"]
            })
            .await;
        following.stop().await;
    }

    #[tokio::test]
    async fn services_become_backends_with_weight_and_backup() {
        let fake = FakeNameServer::start().await;
        let services = [
            (10, 5, 9501, "n1.chat.test."),
            (20, 1, 9502, "n2.chat.test."),
        ];
        fake.set("_ws._tcp.chat.test.", Reply::services(&services, 60));
        fake.set("n1.chat.test.", Reply::records(&["10.0.0.1"], 60));
        fake.set("n2.chat.test.", Reply::records(&["10.0.0.2"], 60));
        let nameserver = fake.address();
        let following = Following::start(&settings(&format!(
            "discover = {{ srv = '_ws._tcp.chat.test', nameservers = ['{nameserver}'] }}"
        )));
        following
            .until("found", |it| {
                it.names() == ["n1.chat.test:9501@10.0.0.1", "n2.chat.test:9502@10.0.0.2"]
            })
            .await;
        let backends = following.pool.backends();
        assert_eq!(backends[0].weight(), 5);
        assert!(!backends[0].backup() && backends[1].backup());
        let address = Endpoint::Tcp("10.0.0.2:9502".parse().unwrap());
        assert_eq!(backends[1].endpoint(), Some(address));
        following.stop().await;
    }

    #[tokio::test]
    async fn new_settings_apply_at_once_however_long_the_ttl() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::records(&["10.0.0.1"], 3_600));
        let following = Following::start(&dns(&fake, ""));
        following.until("found", |it| it.names().len() == 1).await;
        following.pool.apply(&dns(&fake, ", weight = 9"));
        following
            .until("applied", |it| it.pool.backends()[0].weight() == 9)
            .await;
        following.stop().await;
    }

    #[tokio::test]
    async fn a_new_port_is_used_while_no_name_server_answers() {
        let fake = FakeNameServer::start().await;
        fake.set(
            "chat.test.",
            Reply::records(&["10.0.0.1", "fd00::1"], 3_600),
        );
        let following = Following::start(&dns(&fake, ""));
        following.until("found", |it| it.names().len() == 2).await;
        fake.set("chat.test.", Reply::Silence);
        let nameserver = fake.address();
        following.pool.apply(&settings(&format!(
            "discover = {{ dns = 'chat.test:9502', nameservers = ['{nameserver}'] }}"
        )));
        following
            .until("moved", |it| {
                it.names() == ["10.0.0.1:9502", "[fd00::1]:9502"]
            })
            .await;
        following.stop().await;
    }

    #[tokio::test]
    async fn answers_that_no_backend_can_have_keep_the_last_good_set() {
        let fake = FakeNameServer::start().await;
        fake.set("chat.test.", Reply::records(&["10.0.0.1"], 0));
        let following = Following::start(&dns(&fake, ""));
        following.until("found", |it| it.names().len() == 1).await;
        fake.set("chat.test.", Reply::records(&["0.0.0.0", "::"], 0));
        following
            .until("failing", |it| {
                it.status
                    .failing()
                    .iter()
                    .any(|(_, why)| why.contains("no backend can have"))
            })
            .await;
        assert_eq!(following.names(), ["10.0.0.1:9501"]);
        following.stop().await;
    }

    #[tokio::test]
    async fn a_name_that_a_reload_removed_is_not_asked_for_again() {
        let fake = FakeNameServer::start().await;
        let following = Following::start(&dns(&fake, ""));
        following
            .until("failing", |it| !it.status.failing().is_empty())
            .await;
        following
            .pool
            .apply(&settings("backend = [{ address = '127.0.0.1:1' }]"));
        following
            .until("forgotten", |it| it.status.failing().is_empty())
            .await;
        assert_eq!(following.names(), ["127.0.0.1:1"]);
        following.stop().await;
    }

    #[tokio::test]
    async fn a_static_backend_with_a_host_name_is_resolved() {
        let following = Following::start(&settings(
            "backend = [{ name = 'n1', address = 'localhost:9501' }]",
        ));
        let endpoint = |it: &Following| it.pool.backends()[0].endpoint();
        following
            .until("resolved", |it| endpoint(it).is_some())
            .await;
        let Some(Endpoint::Tcp(address)) = endpoint(&following) else {
            panic!("{:?}", endpoint(&following))
        };
        assert!(
            address.ip().is_loopback() && address.port() == 9501,
            "{address}"
        );
        following.stop().await;
    }
}

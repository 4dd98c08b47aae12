//! Backends from DNS: whole snapshots for `discover`, addresses of static backends with a host
//! name.
//!
//! An error or an empty answer keeps the last good set. Knows nothing of checks: the pool computes
//! the difference.

mod host_lookup;
mod lookup;
mod schedule;
mod snapshot;
mod source_lookup;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Address, DiscoverSource};
use crate::pool::{self, Backend, Pool};

pub(crate) use status::{LookupStatus, LookupValues};

type Task = AbortOnDropHandle<()>;

/// Follows the DNS names of `pool` until `stop` is cancelled, through changes of its settings. One
/// task per pool; does nothing while the pool has no name to look up.
///
/// # Cancel safety
/// Dropping the future ends every lookup; what was found stays in the pool.
pub(crate) async fn watch(pool: Arc<Pool>, status: Arc<LookupStatus>, stop: CancellationToken) {
    let mut followed = PoolLookups {
        pool: pool.clone(),
        status,
        set: None,
        names: HashMap::new(),
    };
    pool::watch_membership(&pool, &stop, || followed.adjust()).await;
}

/// The lookups under way for one pool; dropping one ends it.
struct PoolLookups {
    pool: Arc<Pool>,
    status: Arc<LookupStatus>,
    set: Option<(DiscoverSource, Task)>,
    /// Lookups of static backends with a host name, by backend name.
    names: HashMap<Arc<str>, NamedLookup>,
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
        self.adjust_set();
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

    fn adjust_set(&mut self) {
        let settings = self.pool.settings();
        let wanted = settings.discover.as_ref().map(|discover| &discover.source);
        if self.set.as_ref().map(|(source, _)| source) == wanted {
            return;
        }
        let old = self.set.take().map(|(source, _)| source);
        if let Some(source) = &old {
            self.status.forget(lookup::name_of(source));
        }
        if let Some(source) = wanted.cloned() {
            let known = old.map(|old| source_lookup::known(&self.pool, &old, &source));
            let task = self.set_task(source.clone(), known.unwrap_or_default());
            self.set = Some((source, AbortOnDropHandle::new(tokio::spawn(task))));
        }
    }

    fn set_task(
        &self,
        source: DiscoverSource,
        known: Vec<snapshot::DiscoveredAddress>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let subject = format!(
            "lookup of {} for {}",
            lookup::name_of(&source),
            self.pool.name()
        );
        let (pool, status) = (self.pool.clone(), self.status.clone());
        pool::supervise(subject, move || {
            source_lookup::follow(pool.clone(), source.clone(), status.clone(), known.clone())
        })
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
            let task = tokio::spawn(watch(pool.clone(), status.clone(), stop.clone()));
            Following {
                pool,
                status,
                stop,
                task,
            }
        }

        fn names(&self) -> Vec<String> {
            let backends = self.pool.backends();
            backends.iter().map(|one| one.name().to_string()).collect()
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

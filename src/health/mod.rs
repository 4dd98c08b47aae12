//! Active health checks: checks every backend of a pool regularly and reports verdicts to the pool.
//!
//! Knows nothing of connections or of discovery: it follows the pool's membership and settings. A
//! check that failed for a local reason (file descriptors, ports) says nothing about a backend.

mod check_task;
mod connection;
mod expect;
mod header_case;
mod http;
mod plan;
mod probe;
mod progress;
mod redis;
mod websocket;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Check;
use crate::net::Endpoint;
use crate::pool::{self, Backend, Pool};
use crate::tls::BackendTlsConfig;
use plan::CheckPlan;

pub(crate) use plan::CheckError;

/// Verifies that `check` can be made: loads its roots, builds its request. Not the pool's TLS. For
/// use before a configuration is applied.
///
/// # Errors
/// Names the file or the value, and the fault.
pub(crate) fn verify(check: &Check) -> Result<(), CheckError> {
    CheckPlan::new(check, None).map(drop)
}

/// Checks the backends of `pool` until `stop` is cancelled, following its membership and settings.
/// One task per pool.
///
/// # Cancel safety
/// Dropping the future ends every check; verdicts stay.
pub(crate) async fn watch(pool: Arc<Pool>, stop: CancellationToken) {
    let mut watched = PoolChecks {
        pool: pool.clone(),
        check: None,
        tls: None,
        backends: HashMap::new(),
    };
    let mut changes = pool.changed();
    loop {
        changes.borrow_and_update();
        tokio::select! {
            () = stop.cancelled() => return,
            () = watched.adjust() => {}
        }
        if !pool::membership_changed(&mut changes, &stop).await {
            return;
        }
    }
}

/// The checks under way for one pool; dropping one ends it.
struct PoolChecks {
    pool: Arc<Pool>,
    check: Option<(Check, Arc<CheckPlan>)>,
    /// The pool's TLS when the plan was made.
    tls: Option<Arc<BackendTlsConfig>>,
    /// Checks by backend name.
    backends: HashMap<Arc<str>, BackendChecks>,
}

struct BackendChecks {
    backend: Arc<Backend>,
    endpoint: Option<Endpoint>,
    _task: AbortOnDropHandle<()>,
}

impl PoolChecks {
    /// Starts and ends checks to match the pool. A check whose backend and settings did not change
    /// goes on, with its count of successes or failures.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing, or leaves a step for the next call.
    async fn adjust(&mut self) {
        self.adjust_check().await;
        let Some((_, plan)) = &self.check else {
            self.lift_verdicts();
            return;
        };
        let mut backends = HashMap::new();
        for backend in self.pool.backends() {
            let endpoint = backend.endpoint();
            let kept = self.backends.remove(backend.name());
            let watched = kept
                .filter(|kept| Arc::ptr_eq(&kept.backend, &backend) && kept.endpoint == endpoint)
                .unwrap_or_else(|| start(&backend, endpoint, plan));
            backends.insert(backend.name().clone(), watched);
        }
        self.backends = backends;
    }

    async fn adjust_check(&mut self) {
        let settings = self.pool.settings();
        let tls = self.pool.tls();
        let same = |(check, plan): &(Check, Arc<CheckPlan>)| {
            Some(check) == settings.check.as_ref() && plan.dial == settings.dial
        };
        let is_same = self.check.as_ref().map_or(settings.check.is_none(), same);
        if is_same && self.tls == tls {
            return;
        }
        // The present checks go on meanwhile.
        let plan = match &settings.check {
            Some(check) => self.prepare(check, tls.clone()).await,
            None => None,
        };
        self.tls = tls;
        self.backends.clear();
        self.check = plan.map(|(check, mut plan)| {
            plan.dial = settings.dial.clone();
            (check, Arc::new(plan))
        });
    }

    /// Prepares a check on a thread that may block: certificates are read from disk, and the checks
    /// of all pools share one thread.
    async fn prepare(
        &self,
        check: &Check,
        tls: Option<Arc<BackendTlsConfig>>,
    ) -> Option<(Check, CheckPlan)> {
        let settings = check.clone();
        let plan = tokio::task::spawn_blocking(move || {
            CheckPlan::new(&settings, tls.as_ref()).map(|plan| (settings, plan))
        });
        let error = match plan.await {
            Ok(Ok(prepared)) => return Some(prepared),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(pool = %self.pool.name(), error, "health check cannot be made");
        None
    }

    /// Marks every backend up: without a check, one that a check took down would stay down.
    fn lift_verdicts(&self) {
        for backend in self.pool.backends() {
            if !backend.check_up() {
                backend.set_check(true, "no check", Instant::now());
            }
        }
    }
}

fn start(
    backend: &Arc<Backend>,
    endpoint: Option<Endpoint>,
    plan: &Arc<CheckPlan>,
) -> BackendChecks {
    let subject = format!("check of {}/{}", backend.pool(), backend.name());
    let (checked, plan) = (backend.clone(), plan.clone());
    let task = pool::supervise(subject, move || {
        check_task::run(checked.clone(), plan.clone())
    });
    BackendChecks {
        backend: backend.clone(),
        endpoint,
        _task: AbortOnDropHandle::new(tokio::spawn(task)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::pool::OperatorState;
    use futures_util::FutureExt;
    use std::path::Path;
    use std::sync::atomic::Ordering;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixListener};

    /// A pool named chat from the keys of its table.
    pub(in crate::health) fn settings(keys: &str) -> config::Pool {
        let text = format!(
            "[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\npool = 'chat'\n[pool.chat]\n{keys}"
        );
        let mut config = config::parse(&text, Path::new("test.toml")).unwrap();
        config.pools.remove("chat").unwrap()
    }

    struct Watching {
        pool: Arc<Pool>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Watching {
        fn start(pool: Arc<Pool>) -> Watching {
            let stop = CancellationToken::new();
            let task = tokio::spawn(watch(pool.clone(), stop.clone()));
            Watching { pool, stop, task }
        }

        fn backend(&self, name: &str) -> Arc<Backend> {
            self.pool.backend(name).unwrap()
        }

        async fn until_up(&self, name: &str, up: bool) {
            let began = Instant::now();
            while self.backend(name).check_up() != up {
                assert!(
                    began.elapsed() < Duration::from_secs(20),
                    "{name} is never up = {up}"
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }

        async fn stop(self) {
            self.stop.cancel();
            self.task.await.unwrap();
        }
    }

    async fn node() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn a_backend_goes_down_with_a_reason_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1");
        let keys = format!(
            "backend = [{{ name = 'n1', address = 'unix:{}' }}]\n\
             check = {{ type = 'tcp', interval = '100ms', timeout = '10s', rise = 2, fall = 2 }}",
            path.display()
        );
        let watching = Watching::start(Pool::new(&settings(&keys)));
        watching.until_up("n1", false).await;
        let n1 = watching.backend("n1");
        assert_eq!(n1.reason(), "connect: entity not found");
        assert!(n1.counters().checks_failed.load(Ordering::Relaxed) >= 1);
        let _listener = UnixListener::bind(&path).unwrap();
        watching.until_up("n1", true).await;
        assert!(n1.counters().checks_ok.load(Ordering::Relaxed) >= 1);
        watching.stop().await;
    }

    #[tokio::test]
    async fn a_reload_leaves_the_checks_of_unchanged_backends_alone() {
        let ((first, a), (second, b)) = (node().await, node().await);
        let check = "check = { type = 'expect', expect = 'hello', interval = '1h', timeout = '20s', rise = 1 }";
        let one =
            format!("backend = [{{ name = 'a', address = '{a}', init_state = 'down' }}]\n{check}");
        let two = format!(
            "backend = [{{ name = 'a', address = '{a}', init_state = 'down' }}, {{ name = 'b', address = '{b}' }}]\n{check}"
        );
        let watching = Watching::start(Pool::new(&settings(&one)));
        let (mut asked, _) = first.accept().await.unwrap();
        watching.pool.apply(&settings(&two));
        // The new backend is checked: the reload has been followed.
        second.accept().await.unwrap();
        asked.write_all(b"hello").await.unwrap();
        watching.until_up("a", true).await;
        assert!(first.accept().now_or_never().is_none(), "a was asked once");
        watching.stop().await;
    }

    #[tokio::test]
    async fn a_changed_check_asks_at_once() {
        let (listener, address) = node().await;
        let with = |timeout: &str| {
            settings(&format!(
                "backend = [{{ name = 'a', address = '{address}' }}]\n\
                 check = {{ type = 'tcp', interval = '1h', timeout = '{timeout}' }}"
            ))
        };
        let watching = Watching::start(Pool::new(&with("10s")));
        listener.accept().await.unwrap();
        watching.pool.apply(&with("11s"));
        listener.accept().await.unwrap();
        watching.stop().await;
    }

    /// Gives whoever waits for it an end of the file, and whoever is just about to wait.
    fn release_readers(fifo: &Path) {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        for _ in 0..100 {
            // Without a reader it fails.
            let _ = rustix::fs::open(fifo, flags, rustix::fs::Mode::empty());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// One file system that hung stopped the checks of every pool.
    #[tokio::test]
    async fn a_certificate_file_that_hangs_holds_up_the_checks_of_no_other_pool() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("ca.pem");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let ((_first, a), (second, b)) = (node().await, node().await);
        let hanging = format!(
            "backend = [{{ name = 'a', address = '{a}' }}]\n\
             check = {{ type = 'tcp', tls = {{ ca = '{}' }} }}",
            fifo.display()
        );
        let checked = format!(
            "backend = [{{ name = 'b', address = '{b}' }}]\n\
             check = {{ type = 'tcp', interval = '100ms', timeout = '10s' }}"
        );
        // Ends the read, in time or not. Whoever reads again finds a file.
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let release = std::thread::spawn(move || {
            let is_timely = wait.recv_timeout(Duration::from_secs(20)).is_ok();
            let aside = fifo.with_extension("aside");
            std::fs::rename(&fifo, &aside).unwrap();
            std::fs::write(fifo, "no certificate").unwrap();
            release_readers(&aside);
            is_timely
        });
        let watching = [hanging, checked].map(|keys| Watching::start(Pool::new(&settings(&keys))));
        for _ in 0..3 {
            second.accept().await.unwrap();
        }
        let _ = done.send(());
        assert!(release.join().unwrap(), "the file held up the checks");
        for one in watching {
            one.stop().await;
        }
    }

    #[tokio::test]
    async fn a_backend_in_maintenance_is_not_asked() {
        let ((ready, a), (maint, b)) = (node().await, node().await);
        let pool = Pool::new(&settings(&format!(
            "backend = [{{ name = 'a', address = '{a}' }}, {{ name = 'b', address = '{b}' }}]\n\
             check = {{ type = 'tcp', interval = '100ms', timeout = '10s' }}"
        )));
        let b = pool.backend("b").unwrap();
        b.set_operator(OperatorState::Maint);
        let watching = Watching::start(pool);
        for _ in 0..3 {
            ready.accept().await.unwrap();
        }
        assert!(maint.accept().now_or_never().is_none());
        b.set_operator(OperatorState::Ready);
        maint.accept().await.unwrap();
        watching.stop().await;
    }

    #[tokio::test]
    async fn a_check_that_runs_into_maintenance_is_made_again() {
        let (listener, address) = node().await;
        let pool = Pool::new(&settings(&format!(
            "backend = [{{ name = 'n1', address = '{address}' }}]\n\
             check = {{ type = 'expect', expect = 'hello', interval = '1h', timeout = '1h' }}"
        )));
        let watching = Watching::start(pool);
        let n1 = watching.backend("n1");
        let (mut before, _) = listener.accept().await.unwrap();
        n1.set_operator(OperatorState::Maint);
        n1.set_operator(OperatorState::Ready);
        let (after, _) = listener.accept().await.unwrap();
        let _ = before.write_all(b"goodbye").await;
        assert_eq!(before.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert!(!n1.is_checked());
        drop(after);
        watching.until_up("n1", false).await;
        watching.stop().await;
    }

    #[tokio::test]
    async fn without_its_check_a_backend_that_was_down_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let backend = format!(
            "backend = [{{ name = 'n1', address = 'unix:{}' }}]",
            folder.path().join("missing").display()
        );
        let check = "check = { type = 'tcp', interval = '100ms', timeout = '10s', fall = 1 }";
        let watching = Watching::start(Pool::new(&settings(&format!("{backend}\n{check}"))));
        watching.until_up("n1", false).await;
        watching.pool.apply(&settings(&backend));
        watching.until_up("n1", true).await;
        watching.stop().await;
    }
}

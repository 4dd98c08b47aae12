//! The runtimes beside the data path: one for discovery, admin and reloads, one for checks.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads of the runtime. Tasks mostly wait; a second thread keeps a slow one (a large metrics
/// page) from holding up the others.
const THREADS: usize = 2;

/// Threads that read the files of checks. A reload of many pools reads few at once, so that the
/// data path keeps its cores; one file that hangs leaves others.
const CHECK_FILE_THREADS: usize = 4;

/// Owner of the runtimes. The threads are left to end on their own when it is dropped, which may
/// happen in async code.
pub(super) struct ControlRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
    checks: Handle,
    _stop_checks: DropGuard,
}

impl ControlRuntime {
    /// # Errors
    /// The kernel refused a thread or an epoll.
    pub(super) fn start() -> io::Result<ControlRuntime> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("watch")
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        Ok(ControlRuntime {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            checks: start_checks(stop.clone().cancelled_owned())?,
            _stop_checks: stop.drop_guard(),
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runtime of the checks.
    pub(super) fn checks(&self) -> Handle {
        self.checks.clone()
    }
}

/// Starts the runtime of the checks, which ends with `until`. It has one thread: with several, each
/// step of a check wakes another one to look for work, which costs more than the step.
fn start_checks(until: impl Future<Output = ()> + Send + 'static) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread()
        .max_blocking_threads(CHECK_FILE_THREADS)
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("checks".to_owned())
        .spawn(move || runtime.block_on(until))?;
    Ok(handle)
}

impl Drop for ControlRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

//! The runtime beside the data path: checks, discovery, admin, reloads.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of the runtime. Tasks mostly wait; a second thread keeps a slow one (a large metrics
/// page) from holding up the checks.
const THREADS: usize = 2;

/// Owner of the runtime. The threads are left to end on their own when it is dropped, which may
/// happen in async code.
pub(super) struct ControlRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
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
        Ok(ControlRuntime {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for ControlRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

//! Backends from DNS: whole snapshots for `discover`, addresses for static backends with a host name.
//!
//! An error or an empty answer keeps the last good set. Knows nothing of checks: the pool computes the difference.

mod lookup;
mod name;
mod schedule;
mod set;
mod snapshot;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Address, DiscoverSource};
use crate::pool::{Backend, Pool};

pub use status::Status;

type Task = AbortOnDropHandle<()>;

/// Follows the DNS names of `pool` until `stop` is cancelled, through changes of its settings. One task per pool; does
/// nothing while the pool has no name to look up.
///
/// # Cancel safety
/// Dropping the future ends every lookup; what the pool was told stays.
pub async fn follow(pool: Arc<Pool>, status: Arc<Status>, stop: CancellationToken) {
    let mut changed = pool.changed();
    let mut followed = Followed {
        pool,
        status,
        set: None,
        names: HashMap::new(),
    };
    loop {
        changed.borrow_and_update();
        followed.adjust();
        let more = tokio::select! {
            () = stop.cancelled() => false,
            change = changed.changed() => change.is_ok(),
        };
        if !more {
            return;
        }
    }
}

/// The lookups under way for one pool; dropping one ends it.
struct Followed {
    pool: Arc<Pool>,
    status: Arc<Status>,
    set: Option<(DiscoverSource, Task)>,
    /// Of static backends with a host name, by backend name.
    names: HashMap<Arc<str>, Named>,
}

struct Named {
    backend: Arc<Backend>,
    host: String,
    port: u16,
    _task: Task,
}

impl Followed {
    /// Starts and ends lookups so that they fit the pool; one whose subject did not change goes on.
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
        if let Some((source, _)) = self.set.take() {
            self.status.forget(lookup::name_of(&source));
        }
        if let Some(source) = wanted.cloned() {
            let task = set::follow(self.pool.clone(), source.clone(), self.status.clone());
            self.set = Some((source, AbortOnDropHandle::new(tokio::spawn(task))));
        }
    }

    fn start_name(&self, backend: &Arc<Backend>, host: String, port: u16) -> Named {
        let task = name::follow(backend.clone(), host.clone(), port, self.status.clone());
        Named {
            backend: backend.clone(),
            host,
            port,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }
}

impl Named {
    fn is_for(&self, backend: &Arc<Backend>, host: &str, port: u16) -> bool {
        Arc::ptr_eq(&self.backend, backend) && self.host == host && self.port == port
    }
}

//! This balancer as a member of its cluster: started, asked and told by the server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::affinity::AffinityLoop;
use super::driver::{Driver, SetRequest, ShareError};
use super::handover::ClusterHandover;
use super::operator::{Merged, OperatorKey, OperatorTable, OperatorValue};
use super::seal::ClusterSecret;
use super::shared::{ClusterHost, ClusterShared};
use super::state_file;
use super::status::ClusterStatus;
use super::store::Store;
use crate::config::{Cluster, Share};
use crate::pool::AffinityLink;
use crate::remote::RemoteError;

/// Operations that wait for the store at once.
const MAX_REQUESTS: usize = 32;
/// Exchanges that an operation may have to wait for: the one under way, and its own, each with a
/// connect.
const EXCHANGES_AHEAD: u32 = 8;
/// Longest name of a host that is taken for an id.
const MAX_ID: usize = 64;

/// A member. Dropping it ends its loop at once.
pub(crate) struct ClusterMember {
    shared: Arc<ClusterShared>,
    requests: mpsc::Sender<SetRequest>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    affinity: Option<Arc<AffinityLink>>,
}

impl ClusterMember {
    /// Starts the loop on a runtime. `before`: what the member before has known. Reads files.
    ///
    /// # Errors
    /// The secret cannot be read.
    pub(crate) fn start(
        settings: &Cluster,
        host: Box<dyn ClusterHost>,
        before: Option<ClusterHandover>,
        runtime: &Handle,
    ) -> Result<ClusterMember, RemoteError> {
        let secret = ClusterSecret::load(settings)?;
        let mut table = kept_states(settings, &secret);
        let before = before.filter(|before| before.is_of(&settings.name));
        let before = before.unwrap_or_default();
        before.merge_into(&mut table);
        let id = settings.id.clone().unwrap_or_else(host_name);
        let settings = Arc::new(settings.clone());
        let shared = Arc::new(ClusterShared::new(settings, id, host, table));
        let (requests, asked) = mpsc::channel(MAX_REQUESTS);
        let stop = CancellationToken::new();
        let affinity = shared.shares(Share::Sticky).then(|| {
            let store = Store::new(Arc::clone(&shared.settings));
            let (queue, asks) = AffinityLoop::new(store, secret.clone());
            // Ends once no pool has the link any more.
            runtime.spawn(asks.run());
            let key = secret.hash_key("affinity");
            Arc::new(AffinityLink::new(&key, Box::new(queue)))
        });
        let driver = Driver::new(Arc::clone(&shared), secret, asked, before.members());
        let task = runtime.spawn(driver.run(stop.clone()));
        Ok(ClusterMember {
            shared,
            requests,
            stop,
            task: Mutex::new(Some(task)),
            affinity,
        })
    }

    pub(crate) fn settings(&self) -> &Cluster {
        &self.shared.settings
    }

    pub(crate) fn shares(&self, part: Share) -> bool {
        self.shared.shares(part)
    }

    pub(crate) fn status(&self) -> ClusterStatus {
        self.shared.status().clone()
    }

    /// Way of the pools to what the store knows of clients; `None`: that is not shared.
    pub(crate) fn affinity(&self) -> Option<Arc<AffinityLink>> {
        self.affinity.clone()
    }

    /// Knowledge that the next member of this id goes on with.
    pub(crate) fn hand_over(&self) -> ClusterHandover {
        ClusterHandover::of(&self.shared)
    }

    /// The operator's states that hold at all members.
    pub(crate) fn values(&self) -> Vec<(OperatorKey, OperatorValue)> {
        self.shared.values()
    }

    /// Waits for the first good exchange, for as long as one may take.
    pub(crate) async fn joined(&self) {
        let limit = self.shared.settings.timeout * 3;
        let mut exchanges = self.shared.exchanges.subscribe();
        // The sender lives as long as this.
        let _ = timeout(limit, exchanges.wait_for(|count| *count > 0)).await;
    }

    /// Sets a state at all members: returns when the store has it. The caller applies it here.
    ///
    /// # Errors
    /// The store does not have it, or at least has not said so.
    pub(crate) async fn set(
        &self,
        key: OperatorKey,
        value: OperatorValue,
    ) -> Result<(), ShareError> {
        let (answer, written) = oneshot::channel();
        let request = SetRequest { key, value, answer };
        let full = || ShareError::Unavailable("too many wait for it".to_owned());
        self.requests.try_send(request).map_err(|_| full())?;
        let limit = self.shared.settings.timeout * EXCHANGES_AHEAD;
        match timeout(limit, written).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => Err(ShareError::Unsure("no answer in time".to_owned())),
        }
    }

    /// Sets a state here, whatever the store says. The others have it as soon as the store does.
    ///
    /// # Errors
    /// There are too many states.
    pub(crate) fn set_local(
        &self,
        key: &OperatorKey,
        value: OperatorValue,
    ) -> Result<(), ShareError> {
        if self.shared.put(key, value) == Merged::Full {
            return Err(ShareError::Full);
        }
        self.shared.status().states = self.shared.states();
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Waits until all members have applied all states, at most `limit`, and returns how many of
    /// how many have.
    pub(crate) async fn spread(&self, limit: Duration) -> (usize, usize) {
        let mut exchanges = self.shared.exchanges.subscribe();
        let spread = async {
            // The loop looks at the members after each exchange.
            while !is_spread(self.counts()) {
                if exchanges.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(limit, spread).await;
        self.counts()
    }

    /// Leaves the cluster: its key is taken out of the store.
    pub(crate) async fn leave(&self) {
        self.stop.cancel();
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            // One that hangs is forgotten by the store.
            let _ = timeout(self.shared.settings.timeout * EXCHANGES_AHEAD, task).await;
        }
    }

    /// Ends the loop; the store keeps what it has of this member.
    pub(crate) fn end(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }

    /// Members that have all states, and all; this one among them.
    fn counts(&self) -> (usize, usize) {
        // Of now: the members may have told of another table than what this one has by now.
        let digest = self.shared.table().digest();
        let status = self.shared.status();
        let up_to_date = status.members.iter();
        let up_to_date = up_to_date.filter(|one| one.operator == digest).count();
        (up_to_date + 1, status.members.len() + 1)
    }
}

impl Drop for ClusterMember {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_spread((up_to_date, all): (usize, usize)) -> bool {
    up_to_date == all
}

/// States of the file; a bad one is no reason not to start.
fn kept_states(settings: &Cluster, secret: &ClusterSecret) -> OperatorTable {
    let file = settings
        .state_file
        .as_deref()
        .filter(|_| settings.shares(Share::Operator));
    let read = file.map(|file| state_file::read(file, secret));
    match read.transpose() {
        Ok(table) => table.unwrap_or_default(),
        Err(error) => {
            tracing::error!(error, "the operator's states cannot be read of their file");
            OperatorTable::default()
        }
    }
}

/// Name of this machine, as far as it may be an id.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_fine = |one: &char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.');
    let name: String = name.trim().chars().filter(is_fine).take(MAX_ID).collect();
    if name.is_empty() {
        return "evenkeel".to_owned();
    }
    name
}

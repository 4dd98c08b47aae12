//! What the loop of a member, and those who ask it, have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::operator::{Merged, OperatorEntry, OperatorKey, OperatorTable, OperatorValue};
use super::status::{ClusterStatus, SharedState};
use crate::config::{Cluster, Share};

/// The balancer of a member. Called by its loop, beside the data path.
pub(crate) trait ClusterHost: Send + Sync + 'static {
    /// Live connections of each backend, `POOL/BACKEND`.
    fn loads(&self) -> Vec<(String, u32)>;

    /// Takes the live connections that all other members have. `members`: all, this one among them.
    fn take_loads(&self, loads: &BTreeMap<&str, u64>, members: u32);

    /// Sources with so many connections that the others should know. `key`: of their hash.
    fn sources(&self, key: [u8; 16], members: u32) -> Vec<(u64, u32)>;

    /// Takes the connections of sources at the others, member by member.
    fn take_sources(&self, key: [u8; 16], sources: Vec<(u64, u32)>);

    /// Goes on without the others; there were so many members.
    fn be_alone(&self, members: u32);

    /// Applies a state that was set elsewhere, with the drain job that belongs to it.
    fn operate(&self, key: &OperatorKey, value: &OperatorValue) -> Applied;

    /// A state that the operator has set here; `None`: there is no such backend, or nobody has
    /// touched it.
    fn own_value(&self, key: &OperatorKey) -> Option<OperatorValue>;

    /// Applies all states to the backends that have others: they came later.
    fn reconcile(&self, states: &[(OperatorKey, OperatorValue)]);

    /// Whether another process speaks for this member.
    fn is_silent(&self) -> bool;
}

/// Whether a state was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Done,
    /// Its backend is not here, or not yet.
    NoBackend,
    /// This process is handing over; if it stays after all, the state is still to be applied.
    NotNow,
}

/// See the module.
pub(super) struct ClusterShared {
    pub settings: Arc<Cluster>,
    pub id: String,
    pub host: Box<dyn ClusterHost>,
    /// A state waits to be written into the store.
    pub wake: Notify,
    /// Count of good exchanges.
    pub exchanges: watch::Sender<u64>,
    table: Mutex<OperatorTable>,
    /// Fields whose entry is in the table and not applied yet; no more than the table has.
    pending: Mutex<BTreeMap<OperatorKey, Applied>>,
    status: Mutex<ClusterStatus>,
}

impl ClusterShared {
    pub(super) fn new(
        settings: Arc<Cluster>,
        id: String,
        host: Box<dyn ClusterHost>,
        table: OperatorTable,
    ) -> ClusterShared {
        use crate::config::Word as _;
        let urls: Vec<_> = settings.urls().iter().map(ToString::to_string).collect();
        let status = ClusterStatus {
            name: settings.name.clone(),
            id: id.clone(),
            store: urls.join(", "),
            share: settings.share.iter().map(|part| part.word()).collect(),
            ..ClusterStatus::default()
        };
        ClusterShared {
            settings,
            id,
            host,
            wake: Notify::new(),
            exchanges: watch::Sender::new(0),
            table: Mutex::new(table),
            pending: Mutex::default(),
            status: Mutex::new(status),
        }
    }

    pub(super) fn shares(&self, part: Share) -> bool {
        self.settings.shares(part)
    }

    /// Held for a look or a change, never across a wait.
    pub(super) fn table(&self) -> MutexGuard<'_, OperatorTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`ClusterShared::table`].
    pub(super) fn status(&self) -> MutexGuard<'_, ClusterStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<OperatorKey, Applied>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digest of the states that this balancer has applied; of none while some wait.
    pub(super) fn applied_digest(&self) -> [u8; 16] {
        let waits = self.pending().values().any(|one| *one == Applied::NotNow);
        if waits {
            return [0; 16];
        }
        self.table().digest()
    }

    /// Applies a state, now or as soon as it can be.
    pub(super) fn apply(&self, key: &OperatorKey, value: &OperatorValue) {
        match self.host.operate(key, value) {
            Applied::Done => {
                self.pending().remove(key);
            }
            late => {
                self.pending().insert(key.clone(), late);
            }
        }
    }

    /// Applies the states that could not be applied before.
    pub(super) fn apply_pending(&self) {
        let keys: Vec<_> = self.pending().keys().cloned().collect();
        for key in keys {
            let entry = self.table().entries().get(&key).cloned();
            match entry {
                Some(entry) => self.apply(&key, &entry.value),
                None => {
                    self.pending().remove(&key);
                }
            }
        }
    }

    /// Takes a state that is set here, above all that are known. The caller applies it.
    pub(super) fn put(&self, key: &OperatorKey, value: OperatorValue) -> Merged {
        let mut table = self.table();
        let entry = table.next(value, &self.id);
        let merged = table.merge(key, entry);
        drop(table);
        self.pending().remove(key);
        merged
    }

    /// Takes an entry that this member has written into the store. The caller applies it.
    pub(super) fn put_written(&self, key: &OperatorKey, entry: OperatorEntry) -> Merged {
        let merged = self.table().merge(key, entry);
        self.pending().remove(key);
        merged
    }

    /// Takes an entry of the store, and applies it if it is above the one that is known.
    pub(super) fn take(&self, key: &OperatorKey, entry: &OperatorEntry) {
        let merged = self.table().merge(key, entry.clone());
        let (pool, backend) = (key.pool.as_str(), key.backend.as_str());
        match merged {
            Merged::Taken(None) if self.keeps_own(key, entry) => {}
            Merged::Taken(before) => {
                let (from, from_by) = before.map(|one| (one.value.to_string(), one.by)).unzip();
                tracing::info!(
                    pool,
                    backend,
                    to = %entry.value,
                    by = entry.by,
                    rev = entry.rev,
                    from,
                    from_by,
                    "the operator's state comes from the cluster"
                );
                self.apply(key, &entry.value);
            }
            Merged::Full => tracing::warn!(pool, backend, "too many states in the cluster"),
            Merged::Same | Merged::Older => {}
        }
    }

    /// Keeps a state that the operator has set here before this member knew of the cluster's word
    /// on the field, if that is but an old `ready`: joining never un-drains.
    fn keeps_own(&self, key: &OperatorKey, entry: &OperatorEntry) -> bool {
        if !entry.value.is_neutral() {
            return false;
        }
        let Some(own) = self.host.own_value(key) else {
            return false;
        };
        let (pool, backend) = (key.pool.as_str(), key.backend.as_str());
        let (there, by) = (&entry.value, entry.by.as_str());
        let what = "a state set here goes on, and goes to the cluster";
        tracing::warn!(pool, backend, state = %own, %there, by, "{what}");
        let _: Merged = self.put(key, own);
        self.wake.notify_one();
        true
    }

    /// All entries.
    pub(super) fn entries(&self) -> Vec<(OperatorKey, OperatorEntry)> {
        let table = self.table();
        let entries = table.entries().iter();
        entries
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// All values.
    pub(super) fn values(&self) -> Vec<(OperatorKey, OperatorValue)> {
        let entries = self.entries().into_iter();
        entries.map(|(key, entry)| (key, entry.value)).collect()
    }

    /// The values that are none of a backend that nobody has touched.
    pub(super) fn states(&self) -> Vec<SharedState> {
        let is_set = |entry: &OperatorEntry| !entry.value.is_neutral();
        let entries = self
            .entries()
            .into_iter()
            .filter(|(_, entry)| is_set(entry));
        entries
            .map(|(key, entry)| SharedState {
                pool: key.pool,
                backend: key.backend,
                state: entry.value.to_string(),
                by: entry.by,
                rev: entry.rev,
            })
            .collect()
    }
}

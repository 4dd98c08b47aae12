//! Knowledge of a member that the next one goes on with: after a reload of its settings, and in the
//! process that takes over in an upgrade. The store may be away then, or older than this.

use serde::{Deserialize, Serialize};

use super::operator::{MAX_ENTRIES, Merged, OperatorEntry, OperatorKey, OperatorTable};
use super::shared::ClusterShared;

/// Knowledge of a member about its cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterHandover {
    cluster: String,
    /// Members at the latest good exchange, this one among them.
    members: u32,
    entries: Vec<(String, OperatorEntry)>,
}

impl ClusterHandover {
    pub(super) fn of(shared: &ClusterShared) -> ClusterHandover {
        let entries = shared.entries().into_iter();
        ClusterHandover {
            cluster: shared.settings.name.clone(),
            members: shared.status().known_members,
            entries: entries
                .map(|(key, entry)| (key.to_string(), entry))
                .collect(),
        }
    }

    pub(super) fn is_of(&self, cluster: &str) -> bool {
        self.cluster == cluster
    }

    pub(super) fn members(&self) -> u32 {
        self.members.max(1)
    }

    /// Adds the operator's states to a table.
    pub(super) fn merge_into(&self, table: &mut OperatorTable) {
        for (key, entry) in self.entries.iter().take(MAX_ENTRIES) {
            let key = OperatorKey::parse(key).filter(|key| key.field == entry.value.field());
            if let Some(key) = key {
                let _: Merged = table.merge(&key, entry.clone());
            }
        }
    }
}

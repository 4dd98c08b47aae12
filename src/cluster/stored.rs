//! The operator's states as they are in the store, read once. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::operator::{OperatorEntry, OperatorKey};

/// The operator's states in the store.
#[derive(Debug, Default)]
pub(super) struct StoredTable {
    pub entries: BTreeMap<OperatorKey, OperatorEntry>,
    /// Each field as it is there, whoever has written it.
    pub raw: BTreeMap<String, Vec<u8>>,
    /// Fields that a member of another version has written.
    pub foreign: BTreeSet<OperatorKey>,
}

impl StoredTable {
    /// Whether a member of another version has written the field: it knows what stands above.
    pub(super) fn is_foreign(&self, key: &OperatorKey) -> bool {
        self.foreign.contains(key)
    }

    /// Whether the field is there, written by nobody with the secret.
    pub(super) fn is_rejected(&self, key: &OperatorKey) -> bool {
        let is_read = self.entries.contains_key(key) || self.is_foreign(key);
        !is_read && self.raw.contains_key(&key.to_string())
    }
}

//! `POST /api/v1/plan`: effect of a reload.

use serde::{Deserialize, Serialize};

use crate::server::PlanTotals;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PlanView {
    pub totals: PlanTotals,
    /// Keys that differ and are read at start only.
    pub needs_restart: Vec<String>,
    /// Addresses that cannot be bound now, each with its reason: such a reload would be refused.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// In the order of the file, removed ones behind.
    pub parts: Vec<PlanPartView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PlanPartView {
    /// `listener`, `route`, `pool`, `backend`; `global`, `access_log`, `admin`, `metrics` where
    /// they differ.
    pub part: String,
    /// `chat`, `chat: path=/socket`, `chat/n1`; empty where there is one only.
    pub name: String,
    /// `kept`, `changed`, `added`, `removed`.
    pub fate: String,
    /// Keys that differ, of a changed part.
    pub keys: Vec<String>,
    /// Connections on it now; `null` where they are not counted.
    pub live: Option<u64>,
    /// Connections of these that the reload ends.
    pub closes: u64,
    /// Connections of these that go on at an object that is not in the file any more.
    pub left_behind: u64,
}

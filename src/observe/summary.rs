//! Summary of a live connection, for the operator.

use std::sync::Arc;
use std::time::Duration;

use super::request_names::RequestNames;
use crate::net::Peer;

/// Copy of what a [`super::ConnectionRecord`] knows at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    /// Unique in this process, from 1; the same as in the access log.
    pub id: u64,
    pub listener: Arc<str>,
    pub client: Peer,
    pub pool: Option<Arc<str>>,
    pub backend: Option<Arc<str>>,
    /// Since accept.
    pub age: Duration,
    pub bytes_from_client: u64,
    pub bytes_from_backend: u64,
    /// Names and facts of its request.
    pub names: RequestNames,
}

//! A live connection as the operator sees it: what its record knows so far.

use std::sync::Arc;
use std::time::Duration;

use super::request_names::RequestNames;
use crate::net::Peer;

/// Taken from a [`super::Record`] at one moment.
#[derive(Debug, Clone)]
pub struct Summary {
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
    pub(super) names: RequestNames,
}

impl Summary {
    /// The balancer in front that announced the client.
    pub fn via(&self) -> Option<&str> {
        self.names.via()
    }

    pub fn sni(&self) -> Option<&str> {
        self.names.sni()
    }

    pub fn host(&self) -> Option<&str> {
        self.names.host()
    }

    /// What the session is known by.
    pub fn tag(&self) -> Option<&str> {
        self.names.tag()
    }

    /// Of the client's certificate.
    pub fn client_subject(&self) -> Option<&str> {
        self.names.client_subject()
    }

    /// Without its query; host and path are cut at 128 bytes each.
    pub fn path(&self) -> Option<&str> {
        self.names.path()
    }
}

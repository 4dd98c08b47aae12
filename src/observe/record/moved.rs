//! A record on its way to another process: one connection, one line, whoever writes it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::first_byte::FirstByte;
use super::{ConnectionRecord, RecordStage, Timestamp, UNKNOWN_TIME};
use crate::config::TlsVersion;
use crate::net::Peer;
use crate::observe::counters::{BackendCounters, ListenerCounters};
use crate::observe::request_names::RequestNames;
use crate::observe::termination::Phase;
use crate::observe::traced_names::TracedNames;
use crate::observe::traces::Trace;
use crate::wire::moved::{MovedPeer, MovedRecord};

impl ConnectionRecord {
    /// Everything that the record knows. Its bytes are to be in the counters already.
    pub(crate) fn export(&self) -> MovedRecord {
        let assigned = self.assigned.as_deref();
        MovedRecord {
            id: self.id,
            bytes_from_client: self.bytes_from_client,
            bytes_from_backend: self.bytes_from_backend,
            age_us: u64::try_from(self.age().as_micros()).unwrap_or(u64::MAX),
            names: self.names.export(),
            listener: self.listener.name.to_string(),
            pool: assigned.map(|assigned| assigned.pool.to_string()),
            backend: assigned.map(|assigned| assigned.name.to_string()),
            connect_us: Some(self.connect_time).filter(|time| *time != UNKNOWN_TIME),
            last_line_seconds: self.last_line_seconds,
            client: export_peer(self.client),
            status: self.status,
            backend_tls: self.tls.map(|version| match version {
                TlsVersion::Tls12 => 2,
                TlsVersion::Tls13 => 3,
            }),
            tries: self.tries,
            heard: self.heard,
            trace: self.names.trace().map(|trace| trace.context().to_string()),
        }
    }

    /// The record of a connection that goes on here. Its bytes are in the counters of the process
    /// that it comes from.
    pub(crate) fn import(
        moved: &MovedRecord,
        listener: &Arc<ListenerCounters>,
        backend: Option<&Arc<BackendCounters>>,
    ) -> ConnectionRecord {
        listener.live.fetch_add(1, Relaxed);
        ConnectionRecord {
            id: moved.id,
            bytes_from_client: moved.bytes_from_client,
            bytes_from_backend: moved.bytes_from_backend,
            counted: (moved.bytes_from_client, moved.bytes_from_backend),
            accepted: Timestamp::before(Duration::from_micros(moved.age_us)),
            names: TracedNames::new(
                RequestNames::import(&moved.names),
                Trace::import(moved.trace.as_deref()),
            ),
            assigned: backend.map(Arc::clone),
            listener: Arc::clone(listener),
            connect_time: moved.connect_us.unwrap_or(UNKNOWN_TIME),
            last_line_seconds: moved.last_line_seconds,
            // A wait that two processes would have to measure is not.
            first_byte: 0,
            first_byte_step: FirstByte::None,
            client: import_peer(moved.client),
            status: moved.status,
            tls: match moved.backend_tls {
                Some(2) => Some(TlsVersion::Tls12),
                Some(3) => Some(TlsVersion::Tls13),
                _ => None,
            },
            phase: Phase::Relay,
            tries: moved.tries,
            stage: RecordStage::Opened,
            heard: moved.heard,
        }
    }

    /// Leaves the connection to another process, which writes its line: here it has not ended.
    pub(crate) fn hand_over(mut self) {
        self.tally();
        self.trace_ended(None);
        self.stage = RecordStage::Ended;
        self.listener.live.fetch_sub(1, Relaxed);
    }
}

/// The address of a client as another process reads it.
pub(crate) fn export_peer(peer: Peer) -> Option<MovedPeer> {
    match peer {
        Peer::V4(ip, port) => Some(MovedPeer::V4 {
            ip: ip.octets(),
            port,
        }),
        Peer::V6(ip, port) => Some(MovedPeer::V6 {
            ip: ip.octets(),
            port,
        }),
        Peer::Unix => None,
    }
}

/// The address that another process has written.
pub(crate) fn import_peer(moved: Option<MovedPeer>) -> Peer {
    match moved {
        Some(MovedPeer::V4 { ip, port }) => Peer::V4(ip.into(), port),
        Some(MovedPeer::V6 { ip, port }) => Peer::V6(ip.into(), port),
        None => Peer::Unix,
    }
}

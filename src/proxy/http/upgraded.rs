//! A session between its verified 101 and its adoption by the relay.

use super::client_stream::ClientStream;
use crate::admission::{ConnectionPermit, SourcePermit};
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};
use crate::pool::Lease;
use crate::proxy::client::ClientConnection;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::relay::{Framing, NewSession, ResumePolicy, SessionGuards, SessionLimits};

/// All of a session but the client's stream.
pub(super) struct Upgraded {
    pub backend: MaybeTlsStream,
    /// Bytes that the backend sent behind its 101.
    pub backend_read: Vec<u8>,
    pub framing: Framing,
    pub limits: SessionLimits,
    pub record: ConnectionRecord,
    pub lease: Lease,
    /// Present where the client is another than the one whose connection was let in.
    pub source: Option<SourcePermit>,
    /// Present where the session may outlive its backend.
    pub resume: Option<Box<ResumePolicy>>,
}

/// A client whose connection has become a WebSocket session.
pub(in crate::proxy) struct UpgradedClient {
    pub(super) client: ClientStream,
    pub(super) session: Box<Upgraded>,
}

impl UpgradedClient {
    /// Gives the session to the relay with everything that was read already, in order.
    pub(in crate::proxy) fn adopt(self, connection: &ClientConnection, permit: ConnectionPermit) {
        let Upgraded {
            backend,
            backend_read,
            framing,
            limits,
            mut record,
            lease,
            source,
            resume,
        } = *self.session;
        let ClientStream { stream, input, .. } = self.client;
        let client = stream.into_handoff(input.into_unread());
        let both = client.and_then(|client| Ok((client, backend.into_handoff(backend_read)?)));
        let (client, backend) = match both {
            Ok(both) => both,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed to the relay");
                let end = Termination::new(Side::Evenkeel, Phase::Upgrade, Cause::Error);
                return record.finish(end);
            }
        };
        record.opened();
        let permit = match source {
            Some(source) => permit.at_source(source),
            None => permit,
        };
        connection.proxy.relay.adopt(NewSession {
            client,
            backend,
            framing,
            connecting: false,
            limits,
            record,
            guards: SessionGuards::new(lease, permit),
            // The backend has had a request.
            connect_handler: None,
            resume_policy: resume,
        });
    }
}

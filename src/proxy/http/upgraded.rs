//! A session between its verified 101 and its adoption by the relay.

use super::backend_stream::BackendStream;
use super::client_stream::ClientStream;
use crate::admission::{ConnectionPermit, SourcePermit};
use crate::observe::{Cause, ConnectionRecord, Phase, Side, Termination};
use crate::pool::Lease;
use crate::proxy::client::ClientConnection;
use crate::relay::{
    Framing, NewSession, ResumePolicy, SessionGuards, SessionLimits, SocketHandoff,
};

/// Structure of a session's bytes, and its way to another backend, if it has one.
pub(super) type SessionTerms = (Framing, Option<Box<ResumePolicy>>);

/// All of a session but its two ends.
pub(super) struct Upgraded {
    pub framing: Framing,
    pub limits: SessionLimits,
    pub record: ConnectionRecord,
    pub lease: Lease,
    /// Present where the client is another than the one whose connection was let in.
    pub source: Option<SourcePermit>,
    /// Present where the session may outlive its backend.
    pub resume: Option<Box<ResumePolicy>>,
}

impl Upgraded {
    /// Makes it a session of these ends, with everything that was read already, in order.
    pub(super) fn into_session(
        mut self,
        client: SocketHandoff,
        backend: SocketHandoff,
        permit: ConnectionPermit,
    ) -> NewSession {
        self.record.opened();
        let permit = match self.source {
            Some(source) => permit.at_source(source),
            None => permit,
        };
        NewSession {
            client,
            backend,
            framing: self.framing,
            connecting: false,
            limits: self.limits,
            record: self.record,
            guards: SessionGuards::new(self.lease, permit),
            // The backend has had a request.
            connect_handler: None,
            resume_policy: self.resume,
        }
    }
}

/// A client whose connection has become a WebSocket session, and its backend.
pub(in crate::proxy) struct UpgradedClient {
    pub(super) client: ClientStream,
    pub(super) backend: BackendStream,
    pub(super) session: Box<Upgraded>,
}

impl UpgradedClient {
    /// Gives the session to the relay.
    pub(in crate::proxy) fn adopt(self, connection: &ClientConnection, permit: ConnectionPermit) {
        let ClientStream { stream, input, .. } = self.client;
        let BackendStream {
            stream: backend,
            input: backend_input,
            ..
        } = self.backend;
        let client = stream.into_handoff(input.into_unread());
        let both = client.and_then(|client| {
            let backend = backend.into_handoff(backend_input.into_unread())?;
            Ok((client, backend))
        });
        match both {
            Ok((client, backend)) => {
                let session = self.session.into_session(client, backend, permit);
                connection.proxy.relay.adopt(session);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be handed to the relay");
                let end = Termination::new(Side::Evenkeel, Phase::Upgrade, Cause::Error);
                self.session.record.finish(end);
            }
        }
    }
}

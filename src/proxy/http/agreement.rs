//! The agreement of a 101: verified, written for the client, and kept for a session that may
//! outlive its backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32};

use super::resume::handshake::ResumeHandshake;
use super::resume::kept::{More, PoolMigrator};
use super::upgrade::PendingUpgrade;
use super::upgraded::SessionTerms;
use crate::pool::Lease;
use crate::relay::{FramePolicy, Framing, ResumePolicy};
use crate::wire::http::{
    ClientHop, Edits, Fields, HttpVersion, NextHop, ResponseHead, write_response,
};
use crate::wire::websocket::{self, AnswerError};

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const PROTOCOL: &str = "Sec-WebSocket-Protocol";

/// A verified 101.
pub(super) struct Agreement {
    /// Written for the client.
    pub head: Vec<u8>,
    pub session: SessionTerms,
}

impl PendingUpgrade {
    /// Verifies the 101 of a backend. `id` is that of the session's record.
    ///
    /// # Errors
    /// It is no answer to the request.
    pub(super) fn agree(
        &self,
        head: ResponseHead<'_>,
        lease: &Lease,
        id: u64,
    ) -> Result<Agreement, AnswerError> {
        lease.backend().answered();
        let fields = head.fields();
        websocket::check_response(head.status(), &fields, &self.offer)?;
        let mut edits = Edits::default();
        self.outgoing().set_cookie(lease.backend(), &mut edits);
        let resume = self.resume_policy(fields, lease, id);
        edit(fields, resume.is_some(), &mut edits);
        let config = &self.routed.listener.config;
        let framing = if config.follow_frames {
            Framing::WebSocket(FramePolicy::of(config, &self.routed.settings))
        } else {
            Framing::Bytes
        };
        Ok(Agreement {
            head: written(head, &edits),
            session: (framing, resume),
        })
    }

    /// The session's way to another backend, if it has one.
    fn resume_policy(
        &self,
        answer: Fields<'_>,
        lease: &Lease,
        id: u64,
    ) -> Option<Box<ResumePolicy>> {
        let resume = self.routed.settings.resume.as_ref()?;
        if !self.routed.listener.config.follow_frames {
            return None;
        }
        let outgoing = self.outgoing();
        let sent = outgoing.write_unnamed(lease.backend(), NextHop::Upgrade);
        let handshake = ResumeHandshake::of(&sent, answer)?;
        let is_more = self.proxy_header.is_some() || self.search.key.is_some();
        let upgrade_timeout = self.upgrade_timeout().as_millis();
        let migrator = PoolMigrator {
            proxy: Arc::clone(&self.http.connection.proxy),
            pool: Arc::downgrade(&self.routed.pool),
            client: self.routed.client,
            handshake,
            header: Arc::clone(&resume.header),
            upgrade_timeout: u32::try_from(upgrade_timeout).unwrap_or(u32::MAX),
            id,
            more: is_more.then(|| {
                Box::new(More {
                    proxy_header: self.proxy_header.clone(),
                    key: self.search.key.clone(),
                })
            }),
            count: AtomicU32::new(0),
            short: AtomicU8::new(0),
        };
        Some(migrator.into_policy(resume))
    }
}

/// Makes the agreement one that a browser takes, and, for a session that is resumable, one that
/// another backend can go on with.
fn edit(answer: Fields<'_>, is_resumable: bool, edits: &mut Edits<'_>) {
    if answer.has(PROTOCOL) {
        match websocket::chosen_subprotocol(&answer) {
            Some(protocol) => edits.set(PROTOCOL, protocol),
            None => edits.remove(PROTOCOL),
        }
    }
    if is_resumable && answer.has(EXTENSIONS) {
        let agreed: Vec<_> = answer
            .values(EXTENSIONS)
            .map(websocket::without_context_takeover)
            .collect();
        edits.set(EXTENSIONS, &agreed.join(&b", "[..]));
    }
}

fn written(head: ResponseHead<'_>, edits: &Edits<'_>) -> Vec<u8> {
    let hop = ClientHop {
        version: HttpVersion::Http11,
        closes: false,
    };
    let mut out = Vec::with_capacity(256);
    write_response(head, hop, edits, &mut out);
    out
}

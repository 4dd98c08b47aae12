//! The action of a job on each of its sessions.

use std::sync::Arc;

use crate::proxy::Relay;
use crate::relay::{CloseFrame, SessionInfo};

/// Action on each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    Close,
    /// Moves the session to another backend where it can be resumed; closes it otherwise.
    MoveOrClose,
    /// Moves the session to another backend; one that cannot be resumed stays.
    Move,
}

impl JobAction {
    /// Whether `session` is meant: it is not being ended already, and the action is for it. A session
    /// between two backends goes on with the next one, unless it is closed.
    pub(super) fn applies_to(self, session: &SessionInfo) -> bool {
        let applies = match self {
            JobAction::Close => true,
            JobAction::MoveOrClose => !session.is_changing,
            JobAction::Move => session.is_resumable && !session.is_changing,
        };
        applies && !session.is_parting
    }

    pub(super) fn apply(self, relay: &Relay, session: &SessionInfo, close: &Arc<CloseFrame>) {
        match self {
            JobAction::Close => relay.close_one(session.handle, close),
            JobAction::MoveOrClose | JobAction::Move => relay.migrate(session.handle, close),
        }
    }
}

//! A client in set-up whose next word is waited for, as admission sees it: when places run short, one of
//! the silent ones leaves its own.

use super::ClientConnection;
use crate::base::source_prefix::SourcePrefix;
use crate::config::Prefixes;
use crate::observe::{Cause, Phase, Refusal, Side, Termination};

impl ClientConnection {
    /// The network that its client counts for.
    pub(super) fn source(&self) -> SourcePrefix {
        let limits = self.rules.config.admission.per_source;
        let Prefixes { v4, v6 } = limits.map(|limits| limits.prefixes).unwrap_or_default();
        SourcePrefix::of(self.peer.ip(), v4, v6)
    }

    /// Set-up waits for its client's next word.
    pub(super) fn fall_silent(&self) {
        self.slot.fall_silent(self.source());
    }

    /// The end of a connection that has left its place to another one.
    pub(super) fn evicted(&self, phase: Phase) -> Termination {
        self.admissions.refused(Refusal::Silent);
        Termination::new(Side::Evenkeel, phase, Cause::Full)
    }
}

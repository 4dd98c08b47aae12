//! What only some sessions have beside the rest of their entry, in one place of a pointer's size: one that may go back to where it
//! came from has not been sent a byte, and one that may outlive its backend follows frames, which begin behind that.

use super::Connecting;
use super::resume::ResumeState;

/// Nothing for most of the sessions, and most of the time.
pub(super) struct Role(Option<Box<RoleKind>>);

enum RoleKind {
    /// Until the first byte.
    Early(Connecting),
    /// It may outlive its backend. Apart, so that those who have no byte yet do not pay for it.
    Resume(Box<ResumeState>),
}

const _: () = assert!(size_of::<RoleKind>() <= 24);

impl Role {
    pub fn new(early: Option<Connecting>, resume: Option<ResumeState>) -> Self {
        let kind = match (early, resume) {
            (Some(early), _) => Some(RoleKind::Early(early)),
            (None, resume) => resume.map(|resume| RoleKind::Resume(Box::new(resume))),
        };
        Self(kind.map(Box::new))
    }

    pub fn early(&self) -> Option<&Connecting> {
        match self.0.as_deref() {
            Some(RoleKind::Early(early)) => Some(early),
            _ => None,
        }
    }

    pub fn early_mut(&mut self) -> Option<&mut Connecting> {
        match self.0.as_deref_mut() {
            Some(RoleKind::Early(early)) => Some(early),
            _ => None,
        }
    }

    pub fn resume(&self) -> Option<&ResumeState> {
        match self.0.as_deref() {
            Some(RoleKind::Resume(resume)) => Some(resume),
            _ => None,
        }
    }

    pub fn resume_mut(&mut self) -> Option<&mut ResumeState> {
        match self.0.as_deref_mut() {
            Some(RoleKind::Resume(resume)) => Some(resume),
            _ => None,
        }
    }

    /// It is no longer early.
    pub fn end_early(&mut self) {
        self.0.take_if(|kind| matches!(**kind, RoleKind::Early(_)));
    }

    /// It goes back, if it may.
    pub fn into_early(self) -> Option<Connecting> {
        match self.0.map(|kind| *kind) {
            Some(RoleKind::Early(early)) => Some(early),
            _ => None,
        }
    }

    /// It outlives no backend any more.
    pub fn take_resume(&mut self) -> Option<ResumeState> {
        let taken = self.0.take_if(|kind| matches!(**kind, RoleKind::Resume(_)));
        match taken.map(|kind| *kind) {
            Some(RoleKind::Resume(resume)) => Some(*resume),
            _ => None,
        }
    }
}

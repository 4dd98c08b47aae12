//! What only some sessions have beside the rest of their entry, in one place of a pointer's size: one that may go back to where it
//! came from has not been sent a byte, and one that may outlive its backend follows frames, which begin behind that.

use super::Early;
use super::resume::Resume;

/// Nothing for most of the sessions, and most of the time.
pub(super) struct Role<L>(Option<Box<Kind<L>>>);

enum Kind<L> {
    /// Until the first byte.
    Early(Early<L>),
    /// It may outlive its backend. Apart, so that those who have no byte yet do not pay for it.
    Resume(Box<Resume<L>>),
}

const _: () = assert!(size_of::<Kind<[usize; 2]>>() <= 24);

impl<L> Role<L> {
    pub fn new(early: Option<Early<L>>, resume: Option<Resume<L>>) -> Self {
        let kind = match (early, resume) {
            (Some(early), _) => Some(Kind::Early(early)),
            (None, resume) => resume.map(|resume| Kind::Resume(Box::new(resume))),
        };
        Self(kind.map(Box::new))
    }

    pub fn early(&self) -> Option<&Early<L>> {
        match self.0.as_deref() {
            Some(Kind::Early(early)) => Some(early),
            _ => None,
        }
    }

    pub fn early_mut(&mut self) -> Option<&mut Early<L>> {
        match self.0.as_deref_mut() {
            Some(Kind::Early(early)) => Some(early),
            _ => None,
        }
    }

    pub fn resume(&self) -> Option<&Resume<L>> {
        match self.0.as_deref() {
            Some(Kind::Resume(resume)) => Some(resume),
            _ => None,
        }
    }

    pub fn resume_mut(&mut self) -> Option<&mut Resume<L>> {
        match self.0.as_deref_mut() {
            Some(Kind::Resume(resume)) => Some(resume),
            _ => None,
        }
    }

    /// It is no longer early.
    pub fn end_early(&mut self) {
        self.0.take_if(|kind| matches!(**kind, Kind::Early(_)));
    }

    /// It goes back, if it may.
    pub fn into_early(self) -> Option<Early<L>> {
        match self.0.map(|kind| *kind) {
            Some(Kind::Early(early)) => Some(early),
            _ => None,
        }
    }

    /// It outlives no backend any more.
    pub fn take_resume(&mut self) -> Option<Resume<L>> {
        let taken = self.0.take_if(|kind| matches!(**kind, Kind::Resume(_)));
        match taken.map(|kind| *kind) {
            Some(Kind::Resume(resume)) => Some(*resume),
            _ => None,
        }
    }
}

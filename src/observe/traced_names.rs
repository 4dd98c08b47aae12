//! Names of a request, with the trace of its connection where there is one.
//!
//! A session keeps its record for hours, and most have no trace. So the trace stands in a box that
//! takes the place of the names, and a record without one is no larger for it.

use std::ops::{Deref, DerefMut};

use super::request_names::RequestNames;
use super::traces::Trace;

#[derive(Debug)]
pub(super) enum TracedNames {
    Untraced(RequestNames),
    Traced(Box<(RequestNames, Trace)>),
}

const _: () = assert!(size_of::<TracedNames>() == size_of::<RequestNames>());

impl TracedNames {
    pub(super) fn new(names: RequestNames, trace: Option<Trace>) -> TracedNames {
        match trace {
            Some(trace) => TracedNames::Traced(Box::new((names, trace))),
            None => TracedNames::Untraced(names),
        }
    }

    pub(super) fn trace(&self) -> Option<&Trace> {
        match self {
            TracedNames::Untraced(_) => None,
            TracedNames::Traced(both) => Some(&both.1),
        }
    }

    pub(super) fn trace_mut(&mut self) -> Option<&mut Trace> {
        match self {
            TracedNames::Untraced(_) => None,
            TracedNames::Traced(both) => Some(&mut both.1),
        }
    }
}

impl Deref for TracedNames {
    type Target = RequestNames;

    fn deref(&self) -> &RequestNames {
        match self {
            TracedNames::Untraced(names) => names,
            TracedNames::Traced(both) => &both.0,
        }
    }
}

impl DerefMut for TracedNames {
    fn deref_mut(&mut self) -> &mut RequestNames {
        match self {
            TracedNames::Untraced(names) => names,
            TracedNames::Traced(both) => &mut both.0,
        }
    }
}

//! Where a job stands.

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The connections may end by themselves.
    Waiting,
    Ending,
    Done,
    Aborted,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Ending => "ending",
            Phase::Done => "done",
            Phase::Aborted => "aborted",
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, Phase::Done | Phase::Aborted)
    }
}

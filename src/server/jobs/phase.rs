//! Where a job stands.

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPhase {
    /// The connections may end by themselves.
    Waiting,
    Ending,
    Done,
    Aborted,
}

impl JobPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            JobPhase::Waiting => "waiting",
            JobPhase::Ending => "ending",
            JobPhase::Done => "done",
            JobPhase::Aborted => "aborted",
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, JobPhase::Done | JobPhase::Aborted)
    }
}

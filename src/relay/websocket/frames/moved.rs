//! Frames of a session on their way to another relay.

use super::Frames;
use crate::relay::clock::Tick;
use crate::relay::moved::StayReason;
use crate::relay::websocket::limits::ClientFrameLimits;
use crate::relay::websocket::pings::Pings;
use crate::relay::websocket::resume::ResumeState;
use crate::wire::frame_filter::FrameFilter;
use crate::wire::moved::MovedFrames;

impl Frames {
    /// The reason for which the session stays: its client is about to be refused.
    pub(in crate::relay) fn stays(&self) -> Option<StayReason> {
        self.limit_exceeded().map(|_| StayReason::Closing)
    }

    /// The whole state.
    ///
    /// # Errors
    /// The session is about to change or to end.
    pub(in crate::relay) fn export(&self, now: Tick) -> Result<MovedFrames, StayReason> {
        if let Some(reason) = self.stays() {
            return Err(reason);
        }
        let [client, backend] = self.filters.each_ref().map(FrameFilter::export);
        let limits = self.limits.as_deref();
        let (pings, resume) = (self.pings.as_deref(), self.resume.as_deref());
        Ok(MovedFrames {
            client: client.ok_or(StayReason::LeavingBackend)?,
            backend: backend.ok_or(StayReason::LeavingBackend)?,
            limits: limits.map(|limits| Box::new(limits.export(now))),
            pings: pings.map(|pings| Box::new(pings.export(now))),
            resume: resume.map(|resume| Box::new(resume.export(now))),
            messages_only: self.messages_only,
        })
    }

    /// Goes on in that state. `None`: a value is out of bounds.
    pub(in crate::relay) fn import(
        moved: MovedFrames,
        resume: Option<Box<ResumeState>>,
        now: Tick,
    ) -> Option<Frames> {
        Some(Frames {
            filters: [
                FrameFilter::from_client().import(moved.client)?,
                FrameFilter::from_server().import(moved.backend)?,
            ],
            limits: match moved.limits {
                Some(limits) => Some(Box::new(ClientFrameLimits::import(&limits, now)?)),
                None => None,
            },
            pings: moved.pings.map(|one| Box::new(Pings::import(&one, now))),
            resume,
            messages_only: moved.messages_only,
        })
    }
}

//! Frames of one session: a filter for each direction, the limits on its client, the pings that
//! keep it alive, and the means to outlive its backend.

mod moved;

use std::time::Duration;

use super::close_frame::reader;
use super::limits::{ClientFrameLimits, LimitExceeded};
use super::pings::{LegProgress, PingOutcome, Pings};
use super::policy::FramePolicy;
use super::resume::ResumeState;
use crate::relay::clock::Tick;
use crate::relay::resume_policy::ResumePolicy;
use crate::relay::side::{BACKEND, CLIENT, SIDES};
use crate::wire::control;
use crate::wire::frame_filter::{CloseFilter, Filtered, FrameAction, FrameFilter};
use crate::wire::frames::Violation;

/// Frames of one session.
pub(in crate::relay) struct Frames {
    /// `filters[CLIENT]` is for frames of the client.
    pub filters: [FrameFilter; 2],
    limits: Option<Box<ClientFrameLimits>>,
    pings: Option<Box<Pings>>,
    /// The means to outlive its backend.
    pub resume: Option<Box<ResumeState>>,
    messages_only: bool,
}

/// A session has one, for hours.
const _: () = assert!(size_of::<Frames>() <= 96);

/// Frames of one direction, while it is pumped.
pub(in crate::relay) struct DirectionFrames<'a> {
    pub filter: &'a mut FrameFilter,
    limits: Option<&'a mut ClientFrameLimits>,
}

impl DirectionFrames<'_> {
    /// The source was refused, and the other side is to get a Close before it sees a FIN.
    pub(crate) fn holds_fin(&self) -> bool {
        let limits = self.limits.as_deref();
        limits.is_some_and(|limits| limits.exceeded.is_some()) && !self.filter.is_closed()
    }

    /// Takes the next bytes of the source.
    #[inline]
    pub(crate) fn pass(&mut self, bytes: &[u8], now: Tick) -> Filtered {
        let limits = &mut self.limits;
        let passed = self.filter.pass(bytes, |frame| match limits {
            None => FrameAction::Pass,
            Some(limits) => limits.check(frame, now),
        });
        if let Some(limits) = limits
            && let Some(violation) = self.filter.violation()
        {
            limits
                .exceeded
                .get_or_insert(LimitExceeded::Violation(violation));
        }
        passed
    }

    /// Takes bytes that are in memory already: the ones that pass.
    pub(crate) fn filter(&mut self, bytes: Vec<u8>, now: Tick) -> Vec<u8> {
        match self.pass(&bytes, now) {
            Filtered::Whole => bytes,
            Filtered::Edited(edited) => edited,
        }
    }
}

impl Frames {
    /// `read`: bytes that came with the handshakes. Those that may pass are left.
    pub(crate) fn new(
        policy: &FramePolicy,
        resume: Option<ResumePolicy>,
        read: [&mut Vec<u8>; 2],
        now: Tick,
    ) -> Frames {
        let limits = ClientFrameLimits::new(policy);
        let mut client = FrameFilter::from_client();
        if limits.is_some() {
            client = client.guarded();
        }
        let mut backend = FrameFilter::from_server();
        if resume
            .as_ref()
            .is_some_and(|resume| resume.settings.on.close_code)
        {
            backend = backend.with_close_filter(CloseFilter::Leaving);
        }
        let mut frames = Frames {
            filters: [client, backend],
            limits,
            pings: policy.ping.map(|ping| Box::new(Pings::new(&ping, now))),
            resume: None,
            messages_only: policy.messages_only,
        };
        for (side, read) in SIDES.into_iter().zip(read) {
            *read = frames.direction(side).filter(std::mem::take(read), now);
        }
        frames.resume = resume.map(|policy| {
            let has_sent = frames.filters[CLIENT].take_spoken();
            Box::new(ResumeState::new(policy, has_sent, now))
        });
        frames
    }

    /// The direction whose source is this side.
    pub(crate) fn direction(&mut self, side: usize) -> DirectionFrames<'_> {
        DirectionFrames {
            filter: &mut self.filters[side & 1],
            limits: self.limits.as_deref_mut().filter(|_| side == CLIENT),
        }
    }

    /// The limit that the client has exceeded.
    pub(crate) fn limit_exceeded(&self) -> Option<LimitExceeded> {
        self.limits.as_ref()?.exceeded
    }

    /// Bytes are held that are to pass.
    pub(crate) fn is_holding(&self) -> bool {
        self.filters.iter().any(FrameFilter::is_holding)
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.filters.iter().find_map(FrameFilter::violation)
    }

    /// Neither end has said Close or gone wrong: if the backend goes, another may take its place.
    pub(crate) fn can_resume(&self) -> bool {
        let [client, backend] = &self.filters;
        let is_closed = client.has_closed() || backend.has_closed() || backend.is_closed();
        let is_discarding =
            client.is_discarding() || (backend.is_discarding() && !backend.has_left());
        self.resume.is_some() && self.violation().is_none() && !is_closed && !is_discarding
    }

    /// Lets every Close of the backend of a resumable session pass once its client has said Close:
    /// it is for the client.
    pub(crate) fn keep_client_close(&mut self) {
        if self.resume.is_some() && self.filters[CLIENT].has_closed() {
            self.filters[BACKEND].set_close_filter(CloseFilter::None);
        }
    }

    /// Whether anything has moved since the last call that keeps a session from its idle timeout.
    pub(crate) fn take_activity(&mut self) -> bool {
        let [client, backend] = &mut self.filters;
        // Not short-circuited: each one's mark is taken.
        let messages = client.take_messages() | backend.take_messages();
        messages || !self.messages_only
    }

    /// Takes note that this direction was pumped, and whether bytes came.
    #[inline]
    pub(crate) fn note_pumped(&mut self, side: usize, came: bool, now: Tick) {
        let inserted = self.filters[side & 1].take_inserted();
        let Some(pings) = &mut self.pings else {
            return;
        };
        if came {
            pings.heard(side, now);
        }
        if inserted {
            pings.written(1 - (side & 1), now);
        }
    }

    /// Takes note of messages between the client and its present backend.
    pub(crate) fn note_messages(&mut self, side: usize, now: Tick) {
        let Some(resume) = &mut self.resume else {
            return;
        };
        if side == BACKEND {
            resume.times.answered(now);
        } else if self.filters[CLIENT].take_spoken() {
            resume.times.sent(now);
        }
    }

    /// Another backend is there; its leg counts as heard.
    pub(crate) fn note_new_backend(&mut self, now: Tick) {
        if let Some(pings) = &mut self.pings {
            pings.heard(BACKEND, now);
        }
    }

    /// Time until one of these legs is to be pinged, or is dead.
    pub(crate) fn ping_due_in(&self, sides: &[usize], now: Tick) -> Option<Duration> {
        let pings = self.pings.as_deref()?;
        let due = sides.iter().filter_map(|&side| pings.due_in(side, now));
        due.min()
    }

    /// Pings those of these legs that are silent; finds one that has not answered.
    pub(crate) fn keep_alive(
        &mut self,
        sides: &[usize],
        progress: [LegProgress; 2],
        now: Tick,
    ) -> PingOutcome {
        let Some(pings) = &mut self.pings else {
            return PingOutcome::AllAlive;
        };
        let mut silent = [false; 2];
        for &side in sides {
            if pings.due_in(side, now) != Some(Duration::ZERO) {
                continue;
            }
            if !pings.is_asked(side) {
                silent[side] = true;
                continue;
            }
            let has_insert = self.filters[1 - side].has_insert();
            if !pings.wait_longer(side, has_insert, progress[side], now) {
                return PingOutcome::Dead(side);
            }
        }
        let mut outcome = PingOutcome::AllAlive;
        for side in SIDES {
            if silent[side] && self.ping(side, progress[side].delivered, now) {
                outcome = PingOutcome::Pinged;
            }
        }
        outcome
    }

    /// Pings this side, which has taken so many bytes, unless its answer is awaited already. False
    /// where the policy has no pings.
    pub(crate) fn ping(&mut self, side: usize, delivered: u64, now: Tick) -> bool {
        let pings = self.pings.as_mut();
        let Some(payload) = pings.and_then(|pings| pings.ask(side, delivered, now)) else {
            return false;
        };
        self.filters[1 - side].insert(&control::ping(payload, reader(side)));
        self.filters[side].expect_pong(payload);
        true
    }
}

//! What is known and wanted of the frames of one session: its two passages, the bounds on what its client sends, and the
//! pings that keep it alive.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Tick, Ticks};
use super::session::{BACKEND, CLIENT};
use crate::base::close_code::{self, GOING_AWAY};
use crate::base::rate::{Bucket, Rate};
use crate::config::{self, Ping};
use crate::observe::Cause;
use crate::wire::control::{self, ControlReader, PING_BYTES};
use crate::wire::frame_filter::{Filtered, FrameAction, FrameFilter};
use crate::wire::frames::{Frame, Violation};

/// How the frames of a WebSocket are watched. The default only follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FramePolicy {
    /// Longest frame of a client, payload bytes; longer ends the session with Close 1009.
    pub max_frame: Option<u64>,
    /// Longest message of a client, payload bytes of all its frames; longer ends the session with Close 1009.
    pub max_message: Option<u64>,
    /// Pings and pongs of a client; more end the session with Close 1008.
    pub max_pings: Option<Rate>,
    pub ping: Option<Ping>,
    /// Only frames of messages keep a session from its idle timeout, not pings and pongs.
    pub messages_only: bool,
}

impl FramePolicy {
    /// What a listener and a pool want of the frames of their WebSockets.
    pub fn of(listener: &config::Listener, pool: &config::Pool) -> FramePolicy {
        let config::FrameLimits {
            max_frame,
            max_message,
            max_pings,
        } = listener.frames;
        FramePolicy {
            max_frame,
            max_message,
            max_pings,
            ping: pool.ping,
            messages_only: pool.activity == config::Activity::Messages,
        }
    }
}

/// What a WebSocket is told before it is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// Of the Close frame.
    pub code: u16,
    pub reason: Arc<str>,
}

impl CloseFrame {
    pub fn new(code: u16, reason: &str) -> CloseFrame {
        CloseFrame {
            code,
            reason: reason.into(),
        }
    }

    /// "Going away", without a reason.
    pub fn going_away() -> CloseFrame {
        CloseFrame::new(GOING_AWAY, "")
    }

    /// Its frame for the leg of `side`.
    pub(super) fn frame(&self, side: usize) -> Vec<u8> {
        control::close(self.code, &self.reason, reader(side))
    }
}

/// One direction's frames, as it is pumped.
pub(super) struct DirectionFrames<'a> {
    pub passage: &'a mut FrameFilter,
    bounds: Option<&'a mut ClientFrameLimits>,
}

/// What a client may send.
struct ClientFrameLimits {
    max_frame: u64,
    max_message: u64,
    max_pings: Option<Rate>,
    /// Bytes of the present message.
    message: u64,
    pings: Bucket,
    breach: Option<LimitExceeded>,
}

/// The bound that a client has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LimitExceeded {
    #[error("frame too big")]
    Frame,
    #[error("message too big")]
    Message,
    #[error("too many pings")]
    Pings,
    /// Behind it no bound could be held.
    #[error("protocol error")]
    Violation(Violation),
}

impl LimitExceeded {
    /// RFC 6455 section 7.4.1: 1009 is "a message that is too big", 1008 a violated policy, 1002 a protocol error.
    pub fn code(self) -> u16 {
        match self {
            LimitExceeded::Frame | LimitExceeded::Message => 1009,
            LimitExceeded::Pings => 1008,
            LimitExceeded::Violation(_) => close_code::PROTOCOL_ERROR,
        }
    }

    pub fn how(self) -> Cause {
        match self {
            LimitExceeded::Frame | LimitExceeded::Message | LimitExceeded::Pings => Cause::Full,
            LimitExceeded::Violation(_) => Cause::Invalid,
        }
    }

    /// For the log: more than the client is told.
    pub fn cause(self) -> String {
        match self {
            LimitExceeded::Violation(violation) => violation.to_string(),
            bound => bound.to_string(),
        }
    }
}

impl DirectionFrames<'_> {
    /// The source was refused, and the other side is to be told before it hears of its end.
    pub fn holds_fin(&self) -> bool {
        let is_refused = self
            .bounds
            .as_ref()
            .is_some_and(|bounds| bounds.breach.is_some());
        is_refused && !self.passage.is_told()
    }

    /// Takes the next bytes of the source.
    #[inline]
    pub fn pass(&mut self, bytes: &[u8], now: Tick) -> Filtered {
        let bounds = &mut self.bounds;
        let passed = self.passage.pass(bytes, |frame| match bounds {
            None => FrameAction::Pass,
            Some(bounds) => bounds.judge(frame, now),
        });
        if let Some(bounds) = bounds
            && let Some(violation) = self.passage.lost()
        {
            bounds
                .breach
                .get_or_insert(LimitExceeded::Violation(violation));
        }
        passed
    }
}

impl ClientFrameLimits {
    fn new(watched: &FramePolicy) -> Option<Box<ClientFrameLimits>> {
        let FramePolicy {
            max_frame,
            max_message,
            max_pings,
            ..
        } = *watched;
        let any = max_frame.is_some() || max_message.is_some() || max_pings.is_some();
        any.then(|| {
            Box::new(ClientFrameLimits {
                max_frame: max_frame.unwrap_or(u64::MAX),
                max_message: max_message.unwrap_or(u64::MAX),
                max_pings,
                message: 0,
                pings: Bucket::default(),
                breach: None,
            })
        })
    }

    fn judge(&mut self, frame: &Frame, now: Tick) -> FrameAction {
        self.breach = self.breach_of(frame, now);
        match self.breach {
            None => FrameAction::Pass,
            Some(_) => FrameAction::Refuse,
        }
    }

    #[inline]
    fn breach_of(&mut self, frame: &Frame, now: Tick) -> Option<LimitExceeded> {
        use crate::wire::frames::Opcode::{Close, Ping, Pong};
        match frame.opcode {
            Close => return None,
            Ping | Pong => {
                let rate = self.max_pings?;
                return (!self.pings.take(rate, now.since_origin()))
                    .then_some(LimitExceeded::Pings);
            }
            _ => {}
        }
        self.message = self.message.saturating_add(frame.payload_bytes);
        if frame.payload_bytes > self.max_frame {
            return Some(LimitExceeded::Frame);
        }
        if self.message > self.max_message {
            return Some(LimitExceeded::Message);
        }
        if frame.is_final {
            self.message = 0;
        }
        None
    }
}

/// The frames of one session.
pub(super) struct Frames {
    /// By source.
    pub passages: [FrameFilter; 2],
    /// On what the client sends.
    bounds: Option<Box<ClientFrameLimits>>,
    pings: Option<Box<Pings>>,
    pub farewell: Option<Box<ClosingHandshake>>,
    messages_only: bool,
    /// The backend's side stands empty.
    no_backend: bool,
}

/// The end of a session that was decided here.
pub(super) struct ClosingHandshake {
    pub began: Tick,
    /// When everybody was told.
    pub said: Option<Tick>,
    /// By side: who is told.
    pub told: [bool; 2],
    /// For the client, behind what the backend still answers to what came before.
    pub last_word: Option<CloseFrame>,
}

/// A session has one, for hours.
const _: () = assert!(size_of::<Frames>() <= 96);

impl Frames {
    /// Past what was read before, of which is left what may pass.
    /// `takes_leave`: a Close by which the backend goes away is not for the client.
    pub fn new(
        watched: &FramePolicy,
        takes_leave: bool,
        read: [&mut Vec<u8>; 2],
        now: Tick,
    ) -> Frames {
        let bounds = ClientFrameLimits::new(watched);
        let mut frames = Frames {
            passages: [
                match bounds {
                    Some(_) => FrameFilter::from_client().guarded(),
                    None => FrameFilter::from_client(),
                },
                match takes_leave {
                    true => FrameFilter::from_server().taking_leave(),
                    false => FrameFilter::from_server(),
                },
            ],
            bounds,
            pings: watched.ping.map(|ping| Box::new(Pings::new(&ping, now))),
            farewell: None,
            messages_only: watched.messages_only,
            no_backend: false,
        };
        for (side, read) in [CLIENT, BACKEND].into_iter().zip(read) {
            if let Filtered::Edited(bytes) = frames.way(side).pass(read, now) {
                *read = bytes;
            }
        }
        frames
    }

    /// What comes from this side.
    pub fn way(&mut self, side: usize) -> DirectionFrames<'_> {
        DirectionFrames {
            passage: &mut self.passages[side & 1],
            bounds: self.bounds.as_deref_mut().filter(|_| side == CLIENT),
        }
    }

    /// The bound that the client has passed.
    pub fn breach(&self) -> Option<LimitExceeded> {
        self.bounds.as_ref()?.breach
    }

    /// Bytes are held that are to pass.
    pub fn holds(&self) -> bool {
        self.passages.iter().any(FrameFilter::holds)
    }

    pub fn lost(&self) -> Option<Violation> {
        self.passages.iter().find_map(FrameFilter::lost)
    }

    /// Whether what has moved since the last time this was asked keeps a session from its idle timeout.
    pub fn take_activity(&mut self) -> bool {
        let [client, backend] = &mut self.passages;
        // Not short-circuited: each one's mark is taken.
        let messages = client.take_messages() | backend.take_messages();
        messages || !self.messages_only
    }

    /// What came from this side was passed on.
    #[inline]
    pub fn pumped(&mut self, side: usize, came: bool, now: Tick) {
        let inserted = self.passages[side & 1].take_inserted();
        let Some(pings) = &mut self.pings else {
            return;
        };
        if came {
            pings.legs[side & 1].heard(now);
        }
        if inserted {
            pings.legs[1 - (side & 1)].said(now);
        }
    }

    /// Time until a leg is to be pinged, or is dead.
    pub fn ping_due_in(&self, now: Tick) -> Option<Duration> {
        let pings = self.pings.as_deref()?;
        let [client, backend] = &pings.legs;
        let backend = (!self.no_backend).then(|| backend.due_in(pings, now));
        [client.due_in(pings, now), backend.flatten()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The backend's side stands empty from here on.
    pub fn backend_gone(&mut self) {
        self.no_backend = true;
    }

    /// Another backend has taken its place.
    pub fn backend_changed(&mut self, now: Tick) {
        self.no_backend = false;
        if let Some(pings) = &mut self.pings {
            pings.legs[BACKEND].heard(now);
        }
    }

    /// What is to be done for the life of the legs now.
    pub fn keep_alive(&mut self, taken: impl Fn(usize) -> LegProgress, now: Tick) -> Alive {
        let Some(pings) = &mut self.pings else {
            return Alive::Yes;
        };
        let mut due = [false; 2];
        for side in [CLIENT, BACKEND] {
            let (interval, timeout) = (pings.interval, pings.timeout);
            let leg = &mut pings.legs[side];
            let is_gone = side == BACKEND && self.no_backend;
            if is_gone
                || !leg.is_awaited()
                || leg.due_in_time(interval, timeout, now) > Duration::ZERO
            {
                continue;
            }
            if leg.asked.is_some() {
                if self.passages[1 - side].has_insert() || leg.is_slow(taken(side)) {
                    leg.asked = Some(now);
                    continue;
                }
                return Alive::No(side);
            }
            due[side] = true;
        }
        // Not short-circuited: each that is due is asked.
        let asked = [CLIENT, BACKEND]
            .into_iter()
            .filter(|side| due[*side] && self.ask(*side, taken(*side).delivered, now))
            .count();
        if asked > 0 { Alive::Asked } else { Alive::Yes }
    }

    /// Pings this side, which has taken so many bytes, unless its answer is awaited already. False where there are no pings.
    pub fn ask(&mut self, side: usize, delivered: u64, now: Tick) -> bool {
        let Some(pings) = &mut self.pings else {
            return false;
        };
        let leg = &mut pings.legs[side];
        if leg.asked.is_some() {
            return false;
        }
        leg.asked = Some(now);
        leg.delivered = delivered;
        pings.count = pings.count.wrapping_add(1);
        let payload = payload(pings.count);
        self.passages[1 - side].insert(&control::ping(payload, reader(side)));
        self.passages[side].expect_pong(payload);
        true
    }
}

/// What a leg has done with what was meant for it.
pub(super) struct LegProgress {
    /// Bytes that it has still to take, ours before its answer.
    pub unsent: usize,
    /// Bytes that it has taken.
    pub delivered: u64,
    /// What it has sent is not read, because the other leg takes nothing: its answer may be among it.
    pub is_unread: bool,
}

/// How the legs of a session are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alive {
    Yes,
    /// A ping is to be written.
    Asked,
    /// This side has not answered.
    No(usize),
}

struct Pings {
    interval: Ticks,
    timeout: Ticks,
    count: u32,
    /// By side.
    legs: [HeardFrames; 2],
}

struct HeardFrames {
    is_watched: bool,
    at: Tick,
    /// When our ping was written, or was to be, that was not answered yet.
    asked: Option<Tick>,
    /// What the leg had taken at the last look.
    delivered: u64,
}

impl Pings {
    fn new(ping: &Ping, now: Tick) -> Pings {
        let heard = |is_watched| HeardFrames {
            is_watched,
            at: now,
            asked: None,
            delivered: 0,
        };
        Pings {
            interval: ping.interval.into(),
            timeout: ping.timeout.into(),
            count: 0,
            legs: [heard(ping.client), heard(ping.backend)],
        }
    }
}

impl HeardFrames {
    fn heard(&mut self, now: Tick) {
        self.at = now;
        self.asked = None;
    }

    /// A frame of ours went to this leg.
    fn said(&mut self, now: Tick) {
        self.asked = self.asked.map(|_| now);
    }

    /// It may have answered, or our ping waits behind bytes that the leg takes one by one: it is slow, not gone.
    fn is_slow(&mut self, taken: LegProgress) -> bool {
        let before = std::mem::replace(&mut self.delivered, taken.delivered);
        taken.is_unread || (taken.unsent > 0 && taken.delivered > before)
    }

    /// It is pinged when it is silent, or was asked once.
    fn is_awaited(&self) -> bool {
        self.is_watched || self.asked.is_some()
    }

    fn due_in(&self, pings: &Pings, now: Tick) -> Option<Duration> {
        self.is_awaited()
            .then(|| self.due_in_time(pings.interval, pings.timeout, now))
    }

    fn due_in_time(&self, interval: Ticks, timeout: Ticks, now: Tick) -> Duration {
        match self.asked {
            Some(asked) => timeout.left(now.since(asked)),
            None => interval.left(now.since(self.at)),
        }
    }
}

/// It is told from all others by a secret of this process, so that no peer's own pong is taken for an answer.
fn payload(count: u32) -> [u8; PING_BYTES] {
    use std::sync::LazyLock;
    static SECRET: LazyLock<[u8; 4]> = LazyLock::new(|| fastrand::u32(..).to_be_bytes());
    let [a, b, c, d] = *SECRET;
    let [e, f, g, h] = count.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

/// A key need not be a secret here: it keeps a page's script from choosing the bytes on the wire (RFC 6455 section 10.3), and
/// no script chooses a frame of ours.
pub(super) fn reader(side: usize) -> ControlReader {
    match side {
        CLIENT => ControlReader::Client,
        _ => ControlReader::Backend(fastrand::u32(..).to_be_bytes()),
    }
}

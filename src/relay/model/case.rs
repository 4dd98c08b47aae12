//! What happens in one run of the model: decided by whoever chooses, a seed or a fuzzer's bytes.

use std::sync::OnceLock;
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::bench::numbers;
use crate::relay::side::{BACKEND, CLIENT};
use crate::relay::{FramePolicy, Framing, SessionLimits};

const LONG: Duration = Duration::from_secs(30);
/// Where it is too short for what the ends do before they fall silent, the case runs again with a
/// longer one.
pub const SHORT: Duration = Duration::from_millis(120);
/// Bytes that are written and read at once, at most.
const MAX_BYTES: usize = 100_000;
/// Operations of a fuzzer's case, so that there are many cases in a second.
const MAX_OPERATIONS: usize = 24;
const STREAM_BYTES: usize = 4 << 20;

/// Where decisions come from.
pub enum Choices<'a> {
    Seed(fastrand::Rng),
    /// Once they are used up, every choice is the first.
    #[cfg_attr(
        not(fuzzing),
        expect(dead_code, reason = "only a fuzzer chooses by bytes")
    )]
    Bytes(&'a [u8]),
}

#[derive(Debug)]
pub struct Case {
    pub tls: Option<Ciphered>,
    pub content: Content,
    pub opening: Opening,
    /// Whether another backend may serve.
    pub has_other: bool,
    pub patience: Patience,
    pub max_held: usize,
    /// Small queues in the kernel.
    pub is_tight: bool,
    /// Bytes read before adoption, by side.
    pub early: [usize; 2],
    pub operations: Vec<Operation>,
}

/// The leg that is TLS.
#[derive(Debug, Clone, Copy)]
pub struct Ciphered {
    pub side: usize,
    pub is_new: bool,
    pub fragment: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Bytes,
    Frames,
    /// Followed as frames, and none.
    Garbage,
    /// Frames and then none.
    FramesAndGarbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Connected, and nobody takes the client back.
    Plain,
    /// Connected, and the client is taken back when nothing was served.
    Returning,
    /// The connect is under way, and succeeds.
    Connecting,
    /// The connect is under way, and is refused.
    Refused,
    /// The connect is under way, and is never answered.
    Unanswered,
}

/// Which timeout is short; then all operations are followed by silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Long,
    ShortIdle,
    ShortFin,
}

#[derive(Debug, Clone, Copy)]
pub enum Operation {
    Write {
        side: usize,
        length: usize,
        piece: usize,
    },
    Read {
        side: usize,
        length: usize,
    },
    Finish(usize),
    Reset(usize),
    UpdateKeys(usize),
    /// Writes while nobody reads, until the relay holds bytes.
    Stall(usize),
    /// Waits until the other side has read all.
    Arrive(usize),
    /// Lets the relay run.
    Yield,
    /// Takes the session out of its relay's care, if it can move.
    Freeze,
    /// Lets it go on: in the other relay, or where it was.
    Land {
        moves: bool,
    },
}

impl Choices<'_> {
    pub fn seed(seed: u64) -> Self {
        Self::Seed(fastrand::Rng::with_seed(seed))
    }

    fn below(&mut self, bound: usize) -> usize {
        match self {
            Self::Seed(random) => random.usize(..bound),
            Self::Bytes(bytes) => {
                let mut number = 0;
                let mut span = 1;
                while span < bound {
                    let Some((byte, rest)) = bytes.split_first() else {
                        return 0;
                    };
                    number = number << 8 | usize::from(*byte);
                    span <<= 8;
                    *bytes = rest;
                }
                number % bound
            }
        }
    }

    /// Small numbers are as likely as large ones.
    fn length(&mut self) -> usize {
        match self.below(4) {
            0 => 1 + self.below(16),
            1 => 1 + self.below(5000),
            _ => 1 + self.below(MAX_BYTES),
        }
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn operations(&mut self) -> usize {
        match self {
            Self::Seed(random) => random.usize(..40),
            Self::Bytes(bytes) => bytes.len().div_ceil(2).min(MAX_OPERATIONS),
        }
    }
}

impl Case {
    /// `moves`: the session moves between two relays, too. Without that a seed gives the case that
    /// it gave before sessions could.
    pub fn new(mut choices: Choices<'_>, moves: bool) -> Self {
        let choices = &mut choices;
        let mut case = Self {
            content: choices.one(&[
                Content::Bytes,
                Content::Frames,
                Content::Garbage,
                Content::FramesAndGarbage,
            ]),
            opening: match choices.below(64) {
                0..40 => Opening::Plain,
                40..52 => Opening::Returning,
                52..58 => Opening::Connecting,
                58..62 => Opening::Refused,
                _ => Opening::Unanswered,
            },
            has_other: choices.below(4) != 3,
            patience: match choices.below(64) {
                0..60 => Patience::Long,
                60..62 => Patience::ShortIdle,
                _ => Patience::ShortFin,
            },
            max_held: choices.one(&[usize::MAX, usize::MAX, 100 * 1024, 64 * 1024, 0]),
            is_tight: choices.below(2) == 1,
            tls: (choices.below(3) == 2).then(|| Ciphered {
                side: choices.one(&[CLIENT, CLIENT, BACKEND]),
                is_new: choices.below(2) == 0,
                fragment: choices.one(&[usize::MAX, 64, 1000, 5000]),
            }),
            early: [0; 2],
            operations: Vec::new(),
        };
        if case.opening == Opening::Plain {
            case.early = [0; 2].map(|_| choices.one(&[0, 0, 3, 20_000]));
        } else if let Some(tls) = &mut case.tls {
            // Its handshake would go before the connect.
            tls.side = CLIENT;
        }
        case.operations = (0..choices.operations())
            .map(|_| Operation::new(choices))
            .collect();
        if moves {
            case.insert_moves(choices);
        }
        case
    }

    /// Adds moves at any points, some of which end where they began.
    fn insert_moves(&mut self, choices: &mut Choices<'_>) {
        for _ in 0..choices.below(6) {
            let begin = choices.below(self.operations.len() + 1);
            let end = (begin + choices.below(4)).min(self.operations.len());
            let moves = choices.below(4) != 3;
            self.operations.insert(end, Operation::Land { moves });
            self.operations.insert(begin, Operation::Freeze);
        }
    }

    /// Whether it waits for a timeout, or for the peers' kernels to acknowledge byte after byte.
    #[cfg(fuzzing)]
    pub fn is_slow(&self) -> bool {
        self.patience != Patience::Long
            || self.opening == Opening::Unanswered
            || self.max_held < 64 * 1024
    }

    pub fn framing(&self) -> Framing {
        match (self.content, self.patience) {
            (Content::Bytes, _) => Framing::Bytes,
            // At a timeout a WebSocket gets a Close, a frame that neither end has written.
            (_, Patience::ShortIdle | Patience::ShortFin) => Framing::Bytes,
            (_, Patience::Long) => Framing::WebSocket(FramePolicy::default()),
        }
    }

    /// `short`: the timeout that its patience has.
    pub fn policy(&self, short: Duration) -> SessionLimits {
        let [idle_timeout, fin_timeout] = match self.patience {
            Patience::Long => [LONG, LONG],
            Patience::ShortIdle => [short, short],
            // What is not half-closed ends by the idle timeout.
            Patience::ShortFin => [3 * short, short],
        };
        SessionLimits {
            idle_timeout,
            fin_timeout,
            max_lifetime: None,
        }
    }

    /// The stream that the end of one side sends.
    pub fn stream(&self, side: usize) -> &'static [u8] {
        static MADE: OnceLock<[[Vec<u8>; 3]; 2]> = OnceLock::new();
        let made = MADE.get_or_init(|| {
            [CLIENT, BACKEND].map(|side| {
                let frames = frames(side, STREAM_BYTES);
                let both = [frames_of(side, 0), numbers(STREAM_BYTES)].concat();
                [numbers(STREAM_BYTES), frames, both]
            })
        });
        &made[side][match self.content {
            Content::Bytes | Content::Garbage => 0,
            Content::Frames => 1,
            Content::FramesAndGarbage => 2,
        }]
    }
}

impl Ciphered {
    pub fn version(self) -> &'static SupportedProtocolVersion {
        if self.is_new { &TLS13 } else { &TLS12 }
    }
}

impl Operation {
    fn new(choices: &mut Choices<'_>) -> Self {
        let side = choices.below(2);
        match choices.below(100) {
            0..35 => Self::Write {
                side,
                length: choices.length(),
                piece: match choices.below(3) {
                    0 => choices.below(40),
                    1 => choices.length(),
                    _ => usize::MAX,
                },
            },
            35..65 => Self::Read {
                side,
                length: choices.length(),
            },
            65..70 => Self::Finish(side),
            70..73 => Self::Reset(side),
            73..78 => Self::UpdateKeys(side),
            78..84 => Self::Stall(side),
            84..90 => Self::Arrive(side),
            _ => Self::Yield,
        }
    }
}

fn frames(side: usize, least: usize) -> Vec<u8> {
    let mut stream = Vec::with_capacity(2 * least);
    for round in 0.. {
        if stream.len() >= least {
            break;
        }
        stream.extend(frames_of(side, round));
    }
    stream
}

/// Well-formed frames of many lengths; `round` makes one differ from the next.
fn frames_of(side: usize, round: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for length in [0, 5, 125, 126, 5000, 1, 65_535, 70_000, 10, 65_536] {
        // Binary; a ping where one may be so short.
        stream.push(if length == 125 { 0x89 } else { 0x82 });
        let mask = if side == CLIENT { 0x80 } else { 0 };
        match length {
            0..=125 => stream.push(mask | length as u8),
            126..=0xffff => {
                stream.push(mask | 126);
                stream.extend((length as u16).to_be_bytes());
            }
            _ => {
                stream.push(mask | 127);
                stream.extend((length as u64).to_be_bytes());
            }
        }
        if side == CLIENT {
            stream.extend([1, 2, 3, 4]);
        }
        stream.extend(numbers(length + round)[round..].iter());
    }
    stream
}

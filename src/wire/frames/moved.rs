//! A walker on its way to another process.

use super::{KEPT_BYTES, MAX_HEADER_BYTES, Position, Violation, Walker, in_payload};
use crate::wire::moved::MovedPosition;

impl Walker {
    /// The place, and whether a message is open.
    pub(in crate::wire) fn export(&self) -> (MovedPosition, bool) {
        let position = match self.position {
            Position::Between => MovedPosition::Between,
            Position::Header { count, kept } => MovedPosition::Header { count, kept },
            Position::Payload { left } => MovedPosition::Payload {
                left: u64::from_ne_bytes(left),
            },
            Position::Lost(violation) => MovedPosition::Lost {
                violation: number(violation),
            },
        };
        (position, self.is_message_open)
    }

    /// This walker at another place. `None`: no walker comes there.
    pub(in crate::wire) fn at(self, position: MovedPosition, is_open: bool) -> Option<Walker> {
        let position = match position {
            MovedPosition::Between => Position::Between,
            MovedPosition::Header { count, kept } => {
                let is_part = (1..MAX_HEADER_BYTES).contains(&usize::from(count));
                let mut known = kept.get(..usize::from(count).min(KEPT_BYTES))?;
                // A header that is whole, or none, would have been walked over.
                let walked = self.renewed().opened(is_open).next_frame(&mut known);
                if !is_part || !matches!(walked, Ok(None)) {
                    return None;
                }
                Position::Header { count, kept }
            }
            MovedPosition::Payload { left } if left > 0 && left <= i64::MAX as u64 => {
                in_payload(left)
            }
            MovedPosition::Payload { .. } => return None,
            MovedPosition::Lost { violation } => Position::Lost(of_number(violation)?),
        };
        Some(Walker {
            position,
            is_message_open: is_open,
            ..self
        })
    }

    fn opened(self, is_message_open: bool) -> Walker {
        Walker {
            is_message_open,
            ..self
        }
    }
}

/// Violations by their numbers, which are never used for others.
const VIOLATIONS: [Violation; 10] = [
    Violation::ReservedOpcode,
    Violation::FragmentedControl,
    Violation::LongControl,
    Violation::NothingToContinue,
    Violation::MessageOpen,
    Violation::NotMasked,
    Violation::Masked,
    Violation::LengthNotMinimal,
    Violation::LengthTooLarge,
    Violation::Skipped,
];

fn number(violation: Violation) -> u8 {
    let place = VIOLATIONS.iter().position(|one| *one == violation);
    // The last one says no more than that the frames are lost.
    place.unwrap_or(VIOLATIONS.len() - 1) as u8
}

fn of_number(number: u8) -> Option<Violation> {
    VIOLATIONS.get(usize::from(number)).copied()
}

//! What Evenkeel is to reach in a case, and whether it did.

use super::statistics::Interval;

/// What a figure is held against; smaller is always better.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At most this many times a peer's figure.
    Times(f64, &'static str),
    /// At most this many times the best peer's.
    TimesBest(f64),
    /// At most this, in the measure's unit.
    AtMost(f64),
}

impl Goal {
    pub fn shown(&self) -> String {
        match self {
            Self::Times(factor, peer) => format!("<= {factor:?}x {peer}"),
            Self::TimesBest(factor) => format!("<= {factor:?}x the best"),
            Self::AtMost(most) => format!("<= {most}"),
        }
    }

    /// Met when the interval includes the goal or lies below it; nothing when the peer it names took no part.
    pub fn met(&self, own: f64, ratios: &[(&str, Interval)]) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(own <= *most),
            Self::Times(factor, peer) => {
                let (_, ratio) = ratios.iter().find(|(name, _)| name == peer)?;
                Some(ratio.low <= *factor)
            }
            // The best peer is the one that Evenkeel looks worst against.
            Self::TimesBest(factor) => {
                let worst = ratios
                    .iter()
                    .map(|(_, ratio)| ratio)
                    .max_by(|a, b| a.median.total_cmp(&b.median))?;
                Some(worst.low <= *factor)
            }
        }
    }
}

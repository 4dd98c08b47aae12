//! Parts of a message stream, as readers find them at the start of their input.

use super::chunked::ChunkedPart;

/// A part of a message stream, with the bytes it takes from the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An empty line before a request line, which is forgiven once and not passed on.
    Skipped(usize),
    /// The head of a 1xx answer other than 101; another head follows.
    Interim(usize),
    Head(usize),
    Data(usize),
    /// Framing of chunks. Passes on as it is, unless the receiver gets no chunks.
    Framing(usize),
    /// A part of the trailer section, with its empty line. Passes as framing does.
    Trailers(usize),
    /// The message is complete.
    End,
}

impl Event {
    /// Bytes of the input that the event stands for.
    pub fn taken(self) -> usize {
        match self {
            Event::Skipped(count)
            | Event::Interim(count)
            | Event::Head(count)
            | Event::Data(count)
            | Event::Framing(count)
            | Event::Trailers(count) => count,
            Event::End => 0,
        }
    }

    pub(super) fn of_body((part, count): (ChunkedPart, usize)) -> Event {
        match part {
            ChunkedPart::Data => Event::Data(count),
            ChunkedPart::Framing => Event::Framing(count),
            ChunkedPart::Trailers => Event::Trailers(count),
        }
    }
}

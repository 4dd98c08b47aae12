//! Messages of a source whose reader is replaced: held back between two messages before the reader
//! goes, and without the rest of the message of which it had a part.

use crate::wire::frames::Frame;

/// Reader of the frames that pass.
#[derive(Debug, Default)]
enum Reader {
    #[default]
    Present,
    /// Nothing more passes from the next end of a message on. `rest` came behind that.
    Pausing { rest: Vec<u8> },
    /// Gone, and the next one is not there yet.
    Absent,
}

/// Change of the reader, and the part of a message that no reader gets.
#[derive(Debug, Default)]
pub(super) struct Handover {
    reader: Reader,
    /// The present frame is thrown away to its end.
    drops_frame: bool,
    /// So is the rest of the present message.
    drops_message: bool,
}

impl Handover {
    /// The reader has gone with a part of a frame or of a message.
    pub(super) fn to_next_reader(is_within_frame: bool, is_within_message: bool) -> Handover {
        Handover {
            reader: Reader::Absent,
            drops_frame: is_within_frame,
            drops_message: is_within_message,
        }
    }

    /// A handover in which this much is thrown away.
    pub(super) fn at(is_reader_absent: bool, drops_frame: bool, drops_message: bool) -> Handover {
        Handover {
            reader: if is_reader_absent {
                Reader::Absent
            } else {
                Reader::Present
            },
            drops_frame,
            drops_message,
        }
    }

    pub(super) fn drops_message(&self) -> bool {
        self.drops_message
    }

    pub(super) fn pause(&mut self) {
        if matches!(self.reader, Reader::Present) {
            self.reader = Reader::Pausing { rest: Vec::new() };
        }
    }

    pub(super) fn is_pausing(&self) -> bool {
        matches!(self.reader, Reader::Pausing { .. })
    }

    pub(super) fn is_reader_absent(&self) -> bool {
        matches!(self.reader, Reader::Absent)
    }

    /// Keeps bytes that came behind the pause.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if let Reader::Pausing { rest } = &mut self.reader {
            rest.extend_from_slice(bytes);
        }
    }

    /// Ends a pause; the bytes that came behind it.
    pub(super) fn end_pause(&mut self) -> Vec<u8> {
        match std::mem::take(&mut self.reader) {
            Reader::Pausing { rest } => rest,
            reader => {
                self.reader = reader;
                Vec::new()
            }
        }
    }

    /// The next reader is there.
    pub(super) fn end_absence(&mut self) {
        if self.is_reader_absent() {
            self.reader = Reader::Present;
        }
    }

    pub(super) fn drops_frame(&self) -> bool {
        self.drops_frame
    }

    pub(super) fn begin_frame(&mut self, is_control: bool) {
        self.drops_frame = self.drops_message && !is_control;
    }

    /// The header of a frame has become whole.
    pub(super) fn note(&mut self, frame: &Frame) {
        if self.drops_frame {
            self.drops_message &= frame.opcode.is_control();
            self.drops_message |= !frame.is_final;
        }
    }

    pub(super) fn end_frame(&mut self) {
        self.drops_frame = false;
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.reader, Reader::Present) && !self.drops_frame && !self.drops_message
    }
}

//! Frames of our own that go in between two frames of the source.

/// Frames that wait for the next frame boundary.
#[derive(Debug, Default)]
pub(super) struct Insertion {
    frames: Vec<u8>,
    /// They are a Close, behind which nothing passes.
    is_close: bool,
}

impl Insertion {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn is_close(&self) -> bool {
        self.is_close
    }

    /// Adds a frame; behind a Close none.
    pub(super) fn push(&mut self, frame: &[u8]) {
        if !self.is_close {
            self.frames.extend_from_slice(frame);
        }
    }

    /// Puts a Close in the place of all that waits.
    pub(super) fn replace_with_close(&mut self, frame: Vec<u8>) {
        self.frames = frame;
        self.is_close = true;
    }

    /// The frames, and whether they are a Close.
    pub(super) fn parts(&self) -> (&[u8], bool) {
        (&self.frames, self.is_close)
    }

    pub(super) fn of_parts(frames: Vec<u8>, is_close: bool) -> Insertion {
        Insertion { frames, is_close }
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frames)
    }
}

//! Looks at files again and again, and says when their contents have changed and settled: when two looks in a row saw the same.
//! So no half of a write is taken, whatever way the files are written, renamed over or swapped behind a link.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::files::{FileContents, FileStamp, Fingerprint, stamp};
use crate::base::debounce::{Debounce, Verdict};

/// Between the two looks at a change: far longer than a program takes from one write to the next.
pub const SETTLE: Duration = Duration::from_millis(500);

/// Looks that read the files although their stamps are the same: the kernel's clock has ticks of some milliseconds, within
/// which a second write leaves no mark.
const UNSURE_LOOKS: u8 = 2;

/// What the latest look at some files has seen.
pub struct FileWatch {
    stamps: Vec<Option<FileStamp>>,
    unsure: u8,
    debounce: Debounce<Fingerprint>,
    /// Fingerprint of the contents that were taken last, good or bad.
    taken: Option<Fingerprint>,
}

/// What a look has found.
pub enum FileChange {
    /// Nothing new.
    Same,
    /// Something is being written: look again after [`SETTLE`].
    Unsettled,
    /// To be taken, good or bad.
    Changed(FileContents),
}

impl FileWatch {
    /// Before anything was seen: what the first looks find counts as a change.
    pub fn unseen() -> FileWatch {
        FileWatch {
            stamps: Vec::new(),
            unsure: UNSURE_LOOKS,
            debounce: Debounce::new(Duration::ZERO),
            taken: None,
        }
    }

    /// With contents that are taken now.
    pub fn first<'a>(
        files: impl Iterator<Item = &'a PathBuf> + Clone,
    ) -> (FileWatch, FileContents) {
        // Before the files are read: what is written meanwhile is seen by the next look.
        let stamps = files.clone().map(|file| stamp(file)).collect();
        let contents = FileContents::read(files);
        let look = FileWatch {
            stamps,
            taken: Some(contents.fingerprint()),
            ..FileWatch::unseen()
        };
        (look, contents)
    }

    /// Looks at the files; `always` reads them whatever their stamps say. Blocks on file I/O.
    pub fn again<'a>(
        &mut self,
        files: impl Iterator<Item = &'a PathBuf> + Clone,
        always: bool,
    ) -> FileChange {
        let stamps: Vec<_> = files.clone().map(|file| stamp(file)).collect();
        if stamps != self.stamps {
            self.unsure = UNSURE_LOOKS;
        } else if self.unsure > 0 {
            self.unsure -= 1;
        } else if !always {
            return FileChange::Same;
        }
        self.stamps = stamps;
        let contents = FileContents::read(files);
        let seen = contents.fingerprint();
        let is_known = self.taken == Some(seen);
        match self.debounce.look(Instant::now(), seen, is_known) {
            Verdict::Same => FileChange::Same,
            Verdict::Wait(_) => FileChange::Unsettled,
            Verdict::Settled(seen) => {
                self.taken = Some(seen);
                FileChange::Changed(contents)
            }
        }
    }
}

//! The operator's word on one listener: whether it takes clients. It goes with the listener's name, so that a reload that
//! binds it elsewhere leaves a drained one drained.

use std::sync::atomic::{AtomicBool, Ordering};

/// Open until it is drained.
#[derive(Debug, Default)]
pub struct Intake {
    draining: AtomicBool,
}

impl Intake {
    /// True: clients that come are turned away; those that are there go on.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }
}

//! The pool's clock.

use std::time::Instant;

/// Now, by tokio's clock, so that tests can pause it. Needs no runtime.
pub(super) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

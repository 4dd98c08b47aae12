//! The side that an ordinary HTTP request waits for before its response begins, and how long that
//! may last: the client, for the next bytes of its body, or the backend, to take them and to
//! respond.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config;
use crate::observe::Side;

/// A wait that the body on its way to the backend sets and the exchange reads.
#[derive(Debug)]
pub(super) struct UploadWait(watch::Sender<(Side, Instant)>);

impl UploadWait {
    /// Begins with the backend, which gets the head first.
    pub(super) fn new() -> UploadWait {
        UploadWait(watch::Sender::new((Side::Backend, Instant::now())))
    }

    /// Waits for the client: the body's next bytes have not come.
    pub(super) fn for_client(&self) {
        self.0.send_if_modified(|(side, since)| {
            let is_new = *side != Side::Client;
            if is_new {
                (*side, *since) = (Side::Client, Instant::now());
            }
            is_new
        });
    }

    /// Waits for the backend: bytes have come, which it is to take, or to respond to at the last.
    pub(super) fn for_backend(&self) {
        self.0.send_replace((Side::Backend, Instant::now()));
    }

    /// Returns the side that has been waited for too long.
    ///
    /// # Cancel safety
    /// Holds no state of its own.
    pub(super) async fn overdue(&self, pool: &config::Pool) -> Side {
        let mut changes = self.0.subscribe();
        loop {
            let (side, since) = *changes.borrow_and_update();
            let limit: Duration = match side {
                Side::Client => pool.body_timeout,
                Side::Backend | Side::Evenkeel => pool.response_timeout,
            };
            tokio::select! {
                () = tokio::time::sleep_until(since + limit) => return side,
                // The sender is ours, so it is there.
                _ = changes.changed() => {}
            }
        }
    }
}

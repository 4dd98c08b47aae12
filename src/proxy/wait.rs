//! Whom an ordinary HTTP request waits for before its answer begins, and how long that may last: the client, for the next
//! bytes of its body, or the backend, to take them and to answer.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config;
use crate::observe::Side;

/// Written by the body on its way to the backend, read by the exchange.
#[derive(Debug)]
pub(super) struct UploadWait(watch::Sender<(Side, Instant)>);

impl UploadWait {
    /// The backend has the head before it.
    pub(super) fn new() -> UploadWait {
        UploadWait(watch::Sender::new((Side::Backend, Instant::now())))
    }

    /// The body's next bytes have not come.
    pub(super) fn for_client(&self) {
        self.0.send_if_modified(|(side, since)| {
            let is_new = *side != Side::Client;
            if is_new {
                (*side, *since) = (Side::Client, Instant::now());
            }
            is_new
        });
    }

    /// Bytes have come: the backend is to take them, or to answer if they were the last.
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

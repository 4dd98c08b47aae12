//! Histograms of a listener and of a pool. They belong to the object that they describe and
//! survive every reload.

use super::histogram::{LIFETIMES, MOMENTS, histograms};
use super::metric::Metric;

histograms! {
    /// Times of one listener. `ConnectionRecord` adds to them.
    pub(crate) struct ListenerTimes {
        /// TLS handshakes that succeeded, from the client's hello
        handshake = Metric::counter("listener_handshake"), MOMENTS;
        /// Set-up of sessions, from the accept or the request to the connected backend
        setup = Metric::counter("listener_setup"), MOMENTS;
        /// Sessions that have ended, from the accept or the request
        session = Metric::counter("listener_session"), LIFETIMES;
    }
}

histograms! {
    /// Times of one pool. `ConnectionRecord` adds to connects and first bytes, the pool to the
    /// waits in its queue, health to the checks.
    pub(crate) struct PoolTimes {
        /// Connects that succeeded, with the TLS handshake of the backend
        connect = Metric::counter("pool_connect"), MOMENTS;
        /// From the request, or a client's first byte, to the first byte of the backend
        first_byte = Metric::counter("pool_first_byte"), MOMENTS;
        /// Waits in the queue, those in vain among them
        queue_wait = Metric::counter("pool_queue_wait"), MOMENTS;
        /// Active checks
        check = Metric::counter("pool_check"), MOMENTS;
    }
}

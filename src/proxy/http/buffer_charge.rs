//! The account of bytes that an HTTP exchange holds for a peer that does not take them.

use std::sync::Arc;

use crate::relay::Relay;

/// Bytes of one exchange in the account that the relay's sessions share (`max_buffered`).
pub(super) struct BufferCharge {
    relay: Arc<Relay>,
    bytes: usize,
}

impl BufferCharge {
    pub(super) fn new(relay: &Arc<Relay>) -> BufferCharge {
        BufferCharge {
            relay: Arc::clone(relay),
            bytes: 0,
        }
    }

    /// Sets what the exchange holds now.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.relay.charge_set_up(self.bytes, bytes);
            self.bytes = bytes;
        }
    }

    /// Whether the process may hold more.
    pub(super) fn has_room(&self) -> bool {
        self.relay.has_room()
    }
}

impl Drop for BufferCharge {
    fn drop(&mut self) {
        self.set(0);
    }
}

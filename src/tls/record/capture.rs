//! The way in which rustls tells the traffic secrets of a TLS 1.3 handshake: its hook for key logs.
//! Nothing is logged here: the secrets go to the session of that handshake, and nowhere else.
//!
//! rustls calls the hook on the thread that drives the handshake, within the call that derives the
//! secrets, full handshake or resumed. So the handshake lays a slot of the thread open around each
//! step. At any other time the hook answers that it wants nothing, and rustls makes no copy.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::KeyLog;
use zeroize::Zeroizing;

use super::schedule::{MAX_SECRET_BYTES, Secret};
use super::suite::RecordCipher;

/// Labels of the secrets that protect data (`SSLKEYLOGFILE`).
const CLIENT_LABEL: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_LABEL: &str = "SERVER_TRAFFIC_SECRET_0";

thread_local! {
    /// The secrets of the handshake whose step this thread is in.
    static SLOT: RefCell<Option<TrafficSecrets>> = const { RefCell::new(None) };
}

/// The first traffic secrets of both sides. Wiped when they are dropped.
///
/// Empty in TLS 1.2, and if the configuration has no [`key_log`].
#[derive(Default)]
pub struct TrafficSecrets {
    client: Option<CapturedSecret>,
    server: Option<CapturedSecret>,
}

struct CapturedSecret {
    bytes: Secret,
    length: usize,
}

impl TrafficSecrets {
    /// Runs a step of the handshake that these secrets belong to.
    pub fn during<T>(&mut self, step: impl FnOnce() -> T) -> T {
        SLOT.set(Some(std::mem::take(self)));
        let _closes = CloseSlot;
        let result = step();
        *self = SLOT.take().unwrap_or_default();
        result
    }

    /// The secrets of what a side reads and of what it writes. `None`: they are not known, or not
    /// of this cipher.
    pub(super) fn directions(
        self,
        cipher: RecordCipher,
        is_server: bool,
    ) -> Option<(Secret, Secret)> {
        let of_cipher = |secret: CapturedSecret| {
            (secret.length == cipher.secret_bytes()).then_some(secret.bytes)
        };
        let client = self.client.and_then(of_cipher)?;
        let server = self.server.and_then(of_cipher)?;
        Some(if is_server {
            (client, server)
        } else {
            (server, client)
        })
    }
}

/// Closes the slot, also when the step panics.
struct CloseSlot;

impl Drop for CloseSlot {
    fn drop(&mut self) {
        // A thread that ends has none.
        let _ = SLOT.try_with(|slot| slot.take());
    }
}

/// The hook, for every configuration whose sessions this module goes on with.
pub fn key_log() -> Arc<dyn KeyLog> {
    Arc::new(SecretCapture)
}

#[derive(Debug)]
struct SecretCapture;

impl KeyLog for SecretCapture {
    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT_LABEL | SERVER_LABEL) && SLOT.with_borrow(Option::is_some)
    }

    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut bytes = Zeroizing::new([0; MAX_SECRET_BYTES]);
        let Some(room) = bytes.get_mut(..secret.len()) else {
            return;
        };
        room.copy_from_slice(secret);
        let length = secret.len();
        let captured = Some(CapturedSecret { bytes, length });
        SLOT.with_borrow_mut(|slot| match (slot, label) {
            (Some(secrets), CLIENT_LABEL) => secrets.client = captured,
            (Some(secrets), SERVER_LABEL) => secrets.server = captured,
            _ => {}
        });
    }
}

//! The way in which rustls tells the traffic secrets of a TLS 1.3 handshake: its hook for key logs.
//! Nothing is logged here: the secrets go to the session of that handshake, and nowhere else.
//!
//! rustls calls the hook on the thread that drives the handshake, within the call that derives the
//! secrets, full handshake or resumed. So the handshake lays a slot of the thread open around each
//! step. At any other time the hook answers that it wants nothing, and nothing is copied.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::KeyLog;

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
    /// In one place from its capture to its end: a secret that is moved by value leaves its bytes
    /// behind, unwiped, in the thread's slot and in the handshake's task.
    bytes: Box<Secret>,
    length: usize,
}

const _: () = assert!(size_of::<TrafficSecrets>() < MAX_SECRET_BYTES);

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
    ) -> Option<(Box<Secret>, Box<Secret>)> {
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
        SLOT.with_borrow_mut(|slot| {
            let of_side = match (slot, label) {
                (Some(secrets), CLIENT_LABEL) => &mut secrets.client,
                (Some(secrets), SERVER_LABEL) => &mut secrets.server,
                // In TLS 1.2 rustls tells the master secret without asking for the label.
                _ => return,
            };
            let mut bytes = Box::new(Secret::new([0; MAX_SECRET_BYTES]));
            if let Some(room) = bytes.get_mut(..secret.len()) {
                room.copy_from_slice(secret);
                let length = secret.len();
                *of_side = Some(CapturedSecret { bytes, length });
            }
        });
    }
}

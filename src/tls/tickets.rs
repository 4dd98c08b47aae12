//! Session tickets (RFC 5077 section 4, RFC 8446 section 4.6.1): AES-CBC and HMAC-SHA-256 of
//! aws-lc-rs around rustls' state, under keys of this process or keys that several balancers share
//! by a file.
//!
//! A resumed session is not verified again, so every ticket is bound to a scope (listener and
//! policy for client certificates): the HMAC covers it, and a ticket of another scope does not
//! open, under whatever key.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::cipher::{
    AES_128, AES_256, AES_CBC_IV_LEN, DecryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, iv, rand};
use data_encoding::BASE64;
use rustls::server::ProducesTickets;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use crate::wire::ticket_keys::{MAX_KEYS, TicketKey, TicketKeys};

/// Lifetime of a ticket, as of rustls' own. Keys of a file go when the operator rotates them; this
/// bounds replay after a forgotten rotation, and the age of a client certificate's verification.
pub(crate) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// A key of this process seals for half a lifetime and opens for a whole one after it: three are
/// kept.
const ROTATION: Duration = Duration::from_secs(6 * 3600);
/// The clocks of two balancers may differ by this much.
const MAX_SKEW_SECONDS: u64 = 60;
/// A ticket has to come back in a ClientHello, which may have 16 KiB; a client with a long chain of
/// certificates gets none.
const MAX_TICKET_BYTES: usize = 8 * 1024;

const NAME_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
const STAMP_BYTES: usize = 8;

/// Scope of tickets: a hash of listener and policy.
pub(crate) type TicketScope = [u8; 32];

/// Seals and opens the tickets of one scope.
#[derive(Clone)]
pub(crate) struct Tickets {
    keys: TicketKeySource,
    scope: TicketScope,
}

#[derive(Clone)]
enum TicketKeySource {
    /// Keys for every listener, rotated by time. They outlive a reload, or every reconnect after it
    /// would be a full handshake.
    Process(&'static ProcessKeys),
    Shared(Arc<TicketKeyRing>),
}

impl Tickets {
    /// Tickets under keys that this process makes and rotates.
    ///
    /// # Errors
    /// There is no randomness.
    pub(super) fn with_process_keys(scope: TicketScope) -> Result<Tickets, rustls::Error> {
        let keys = TicketKeySource::Process(
            ProcessKeys::of_process().map_err(|Unspecified| no_ticket_keys())?,
        );
        Ok(Tickets { keys, scope })
    }

    /// Tickets under the keys of a file.
    ///
    /// # Errors
    /// The provider refuses a key.
    pub(super) fn with_shared_keys(
        keys: &TicketKeys,
        scope: TicketScope,
    ) -> Result<Tickets, rustls::Error> {
        let all: Result<Vec<_>, _> = keys.all().iter().map(TicketCipher::new).collect();
        let ring = TicketKeyRing {
            keys: all.map_err(|Unspecified| no_ticket_keys())?,
            sealing: keys.sealing(),
        };
        Ok(Tickets {
            keys: TicketKeySource::Shared(Arc::new(ring)),
            scope,
        })
    }

    fn seal(&self, state: &[u8], now: u64) -> Option<Vec<u8>> {
        let ring = self.ring();
        let key = ring.keys.get(ring.sealing)?;
        let plain = [&now.to_be_bytes()[..], state].concat();
        let ticket = key.seal(plain, &self.scope)?;
        (ticket.len() <= MAX_TICKET_BYTES).then_some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        if ticket.len() > MAX_TICKET_BYTES {
            return None;
        }
        let ring = self.ring();
        let mut named = ring.keys.iter().filter(|key| ticket.starts_with(&key.name));
        let plain = named.find_map(|key| key.open(ticket, &self.scope))?;
        let (stamp, state) = plain.split_first_chunk::<STAMP_BYTES>()?;
        let sealed = u64::from_be_bytes(*stamp);
        let good =
            sealed.saturating_sub(MAX_SKEW_SECONDS)..=sealed.saturating_add(LIFETIME.as_secs());
        good.contains(&now).then(|| state.to_vec())
    }

    fn ring(&self) -> Arc<TicketKeyRing> {
        match &self.keys {
            TicketKeySource::Process(own) => own.ring(Instant::now()),
            TicketKeySource::Shared(ring) => Arc::clone(ring),
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        self.seal(state, UnixTime::now().as_secs())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, UnixTime::now().as_secs())
    }
}

/// Opens tickets and issues none.
#[derive(Debug)]
pub(super) struct DecryptOnly(pub Tickets);

impl ProducesTickets for DecryptOnly {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, _state: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(ticket)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

fn no_ticket_keys() -> rustls::Error {
    rustls::Error::General("the keys of session tickets could not be made".to_owned())
}

/// Keys at one moment, the oldest first.
struct TicketKeyRing {
    keys: Vec<Arc<TicketCipher>>,
    /// Index of the key that seals.
    sealing: usize,
}

/// Keys that this process makes.
struct ProcessKeys {
    ring: ArcSwap<DatedRing>,
    /// Held by the thread that makes the next key; the others go on with the present ones.
    rotating: Mutex<()>,
}

struct DatedRing {
    ring: Arc<TicketKeyRing>,
    since: Instant,
}

/// The keys that this process has made, for the next process in an upgrade: without them every
/// client that comes back would make a full handshake.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TicketKeyState {
    /// Base64, the oldest first.
    keys: Vec<String>,
    /// Time since the newest one was made.
    age: Duration,
}

impl fmt::Debug for TicketKeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeyState").finish_non_exhaustive()
    }
}

impl TicketKeyState {
    /// `None`: no listener has needed a key so far.
    pub(crate) fn of_process() -> Option<TicketKeyState> {
        let own = OWN.get()?;
        // Rotates them if that is due.
        own.ring(Instant::now());
        Some(own.state(Instant::now()))
    }

    /// Makes these the keys of this process. To be called before it serves; keys that cannot be
    /// used change nothing.
    pub(crate) fn take_over(&self) {
        let Some(dated) = self.dated(Instant::now()) else {
            return;
        };
        let made = ProcessKeys {
            ring: ArcSwap::from_pointee(dated),
            rotating: Mutex::default(),
        };
        if let Err(made) = OWN.set(made)
            && let Some(own) = OWN.get()
        {
            own.ring.store(made.ring.load_full());
        }
    }

    fn dated(&self, now: Instant) -> Option<DatedRing> {
        let newest = self.keys.len().saturating_sub(MAX_KEYS);
        let keys = self.keys.iter().skip(newest).map(|key| {
            let secret = BASE64.decode(key.as_bytes()).ok()?;
            TicketCipher::of_secret(&secret.try_into().ok()?).ok()
        });
        let keys: Vec<_> = keys.collect::<Option<_>>()?;
        let since = now.checked_sub(self.age).unwrap_or(now);
        (!keys.is_empty()).then(|| DatedRing::with(keys, since))
    }
}

static OWN: OnceLock<ProcessKeys> = OnceLock::new();

impl ProcessKeys {
    fn state(&self, now: Instant) -> TicketKeyState {
        let dated = self.ring.load();
        let keys = dated.ring.keys.iter();
        TicketKeyState {
            keys: keys
                .filter_map(|key| Some(BASE64.encode(key.secret.as_deref()?)))
                .collect(),
            age: now.saturating_duration_since(dated.since),
        }
    }

    fn of_process() -> Result<&'static ProcessKeys, Unspecified> {
        match OWN.get() {
            Some(own) => Ok(own),
            None => {
                let made = ProcessKeys::new(Instant::now())?;
                Ok(OWN.get_or_init(|| made))
            }
        }
    }

    fn new(now: Instant) -> Result<ProcessKeys, Unspecified> {
        let dated = DatedRing::with(vec![TicketCipher::random()?], now);
        Ok(ProcessKeys {
            ring: ArcSwap::from_pointee(dated),
            rotating: Mutex::default(),
        })
    }

    /// The present keys, after a rotation when one is due.
    fn ring(&self, now: Instant) -> Arc<TicketKeyRing> {
        let dated = self.ring.load();
        if now.saturating_duration_since(dated.since) >= ROTATION
            && let Ok(_turning) = self.rotating.try_lock()
        {
            return self.rotate(now);
        }
        Arc::clone(&dated.ring)
    }

    fn rotate(&self, now: Instant) -> Arc<TicketKeyRing> {
        let dated = self.ring.load();
        let age = now.saturating_duration_since(dated.since);
        let last = &dated.ring.keys;
        // Another thread may have rotated before the lock; without randomness the old keys stay.
        let next = (age >= ROTATION)
            .then(TicketCipher::random)
            .and_then(Result::ok);
        let Some(next) = next else {
            return Arc::clone(&dated.ring);
        };
        // Each rotation that was missed drops its old key.
        let missed = usize::try_from(age.as_secs() / ROTATION.as_secs()).unwrap_or(MAX_KEYS);
        let kept = MAX_KEYS.saturating_sub(missed);
        let kept = last.iter().skip(last.len().saturating_sub(kept));
        let dated = DatedRing::with(kept.cloned().chain([next]).collect(), now);
        let ring = Arc::clone(&dated.ring);
        self.ring.store(Arc::new(dated));
        ring
    }
}

impl DatedRing {
    /// A ring in which the newest key seals.
    fn with(keys: Vec<Arc<TicketCipher>>, since: Instant) -> DatedRing {
        let sealing = keys.len().saturating_sub(1);
        let ring = Arc::new(TicketKeyRing { keys, sealing });
        DatedRing { ring, since }
    }
}

/// Name, AES and HMAC of a key that this process makes.
const SECRET_BYTES: usize = NAME_BYTES + 64;

struct TicketCipher {
    name: [u8; NAME_BYTES],
    /// Of a key that this process has made: it goes to the next one.
    secret: Option<Box<[u8; SECRET_BYTES]>>,
    sealing: PaddedBlockEncryptingKey,
    opening: PaddedBlockDecryptingKey,
    mac: hmac::Key,
}

impl TicketCipher {
    fn new(key: &TicketKey) -> Result<Arc<TicketCipher>, Unspecified> {
        TicketCipher::of_key(key).map(Arc::new)
    }

    fn of_key(key: &TicketKey) -> Result<TicketCipher, Unspecified> {
        let algorithm = match key.aes.len() {
            16 => &AES_128,
            _ => &AES_256,
        };
        let cipher = || UnboundCipherKey::new(algorithm, &key.aes);
        Ok(TicketCipher {
            name: key.name,
            secret: None,
            sealing: PaddedBlockEncryptingKey::cbc_pkcs7(cipher()?)?,
            opening: PaddedBlockDecryptingKey::cbc_pkcs7(cipher()?)?,
            mac: hmac::Key::new(hmac::HMAC_SHA256, &key.hmac),
        })
    }

    fn random() -> Result<Arc<TicketCipher>, Unspecified> {
        let mut secret = [0; SECRET_BYTES];
        rand::fill(&mut secret)?;
        TicketCipher::of_secret(&secret)
    }

    fn of_secret(secret: &[u8; SECRET_BYTES]) -> Result<Arc<TicketCipher>, Unspecified> {
        let (name, keys) = secret.split_first_chunk().ok_or(Unspecified)?;
        let (aes, hmac) = keys.split_at(32);
        let cipher = TicketCipher::of_key(&TicketKey {
            name: *name,
            aes: aes.to_vec(),
            hmac: hmac.to_vec(),
        })?;
        Ok(Arc::new(TicketCipher {
            secret: Some(Box::new(*secret)),
            ..cipher
        }))
    }

    /// Name, IV, ciphertext, tag.
    fn seal(&self, mut plain: Vec<u8>, scope: &TicketScope) -> Option<Vec<u8>> {
        // The IV is fresh and random.
        let context = self.sealing.encrypt(&mut plain).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        let mut ticket = [&self.name[..], iv, &plain].concat();
        let tag = hmac::sign(&self.mac, &authenticated(scope, &ticket));
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// Decrypts a ticket, after its tag was verified.
    fn open(&self, ticket: &[u8], scope: &TicketScope) -> Option<Vec<u8>> {
        let body = ticket.len().checked_sub(TAG_BYTES)?;
        let (body, tag) = ticket.split_at_checked(body)?;
        hmac::verify(&self.mac, &authenticated(scope, body), tag).ok()?;
        let (iv, ciphertext) = body
            .get(NAME_BYTES..)?
            .split_first_chunk::<AES_CBC_IV_LEN>()?;
        let mut plain = ciphertext.to_vec();
        let context = DecryptionContext::Iv128(iv::FixedLength::from(*iv));
        let plain = self.opening.decrypt(&mut plain, context).ok()?;
        Some(plain.to_vec())
    }
}

/// The input of a tag. Scope, name and IV have fixed lengths, so that none needs to be included.
fn authenticated(scope: &TicketScope, body: &[u8]) -> Vec<u8> {
    [&scope[..], body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;
    use proptest::prelude::*;

    const SCOPE: TicketScope = [1; 32];
    const NOW: u64 = 1_800_000_000;

    fn file(fills: &[(usize, u8)]) -> TicketKeys {
        let lines: Vec<String> = fills
            .iter()
            .map(|(length, fill)| BASE64.encode(&vec![*fill; *length]))
            .collect();
        TicketKeys::parse(lines.join("\n").as_bytes()).unwrap()
    }

    fn shared(fills: &[(usize, u8)]) -> Tickets {
        Tickets::with_shared_keys(&file(fills), SCOPE).unwrap()
    }

    #[test]
    fn another_balancer_with_the_same_file_opens_it() {
        for length in [48, 80] {
            let keys = [(length, 1), (length, 2), (length, 3)];
            let ticket = shared(&keys).seal(b"state", NOW).unwrap();
            assert_eq!(shared(&keys).open(&ticket, NOW), Some(b"state".to_vec()));
            assert_eq!(shared(&[(length, 4)]).open(&ticket, NOW), None);
        }
    }

    // While a new key goes round, some balancers have it and some do not: all open the tickets of
    // all.
    #[test]
    fn a_rotation_step_by_step_loses_no_ticket() {
        let before = shared(&[(80, 1), (80, 2), (80, 3)]);
        let after = shared(&[(80, 2), (80, 3), (80, 4)]);
        for (from, to) in [(&before, &after), (&after, &before)] {
            let ticket = from.seal(b"state", NOW).unwrap();
            assert!(to.open(&ticket, NOW).is_some());
        }
        let twice = shared(&[(80, 3), (80, 4), (80, 5)]);
        let ticket = before.seal(b"state", NOW).unwrap();
        assert_eq!(twice.open(&ticket, NOW), None, "its key has left the file");
    }

    #[test]
    fn a_ticket_does_not_open_in_another_scope() {
        for ours in [
            shared(&[(80, 1)]),
            Tickets::with_process_keys(SCOPE).unwrap(),
        ] {
            let other = Tickets {
                scope: [2; 32],
                ..ours.clone()
            };
            let ticket = ours.seal(b"state", NOW).unwrap();
            assert!(ours.open(&ticket, NOW).is_some());
            assert_eq!(other.open(&ticket, NOW), None);
        }
    }

    #[test]
    fn a_ticket_opens_for_its_lifetime() {
        let tickets = shared(&[(48, 1)]);
        let ticket = tickets.seal(b"state", NOW).unwrap();
        let lifetime = LIFETIME.as_secs();
        for (now, good) in [
            (NOW - MAX_SKEW_SECONDS - 1, false),
            (NOW - MAX_SKEW_SECONDS, true),
            (NOW + lifetime, true),
            (NOW + lifetime + 1, false),
        ] {
            assert_eq!(tickets.open(&ticket, now).is_some(), good, "{now}");
        }
    }

    #[test]
    fn a_chain_too_long_for_a_client_hello_gets_no_ticket() {
        let tickets = shared(&[(48, 1)]);
        assert!(tickets.seal(&[0; 7000], NOW).is_some());
        assert_eq!(tickets.seal(&[0; MAX_TICKET_BYTES], NOW), None);
        assert_eq!(tickets.open(&[0; MAX_TICKET_BYTES + 1], NOW), None);
    }

    #[test]
    fn own_keys_are_rotated_and_open_for_a_lifetime_after_they_sealed() {
        let start = Instant::now();
        let own = ProcessKeys::new(start).unwrap();
        let newest = |ring: &TicketKeyRing| ring.keys[ring.sealing].name;
        let first = newest(&own.ring(start));
        assert_eq!(newest(&own.ring(start + ROTATION / 2)), first);
        for turn in 1..=2 {
            let ring = own.ring(start + ROTATION * turn);
            assert_ne!(newest(&ring), first);
            assert!(ring.keys.iter().any(|key| key.name == first), "{turn}");
        }
        let last = own.ring(start + ROTATION * 3);
        assert!(last.keys.iter().all(|key| key.name != first));
        assert_eq!(last.keys.len(), MAX_KEYS);
        // Nobody came for days.
        assert_eq!(own.ring(start + ROTATION * 30).keys.len(), 1);
    }

    proptest! {
        #[test]
        fn what_was_touched_anywhere_does_not_open(
            state in prop::collection::vec(any::<u8>(), 0..300), place in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let tickets = shared(&[(80, 1)]);
            let mut ticket = tickets.seal(&state, NOW).unwrap();
            prop_assert_eq!(tickets.open(&ticket, NOW), Some(state));
            prop_assert_eq!(tickets.open(&ticket[..place.index(ticket.len())], NOW), None);
            let place = place.index(ticket.len());
            ticket[place] ^= 1 << bit;
            prop_assert_eq!(tickets.open(&ticket, NOW), None);
        }

        #[test]
        fn no_bytes_make_it_panic(mut ticket in prop::collection::vec(any::<u8>(), 0..200), ours in any::<bool>()) {
            let tickets = shared(&[(80, 1)]);
            if ours && ticket.len() >= NAME_BYTES {
                ticket[..NAME_BYTES].fill(1);
            }
            prop_assert_eq!(tickets.open(&ticket, NOW), None);
        }
    }

    #[test]
    fn the_next_process_opens_the_tickets_of_this_one() {
        let now = Instant::now();
        let keys = ProcessKeys::new(now).unwrap();
        let scope = [3; 32];
        let ticket = keys.ring(now).keys[0]
            .seal(b"state".to_vec(), &scope)
            .unwrap();
        let state = keys.state(now + Duration::from_secs(60));
        assert_eq!(format!("{state:?}"), "TicketKeyState { .. }");
        let text = serde_json::to_string(&state).unwrap();
        let state: TicketKeyState = serde_json::from_str(&text).unwrap();
        let next = state.dated(now).unwrap();
        assert!(now.saturating_duration_since(next.since) >= Duration::from_secs(60));
        assert_eq!(next.ring.keys[0].open(&ticket, &scope).unwrap(), b"state");
        for broken in [
            r#"{"keys":[]}"#,
            r#"{"keys":["AAAA"]}"#,
            r#"{"keys":["?"]}"#,
        ] {
            let state: TicketKeyState = serde_json::from_str(broken).unwrap();
            assert!(state.dated(now).is_none(), "{broken}");
        }
    }
}

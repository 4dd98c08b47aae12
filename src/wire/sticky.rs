//! The sticky cookie: which backend a client goes back to, signed with a key that several balancers
//! share.
//!
//! `version(1) key id(4) expiry(8) mark(16) tag(32)`, base64url. The mark is a keyed hash of the
//! backend's name, so that a client learns no name or address. The tag is HMAC-SHA256 over the
//! pool's name and all before it: a cookie is not valid in another pool. Pure: `now` is an
//! argument, in seconds since 1970, because balancers compare it with each other.

use std::hash::Hasher;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use siphasher::sip128::{Hasher128, SipHasher24};
use thiserror::Error;

/// Keys of one file: the one that signs, the one before it and the one to come.
pub(crate) const MAX_KEYS: usize = 3;
/// Shortest key: as long as HMAC-SHA256's output (`openssl rand -base64 32`).
pub(crate) const MIN_KEY_BYTES: usize = 32;
/// Longest key: more adds nothing, as HMAC would hash it first.
pub(crate) const MAX_KEY_BYTES: usize = 64;
/// Largest file: far more than three keys and their comments.
pub(crate) const MAX_FILE_BYTES: usize = 4_096;

const VERSION: u8 = 1;
const ID_BYTES: usize = 4;
const MARK_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
const SIGNED_BYTES: usize = 1 + ID_BYTES + 8 + MARK_BYTES;
const COOKIE_BYTES: usize = SIGNED_BYTES + TAG_BYTES;

/// Keys of one file.
pub struct StickyKeys {
    /// The first signs; cookies of all are accepted. Never empty.
    keys: Vec<StickyKey>,
}

/// Why a file of keys is refused. No key is shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StickyKeysError {
    #[error("it is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("it has no key; `openssl rand -base64 32` makes one")]
    Empty,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("line {line} is no base64")]
    NotBase64 { line: usize },
    #[error(
        "line {line} has {bytes} bytes; allowed: {MIN_KEY_BYTES} to {MAX_KEY_BYTES}, as of `openssl rand -base64 32`"
    )]
    Length { line: usize, bytes: usize },
    #[error("line {line} has the same key as a line before it")]
    Repeated { line: usize },
}

/// A valid cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyCookie {
    mark: [u8; MARK_BYTES],
    /// Which of the keys signed it.
    key: usize,
    /// Seconds since 1970.
    pub expires: u64,
}

impl StickyCookie {
    /// Whether another key signs now: the cookie must be renewed before its key is gone.
    pub fn needs_renewal(&self) -> bool {
        self.key != 0
    }
}

impl StickyKeys {
    /// Reads a file of keys: one in base64 per line, `#` begins a comment. The first signs.
    ///
    /// # Errors
    /// The fault, and its line.
    pub fn parse(text: &str) -> Result<StickyKeys, StickyKeysError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(StickyKeysError::TooLarge);
        }
        let mut keys: Vec<StickyKey> = Vec::new();
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if keys.len() == MAX_KEYS {
                return Err(StickyKeysError::TooMany);
            }
            let secret = BASE64
                .decode(text.as_bytes())
                .map_err(|_| StickyKeysError::NotBase64 { line })?;
            let bytes = secret.len();
            if !(MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&bytes) {
                return Err(StickyKeysError::Length { line, bytes });
            }
            let key = StickyKey::new(&secret);
            if keys.iter().any(|other| other.id == key.id) {
                return Err(StickyKeysError::Repeated { line });
            }
            keys.push(key);
        }
        if keys.is_empty() {
            Err(StickyKeysError::Empty)
        } else {
            Ok(StickyKeys { keys })
        }
    }

    /// The cookie of `backend`, good until `expires`. `None` never happens: there is a key.
    pub fn seal(&self, pool: &str, backend: &str, expires: u64) -> Option<String> {
        let key = self.keys.first()?;
        let mut cookie = Vec::with_capacity(COOKIE_BYTES);
        cookie.push(VERSION);
        cookie.extend(key.id);
        cookie.extend(expires.to_be_bytes());
        cookie.extend(key.mark(backend));
        let tag = hmac::sign(&key.signing, &signed(pool, &cookie));
        cookie.extend(tag.as_ref());
        Some(BASE64URL_NOPAD.encode(&cookie))
    }

    /// Opens a cookie; `None` unless `seal` made it for this pool with one of these keys and it has
    /// not expired.
    pub fn open(&self, pool: &str, value: &[u8], now: u64) -> Option<StickyCookie> {
        // Before anything is decoded: a client may send 16 KiB of it.
        if value.len() != BASE64URL_NOPAD.encode_len(COOKIE_BYTES) {
            return None;
        }
        let cookie = BASE64URL_NOPAD.decode(value).ok()?;
        let (body, tag) = cookie.split_at_checked(SIGNED_BYTES)?;
        let (&version, rest) = body.split_first()?;
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (expires, mark) = rest.split_first_chunk::<8>()?;
        let (index, key) = (0..).zip(&self.keys).find(|(_, key)| key.id == *id)?;
        let genuine = hmac::verify(&key.signing, &signed(pool, body), tag).is_ok();
        let expires = u64::from_be_bytes(*expires);
        let good = version == VERSION && genuine && now < expires;
        let mark = mark.try_into().ok()?;
        good.then_some(StickyCookie {
            mark,
            key: index,
            expires,
        })
    }

    /// Whether the cookie was made for the backend of this name.
    pub fn is_for(&self, opened: &StickyCookie, backend: &str) -> bool {
        let key = self.keys.get(opened.key);
        key.is_some_and(|key| key.mark(backend) == opened.mark)
    }
}

impl PartialEq for StickyKeys {
    fn eq(&self, other: &StickyKeys) -> bool {
        let ids = |keys: &StickyKeys| keys.keys.iter().map(|key| key.id).collect::<Vec<_>>();
        ids(self) == ids(other)
    }
}

impl std::fmt::Debug for StickyKeys {
    /// Shows the ids, which reveal nothing of the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.keys.iter().map(|key| key.id);
        f.debug_list().entries(ids).finish()
    }
}

/// The three keys derived from a secret.
struct StickyKey {
    /// Names the signing key in a cookie.
    id: [u8; ID_BYTES],
    signing: hmac::Key,
    marking: SipHasher24,
}

impl StickyKey {
    fn new(secret: &[u8]) -> StickyKey {
        let root = hmac::Key::new(HMAC_SHA256, secret);
        StickyKey {
            id: derived(&root, "evenkeel sticky id"),
            signing: hmac::Key::new(
                HMAC_SHA256,
                &derived::<32>(&root, "evenkeel sticky signing"),
            ),
            marking: SipHasher24::new_with_key(&derived(&root, "evenkeel sticky mark")),
        }
    }

    fn mark(&self, backend: &str) -> [u8; MARK_BYTES] {
        let mut hasher = self.marking;
        hasher.write(backend.as_bytes());
        hasher.finish128().as_bytes()
    }
}

/// The first bytes of the HMAC of `purpose`.
fn derived<const N: usize>(root: &hmac::Key, purpose: &str) -> [u8; N] {
    let tag = hmac::sign(root, purpose.as_bytes());
    let mut bytes = [0; N];
    bytes
        .iter_mut()
        .zip(tag.as_ref())
        .for_each(|(to, from)| *to = *from);
    bytes
}

/// The signed bytes. The length before the name keeps it apart from the rest.
fn signed(pool: &str, body: &[u8]) -> Vec<u8> {
    let length = (pool.len() as u64).to_be_bytes();
    [&length[..], pool.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn secret(byte: u8) -> String {
        BASE64.encode(&[byte; MIN_KEY_BYTES])
    }

    fn keys(bytes: &[u8]) -> StickyKeys {
        let lines: Vec<String> = bytes.iter().map(|byte| secret(*byte)).collect();
        StickyKeys::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn another_balancer_with_the_same_keys_honours_the_cookie() {
        let cookie = keys(&[1]).seal("chat", "n1", NOW + 60).unwrap();
        let other = keys(&[1]);
        let opened = other.open("chat", cookie.as_bytes(), NOW).unwrap();
        assert!(other.is_for(&opened, "n1") && !other.is_for(&opened, "n2"));
        assert_eq!((opened.expires, opened.needs_renewal()), (NOW + 60, false));
    }

    #[test]
    fn a_cookie_is_good_in_its_pool_until_it_expires_and_no_longer() {
        let keys = keys(&[1]);
        let cookie = keys.seal("chat", "n1", NOW + 60).unwrap();
        let open = |pool, now| keys.open(pool, cookie.as_bytes(), now).is_some();
        assert!(open("chat", NOW + 59));
        assert!(!open("chat", NOW + 60) && !open("chat", u64::MAX));
        assert!(!open("chat2", NOW) && !open("", NOW));
    }

    /// The way of a rotation: the new key is read everywhere before the first balancer signs with
    /// it.
    #[test]
    fn keys_rotate_without_a_lost_cookie() {
        let (before, halfway, after) = (keys(&[1]), keys(&[1, 2]), keys(&[2, 1]));
        let (old, new) = (
            before.seal("chat", "n1", NOW + 60).unwrap(),
            after.seal("chat", "n1", NOW + 60).unwrap(),
        );
        for (keys, cookie, is_old) in [
            (&halfway, &old, false),
            (&halfway, &new, true),
            (&after, &old, true),
            (&after, &new, false),
        ] {
            let opened = keys.open("chat", cookie.as_bytes(), NOW).unwrap();
            assert!(keys.is_for(&opened, "n1"));
            assert_eq!(opened.needs_renewal(), is_old);
        }
        assert_eq!(before.open("chat", new.as_bytes(), NOW), None);
    }

    /// Written down, so that no later version makes the cookies of this one void.
    #[test]
    fn the_cookie_stays_the_same_in_every_version() {
        let cookie = keys(&[7]).seal("chat", "n1", NOW).unwrap();
        let golden =
            "AfH0SpoAAAAAZVPxACZERR8L2Asw0ZMZPYchUq46sNLvKqt0CAXyQoCfnsf2aNWD4RHyWkOFqE5VqtS2XQ";
        assert_eq!(cookie, golden);
    }

    #[test]
    fn a_cookie_shows_no_name() {
        let cookie = keys(&[1]).seal("chat", "10.0.0.1:9501", NOW).unwrap();
        let bytes = BASE64URL_NOPAD.decode(cookie.as_bytes()).unwrap();
        assert!(!bytes.windows(8).any(|part| part == b"10.0.0.1"));
    }

    #[test]
    fn a_file_has_one_to_three_keys_and_comments() {
        let text = format!("# signs\n{}\n\n  {}  \r\n", secret(1), secret(2));
        assert_eq!(StickyKeys::parse(&text).unwrap(), keys(&[1, 2]));
        assert_ne!(keys(&[1, 2]), keys(&[2, 1]));
        let many = [1, 2, 3, 4].map(secret).join("\n");
        let short = BASE64.encode(&[1; MIN_KEY_BYTES - 1]);
        let long = BASE64.encode(&[1; MAX_KEY_BYTES + 1]);
        for (text, error) in [
            ("# nothing\n\n", StickyKeysError::Empty),
            (&many, StickyKeysError::TooMany),
            ("\nnot base64!", StickyKeysError::NotBase64 { line: 2 }),
            (&short, StickyKeysError::Length { line: 1, bytes: 31 }),
            (&long, StickyKeysError::Length { line: 1, bytes: 65 }),
            (
                &[secret(1), secret(1)].join("\n"),
                StickyKeysError::Repeated { line: 2 },
            ),
            (&" ".repeat(MAX_FILE_BYTES + 1), StickyKeysError::TooLarge),
        ] {
            assert_eq!(StickyKeys::parse(text), Err(error), "{text}");
        }
        assert!(!format!("{:?}", keys(&[1])).contains(&secret(1)));
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened(pool in ".{0,20}", name in ".{0,40}", other in ".{0,40}", left in 1u64..u64::MAX / 2) {
            let keys = keys(&[1, 2]);
            let cookie = keys.seal(&pool, &name, NOW + left).unwrap();
            prop_assert!(cookie.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
            let opened = keys.open(&pool, cookie.as_bytes(), NOW).unwrap();
            prop_assert!(keys.is_for(&opened, &name));
            prop_assert_eq!(keys.is_for(&opened, &other), other == name);
        }

        #[test]
        fn a_changed_bit_makes_it_void(at in 0..COOKIE_BYTES, bit in 0u8..8) {
            let keys = keys(&[1, 2]);
            let cookie = keys.seal("chat", "n1", NOW + 60).unwrap();
            let mut bytes = BASE64URL_NOPAD.decode(cookie.as_bytes()).unwrap();
            bytes[at] ^= 1 << bit;
            let forged = BASE64URL_NOPAD.encode(&bytes);
            prop_assert_eq!(keys.open("chat", forged.as_bytes(), NOW), None);
        }

        #[test]
        fn anything_else_is_as_none(value in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..90) {
            let keys = keys(&[1]);
            prop_assert_eq!(keys.open("chat", &value, NOW), None);
            let cookie = keys.seal("chat", "n1", NOW + 60).unwrap();
            if cut < cookie.len() {
                prop_assert_eq!(keys.open("chat", &cookie.as_bytes()[..cut], NOW), None);
            }
        }

        #[test]
        fn no_text_of_a_file_panics(text in "[A-Za-z0-9+/=# \n]{0,200}") {
            let _ = StickyKeys::parse(&text);
        }
    }
}

//! Sessions of browsers, which cannot keep a token safe: a login exchanges it for a cookie.
//!
//! The cookie is HttpOnly and SameSite=Strict. A change needs a value beside it that no foreign
//! page can read. Sessions live in memory: after a restart or an upgrade one logs in again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use http::HeaderMap;
use http::header::COOKIE;
use subtle::ConstantTimeEq;

use super::reply::ApiError;
use super::tokens::Token;
use crate::base::source_prefix::SourcePrefix;

/// Sessions at once: for the next, the oldest one of the token with the most ends. More than a
/// large team has open.
const MAX_SESSIONS: usize = 256;
/// Time of a session: a working day.
const SESSION_TIME: Duration = Duration::from_secs(12 * 3600);
/// Bytes of an id and of a CSRF value: 256 bits that nobody guesses.
const SECRET_BYTES: usize = 32;
/// Cookies of the session's name that are tried.
const MAX_COOKIES: usize = 8;
/// Header of a change that has the session's CSRF value.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";

/// Sessions of the endpoint, the oldest first.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Vec<Arc<BrowserSession>>>);

/// A browser's session.
pub(super) struct BrowserSession {
    id: String,
    pub csrf: String,
    pub token: Arc<Token>,
    /// Network that it began from: a cookie that is lost elsewhere is of no use there.
    source: SourcePrefix,
    ends_at: Instant,
}

impl Sessions {
    /// Begins a session of a token's holder, who asks from `source`.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(super) fn begin(
        &self,
        token: Arc<Token>,
        source: SourcePrefix,
    ) -> Result<Arc<BrowserSession>, ApiError> {
        let session = Arc::new(BrowserSession {
            id: secret()?,
            csrf: secret()?,
            token,
            source,
            ends_at: Instant::now() + SESSION_TIME,
        });
        let mut sessions = self.lock();
        sessions.retain(|one| !one.left().is_zero());
        if sessions.len() >= MAX_SESSIONS {
            let place = place_to_end(&sessions);
            sessions.remove(place);
        }
        sessions.push(Arc::clone(&session));
        Ok(session)
    }

    /// Finds the session whose cookie `name` a request from `source` has. Other applications of the
    /// host can set cookies of that name: each of them is tried.
    pub(super) fn find(
        &self,
        (headers, source): (&HeaderMap, SourcePrefix),
        name: &str,
    ) -> Option<Arc<BrowserSession>> {
        let sessions = self.lock();
        let find = |id| sessions.iter().find(|one| same(&one.id, id));
        let mut found = cookies(headers, name).filter_map(find);
        let is_here = |one: &&Arc<BrowserSession>| one.source == source && !one.left().is_zero();
        found.find(is_here).cloned()
    }

    /// Whether a session goes on.
    pub(super) fn has(&self, session: &Arc<BrowserSession>) -> bool {
        let is_listed = self.lock().iter().any(|one| Arc::ptr_eq(one, session));
        is_listed && !session.left().is_zero()
    }

    pub(super) fn end(&self, session: &Arc<BrowserSession>) {
        self.lock().retain(|one| !Arc::ptr_eq(one, session));
    }

    /// Locks the sessions; nothing panics while they are locked.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<BrowserSession>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrowserSession {
    /// Time until it ends.
    pub(super) fn left(&self) -> Duration {
        self.ends_at.saturating_duration_since(Instant::now())
    }

    /// Requires the CSRF value of the session.
    ///
    /// # Errors
    /// Names the header.
    pub(super) fn check_csrf(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut values = headers.get_all(CSRF_HEADER).iter();
        let given = values.next().and_then(|value| value.to_str().ok());
        let is_right = given.is_some_and(|given| same(&self.csrf, given));
        if is_right && values.next().is_none() {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "a change by a session needs the header {CSRF_HEADER} with the value \"csrf\" of GET /login"
        )))
    }

    /// Writes the `Set-Cookie` that begins the session; `secure`: it came over TLS.
    pub(super) fn cookie(&self, name: &str, secure: bool) -> String {
        cookie_line(name, &self.id, SESSION_TIME, secure)
    }
}

/// Writes the `Set-Cookie` that removes the cookie `name`.
pub(super) fn no_cookie(name: &str, secure: bool) -> String {
    cookie_line(name, "", Duration::ZERO, secure)
}

fn cookie_line(name: &str, value: &str, time: Duration, secure: bool) -> String {
    let seconds = time.as_secs();
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

/// Place of the session that ends for the next one: nobody but its own holder can push it out with
/// many logins.
fn place_to_end(sessions: &[Arc<BrowserSession>]) -> usize {
    let of_token = |one: &BrowserSession| {
        let same = |other: &&Arc<BrowserSession>| other.token.holder.name == one.token.holder.name;
        sessions.iter().filter(same).count()
    };
    let places = sessions.iter().enumerate().rev();
    let most = places.max_by_key(|(_, one)| of_token(one));
    most.map_or(0, |(place, _)| place)
}

/// Returns the values of the cookies `name`.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(COOKIE).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim(), value.trim()))
    });
    let of_name = move |(found, value)| (found == name).then_some(value);
    pairs.filter_map(of_name).take(MAX_COOKIES)
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn secret() -> Result<String, ApiError> {
    let mut bytes = [0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        let message = "the system has no random bytes";
        ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    Ok(HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: SourcePrefix = SourcePrefix::Unix;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn id(cookie: &str) -> &str {
        cookie.split([';', '=']).nth(1).unwrap()
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let sessions = Sessions::default();
        let session = sessions.begin(Token::testing("eyes"), HERE).unwrap();
        let other = sessions.begin(Token::testing("eyes"), HERE).unwrap();
        assert_ne!(session.id, other.id);
        let line = session.cookie("evenkeel-9900", true);
        let attributes = "; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200; Secure";
        assert!(line.ends_with(attributes), "{line}");
        let text = format!("a=b; evenkeel-9900={}; c=d", id(&line));
        let found = sessions.find((&headers("cookie", &text), HERE), "evenkeel-9900");
        assert!(Arc::ptr_eq(&found.unwrap(), &session));
        let elsewhere = SourcePrefix::V4([192, 0, 2, 1]);
        let found = sessions.find((&headers("cookie", &text), elsewhere), "evenkeel-9900");
        assert!(found.is_none(), "a cookie of somebody else's");
        let behind = format!("evenkeel-9900=foreign; {text}");
        let found = sessions.find((&headers("cookie", &behind), HERE), "evenkeel-9900");
        assert!(found.is_some(), "a neighbour's cookie goes before");
        let wrong = format!("evenkeel-9901={}", id(&line));
        for text in [wrong.as_str(), "evenkeel-9900=", "evenkeel-9900", "x"] {
            let found = sessions.find((&headers("cookie", text), HERE), "evenkeel-9900");
            assert!(found.is_none(), "{text}");
        }
        sessions.end(&session);
        assert!(!sessions.has(&session) && sessions.has(&other));
        let found = sessions.find((&headers("cookie", &text), HERE), "evenkeel-9900");
        assert!(found.is_none());
    }

    #[test]
    fn the_oldest_session_ends_for_one_too_many() {
        let sessions = Sessions::default();
        let all: Vec<_> = (0..=MAX_SESSIONS)
            .map(|_| sessions.begin(Token::testing("eyes"), HERE).unwrap())
            .collect();
        assert!(!sessions.has(&all[0]) && sessions.has(&all[1]));
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
    }

    #[test]
    fn many_logins_end_the_sessions_of_their_own_token() {
        let sessions = Sessions::default();
        let hands = sessions.begin(Token::testing("hands"), HERE).unwrap();
        for _ in 0..2 * MAX_SESSIONS {
            sessions.begin(Token::testing("eyes"), HERE).unwrap();
        }
        assert!(sessions.has(&hands));
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
    }

    #[test]
    fn a_change_needs_the_value_of_its_session() {
        let sessions = Sessions::default();
        let session = sessions.begin(Token::testing("hands"), HERE).unwrap();
        let other = sessions.begin(Token::testing("hands"), HERE).unwrap();
        assert!(
            session
                .check_csrf(&headers(CSRF_HEADER, &session.csrf))
                .is_ok()
        );
        for wrong in [other.csrf.as_str(), "", &session.id] {
            assert!(session.check_csrf(&headers(CSRF_HEADER, wrong)).is_err());
        }
        assert!(session.check_csrf(&HeaderMap::new()).is_err());
    }
}

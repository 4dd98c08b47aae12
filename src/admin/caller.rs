//! Caller: by which right a request is made. Found once, and asked again while a stream lasts.

use std::sync::Arc;

use http::HeaderMap;

use super::guard::AdminGuard;
use super::reply::ApiError;
use super::rules;
use super::sessions::{BrowserSession, Sessions};
use super::tokens::{Token, TokenHolder};
use crate::base::source_prefix::SourcePrefix;

#[derive(Clone)]
pub(super) enum Caller {
    /// The endpoint asks for no token.
    Anyone,
    Bearer(Arc<Token>),
    Browser(Arc<BrowserSession>),
}

impl Caller {
    /// Finds the caller of a request: a bearer token goes before a cookie.
    ///
    /// # Errors
    /// A token is required, and there is none or a wrong one.
    pub(super) fn of(
        guard: &AdminGuard,
        sessions: &Sessions,
        (headers, source): (&HeaderMap, SourcePrefix),
    ) -> Result<Caller, ApiError> {
        if guard.tokens.is_empty() {
            return Ok(Caller::Anyone);
        }
        if let Some(given) = rules::bearer(headers)? {
            let token = guard.tokens.of_secret(given);
            let wrong = || ApiError::unauthorized("the bearer token is wrong");
            return token.map(Caller::Bearer).ok_or_else(wrong);
        }
        let session = sessions.find((headers, source), &guard.cookie);
        let caller = session.map(Caller::Browser);
        let caller = caller.filter(|caller| caller.is_still(guard, sessions));
        caller.ok_or_else(|| {
            let message = "a token is required: send \"Authorization: Bearer TOKEN\"";
            ApiError::unauthorized(message)
        })
    }

    /// Whether the right holds under this guard, which may be a newer one.
    pub(super) fn is_still(&self, guard: &AdminGuard, sessions: &Sessions) -> bool {
        match self {
            Caller::Anyone => guard.tokens.is_empty(),
            Caller::Bearer(token) => guard.tokens.has(token),
            Caller::Browser(session) => guard.tokens.has(&session.token) && sessions.has(session),
        }
    }

    /// Holder of the token; `None` where none is asked for.
    pub(super) fn holder(&self) -> Option<&TokenHolder> {
        match self {
            Caller::Anyone => None,
            Caller::Bearer(token) => Some(&token.holder),
            Caller::Browser(session) => Some(&session.token.holder),
        }
    }

    /// Requires the CSRF value of a browser's change.
    ///
    /// # Errors
    /// The value is missing or wrong.
    pub(super) fn check_csrf(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        match self {
            Caller::Anyone | Caller::Bearer(_) => Ok(()),
            Caller::Browser(session) => session.check_csrf(headers),
        }
    }
}

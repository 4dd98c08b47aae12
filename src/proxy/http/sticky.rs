//! The sticky cookie of one request: read from the request, which the backend sees without it, and
//! set on the response when the client has none, comes to another backend, or should get a fresh
//! one.
//!
//! A cookie that is forged, expired, garbled, or of a backend that was removed is as none.

use std::sync::Arc;
use std::time::SystemTime;

use super::hash_key::cookies;
use crate::config::{self, Word};
use crate::pool::{Backend, Pool};
use crate::wire::http::RequestHead;
use crate::wire::sticky::{StickyCookie, StickyKeys};

/// A browser sends two of a name when their paths or domains differ; each one looked at costs an
/// HMAC.
const MAX_CANDIDATES: usize = 4;

/// Stickiness of one request to a pool with `sticky`, and the cookie that it brought.
pub(super) struct Stickiness {
    pool: Arc<str>,
    sticky: config::Sticky,
    keys: Arc<StickyKeys>,
    brought: Option<(StickyCookie, Arc<Backend>)>,
}

impl Stickiness {
    /// Reads the cookie; `None` where the pool has no stickiness.
    pub(super) fn of(
        pool: &Pool,
        settings: &config::Pool,
        head: RequestHead<'_>,
    ) -> Option<Stickiness> {
        let sticky = settings.sticky.clone()?;
        let keys = pool.sticky_keys()?;
        let now = now();
        let genuine =
            candidates(head, &sticky.cookie).find_map(|value| keys.open(pool.name(), value, now));
        let brought = genuine.and_then(|opened| {
            let backend = pool.find(|name| keys.is_for(&opened, name))?;
            Some((opened, backend))
        });
        Some(Stickiness {
            pool: Arc::clone(pool.name()),
            sticky,
            keys,
            brought,
        })
    }

    /// The backend where the client was.
    pub(super) fn preferred(&self) -> Option<Arc<Backend>> {
        let (_, backend) = self.brought.as_ref()?;
        Some(Arc::clone(backend))
    }

    /// The value of `Set-Cookie` for the response of `backend`, if the cookie is new or due.
    pub(super) fn set_cookie(&self, backend: &Arc<Backend>) -> Option<String> {
        let now = now();
        if !self.is_due(backend, now) {
            return None;
        }
        let expires = now.saturating_add(self.sticky.ttl.as_secs());
        let cookie = self.keys.seal(&self.pool, backend.name(), expires)?;
        Some(with_attributes(&self.sticky, &cookie))
    }

    fn is_due(&self, backend: &Arc<Backend>, now: u64) -> bool {
        let Some((opened, _)) = self
            .brought
            .as_ref()
            .filter(|(_, brought)| Arc::ptr_eq(brought, backend))
        else {
            return true;
        };
        let (left, ttl) = (
            opened.expires.saturating_sub(now),
            self.sticky.ttl.as_secs(),
        );
        // Twice the time: `ttl` was lowered. Less is another balancer's clock.
        let old =
            opened.needs_renewal() || left.saturating_mul(2) < ttl || left > ttl.saturating_mul(2);
        // Of a draining backend it runs out, or the drain would never end.
        old && backend.takes_new()
    }
}

fn with_attributes(sticky: &config::Sticky, cookie: &str) -> String {
    let same_site = match sticky.same_site.word() {
        "none" => "None",
        "strict" => "Strict",
        _ => "Lax",
    };
    let secure = if sticky.secure { "; Secure" } else { "" };
    format!(
        "{}={cookie}; Path=/; Max-Age={}; HttpOnly; SameSite={same_site}{secure}",
        sticky.cookie,
        sticky.ttl.as_secs()
    )
}

/// The cookies that may be ours.
fn candidates<'a>(head: RequestHead<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    cookies(head, name).take(MAX_CANDIDATES)
}

/// Seconds since 1970: balancers compare the expiry with each other.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OnDrain, SameSite};
    use crate::wire::http::Edits;
    use crate::wire::http::testing::SampleRequest;
    use std::time::Duration;

    fn taken(cookies: &[&str]) -> (Vec<String>, Vec<String>) {
        let fields: Vec<_> = cookies.iter().map(|cookie| ("Cookie", *cookie)).collect();
        let request = SampleRequest::get("/", &fields);
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let found = candidates(request.head(), "evenkeel");
        let found = found.map(text).collect();
        let mut edits = Edits::default();
        edits.remove_cookie("evenkeel");
        let left = request.forwarded(&edits).into_iter();
        (found, left.map(|(_, value)| value).collect())
    }

    #[test]
    fn ours_is_taken_out_and_the_others_stay() {
        for (cookies, found, left) in [
            (&["a=1; evenkeel=x; b=2"][..], &["x"][..], &["a=1; b=2"][..]),
            (&["evenkeel=x"], &["x"], &[]),
            (&["a=1;b=2;", "evenkeel=x; c"], &["x"], &["a=1;b=2;", "c"]),
            (
                &["xevenkeel=1; evenkeelx=2; evenkeel"],
                &[],
                &["xevenkeel=1; evenkeelx=2; evenkeel"],
            ),
            (&["evenkeel=x; evenkeel=y"], &["x", "y"], &[]),
            (&["evenkeel=; a=evenkeel=z"], &[""], &["a=evenkeel=z"]),
            (&[], &[], &[]),
        ] {
            let (seen, rest) = taken(cookies);
            assert_eq!(
                (seen, rest),
                (
                    found.iter().map(ToString::to_string).collect(),
                    left.iter().map(ToString::to_string).collect()
                ),
                "{cookies:?}"
            );
        }
    }

    #[test]
    fn a_head_full_of_them_costs_a_few_looks() {
        let many = "evenkeel=x; ".repeat(1_000);
        assert_eq!(taken(&[&many]).0.len(), MAX_CANDIDATES);
    }

    #[test]
    fn the_cookie_has_its_attributes() {
        let mut sticky = config::Sticky {
            cookie: "evenkeel".to_owned(),
            key_file: "k".into(),
            ttl: Duration::from_secs(60),
            same_site: SameSite::Lax,
            secure: false,
            on_drain: OnDrain::Keep,
        };
        assert_eq!(
            with_attributes(&sticky, "v"),
            "evenkeel=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"
        );
        sticky.same_site = SameSite::None;
        sticky.secure = true;
        assert!(with_attributes(&sticky, "v").ends_with("; SameSite=None; Secure"));
    }
}

//! `sticky = {...}`: the signed cookie that brings a client back to its backend.

use std::path::PathBuf;
use std::time::Duration;

use super::balance::Balance;
use crate::config::declare::Parts;
use crate::config::hash_key::{HashKey, token};
use crate::config::reader::TableReader;
use crate::config::spec::{YEAR, seconds, text, time};
use crate::config::value_types;

table! {
    /// A signed cookie that brings a client back to its backend. A genuine one is honoured by every
    /// balancer that has the same keys and pool.
    pub struct Sticky {
        /// Name of the cookie. Pools that serve one host need names of their own, or each
        /// overwrites the other's.
        ///
        /// Told apart from the application's own.
        cookie: String = text("a cookie's name: letters, digits and !#$%&'*+-.^_`|~"),
            default("evenkeel".to_owned()) by value_types::text(read_cookie);
        /// File of one to three keys, one in base64 per line, as `openssl rand -base64 32` makes
        /// it. The first signs, all are honoured. Followed while `global.watch` is on, and read at
        /// every reload.
        key_file: PathBuf = text("the path of a file"), required;
        /// Lifetime of a cookie; it is renewed once half of it has passed.
        ///
        /// A working day and the night: a client that comes back the next day may start anew.
        ttl: Duration = time(1_000, YEAR), default(seconds(86_400));
        /// Whether pages of other sites send the cookie; "none" needs `secure`.
        ///
        /// Browsers take a cookie for that if it says nothing.
        same_site: SameSite, default(SameSite::Lax);
        /// Whether the client keeps and sends the cookie over TLS only.
        ///
        /// Over plain HTTP a browser drops a cookie that has it; the cookie itself is no secret.
        secure: bool, default(false);
        /// Clients of a draining backend: they go on there until the cookie expires (`keep`), or
        /// another backend is picked (`repick`).
        ///
        /// A session that begins with polling lives in one node's memory: elsewhere it is unknown.
        on_drain: OnDrain, default(OnDrain::Keep);
    }
    rules refuse_dropped;
}

words! {
    /// `SameSite` of the cookie.
    pub enum SameSite {
        Lax = "lax",
        Strict = "strict",
        None = "none",
    }
}

words! {
    /// Handling of a client whose backend is draining, or has a weight of 0.
    pub enum OnDrain {
        /// The client goes on there until its cookie expires, which is not renewed.
        Keep = "keep",
        /// Another backend is picked.
        Repick = "repick",
    }
}

fn read_cookie(name: &str) -> Result<String, &'static str> {
    token(name).map(str::to_owned)
}

/// Refuses cookies that browsers drop.
fn refuse_dropped(table: &TableReader<'_>, sticky: &mut Parts<Sticky>) {
    if sticky.secure == Some(true) {
        return;
    }
    if sticky.same_site == Some(SameSite::None) {
        let why = "browsers drop such a cookie without `secure = true`";
        table.conflict("same_site", why);
    }
    let prefixed = |name: &String| name.starts_with("__Secure-") || name.starts_with("__Host-");
    if sticky.cookie.as_ref().is_some_and(prefixed) {
        let why = "browsers drop a cookie of such a name without `secure = true`";
        table.conflict("cookie", why);
    }
}

/// Refuses a cookie of ours in place of the application's.
pub(super) fn refuse_hashed(
    pool: &TableReader<'_>,
    sticky: Option<&Sticky>,
    balance: Option<&Balance>,
) {
    if let (Some(sticky), Some(Balance::Hash(HashKey::Cookie(hashed)))) = (sticky, balance)
        && *hashed == sticky.cookie
    {
        let why = "`hash_key` names the same cookie: name a cookie of the application";
        pool.table("sticky").conflict("cookie", why);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::OnDrain;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    fn sticky(keys: &str) -> String {
        web(&format!("sticky = {{ key_file = \"k\"{keys} }}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let at = |key: &'static str, keys: &str, fault| (sticky(keys), key, fault);
        each_refused([
            (
                web("sticky = {}"),
                "pool.p.sticky.key_file",
                ErrorKind::Missing,
            ),
            (web("sticky = true"), "pool.p.sticky", ErrorKind::Type),
            at(
                "pool.p.sticky.cookie",
                ", cookie = \"a b\"",
                ErrorKind::Value,
            ),
            at("pool.p.sticky.cookie", ", cookie = \"\"", ErrorKind::Value),
            at(
                "pool.p.sticky.cookie",
                ", cookie = \"__Host-a\"",
                ErrorKind::Conflict,
            ),
            at("pool.p.sticky.ttl", ", ttl = \"10ms\"", ErrorKind::Value),
            at(
                "pool.p.sticky.same_site",
                ", same_site = \"Lax\"",
                ErrorKind::Value,
            ),
            at(
                "pool.p.sticky.same_site",
                ", same_site = \"none\"",
                ErrorKind::Conflict,
            ),
            at(
                "pool.p.sticky.on_drain",
                ", on_drain = \"move\"",
                ErrorKind::Value,
            ),
            (
                web(
                    "balance = \"hash\"\nhash_key = \"cookie:evenkeel\"\nsticky = { key_file = \"k\", cookie = \"evenkeel\" }",
                ),
                "pool.p.sticky.cookie",
                ErrorKind::Conflict,
            ),
            (
                pool("sticky = { key_file = \"k\" }"),
                "pool.p.sticky",
                ErrorKind::Conflict,
            ),
        ]);
    }

    #[test]
    fn a_key_file_is_all_it_needs() {
        let config = right(&sticky(""));
        let expected = Sticky {
            cookie: "evenkeel".to_owned(),
            key_file: Path::new("/etc/evenkeel/k").to_owned(),
            ttl: seconds(86_400),
            same_site: SameSite::Lax,
            secure: false,
            on_drain: OnDrain::Keep,
        };
        assert_eq!(config.pools["p"].sticky, Some(expected));
        right(&sticky(
            ", same_site = \"none\", secure = true, cookie = \"__Host-a\"",
        ));
    }
}

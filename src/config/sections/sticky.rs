//! `sticky = {...}`: the signed cookie that brings a client back to its backend.

use super::super::defaults;
use super::super::hash_key::token;
use super::super::keys::{Absent, Kind, Section, YEAR, key, time};
use super::super::model::{Balance, HashKey, SameSite, Sticky};
use super::super::table::Table;
use super::super::words::words;

pub static STICKY: Section = Section {
    doc: "A signed cookie that brings a client back to its backend. A genuine one is honoured by every balancer that has the same keys and pool.",
    keys: &[
        key(
            "cookie",
            Kind::Text("a cookie's name: letters, digits and !#$%&'*+-.^_`|~"),
            Absent::Text(defaults::STICKY_COOKIE),
            "Its name. Pools that serve one host need names of their own, or each overwrites the other's.",
        ),
        key(
            "key_file",
            Kind::Text("the path of a file"),
            Absent::Required,
            "File of one to three keys, one in base64 per line, as `openssl rand -base64 32` makes it; the first signs, all are honoured. Read at start and at reload.",
        ),
        key(
            "ttl",
            time(1_000, YEAR),
            Absent::Time(defaults::STICKY_TTL),
            "How long a cookie is good; it is renewed once half of it has passed.",
        ),
        key(
            "same_site",
            Kind::Word(words::<SameSite>),
            Absent::Text(defaults::STICKY_SAME_SITE),
            "Whether pages of other sites send it; \"none\" needs `secure`.",
        ),
        key(
            "secure",
            Kind::Flag,
            Absent::Flag(defaults::STICKY_SECURE),
            "The client keeps and sends it over TLS only.",
        ),
        key(
            "on_drain",
            Kind::Word(words::<super::super::model::OnDrain>),
            Absent::Text(defaults::STICKY_ON_DRAIN),
            "A client of a draining backend goes on there until its cookie expires, or another one is picked.",
        ),
    ],
};

pub fn decode(table: &Table<'_>, balance: Option<&Balance>) -> Option<Sticky> {
    let cookie = table.text_by("cookie", |name| token(name).map(str::to_owned));
    let (same_site, secure) = (table.maybe_word("same_site"), table.flag("secure"));
    if same_site == Some(SameSite::None) && !secure {
        table.conflict(
            "same_site",
            "browsers drop such a cookie without `secure = true`",
        );
    }
    let prefixed = |name: &String| name.starts_with("__Secure-") || name.starts_with("__Host-");
    if cookie.as_ref().is_some_and(prefixed) && !secure {
        table.conflict(
            "cookie",
            "browsers drop a cookie of such a name without `secure = true`",
        );
    }
    if let (Some(Balance::Hash(HashKey::Cookie(hashed))), Some(cookie)) = (balance, &cookie)
        && hashed == cookie
    {
        table.conflict(
            "cookie",
            "`hash_key` names the same cookie: it needs one of the application",
        );
    }
    Some(Sticky {
        key_file: table.path("key_file")?,
        ttl: table.time("ttl"),
        secure,
        cookie: cookie?,
        same_site: same_site?,
        on_drain: table.maybe_word("on_drain")?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::error::Fault;
    use super::super::super::model::OnDrain;
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

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
            (web("sticky = {}"), "pool.p.sticky.key_file", Fault::Missing),
            (web("sticky = true"), "pool.p.sticky", Fault::Type),
            at("pool.p.sticky.cookie", ", cookie = \"a b\"", Fault::Value),
            at("pool.p.sticky.cookie", ", cookie = \"\"", Fault::Value),
            at(
                "pool.p.sticky.cookie",
                ", cookie = \"__Host-a\"",
                Fault::Conflict,
            ),
            at("pool.p.sticky.ttl", ", ttl = \"10ms\"", Fault::Value),
            at(
                "pool.p.sticky.same_site",
                ", same_site = \"Lax\"",
                Fault::Value,
            ),
            at(
                "pool.p.sticky.same_site",
                ", same_site = \"none\"",
                Fault::Conflict,
            ),
            at(
                "pool.p.sticky.on_drain",
                ", on_drain = \"move\"",
                Fault::Value,
            ),
            (
                web(
                    "balance = \"hash\"\nhash_key = \"cookie:evenkeel\"\nsticky = { key_file = \"k\", cookie = \"evenkeel\" }",
                ),
                "pool.p.sticky.cookie",
                Fault::Conflict,
            ),
            (
                pool("sticky = { key_file = \"k\" }"),
                "pool.p.sticky",
                Fault::Conflict,
            ),
        ]);
    }

    #[test]
    fn a_key_file_is_all_it_needs() {
        let config = right(&sticky(""));
        let expected = Sticky {
            cookie: "evenkeel".to_owned(),
            key_file: Path::new("/etc/evenkeel/k").to_owned(),
            ttl: defaults::STICKY_TTL,
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

//! `resume = {...}` of a pool: a WebSocket goes on with another backend when its own goes.

use std::sync::Arc;

use super::super::defaults;
use super::super::keys::{Absent, Kind, Section, key, size, time};
use super::super::model::Resume;
use super::super::table::Table;

const MAX_BUFFER: (u64, u64) = (1024, 16 << 20);
pub(super) const HEADER: &str = "a header's name that no other part of the request has";

/// Fields that the handshake itself, or the balancer, sets.
const TAKEN: [&str; 16] = [
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
];
const TAKEN_PREFIXES: [&str; 5] = ["sec-", "x-forwarded-", "x-client-", "proxy-", "http2-"];

pub static RESUME: Section = Section {
    doc: "When the backend of a WebSocket goes, the client's socket stays open and another backend takes the session. Messages that were under way to the old one may be lost. It needs backends to which any of them may bring its client's session.",
    keys: &[
        key(
            "enabled",
            Kind::Flag,
            Absent::Flag(defaults::RESUME_ENABLED),
            "Without it the table has no effect.",
        ),
        key(
            "max_buffer",
            size(MAX_BUFFER.0, MAX_BUFFER.1),
            Absent::Size(defaults::RESUME_MAX_BUFFER),
            "Bytes of a client that are held meanwhile; more end the session with Close 1012.",
        ),
        key(
            "timeout",
            time(100, 600_000),
            Absent::Time(defaults::RESUME_TIMEOUT),
            "Longest time without a backend; then the session ends with Close 1012.",
        ),
        key(
            "header",
            Kind::Text(HEADER),
            Absent::Text(defaults::RESUME_HEADER),
            "Tells the next backend how many there were before, the name of the latest, and what may be lost.",
        ),
    ],
};

/// `None`: something is wrong; `Some(None)`: it is switched off.
pub fn decode(table: &Table<'_>) -> Option<Option<Resume>> {
    let header = table.text_by("header", header);
    let resume = Resume {
        max_buffer: table.size("max_buffer"),
        timeout: table.time("timeout"),
        header: header?,
    };
    Some(table.flag("enabled").then_some(resume))
}

/// One field cannot tell two things.
pub(super) fn refuse_same(
    pool: &Table<'_>,
    name_header: Option<&str>,
    resume: Option<&Option<Option<Resume>>>,
) {
    let resume = resume.and_then(|resume| resume.as_ref()?.as_ref());
    if resume.is_some_and(|resume| name_header == Some(&*resume.header)) {
        let why = "`resume.header` has this name already; each needs its own";
        pool.conflict("name_header", why);
    }
}

pub(super) fn header(name: &str) -> Result<Arc<str>, &'static str> {
    let name = name.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_taken =
        TAKEN.contains(&&*name) || TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    match !name.is_empty() && name.bytes().all(is_token) && !is_taken {
        true => Ok(name.into()),
        false => Err(HEADER),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    #[test]
    fn an_empty_table_has_the_defaults_and_none_is_off() {
        let resume = |keys: &str| right(&web(keys)).pools["p"].resume.clone();
        let expected = Resume {
            max_buffer: 64 << 10,
            timeout: Duration::from_secs(10),
            header: "evenkeel-resume".into(),
        };
        assert_eq!(resume("resume = {}"), Some(expected));
        assert_eq!(resume("resume = { enabled = false }"), None);
        assert_eq!(resume(""), None);
    }

    #[test]
    fn a_header_that_others_set_is_refused() {
        let with = |name: &str| web(&format!("resume = {{ header = \"{name}\" }}"));
        let at = "pool.p.resume.header";
        each_refused(
            [
                "",
                "a b",
                "Host",
                "Sec-WebSocket-Key",
                "X-Forwarded-For",
                "Cookie",
            ]
            .map(|name| (with(name), at, Fault::Value)),
        );
    }

    #[test]
    fn the_name_of_a_backend_has_a_field_of_its_own() {
        let named = |keys: &str| right(&web(keys)).pools["p"].name_header.clone();
        let name = named("name_header = \"X-Backend\"");
        assert_eq!(name.as_deref(), Some("x-backend"));
        assert_eq!(named(""), None);
        let at = "pool.p.name_header";
        let both = "name_header = \"x-note\"\nresume = { header = \"X-Note\" }";
        each_refused([
            (web("name_header = \"Host\""), at, Fault::Value),
            (web(both), at, Fault::Conflict),
            (pool("name_header = \"X-Backend\""), at, Fault::Conflict),
        ]);
    }

    #[test]
    fn it_needs_frames_that_are_followed() {
        each_refused([(pool("resume = {}"), "pool.p.resume", Fault::Conflict)]);
    }
}

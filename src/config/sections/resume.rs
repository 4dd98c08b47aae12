//! `resume = {...}` of a pool: a WebSocket goes on with another backend when its own goes.

use std::sync::Arc;

use super::super::defaults;
use super::super::error::Fault;
use super::super::keys::{Absent, Kind, RATE_MAX, Section, key, rate, size, time};
use super::super::model::{Resume, ResumeOn};
use super::super::table::Table;
use super::super::words::{Loss, words};

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
            "on",
            Kind::Words(words::<Loss>),
            Absent::Texts(defaults::RESUME_ON),
            "What counts as the loss of a backend: it is drained or removed; it is down; it says Close 1001, 1012 or 1013; at least 3 and 10 % of its sessions end without a Close within `settle`; `eof`: every end without a Close, kicks among them.",
        ),
        key(
            "settle",
            time(10, 10),
            Absent::Time(defaults::RESUME_SETTLE),
            "A session that its backend ended without a Close is held for so long, until it is known whether that was a loss. A client's messages wait for at most as long before a backend that answers is told Close.",
        ),
        key(
            "max",
            rate(RATE_MAX),
            Absent::Rate(defaults::RESUME_MAX),
            "A session loses so many backends in a time, moves of ours not counted; one more ends it with Close 1012.",
        ),
        key(
            "max_buffer",
            size(MAX_BUFFER.0, MAX_BUFFER.1),
            Absent::Size(defaults::RESUME_MAX_BUFFER),
            "Bytes of a client that are held meanwhile; more are left in the kernel, and the client waits.",
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
pub fn decode(table: &Table<'_>) -> Option<Option<Arc<Resume>>> {
    let header = table.text_by("header", header);
    if let Some(entry) = table.entry("on").filter(|entry| entry.is_empty_list()) {
        entry.refuse(
            Fault::Value,
            "nothing is a loss; `enabled = false` turns the table off",
        );
    }
    let resume = Resume {
        on: on(&table.words("on")),
        settle: table.time("settle"),
        max: table.maybe_rate("max")?,
        max_buffer: table.size("max_buffer"),
        timeout: table.time("timeout"),
        header: header?,
    };
    Some(table.flag("enabled").then(|| Arc::new(resume)))
}

fn on(losses: &[Loss]) -> ResumeOn {
    let has = |loss| losses.contains(&loss);
    ResumeOn {
        drain: has(Loss::Drain),
        down: has(Loss::Down),
        close_code: has(Loss::CloseCode),
        burst: has(Loss::Burst),
        eof: has(Loss::Eof),
    }
}

/// One field cannot tell two things.
pub(super) fn refuse_same(pool: &Table<'_>, name_header: Option<&str>, resume: Option<&Resume>) {
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
        let expected = Arc::new(Resume {
            on: ResumeOn {
                drain: true,
                down: true,
                close_code: true,
                burst: true,
                eof: false,
            },
            settle: Duration::from_millis(500),
            max: "3/m".parse().unwrap(),
            max_buffer: 64 << 10,
            timeout: Duration::from_secs(10),
            header: "evenkeel-resume".into(),
        });
        assert_eq!(resume("resume = {}"), Some(expected));
        assert_eq!(resume("resume = { enabled = false }"), None);
        assert_eq!(resume(""), None);
    }

    #[test]
    fn losses_are_named_and_there_is_at_least_one() {
        let on = |keys: &str| right(&web(keys)).pools["p"].resume.clone().unwrap().on;
        let only = ResumeOn {
            eof: true,
            ..ResumeOn::default()
        };
        assert_eq!(on("resume = { on = [\"eof\"] }"), only);
        let at = "pool.p.resume.on";
        each_refused([(web("resume = { on = [] }"), at, Fault::Value)]);
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

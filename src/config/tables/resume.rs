//! `resume = {...}` of a pool: a WebSocket goes on with another backend when its own goes.

use std::sync::Arc;
use std::time::Duration;

use crate::base::rate::Rate;
use crate::config::declare::{FromValue, InParts};
use crate::config::defaults::RESUME_HEADER;
use crate::config::error::ErrorKind;
use crate::config::reader::TableReader;
use crate::config::spec::{seconds, size, text, time};
use crate::config::value::ValueReader;
use crate::config::value_types;

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

table! {
    /// When the backend of a WebSocket goes, the client's socket stays open and another backend
    /// takes the session. Messages that were under way to the old one may be lost. It needs
    /// backends to which any of them may bring its client's session.
    #[derive(Eq)]
    pub struct Resume {
        /// Losses of a backend: it is drained or removed (`drain`); it is `down`; it says Close
        /// 1001, 1012 or 1013 (`close_code`); at least 3 and 10 % of its sessions end without a
        /// Close within `settle` (`burst`); every end without a Close, kicks among them (`eof`).
        ///
        /// Many servers kick a client by a mere FIN: by itself that is no loss.
        on: ResumeOn, default(ResumeOn {
            drain: true, down: true, close_code: true, burst: true, eof: false
        }) by losses;
        /// Time that a session is held whose backend ended it without a Close, until it is known
        /// whether that was a loss. A client's messages wait for at most as long before a backend
        /// that answers is told Close.
        ///
        /// A process that dies ends all of its sessions within a few milliseconds; a client hardly
        /// notices half a second.
        settle: Duration = time(10, 10), default(Duration::from_millis(500));
        /// Backends that one session may lose in a time, moves of ours not counted. One more ends
        /// it with Close 1012.
        ///
        /// Nodes that crash one after the other take a session along once or twice; one that keeps
        /// ending its sessions would do so for ever.
        max: Rate, default(Rate::per_minute(3));
        /// Bytes of a client that are held between two backends. More are left in the kernel, and
        /// the client waits.
        ///
        /// A client that waits for an answer sends a few messages at most; a thousand sessions hold
        /// 64 MB at the very worst.
        max_buffer: u32 = size(1024, 16 << 20), default(64 << 10);
        /// Longest time without a backend; then the session ends with Close 1012.
        ///
        /// Longer than a live backend takes, and not so long that a client's own timeouts begin to
        /// fire.
        timeout: Duration = time(100, 600_000), default(seconds(10));
        /// Field in the handshake with the next backend: how many there were before, the name of
        /// the latest, and what may be lost.
        header: Arc<str> = text(HEADER),
            default(RESUME_HEADER.to_ascii_lowercase().into()) by value_types::text(read_header);
    }
    parts {
        /// Whether the table has an effect.
        ///
        /// A table that stands there is wanted.
        enabled: bool, default(true);
    }
}

flags! {
    /// Losses of a backend. Any other end goes on to the client, as without `resume`.
    pub struct ResumeOn {
        /// A drain, a move, maintenance, or its removal.
        drain,
        /// A failed check, a refused connect, or a ping without an answer.
        down,
        /// A Close by which it goes away: 1001, 1012, 1013.
        close_code,
        /// Many of its sessions end at once without a Close.
        burst,
        /// Every end without a Close.
        eof,
    }
}

fn losses(value: &ValueReader<'_>) -> Option<ResumeOn> {
    if value.is_empty_list() {
        value.refuse(
            ErrorKind::Value,
            "nothing is a loss; `enabled = false` turns the table off",
        );
    }
    FromValue::read(value)
}

/// `Some(None)`: the table is switched off.
pub(super) fn resume(value: &ValueReader<'_>) -> Option<Option<Arc<Resume>>> {
    let parts = Resume::parts(&TableReader::within(value)?);
    let enabled = parts.enabled?;
    Resume::whole(parts).map(|resume| enabled.then(|| Arc::new(resume)))
}

/// Refuses one field that would tell two things.
pub(super) fn refuse_same(
    pool: &TableReader<'_>,
    name_header: Option<&str>,
    resume: Option<&Resume>,
) {
    if resume.is_some_and(|resume| name_header == Some(&*resume.header)) {
        let why = "`resume.header` has this name already; each needs a name of its own";
        pool.conflict("name_header", why);
    }
}

pub(super) fn read_header(name: &str) -> Result<Arc<str>, &'static str> {
    let name = name.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_taken =
        TAKEN.contains(&&*name) || TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if name.is_empty() || !name.bytes().all(is_token) || is_taken {
        return Err(HEADER);
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

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
        each_refused([(web("resume = { on = [] }"), at, ErrorKind::Value)]);
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
            .map(|name| (with(name), at, ErrorKind::Value)),
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
            (web("name_header = \"Host\""), at, ErrorKind::Value),
            (web(both), at, ErrorKind::Conflict),
            (pool("name_header = \"X-Backend\""), at, ErrorKind::Conflict),
        ]);
    }

    #[test]
    fn it_needs_frames_that_are_followed() {
        each_refused([(pool("resume = {}"), "pool.p.resume", ErrorKind::Conflict)]);
    }
}

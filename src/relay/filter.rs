//! Selection of live connections by an operator or a job.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::observe::ConnectionRecord;

/// Conditions on a live connection; all that are given must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub id: Option<u64>,
    pub listener: Option<String>,
    pub pool: Option<String>,
    pub backend: Option<String>,
    /// The client's network. A unix client is in none.
    pub client: Option<IpNet>,
    /// Value by which the session is known.
    pub tag: Option<String>,
    /// The requested host; a port does not count.
    pub host: Option<String>,
    /// Without a query; with a `*` at its end all that begin so.
    pub path: Option<String>,
    pub sni: Option<String>,
    /// The client's certificate has this subject, or this as a part of it.
    pub subject: Option<String>,
    /// Since accept, at least.
    pub min_age: Duration,
    /// Without a byte either way, at least.
    pub min_idle: Duration,
}

impl Filter {
    pub(super) fn fits(&self, record: &ConnectionRecord, idle: Duration) -> bool {
        let Self {
            id,
            listener,
            pool,
            backend,
            client,
            tag,
            host,
            path,
            sni,
            subject,
            min_age,
            min_idle,
        } = self;
        let assignment = record.assignment();
        id.is_none_or(|id| id == record.id)
            && is_named(listener, Some(record.listener()))
            && is_named(pool, assignment.map(|(pool, _)| pool))
            && is_named(backend, assignment.map(|(_, backend)| backend))
            && client
                .is_none_or(|network| record.client.ip().is_some_and(|ip| network.contains(&ip)))
            && holds(tag, record.tag(), |wanted, found| wanted == found)
            && holds(host, record.host(), is_host)
            && holds(path, record.path(), is_path)
            && holds(sni, record.sni(), str::eq_ignore_ascii_case)
            && holds(subject, record.client_subject(), has_part)
            && idle >= *min_idle
            && (min_age.is_zero() || record.age() >= *min_age)
    }
}

fn is_named(wanted: &Option<String>, name: Option<&Arc<str>>) -> bool {
    holds(wanted, name.map(|name| &**name), |wanted, found| {
        wanted == found
    })
}

fn holds(wanted: &Option<String>, found: Option<&str>, fits: fn(&str, &str) -> bool) -> bool {
    let wanted = wanted.as_deref();
    wanted.is_none_or(|wanted| found.is_some_and(|found| fits(wanted, found)))
}

/// A session's host is kept without its port, so that of a filter does not count.
fn is_host(wanted: &str, found: &str) -> bool {
    let bare = match wanted.rsplit_once(':') {
        // Not within the brackets of an IPv6 address.
        Some((host, port)) if !port.contains(']') => host,
        _ => wanted,
    };
    wanted.eq_ignore_ascii_case(found) || bare.eq_ignore_ascii_case(found)
}

fn is_path(wanted: &str, found: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => found.starts_with(beginning),
        None => wanted == found,
    }
}

/// `CN=alice` of `CN=alice,O=Example`. A comma of a value stands behind a backslash (RFC 4514).
fn has_part(wanted: &str, subject: &str) -> bool {
    let mut is_escaped = false;
    let is_end = |letter| {
        let ends = letter == ',' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        ends
    };
    wanted == subject || subject.split(is_end).any(|part| part.trim() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_meant_whatever_its_port() {
        for host in ["a.example", "A.example", "a.example:81"] {
            assert!(is_host(host, "a.example"), "{host}");
        }
        assert!(is_host("[::1]", "[::1]") && is_host("[::1]:80", "[::1]"));
        assert!(!is_host("b.example", "a.example") && !is_host("example", "a.example"));
    }

    #[test]
    fn a_path_is_meant_whole_or_by_its_beginning() {
        assert!(is_path("/chat", "/chat") && !is_path("/chat", "/chat/room"));
        assert!(is_path("/chat/*", "/chat/room") && !is_path("/chat/*", "/chat"));
        assert!(is_path("*", ""));
    }

    #[test]
    fn a_subject_is_meant_whole_or_by_one_of_its_parts() {
        let subject = "CN=alice,O=Example\\, Ltd,L=a\\\\,C=de";
        for wanted in [subject, "CN=alice", "O=Example\\, Ltd", "L=a\\\\", "C=de"] {
            assert!(has_part(wanted, subject), "{wanted}");
        }
        for wanted in ["CN=al", "alice", "O=Example", "Ltd", "CN=alice,O=Ex"] {
            assert!(!has_part(wanted, subject), "{wanted}");
        }
    }
}

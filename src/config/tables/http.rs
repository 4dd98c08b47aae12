//! Keys of a pool for HTTP requests: connections that carry several, how long a write and a body
//! may take, and how large the head of an answer may be.

use std::time::Duration;

use super::socket::ProxyVersion;
use crate::base::head_limits::{HeadLimits, MAX_FIELDS};
use crate::config::reader::TableReader;
use crate::config::spec::{COUNT_MAX, DAY, HOUR, ValueKind, number, seconds, size, time};

/// A start line and a field fit into the least; the most is read into one buffer.
pub(super) const HEADER_SIZE: ValueKind = size(1 << 10, 256 << 10);
pub(super) const HEADERS: ValueKind = number(1, MAX_FIELDS as u64);
/// Bytes a second: a gibibyte is more than any client is asked for.
const BODY_RATE_MAX: u64 = 1 << 30;

table! {
    /// HTTP requests to the backends of a pool, and their answers.
    #[derive(Copy, Eq)]
    pub struct Http: Default {
        /// Requests that may go on an idle connection of their backend: GET, HEAD and OPTIONS
        /// without a body with `safe`, none with `never`. All others have a connection of their
        /// own, which is not kept; so do requests with NTLM or Negotiate, and all in a pool with
        /// `send_proxy`.
        ///
        /// A backend may close an idle connection as a request comes, and only one of these may be
        /// sent again. NTLM and Negotiate authenticate a connection, not a request.
        reuse as "http_reuse": HttpReuse, default(HttpReuse::Safe);
        /// Time that an idle connection to a backend is kept.
        ///
        /// Below the 5 s after which Node and others close theirs, so that few requests meet a
        /// connection that is being closed.
        reuse_timeout as "http_reuse_timeout": Duration = time(100, HOUR), default(seconds(4));
        /// Idle connections that are kept for each backend; 0 = none.
        ///
        /// As many as Go's client keeps; each holds a place in the backend, too.
        max_idle_connections: usize = number(0, COUNT_MAX), default(100);
        /// Time without progress in writing a request to its backend, or an answer to its client;
        /// then the connection is closed. Not of WebSocket sessions, which have `idle_timeout`.
        ///
        /// As nginx's `send_timeout`: a peer that reads nothing for longer holds a connection and
        /// its buffers for nothing.
        send_timeout: Duration = time(100, DAY), default(seconds(60));
        /// Bytes a second that the body of a request must bring on average, over the time that it
        /// takes beyond `body_timeout`; a slower one is a 408; 0 = no such bound. Only time counts
        /// in which the client is waited for.
        ///
        /// As Kestrel's default: a client that sends a byte a minute would hold a backend's
        /// connection for days.
        min_body_rate: u64 = number(0, BODY_RATE_MAX), default(240);
        /// Longest head of an answer, from its status line to the empty line; a longer one is a
        /// 502.
        ///
        /// Backends set many and long cookies.
        max_header_size: usize = HEADER_SIZE, default(HeadLimits::RESPONSE.max_bytes);
        /// Most header fields of an answer; one with more is a 502.
        ///
        /// As many as a request may have.
        max_headers: usize = HEADERS, default(HeadLimits::RESPONSE.max_fields);
    }
}

words! {
    /// Requests that may go on an idle connection.
    pub enum HttpReuse {
        /// Those that may be sent again: GET, HEAD and OPTIONS without a body.
        Safe = "safe",
        Never = "never",
    }
}

impl Http {
    /// Limits of an answer's head.
    pub fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            max_bytes: self.max_header_size,
            max_fields: self.max_headers,
        }
    }
}

/// Refuses bounds of idle connections where none is kept. A default says nothing, as a file may
/// show every key, and neither does a second word for none.
pub(super) fn refuse_unkept(
    table: &TableReader<'_>,
    http: Option<&Http>,
    send_proxy: Option<ProxyVersion>,
) {
    let Some(http) = http else {
        return;
    };
    let why = if send_proxy.is_some() {
        "with `send_proxy` no connection is kept: its header names one client; leave it out"
    } else if http.reuse == HttpReuse::Never {
        "with `http_reuse = \"never\"` no connection is kept; leave it out"
    } else if http.max_idle_connections == 0 {
        "with `max_idle_connections = 0` no connection is kept; leave it out"
    } else {
        return;
    };
    let default = Http::default();
    if ![0, default.max_idle_connections].contains(&http.max_idle_connections) {
        table.conflict("max_idle_connections", why);
    }
    if http.reuse_timeout != default.reuse_timeout {
        table.conflict("http_reuse_timeout", why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn web(keys: &str) -> String {
        pool(keys).replace("\"tcp\"", "\"websocket\"")
    }

    fn http(keys: &str) -> Http {
        right(&web(keys)).pools["p"].http
    }

    #[test]
    fn each_wrong_value_is_refused() {
        for (key, wrong) in [
            ("http_reuse", "\"always\""),
            ("http_reuse_timeout", "\"99ms\""),
            ("http_reuse_timeout", "\"61m\""),
            ("max_idle_connections", "1_000_000_001"),
            ("send_timeout", "\"99ms\""),
            ("send_timeout", "\"25h\""),
            ("min_body_rate", "1_073_741_825"),
            ("max_header_size", "\"1023B\""),
            ("max_header_size", "\"257KiB\""),
            ("max_headers", "0"),
            ("max_headers", "1001"),
        ] {
            each_refused([(
                web(&format!("{key} = {wrong}")),
                &*format!("pool.p.{key}"),
                ErrorKind::Value,
            )]);
        }
    }

    #[test]
    fn the_bounds_themselves_are_right() {
        let most = http(
            "http_reuse = \"safe\"\nhttp_reuse_timeout = \"1h\"\nmax_idle_connections = 1_000_000_000\n\
             send_timeout = \"1d\"\nmin_body_rate = 1_073_741_824\nmax_header_size = \"256KiB\"\n\
             max_headers = 1000",
        );
        let limits = most.head_limits();
        assert_eq!((limits.max_bytes, limits.max_fields), (256 << 10, 1000));
        assert_eq!(most.send_timeout, seconds(DAY));
        assert_eq!(most.min_body_rate, BODY_RATE_MAX);
        let least = http(
            "http_reuse_timeout = \"100ms\"\nsend_timeout = \"100ms\"\nmin_body_rate = 0\n\
             max_header_size = \"1KiB\"\nmax_headers = 1",
        );
        assert_eq!(least.reuse_timeout, Duration::from_millis(100));
        assert_eq!(least.min_body_rate, 0);
        assert_eq!(least.head_limits().max_bytes, 1 << 10);
    }

    #[test]
    fn a_pool_that_says_nothing_keeps_connections_of_safe_requests() {
        let http = http("");
        assert_eq!(http, Http::default());
        assert_eq!(
            (http.reuse, http.reuse_timeout),
            (HttpReuse::Safe, seconds(4))
        );
        assert_eq!(http.max_idle_connections, 100);
        assert_eq!(http.head_limits(), HeadLimits::RESPONSE);
    }

    #[test]
    fn bounds_of_idle_connections_need_some() {
        let (time, number) = ("http_reuse_timeout = \"9s\"", "max_idle_connections = 9");
        let (at_time, at_number) = ("pool.p.http_reuse_timeout", "pool.p.max_idle_connections");
        for without in ["http_reuse = \"never\"", "send_proxy = \"v2\""] {
            each_refused([
                (
                    web(&format!("{without}\n{time}")),
                    at_time,
                    ErrorKind::Conflict,
                ),
                (
                    web(&format!("{without}\n{number}")),
                    at_number,
                    ErrorKind::Conflict,
                ),
            ]);
        }
        each_refused([(
            web(&format!("max_idle_connections = 0\n{time}")),
            at_time,
            ErrorKind::Conflict,
        )]);
        assert_eq!(http("max_idle_connections = 0").max_idle_connections, 0);
    }

    #[test]
    fn defaults_may_stand_where_no_connection_is_kept() {
        let shown = "http_reuse_timeout = \"4s\"\nmax_idle_connections = 100";
        for without in ["http_reuse = \"never\"", "send_proxy = \"v1\""] {
            http(&format!("{without}\n{shown}"));
        }
    }
}

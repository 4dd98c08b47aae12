//! `check = {...}`: active health checks of a pool.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::backend_tls::{CHECK_TLS, CheckTls, WantedTls, wanted_tls};
use super::check_expect;
use super::check_headers;
use super::check_kind::{self, CheckHeaders, CheckKind, CheckType, RedisRole};
use super::socket::ProxyVersion;
use crate::config::address::CheckAddress;
use crate::config::spec::{DAY, HOUR, ValueKind, number, percent, seconds, text, time};
use crate::config::value_types::{self, parsed};

/// Allowed for `send_binary` and its kin.
const HEX: &str = "bytes in hexadecimal, with or without spaces, such as \"00 0a ff\"";

table! {
    /// How each backend is checked.
    pub struct Check {
        /// Time between two checks of a backend.
        ///
        /// With `fall` a dead node is noticed within about 6 s.
        interval: Duration = time(100, DAY), default(seconds(2));
        /// Time limit of one whole check.
        ///
        /// A node that takes longer to answer a check will not serve users either.
        timeout: Duration = time(10, HOUR), default(seconds(2));
        /// Successes in a row that bring a backend up, once one has succeeded.
        ///
        /// One lucky answer of a struggling node is not enough.
        rise: u32 = number(1, 1_000), default(2);
        /// Failures in a row that take a backend down; of the first check one is enough.
        ///
        /// Two lost packets must not take a node out.
        fall: u32 = number(1, 1_000), default(3);
        /// Part of the interval by which each wait differs.
        ///
        /// Spreads the checks of many balancers over the interval.
        jitter_percent as "jitter": u8 = percent(0, 50), default(10);
        /// Port that is checked in place of the backend's.
        port: Option<u16> = number(1, 65_535), optional;
        /// Address that is checked in place of the backend's.
        address: Option<CheckAddress> =
            text("an IP address such as \"10.0.0.9\" or \"10.0.0.9:8080\""), optional by parsed;
    }
    parts {
        /// Kind of check: `tcp` connects, `http` wants a status, `websocket` a handshake, `expect`
        /// certain bytes, `redis` a PONG and a `role`.
        check_type as "type": CheckType, required;
        /// Time between two checks while the backend is down. Without it: `interval`.
        while_down as "down_interval": Option<Duration> = time(100, DAY), optional;
        /// Check over TLS: `true`, or a table of details. Without it: as the pool, and plain where
        /// `port` or `address` is given.
        own_tls as "tls": Option<WantedTls> = ValueKind::FlagOrTable(CHECK_TLS),
            optional by wanted_tls;
        /// Whether a check of a pool with `send_proxy` begins with a PROXY header of no client.
        /// Without it: yes, unless it has a `port` or `address` of its own.
        with_header as "send_proxy": Option<bool>, optional;
        /// Method of the request, of `http`.
        ///
        /// The answers to GET say most.
        method: String = text("an HTTP method such as \"GET\" or \"HEAD\""),
            default("GET".to_owned()) by value_types::text(check_kind::read_method);
        /// Path that is asked for, of `http` and `websocket`.
        ///
        /// Every server has it.
        path: String = text("a path that begins with \"/\"; it may have a query"),
            default("/".to_owned()) by value_types::text(check_kind::read_target);
        /// Value of the Host header, of `http` and `websocket`. Without it: the backend's address.
        host: Option<String> = text("a host name or an IP address, with or without a port"),
            optional by value_types::text(check_kind::read_host);
        /// Statuses that are a success, of `http` and `websocket`. Of `websocket` without it: 101;
        /// another one is a success without a handshake.
        ///
        /// Success and redirects, as HAProxy counts them.
        status: Vec<RangeInclusive<u16>> = ValueKind::Statuses, default(vec![200..=399])
            by check_kind::statuses;
        /// Further header fields of the request, of `http` and `websocket`, spelled as they are
        /// here, such as { Origin = "https://chat.example.org" }.
        headers: CheckHeaders = ValueKind::Headers, empty by check_headers::headers;
        /// Subprotocol that the handshake of `websocket` offers.
        protocol: Option<String> = text("a token of RFC 9110 such as \"wamp.2.json\""),
            optional by value_types::text(check_kind::read_token);
        /// Ping after the handshake of `websocket`, and wait for its pong.
        ///
        /// Few servers answer pings of a fresh session before it authenticates.
        ping: bool, default(false);
        /// Bytes that `expect` sends after connecting. Without it: nothing is sent.
        send: Option<String> =
            text("a string; TOML escapes such as \\r\\n or \\u0000 stand for themselves"), optional;
        /// Bytes that `expect` sends, as `send`, in hexadecimal.
        send_binary: Option<Vec<u8>> = text(HEX), optional
            by value_types::text(check_expect::read_hex);
        /// Text that is a success of `expect` when the backend says it.
        expect: Option<Vec<u8>> = text("a string that is not empty"), optional
            by value_types::text(check_expect::read_bytes);
        /// Bytes that are a success of `expect`, in hexadecimal.
        expect_binary: Option<Vec<u8>> = text(HEX), optional
            by value_types::text(check_expect::read_hex);
        /// Regular expression that is a success of `expect` when the backend's words match it.
        expect_regex: Option<String> = text("a regular expression of the Rust regex crate"),
            optional by value_types::text(check_expect::read_regex);
        /// Text that is a failure of `expect` when the backend says it. Judged once its answer has
        /// ended or paused for 100 ms. Without another `expect`: whatever else it says is a
        /// success.
        expect_not: Option<Vec<u8>> = text("a string that is not empty"), optional
            by value_types::text(check_expect::read_bytes);
        /// Role that `INFO replication` must say, of `redis`. Without it: any role.
        role: Option<RedisRole>, optional;
    }
    with {
        /// Question and right answer.
        kind: CheckKind,
        /// Interval while a backend is down. Default: `interval`.
        down_interval: Duration,
        /// Default: as the pool, plain where the check has an address or port of its own.
        tls: CheckTls,
        /// A PROXY header without a client comes first. Default: the pool's, unless the check has
        /// an `address` or `port`.
        send_proxy: Option<ProxyVersion>,
    }
}

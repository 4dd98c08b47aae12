//! Tables for connections that last: `drain` and `ping` of a pool, `frames` of a listener.

use std::time::Duration;

use crate::base::close_code::{MAX_REASON_BYTES, may_be_sent};
use crate::base::rate::Rate;
use crate::config::declare::Parts;
use crate::config::defaults::{CLOSE_CODE, DRAIN_AFTER, DRAIN_RATE};
use crate::config::reader::TableReader;
use crate::config::spec::{DAY, HOUR, SIZE_MAX, number, seconds, size, text, time};
use crate::config::value_types;

const CODES: &str = "1000 to 1003, 1007 to 1014, 3000 to 4999";
const REASON: &str = "at most 123 bytes of text";

table! {
    /// How the connections of a drained backend are ended, where the request for the drain says
    /// nothing else. Without it they end by themselves.
    #[derive(Eq)]
    pub struct Drain {
        /// Connections ended in a time, quiet ones first. Without it and without `deadline`: 100/s.
        rate: Option<Rate>, optional;
        /// Time by which the last connection is ended, counted from `after`. Without `rate` the
        /// ends are spread evenly over it.
        deadline: Option<Duration> = time(1_000, 7 * DAY), optional;
        /// Time before, in which connections may end by themselves.
        ///
        /// A drain that has a pace begins at once.
        after: Duration = time(0, DAY), default(DRAIN_AFTER);
        /// Close frame for WebSockets.
        close: Close, nested;
    }
    rules set_pace;
}

table! {
    /// Close frame that a WebSocket gets, in both directions.
    #[derive(Eq)]
    pub struct Close {
        /// Status code: 1001 going away, 1012 service restart, 1013 try again later. 1000 to 1003,
        /// 1007 to 1014 and 3000 to 4999 may be sent.
        ///
        /// "Service restart" (IANA): clients reconnect, and most libraries spread that.
        code: u16 = number(1000, 4999), default(CLOSE_CODE as u16);
        /// Text for the client's log.
        reason: String = text(REASON), default(String::new()) by value_types::text(read_reason);
    }
    then refuse_code;
}

table! {
    /// WebSocket pings of our own: they find dead peers and keep a path through NATs open. Their
    /// pongs are seen by nobody else.
    #[derive(Copy, Eq)]
    pub struct Ping {
        /// Silence of a side after which it is pinged.
        ///
        /// Below the shortest idle limits on a path that are common: 60 s of cloud balancers and
        /// NATs.
        interval: Duration = time(1_000, DAY), default(seconds(30));
        /// Time without an answer after which a side is dead; the other one is told 1001 or 1011.
        ///
        /// A path that loses packets for longer is of no use to a session.
        timeout: Duration = time(1_000, HOUR), default(seconds(10));
    }
    parts {
        /// Sides that are pinged. Pings keep a backend's own heartbeat from ending a client that it
        /// has not heard. Sessions of a backend whose check is down are pinged once in any case.
        ///
        /// A dead client holds resources. Pings to a backend would keep it from finding that out by
        /// its own heartbeat.
        to: PingTo, default(PingTo { client: true, backend: false });
    }
    with {
        /// Whether the client is pinged.
        client: bool,
        /// Whether the backend is pinged.
        backend: bool,
    }
    rules set_sides;
}

flags! {
    /// Sides that are pinged.
    pub(in crate::config) struct PingTo {
        /// The client.
        client,
        /// The backend.
        backend,
    }
}

table! {
    /// Bounds on the frames of clients. Without them there are none: nothing of a frame is held
    /// here.
    #[derive(Copy, Eq, Default)]
    pub struct FrameLimits {
        /// Longest frame, payload; a longer one ends the session with Close 1009.
        max_frame: Option<u64> = size(1, SIZE_MAX), optional;
        /// Longest message, payload of all its frames; a longer one ends the session with Close
        /// 1009.
        max_message: Option<u64> = size(1, SIZE_MAX), optional;
        /// Pings and pongs of one client in a time; more end the session with Close 1008.
        max_pings: Option<Rate>, optional;
    }
}

words! {
    /// Traffic that keeps a session from its `idle_timeout`.
    pub enum Activity {
        /// Any byte.
        Any = "any",
        /// The messages of a WebSocket, not its pings and pongs.
        Messages = "messages",
    }
}

fn set_pace(_: &TableReader<'_>, drain: &mut Parts<Drain>) {
    if drain.deadline == Some(None) {
        drain.rate = drain.rate.map(|rate| rate.or(Some(DRAIN_RATE)));
    }
}

fn set_sides(_: &TableReader<'_>, ping: &mut Parts<Ping>) {
    ping.client = ping.to.map(|to| to.client);
    ping.backend = ping.to.map(|to| to.backend);
}

fn read_reason(text: &str) -> Result<String, &'static str> {
    if text.len() > MAX_REASON_BYTES {
        return Err(REASON);
    }
    Ok(text.to_owned())
}

fn refuse_code(table: &TableReader<'_>, close: &mut Close) {
    if !may_be_sent(close.code) {
        let why = format!("this code may not be sent; allowed: {CODES}");
        table.conflict("code", &why);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, listener, pool, right};
    use std::time::Duration;

    #[test]
    fn a_drain_has_a_pace_and_a_code_that_may_be_sent() {
        let at = |key: &str| format!("pool.p.drain{key}");
        let (rate, code) = (at(".rate"), at(".close.code"));
        each_refused([
            (pool("drain = { rate = \"0/s\" }"), &*rate, ErrorKind::Value),
            (
                pool("drain = { rate = \"9/s\", close = { code = 1006 } }"),
                &*code,
                ErrorKind::Conflict,
            ),
        ]);
        let config = right(&pool(
            "drain = { rate = \"100/s\", deadline = \"10m\", close = { code = 1001, reason = \"bye\" } }",
        ));
        let drain = config.pools["p"].drain.clone().unwrap();
        assert_eq!(drain.rate, "100/s".parse().ok());
        assert_eq!(drain.deadline, Some(Duration::from_secs(600)));
        let any = right(&pool("drain = {}")).pools["p"].drain.clone().unwrap();
        assert_eq!((any.rate, any.deadline), ("100/s".parse().ok(), None));
        assert_eq!((drain.close.code, &*drain.close.reason), (1001, "bye"));
    }

    #[test]
    fn pings_go_to_clients_unless_it_says_otherwise() {
        let websocket = |keys: &str| {
            listener("protocol = \"websocket\"\npool = \"p\"")
                .replace("[pool.p]\n", &format!("[pool.p]\n{keys}\n"))
        };
        let ping = |keys: &str| right(&websocket(keys)).pools["p"].ping.unwrap();
        let one = ping("ping = {}");
        assert_eq!((one.client, one.backend), (true, false));
        assert_eq!(one.interval, Duration::from_secs(30));
        let both = ping("ping = { interval = \"9s\", to = [\"client\", \"backend\"] }");
        assert_eq!((both.client, both.backend), (true, true));
    }

    #[test]
    fn bounds_on_frames_need_frames_that_are_followed() {
        let bounds = "frames = { max_frame = \"1MiB\", max_pings = \"9/s\" }";
        let websocket = "protocol = \"websocket\"\npool = \"p\"";
        let unfollowed = format!("{websocket}\nfollow_frames = false\n{bounds}");
        each_refused([
            (
                listener(&unfollowed),
                "listener[0].frames",
                ErrorKind::Conflict,
            ),
            (
                listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{bounds}")),
                "listener[0].frames",
                ErrorKind::Conflict,
            ),
        ]);
        let config = right(&listener(&format!("{websocket}\n{bounds}")));
        assert_eq!(config.listeners[0].frames.max_frame, Some(1 << 20));
    }
}

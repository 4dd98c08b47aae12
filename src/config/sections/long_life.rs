//! Tables for connections that last: `drain = {...}` and `ping = {...}` of a pool, and the bounds on frames of a listener.

use super::super::defaults;
use super::super::keys::{
    Absent, DAY, HOUR, Kind, RATE_MAX, SIZE_MAX, Section, key, number, rate, size, time,
};
use super::super::model::{Close, Drain, FrameLimits, Ping};
use super::super::table::Table;
use super::super::words::{Side, words};
use crate::base::close_code::{MAX_REASON_BYTES, may_be_sent};

const CODES: &str = "1000 to 1003, 1007 to 1014, 3000 to 4999";
const REASON: &str = "at most 123 bytes of text";

pub static DRAIN: Section = Section {
    doc: "How the connections of a drained backend are ended, where the request for the drain says nothing else. Without it they end by themselves.",
    keys: &[
        key(
            "rate",
            rate(RATE_MAX),
            Absent::None,
            "So many are ended in a time, quiet ones first. Without it and without `deadline`: 100/s.",
        ),
        key(
            "deadline",
            time(1_000, 7 * DAY),
            Absent::None,
            "The last one is ended then; without `rate` they are spread evenly over it.",
        ),
        key(
            "after",
            time(0, DAY),
            Absent::Time(defaults::DRAIN_AFTER),
            "They may end by themselves for so long before.",
        ),
        key(
            "close",
            Kind::Table(&CLOSE),
            Absent::None,
            "What a WebSocket is told.",
        ),
    ],
};

pub static CLOSE: Section = Section {
    doc: "The Close frame that a WebSocket gets, in both directions.",
    keys: &[
        key(
            "code",
            number(1000, 4999),
            Absent::Number(defaults::CLOSE_CODE),
            "1001 going away, 1012 service restart, 1013 try again later; 1000 to 1003, 1007 to 1014, 3000 to 4999 may be sent.",
        ),
        key(
            "reason",
            Kind::Text(REASON),
            Absent::Text(""),
            "For the client's log.",
        ),
    ],
};

pub static PING: Section = Section {
    doc: "WebSocket pings of our own: they find dead peers and keep a path through NATs open. Their pongs are seen by nobody else.",
    keys: &[
        key(
            "interval",
            time(1_000, DAY),
            Absent::Time(defaults::PING_INTERVAL),
            "A side that was silent for so long is pinged.",
        ),
        key(
            "timeout",
            time(1_000, HOUR),
            Absent::Time(defaults::PING_TIMEOUT),
            "A side that does not answer for so long is dead; the other one is told 1001 or 1011.",
        ),
        key(
            "to",
            Kind::Words(words::<Side>),
            Absent::Texts(defaults::PING_TO),
            "Which sides are pinged. Pings keep a backend's own heartbeat from ending a client that it has not heard. Whatever it says, the sessions of a backend whose check is down are pinged once.",
        ),
    ],
};

pub static FRAMES: Section = Section {
    doc: "Bounds on what clients send. Without them there are none: nothing of a frame is held here.",
    keys: &[
        key(
            "max_frame",
            size(1, SIZE_MAX),
            Absent::None,
            "Longest frame, payload; a longer one ends the session with Close 1009.",
        ),
        key(
            "max_message",
            size(1, SIZE_MAX),
            Absent::None,
            "Longest message, payload of all its frames; a longer one ends the session with Close 1009.",
        ),
        key(
            "max_pings",
            rate(RATE_MAX),
            Absent::None,
            "Pings and pongs of one client; more end the session with Close 1008.",
        ),
    ],
};

pub fn decode_drain(table: &Table<'_>) -> Option<Drain> {
    let (rate, deadline) = (table.maybe_rate("rate"), table.maybe_time("deadline"));
    let any = deadline.is_none().then_some(defaults::DRAIN_RATE);
    Some(Drain {
        rate: rate.or(any),
        deadline,
        after: table.time("after"),
        close: decode_close(&table.table("close"))?,
    })
}

fn decode_close(table: &Table<'_>) -> Option<Close> {
    let code: u16 = table.number("code");
    if !may_be_sent(code) {
        table.conflict(
            "code",
            &format!("this code may not be sent; allowed: {CODES}"),
        );
    }
    let reason = |text: &str| match text.len() <= MAX_REASON_BYTES {
        true => Ok(text.to_owned()),
        false => Err(REASON),
    };
    Some(Close {
        code,
        reason: table.text_by("reason", reason)?,
    })
}

pub fn decode_ping(table: &Table<'_>) -> Ping {
    let to = table.words::<Side>("to");
    Ping {
        interval: table.time("interval"),
        timeout: table.time("timeout"),
        client: to.contains(&Side::Client),
        backend: to.contains(&Side::Backend),
    }
}

pub fn decode_frames(table: &Table<'_>) -> FrameLimits {
    FrameLimits {
        max_frame: table.maybe_size("max_frame"),
        max_message: table.maybe_size("max_message"),
        max_pings: table.maybe_rate("max_pings"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, listener, pool, right};
    use std::time::Duration;

    #[test]
    fn a_drain_has_a_pace_and_a_code_that_may_be_sent() {
        let at = |key: &str| format!("pool.p.drain{key}");
        let (rate, code) = (at(".rate"), at(".close.code"));
        each_refused([
            (pool("drain = { rate = \"0/s\" }"), &*rate, Fault::Value),
            (
                pool("drain = { rate = \"9/s\", close = { code = 1006 } }"),
                &*code,
                Fault::Conflict,
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
            (listener(&unfollowed), "listener[0].frames", Fault::Conflict),
            (
                listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{bounds}")),
                "listener[0].frames",
                Fault::Conflict,
            ),
        ]);
        let config = right(&listener(&format!("{websocket}\n{bounds}")));
        assert_eq!(config.listeners[0].frames.max_frame, Some(1 << 20));
    }
}

//! Line of the access log, as JSON or as `key=value` text. The data path formats it into the queue
//! of the writer. Names and paths, which a client chooses, go through [`escape`]: so no line can be
//! forged and no control byte reaches the reader's terminal.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::clock_text::{ClockText, push_three_digits};
use super::escape::escape;
use super::request_names::RequestNames;
use super::resumed::Resumed;
use super::termination::Termination;
use crate::config::{LogFormat, TlsVersion, Word};
use crate::net::Peer;

/// Facts of one line, borrowed from the record of the connection.
#[derive(Debug, Clone)]
pub(super) struct LogLine<'a> {
    /// Time of writing; the connection began `duration` before.
    pub time: SystemTime,
    pub id: u64,
    pub event: LogEvent,
    pub listener: &'a str,
    pub client: Peer,
    pub names: &'a RequestNames,
    pub trace_id: Option<u128>,
    pub status: Option<u16>,
    pub pool: Option<&'a str>,
    pub backend: Option<&'a str>,
    pub tries: u32,
    pub connect_time: Option<Duration>,
    pub backend_tls: Option<TlsVersion>,
    pub duration: Duration,
    pub bytes_from_client: u64,
    pub bytes_from_backend: u64,
    pub resumed: Option<&'a Resumed>,
    /// Lines of this listener that were left out before this one; see [`super::early_lines`].
    pub skipped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogEvent {
    Open,
    Interval,
    Resume,
    End(Termination),
}

impl LogEvent {
    fn word(self) -> &'static str {
        match self {
            LogEvent::Open => "open",
            LogEvent::Interval => "interval",
            LogEvent::Resume => "resume",
            LogEvent::End(_) => "end",
        }
    }

    fn end(self) -> Option<Termination> {
        match self {
            LogEvent::Open | LogEvent::Interval | LogEvent::Resume => None,
            LogEvent::End(end) => Some(end),
        }
    }
}

/// Formatter of the lines of one log.
#[derive(Debug)]
pub(super) struct LineFormatter {
    format: LogFormat,
    clock: ClockText,
}

impl LineFormatter {
    pub(super) fn new(format: LogFormat) -> LineFormatter {
        LineFormatter {
            format,
            clock: ClockText::default(),
        }
    }

    /// Appends the line and its newline.
    pub(super) fn format(&mut self, line: &LogLine<'_>, into: &mut String) {
        let time = self.clock.at(line.time);
        match self.format {
            LogFormat::Json => line.write_fields(
                time,
                &mut JsonFields {
                    into,
                    is_first: true,
                },
            ),
            LogFormat::Text => line.write_fields(
                time,
                &mut TextFields {
                    into,
                    is_first: true,
                },
            ),
        }
        if self.format == LogFormat::Json {
            into.push('}');
        }
        into.push('\n');
    }
}

impl LogLine<'_> {
    /// Writes the fields that are known, in the order of the line.
    fn write_fields(&self, time: &str, fields: &mut impl Fields) {
        fields.word("time", Some(time));
        fields.word("event", Some(self.event.word()));
        fields.number("id", Some(self.id));
        fields.word("listener", Some(self.listener));
        self.write_client(fields);
        self.write_request(fields);
        fields.word("pool", self.pool);
        fields.word("backend", self.backend);
        self.write_move(fields);
        fields.number("status", self.status);
        fields.number("tries", Some(self.tries));
        fields.milliseconds("connect_ms", self.connect_time);
        fields.word("backend_tls", self.backend_tls.map(TlsVersion::word));
        fields.milliseconds("duration_ms", Some(self.duration));
        fields.number("bytes_from_client", Some(self.bytes_from_client));
        fields.number("bytes_from_backend", Some(self.bytes_from_backend));
        fields.number("client_close", self.names.close_code(true));
        fields.number("backend_close", self.names.close_code(false));
        fields.value("end", self.event.end().map(Value::End));
        fields.number("skipped", Some(self.skipped).filter(|skipped| *skipped > 0));
    }

    fn write_client(&self, fields: &mut impl Fields) {
        let names = self.names;
        fields.value("client", Some(Value::Client(self.client)));
        fields.value("client_ip", self.client.ip().map(Value::Ip));
        fields.number("client_port", self.client.port().filter(|port| *port != 0));
        // A raw TCP connection has none.
        if names.is_empty() {
            return;
        }
        fields.word("via", names.via());
        fields.word("proxy_tlvs", names.proxy_tlvs());
        fields.word("sni", names.sni());
        if let Some(tls) = names.client_tls() {
            fields.word("tls_version", Some(tls.version.word()));
            fields.word("tls_cipher", Some(&tls.cipher_name()));
            fields.word("tls_alpn", tls.alpn.as_deref());
            fields.value("tls_resumed", Some(Value::Flag(tls.resumed)));
        }
        fields.word("client_subject", names.client_subject());
        fields.word("client_san", names.client_san());
    }

    fn write_request(&self, fields: &mut impl Fields) {
        let names = self.names;
        fields.word("method", names.method());
        fields.word("host", names.host());
        fields.word("path", names.path());
        fields.word("tag", names.logged_tag().as_deref());
        fields.word("request_id", names.request_id());
        let trace_id = self.trace_id.map(|id| format!("{id:032x}"));
        fields.word("trace_id", trace_id.as_deref());
    }

    fn write_move(&self, fields: &mut impl Fields) {
        let Some(Resumed { from, gap, lost }) = self.resumed else {
            return;
        };
        // Always a word: stores that infer the type of a field take the first one for all.
        let lost = lost.map_or("unknown".to_owned(), |count| count.to_string());
        fields.word("from", from.as_deref());
        fields.milliseconds("gap_ms", Some(*gap));
        fields.word("lost", Some(&lost));
    }
}

/// Writer of the fields that have a value.
trait Fields {
    fn write(&mut self, key: &'static str, value: Value<'_>);

    fn value(&mut self, key: &'static str, value: Option<Value<'_>>) {
        if let Some(value) = value {
            self.write(key, value);
        }
    }

    fn word(&mut self, key: &'static str, word: Option<&str>) {
        self.value(key, word.map(Value::Word));
    }

    fn number(&mut self, key: &'static str, number: Option<impl Into<u64>>) {
        self.value(key, number.map(|number| Value::Number(number.into())));
    }

    fn milliseconds(&mut self, key: &'static str, time: Option<Duration>) {
        self.value(key, time.map(Value::Milliseconds));
    }
}

struct JsonFields<'a> {
    into: &'a mut String,
    is_first: bool,
}

impl Fields for JsonFields<'_> {
    fn write(&mut self, key: &'static str, value: Value<'_>) {
        let into = &mut *self.into;
        into.push_str(if self.is_first { "{\"" } else { ",\"" });
        self.is_first = false;
        into.push_str(key);
        into.push_str("\":");
        match value {
            Value::Word(text) => quote(text, into),
            Value::Client(_) | Value::Ip(_) => {
                into.push('"');
                value.push_plain(into);
                into.push('"');
            }
            Value::End(Termination { side, phase, how }) => {
                let parts = [
                    "{\"side\":\"",
                    side.word(),
                    "\",\"phase\":\"",
                    phase.word(),
                    "\",\"how\":\"",
                    how.word(),
                    "\"}",
                ];
                parts.iter().for_each(|part| into.push_str(part));
            }
            other => other.push_plain(into),
        }
    }
}

struct TextFields<'a> {
    into: &'a mut String,
    is_first: bool,
}

impl Fields for TextFields<'_> {
    fn write(&mut self, key: &'static str, value: Value<'_>) {
        let into = &mut *self.into;
        if !self.is_first {
            into.push(' ');
        }
        self.is_first = false;
        into.push_str(key);
        into.push('=');
        match value {
            Value::Word(text) if is_plain(text) => into.push_str(text),
            Value::Word(text) => quote(text, into),
            Value::End(_) => {
                into.push('"');
                value.push_plain(into);
                into.push('"');
            }
            other => other.push_plain(into),
        }
    }
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Word(&'a str),
    /// Address with its port, which needs no escape.
    Client(Peer),
    Ip(IpAddr),
    Number(u64),
    Flag(bool),
    /// Shown with three places: a connect within a rack takes less than one.
    Milliseconds(Duration),
    End(Termination),
}

impl Value<'_> {
    /// Appends a value as it is.
    fn push_plain(self, into: &mut String) {
        match self {
            Value::Word(text) => into.push_str(text),
            Value::Client(client) => push_client(client, into),
            Value::Ip(ip) => push_ip(ip, into),
            Value::Number(number) => push_number(number, into),
            Value::Flag(flag) => into.push_str(if flag { "true" } else { "false" }),
            Value::Milliseconds(duration) => push_milliseconds(into, duration),
            Value::End(Termination { side, phase, how }) => {
                let parts = [side.word(), " ", phase.word(), " ", how.word()];
                parts.iter().for_each(|part| into.push_str(part));
            }
        }
    }
}

fn push_client(client: Peer, into: &mut String) {
    match client {
        Peer::V4(ip, port) if port != 0 => {
            push_ip(ip.into(), into);
            into.push(':');
            push_number(port.into(), into);
        }
        other => push(into, format_args!("{other}")),
    }
}

fn push_ip(ip: IpAddr, into: &mut String) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    into.push('.');
                }
                push_number(octet.into(), into);
            }
        }
        IpAddr::V6(ip) => push(into, format_args!("{ip}")),
    }
}

fn push_number(number: u64, into: &mut String) {
    into.push_str(itoa::Buffer::new().format(number));
}

fn push_milliseconds(into: &mut String, duration: Duration) {
    let thousandths = duration.subsec_micros() % 1000;
    match u64::try_from(duration.as_millis()) {
        Ok(whole) => push_number(whole, into),
        Err(_) => push(into, format_args!("{}", duration.as_millis())),
    }
    into.push('.');
    push_three_digits(thousandths, into);
}

fn quote(text: &str, into: &mut String) {
    into.push('"');
    escape(text, into);
    into.push('"');
}

/// Needs no quotes in the text format.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte))
}

fn push(into: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = into.write_fmt(arguments);
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::observe::request_names::COUNT;
    use crate::observe::{Cause, HandshakeFacts, Phase, Side};

    fn request(path: &str) -> RequestNames {
        let mut all = [None; COUNT];
        all[2] = Some("chat.example.org");
        all[3] = Some(path);
        RequestNames::pack(all)
    }

    pub(in crate::observe) fn line(names: &RequestNames) -> LogLine<'_> {
        LogLine {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
            id: 7,
            event: LogEvent::End(Termination::new(Side::Backend, Phase::Relay, Cause::Rst)),
            listener: "chat",
            client: Peer::tcp(([192, 0, 2, 1], 4711).into()),
            names,
            trace_id: None,
            status: Some(101),
            pool: Some("chat"),
            backend: Some("n1"),
            tries: 1,
            connect_time: Some(Duration::from_micros(1_900)),
            backend_tls: None,
            duration: Duration::from_secs(60),
            bytes_from_client: 10,
            bytes_from_backend: 20,
            resumed: None,
            skipped: 0,
        }
    }

    fn formatted(line: &LogLine<'_>, format: LogFormat) -> String {
        let mut text = String::new();
        LineFormatter::new(format).format(line, &mut text);
        text
    }

    #[test]
    fn a_json_line_has_every_known_field_in_order() {
        assert_eq!(
            formatted(&line(&request("/socket")), LogFormat::Json),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.042Z","event":"end","id":7,"listener":"chat","client":"192.0.2.1:4711","#,
                r#""client_ip":"192.0.2.1","client_port":4711,"#,
                r#""host":"chat.example.org","path":"/socket","pool":"chat","backend":"n1","status":101,"tries":1,"#,
                r#""connect_ms":1.900,"duration_ms":60000.000,"bytes_from_client":10,"bytes_from_backend":20,"#,
                r#""end":{"side":"backend","phase":"relay","how":"rst"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_text_line_quotes_what_is_not_plain() {
        assert_eq!(
            formatted(&line(&request("/a b\n")), LogFormat::Text),
            concat!(
                r#"time=2023-11-14T22:13:20.042Z event=end id=7 listener=chat client=192.0.2.1:4711 "#,
                r#"client_ip=192.0.2.1 client_port=4711 host=chat.example.org "#,
                r#"path="/a b\n" pool=chat backend=n1 status=101 tries=1 connect_ms=1.900 duration_ms=60000.000 "#,
                r#"bytes_from_client=10 bytes_from_backend=20 end="backend relay rst""#,
                "\n"
            )
        );
    }

    #[test]
    fn what_the_handshake_and_the_closes_said_has_fields() {
        let mut names = request("/");
        names.set_client_tls(&HandshakeFacts {
            version: TlsVersion::Tls13,
            cipher: 0x1301,
            resumed: true,
            alpn: Some("http/1.1".to_owned()),
        });
        names.set_request_id("abc");
        names.set_close_code(true, Some(1000));
        names.set_close_code(false, Some(4001));
        let mut line = line(&names);
        let known = Resumed {
            from: None,
            gap: Duration::ZERO,
            lost: Some(0),
        };
        line.resumed = Some(&known);
        let value: serde_json::Value =
            serde_json::from_str(&formatted(&line, LogFormat::Json)).unwrap();
        let expected = serde_json::json!({
            "tls_version": "1.3", "tls_cipher": "TLS_AES_128_GCM_SHA256", "tls_alpn": "http/1.1", "tls_resumed": true,
            "request_id": "abc", "client_close": 1000, "backend_close": 4001, "lost": "0",
        });
        for (key, expected) in expected.as_object().unwrap() {
            assert_eq!(&value[key], expected, "{key}");
        }
        let unknown = Resumed {
            lost: None,
            ..known.clone()
        };
        line.resumed = Some(&unknown);
        let text = formatted(&line, LogFormat::Text);
        assert!(
            text.contains(" lost=unknown ") && text.contains(" tls_resumed=true "),
            "{text}"
        );
    }

    #[test]
    fn only_the_end_has_an_end() {
        let names = request("/");
        let open = LogLine {
            event: LogEvent::Open,
            ..line(&names)
        };
        assert!(!formatted(&open, LogFormat::Json).contains("\"end\""));
        assert!(formatted(&open, LogFormat::Json).contains(r#""event":"open""#));
    }

    fn parsed(line: &LogLine<'_>) -> serde_json::Map<String, serde_json::Value> {
        let value = serde_json::from_str(&formatted(line, LogFormat::Json)).unwrap();
        let serde_json::Value::Object(fields) = value else {
            panic!("no object: {value}");
        };
        fields
    }

    fn all_names() -> RequestNames {
        let mut names = request("/");
        names.set_announced("192.0.2.9:1", Some("unique_id=7"));
        names.set_sni("chat.example.org");
        names.set_client_tls(&HandshakeFacts {
            version: TlsVersion::Tls13,
            cipher: 0x1301,
            resumed: true,
            alpn: Some("http/1.1".to_owned()),
        });
        names.set_client_certificate(Some("CN=a"), Some("DNS:a"));
        names.set_request("GET", Some("chat.example.org"), "/");
        names.set_tag("7", false);
        names.set_request_id("abc");
        names.set_close_code(true, Some(1000));
        names.set_close_code(false, Some(1000));
        names
    }

    #[test]
    fn the_schema_has_every_field_and_its_type() {
        const SCHEMA: &str = include_str!("../../monitoring/logs/access-log.schema.json");
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let (names, resumed) = (
            all_names(),
            Resumed {
                from: Some("n0".into()),
                gap: Duration::ZERO,
                lost: None,
            },
        );
        let whole = parsed(&LogLine {
            backend_tls: Some(TlsVersion::Tls13),
            trace_id: Some(1),
            resumed: Some(&resumed),
            skipped: 1,
            ..line(&names)
        });
        let known = schema["properties"].as_object().unwrap();
        let keys = |of: &serde_json::Map<String, serde_json::Value>| -> BTreeSet<String> {
            of.keys().cloned().collect()
        };
        assert_eq!(keys(&whole), keys(known));
        for (key, value) in &whole {
            let is_it = match known[key]["type"].as_str().unwrap() {
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                "object" => value.is_object(),
                _ => false,
            };
            assert!(is_it, "{key}: {value}");
        }
        let nothing = RequestNames::default();
        let least = parsed(&LogLine {
            event: LogEvent::Open,
            client: Peer::Unix,
            status: None,
            pool: None,
            backend: None,
            connect_time: None,
            ..line(&nothing)
        });
        let required = schema["required"].as_array().unwrap().iter();
        let required = required.map(|key| key.as_str().unwrap().to_owned());
        assert_eq!(keys(&least), required.collect());
    }

    #[test]
    fn the_schema_has_every_word() {
        const SCHEMA: &str = include_str!("../../monitoring/logs/access-log.schema.json");
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let end = &schema["properties"]["end"]["properties"];
        let words = |key: &str| serde_json::from_value::<Vec<String>>(end[key]["enum"].clone());
        let of = |all: &[&str]| {
            all.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let sides: Vec<_> = Side::ALL.iter().map(|one| one.word()).collect();
        let phases: Vec<_> = Phase::ALL.iter().map(|one| one.word()).collect();
        let causes: Vec<_> = Cause::ALL.iter().map(|one| one.word()).collect();
        assert_eq!(words("side").unwrap(), of(&sides));
        assert_eq!(words("phase").unwrap(), of(&phases));
        assert_eq!(words("how").unwrap(), of(&causes));
    }

    proptest! {
        #[test]
        fn whatever_the_path_json_is_one_valid_line(path in any::<String>()) {
            let text = formatted(&line(&request(&path)), LogFormat::Json);
            prop_assert_eq!(text.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&text)?;
            prop_assert_eq!(value["path"].as_str(), Some(path.as_str()));
        }

        #[test]
        fn whatever_the_path_text_has_no_control_character(path in any::<String>()) {
            let text = formatted(&line(&request(&path)), LogFormat::Text);
            prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control));
        }
    }
}

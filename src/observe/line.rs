//! One line of the access log, as JSON or as `key=value` text. Made on the data path, formatted by the writer.
//! What a client chose (names, paths) goes through [`escape`], so that no line can be forged and no control byte
//! reaches the reader's terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::escape::escape;
use super::handshake_facts::HandshakeFacts;
use super::request_names::RequestNames;
use super::resumed::Resumed;
use super::termination::Termination;
use crate::config::{LogFormat, TlsVersion, Word};
use crate::net::Peer;

#[derive(Debug)]
pub(super) struct LogLine {
    /// When it was written; the connection began `duration` before.
    pub time: SystemTime,
    pub id: u64,
    pub event: LogEvent,
    pub listener: Arc<str>,
    pub client: Peer,
    pub names: RequestNames,
    pub status: Option<u16>,
    pub pool: Option<Arc<str>>,
    pub backend: Option<Arc<str>>,
    pub tries: u32,
    pub connect_time: Option<Duration>,
    pub backend_tls: Option<TlsVersion>,
    pub duration: Duration,
    pub bytes_from_client: u64,
    pub bytes_from_backend: u64,
    pub resumed: Option<Resumed>,
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

impl LogLine {
    /// Appends the line and its newline.
    pub fn format(&self, format: LogFormat, into: &mut String) {
        match format {
            LogFormat::Json => self.format_json(into),
            LogFormat::Text => self.format_text(into),
        }
        into.push('\n');
    }

    fn format_json(&self, into: &mut String) {
        let mut separator = '{';
        self.each(|key, value| {
            into.push(separator);
            separator = ',';
            push(into, format_args!("\"{key}\":"));
            match value {
                Value::Word(text) => quote(text, into),
                Value::Number(number) => push(into, format_args!("{number}")),
                Value::Flag(flag) => push(into, format_args!("{flag}")),
                Value::Milliseconds(duration) => push_milliseconds(into, duration),
                Value::End(Termination { side, phase, how }) => {
                    push(
                        into,
                        format_args!(
                            "{{\"side\":\"{side}\",\"phase\":\"{phase}\",\"how\":\"{how}\"}}"
                        ),
                    );
                }
            }
        });
        into.push('}');
    }

    fn format_text(&self, into: &mut String) {
        let mut separator = "";
        self.each(|key, value| {
            push(into, format_args!("{separator}{key}="));
            separator = " ";
            match value {
                Value::Word(text) if is_plain(text) => into.push_str(text),
                Value::Word(text) => quote(text, into),
                Value::Number(number) => push(into, format_args!("{number}")),
                Value::Flag(flag) => push(into, format_args!("{flag}")),
                Value::Milliseconds(duration) => push_milliseconds(into, duration),
                Value::End(end) => push(into, format_args!("\"{end}\"")),
            }
        });
    }

    /// The fields that are known, in the order of the line.
    fn each(&self, mut field: impl FnMut(&'static str, Value<'_>)) {
        let names = &self.names;
        let time = humantime::format_rfc3339_millis(self.time).to_string();
        let client = self.client.to_string();
        let tag = names.logged_tag();
        let resumed = self.resumed.as_ref();
        // Of one type, whatever is known: who stores lines by the type of a field takes the first one for all.
        let lost = resumed.map(|resumed| match resumed.lost {
            Some(count) => count.to_string(),
            None => "unknown".to_owned(),
        });
        let client_ip = self.client.ip().map(|ip| ip.to_string());
        let client_port = self.client.port().filter(|port| *port != 0);
        let tls = names.client_tls();
        let tls = tls.as_ref();
        let cipher = tls.map(HandshakeFacts::cipher_name);
        let close = |is_client| {
            names
                .close_code(is_client)
                .map(|code| Value::Number(code.into()))
        };
        let known = [
            ("time", Some(Value::Word(&time))),
            ("event", Some(Value::Word(self.event.word()))),
            ("id", Some(Value::Number(self.id))),
            ("listener", Some(Value::Word(&self.listener))),
            ("client", Some(Value::Word(&client))),
            ("client_ip", client_ip.as_deref().map(Value::Word)),
            (
                "client_port",
                client_port.map(|port| Value::Number(port.into())),
            ),
            ("via", names.via().map(Value::Word)),
            ("proxy_tlvs", names.proxy_tlvs().map(Value::Word)),
            ("sni", names.sni().map(Value::Word)),
            (
                "tls_version",
                tls.map(|tls| Value::Word(tls.version.word())),
            ),
            ("tls_cipher", cipher.as_deref().map(Value::Word)),
            (
                "tls_alpn",
                tls.and_then(|tls| tls.alpn.as_deref()).map(Value::Word),
            ),
            ("tls_resumed", tls.map(|tls| Value::Flag(tls.resumed))),
            ("client_subject", names.client_subject().map(Value::Word)),
            ("client_san", names.client_san().map(Value::Word)),
            ("method", names.method().map(Value::Word)),
            ("host", names.host().map(Value::Word)),
            ("path", names.path().map(Value::Word)),
            ("tag", tag.as_deref().map(Value::Word)),
            ("request_id", names.request_id().map(Value::Word)),
            ("pool", self.pool.as_deref().map(Value::Word)),
            ("backend", self.backend.as_deref().map(Value::Word)),
            (
                "from",
                resumed
                    .and_then(|resumed| resumed.from.as_deref())
                    .map(Value::Word),
            ),
            (
                "gap_ms",
                resumed.map(|resumed| Value::Milliseconds(resumed.gap)),
            ),
            ("lost", lost.as_deref().map(Value::Word)),
            (
                "status",
                self.status.map(|status| Value::Number(status.into())),
            ),
            ("tries", Some(Value::Number(self.tries.into()))),
            ("connect_ms", self.connect_time.map(Value::Milliseconds)),
            (
                "backend_tls",
                self.backend_tls.map(|version| Value::Word(version.word())),
            ),
            ("duration_ms", Some(Value::Milliseconds(self.duration))),
            (
                "bytes_from_client",
                Some(Value::Number(self.bytes_from_client)),
            ),
            (
                "bytes_from_backend",
                Some(Value::Number(self.bytes_from_backend)),
            ),
            ("client_close", close(true)),
            ("backend_close", close(false)),
            ("end", self.event.end().map(Value::End)),
            (
                "skipped",
                (self.skipped > 0).then_some(Value::Number(self.skipped)),
            ),
        ];
        for (key, value) in known {
            if let Some(value) = value {
                field(key, value);
            }
        }
    }
}

enum Value<'a> {
    Word(&'a str),
    Number(u64),
    Flag(bool),
    /// Shown with three places: a connect within a rack takes less than one.
    Milliseconds(Duration),
    End(Termination),
}

fn push_milliseconds(into: &mut String, duration: Duration) {
    let whole = duration.as_millis();
    let thousandths = duration.subsec_micros() % 1000;
    push(into, format_args!("{whole}.{thousandths:03}"));
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
mod tests {
    use proptest::prelude::*;

    use super::super::termination::{Cause, Phase, Side};
    use super::*;

    fn line(path: &str) -> LogLine {
        let mut all = [None; super::super::request_names::COUNT];
        all[2] = Some("chat.example.org");
        all[3] = Some(path);
        let names = RequestNames::pack(all);
        LogLine {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
            id: 7,
            event: LogEvent::End(Termination::new(Side::Backend, Phase::Relay, Cause::Rst)),
            listener: "chat".into(),
            client: Peer::tcp(([192, 0, 2, 1], 4711).into()),
            names,
            status: Some(101),
            pool: Some("chat".into()),
            backend: Some("n1".into()),
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

    fn formatted(line: &LogLine, format: LogFormat) -> String {
        let mut text = String::new();
        line.format(format, &mut text);
        text
    }

    #[test]
    fn a_json_line_has_every_known_field_in_order() {
        assert_eq!(
            formatted(&line("/socket"), LogFormat::Json),
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
            formatted(&line("/a b\n"), LogFormat::Text),
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
        let mut line = line("/");
        let mut names = std::mem::take(&mut line.names);
        names.set_client_tls(&HandshakeFacts {
            version: TlsVersion::Tls13,
            cipher: 0x1301,
            resumed: true,
            alpn: Some("http/1.1".to_owned()),
        });
        names.set_request_id("abc");
        names.set_close_code(true, Some(1000));
        names.set_close_code(false, Some(4001));
        line.names = names;
        line.resumed = Some(Resumed {
            from: None,
            gap: Duration::ZERO,
            lost: Some(0),
        });
        let value: serde_json::Value =
            serde_json::from_str(&formatted(&line, LogFormat::Json)).unwrap();
        let expected = serde_json::json!({
            "tls_version": "1.3", "tls_cipher": "TLS_AES_128_GCM_SHA256", "tls_alpn": "http/1.1", "tls_resumed": true,
            "request_id": "abc", "client_close": 1000, "backend_close": 4001, "lost": "0",
        });
        for (key, expected) in expected.as_object().unwrap() {
            assert_eq!(&value[key], expected, "{key}");
        }
        line.resumed = Some(Resumed {
            from: None,
            gap: Duration::ZERO,
            lost: None,
        });
        let text = formatted(&line, LogFormat::Text);
        assert!(
            text.contains(" lost=unknown ") && text.contains(" tls_resumed=true "),
            "{text}"
        );
    }

    #[test]
    fn only_the_end_has_an_end() {
        let open = LogLine {
            event: LogEvent::Open,
            ..line("/")
        };
        assert!(!formatted(&open, LogFormat::Json).contains("\"end\""));
        assert!(formatted(&open, LogFormat::Json).contains(r#""event":"open""#));
    }

    proptest! {
        #[test]
        fn whatever_the_path_json_is_one_valid_line(path in any::<String>()) {
            let text = formatted(&line(&path), LogFormat::Json);
            prop_assert_eq!(text.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&text)?;
            prop_assert_eq!(value["path"].as_str(), Some(path.as_str()));
        }

        #[test]
        fn whatever_the_path_text_has_no_control_character(path in any::<String>()) {
            let text = formatted(&line(&path), LogFormat::Text);
            prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control));
        }
    }
}

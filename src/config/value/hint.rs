//! The form that a wrong value was most likely meant to have.

use toml::de::DeValue;

use super::ValueReader;
use crate::base::units::{parse_duration, parse_size};
use crate::config::spec::ValueKind;
use crate::config::{meant, peers};

impl ValueReader<'_> {
    /// Hint for a text that is not allowed.
    pub(super) fn meant(&self, text: &str) -> Option<String> {
        let key = self.key();
        if let Some(here) = peers::value(key, text) {
            return Some(here.to_owned());
        }
        let guess = match (self.kind, key) {
            // One of the right form is out of range, which no form mends.
            (ValueKind::Time { .. }, _) if parse_duration(text).is_ok() => None,
            (ValueKind::Size { .. }, _) if parse_size(text).is_ok() => None,
            (ValueKind::Time { .. }, _) => meant::time(text),
            (ValueKind::Size { .. }, _) => meant::size(text),
            (ValueKind::Rate, _) => meant::rate(text),
            (ValueKind::Percent { .. }, _) => meant::percent(text),
            (_, "bind") => meant::bind(text),
            (_, "address") => meant::address(text),
            _ => None,
        };
        let guess = guess.filter(|guess| guess != text)?;
        Some(format!("write \"{guess}\""))
    }

    /// Hint for a free text that cannot stand here, and is a word of another program.
    pub(super) fn meant_by_peers(&self) -> Option<String> {
        let text = self.value.as_str()?;
        let is_free = matches!(self.kind, ValueKind::Text(_));
        let here = peers::value(self.key(), text).filter(|_| is_free)?;
        Some(here.to_owned())
    }

    /// Hint for a value of another type; `shown` is as it is written.
    pub(super) fn right_form(&self, shown: &str) -> Option<String> {
        let write = |form: String| Some(format!("write {form}"));
        let quoted = |text: Option<String>| Some(format!("write \"{}\"", text?));
        match (self.kind, self.value) {
            (ValueKind::Time { .. }, DeValue::Integer(_)) => {
                Some(format!("a time needs a unit: \"{shown}s\""))
            }
            (ValueKind::Rate, DeValue::Integer(_)) => {
                Some(format!("a rate needs a time: \"{shown}/s\""))
            }
            (ValueKind::Time { .. }, DeValue::Float(_)) => quoted(meant::time(shown)),
            (ValueKind::Size { .. }, DeValue::Integer(_) | DeValue::Float(_)) => {
                quoted(meant::size(shown))
            }
            (ValueKind::Percent { .. }, DeValue::Integer(_) | DeValue::Float(_)) => {
                quoted(meant::percent(shown))
            }
            (ValueKind::Number { .. }, DeValue::String(text)) => {
                let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let number = is_number.then(|| format!("write {text}"));
                number.or_else(|| peers::value(self.key(), text).map(str::to_owned))
            }
            (ValueKind::Flag, value) => flag(value).and_then(|flag| write(flag.to_string())),
            (ValueKind::Text(_), DeValue::Integer(_)) => match self.key() {
                "bind" => quoted(meant::bind(shown)),
                "address" => quoted(meant::address(shown)),
                _ => write(format!("\"{shown}\"")),
            },
            (ValueKind::Word(_), DeValue::Boolean(true)) if self.key() == "send_proxy" => {
                quoted(Some("v2".to_owned()))
            }
            (
                ValueKind::Texts(_) | ValueKind::Words(_) | ValueKind::Statuses,
                DeValue::String(_),
            ) => write(format!("[{shown}]")),
            _ => self.right_table(shown),
        }
    }

    /// The key of the value, without the index in a list.
    pub(super) fn key(&self) -> &str {
        let last = self.path.rsplit('.').next().unwrap_or_default();
        last.split('[').next().unwrap_or_default()
    }
}

pub(super) fn flag(value: &DeValue<'_>) -> Option<bool> {
    match value {
        DeValue::String(text) => meant::flag(text),
        DeValue::Integer(number) => meant::flag(number.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{listener, pool, read};

    /// The hint of the first problem.
    fn help(text: &str) -> String {
        let drawn = read(text).unwrap_err().to_string();
        let help = drawn.split_once("help: ").map(|(_, behind)| behind);
        help.and_then(|behind| behind.lines().next())
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn each_value_of_a_peer_or_of_habit_is_shown_in_its_form() {
        let bind = |bind: &str| pool("").replace("\"[::]:80\"", bind);
        let protocol = |word: &str| pool("").replace("\"tcp\"", word);
        let address = |address: &str| pool("").replace("\"10.0.0.1:80\"", address);
        let global = |keys: &str| format!("[global]\n{keys}\n{}", pool(""));
        for (text, wanted) in [
            (bind("\":8443\""), "write \"[::]:8443\""),
            (bind("\"*:80\""), "write \"[::]:80\""),
            (bind("8443"), "write \"[::]:8443\""),
            (bind("*:80"), "a string needs quotes: \"[::]:80\""),
            (protocol("\"ws\""), "write `protocol = \"websocket\"`"),
            (
                protocol("\"https\""),
                "write `protocol = \"websocket\"`, and `tls` beside it",
            ),
            (address("\"http://10.0.0.1:80\""), "write \"10.0.0.1:80\""),
            (address("8080"), "write \"127.0.0.1:8080\""),
            (pool("balance = \"leastconn\""), "write \"least_conn\""),
            (pool("balance = \"source\""), "write \"ip_hash\""),
            (pool("idle_timeout = \"1.5s\""), "write \"1500ms\""),
            (pool("idle_timeout = 1.5"), "write \"1500ms\""),
            (pool("idle_timeout = \"1 hour\""), "write \"1h\""),
            (
                pool("idle_timeout = 1 hour"),
                "a string needs quotes: \"1h\"",
            ),
            (pool("idle_timeout = 30"), "a time needs a unit: \"30s\""),
            (global("max_buffered = \"256MB\""), "write \"256MiB\""),
            (
                global("max_buffered = 256MB"),
                "a string needs quotes: \"256MiB\"",
            ),
            (global("max_buffered = 1048576"), "write \"1MiB\""),
            (global("workers = \"4\""), "write 4"),
            (global("watch = \"on\""), "write true"),
            (global("watch = no"), "it takes no quotes: false"),
            (global("workers = \"auto\""), "write 0: as many as cores"),
            (global("log_level = \"warning\""), "write \"warn\""),
            (
                global("max_connection_rate = \"100r/s\""),
                "write \"100/s\"",
            ),
            (pool("send_proxy = true"), "write \"v2\""),
            (
                listener("protocol = \"tcp\"\npool = \"p\"\nallow = \"10.0.0.0/8\""),
                "write [\"10.0.0.0/8\"]",
            ),
        ] {
            assert_eq!(help(&text), wanted, "{text}");
        }
    }

    #[test]
    fn a_fraction_is_refused_as_one_and_shown_as_a_whole_number() {
        let global = |keys: &str| format!("[global]\n{keys}\n{}", pool(""));
        for (text, whole) in [
            (pool("idle_timeout = \"1.5s\""), "write \"1500ms\""),
            (global("max_buffered = \"1.5GiB\""), "write \"1536MiB\""),
            (global("max_connection_rate = \"1.5/s\""), ""),
        ] {
            let said = read(&text).unwrap_err().messages().remove(0).message;
            assert!(said.contains("fractions are not allowed"), "{said}");
            assert!(said.contains(whole), "{said}");
        }
    }

    #[test]
    fn what_is_out_of_range_gets_no_other_form() {
        assert_eq!(help(&pool("idle_timeout = \"9999d\"")), "");
    }
}

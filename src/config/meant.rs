//! Guesses at the value that was meant, in the one form that the file has: `"1.5s"` is
//! `"1500ms"`, `256MB` is `"256MiB"`, `:8443` is `"[::]:8443"`. Guesses for messages only: nothing
//! here is read as a value.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::address::{Address, Bind};
use super::peers;
use super::spec::ValueKind;
use crate::base::rate::Rate;
use crate::base::units::{format_duration, format_size};

/// Units as people and other programs write them, in lower case, with their length in milliseconds.
const TIMES: [(&[&str], u64); 6] = [
    (
        &[
            "ms",
            "msec",
            "msecs",
            "millis",
            "millisecond",
            "milliseconds",
        ],
        1,
    ),
    (&["s", "sec", "secs", "second", "seconds"], 1_000),
    (&["m", "min", "mins", "minute", "minutes"], 60_000),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], 86_400_000),
    (&["w", "week", "weeks"], 7 * 86_400_000),
];

/// As `TIMES`, in bytes. What `MB` means differs by the program; here it is the next power of two.
const SIZES: [(&[&str], u64); 4] = [
    (&["b", "byte", "bytes"], 1),
    (&["k", "kb", "kib", "kbyte", "kbytes"], 1 << 10),
    (&["m", "mb", "mib", "mbyte", "mbytes"], 1 << 20),
    (&["g", "gb", "gib", "gbyte", "gbytes"], 1 << 30),
];

/// A time: `1.5s`, `1 hour`, `1h30m`, `30`.
pub(super) fn time(text: &str) -> Option<String> {
    let milliseconds = sum(text, &TIMES, 1_000)?;
    Some(format_duration(Duration::from_millis(milliseconds)))
}

/// A size: `256MB`, `64k`, `1.5 GiB`, `65536`.
pub(super) fn size(text: &str) -> Option<String> {
    Some(format_size(sum(text, &SIZES, 1)?))
}

/// A rate: `100`, `100r/s`, `100 per second`, `100/min`.
pub(super) fn rate(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase().replace(" per ", "/");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, rest) = text.split_at(digits);
    let rest = rest
        .trim()
        .trim_start_matches("r/")
        .trim_start_matches('/')
        .trim();
    let unit = match rest {
        "" | "rps" | "s" | "sec" | "second" => "s",
        "rpm" | "m" | "min" | "minute" => "m",
        "rph" | "h" | "hour" => "h",
        _ => return None,
    };
    let guess = format!("{count}/{unit}");
    guess.parse::<Rate>().is_ok().then_some(guess)
}

/// A percentage: `15`, `15 %`, `0.15`.
pub(super) fn percent(text: &str) -> Option<String> {
    let text = text.trim();
    let number = if text.starts_with("0.") && !text.ends_with('%') {
        times(text, 100)?
    } else {
        text.trim_end_matches('%').trim().parse().ok()?
    };
    (number <= 100).then(|| format!("{number}%"))
}

/// Where a listener binds: `:8443`, `*:80`, `8443`, `localhost:80`, `tcp://0.0.0.0:80`,
/// `/run/a.sock`.
pub(super) fn bind(text: &str) -> Option<String> {
    let (_, rest) = without_scheme(text);
    let guess = match host_and_port(rest) {
        None if rest.starts_with('/') => format!("unix:{rest}"),
        None => return None,
        Some(("" | "*", port)) => format!("[::]:{port}"),
        Some(("localhost", port)) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        Some((host, port)) => match host.parse() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            // A name is not looked up to listen.
            Err(_) => format!("[::]:{port}"),
        },
    };
    guess.parse::<Bind>().is_ok().then_some(guess)
}

/// Where a backend is: `http://10.0.0.1`, `:8080`, `8080`, `/run/a.sock`.
pub(super) fn address(text: &str) -> Option<String> {
    let (port_of_scheme, rest) = without_scheme(text);
    let guess = match (host_and_port(rest), port_of_scheme) {
        (None, _) if rest.starts_with('/') => format!("unix:{rest}"),
        (Some(("" | "*", port)), _) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        (Some((host, port)), _) => format!("{host}:{port}"),
        (None, Some(port)) => format!("{rest}:{port}"),
        (None, None) => return None,
    };
    guess.parse::<Address>().is_ok().then_some(guess)
}

/// Whether a word says yes or no.
pub(super) fn flag(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "enabled" | "1" => Some(true),
        "off" | "no" | "false" | "disabled" | "0" => Some(false),
        _ => None,
    }
}

/// The help for a value that stands without quotes, or is a number with a zero in front.
pub(super) fn written(kind: &ValueKind, key: &str, text: &str) -> Option<String> {
    let quoted = |guess: Option<String>| Some(format!("a string needs quotes: \"{}\"", guess?));
    match kind {
        ValueKind::Number { .. } => match text.trim_start_matches('0') {
            digits if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
                peers::value(key, text).map(str::to_owned)
            }
            digits => Some(format!("write {digits}")),
        },
        ValueKind::Flag => Some(format!("it takes no quotes: {}", flag(text)?)),
        ValueKind::Time { .. } => quoted(time(text)),
        ValueKind::Size { .. } => quoted(size(text)),
        ValueKind::Rate => quoted(rate(text)),
        ValueKind::Percent { .. } => quoted(percent(text)),
        ValueKind::Word(_) | ValueKind::Text(_) => match key {
            "bind" => quoted(bind(text)),
            "address" => quoted(address(text)),
            _ if text.contains([' ', '"', '[', '{']) => None,
            _ => quoted(Some(text.chars().take(LONGEST).collect())),
        },
        _ => None,
    }
}

/// Longest text in a message, in characters.
const LONGEST: usize = 40;

/// The port that a scheme stands for, and what is behind it, without a path.
fn without_scheme(text: &str) -> (Option<u16>, &str) {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        return (None, text);
    };
    if scheme == "unix" {
        return (None, rest);
    }
    let host = rest.split('/').next().unwrap_or_default();
    let port = match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    };
    (port, host)
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    Some((host, port.parse().ok()?))
}

/// The sum of numbers and their units; `bare` is the unit of a number without one.
fn sum<const N: usize>(text: &str, units: &[(&[&str], u64); N], bare: u64) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let mut rest = text.as_str();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
        let length = rest.find(|c| !is_of_number(c)).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(length);
        let behind = behind.trim_start();
        let length = behind.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, behind) = behind.split_at(length.unwrap_or(behind.len()));
        let factor = match unit {
            "" => bare,
            _ => units.iter().find(|(names, _)| names.contains(&unit))?.1,
        };
        total = total.checked_add(times(number, factor)?)?;
        rest = behind.trim_start();
    }
    (total > 0).then_some(total)
}

/// A decimal number so many times, if that is whole.
fn times(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let places = u32::try_from(fraction.len()).ok()?;
    let digits: u64 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = digits.checked_mul(factor)?;
    let divisor = 10_u64.checked_pow(places)?;
    scaled.is_multiple_of(divisor).then(|| scaled / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::{parse_duration, parse_size};
    use proptest::prelude::*;

    fn all(guess: fn(&str) -> Option<String>, cases: &[(&str, &str)]) {
        for (text, wanted) in cases {
            let wanted = (!wanted.is_empty()).then_some(*wanted);
            assert_eq!(guess(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn times_and_sizes_have_one_form() {
        all(
            time,
            &[
                ("1.5s", "1500ms"),
                ("1 hour", "1h"),
                ("1h30m", "90m"),
                ("5S", "5s"),
                ("5 sec", "5s"),
                ("30", "30s"),
                ("2 weeks", "14d"),
                ("0.0001s", ""),
                ("soon", ""),
                ("s", ""),
                ("", ""),
            ],
        );
        all(
            size,
            &[
                ("256MB", "256MiB"),
                ("256m", "256MiB"),
                ("64 kB", "64KiB"),
                ("1.5GiB", "1536MiB"),
                ("65536", "64KiB"),
                ("7 apples", ""),
            ],
        );
        all(
            rate,
            &[
                ("100", "100/s"),
                ("100r/s", "100/s"),
                ("100 per second", "100/s"),
                ("10/min", "10/m"),
                ("5rps", "5/s"),
                ("x/s", ""),
            ],
        );
        all(
            percent,
            &[
                ("15", "15%"),
                ("15 %", "15%"),
                ("0.2", "20%"),
                ("0.005", ""),
                ("x", ""),
            ],
        );
    }

    #[test]
    fn addresses_get_what_they_lack() {
        all(
            bind,
            &[
                (":8443", "[::]:8443"),
                ("*:80", "[::]:80"),
                ("8443", "[::]:8443"),
                ("localhost:80", "127.0.0.1:80"),
                ("tcp://0.0.0.0:80", "0.0.0.0:80"),
                ("http://*:80/", "[::]:80"),
                ("www.example.org:443", "[::]:443"),
                ("/run/a.sock", "unix:/run/a.sock"),
                ("unix:///run/a.sock", "unix:/run/a.sock"),
                ("::1:80", "[::1]:80"),
                ("0.0.0.0", ""),
                (":99999", ""),
            ],
        );
        all(
            address,
            &[
                ("http://10.0.0.1:8080/x", "10.0.0.1:8080"),
                ("https://node.internal", "node.internal:443"),
                (":8080", "127.0.0.1:8080"),
                ("8080", "127.0.0.1:8080"),
                ("/run/a.sock", "unix:/run/a.sock"),
                ("10.0.0.1", ""),
                ("10.0.0.1:0", ""),
            ],
        );
    }

    #[test]
    fn what_stands_without_quotes_gets_the_form_of_its_key() {
        let time = crate::config::spec::time(0, 9);
        let size = crate::config::spec::size(0, 9);
        let number = crate::config::spec::number(0, 9);
        let percent = ValueKind::Percent { min: 0, max: 9 };
        let text = ValueKind::Text("");
        for (kind, key, written, wanted) in [
            (&time, "interval", "5s", "\"5s\""),
            (&time, "interval", "1 hour", "\"1h\""),
            (&size, "max_buffered", "256MB", "\"256MiB\""),
            (&number, "weight", "007", "7"),
            (&percent, "threshold", "20%", "\"20%\""),
            (&text, "mode", "0660", "\"0660\""),
            (&text, "bind", "*:80", "\"[::]:80\""),
            (&text, "bind", "0.0.0.0:80", "\"0.0.0.0:80\""),
            (&text, "address", "10.0.0.1:80", "\"10.0.0.1:80\""),
        ] {
            let guess = super::written(kind, key, written).unwrap_or_default();
            assert!(guess.ends_with(&format!(" {wanted}")), "{written}: {guess}");
        }
        assert_eq!(super::written(&number, "weight", "5s"), None);
    }

    proptest! {
        #[test]
        fn each_guess_is_taken_by_its_reader(text in "[0-9.]{1,6} ?[a-zA-Z]{0,4}([0-9]{1,2}[smh])?") {
            if let Some(guess) = time(&text) {
                prop_assert!(parse_duration(&guess).is_ok(), "{}", guess);
            }
            if let Some(guess) = size(&text) {
                prop_assert!(parse_size(&guess).is_ok(), "{}", guess);
            }
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = (time(&text), size(&text), rate(&text), percent(&text));
            let _ = (bind(&text), address(&text));
            let _ = written(&ValueKind::Text(""), "x", &text);
        }
    }
}

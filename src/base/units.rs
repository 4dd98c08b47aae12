//! Durations and sizes with their units, as operators write them: `"5s"`, `"64KiB"`.
//!
//! A whole number and a unit, so that each value has one shortest form and can be compared by eye.
//! Configuration, messages and logs use the same form.

use std::time::Duration;

/// Units of a duration with their length in milliseconds, longest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of a size with their length in bytes, largest first. `KB` and its like are refused: they
/// mean two things.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("it must begin with a whole number")]
    Number,
    #[error("the unit is missing")]
    NoUnit,
    #[error("a fraction is not taken, only a whole number")]
    Fraction,
    #[error("the unit is unknown")]
    Unit,
    #[error("it is too large")]
    TooLarge,
}

/// A whole number followed by `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// When the number or the unit is missing or unknown, or the value passes 2^64 milliseconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// The shortest text that [`parse_duration`] reads as the same duration. Parts below a millisecond
/// are left out.
pub(crate) fn format_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match milliseconds {
        0 => "0s".to_owned(),
        _ => format(milliseconds, &DURATION_UNITS),
    }
}

/// A whole number followed by `B`, `KiB`, `MiB` or `GiB`, in bytes.
///
/// # Errors
/// When the number or the unit is missing or unknown, or the value passes 2^64 bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE_UNITS)
}

/// The shortest text that [`parse_size`] reads as the same number of bytes.
pub(crate) fn format_size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        _ => format(bytes, &SIZE_UNITS),
    }
}

/// A size for people, in the largest unit that leaves a whole number before the point. With one
/// decimal, cut rather than rounded: `1023.9KiB` is never `1024.0KiB`.
pub(crate) fn readable_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let unit = UNITS.iter().find(|(_, factor)| bytes >= *factor);
    unit.map_or_else(
        || format!("{bytes}B"),
        |(unit, factor)| {
            let tenths = bytes % factor * 10 / factor;
            format!("{}.{tenths}{unit}", bytes / factor)
        },
    )
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number);
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    if unit.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    let factor = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(UnitError::Unit)?
        .1;
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    number.checked_mul(factor).ok_or(UnitError::TooLarge)
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    let exact = units
        .iter()
        .find(|(_, factor)| value.is_multiple_of(*factor));
    exact.map_or_else(
        || value.to_string(),
        |(name, factor)| format!("{}{name}", value / factor),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_duration_unit_is_read() {
        let cases = [
            ("500ms", 500),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn every_size_unit_is_read() {
        for (text, bytes) in [
            ("7B", 7),
            ("64KiB", 65_536),
            ("2MiB", 2_097_152),
            ("1GiB", 1_073_741_824),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_number_and_a_unit_is_refused() {
        let cases = [
            ("", UnitError::Number),
            ("s", UnitError::Number),
            ("-5s", UnitError::Number),
            (" 5s", UnitError::Number),
            ("5", UnitError::NoUnit),
            ("5 s", UnitError::Unit),
            ("1.5s", UnitError::Fraction),
            ("1,5s", UnitError::Fraction),
            ("5S", UnitError::Unit),
            ("5sec", UnitError::Unit),
            ("99999999999999999999s", UnitError::TooLarge),
            ("18446744073709551615d", UnitError::TooLarge),
        ];
        for (text, error) in cases {
            assert_eq!(parse_duration(text), Err(error), "{text:?}");
        }
        assert_eq!(parse_size("64KB"), Err(UnitError::Unit));
    }

    #[test]
    fn the_longest_exact_unit_is_written() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (7_200_000, "2h"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(format_duration(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(format_size(1_536), "1536B");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value: u64) {
            prop_assert_eq!(parse_duration(&format_duration(Duration::from_millis(value))), Ok(Duration::from_millis(value)));
            prop_assert_eq!(parse_size(&format_size(value)), Ok(value));
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }

    #[test]
    fn sizes_are_shown_in_a_readable_unit() {
        for (bytes, shown) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_024, "1.0KiB"),
            ((1 << 20) - 1, "1023.9KiB"),
            (5 << 30, "5.0GiB"),
            (u64::MAX, "16777215.9TiB"),
        ] {
            assert_eq!(readable_size(bytes), shown);
        }
    }
}

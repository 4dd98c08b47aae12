//! Names that the operator chooses.

/// A name of a listener, a pool or a backend: it stands in URLs, metrics and on the command line.
pub(super) fn read_name(text: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    match text {
        "" => Err("a name cannot be empty"),
        _ if text.len() > NAME_MAX => Err("a name has at most 64 characters"),
        _ if !text.bytes().all(allowed) => Err("a name may have only letters, digits and - _ . :"),
        _ => Ok(text.to_owned()),
    }
}

/// A name is a label of every metric line and a column of every table.
const NAME_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_a_url_and_a_metric() {
        for name in ["a", "node-1.eu_west:9501", &"n".repeat(64)] {
            assert_eq!(read_name(name), Ok(name.to_owned()));
        }
        for name in ["", "a b", "a/b", "\"", "é", &"n".repeat(65)] {
            assert!(read_name(name).is_err(), "{name}");
        }
    }
}

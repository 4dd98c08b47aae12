//! The file with the header fields of requests to the collector.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Largest file: a few tokens.
const MAX_BYTES: u64 = 64 << 10;

/// Why a file cannot be used. It never shows the content.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(in crate::server) struct FileError {
    pub file: Option<PathBuf>,
    pub what: String,
}

/// Reads a file with a field in each line; empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// Names the file, and the line that is no field.
pub(super) fn read(file: &Path) -> Result<HeaderMap, FileError> {
    let failed = |what: String| FileError {
        file: Some(file.to_owned()),
        what: format!("{}: {what}", file.display()),
    };
    let mut text = String::new();
    let opened = File::open(file);
    let read = opened.and_then(|opened| opened.take(MAX_BYTES + 1).read_to_string(&mut text));
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(format!("larger than {MAX_BYTES} bytes")));
    }
    parse(&text).map_err(|line| failed(format!("line {line} is no \"Name: value\"")))
}

/// The fields of a text, or the number of the first line that is none.
fn parse(text: &str) -> Result<HeaderMap, usize> {
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = field(line).ok_or(index + 1)?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn field(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = HeaderName::try_from(name.trim()).ok()?;
    let mut value = HeaderValue::try_from(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_field_and_one_that_is_none_is_named() {
        let fields = parse("# token\n\nAuthorization: Bearer a:b\nX-Scope-OrgID:7\r\n").unwrap();
        assert_eq!(fields["authorization"], "Bearer a:b");
        assert_eq!(fields["x-scope-orgid"], "7");
        assert_eq!(fields.len(), 2);
        for (text, line) in [("a", 1), ("a: b\nc d: e", 2), ("a: b\n\nc: \u{1}x", 3)] {
            assert_eq!(parse(text).unwrap_err(), line, "{text:?}");
        }
    }

    #[test]
    fn an_error_never_shows_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("headers");
        std::fs::write(&file, "s3cret").unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && !error.contains("s3cret"),
            "{error}"
        );
        assert!(read(&folder.path().join("none")).is_err());
    }
}

//! Bounds on the answers of sources: their size and the depth of their JSON.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::fault::{Fault, FaultKind};

/// Largest answer: ten thousand entries of a registry that says much of each.
pub(super) const MAX_BODY: usize = 16 << 20;
/// Largest line of a watch: one change.
pub(super) const MAX_LINE: usize = 1 << 20;
/// Deepest nesting; what registries say has less than ten levels.
const MAX_DEPTH: usize = 32;

/// Parses JSON of a bounded depth.
///
/// # Errors
/// It is no JSON, or too deep. The text itself is not shown: it may hold a secret.
pub(super) fn json(bytes: &[u8]) -> Result<Value, Fault> {
    if depth(bytes) > MAX_DEPTH {
        return Err(Fault::malformed(format!(
            "JSON of more than {MAX_DEPTH} levels"
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| Fault::malformed(format!("no JSON: {error}")))
}

/// Deepest nesting of brackets outside strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Reads a whole file of at most [`MAX_BODY`].
///
/// # Errors
/// Names the file.
pub(super) fn read_file(file: &Path) -> Result<Vec<u8>, Fault> {
    let shown = file.display();
    let mut bytes = Vec::new();
    let opened = File::open(file);
    opened
        .and_then(|opened| opened.take(MAX_BODY as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Fault::new(FaultKind::Unreachable, format!("{shown}: {error}")))?;
    if bytes.len() > MAX_BODY {
        let what = format!("{shown}: larger than {MAX_BODY} bytes");
        return Err(Fault::new(FaultKind::TooLarge, what));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_that_is_too_deep_is_refused_and_text_does_not_count() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(json(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(json(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(json(br#"{"a": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[["}"#).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = json(&bytes);
        }
    }
}

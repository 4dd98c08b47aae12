//! Files with a token or a password. Read at each use: they are small, and may be others by then.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::RemoteError;

/// Largest token or password.
const MAX_SECRET: u64 = 64 << 10;

/// Reads a token or a password, without the white space around it.
///
/// # Errors
/// Names the file, never its content.
pub(crate) fn read_secret(file: &Path) -> Result<String, RemoteError> {
    let shown = file.display();
    let denied = |what: String| RemoteError::Denied(format!("{shown}: {what}"));
    let mut text = String::new();
    let opened = File::open(file);
    opened
        .and_then(|opened| opened.take(MAX_SECRET).read_to_string(&mut text))
        .map_err(|error| denied(error.to_string()))?;
    let secret = text.trim();
    if secret.is_empty() || secret.chars().any(char::is_control) {
        return Err(denied("it holds no secret of one line".to_owned()));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        assert!(matches!(read_secret(&file), Err(RemoteError::Denied(_))));
        std::fs::write(&file, "  s3cret\n").unwrap();
        assert_eq!(read_secret(&file).unwrap(), "s3cret");
        std::fs::write(&file, "s3cret\nmore").unwrap();
        let error = read_secret(&file).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}

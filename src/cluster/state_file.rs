//! The operator's states in a file, for a start while the store is away. Sealed as in the store.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::operator::{MAX_ENTRIES, Merged, OperatorEntry, OperatorKey, OperatorTable};
use super::seal::ClusterSecret;
use crate::remote::keep_file;

/// Largest file: far above what a full table with long names takes.
const MAX_FILE: u64 = 32 << 20;
const PLACE: &str = "file";

/// Writes a table.
///
/// # Errors
/// Names the file.
pub(super) fn write(
    file: &Path,
    secret: &ClusterSecret,
    entries: &[(OperatorKey, OperatorEntry)],
) -> Result<(), String> {
    let entries = entries.iter().map(|(key, entry)| (key.to_string(), entry));
    let text = serde_json::to_vec(&entries.collect::<Vec<_>>());
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    keep_file(file, &secret.seal(PLACE, &text))
}

/// Reads a table; an empty one where there is no file.
///
/// # Errors
/// Names the file: it cannot be read, or is of another cluster.
pub(super) fn read(file: &Path, secret: &ClusterSecret) -> Result<OperatorTable, String> {
    let failed = |what: String| format!("{}: {what}", file.display());
    let mut sealed = Vec::new();
    match File::open(file) {
        Ok(opened) => {
            let read = opened.take(MAX_FILE).read_to_end(&mut sealed);
            read.map_err(|error| failed(error.to_string()))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(OperatorTable::default());
        }
        Err(error) => return Err(failed(error.to_string())),
    }
    let text = secret.open(PLACE, &sealed);
    let text = text.ok_or_else(|| failed("it is not of this cluster".to_owned()))?;
    let entries: Vec<(String, OperatorEntry)> =
        serde_json::from_slice(text).map_err(|error| failed(error.to_string()))?;
    let mut table = OperatorTable::default();
    for (key, entry) in entries.into_iter().take(MAX_ENTRIES) {
        let key = OperatorKey::parse(&key).filter(|key| key.field == entry.value.field());
        if let Some(key) = key {
            let _: Merged = table.merge(&key, entry);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::operator::OperatorValue;

    #[test]
    fn states_are_read_as_they_were_written_and_only_with_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("states");
        let secret = ClusterSecret::new(b"a secret of them all", "edge");
        assert!(read(&file, &secret).unwrap().entries().is_empty());
        let mut table = OperatorTable::default();
        let key = OperatorKey::parse("s:chat/n1").unwrap();
        let entry = table.next(OperatorValue::Maint, "lb1");
        table.merge(&key, entry.clone());
        write(&file, &secret, &[(key.clone(), entry.clone())]).unwrap();
        assert_eq!(read(&file, &secret).unwrap().entries(), table.entries());
        let stranger = ClusterSecret::new(b"another secret", "edge");
        assert!(read(&file, &stranger).unwrap_err().contains("states"));
    }
}

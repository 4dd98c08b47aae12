//! The last good set in a file, for a start while the registry is away. Written beside it and
//! renamed, so that no half of it is ever read.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::bounded;
use super::entry::{Entry, Listing};

/// Writes the set of a pool.
///
/// # Errors
/// Names the file.
pub(super) fn write(
    file: &Path,
    pool: &str,
    source: &str,
    entries: &[Entry],
) -> Result<(), String> {
    let backends: Vec<Value> = entries.iter().map(Entry::to_value).collect();
    let text = json!({ "pool": pool, "source": source, "backends": backends });
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let write = || {
        let mut new = fs::File::create(&beside)?;
        new.write_all(format!("{text:#}\n").as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, file)
    };
    write().map_err(failed)
}

/// Reads the set that [`write`] has kept for this pool and source.
///
/// # Errors
/// Names the file: it cannot be read, or holds the set of another pool or source.
pub(super) fn read(file: &Path, pool: &str, source: &str) -> Result<Vec<Entry>, String> {
    let failed = |what: String| format!("{}: {what}", file.display());
    let bytes = bounded::read_file(file).map_err(|fault| fault.message)?;
    let value = bounded::json(&bytes).map_err(|fault| failed(fault.message))?;
    if value["pool"] != pool || value["source"] != source {
        return Err(failed("it is the set of another pool or source".to_owned()));
    }
    let listing = Listing::read(&value).map_err(|fault| failed(fault.message))?;
    Ok(listing.entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;

    #[test]
    fn a_set_is_read_as_it_was_written_and_only_by_its_pool() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("set.json");
        assert!(
            read(&file, "chat", "consul web")
                .unwrap_err()
                .contains("set.json")
        );
        let mut one = Entry::new("a", Address::Name("a.test".into(), 80));
        one.weight = Some(7);
        one.is_drained = true;
        one.host = Some("tls.test".into());
        let mut other = Entry::new("b", Address::Unix("/run/b".into()));
        other.is_backup = true;
        let entries = vec![one, other];
        write(&file, "chat", "consul web", &entries).unwrap();
        assert_eq!(read(&file, "chat", "consul web").unwrap(), entries);
        assert!(read(&file, "chat", "consul api").is_err());
        assert!(read(&file, "web", "consul web").is_err());
        fs::write(&file, "{").unwrap();
        assert!(read(&file, "chat", "consul web").is_err());
    }
}

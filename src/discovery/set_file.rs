//! The last good set in a file, for a start while the registry is away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::bounded;
use super::entry::{Entry, Listing};
use crate::remote::keep_file;

/// Between two tries to write a set: a full disk is no sooner empty, and each try is a log line.
const RETRY: Duration = Duration::from_secs(30);

/// Writes the sets of a pool one after the other, in a task of its own: a disk that hangs holds up
/// nobody. A set that is replaced before its turn is never written, nor is one that is written
/// already.
#[derive(Debug)]
pub(super) struct SetWriter {
    /// File and set to be written.
    wanted: watch::Sender<(PathBuf, Vec<Entry>)>,
    _task: AbortOnDropHandle<()>,
}

impl SetWriter {
    /// `source`: name of the source of the pool.
    pub(super) fn start(pool: String, source: String) -> SetWriter {
        let (wanted, sets) = watch::channel((PathBuf::new(), Vec::new()));
        SetWriter {
            wanted,
            _task: AbortOnDropHandle::new(tokio::spawn(write_all(pool, source, sets))),
        }
    }

    /// Has the set written to this file.
    pub(super) fn write(&self, file: &Path, entries: Vec<Entry>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.0 != file || wanted.1 != entries;
            *wanted = (file.to_owned(), entries);
            is_new
        });
    }
}

async fn write_all(pool: String, source: String, mut sets: watch::Receiver<(PathBuf, Vec<Entry>)>) {
    let mut is_written = true;
    loop {
        tokio::select! {
            changed = sets.changed() => if changed.is_err() { return },
            () = sleep(RETRY), if !is_written => {}
        }
        let (file, entries) = sets.borrow_and_update().clone();
        let (pool, source) = (pool.clone(), source.clone());
        let named = pool.clone();
        let written = tokio::task::spawn_blocking(move || write(&file, &pool, &source, &entries));
        let failed = match written.await {
            Ok(written) => written.err(),
            Err(error) => Some(error.to_string()),
        };
        is_written = failed.is_none();
        if let Some(error) = failed {
            tracing::warn!(
                pool = named,
                error,
                "the set of discovery cannot be kept in its file"
            );
        }
    }
}

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
    keep_file(file, format!("{text:#}\n").as_bytes())
}

/// Reads the set that [`write()`] has kept for this pool and source.
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
    use std::fs;

    use super::*;
    use crate::config::Address;

    #[tokio::test(start_paused = true)]
    async fn a_set_is_written_once_and_again_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later").join("set.json");
        let writer = SetWriter::start("chat".to_owned(), "consul web".to_owned());
        let set = vec![Entry::new("a", Address::Unix("/run/a".into()))];
        let until_read = async || {
            while read(&file, "chat", "consul web") != Ok(set.clone()) {
                sleep(Duration::from_secs(1)).await;
            }
        };
        writer.write(&file, set.clone());
        // Fails while its folder is not there.
        sleep(RETRY / 2).await;
        fs::create_dir(file.parent().unwrap()).unwrap();
        until_read().await;
        fs::remove_file(&file).unwrap();
        writer.write(&file, set.clone());
        sleep(RETRY * 2).await;
        assert!(!file.exists(), "the same set was written again");
        writer.write(&file, vec![]);
        writer.write(&file, set.clone());
        until_read().await;
    }

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

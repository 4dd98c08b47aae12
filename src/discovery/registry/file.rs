//! A followed file with a list of backends, JSON or TOML. Two looks must see the same before it is
//! read, so that no half of a write is taken. It is read again every minute without a change: the
//! age of the set is that of the last look, not of the last change.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::RELIST_INTERVAL;
use crate::discovery::bounded;
use crate::discovery::entry::Listing;
use crate::discovery::fault::Fault;
use crate::discovery::source::SourcePublisher;

/// Between two looks: a change is taken within twice of it.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Looks after which the file is read although its stamp is the same: a write within a tick of the
/// kernel's clock leaves no mark.
const UNSURE_LOOKS: u8 = 2;

/// Metadata that tell one content of the file from the next without a read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// A link that was swapped leads elsewhere.
    target: Option<PathBuf>,
}

/// Follows the file until it is dropped.
pub(super) async fn follow(file: &Path, publisher: &SourcePublisher) {
    publish(file, publisher).await;
    let (mut published, mut seen) = (stamp(file), stamp(file));
    let (mut unsure, mut relist_at) = (UNSURE_LOOKS, Instant::now() + RELIST_INTERVAL);
    loop {
        let is_asked = tokio::select! {
            () = sleep(LOOK_INTERVAL) => false,
            () = publisher.asked() => true,
        };
        let now = stamp(file);
        let is_settled = now == seen;
        seen = now;
        let is_new = seen != published;
        if is_new {
            unsure = UNSURE_LOOKS;
        }
        let is_unsure = !is_new && unsure > 0;
        let is_due = Instant::now() >= relist_at;
        if is_asked || is_settled && (is_new || is_unsure || is_due) {
            unsure = unsure.saturating_sub(1);
            relist_at = Instant::now() + RELIST_INTERVAL;
            published.clone_from(&seen);
            publish(file, publisher).await;
        }
    }
}

async fn publish(file: &Path, publisher: &SourcePublisher) {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    match read {
        Ok(Ok(listing)) => publisher.answered(listing, "", None),
        Ok(Err(fault)) => publisher.failed(fault),
        Err(_) => publisher.failed(Fault::malformed("the file could not be read")),
    }
}

/// Reads the file.
///
/// # Errors
/// Names it.
pub(super) fn read(file: &Path) -> Result<Listing, Fault> {
    let bytes = bounded::read_file(file)?;
    let named = |fault: Fault| Fault::new(fault.kind, format!("{}: {fault}", file.display()));
    let is_toml = file.extension().is_some_and(|one| one == "toml");
    let value = if is_toml {
        toml(&bytes)
    } else {
        bounded::json(&bytes)
    };
    value.and_then(|value| Listing::read(&value)).map_err(named)
}

fn toml(bytes: &[u8]) -> Result<Value, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::malformed("no text"))?;
    let value = toml::from_str::<Value>(text);
    value.map_err(|error| Fault::malformed(format!("no TOML: {}", error.message())))
}

fn stamp(file: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(file).ok()?;
    Some(Stamp {
        modified: meta.modified().ok(),
        length: meta.len(),
        target: std::fs::canonicalize(file).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::source;

    #[tokio::test(start_paused = true)]
    async fn a_file_without_a_change_is_confirmed_every_minute() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "[\"10.0.0.1:80\"]").unwrap();
        let (publisher, mut follower) = source::source();
        let began = Instant::now();
        let following = tokio::spawn(async move { super::follow(&path, &publisher).await });
        // The first look, and those behind it that make sure of it.
        let answers = 1 + u64::from(UNSURE_LOOKS) + 2;
        let told = follower.states.wait_for(|state| state.answers >= answers);
        assert!(told.await.unwrap().fault.is_none());
        let elapsed = began.elapsed();
        assert!(
            elapsed >= 2 * RELIST_INTERVAL && elapsed < 3 * RELIST_INTERVAL,
            "{elapsed:?}"
        );
        following.abort();
    }

    #[test]
    fn json_and_toml_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (json, toml) = (folder.path().join("a.json"), folder.path().join("a.toml"));
        std::fs::write(&json, "{\"backends\": [{\"name\": \"a\", \"address\": \"10.0.0.1:80\", \"weight\": 3}, \"10.0.0.2:80\"]}").unwrap();
        std::fs::write(
            &toml,
            "backends = [{ name = \"a\", address = \"10.0.0.1:80\", weight = 3 }, \"10.0.0.2:80\"]",
        )
        .unwrap();
        let found = read(&json).unwrap();
        assert_eq!(found.entries.len(), 2);
        assert_eq!(found, read(&toml).unwrap());
        std::fs::write(&toml, "backends = [").unwrap();
        let fault = read(&toml).unwrap_err();
        assert!(fault.message.contains("a.toml: no TOML"), "{fault}");
        assert!(read(folder.path()).is_err());
    }
}

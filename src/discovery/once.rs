//! One question to a source, for `check --connect`.

use super::entry::Entry;
use super::registry;
use super::source::{SourcePublisher, source};
use super::source_lookup::{self, DnsLookups};
use crate::config::{Discover, DiscoverSource};

/// Asks a source once; returns a line for each backend that it lists.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn ask_once(discover: &Discover) -> Result<Vec<String>, String> {
    let (publisher, follower) = source();
    let mut states = follower.states.clone();
    let nothing = || "it gives no answer".to_owned();
    let answered = states.wait_for(|state| state.answers > 0 || state.fault.is_some());
    let state = tokio::select! {
        () = ask(discover, &publisher) => return Err(nothing()),
        state = answered => state.map_err(|_| nothing())?.clone(),
    };
    match (state.fault, state.listing) {
        (Some(fault), _) => Err(fault.message),
        (None, Some(listing)) if listing.entries.is_empty() => Err("no backends".to_owned()),
        (None, Some(listing)) => {
            let skipped = listing.first_skipped.iter();
            let skipped = skipped.map(|first| format!("skipped {}: {first}", listing.skipped));
            Ok(listing.entries.iter().map(show).chain(skipped).collect())
        }
        (None, None) => Err(nothing()),
    }
}

async fn ask(discover: &Discover, publisher: &SourcePublisher) {
    match &discover.source {
        DiscoverSource::Registry(registry) => {
            registry::follow(registry, discover.timeout, publisher).await;
        }
        DiscoverSource::Dns { .. } | DiscoverSource::Srv { .. } => {
            source_lookup::follow(DnsLookups(discover.clone()), publisher, Vec::new()).await;
        }
    }
}

/// An entry on one line.
fn show(entry: &Entry) -> String {
    let weight = entry.weight.map(|weight| format!(", weight {weight}"));
    let weight = weight.unwrap_or_default();
    let drained = if entry.is_drained { ", drained" } else { "" };
    let backup = if entry.is_backup { ", backup" } else { "" };
    format!(
        "{} at {}{weight}{drained}{backup}",
        entry.name, entry.address
    )
}

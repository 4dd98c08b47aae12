//! Feed: the events of one process, numbered, formatted once and kept for a while. Each viewer has
//! a place in it, so a slow one holds no memory: it loses events and is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::kind::{EventKind, EventKinds, Events};
use crate::net::fds::MAX_EVENT_VIEWERS;

/// Events that are kept: a reload of a thousand backends, and the minutes before it.
const MAX_KEPT: usize = 4096;
/// Bytes of these: an event has a few hundred.
const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Events that a viewer takes at once, and their bytes: it holds so much of what is not kept any
/// more.
const MAX_BATCH: usize = 64;
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// The events, and the places of those that view them.
pub(in crate::admin) struct Feed {
    /// Names the process in the ids: one of another process says nothing here.
    epoch: String,
    kept: Mutex<KeptEvents>,
    /// Number of the newest event.
    newest: watch::Sender<u64>,
    /// Whether the producer has looked once: changes from then on are told.
    looked: watch::Sender<bool>,
    viewers: Arc<Semaphore>,
}

#[derive(Default)]
struct KeptEvents {
    newest: u64,
    /// Events up to this number are not kept.
    forgotten: u64,
    events: VecDeque<FeedEvent>,
    bytes: usize,
    /// The latest rates alone: they replace those before.
    rates: Option<FeedEvent>,
    is_produced: bool,
}

#[derive(Clone)]
struct FeedEvent {
    number: u64,
    kind: EventKind,
    text: Bytes,
}

/// Events after a viewer's place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub events: Vec<Bytes>,
    /// Place behind the last one, or behind all where no other is wanted.
    pub place: u64,
    /// Some are not kept any more.
    pub has_lost: bool,
}

impl Feed {
    /// `epoch`: a word that no other process has, without a dash.
    pub(in crate::admin) fn new(epoch: String) -> Arc<Feed> {
        Arc::new(Feed {
            epoch,
            kept: Mutex::default(),
            newest: watch::Sender::new(0),
            looked: watch::Sender::new(false),
            viewers: Arc::new(Semaphore::new(MAX_EVENT_VIEWERS)),
        })
    }

    /// Returns the permit of one more viewer; `None`: there are as many as may be.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.viewers).try_acquire_owned().ok()
    }

    pub(super) fn has_viewers(&self) -> bool {
        self.viewers.available_permits() < MAX_EVENT_VIEWERS
    }

    /// Claims the producer's part: true if there was no producer.
    pub(super) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.lock().is_produced, true)
    }

    /// Gives the producer's part back, unless a viewer has come. What happens until the next one
    /// begins is not seen, so all places are lost.
    pub(super) fn end(&self) -> bool {
        let mut kept = self.lock();
        if self.has_viewers() {
            return false;
        }
        self.looked.send_replace(false);
        let newest = kept.newest + 1;
        *kept = KeptEvents {
            newest,
            forgotten: newest,
            ..KeptEvents::default()
        };
        true
    }

    /// Numbers and keeps events, and wakes the viewers once.
    pub(super) fn publish(&self, events: Events) {
        if events.is_empty() {
            return;
        }
        let mut kept = self.lock();
        for (kind, data) in events {
            let number = kept.newest + 1;
            let text = self.format(number, kind, &data);
            kept.push(FeedEvent { number, kind, text });
        }
        let newest = kept.newest;
        drop(kept);
        self.newest.send_replace(newest);
    }

    /// Notes that the producer has looked.
    pub(super) fn note_look(&self) {
        self.looked
            .send_if_modified(|looked| !std::mem::replace(looked, true));
    }

    /// Whether the producer has looked, as it changes.
    pub(super) fn looked(&self) -> watch::Receiver<bool> {
        self.looked.subscribe()
    }

    /// Number of the newest event, as it changes.
    pub(super) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Returns the place where a viewer goes on: behind the event of `last_id` if all that followed
    /// is kept, else behind the newest one. True: it goes on.
    pub(super) fn place(&self, last_id: Option<&str>) -> (u64, bool) {
        let kept = self.lock();
        let known = last_id
            .and_then(|id| {
                id.strip_prefix(&self.epoch)?
                    .strip_prefix('-')?
                    .parse()
                    .ok()
            })
            .filter(|number| (kept.forgotten..=kept.newest).contains(number));
        (known.unwrap_or(kept.newest), known.is_some())
    }

    /// Formats an event that is for one viewer alone, at its place.
    pub(super) fn format(&self, number: u64, kind: EventKind, data: &str) -> Bytes {
        let word = kind.word();
        Bytes::from(format!(
            "id: {}-{number}\nevent: {word}\ndata: {data}\n\n",
            self.epoch
        ))
    }

    /// Returns the next events of `kinds` behind `place`: at most [`MAX_BATCH`].
    pub(super) fn after(&self, place: u64, kinds: EventKinds) -> Batch {
        let kept = self.lock();
        let from = kept.events.partition_point(|event| event.number <= place);
        let newer = kept.events.range(from..);
        let rates = kept.rates.iter().filter(|event| event.number > place);
        let mut events: Vec<&FeedEvent> = newer
            .chain(rates)
            .filter(|one| kinds.has(one.kind))
            .collect();
        events.sort_by_key(|event| event.number);
        let (mut batch, mut bytes) = (Batch::default(), 0);
        let count = events.iter().take(MAX_BATCH).take_while(|event| {
            bytes += event.text.len();
            // One event goes whatever its size is.
            bytes <= MAX_BATCH_BYTES || bytes == event.text.len()
        });
        let count = count.count();
        let (taken, left) = events.split_at_checked(count).unwrap_or((&events, &[]));
        batch.events = taken.iter().map(|event| event.text.clone()).collect();
        let last = taken.last().filter(|_| !left.is_empty());
        batch.place = last.map_or(kept.newest, |event| event.number);
        batch.has_lost = place < kept.forgotten;
        batch
    }

    /// Locks the events; nothing panics while they are locked, and they would still be whole.
    fn lock(&self) -> MutexGuard<'_, KeptEvents> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptEvents {
    fn push(&mut self, event: FeedEvent) {
        self.newest = event.number;
        if event.kind == EventKind::Rates {
            self.rates = Some(event);
            return;
        }
        self.bytes += event.text.len();
        self.events.push_back(event);
        while self.events.len() > MAX_KEPT || self.bytes > MAX_KEPT_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.text.len();
            self.forgotten = oldest.number;
        }
    }
}

/// Writes the data of an event.
pub(super) fn data(value: &impl Serialize) -> String {
    // The views hold text and numbers, which are always JSON.
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> EventKinds {
        EventKinds::parse(None).unwrap()
    }

    fn published(kinds: &[EventKind]) -> Arc<Feed> {
        let feed = Feed::new("a1".into());
        for kind in kinds {
            feed.publish(vec![(*kind, "{}".into())]);
        }
        feed
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        let number = |text: &Bytes| {
            let text = std::str::from_utf8(text).unwrap();
            let id = text.lines().next().unwrap();
            id.strip_prefix("id: a1-").unwrap().parse().unwrap()
        };
        batch.events.iter().map(number).collect()
    }

    #[test]
    fn a_viewer_gets_what_comes_after_its_place_in_order() {
        use EventKind::{Backend, Job, Rates};
        let feed = published(&[Backend, Rates, Job, Rates, Backend]);
        let batch = feed.after(1, all());
        assert_eq!(numbers(&batch), [3, 4, 5], "only the latest rates");
        assert_eq!((batch.place, batch.has_lost), (5, false));
        let jobs = EventKinds::parse(Some("types=job")).unwrap();
        assert_eq!(numbers(&feed.after(0, jobs)), [3]);
        let text = feed.after(4, all()).events.remove(0);
        assert_eq!(text, "id: a1-5\nevent: backend\ndata: {}\n\n");
    }

    #[test]
    fn many_events_are_taken_in_batches() {
        let feed = published(&[EventKind::Job; MAX_BATCH + 1]);
        let first = feed.after(0, all());
        assert_eq!(first.events.len(), MAX_BATCH);
        let second = feed.after(first.place, all());
        assert_eq!(numbers(&second), [MAX_BATCH as u64 + 1]);
        assert_eq!(feed.after(second.place, all()).events, [""; 0]);
    }

    #[test]
    fn an_id_is_a_place_only_here_and_while_what_followed_is_kept() {
        let feed = published(&[EventKind::Job; 3]);
        assert_eq!(feed.place(Some("a1-2")), (2, true));
        assert_eq!(feed.place(Some("a1-3")), (3, true));
        for other in [
            None,
            Some("a1-4"),
            Some("b1-2"),
            Some("a1"),
            Some("2"),
            Some(""),
        ] {
            assert_eq!(feed.place(other), (3, false), "{other:?}");
        }
        assert!(feed.begin() && !feed.begin());
        assert!(feed.end());
        assert_eq!(
            feed.place(Some("a1-3")),
            (4, false),
            "the time without a producer"
        );
        assert!(feed.begin());
    }

    #[test]
    fn the_producer_stays_while_somebody_views() {
        let feed = published(&[]);
        assert!(feed.begin());
        let permits: Vec<_> = (0..MAX_EVENT_VIEWERS)
            .map(|_| feed.enter().unwrap())
            .collect();
        assert!(feed.enter().is_none());
        assert!(!feed.end() && !feed.begin());
        drop(permits);
        assert!(feed.end());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_and_a_loss_is_told(
            sizes in prop::collection::vec(0..MAX_KEPT_BYTES / 8, 1..40),
            place in 0..40_u64,
        ) {
            let feed = Feed::new("a1".into());
            for size in &sizes {
                feed.publish(vec![(EventKind::Backend, "x".repeat(*size))]);
            }
            let kept = feed.lock();
            prop_assert!(kept.bytes <= MAX_KEPT_BYTES);
            let bytes: usize = kept.events.iter().map(|event| event.text.len()).sum();
            prop_assert_eq!(kept.bytes, bytes);
            let held = kept.events.len() as u64;
            drop(kept);
            let mut batch = feed.after(place, all());
            let wanted = (sizes.len() as u64).saturating_sub(place);
            prop_assert_eq!(batch.has_lost, wanted > held);
            let mut taken = Vec::new();
            while !batch.events.is_empty() {
                let bytes: usize = batch.events.iter().map(Bytes::len).sum();
                prop_assert!(bytes <= MAX_BATCH_BYTES || batch.events.len() == 1);
                taken.extend(numbers(&batch));
                batch = feed.after(batch.place, all());
            }
            let newest = sizes.len() as u64;
            let rest: Vec<u64> = (newest - wanted.min(held) + 1..=newest).collect();
            prop_assert_eq!(taken, rest);
        }
    }
}

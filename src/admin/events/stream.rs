//! Stream of one viewer: server-sent events from its place in the feed on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, data};
use super::kind::{EventKind, EventKinds};
use crate::admin::page_body::PageBroken;
use crate::admin::view::{HelloEvent, LostEvent};

/// Time after which a comment is sent where nothing else was: proxies close what is silent for a
/// minute or half of one. A viewer whose right has ended is found within that time.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Body of a stream.
pub(in crate::admin) type EventBody =
    StreamBody<BoxStream<'static, Result<Frame<Bytes>, PageBroken>>>;

/// Viewer of the events.
pub(in crate::admin) struct Viewer {
    feed: Arc<Feed>,
    kinds: EventKinds,
    place: u64,
    newest: watch::Receiver<u64>,
    looked: watch::Receiver<bool>,
    /// Events on their way.
    batch: std::vec::IntoIter<Bytes>,
    /// When it was sent something: events of other kinds are no sign of life.
    sent_at: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Viewer {
    /// Enters at the place of `last_id`; `None`: there are as many viewers as may be. `hello` says
    /// who answers.
    pub(in crate::admin) fn enter(
        feed: &Arc<Feed>,
        kinds: EventKinds,
        last_id: Option<&str>,
        hello: HelloEvent,
    ) -> Option<Viewer> {
        let permit = feed.enter()?;
        let newest = feed.newest();
        let (place, resumed) = feed.place(last_id);
        let hello = data(&HelloEvent { resumed, ..hello });
        let hello = feed.format(place, EventKind::Hello, &hello);
        Some(Viewer {
            feed: Arc::clone(feed),
            kinds,
            place,
            newest,
            looked: feed.looked(),
            batch: vec![hello].into_iter(),
            sent_at: Instant::now(),
            _permit: permit,
        })
    }

    /// Streams until `stop`, or until `may_view` says no.
    pub(in crate::admin) fn stream(
        self,
        stop: CancellationToken,
        may_view: impl Fn() -> bool + Send + Sync + 'static,
    ) -> EventBody {
        let state = (self, stop, Arc::new(may_view));
        let events = stream::unfold(state, async |(mut viewer, stop, may_view)| {
            // Cancel safe: the viewer's place moves without a wait.
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                next = viewer.next(&*may_view) => next,
            };
            next.map(|event| (Ok(Frame::data(event)), (viewer, stop, may_view)))
        });
        StreamBody::new(events.boxed())
    }

    /// Returns the next event or a comment; `None`: it may not view any more.
    async fn next(&mut self, may_view: &(dyn Fn() -> bool + Send + Sync)) -> Option<Bytes> {
        let next = self.find_next(may_view).await;
        self.sent_at = Instant::now();
        next
    }

    async fn find_next(&mut self, may_view: &(dyn Fn() -> bool + Send + Sync)) -> Option<Bytes> {
        // Who asks for the state after `hello` misses no change.
        self.looked.wait_for(|looked| *looked).await.ok()?;
        loop {
            if !may_view() {
                return None;
            }
            if let Some(event) = self.batch.next() {
                return Some(event);
            }
            // Noted before the look: what comes after it wakes.
            self.newest.mark_unchanged();
            let batch = self.feed.after(self.place, self.kinds);
            self.place = batch.place;
            if batch.has_lost {
                // Who asks for the state now needs none of what is kept.
                self.place = *self.newest.borrow_and_update();
                let lost = data(&LostEvent {});
                let lost = self.feed.format(self.place, EventKind::Lost, &lost);
                return Some(lost);
            }
            if !batch.events.is_empty() {
                self.batch = batch.events.into_iter();
                continue;
            }
            match timeout_at(self.sent_at + KEEP_ALIVE, self.newest.changed()).await {
                Ok(changed) => changed.ok()?,
                Err(_) => return Some(COMMENT),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn viewer(feed: &Arc<Feed>, last_id: Option<&str>) -> Viewer {
        let hello = HelloEvent {
            process: 1,
            version: "1".into(),
            started_at: String::new(),
            configuration: 1,
            resumed: false,
        };
        Viewer::enter(feed, EventKinds::parse(None).unwrap(), last_id, hello).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_other_kinds_hold_no_comment_back() {
        let feed = feed();
        let viewer = Viewer {
            kinds: EventKinds::parse(Some("types=job")).unwrap(),
            ..viewer(&feed, None)
        };
        let began = Instant::now();
        let mut body = viewer.stream(CancellationToken::new(), || true);
        next(&mut body).await.unwrap();
        let rates = async {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                feed.publish(vec![(EventKind::Rates, "{}".to_owned())]);
            }
        };
        let seen = tokio::select! {
            seen = next(&mut body) => seen,
            () = rates => None,
        };
        assert_eq!(seen.as_deref(), Some(":\n\n"));
        assert_eq!(began.elapsed(), KEEP_ALIVE);
    }

    fn feed() -> Arc<Feed> {
        let feed = Feed::new("a".into());
        feed.note_look();
        feed
    }

    async fn next(body: &mut EventBody) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    fn tell(feed: &Feed, data: &str) {
        feed.publish(vec![(EventKind::Job, data.to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_hello_then_what_happens_and_a_comment_now_and_then() {
        let feed = feed();
        tell(&feed, "before");
        let stop = CancellationToken::new();
        let mut body = viewer(&feed, None).stream(stop.clone(), || true);
        let hello = next(&mut body).await.unwrap();
        assert!(hello.starts_with("id: a-1\nevent: hello\n"), "{hello}");
        assert!(hello.contains("\"resumed\":false"), "{hello}");
        tell(&feed, "now");
        assert_eq!(
            next(&mut body).await.unwrap(),
            "id: a-2\nevent: job\ndata: now\n\n"
        );
        assert_eq!(next(&mut body).await.unwrap(), ":\n\n");
        stop.cancel();
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_back_gets_what_it_missed() {
        let feed = feed();
        for event in ["1", "2", "3"] {
            tell(&feed, event);
        }
        let mut body = viewer(&feed, Some("a-1")).stream(CancellationToken::new(), || true);
        assert!(next(&mut body).await.unwrap().contains("\"resumed\":true"));
        for event in ["2", "3"] {
            let seen = next(&mut body).await.unwrap();
            assert!(seen.ends_with(&format!("data: {event}\n\n")), "{seen}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_loses_events_and_is_told() {
        let feed = feed();
        let mut body = viewer(&feed, None).stream(CancellationToken::new(), || true);
        next(&mut body).await.unwrap();
        for _ in 0..10_000 {
            tell(&feed, "x");
        }
        assert_eq!(
            next(&mut body).await.unwrap(),
            "id: a-10000\nevent: lost\ndata: {}\n\n"
        );
        tell(&feed, "y");
        assert!(next(&mut body).await.unwrap().ends_with("data: y\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_may_not_view_any_more_is_ended() {
        let feed = feed();
        let may = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let still = Arc::clone(&may);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let mut body =
            viewer(&feed, None).stream(CancellationToken::new(), move || still.load(relaxed));
        next(&mut body).await.unwrap();
        tell(&feed, "known");
        tell(&feed, "secret");
        assert!(next(&mut body).await.unwrap().contains("known"));
        may.store(false, relaxed);
        assert_eq!(next(&mut body).await, None);
    }
}

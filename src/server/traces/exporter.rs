//! The task that sends finished spans to the collector, batch by batch.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::oneshot;
use tokio::time::{sleep, sleep_until};

use super::{headers, otlp};
use crate::base::backoff::Backoff;
use crate::base::log_throttle::LogThrottle;
use crate::config::Traces;
use crate::discovery::{Collector, CollectorAnswer};
use crate::observe::{Journal, Span, SpanQueue, Spans};
use crate::server::state::Server;

/// Spans of one request: as the batches of OpenTelemetry's SDKs.
const MAX_BATCH: usize = 512;
/// Longest time that a span waits for others to go along with it.
const INTERVAL: Duration = Duration::from_secs(1);
/// Tries of one batch: with their waits 12 s, a restart of the collector.
const MAX_TRIES: usize = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Longest wait that a collector may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Between two warnings: each batch of a collector that is gone fails.
const WARN_SPACING: Duration = Duration::from_secs(60);

pub(super) struct Exporter {
    /// Weak: the server's end is the queue's, and so this task's.
    server: Weak<Server>,
    queue: SpanQueue,
    /// Id of this process among those of its service.
    instance: String,
    target: Option<Target>,
    warned: LogThrottle,
}

/// The collector of the present settings.
struct Target {
    settings: Traces,
    collector: Collector,
}

/// Spans that go in one request.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    /// Those who wait for it.
    flushed: Vec<oneshot::Sender<()>>,
}

/// Result of one request.
enum Outcome {
    Taken {
        rejected: usize,
    },
    /// May be sent again, after this time if the collector names one.
    Busy {
        why: String,
        wait: Option<Duration>,
    },
    Refused {
        why: String,
    },
}

impl Exporter {
    pub(super) fn new(server: &Arc<Server>, queue: SpanQueue) -> Exporter {
        Exporter {
            server: Arc::downgrade(server),
            queue,
            instance: format!("{:032x}", fastrand::u128(..)),
            target: None,
            warned: LogThrottle::new(WARN_SPACING),
        }
    }

    /// Exports until the server is gone.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            let Some(server) = self.server.upgrade() else {
                return;
            };
            let settings = server.config().traces.clone();
            let journal = Arc::clone(server.journal());
            drop(server);
            match settings {
                Some(settings) if !batch.spans.is_empty() => {
                    self.export(settings, &batch.spans, &journal).await;
                }
                _ => journal.tracer().lose(batch.spans.len()),
            }
            for flushed in batch.flushed {
                // One that has not waited so long is gone.
                let _ = flushed.send(());
            }
        }
    }

    /// Collects what is finished, until it is enough, has waited long enough, or is waited for.
    async fn next_batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        batch.take(self.queue.recv().await?);
        let until = tokio::time::Instant::now() + INTERVAL;
        while batch.spans.len() < MAX_BATCH && batch.flushed.is_empty() {
            // Cancel safe: both only wait.
            tokio::select! {
                biased;
                next = self.queue.recv() => match next {
                    Some(next) => batch.take(next),
                    None => break,
                },
                () = sleep_until(until) => break,
            }
        }
        Some(batch)
    }

    /// Sends a batch, more than once where that may help.
    async fn export(&mut self, settings: Traces, spans: &[Span], journal: &Arc<Journal>) {
        let tracer = journal.tracer();
        let resource = otlp::resource(&settings.service_name, &self.instance);
        let body = otlp::encode(&resource, spans);
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        for tries in 1..=MAX_TRIES {
            let fields = fields(&settings).await;
            let target = Target::of(&mut self.target, &settings);
            let outcome = match fields {
                Ok(fields) => read(target.collector.post(&fields, body.clone()).await),
                Err(why) => Outcome::Busy { why, wait: None },
            };
            let (why, wait) = match outcome {
                Outcome::Taken { rejected } => {
                    let rejected = rejected.min(spans.len());
                    tracer.sent(spans.len() - rejected);
                    return tracer.lose(rejected);
                }
                Outcome::Busy { why, wait } => (why, Some(wait.unwrap_or(backoff.next()))),
                Outcome::Refused { why } => (why, None),
            };
            tracer.failed();
            if self.warned.is_due(Instant::now()) {
                tracing::warn!(endpoint = %settings.endpoint, error = %why, "traces cannot be sent");
            }
            match wait.filter(|_| tries < MAX_TRIES) {
                Some(wait) => sleep(wait).await,
                None => break,
            }
        }
        tracer.lose(spans.len());
    }
}

impl Batch {
    fn take(&mut self, order: Spans) {
        match order {
            Spans::Finished(spans) => self.spans.extend(spans),
            Spans::Flush(flushed) => self.flushed.push(flushed),
        }
    }
}

impl Target {
    /// The collector of these settings: that of before, if they are the same.
    fn of<'t>(target: &'t mut Option<Target>, settings: &Traces) -> &'t mut Target {
        let known = target.take().filter(|known| known.settings == *settings);
        target.insert(known.unwrap_or_else(|| Target {
            collector: Collector::new(
                &settings.endpoint,
                settings.path(),
                settings.tls.as_ref(),
                settings.timeout,
            ),
            settings: settings.clone(),
        }))
    }
}

/// Header fields of a request, with those of the file as it is now.
async fn fields(settings: &Traces) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    if let Some(file) = settings.headers_file.clone() {
        // A file may be on a disk that hangs.
        let read = tokio::task::spawn_blocking(move || headers::read(&file)).await;
        fields = read
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
    }
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    fields.insert(header::CONTENT_TYPE, protobuf);
    let agent = HeaderValue::from_static(concat!("evenkeel/", env!("CARGO_PKG_VERSION")));
    fields.insert(header::USER_AGENT, agent);
    Ok(fields)
}

/// Reads an answer as OTLP defines it ("OTLP/HTTP response").
fn read(answer: Result<CollectorAnswer, String>) -> Outcome {
    let CollectorAnswer {
        status,
        headers,
        body,
    } = match answer {
        Ok(answer) => answer,
        Err(why) => return Outcome::Busy { why, wait: None },
    };
    if status.is_success() {
        let rejected = otlp::rejected(&body);
        if let Some((count, why)) = &rejected {
            tracing::debug!(count, error = why, "spans were rejected");
        }
        let rejected = rejected.map_or(0, |(count, _)| count);
        return Outcome::Taken { rejected };
    }
    let why = format!("the collector answers {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Busy {
            why,
            wait: retry_after(&headers),
        },
        _ => Outcome::Refused { why },
    }
}

/// The wait that a collector asks for, in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = Duration::from_secs(seconds.trim().parse().ok()?);
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &'static str)]) -> Outcome {
        let headers = fields.iter().map(|(name, value)| {
            (
                name.parse::<header::HeaderName>().unwrap(),
                HeaderValue::from_static(value),
            )
        });
        read(Ok(CollectorAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: Vec::new(),
        }))
    }

    #[test]
    fn only_what_otlp_calls_retryable_is_sent_again() {
        assert!(matches!(answer(200, &[]), Outcome::Taken { rejected: 0 }));
        for busy in [429, 502, 503, 504] {
            assert!(matches!(
                answer(busy, &[]),
                Outcome::Busy { wait: None, .. }
            ));
        }
        for refused in [301, 400, 401, 404, 413, 500] {
            assert!(
                matches!(answer(refused, &[]), Outcome::Refused { .. }),
                "{refused}"
            );
        }
        let unreachable = read(Err("connection refused".to_owned()));
        assert!(matches!(unreachable, Outcome::Busy { .. }));
    }

    #[test]
    fn the_collector_names_its_wait_up_to_a_bound() {
        let wait = |value| match answer(503, &[("retry-after", value)]) {
            Outcome::Busy { wait, .. } => wait,
            _ => None,
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("soon"), None);
    }
}

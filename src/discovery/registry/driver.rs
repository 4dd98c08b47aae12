//! The loop around an HTTP registry: asks what its protocol wants to know, waits longer after each
//! fault, and publishes the answers.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::client::{HttpAnswer, HttpClient};
use super::{HttpSource, Publication, ReplyKind, SourceAnswer, SourceRequest};
use crate::base::backoff::Backoff;
use crate::config::Registry;
use crate::discovery::fault::{Fault, FaultKind};
use crate::discovery::source::SourcePublisher;
use crate::remote::read_secret;

/// Waits after faults: soon enough for a restart of the registry, and no storm on one that is gone.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(100);
pub(super) const MAX_RETRY: Duration = Duration::from_secs(30);

/// A watch or a connection that lasted for so long was a success, however it ended.
pub(super) const LASTING: Duration = Duration::from_secs(5);

/// Time without a further line after which a change of a watch is whole.
const QUIET: Duration = Duration::from_millis(100);

/// Longest time that a change waits for further lines.
const MAX_QUIET: Duration = Duration::from_millis(300);

/// Asks one registry.
pub(super) struct HttpDriver<'a> {
    registry: &'a Registry,
    client: HttpClient,
    source: Box<dyn HttpSource>,
    /// When the server took the watch that is under way, or that was.
    watched_from: Option<Instant>,
}

impl<'a> HttpDriver<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        timeout: Duration,
        source: Box<dyn HttpSource>,
    ) -> HttpDriver<'a> {
        let urls = registry.kind.urls();
        HttpDriver {
            registry,
            client: HttpClient::new(urls, registry.tls.as_ref(), timeout),
            source,
            watched_from: None,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self, publisher: &SourcePublisher) {
        let mut retries = Backoff::new(FIRST_RETRY, MAX_RETRY);
        loop {
            let (began, before) = (Instant::now(), publisher.answers());
            // Somebody who wants it asked at once ends a watch, and every wait.
            let exchanged = tokio::select! {
                exchanged = self.exchange(publisher) => Some(exchanged),
                () = publisher.asked() => None,
            };
            let watched_from = self.watched_from.take();
            if watched_from.is_some_and(|from| from.elapsed() >= LASTING) {
                retries.reset();
            }
            match exchanged {
                // A login alone is no success, nor is a listing that a watch has to follow.
                Some(Ok(())) => {
                    let is_listed = publisher.answers() > before || began.elapsed() >= LASTING;
                    if is_listed && !self.source.watches() {
                        retries.reset();
                    }
                }
                None => {
                    self.client.close();
                    self.source.restart();
                }
                Some(Err(fault)) => {
                    publisher.failed(fault);
                    self.client.turn();
                    self.source.restart();
                    let wait = retries.next().mul_f64(fastrand::f64());
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = publisher.asked() => {}
                    }
                }
            }
        }
    }

    /// Makes one request and takes its answer, or the lines of a watch to their end.
    async fn exchange(&mut self, publisher: &SourcePublisher) -> Result<(), Fault> {
        let file = self.registry.token_file.as_deref();
        // Read each time: it is small, and may be another one by now.
        let secret = file.map(read_secret).transpose()?;
        let request = self.source.next(secret.as_deref());
        sleep(request.after).await;
        let hidden = |fault| hide(fault, secret.as_deref());
        let exchanged = match request.reply {
            ReplyKind::Whole { patience } => self.ask(&request, patience, publisher).await,
            ReplyKind::Lines { time } => self.watch(&request, time, publisher).await,
        };
        exchanged.map_err(hidden)
    }

    async fn ask(
        &mut self,
        request: &SourceRequest,
        patience: Duration,
        publisher: &SourcePublisher,
    ) -> Result<(), Fault> {
        let answer = self.client.send(request, patience).await?;
        self.take_whole(answer, publisher).await
    }

    async fn take_whole(
        &mut self,
        answer: HttpAnswer,
        publisher: &SourcePublisher,
    ) -> Result<(), Fault> {
        let body = self.client.read_whole(answer.body).await?;
        let answer = SourceAnswer {
            status: answer.status,
            headers: &answer.headers,
            body: &body,
        };
        publish(publisher, self.source.answered(answer)?);
        Ok(())
    }

    async fn watch(
        &mut self,
        request: &SourceRequest,
        time: Duration,
        publisher: &SourcePublisher,
    ) -> Result<(), Fault> {
        let until = Instant::now() + time;
        let mut answer = self.client.send(request, Duration::ZERO).await?;
        if !answer.status.is_success() {
            return self.take_whole(answer, publisher).await;
        }
        self.watched_from = Some(Instant::now());
        // Lines that come close together are one change: a service whose parts vanish one by one
        // must be judged by what is left.
        let (mut pending, mut due) = (None, until);
        loop {
            let quiet = Instant::now() + QUIET;
            let wake_at = if pending.is_some() {
                due.min(quiet)
            } else {
                until
            };
            match timeout_at(wake_at, answer.body.line()).await {
                Ok(Ok(Some(line))) => {
                    let taken = self.source.line(&line)?;
                    if pending.is_none() {
                        due = until.min(Instant::now() + MAX_QUIET);
                    }
                    pending = taken.or(pending);
                    if Instant::now() < due {
                        continue;
                    }
                }
                Ok(Ok(None)) => return Err(Fault::new(FaultKind::Unreachable, "the watch ended")),
                Ok(Err(fault)) => return Err(fault),
                Err(_) => {}
            }
            publish(publisher, pending.take());
            if Instant::now() >= until {
                break;
            }
        }
        // Everything is read again.
        self.client.close();
        self.source.restart();
        Ok(())
    }
}

fn publish(publisher: &SourcePublisher, publication: Option<Publication>) {
    if let Some(Publication { listing, revision }) = publication {
        publisher.answered(listing, &revision, None);
    }
}

/// A server may repeat what was sent to it.
pub(super) fn hide(fault: Fault, secret: Option<&str>) -> Fault {
    match secret {
        Some(secret) if fault.message.contains(secret) => {
            Fault::new(fault.kind, "an answer that repeats the token")
        }
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RegistryKind, RegistryUrl};
    use crate::discovery::registry::{follow, simulation};
    use crate::discovery::source;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// An API server that lists and refuses watches.
    async fn refuse_watches(mut stream: TcpStream) {
        let mut request = Vec::new();
        while stream
            .read_buf(&mut request)
            .await
            .is_ok_and(|read| read > 0)
        {
            if !request.ends_with(b"\r\n\r\n") {
                continue;
            }
            let asked = String::from_utf8(std::mem::take(&mut request)).unwrap();
            let (status, body) = if asked.contains("watch=") {
                ("403 Forbidden", "{}")
            } else {
                (
                    "200 OK",
                    "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}",
                )
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_is_asked_for_ever_more_rarely() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(refuse_watches(stream));
            }
        });
        let kind = RegistryKind::Kubernetes(RegistryUrl::parse(&url).unwrap());
        let registry = simulation::registry(kind);
        let (publisher, mut follower) = source::source();
        let began = Instant::now();
        let hour = Duration::from_secs(3600);
        let asking = tokio::spawn(async move { follow(&registry, hour, &publisher).await });
        let faults = follower
            .states
            .wait_for(|state| state.faults.iter().sum::<u64>() >= 20);
        let state = faults.await.unwrap().clone();
        assert_eq!(state.fault.unwrap().kind, FaultKind::Denied);
        assert!(state.answers >= 19, "{}", state.answers);
        // Twelve of the waits are up to 30 s.
        assert!(
            began.elapsed() > Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
        asking.abort();
    }
}

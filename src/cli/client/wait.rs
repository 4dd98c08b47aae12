//! `--wait`: returns when the last connection is gone, however long that takes, and shows the
//! progress on a terminal.

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, interval_at, sleep};

use super::arguments::OutputFormat;
use super::ask::{ANSWER_TIMEOUT, connections, parse, to_json};
use super::jobs;
use super::request::{ApiRequest, send, send_unless_later};
use super::subject::Subject;
use super::target::AdminTarget;
use crate::admin::MAX_WAIT;
use crate::admin::view::{JobView, JobsView, ListenerView, OperatedListenerView, OperatedView};
use crate::cli::failure::CommandError;

/// Time between two polls of what is left.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Goes back to the beginning of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Operation under way.
pub(super) struct WaitTask<'a> {
    target: &'a AdminTarget,
    subject: &'a Subject,
    shows_progress: bool,
    local: bool,
}

/// Subject of an operation, as the latest answer shows it.
pub(super) struct WaitOutcome {
    /// JSON of the endpoint. Past its longest wait it is put together here, in the same form.
    pub answer: Bytes,
    name: String,
    state: String,
    /// Connections that are left.
    pub live: u64,
    job: Option<JobView>,
}

#[derive(Deserialize)]
struct ListenersAnswer {
    listeners: Vec<ListenerView>,
}

impl<'a> WaitTask<'a> {
    pub(super) fn new(target: &'a AdminTarget, subject: &'a Subject, output: OutputFormat) -> Self {
        Self {
            target,
            subject,
            shows_progress: output == OutputFormat::Table && std::io::stderr().is_terminal(),
            local: false,
        }
    }

    /// On this balancer, whatever the store of its cluster says.
    pub(super) fn local(mut self, local: bool) -> Self {
        self.local = local;
        self
    }

    /// Performs an operation. With `wait` it returns when no connection is left, or at that time.
    pub(super) async fn operate(
        &self,
        operation: &str,
        wait: Option<Duration>,
        body: &Value,
    ) -> Result<WaitOutcome, CommandError> {
        let began = Instant::now();
        let first = wait.map(|wait| wait.min(MAX_WAIT));
        let path = self.subject.path(operation, first, self.local);
        let timeout = ANSWER_TIMEOUT.saturating_add(first.unwrap_or_default());
        let answer = send_unless_later(self.target, ApiRequest::post(&path, body), timeout);
        let answer = if wait.is_some() && self.shows_progress {
            self.progress_until(answer).await?
        } else {
            answer.await?
        };
        let mut outcome = if let Some(answer) = answer {
            WaitOutcome::parse(self.subject, answer)?
        } else {
            // Another process has taken over, with the state and the sessions.
            sleep(POLL_INTERVAL).await;
            self.poll(None).await?
        };
        // The endpoint limits its wait; to repeat the operation could start another job.
        let until = began + wait.unwrap_or_default();
        while outcome.live > 0 && Instant::now() < until {
            sleep(POLL_INTERVAL.min(until - Instant::now())).await;
            let job = outcome.job.map(|job| job.id);
            outcome = self.poll(job).await?;
            self.show(&outcome);
        }
        if wait.is_some() {
            self.write(CLEAR);
        }
        Ok(outcome)
    }

    /// Shows the progress until the answer comes.
    async fn progress_until<T>(
        &self,
        answer: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let mut answer = pin!(answer);
        let mut polls = interval_at(Instant::now() + POLL_INTERVAL, POLL_INTERVAL);
        loop {
            tokio::select! {
                answer = &mut answer => {
                    self.write(CLEAR);
                    return answer;
                }
                // A poll that fails is not shown: the answer will say why.
                _ = polls.tick() => if let Ok(outcome) = self.poll(None).await {
                    self.show(&outcome);
                },
            }
        }
    }

    /// Asks for the subject as it is now, with its job.
    async fn poll(&self, known: Option<u64>) -> Result<WaitOutcome, CommandError> {
        let job = self.job(known).await?;
        let answer = match self.subject {
            Subject::Backend(_) => {
                let backend = parse(&self.get(&self.subject.base()).await?)?;
                to_json(&OperatedView::new(backend, job))?
            }
            Subject::Listener(name) => {
                let answer = self.get("/api/v1/listeners").await?;
                let ListenersAnswer { listeners } = parse(&answer)?;
                let mut listeners = listeners.into_iter();
                let listener = listeners.find(|one| one.name == *name).ok_or_else(|| {
                    CommandError::Other(format!("listener {name} does not exist any more"))
                })?;
                to_json(&OperatedListenerView::new(listener, job))?
            }
        };
        WaitOutcome::parse(self.subject, answer.into())
    }

    /// Returns the job that runs on the subject, or the job `known`, if that is over.
    async fn job(&self, known: Option<u64>) -> Result<Option<JobView>, CommandError> {
        let JobsView { jobs } = parse(&self.get("/api/v1/jobs").await?)?;
        let name = self.subject.name();
        let is_of =
            |job: &JobView| job.target == name && (!jobs::is_over(job) || Some(job.id) == known);
        Ok(jobs.into_iter().rev().find(is_of))
    }

    async fn get(&self, path: &str) -> Result<Bytes, CommandError> {
        send(self.target, ApiRequest::get(path), ANSWER_TIMEOUT).await
    }

    fn show(&self, outcome: &WaitOutcome) {
        let line = progress(&outcome.name, outcome.live, outcome.job.as_ref());
        self.write(&format!("{CLEAR}{line}"));
    }

    fn write(&self, text: &str) {
        if self.shows_progress {
            let mut out = std::io::stderr().lock();
            // Progress that nobody reads is not worth an error.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

impl WaitOutcome {
    fn parse(subject: &Subject, answer: Bytes) -> Result<WaitOutcome, CommandError> {
        let (state, live, job) = match subject {
            Subject::Backend(_) => {
                let OperatedView { backend, job, .. } = parse(&answer)?;
                (backend.state, backend.live, job)
            }
            Subject::Listener(_) => {
                let OperatedListenerView { listener, job, .. } = parse(&answer)?;
                (listener.state, listener.counters.live, job)
            }
        };
        Ok(WaitOutcome {
            answer,
            name: subject.name(),
            state,
            live,
            job,
        })
    }

    /// Describes it for people, ending with a line end.
    pub(super) fn describe(&self) -> String {
        let live = connections(self.live);
        let state = format!("{}: {}, {live}\n", self.name, self.state);
        match &self.job {
            // It has not counted yet.
            Some(job) if self.live == 0 && job.left == 0 && !jobs::is_over(job) => {
                let phase = "done".to_owned();
                let job = JobView {
                    phase,
                    ..job.clone()
                };
                format!("{state}{}", jobs::line(&job))
            }
            Some(job) => format!("{state}{}", jobs::line(job)),
            None => state,
        }
    }
}

/// Writes the progress in one line.
fn progress(name: &str, live: u64, job: Option<&JobView>) -> String {
    let mut line = format!("{name}: {} left", connections(live));
    if let Some(job) = job {
        match waits_for(job) {
            Some(after) => line.push_str(&format!(", waits for `after` ({after})")),
            None => line.push_str(&format!(", {} ended", job.ended)),
        }
        if let Some(eta) = jobs::eta(job) {
            line.push_str(&format!(", about {eta}"));
        }
    }
    line
}

/// Returns the `after` of a job that waits for it.
fn waits_for(job: &JobView) -> Option<&str> {
    let after = job
        .pace
        .split(", ")
        .find_map(|part| part.strip_prefix("after "));
    after.filter(|_| job.phase == "waiting")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_what_is_left_and_for_how_long() {
        assert_eq!(progress("chat/n1", 1, None), "chat/n1: 1 connection left");
        let job = jobs::running();
        assert_eq!(
            progress("chat/n1", 490, Some(&job)),
            "chat/n1: 490 connections left, 10 ended, about 5s"
        );
        let job = JobView {
            phase: "waiting".into(),
            pace: "100/s, after 10m".into(),
            ..job
        };
        assert_eq!(
            progress("chat/n1", 500, Some(&job)),
            "chat/n1: 500 connections left, waits for `after` (10m), about 5s"
        );
    }
}

//! `--wait`: returns when the last connection is gone, however long that takes, and tells on a terminal how far it is.

use std::io::{IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use tokio::time::{Instant, interval_at, sleep};

use super::arguments::OutputFormat;
use super::operate::{Subject, operated, operated_listener};
use super::target::AdminTarget;
use super::{ANSWER_TIMEOUT, call, connections, jobs, understand};
use crate::admin::MAX_WAIT;
use crate::admin::view::{
    BackendView, JobView, JobsView, ListenerView, OperatedListenerView, OperatedView,
};
use crate::cli::failure::CommandError;

/// Between two looks at what is left.
const LOOK_SPACING: Duration = Duration::from_secs(1);
/// Goes back to the line's begin and clears it.
const CLEAR: &str = "\r\x1b[K";

/// An operator's word under way.
pub(super) struct WaitTask<'a> {
    target: &'a AdminTarget,
    subject: &'a Subject,
    /// Somebody looks.
    tells: bool,
}

/// What became of it.
pub(super) struct WaitOutcome {
    /// As the endpoint answered; after the longest wait that it has, as it would.
    pub body: Bytes,
    view: WaitView,
}

enum WaitView {
    Backend(OperatedView),
    Listener(OperatedListenerView),
}

#[derive(Deserialize)]
struct Listeners {
    listeners: Vec<ListenerView>,
}

impl<'a> WaitTask<'a> {
    pub fn new(target: &'a AdminTarget, subject: &'a Subject, output: OutputFormat) -> Self {
        Self {
            target,
            subject,
            tells: output == OutputFormat::Table && std::io::stderr().is_terminal(),
        }
    }

    /// Says `word`, and with `wait` returns when no connection is left, or at that time.
    pub async fn operate(
        &self,
        word: &str,
        wait: Option<Duration>,
        body: String,
    ) -> Result<WaitOutcome, CommandError> {
        let began = Instant::now();
        let first = wait.map(|wait| wait.min(MAX_WAIT));
        let path = self.subject.path(word, first);
        let patience = ANSWER_TIMEOUT.saturating_add(first.unwrap_or_default());
        let asked = call::call_with(self.target, Method::POST, &path, body, patience);
        let body = match wait {
            Some(_) if self.tells => self.beside(asked).await?,
            _ => asked.await?,
        };
        let mut done = WaitOutcome {
            view: match self.subject {
                Subject::Backend(_) => WaitView::Backend(understand(&body)?),
                Subject::Listener(_) => WaitView::Listener(understand(&body)?),
            },
            body,
        };
        // The endpoint waits no longer than its bound; to say the word again could begin another job.
        let until = began + wait.unwrap_or_default();
        while done.live() > 0 && Instant::now() < until {
            sleep(LOOK_SPACING.min(until - Instant::now())).await;
            let job = done.view.facts().1.map(|job| job.id);
            done.set(self.look(job).await?)?;
            self.tell(&done.view);
        }
        if wait.is_some() {
            self.write(CLEAR);
        }
        Ok(done)
    }

    /// Tells how far it is until the answer comes.
    async fn beside(
        &self,
        asked: impl Future<Output = Result<Bytes, CommandError>>,
    ) -> Result<Bytes, CommandError> {
        let mut asked = pin!(asked);
        let mut looks = interval_at(Instant::now() + LOOK_SPACING, LOOK_SPACING);
        loop {
            tokio::select! {
                answer = &mut asked => {
                    self.write(CLEAR);
                    return answer;
                }
                // One that fails is not told: the answer will say why.
                _ = looks.tick() => if let Ok(view) = self.look(None).await {
                    self.tell(&view);
                },
            }
        }
    }

    /// The subject as it is now, with what is done to it.
    async fn look(&self, known: Option<u64>) -> Result<WaitView, CommandError> {
        let job = self.job(known).await?;
        match self.subject {
            Subject::Backend(_) => {
                let path = self.subject.base();
                let body = call::call(self.target, Method::GET, &path, ANSWER_TIMEOUT).await?;
                let backend: BackendView = understand(&body)?;
                Ok(WaitView::Backend(OperatedView {
                    empty: backend.live == 0,
                    backend,
                    job,
                }))
            }
            Subject::Listener(name) => {
                let path = "/api/v1/listeners";
                let body = call::call(self.target, Method::GET, path, ANSWER_TIMEOUT).await?;
                let Listeners { listeners } = understand(&body)?;
                let mut listeners = listeners.into_iter();
                let listener = listeners.find(|one| one.name == *name).ok_or_else(|| {
                    CommandError::Other(format!("listener {name} is there no more"))
                })?;
                Ok(WaitView::Listener(OperatedListenerView {
                    empty: listener.counters.live == 0,
                    listener,
                    job,
                }))
            }
        }
    }

    /// The one that runs, or `known` that is over.
    async fn job(&self, known: Option<u64>) -> Result<Option<JobView>, CommandError> {
        let body = call::call(self.target, Method::GET, "/api/v1/jobs", ANSWER_TIMEOUT).await?;
        let JobsView { jobs } = understand(&body)?;
        let name = self.subject.name();
        let is_of =
            |job: &JobView| job.target == name && (!jobs::is_over(job) || Some(job.id) == known);
        Ok(jobs.into_iter().rev().find(is_of))
    }

    fn tell(&self, view: &WaitView) {
        let (live, job) = view.facts();
        let line = progress(&self.subject.name(), live, job);
        self.write(&format!("{CLEAR}{line}"));
    }

    fn write(&self, text: &str) {
        if self.tells {
            let mut out = std::io::stderr().lock();
            // Who does not read it is not told.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

impl WaitView {
    fn facts(&self) -> (u64, Option<&JobView>) {
        match self {
            WaitView::Backend(done) => (done.backend.live, done.job.as_ref()),
            WaitView::Listener(done) => (done.listener.counters.live, done.job.as_ref()),
        }
    }
}

impl WaitOutcome {
    /// Connections that are left.
    pub fn live(&self) -> u64 {
        self.view.facts().0
    }

    /// For people, ending with a line end.
    pub fn told(&self) -> String {
        match &self.view {
            WaitView::Backend(done) => operated(done),
            WaitView::Listener(done) => operated_listener(done),
        }
    }

    fn set(&mut self, view: WaitView) -> Result<(), CommandError> {
        let text = match &view {
            WaitView::Backend(done) => serde_json::to_string_pretty(done),
            WaitView::Listener(done) => serde_json::to_string_pretty(done),
        };
        let text = text.map_err(|error| CommandError::Other(error.to_string()))?;
        self.body = (text + "\n").into();
        self.view = view;
        Ok(())
    }
}

/// How far it is, in one line.
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

/// The time that it leaves them to end by themselves, while it does.
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
        let job = JobView {
            id: 3,
            by: "operator".into(),
            target: "chat/n1".into(),
            phase: "ending".into(),
            ended: 10,
            left: 490,
            left_seconds: Some(5),
            pace: "100/s".into(),
            code: 1012,
            moves: false,
            started_at: String::new(),
        };
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

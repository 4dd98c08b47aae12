//! `evenkeel drain`, `ready`, `maint` and `weight`: the operator's word on a backend or a listener.

use std::time::Duration;

use http::Method;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::arguments::{
    AskArguments, BackendArgument, DrainArguments, MaintArguments, ReadyArguments,
    SubjectArguments, WeightArguments,
};
use super::wait::WaitTask;
use super::{ANSWER_TIMEOUT, SEGMENT, ask, call, connections, jobs, show};
use crate::admin::view::{BackendView, JobView, ListenerView, OperatedListenerView, OperatedView};
use crate::base::units::format_duration;
use crate::cli::failure::CommandError;

/// Whom the word is about.
pub(super) enum Subject {
    Backend(BackendArgument),
    Listener(String),
}

impl SubjectArguments {
    fn subject(self) -> Result<Subject, CommandError> {
        match (self.backend, self.listener) {
            (Some(backend), None) => Ok(Subject::Backend(backend)),
            (None, Some(listener)) => Ok(Subject::Listener(listener)),
            // The command line has refused it.
            _ => Err(CommandError::Other("POOL/BACKEND or --listener".to_owned())),
        }
    }
}

pub fn drain(arguments: DrainArguments) -> Result<(), CommandError> {
    let DrainArguments {
        subject,
        wait,
        pace,
        keep,
        ask,
    } = arguments;
    let mut body = serde_json::Map::new();
    pace.write(&mut body);
    if keep {
        body.insert("keep".to_owned(), true.into());
    }
    operate(&subject.subject()?, "drain", wait, Value::from(body), &ask)
}

pub fn maint(arguments: MaintArguments) -> Result<(), CommandError> {
    let MaintArguments { backend, wait, ask } = arguments;
    let subject = Subject::Backend(backend);
    operate(&subject, "maint", wait, serde_json::json!({}), &ask)
}

pub fn ready(arguments: ReadyArguments) -> Result<(), CommandError> {
    let ReadyArguments { subject, ask } = arguments;
    let nothing = serde_json::json!({});
    operate(&subject.subject()?, "ready", None, nothing, &ask)
}

pub fn weight(arguments: WeightArguments) -> Result<(), CommandError> {
    let WeightArguments {
        backend,
        weight,
        reset: _,
        ask: asked,
    } = arguments;
    let path = Subject::Backend(backend).path("weight", None);
    // `null` is the configured one.
    let body = serde_json::json!({ "weight": weight }).to_string();
    ask(&asked, async |target, output| {
        let body = call::call_with(target, Method::PUT, &path, body, ANSWER_TIMEOUT).await?;
        show(output, &body, |done: &OperatedView| {
            let BackendView {
                pool,
                name,
                state,
                weight,
                live,
                ..
            } = &done.backend;
            let live = connections(*live);
            format!("{pool}/{name}: weight {weight}, {state}, {live}\n")
        })
    })
}

/// Sets the operator's state. With `wait` it returns when the last connection is gone; connections that are left after it
/// are a failure, so that a script does not go on and stop the node.
fn operate(
    subject: &Subject,
    word: &str,
    wait: Option<Duration>,
    body: Value,
    asked: &AskArguments,
) -> Result<(), CommandError> {
    ask(asked, async |target, output| {
        let watch = WaitTask::new(target, subject, output);
        let done = watch.operate(word, wait, body.to_string()).await?;
        show(output, &done.body, |_: &Value| done.told())?;
        match (wait, done.live()) {
            (Some(wait), left) if left > 0 => Err(subject.left(left, wait)),
            _ => Ok(()),
        }
    })
}

impl Subject {
    pub(super) fn path(&self, word: &str, wait: Option<Duration>) -> String {
        let query = wait
            .map(|wait| format!("?wait={}", format_duration(wait)))
            .unwrap_or_default();
        format!("{}/{word}{query}", self.base())
    }

    /// Where it stands.
    pub(super) fn base(&self) -> String {
        let encoded = |name| utf8_percent_encode(name, SEGMENT);
        match self {
            Subject::Backend(BackendArgument { pool, backend }) => {
                let (pool, backend) = (encoded(pool), encoded(backend));
                format!("/api/v1/pools/{pool}/backends/{backend}")
            }
            Subject::Listener(name) => format!("/api/v1/listeners/{}", encoded(name)),
        }
    }

    /// As a job names its target.
    pub(super) fn name(&self) -> String {
        match self {
            Subject::Backend(BackendArgument { pool, backend }) => format!("{pool}/{backend}"),
            Subject::Listener(name) => format!("listener {name}"),
        }
    }

    fn left(&self, live: u64, wait: Duration) -> CommandError {
        let name = self.name();
        let wait = format_duration(wait);
        CommandError::Other(format!("{name}: {} left after {wait}", connections(live)))
    }
}

pub(super) fn operated(done: &OperatedView) -> String {
    let BackendView {
        pool,
        name,
        state,
        live,
        ..
    } = &done.backend;
    told(&format!("{pool}/{name}"), state, *live, done.job.as_ref())
}

pub(super) fn operated_listener(done: &OperatedListenerView) -> String {
    let ListenerView {
        name,
        state,
        counters,
        ..
    } = &done.listener;
    let name = format!("listener {name}");
    told(&name, state, counters.live, done.job.as_ref())
}

fn told(name: &str, state: &str, live: u64, job: Option<&JobView>) -> String {
    let state = format!("{name}: {state}, {}\n", connections(live));
    match job {
        // It has not looked yet.
        Some(job) if live == 0 && job.left == 0 && !jobs::is_over(job) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_the_path() {
        let name: BackendArgument = "chat/unix:/run/a b.sock".parse().unwrap();
        assert_eq!(
            Subject::Backend(name).path("drain", Some(Duration::from_secs(60))),
            "/api/v1/pools/chat/backends/unix:%2Frun%2Fa%20b.sock/drain?wait=1m"
        );
        assert_eq!(
            Subject::Listener("a/b".to_owned()).path("ready", None),
            "/api/v1/listeners/a%2Fb/ready"
        );
    }
}

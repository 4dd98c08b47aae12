//! `evenkeel drain`, `ready`, `maint` and `weight`: operations on a backend or a listener.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::Value;

use super::arguments::{
    AskArguments, DrainArguments, MaintArguments, ReadyArguments, ScopeArguments, WeightArguments,
};
use super::ask::{ask, ask_and_show, connections, show};
use super::request::ApiRequest;
use super::subject::Subject;
use super::wait::WaitTask;
use crate::admin::view::{BackendView, OperatedView};
use crate::cli::failure::CommandError;

pub(crate) fn drain(arguments: DrainArguments) -> Result<(), CommandError> {
    let DrainArguments {
        subject,
        wait,
        pace,
        keep,
        scope,
        ask,
    } = arguments;
    let mut body = serde_json::Map::new();
    pace.write(&mut body);
    if keep {
        body.insert("keep".to_owned(), true.into());
    }
    let (subject, body) = (subject.subject()?, body.into());
    let operation = Operation {
        subject: &subject,
        name: "drain",
        wait,
        body: &body,
    };
    everywhere(scope, |local| operation.perform(&ask, local))
}

pub(crate) fn maint(arguments: MaintArguments) -> Result<(), CommandError> {
    let MaintArguments {
        backend,
        wait,
        scope,
        ask,
    } = arguments;
    let operation = Operation {
        subject: &Subject::Backend(backend),
        name: "maint",
        wait,
        body: &serde_json::json!({}),
    };
    everywhere(scope, |local| operation.perform(&ask, local))
}

pub(crate) fn ready(arguments: ReadyArguments) -> Result<(), CommandError> {
    let ReadyArguments {
        subject,
        scope,
        ask,
    } = arguments;
    let operation = Operation {
        subject: &subject.subject()?,
        name: "ready",
        wait: None,
        body: &serde_json::json!({}),
    };
    everywhere(scope, |local| operation.perform(&ask, local))
}

pub(crate) fn weight(arguments: WeightArguments) -> Result<(), CommandError> {
    let WeightArguments {
        backend,
        weight,
        scope,
        ask,
        ..
    } = arguments;
    let subject = Subject::Backend(backend);
    // `null` is the configured one.
    let body = serde_json::json!({ "weight": weight });
    everywhere(scope, |local| {
        let path = subject.path("weight", None, local);
        ask_and_show(&ask, ApiRequest::put(&path, &body), weight_line)
    })
}

fn weight_line(done: &OperatedView) -> String {
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
}

/// Operation on a backend or a listener.
struct Operation<'a> {
    subject: &'a Subject,
    name: &'a str,
    wait: Option<Duration>,
    body: &'a Value,
}

impl Operation<'_> {
    /// With `wait` it returns when the last connection is gone; connections that are left after it
    /// are a failure, so that a script does not go on and stop the node.
    fn perform(&self, asked: &AskArguments, local: bool) -> Result<(), CommandError> {
        ask(asked, async |target, output| {
            let task = WaitTask::new(target, self.subject, output).local(local);
            let outcome = task.operate(self.name, self.wait, self.body).await?;
            show(output, &outcome.answer, |_: &Value| outcome.describe())?;
            match self.wait {
                Some(wait) if outcome.live > 0 => Err(self.subject.not_empty(outcome.live, wait)),
                _ => Ok(()),
            }
        })
    }
}

/// Sets a state on all balancers of a cluster. Where their store is away, it is set on this one
/// alone if the operator says so: by `--local`, or on a terminal.
fn everywhere(
    scope: ScopeArguments,
    perform: impl Fn(bool) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    match perform(scope.local) {
        Err(CommandError::NotShared(why)) if is_confirmed(&why) => perform(true),
        performed => performed,
    }
}

fn is_confirmed(why: &str) -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    let mut out = std::io::stderr().lock();
    let asked = write!(out, "{why}\nset it on this balancer alone? [y/N] ");
    let mut answer = String::new();
    asked.and_then(|()| out.flush()).is_ok()
        && std::io::stdin().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y" | "yes")
}

//! `evenkeel drain`, `ready`, `maint` and `weight`: operations on a backend or a listener.

use std::time::Duration;

use serde_json::Value;

use super::arguments::{
    AskArguments, DrainArguments, MaintArguments, ReadyArguments, WeightArguments,
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
        ask,
    } = arguments;
    let mut body = serde_json::Map::new();
    pace.write(&mut body);
    if keep {
        body.insert("keep".to_owned(), true.into());
    }
    operate(&subject.subject()?, "drain", wait, &body.into(), &ask)
}

pub(crate) fn maint(arguments: MaintArguments) -> Result<(), CommandError> {
    let MaintArguments { backend, wait, ask } = arguments;
    let subject = Subject::Backend(backend);
    operate(&subject, "maint", wait, &serde_json::json!({}), &ask)
}

pub(crate) fn ready(arguments: ReadyArguments) -> Result<(), CommandError> {
    let ReadyArguments { subject, ask } = arguments;
    let nothing = serde_json::json!({});
    operate(&subject.subject()?, "ready", None, &nothing, &ask)
}

pub(crate) fn weight(arguments: WeightArguments) -> Result<(), CommandError> {
    let path = Subject::Backend(arguments.backend).path("weight", None);
    // `null` is the configured one.
    let body = serde_json::json!({ "weight": arguments.weight });
    let request = ApiRequest::put(&path, &body);
    ask_and_show(&arguments.ask, request, |done: &OperatedView| {
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
}

/// Performs an operation. With `wait` it returns when the last connection is gone; connections that
/// are left after it are a failure, so that a script does not go on and stop the node.
fn operate(
    subject: &Subject,
    operation: &str,
    wait: Option<Duration>,
    body: &Value,
    asked: &AskArguments,
) -> Result<(), CommandError> {
    ask(asked, async |target, output| {
        let task = WaitTask::new(target, subject, output);
        let outcome = task.operate(operation, wait, body).await?;
        show(output, &outcome.answer, |_: &Value| outcome.describe())?;
        match wait {
            Some(wait) if outcome.live > 0 => Err(subject.not_empty(outcome.live, wait)),
            _ => Ok(()),
        }
    })
}

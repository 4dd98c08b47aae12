//! The thread of `evenkeel top` that asks the admin endpoint: for the status again and again, and
//! to do what the operator has confirmed.

use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::mpsc as orders;
use tokio::time::sleep;

use super::model::Command;
use super::rows::Subject as Shown;
use crate::admin::view::StatusView;
use crate::cli::client::arguments::BackendArgument;
use crate::cli::client::ask::{ANSWER_TIMEOUT, block_on, parse};
use crate::cli::client::request::{ApiRequest, send};
use crate::cli::client::subject::Subject;
use crate::cli::client::target::AdminTarget;
use crate::cli::failure::CommandError;

/// Answers that wait to be drawn: more than a glance can bring.
const MAX_REPLIES: usize = 16;
/// Orders under way: each is a confirmed question.
const MAX_ORDERS: usize = 16;

pub(super) enum Reply {
    Status(Result<Box<StatusView>, String>),
    /// Result of a command, in words.
    Done(String),
}

pub(super) struct Asker {
    orders: orders::Sender<Command>,
    replies: mpsc::Receiver<Reply>,
}

impl Asker {
    /// Starts to ask; ends with the process.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub(super) fn start(target: AdminTarget, interval: Duration) -> Result<Asker, CommandError> {
        let (orders, ordered) = orders::channel(MAX_ORDERS);
        let (replying, replies) = mpsc::sync_channel(MAX_REPLIES);
        let asking = move || {
            let failing = replying.clone();
            let asked = block_on(ask(target, interval, ordered, replying));
            if let Err(error) = asked {
                let _ = failing.send(Reply::Status(Err(error.to_string())));
            }
        };
        let thread = std::thread::Builder::new()
            .name("ask".to_owned())
            .spawn(asking);
        thread.map_err(CommandError::io("start a thread"))?;
        Ok(Asker { orders, replies })
    }

    /// Takes the replies that have come since the last look.
    pub(super) fn replies(&self) -> impl Iterator<Item = Reply> {
        self.replies.try_iter()
    }

    /// Does what the operator has confirmed. One more than can be under way is dropped.
    pub(super) fn order(&self, command: Command) {
        let _ = self.orders.try_send(command);
    }
}

async fn ask(
    target: AdminTarget,
    interval: Duration,
    mut ordered: orders::Receiver<Command>,
    replies: mpsc::SyncSender<Reply>,
) -> Result<(), CommandError> {
    loop {
        let status = status(&target).await.map_err(|error| error.to_string());
        // Nobody listens any more.
        if replies.send(Reply::Status(status)).is_err() {
            return Ok(());
        }
        // Cancel safe: an order that came stays in the channel.
        let order = tokio::select! {
            biased;
            order = ordered.recv() => order,
            () = sleep(interval) => continue,
        };
        let Some(command) = order else { return Ok(()) };
        let done = operate(&target, command).await;
        let message = done.unwrap_or_else(|error| error.to_string());
        if replies.send(Reply::Done(message)).is_err() {
            return Ok(());
        }
    }
}

async fn status(target: &AdminTarget) -> Result<Box<StatusView>, CommandError> {
    let body = send(target, ApiRequest::get("/api/v1/status"), ANSWER_TIMEOUT).await?;
    Ok(Box::new(parse(&body)?))
}

async fn operate(target: &AdminTarget, command: Command) -> Result<String, CommandError> {
    let (path, done) = match command {
        Command::Quit => return Ok(String::new()),
        Command::Drain(shown) => (path(&shown, "drain"), format!("{shown}: drain")),
        Command::Ready(shown) => (path(&shown, "ready"), format!("{shown}: ready")),
        Command::Abort(id) => {
            let path = format!("/api/v1/jobs/{id}/abort");
            (Some(path), format!("job {id}: aborted"))
        }
    };
    let Some(path) = path else {
        return Ok("nothing was done".to_owned());
    };
    let nothing = serde_json::json!({});
    send(target, ApiRequest::post(&path, &nothing), ANSWER_TIMEOUT).await?;
    Ok(done)
}

fn path(shown: &Shown, operation: &str) -> Option<String> {
    let subject = match shown.clone() {
        Shown::Backend(pool, backend) => Subject::Backend(BackendArgument { pool, backend }),
        Shown::Listener(name) => Subject::Listener(name),
        Shown::Pool(_) | Shown::Job(_) => return None,
    };
    Some(subject.path(operation, None, false))
}

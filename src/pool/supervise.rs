//! Supervision of the tasks that watch a pool. A check or a lookup that ended with a panic would
//! leave its backend as it was, for ever.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use crate::base::backoff::Backoff;
use crate::base::units::format_duration;

/// Short enough that one bad answer costs a round or two.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// A task that panics each time must not fill the log; a minute is soon enough once the cause is
/// gone.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Runs a task and starts it again, after a growing delay, each time it panics. Ends when the task
/// ends by itself.
///
/// `subject` names it in the log, such as `check of chat/n1`.
///
/// # Cancel safety
/// Dropping it drops the task.
pub(crate) async fn supervise<F>(subject: String, mut task: impl FnMut() -> F)
where
    F: Future<Output = ()>,
{
    let mut backoff = Backoff::new(FIRST_DELAY, MAX_DELAY);
    loop {
        let started = Instant::now();
        // Unwind safe: the task shares only state of the pool, which recovers its locks from a
        // panic.
        let Err(panic) = AssertUnwindSafe(async { task().await })
            .catch_unwind()
            .await
        else {
            return;
        };
        if started.elapsed() > MAX_DELAY {
            backoff.reset();
        }
        let delay = backoff.next();
        tracing::error!(
            task = subject,
            panic = panic_message(&*panic),
            retry_in = format_duration(delay),
            "task panicked, starting it again"
        );
        sleep(delay).await;
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A panic inside a check ended the checks of its backend for ever.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_starts_again_after_a_growing_delay() {
        let (started, starts) = (Instant::now(), RefCell::new(Vec::new()));
        supervise("test".to_owned(), || async {
            starts.borrow_mut().push(started.elapsed().as_secs());
            let count = starts.borrow().len();
            assert!(count > 3, "a defect");
        })
        .await;
        assert_eq!(starts.into_inner(), [0, 1, 3, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ran_for_long_starts_again_soon() {
        let (started, starts) = (Instant::now(), RefCell::new(Vec::new()));
        supervise("test".to_owned(), || async {
            starts.borrow_mut().push(started.elapsed().as_secs());
            let count = starts.borrow().len();
            sleep(Duration::from_secs(100)).await;
            assert!(count > 2, "a defect");
        })
        .await;
        assert_eq!(starts.into_inner(), [0, 101, 202]);
    }
}

//! Queue between the data path and the thread that writes the access log. Lines are formatted as
//! they come, behind one another, so that one write takes many.
//!
//! To wake a thread costs more than to format a line. So the writer is woken by the first line
//! after a pause, and leaves the next ones a while to gather.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::flush::Flushed;
use super::line::{LineFormatter, LogLine};
use super::output::LogSink;
use crate::config::LogFormat;

/// Size at which a batch takes no more lines: large enough to make system calls rare, small enough
/// that a slow pipe is seen to make progress. A batch grows under the lock of the data path, so it
/// must not grow to all that a stuck disk leaves.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// Least time between two takes of lines: a hundred wake-ups a second at most. Nobody who reads a
/// log notices, and a process that is killed loses no more than that.
const GATHER: Duration = Duration::from_millis(10);

/// Largest buffer that is kept for the next lines. A batch has its size and a line; the buffer
/// doubles.
const MAX_SPARE_BYTES: usize = 4 * MAX_BATCH_BYTES;

/// Buffers that are kept: a busy log has one that is filled and few that are written. With them at
/// most 1 MiB is held.
const MAX_SPARES: usize = 4;

/// Order for the writer.
#[derive(Debug)]
pub(super) enum WriterOrder {
    /// Whole lines, [`MAX_BATCH_BYTES`] and the last of them at most.
    Lines(String),
    Replace(LogSink),
    Reopen,
    /// Acknowledged when everything before it is written.
    Flush(Flushed),
}

#[derive(Debug)]
pub(super) struct LineQueue {
    state: Mutex<QueueState>,
    /// Notifies the writer.
    wanted: Condvar,
}

#[derive(Debug)]
struct QueueState {
    orders: Vec<WriterOrder>,
    formatter: LineFormatter,
    /// Lines that are not yet written.
    lines: usize,
    /// The writer waits for an order, not for others to gather.
    is_idle: bool,
    /// The writer takes the orders at once.
    is_urgent: bool,
    /// Nothing is ordered any more.
    is_closed: bool,
    /// Empty buffers for the next lines, [`MAX_SPARES`] at most.
    spares: Vec<String>,
}

impl LineQueue {
    pub(super) fn new(format: LogFormat) -> LineQueue {
        LineQueue {
            state: Mutex::new(QueueState {
                orders: Vec::new(),
                formatter: LineFormatter::new(format),
                lines: 0,
                is_idle: false,
                is_urgent: false,
                is_closed: false,
                spares: Vec::new(),
            }),
            wanted: Condvar::new(),
        }
    }

    /// Appends a line. False: `max_lines` are waiting already.
    pub(super) fn push(&self, line: &LogLine<'_>, max_lines: usize) -> bool {
        let mut state = self.lock();
        if state.lines >= max_lines {
            return false;
        }
        state.lines += 1;
        let batch = state.format(line);
        let is_much = batch >= MAX_BATCH_BYTES || state.lines >= max_lines.div_ceil(2);
        self.notify(state, is_much);
        true
    }

    /// Adds another order behind the lines so far.
    pub(super) fn order(&self, order: WriterOrder) {
        let mut state = self.lock();
        state.orders.push(order);
        self.notify(state, true);
    }

    /// Sets the output and the format for the lines from now on.
    pub(super) fn replace(&self, order: WriterOrder, format: LogFormat) {
        let mut state = self.lock();
        state.orders.push(order);
        state.formatter = LineFormatter::new(format);
        self.notify(state, true);
    }

    /// Ends the writer behind what was ordered.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        self.notify(state, true);
    }

    /// Waits for orders and takes them all, [`GATHER`] after the last take at the earliest unless
    /// they are urgent. `None`: the queue is closed.
    pub(super) fn take(&self, last: Option<Instant>) -> Option<Vec<WriterOrder>> {
        let mut state = self.lock();
        while state.orders.is_empty() {
            if state.is_closed {
                return None;
            }
            state.is_idle = true;
            let waited = self.wanted.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_idle = false;
        let until = last.map(|last| last + GATHER);
        while !state.is_urgent
            && let Some(rest) = until.and_then(|until| until.checked_duration_since(Instant::now()))
            && !rest.is_zero()
        {
            let waited = self.wanted.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_urgent = false;
        Some(mem::take(&mut state.orders))
    }

    /// Counts lines that are written or lost.
    pub(super) fn written(&self, lines: usize) {
        let mut state = self.lock();
        state.lines = state.lines.saturating_sub(lines);
    }

    /// Gives back a buffer whose lines are written.
    pub(super) fn give_back(&self, mut buffer: String) {
        if buffer.capacity() > MAX_SPARE_BYTES {
            return;
        }
        buffer.clear();
        let mut state = self.lock();
        if state.spares.len() < MAX_SPARES {
            state.spares.push(buffer);
        }
    }

    /// Stops all who push.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.lock()
    }

    /// Wakes the writer if it waits for this.
    fn notify(&self, mut state: MutexGuard<'_, QueueState>, is_urgent: bool) {
        let becomes_urgent = is_urgent && !mem::replace(&mut state.is_urgent, is_urgent);
        let was_idle = mem::take(&mut state.is_idle);
        drop(state);
        if was_idle || becomes_urgent {
            self.wanted.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Formats a line behind those that wait; returns the bytes of its batch.
    fn format(&mut self, line: &LogLine<'_>) -> usize {
        let has_room = match self.orders.last() {
            Some(WriterOrder::Lines(lines)) => lines.len() < MAX_BATCH_BYTES,
            _ => false,
        };
        if !has_room {
            let buffer = self.spares.pop().unwrap_or_default();
            self.orders.push(WriterOrder::Lines(buffer));
        }
        match self.orders.last_mut() {
            Some(WriterOrder::Lines(lines)) => {
                self.formatter.format(line, lines);
                lines.len()
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::observe::line::tests::line;

    fn texts(orders: Vec<WriterOrder>) -> Vec<usize> {
        let lines = |order| match order {
            WriterOrder::Lines(text) => text.lines().count(),
            _ => 0,
        };
        orders.into_iter().map(lines).collect()
    }

    #[test]
    fn lines_gather_between_other_orders_and_keep_their_place() {
        let queue = LineQueue::new(LogFormat::Json);
        let add = |count: usize| {
            for _ in 0..count {
                assert!(queue.push(&line(&Default::default()), 100));
            }
        };
        add(3);
        queue.order(WriterOrder::Reopen);
        add(2);
        assert_eq!(texts(queue.take(Some(Instant::now())).unwrap()), [3, 0, 2]);
    }

    /// One buffer grew to all lines, under the lock that the data path waits for.
    #[test]
    fn no_batch_grows_beyond_its_size_and_a_line() {
        const LINES: usize = 2000;
        let queue = LineQueue::new(LogFormat::Json);
        for _ in 0..2 {
            for _ in 0..LINES {
                assert!(queue.push(&line(&Default::default()), LINES));
            }
            let mut lines = 0;
            let orders = queue.take(None).unwrap();
            assert!(orders.len() > 2);
            for (at, order) in orders.into_iter().enumerate() {
                let WriterOrder::Lines(text) = order else {
                    panic!("{order:?}")
                };
                let length = text.lines().next().unwrap().len() + 1;
                assert!(text.len() < MAX_BATCH_BYTES + length, "{at}");
                lines += text.lines().count();
                queue.give_back(text);
            }
            assert_eq!(lines, LINES);
            queue.written(LINES);
            assert!(queue.lock().spares.len() <= MAX_SPARES);
        }
    }

    #[test]
    fn a_line_counts_until_it_is_written() {
        let queue = LineQueue::new(LogFormat::Json);
        let push = || queue.push(&line(&Default::default()), 4);
        assert_eq!(
            [push(), push(), push(), push(), push()],
            [true, true, true, true, false]
        );
        assert_eq!(texts(queue.take(None).unwrap()), [4]);
        assert!(!push());
        queue.written(4);
        assert!(push());
    }

    /// Half a queue of lines does not wait: the rest comes while they are written.
    #[test]
    fn a_full_half_is_taken_at_once() {
        let queue = Arc::new(LineQueue::new(LogFormat::Text));
        let far = Instant::now() + Duration::from_secs(3600);
        let taker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || texts(queue.take(Some(far)).unwrap()))
        };
        for _ in 0..4 {
            queue.push(&line(&Default::default()), 8);
        }
        assert_eq!(taker.join().unwrap(), [4]);
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = LineQueue::new(LogFormat::Text);
        queue.push(&line(&Default::default()), 8);
        queue.close();
        assert_eq!(texts(queue.take(Some(Instant::now())).unwrap()), [1]);
        assert!(queue.take(None).is_none());
    }
}

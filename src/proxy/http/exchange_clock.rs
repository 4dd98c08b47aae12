//! The waits of one exchange, and how long each may last.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config;

/// Between two looks at a client whose upload the backend does not take: its bytes stay unread, so
/// that no event tells of a reset behind them.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// A wait of an exchange that has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The client does not send the rest of its body, or too slowly.
    Body,
    /// The backend does not begin its answer.
    Answer,
    /// The client takes nothing of what is written to it.
    WriteToClient,
    /// The backend takes nothing of what is written to it.
    WriteToBackend,
    /// No byte moves either way.
    Idle,
}

/// What has become of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteProgress {
    /// Bytes were taken.
    Moved,
    /// The peer takes none for now.
    Blocked,
    /// Bytes were taken, and no more are for now.
    MovedAndBlocked,
    /// There is nothing to write.
    Done,
}

/// Limits of the waits, by the pool's configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExchangeLimits {
    response: Duration,
    body: Duration,
    /// Bytes per second; 0: none.
    min_body_rate: u64,
    send: Duration,
    idle: Duration,
    fin: Duration,
}

impl ExchangeLimits {
    /// Limits with this time for the beginning of the answer.
    pub(super) fn of(pool: &config::Pool, response: Duration) -> ExchangeLimits {
        ExchangeLimits {
            response,
            body: pool.body_timeout,
            min_body_rate: pool.http.min_body_rate,
            send: pool.http.send_timeout,
            idle: pool.idle_timeout,
            fin: pool.fin_timeout,
        }
    }
}

/// Moments from which an exchange waits.
#[derive(Debug)]
pub(super) struct ExchangeClock {
    limits: ExchangeLimits,
    /// The time of the present poll.
    now: Instant,
    /// When bytes moved last.
    moved: Instant,
    /// Since when the client is to send more of its body.
    client_since: Option<Instant>,
    /// Time waited for the client before that, and bytes that it has sent.
    client_waited: Duration,
    client_sent: u64,
    /// Since when the backend has all that there is of the request.
    backend_since: Instant,
    client_blocked: Option<Instant>,
    backend_blocked: Option<Instant>,
    /// When the client was looked at last.
    looked: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl ExchangeClock {
    pub(super) fn new(limits: ExchangeLimits) -> ExchangeClock {
        let now = Instant::now();
        ExchangeClock {
            limits,
            now,
            moved: now,
            client_since: None,
            client_waited: Duration::ZERO,
            client_sent: 0,
            backend_since: now,
            client_blocked: None,
            backend_blocked: None,
            looked: now,
            alarm: None,
        }
    }

    /// Takes over the present time.
    pub(super) fn tick(&mut self) {
        self.now = Instant::now();
    }

    /// Notes that the client has sent bytes of its body.
    pub(super) fn client_sent(&mut self, count: usize) {
        if let Some(since) = self.client_since.take() {
            self.client_waited += self.now - since;
        }
        self.client_sent += count as u64;
        self.moved = self.now;
        self.backend_since = self.now;
    }

    /// Notes that the next bytes of the body are to come.
    pub(super) fn waits_for_client(&mut self) {
        self.client_since.get_or_insert(self.now);
    }

    /// Notes that the body has come to its end.
    pub(super) fn body_is_complete(&mut self) {
        if self.client_since.take().is_some() {
            self.backend_since = self.now;
        }
    }

    /// Notes that the backend has sent bytes.
    pub(super) fn backend_sent(&mut self) {
        self.moved = self.now;
    }

    /// Notes what has become of a write to the client.
    pub(super) fn note_client_write(&mut self, write: WriteProgress) {
        write.note(&mut self.client_blocked, &mut self.moved, self.now);
    }

    /// Notes what has become of a write to the backend.
    pub(super) fn note_backend_write(&mut self, write: WriteProgress) {
        write.note(&mut self.backend_blocked, &mut self.moved, self.now);
    }

    /// The wait that is over, if one is, or `None` where it is time to look at a client of which no
    /// event tells; otherwise the task is woken when the first of these comes.
    pub(super) fn poll_overdue(
        &mut self,
        context: &mut Context<'_>,
        has_answer: bool,
        is_half_closed: bool,
    ) -> Poll<Option<Overdue>> {
        loop {
            let (deadline, overdue) = self.next(has_answer, is_half_closed);
            if deadline <= self.now {
                self.looked = self.now;
                return Poll::Ready(overdue);
            }
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // A later deadline leaves the alarm: it rings in vain once.
            if alarm.deadline() > deadline || alarm.is_elapsed() {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.now = Instant::now().max(alarm.deadline());
        }
    }

    /// The wait that ends first, and when.
    fn next(&self, has_answer: bool, is_half_closed: bool) -> (Instant, Option<Overdue>) {
        let limits = &self.limits;
        let idle = if is_half_closed {
            limits.idle.min(limits.fin)
        } else {
            limits.idle
        };
        let blocked = |since: Option<Instant>| since.map(|since| since + limits.send);
        let waits = [
            Some((self.moved + idle, Overdue::Idle)),
            blocked(self.client_blocked).map(|at| (at, Overdue::WriteToClient)),
            blocked(self.backend_blocked).map(|at| (at, Overdue::WriteToBackend)),
            (!has_answer).then(|| self.before_answer()),
        ];
        let waits = waits.into_iter().flatten();
        let look = self
            .backend_blocked
            .map(|_| (self.looked + LOOK_AFTER, None));
        let all = waits.map(|(at, overdue)| (at, Some(overdue))).chain(look);
        let first = all.min_by_key(|(at, _)| *at);
        first.unwrap_or((self.moved + idle, Some(Overdue::Idle)))
    }

    fn before_answer(&self) -> (Instant, Overdue) {
        match self.client_since {
            Some(since) => (since + self.client_patience(), Overdue::Body),
            None => (self.backend_since + self.limits.response, Overdue::Answer),
        }
    }

    /// How long the client may be waited for now: a trickle must not last for ever.
    fn client_patience(&self) -> Duration {
        let limits = &self.limits;
        if limits.min_body_rate == 0 {
            return limits.body;
        }
        let earned = Duration::from_secs_f64(self.client_sent as f64 / limits.min_body_rate as f64);
        let left = (limits.body + earned).saturating_sub(self.client_waited);
        left.min(limits.body)
    }
}

impl WriteProgress {
    fn note(self, blocked: &mut Option<Instant>, moved: &mut Instant, now: Instant) {
        match self {
            WriteProgress::Moved => {
                *blocked = None;
                *moved = now;
            }
            WriteProgress::Blocked => {
                blocked.get_or_insert(now);
            }
            WriteProgress::MovedAndBlocked => {
                *blocked = Some(now);
                *moved = now;
            }
            WriteProgress::Done => *blocked = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn clock() -> ExchangeClock {
        ExchangeClock::new(ExchangeLimits {
            response: MINUTE * 3,
            body: MINUTE,
            min_body_rate: 10,
            send: MINUTE,
            idle: MINUTE * 60,
            fin: MINUTE / 2,
        })
    }

    async fn overdue(clock: &mut ExchangeClock, has_answer: bool, is_half: bool) -> (Overdue, u64) {
        let from = Instant::now();
        clock.tick();
        let which = loop {
            let overdue = poll_fn(|context| clock.poll_overdue(context, has_answer, is_half));
            if let Some(overdue) = overdue.await {
                break overdue;
            }
        };
        (which, from.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        assert_eq!(
            overdue(&mut clock(), false, false).await,
            (Overdue::Answer, 180)
        );
        assert_eq!(
            overdue(&mut clock(), true, false).await,
            (Overdue::Idle, 3600)
        );
        assert_eq!(overdue(&mut clock(), true, true).await, (Overdue::Idle, 30));
        let mut waiting = clock();
        waiting.waits_for_client();
        assert_eq!(
            overdue(&mut waiting, false, false).await,
            (Overdue::Body, 60)
        );
        let mut blocked = clock();
        blocked.note_client_write(WriteProgress::Blocked);
        assert_eq!(
            overdue(&mut blocked, true, false).await,
            (Overdue::WriteToClient, 60)
        );
        let mut blocked = clock();
        blocked.note_backend_write(WriteProgress::Blocked);
        assert_eq!(
            overdue(&mut blocked, true, false).await,
            (Overdue::WriteToBackend, 60)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn moving_bytes_put_a_wait_off_and_a_trickle_does_not_for_ever() {
        let mut writing = clock();
        for _ in 0..10 {
            writing.tick();
            writing.note_client_write(WriteProgress::Blocked);
            tokio::time::sleep(MINUTE / 2).await;
            writing.tick();
            writing.note_client_write(WriteProgress::Moved);
        }
        assert_eq!(overdue(&mut writing, true, false).await.0, Overdue::Idle);
        // A byte every 50 s earns a tenth of a second each.
        let (mut trickling, from) = (clock(), Instant::now());
        let mut count = 0;
        loop {
            trickling.tick();
            trickling.waits_for_client();
            let sent = tokio::time::timeout(
                Duration::from_secs(50),
                poll_fn(|context| trickling.poll_overdue(context, false, false)),
            );
            match sent.await {
                Ok(overdue) => {
                    assert_eq!(overdue, Some(Overdue::Body));
                    break;
                }
                Err(_) => {
                    trickling.tick();
                    trickling.client_sent(1);
                    count += 1;
                }
            }
        }
        assert_eq!((count, from.elapsed().as_secs()), (1, 60));
    }
}

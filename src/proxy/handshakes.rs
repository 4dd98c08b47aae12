//! The gate before the costly part of a TLS handshake. When all clients come back at once, `global.max_handshakes` of them are
//! worked on and the others wait here, with their ClientHello and little more: who has begun is served soon, in place of all
//! being served late. A session that one of our tickets resumes goes first, because it costs a fraction; beyond that sources
//! take turns (`base::turns`), so that one of them cannot make the others wait for all of its own.
//!
//! A handshake counts until it is done, [`HELD`] at most: by then our part is done, and a client that stays silent, or a
//! slow network, must not hold what others wait for. What a client waits here is not counted against its deadline: it has
//! done its part.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::ClientConnection;
use super::classify::{client_end, refuse_too_large, send_alert};
use crate::base::expiring_set::ExpiringSet;
use crate::base::fair_queue::{FairQueue, QueueTicket};
use crate::base::rate::Bucket;
use crate::base::source_prefix::SourcePrefix;
use crate::config::{Global, Rate};
use crate::net::Stream;
use crate::observe::{Cause, ConnectionRecord, Phase, Refusal, Side, Termination};
use crate::tls::{self, CipherOrder, TlsAcceptor};
use crate::wire::client_hello::{ClientHello, ClientHelloError, ClientHelloReader, HelloProgress};

/// The longest that one handshake counts: by then our part is done, or soon will be. A network with a longer round trip so
/// leaves [`PER_CORE`] / 10 ms = 6,400 handshakes per second and core, above the 5,500 that a core can make.
const HELD: Duration = Duration::from_millis(10);
/// Where the configuration leaves it open. Of 8 to 512 for two cores, 32 to 128 served the median client of a storm soonest;
/// fewer waste time between turns, more are all half done at once.
const PER_CORE: usize = 64;
/// Fewer than the places in set-up by default, so that one source never takes all of them; more than are served within the
/// default deadline of 10 s would wait for nothing.
const MAX_WAITING_PER_SOURCE: usize = 8_192;
/// One full handshake of a source in this time goes before those who wait, in place of all that its tickets would bring; a
/// network with one odd client is back among the first soon.
const DISTRUSTED: Duration = Duration::from_secs(60);
/// Of about 60 bytes each; who has more networks than that has a turn for each in either lane.
const MAX_DISTRUSTED: usize = 16_384;
/// The longest wait for a turn: who is not served by then has given up, or will soon.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// A hello without a post-quantum key share; others grow it.
const HELLO_BYTES: usize = 1_024;
/// The alert for a name that no certificate is for (RFC 6066 section 3).
const UNRECOGNIZED_NAME: u8 = 112;
/// The alert for no name where one is needed (RFC 8446 section 9.2).
const MISSING_EXTENSION: u8 = 109;

/// The process's TLS handshakes.
pub struct HandshakeLimiter {
    max: AtomicUsize,
    rate: ArcSwapOption<Rate>,
    begun: Bucket,
    epoch: Instant,
    state: Mutex<LimiterState>,
    runtime: Handle,
}

struct LimiterState {
    /// Those whose tickets did not resume.
    distrusted: ExpiringSet<SourcePrefix>,
    turns: FairQueue<SourcePrefix, oneshot::Sender<()>>,
    in_progress: usize,
    /// A timer will look again.
    is_timed: bool,
}

impl HandshakeLimiter {
    pub fn new(global: &Global, runtime: Handle) -> Arc<Self> {
        let gate = Self {
            max: AtomicUsize::new(0),
            rate: ArcSwapOption::empty(),
            begun: Bucket::default(),
            epoch: Instant::now(),
            state: Mutex::new(LimiterState {
                distrusted: ExpiringSet::new(DISTRUSTED, MAX_DISTRUSTED),
                turns: FairQueue::new(MAX_WAITING_PER_SOURCE),
                in_progress: 0,
                is_timed: false,
            }),
            runtime,
        };
        let gate = Arc::new(gate);
        gate.apply(global);
        gate
    }

    /// Takes over the limits of a configuration.
    pub fn apply(self: &Arc<Self>, global: &Global) {
        let max = match global.max_handshakes {
            0 => PER_CORE * std::thread::available_parallelism().map_or(1, usize::from),
            max => max,
        };
        self.max.store(max, Ordering::Relaxed);
        self.rate.store(global.max_handshake_rate.map(Arc::new));
        self.advance(&mut self.lock());
    }

    /// Handshakes that count now, and those that wait.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.in_progress, state.turns.waiting())
    }

    /// Of this source a ticket had a turn and did not resume: what waits of it goes on among the others.
    fn distrust(&self, source: SourcePrefix) {
        let mut state = self.lock();
        state.distrusted.insert(source, self.epoch.elapsed());
        state.turns.demote(source);
    }

    /// Waits for a turn; `None`: too many of this source wait already.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the queue, or gives its turn to the next.
    async fn turn(
        self: &Arc<Self>,
        source: SourcePrefix,
        resumes: bool,
    ) -> Option<HandshakePermit> {
        let (tell, told) = oneshot::channel();
        let waiting = {
            let mut state = self.lock();
            if state.turns.waiting() == 0 && self.begin(&mut state) {
                return Some(HandshakePermit(Arc::clone(self)));
            }
            let urgent = resumes && !state.distrusted.contains(&source, self.epoch.elapsed());
            let ticket = state.turns.push(source, urgent, tell).ok()?;
            self.advance(&mut state);
            Waiting {
                gate: Arc::clone(self),
                ticket: Some(ticket),
            }
        };
        // It is dropped by the one who takes it out of the queue, who has told it before.
        let _ = told.await;
        Some(waiting.into_turn())
    }

    /// Counts one more handshake, if it may begin.
    fn begin(&self, state: &mut LimiterState) -> bool {
        let has_room = state.in_progress < self.max.load(Ordering::Relaxed);
        let begins = has_room && self.take_rate();
        state.in_progress += usize::from(begins);
        begins
    }

    fn take_rate(&self) -> bool {
        let rate = self.rate.load();
        rate.as_ref()
            .is_none_or(|rate| self.begun.take(**rate, self.epoch.elapsed()))
    }

    /// Gives turns to those who wait, as many as may begin.
    fn advance(self: &Arc<Self>, state: &mut LimiterState) {
        while state.turns.waiting() > 0 && self.begin(state) {
            if let Some(next) = state.turns.pop() {
                // One that is just leaving gives its turn back, as it finds itself out of the queue.
                let _ = next.send(());
            }
        }
        self.look_again(state);
    }

    /// Where only the rate is in the way, nobody's end brings the next turn.
    fn look_again(self: &Arc<Self>, state: &mut LimiterState) {
        let has_room = state.in_progress < self.max.load(Ordering::Relaxed);
        let rate = self.rate.load();
        let (true, false, Some(rate)) = (
            has_room && state.turns.waiting() > 0,
            state.is_timed,
            rate.as_ref(),
        ) else {
            return;
        };
        state.is_timed = true;
        let wait = self.begun.wait(**rate, self.epoch.elapsed());
        let gate = Arc::downgrade(self);
        // It ends by itself, within the time of one turn.
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(gate) = Weak::upgrade(&gate) {
                let mut state = gate.lock();
                state.is_timed = false;
                gate.advance(&mut state);
            }
        });
    }

    fn ended(self: &Arc<Self>, state: &mut LimiterState) {
        state.in_progress = state.in_progress.saturating_sub(1);
        self.advance(state);
    }

    fn lock(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits; dropped, it waits no more.
struct Waiting {
    gate: Arc<HandshakeLimiter>,
    ticket: Option<QueueTicket<SourcePrefix>>,
}

impl Waiting {
    fn into_turn(mut self) -> HandshakePermit {
        self.ticket = None;
        HandshakePermit(Arc::clone(&self.gate))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let mut state = self.gate.lock();
        if state.turns.remove(&ticket).is_none() {
            self.gate.ended(&mut state);
        }
    }
}

/// One handshake that counts; dropping it lets the next one begin.
struct HandshakePermit(Arc<HandshakeLimiter>);

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.0.ended(&mut self.0.lock());
    }
}

/// A client's TLS connection, and how long it had to wait for us.
pub(super) struct AcceptedTls {
    pub stream: tls::TlsStream<Stream>,
    pub waited: Duration,
}

/// Reads the ClientHello, waits for a turn, and makes the handshake, by the arrival's deadline and what was waited for a
/// turn.
///
/// # Errors
/// The connection's end.
pub(super) async fn accept(
    mut stream: Stream,
    terminator: &TlsAcceptor,
    arrival: &ClientConnection,
    record: &mut ConnectionRecord,
) -> Result<AcceptedTls, Termination> {
    let mut alarm = pin!(tokio::time::sleep_until(arrival.deadline));
    let mut read = Vec::with_capacity(HELLO_BYTES);
    let hello = before(alarm.as_mut(), read_hello(&mut stream, &mut read)).await;
    if !read.is_empty() {
        record.heard();
    }
    let hello = hello?;
    let mut config = terminator.config();
    let mut hurried = None;
    let mut waited = Duration::ZERO;
    let turn = match hello.map_err(|error| failed(&error))? {
        Ok((
            _,
            ClientHello {
                malformed_name: Some(name),
                ..
            },
        )) => {
            record.set_sni(&name);
            let reason = "it is not a host name";
            arrival.admissions.tell_of_name(&name, reason);
            // rustls refuses it, as the last.
            None
        }
        Ok((_, hello)) if !terminator.serves(hello.sni.as_deref()) => {
            return Err(refuse_name(stream, hello.sni, arrival, record).await);
        }
        Ok((reader, _)) => {
            let source = arrival.source();
            let resumes = resumes(&reader, &config);
            let turn = take_turn(
                &stream,
                arrival,
                source,
                resumes,
                alarm.as_mut(),
                &mut waited,
            )
            .await;
            hurried = resumes.then_some(source);
            // As they are behind the wait.
            let order = match reader.prefers_chacha() {
                true => CipherOrder::Client,
                false => CipherOrder::Server,
            };
            config = match resumes {
                true => terminator.resumption_config(order),
                false => terminator.config_for(order),
            };
            Some(turn?)
        }
        Err(ClientHelloError::TooLarge) => return Err(refuse_too_large(stream).await),
        // rustls refuses it, with an alert, before anything that costs.
        Err(_) => None,
    };
    let begun = |is_resumed: bool| match hurried {
        Some(source) if !is_resumed => arrival.proxy.handshakes.distrust(source),
        _ => {}
    };
    let mut accepting = pin!(async {
        let mut stream = tls::accept_with_prefix(stream, read, config, begun).await?;
        // A TLS 1.2 client waits for the last flight, which is not to wait for a backend.
        stream.flush().await?;
        Ok(stream)
    });
    let soon = tokio::time::timeout(HELD, &mut accepting).await;
    drop(turn);
    let accepted = match soon {
        Ok(accepted) => accepted,
        Err(_) => before(alarm, accepting).await?,
    };
    let stream = accepted.map_err(|error| failed(&error))?;
    Ok(AcceptedTls { stream, waited })
}

/// What `doing` gives, if it does so before the alarm.
async fn before<T>(
    alarm: Pin<&mut Sleep>,
    doing: impl Future<Output = T>,
) -> Result<T, Termination> {
    tokio::select! {
        biased;
        done = doing => Ok(done),
        () = alarm => Err(Termination::new(Side::Evenkeel, Phase::Tls, Cause::Timeout)),
    }
}

/// A turn; where it is not to be had at once the alarm is set back by what it took. Who has left gets none.
async fn take_turn(
    stream: &Stream,
    arrival: &ClientConnection,
    source: SourcePrefix,
    resumes: bool,
    mut alarm: Pin<&mut Sleep>,
    waited: &mut Duration,
) -> Result<HandshakePermit, Termination> {
    let mut left = pin!(stream.read_closed());
    if let Some(error) = left.as_mut().now_or_never() {
        return Err(failed(&error));
    }
    let turn = turn(arrival, source, resumes);
    let mut turn = pin!(turn.map(|turn| turn.inspect_err(|_| stream.reset_on_close())));
    if let Some(turn) = turn.as_mut().now_or_never() {
        return turn;
    }
    // It has spoken, and waits for us.
    arrival.slot.speak();
    let (deadline, begun) = (alarm.deadline(), tokio::time::Instant::now());
    alarm.as_mut().reset(begun + TURN_TIMEOUT);
    let turn = tokio::select! {
        biased;
        error = left => return Err(failed(&error)),
        turn = before(alarm.as_mut(), turn) => turn??,
    };
    arrival.slot.fall_silent(source);
    *waited = begun.elapsed();
    alarm.reset(deadline + *waited);
    Ok(turn)
}

/// Tells the client that no certificate is for its name, or that it has to send one.
async fn refuse_name(
    mut stream: Stream,
    name: Option<String>,
    arrival: &ClientConnection,
    record: &mut ConnectionRecord,
) -> Termination {
    let (alert, reason) = match name {
        Some(_) => (UNRECOGNIZED_NAME, "no certificate is for it"),
        None => (
            MISSING_EXTENSION,
            "none was sent, and no certificate is the default",
        ),
    };
    let name = name.unwrap_or_default();
    record.set_sni(&name);
    arrival.admissions.tell_of_name(&name, reason);
    arrival.admissions.refused(Refusal::UnknownName);
    send_alert(&mut stream, alert).await;
    Termination::new(Side::Evenkeel, Phase::Tls, Refusal::UnknownName.how())
}

fn failed(error: &io::Error) -> Termination {
    tracing::debug!(error = tls::describe(error), "tls handshake failed");
    client_end(error)
}

async fn read_hello(
    stream: &mut Stream,
    read: &mut Vec<u8>,
) -> io::Result<Result<(ClientHelloReader, ClientHello), ClientHelloError>> {
    let mut reader = ClientHelloReader::new();
    loop {
        let before = read.len();
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match reader.feed(read.get(before..).unwrap_or_default()) {
            HelloProgress::NeedMore => {}
            HelloProgress::Hello(hello) => return Ok(Ok((reader, hello))),
            HelloProgress::Invalid(reason) => return Ok(Err(reason)),
        }
    }
}

/// Whether a ticket of this client is one that our keys open. That it has one says nothing: anybody can send bytes.
fn resumes(reader: &ClientHelloReader, config: &ServerConfig) -> bool {
    let opens = |ticket: &[u8]| config.ticketer.decrypt(ticket).is_some();
    config.ticketer.enabled() && reader.tickets().into_iter().any(opens)
}

async fn turn(
    arrival: &ClientConnection,
    source: SourcePrefix,
    resumes: bool,
) -> Result<HandshakePermit, Termination> {
    let turn = arrival.proxy.handshakes.turn(source, resumes).await;
    turn.ok_or_else(|| {
        arrival.admissions.refused(Refusal::HandshakeQueue);
        Termination::new(Side::Evenkeel, Phase::Tls, Refusal::HandshakeQueue.how())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(max: usize) -> Arc<HandshakeLimiter> {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p\"\n\
                    [pool.p]\nbackend = [{ address = \"127.0.0.1:1\" }]\n";
        let config = crate::config::parse(text, std::path::Path::new("a.toml")).unwrap();
        let mut global = config.global;
        global.max_handshakes = max;
        HandshakeLimiter::new(&global, Handle::current())
    }

    fn source(number: u8) -> SourcePrefix {
        SourcePrefix::V4([10, 0, 0, number])
    }

    #[tokio::test]
    async fn above_the_cap_a_handshake_waits_until_one_is_over() {
        let gate = gate(1);
        let first = gate.turn(source(1), false).await.unwrap();
        let mut second = pin!(gate.turn(source(1), false));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(gate.counts(), (1, 1));
        drop(first);
        assert_eq!(gate.counts(), (1, 0));
        drop(second.await.unwrap());
        assert_eq!(gate.counts(), (0, 0));
    }

    #[tokio::test]
    async fn who_leaves_the_queue_leaves_no_trace() {
        let gate = gate(1);
        let first = gate.turn(source(1), false).await.unwrap();
        let mut left = Box::pin(gate.turn(source(2), false));
        assert!((&mut left).now_or_never().is_none());
        // Told of its turn, and gone before it heard of it.
        let mut told = Box::pin(gate.turn(source(3), true));
        assert!((&mut told).now_or_never().is_none());
        drop(first);
        assert_eq!(gate.counts(), (1, 1));
        drop(told);
        assert_eq!(gate.counts(), (1, 0), "its turn went on");
        drop(left);
        assert_eq!(gate.counts(), (0, 0));
    }

    // With one good ticket a source had all of its full handshakes before everybody else's.
    #[tokio::test]
    async fn a_source_whose_ticket_did_not_resume_waits_with_the_others() {
        let gate = gate(1);
        let first = gate.turn(source(1), true).await.unwrap();
        let mut waiting: Vec<_> = (0..3)
            .map(|_| Box::pin(gate.turn(source(1), true)))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let mut other = pin!(gate.turn(source(2), false));
        assert!((&mut other).now_or_never().is_none());
        gate.distrust(source(1));
        let mut late = pin!(gate.turn(source(1), true));
        assert!((&mut late).now_or_never().is_none());
        let mut resumed = pin!(gate.turn(source(3), true));
        assert!((&mut resumed).now_or_never().is_none());
        drop(first);
        drop(resumed.now_or_never().unwrap());
        // The demoted source came into this lane behind the other one.
        drop(other.now_or_never().unwrap());
        for one in &mut waiting {
            drop(one.now_or_never().unwrap());
        }
        drop(late.now_or_never().unwrap());
        assert_eq!(gate.counts(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_brings_the_next_turn_by_itself() {
        let gate = gate(100);
        gate.rate.store(Some(Arc::new(Rate::per_second(2))));
        let _one = gate.turn(source(1), false).await.unwrap();
        let _two = gate.turn(source(1), false).await.unwrap();
        assert!(gate.turn(source(1), false).now_or_never().is_none());
        gate.rate.store(None);
        assert!(gate.turn(source(1), false).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_raised_cap_lets_those_in_who_wait() {
        let gate = gate(1);
        let _first = gate.turn(source(1), false).await.unwrap();
        let mut second = pin!(gate.turn(source(1), false));
        assert!((&mut second).now_or_never().is_none());
        gate.max.store(2, Ordering::Relaxed);
        gate.advance(&mut gate.lock());
        assert!(second.await.is_some());
    }
}

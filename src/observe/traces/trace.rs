//! The trace of one connection or request, which its record carries.
//!
//! Set-up is recorded as steps, one for each phase that the record enters. When set-up is over, they
//! become spans; a session is one more, with its moves and its end as events. A trace that is not
//! recorded keeps its ids alone: backends and the access log have them all the same.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::span::{Attributes, Span, SpanEvent, SpanKind};
use super::tracer::Tracer;
use crate::observe::counters::BackendCounters;
use crate::observe::termination::{Cause, Phase, Termination};
use crate::wire::trace_context::TraceContext;

/// Steps of one set-up: a dozen tries. What follows belongs to the last one.
const MAX_STEPS: usize = 64;
/// Events of one session: moves of a week with a restart an hour.
const MAX_EVENTS: usize = 168;

#[derive(Debug)]
pub(crate) struct Trace {
    /// The span of the set-up, which the next hop is told of.
    context: TraceContext,
    /// The client's span.
    parent: Option<u64>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    SetUp(SetUp),
    Session(Session),
    /// Not recorded.
    Silent,
}

/// A clock of the wall that does not jump.
#[derive(Debug, Clone, Copy)]
struct TraceClock {
    began: SystemTime,
    ticks: Instant,
}

#[derive(Debug)]
struct SetUp {
    clock: TraceClock,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    phase: Phase,
    begin: Duration,
    backend: Option<Arc<BackendCounters>>,
    error: Option<String>,
}

#[derive(Debug)]
struct Session {
    span_id: u64,
    clock: TraceClock,
    events: Vec<SpanEvent>,
    dropped_events: u32,
}

impl TraceClock {
    fn start() -> TraceClock {
        TraceClock {
            began: SystemTime::now(),
            ticks: Instant::now(),
        }
    }

    fn at(self, after: Duration) -> SystemTime {
        self.began.checked_add(after).unwrap_or(self.began)
    }

    fn now(self) -> SystemTime {
        self.at(self.ticks.elapsed())
    }
}

impl Trace {
    /// Begins a trace; `None` while traces are off.
    pub(crate) fn begin(tracer: &Tracer) -> Option<Trace> {
        if !tracer.is_on() {
            return None;
        }
        let trace_id = fastrand::u128(1..);
        let clock = TraceClock::start();
        let first = Step::of(Phase::Accept, Duration::ZERO, None);
        Some(Trace {
            context: TraceContext {
                trace_id,
                span_id: new_span_id(),
                is_sampled: tracer.samples(trace_id),
            },
            parent: None,
            stage: Stage::SetUp(SetUp {
                clock,
                steps: vec![first],
            }),
        })
    }

    /// A trace whose session another process has begun.
    pub(crate) fn take_over(context: TraceContext) -> Trace {
        let mut trace = Trace {
            context,
            parent: None,
            stage: Stage::Silent,
        };
        trace.begin_session();
        trace
    }

    pub(crate) fn context(&self) -> TraceContext {
        self.context
    }

    /// Whether it has spans to come.
    pub(crate) fn is_recorded(&self) -> bool {
        self.context.is_sampled && !matches!(self.stage, Stage::Silent)
    }

    /// Goes on with the trace of the client, whose choice to record it counts.
    pub(crate) fn go_on_from(&mut self, parent: TraceContext) {
        self.parent = Some(parent.span_id);
        self.context.trace_id = parent.trace_id;
        self.context.is_sampled = parent.is_sampled;
    }

    /// Notes that the next phase begins. The present one again is no new step, but for a connect:
    /// each is a try.
    pub(crate) fn enter(&mut self, phase: Phase) {
        let Stage::SetUp(SetUp { clock, steps }) = &mut self.stage else {
            return;
        };
        let last = steps.last();
        let is_new = last.is_none_or(|last| last.phase != phase || phase == Phase::Connect);
        if is_new && steps.len() < MAX_STEPS {
            let backend = last.and_then(|last| last.backend.clone());
            let asks = matches!(phase, Phase::Upgrade | Phase::Request);
            let step = Step::of(phase, clock.ticks.elapsed(), backend.filter(|_| asks));
            steps.push(step);
        }
    }

    /// Notes the backend of the present step.
    pub(crate) fn at_backend(&mut self, backend: &Arc<BackendCounters>) {
        if let Some(step) = self.last_step() {
            step.backend = Some(Arc::clone(backend));
        }
    }

    /// Notes that the present step has failed.
    pub(crate) fn fail(&mut self, error: &dyn std::fmt::Display) {
        if let Some(step) = self.last_step() {
            step.error = Some(error.to_string());
        }
    }

    fn last_step(&mut self) -> Option<&mut Step> {
        match &mut self.stage {
            Stage::SetUp(set_up) => set_up.steps.last_mut(),
            Stage::Session(_) | Stage::Silent => None,
        }
    }

    /// Notes an event of the session.
    pub(crate) fn note(&mut self, name: &'static str, attributes: Attributes) {
        let Stage::Session(session) = &mut self.stage else {
            return;
        };
        if session.events.len() < MAX_EVENTS {
            let at = session.clock.now();
            session.events.push(SpanEvent {
                name,
                at,
                attributes,
            });
        } else {
            session.dropped_events = session.dropped_events.saturating_add(1);
        }
    }

    /// Ends set-up, for a session. Returns its spans; none without a description, as of a trace that
    /// is not recorded.
    pub(crate) fn open(&mut self, description: Option<Description>) -> Vec<Span> {
        let spans = self.end_set_up(None, description);
        self.begin_session();
        spans
    }

    fn begin_session(&mut self) {
        if self.context.is_sampled {
            self.stage = Stage::Session(Session {
                span_id: new_span_id(),
                clock: TraceClock::start(),
                events: Vec::new(),
                dropped_events: 0,
            });
        }
    }

    /// Ends the trace. Returns its remaining spans; none without a description. `end`: `None` where
    /// the session goes on elsewhere.
    pub(crate) fn end(
        &mut self,
        end: Option<Termination>,
        description: Option<Description>,
    ) -> Vec<Span> {
        match std::mem::replace(&mut self.stage, Stage::Silent) {
            Stage::Session(session) => {
                let attributes = description.map(|one| one.attributes).unwrap_or_default();
                vec![self.session_span(session, end, attributes)]
            }
            set_up => {
                self.stage = set_up;
                self.end_set_up(end, description)
            }
        }
    }

    fn session_span(
        &self,
        session: Session,
        end: Option<Termination>,
        attributes: Attributes,
    ) -> Span {
        let Session {
            span_id,
            clock,
            mut events,
            dropped_events,
        } = session;
        let at = clock.now();
        events.push(match end {
            Some(end) => SpanEvent {
                name: "end",
                at,
                attributes: describe_end(end),
            },
            None => SpanEvent {
                name: "handed over",
                at,
                attributes: Vec::new(),
            },
        });
        Span {
            trace_id: self.context.trace_id,
            span_id,
            parent: Some(self.context.span_id),
            name: "session",
            kind: SpanKind::Internal,
            begin: clock.began,
            end: at,
            attributes,
            events,
            dropped_events,
            error: end
                .filter(|end| is_failure(*end))
                .map(|end| end.to_string()),
        }
    }

    fn end_set_up(
        &mut self,
        end: Option<Termination>,
        description: Option<Description>,
    ) -> Vec<Span> {
        let stage = std::mem::replace(&mut self.stage, Stage::Silent);
        let (Stage::SetUp(set_up), Some(description)) = (stage, description) else {
            return Vec::new();
        };
        let Description {
            name,
            attributes,
            has_failed,
        } = description;
        let error = end.filter(|end| has_failed.unwrap_or(is_failure(*end)));
        let error = error.map(|end| end.to_string());
        let SetUp { clock, mut steps } = set_up;
        if let Some(last) = steps.last_mut()
            && last.error.is_none()
        {
            last.error.clone_from(&error);
        }
        let over = clock.ticks.elapsed();
        let mut end_of_step = over;
        let children = steps.into_iter().rev().map(|step| {
            let end = std::mem::replace(&mut end_of_step, step.begin);
            self.step_span(step, clock, end)
        });
        let mut spans: Vec<Span> = children.collect();
        spans.push(Span {
            trace_id: self.context.trace_id,
            span_id: self.context.span_id,
            parent: self.parent,
            name,
            kind: SpanKind::Server,
            begin: clock.began,
            end: clock.at(over),
            attributes,
            events: Vec::new(),
            dropped_events: 0,
            error,
        });
        spans.reverse();
        spans
    }

    fn step_span(&self, step: Step, clock: TraceClock, end: Duration) -> Span {
        let Step {
            phase,
            begin,
            backend,
            error,
        } = step;
        let backend = backend.map(|backend| {
            let (pool, name) = (&*backend.pool, &*backend.name);
            [
                ("evenkeel.pool", pool.into()),
                ("evenkeel.backend", name.into()),
            ]
        });
        let asks = matches!(phase, Phase::Connect | Phase::Upgrade | Phase::Request);
        Span {
            trace_id: self.context.trace_id,
            span_id: new_span_id(),
            parent: Some(self.context.span_id),
            name: phase.word(),
            kind: if asks {
                SpanKind::Client
            } else {
                SpanKind::Internal
            },
            begin: clock.at(begin),
            end: clock.at(end),
            attributes: backend.into_iter().flatten().collect(),
            events: Vec::new(),
            dropped_events: 0,
            error,
        }
    }
}

/// Facts of a connection for its span.
pub(crate) struct Description {
    pub name: &'static str,
    pub attributes: Attributes,
    /// Whether it failed, where its answer tells.
    pub has_failed: Option<bool>,
}

impl Step {
    fn of(phase: Phase, begin: Duration, backend: Option<Arc<BackendCounters>>) -> Step {
        Step {
            phase,
            begin,
            backend,
            error: None,
        }
    }
}

/// Whether an end is none that the client, its backend or an operator has wished for.
fn is_failure(end: Termination) -> bool {
    !matches!(end.how, Cause::Fin | Cause::Stop)
}

fn describe_end(end: Termination) -> Attributes {
    vec![
        ("evenkeel.end.side", end.side.word().into()),
        ("evenkeel.end.phase", end.phase.word().into()),
        ("evenkeel.end.how", end.how.word().into()),
    ]
}

fn new_span_id() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use super::super::tracer::tests::settings;
    use super::*;
    use crate::observe::termination::Side;

    fn begun(percent: u8) -> Trace {
        let tracer = Tracer::default();
        tracer.apply(Some(&settings(percent, 100)));
        Trace::begin(&tracer).unwrap()
    }

    fn description() -> Option<Description> {
        Some(Description {
            name: "connection",
            attributes: Vec::new(),
            has_failed: None,
        })
    }

    const RESET: Termination = Termination::new(Side::Backend, Phase::Relay, Cause::Rst);

    #[test]
    fn each_step_is_a_child_that_ends_where_the_next_begins() {
        let mut trace = begun(100);
        let node = |name: &str| BackendCounters::new("chat".into(), name.into(), Arc::default());
        trace.enter(Phase::Queue);
        trace.enter(Phase::Connect);
        trace.at_backend(&node("n1"));
        trace.fail(&"refused");
        trace.enter(Phase::Queue);
        trace.enter(Phase::Connect);
        trace.at_backend(&node("n2"));
        trace.enter(Phase::Upgrade);
        let spans = trace.open(description());
        let names: Vec<_> = spans.iter().map(|span| span.name).collect();
        assert_eq!(
            names,
            [
                "connection",
                "accept",
                "queue",
                "connect",
                "queue",
                "connect",
                "upgrade"
            ]
        );
        let root = &spans[0];
        for pair in spans[1..].windows(2) {
            assert_eq!(pair[0].end, pair[1].begin);
            assert_eq!(pair[0].parent, Some(root.span_id));
        }
        assert_eq!((root.begin, root.end), (spans[1].begin, spans[6].end));
        assert_eq!(spans[3].error.as_deref(), Some("refused"));
        assert_eq!(root.error, None);
        let backend = ("evenkeel.backend", "n2".into());
        assert!(spans[6].attributes.contains(&backend), "{:?}", spans[6]);
        assert!(spans[4].attributes.is_empty());
    }

    #[test]
    fn a_session_is_a_span_with_its_moves_and_its_end() {
        let mut trace = begun(100);
        let set_up = trace.open(description());
        trace.note("resume", Vec::new());
        let spans = trace.end(Some(RESET), trace.is_recorded().then(description).flatten());
        let [session] = &*spans else {
            panic!("{spans:?}")
        };
        assert_eq!(
            (session.name, session.parent),
            ("session", Some(set_up[0].span_id))
        );
        let names: Vec<_> = session.events.iter().map(|event| event.name).collect();
        assert_eq!(names, ["resume", "end"]);
        assert_eq!(session.error.as_deref(), Some("backend relay rst"));
        assert!(
            trace
                .end(Some(RESET), trace.is_recorded().then(description).flatten())
                .is_empty(),
            "it ends once"
        );
    }

    #[test]
    fn events_beyond_the_bound_are_counted() {
        let mut trace = begun(100);
        trace.open(description());
        (0..MAX_EVENTS + 3).for_each(|_| trace.note("resume", Vec::new()));
        let spans = trace.end(None, description());
        assert_eq!(
            (spans[0].events.len(), spans[0].dropped_events),
            (MAX_EVENTS + 1, 3)
        );
    }

    #[test]
    fn the_client_decides_whether_its_trace_is_recorded() {
        for is_sampled in [true, false] {
            let mut trace = begun(if is_sampled { 0 } else { 100 });
            let parent = TraceContext {
                trace_id: 7,
                span_id: 9,
                is_sampled,
            };
            trace.go_on_from(parent);
            let spans = trace.end(Some(RESET), trace.is_recorded().then(description).flatten());
            assert_eq!(spans.is_empty(), !is_sampled);
            assert!(spans.iter().all(|span| span.trace_id == 7));
            assert!(spans.first().is_none_or(|root| root.parent == Some(9)));
            assert_ne!(trace.context().span_id, 9);
        }
    }

    #[test]
    fn steps_are_bounded() {
        let mut trace = begun(100);
        (0..500).for_each(|_| trace.enter(Phase::Connect));
        assert_eq!(trace.open(description()).len(), MAX_STEPS + 1);
    }
}

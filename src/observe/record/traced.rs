//! The trace of a record: its place in a trace, and what its spans say.

use std::fmt::Display;

use super::ConnectionRecord;
use crate::observe::resumed::Resumed;
use crate::observe::termination::{Phase, Termination};
use crate::observe::traces::{AttributeValue, Attributes, Description, Span, Trace};
use crate::wire::trace_context::TraceContext;

impl ConnectionRecord {
    /// Begins the next phase.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        if let Some(trace) = self.names.trace_mut() {
            trace.enter(phase);
        }
    }

    /// The phase that the connection has come to.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Notes why the present phase has failed: the connection goes on with another one.
    pub(crate) fn note_failure(&mut self, error: &dyn Display) {
        if let Some(trace) = self.names.trace_mut() {
            trace.fail(error);
        }
    }

    /// Takes the place of the record's span in a trace, for the backend. `parent`: that of the
    /// client, where its trace goes on; it is asked with the choice whether a trace is continued.
    /// `None` while traces are off.
    pub(crate) fn place_in_trace(
        &mut self,
        is_trusted: bool,
        parent: impl FnOnce() -> Option<TraceContext>,
    ) -> Option<TracePlace> {
        let trace = self.names.trace_mut()?;
        let continues = self.listener.journal.tracer().continues(is_trusted);
        let parent = continues.then(parent).flatten();
        if let Some(parent) = parent {
            trace.go_on_from(parent);
        }
        Some(TracePlace {
            context: trace.context(),
            is_continued: parent.is_some(),
        })
    }

    /// The id of the trace, while traces are on.
    pub(super) fn trace_id(&self) -> Option<u128> {
        self.names.trace().map(|trace| trace.context().trace_id)
    }

    /// Notes that the session leaves its backend by our decision.
    pub(crate) fn moves(&mut self) {
        if let Some(trace) = self.names.trace_mut() {
            let from = self.assigned.as_ref();
            let from = from.map(|from| ("evenkeel.backend", AttributeValue::from(&*from.name)));
            trace.note("move", from.into_iter().collect());
        }
    }

    pub(super) fn trace_resumed(&mut self, resumed: &Resumed) {
        let Some(trace) = self.names.trace_mut() else {
            return;
        };
        let Resumed { from, gap, lost } = resumed;
        let to = self.assigned.as_ref().map(|to| &*to.name);
        let mut attributes = Attributes::new();
        add(&mut attributes, "evenkeel.from", from.as_deref());
        add(&mut attributes, "evenkeel.backend", to);
        let gap = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        attributes.push(("evenkeel.gap_ms", gap.into()));
        add(&mut attributes, "evenkeel.lost", lost.map(u64::from));
        trace.note("resume", attributes);
    }

    /// Ends the set-up of the trace, for a session.
    pub(super) fn trace_opened(&mut self) {
        let description = self.describe_recorded();
        if let Some(trace) = self.names.trace_mut() {
            let spans = trace.open(description);
            self.queue_spans(spans);
        }
    }

    /// Ends the trace; `None`: another process goes on with the session.
    pub(super) fn trace_ended(&mut self, end: Option<Termination>) {
        let description = self.describe_recorded();
        if let Some(trace) = self.names.trace_mut() {
            let spans = trace.end(end, description);
            self.queue_spans(spans);
        }
    }

    fn queue_spans(&self, spans: Vec<Span>) {
        if !spans.is_empty() {
            self.listener.journal.tracer().queue(spans);
        }
    }

    /// The facts for a span, where there is one to be described.
    fn describe_recorded(&self) -> Option<Description> {
        let trace = self.names.trace()?;
        trace.is_recorded().then(|| self.describe())
    }

    /// The facts that are known by now, by the names of OpenTelemetry where it has some.
    fn describe(&self) -> Description {
        let names = &self.names;
        let mut facts: Attributes = vec![
            (
                "evenkeel.listener",
                AttributeValue::from(&*self.listener.name),
            ),
            ("evenkeel.id", self.id.into()),
        ];
        let ip = self.client.ip().map(|ip| ip.to_string());
        add(&mut facts, "client.address", ip);
        add(&mut facts, "client.port", self.client.port().map(u64::from));
        add(&mut facts, "network.peer.address", names.via());
        add(&mut facts, "tls.server_name", names.sni());
        if let Some(tls) = names.client_tls() {
            add(
                &mut facts,
                "tls.protocol.version",
                Some(crate::config::Word::word(tls.version)),
            );
            add(&mut facts, "tls.cipher", Some(&*tls.cipher_name()));
            add(&mut facts, "tls.resumed", Some(u64::from(tls.resumed)));
        }
        add(&mut facts, "http.request.method", names.method());
        add(&mut facts, "server.address", names.host());
        add(&mut facts, "url.path", names.path());
        add(&mut facts, "evenkeel.tag", names.logged_tag().as_deref());
        add(&mut facts, "evenkeel.request_id", names.request_id());
        let status = Some(u64::from(self.status)).filter(|status| *status != 0);
        add(&mut facts, "http.response.status_code", status);
        if let Some(assigned) = &self.assigned {
            add(&mut facts, "evenkeel.pool", Some(&*assigned.pool));
            add(&mut facts, "evenkeel.backend", Some(&*assigned.name));
        }
        facts.push(("evenkeel.tries", u64::from(self.tries).into()));
        if self.bytes_from_client + self.bytes_from_backend > 0 {
            facts.push(("evenkeel.bytes_from_client", self.bytes_from_client.into()));
            facts.push((
                "evenkeel.bytes_from_backend",
                self.bytes_from_backend.into(),
            ));
        }
        Description {
            name: names.method().map_or("connection", span_name),
            attributes: facts,
            has_failed: (self.status != 0).then_some(self.status >= 500),
        }
    }
}

/// Place of a request in a trace, as its backend is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TracePlace {
    pub context: TraceContext,
    /// The client has begun the trace.
    pub is_continued: bool,
}

impl Trace {
    /// The trace of a session that comes from another process, as that has written it.
    pub(super) fn import(written: Option<&str>) -> Option<Trace> {
        TraceContext::parse(written?.as_bytes()).map(Trace::take_over)
    }
}

fn add(facts: &mut Attributes, name: &'static str, value: Option<impl Into<AttributeValue>>) {
    if let Some(value) = value {
        facts.push((name, value.into()));
    }
}

/// Name of a request's span: a client chooses the method, and names are few.
fn span_name(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    let known = KNOWN.into_iter().find(|known| *known == method);
    known.unwrap_or("HTTP")
}

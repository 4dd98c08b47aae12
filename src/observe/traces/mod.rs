//! Traces: the steps of a connection as spans, for a collector.
//!
//! A [`Trace`] goes along with the record of its connection and hears of each phase. Set-up becomes
//! a span with a child for each step, a session another one. The [`Tracer`] has a bounded queue of
//! finished spans, from which the server's exporter takes them.

#![cfg_attr(
    not(feature = "traces"),
    allow(
        dead_code,
        unused_imports,
        reason = "without an exporter nothing is taken out"
    )
)]

mod span;
mod trace;
mod tracer;

pub(crate) use span::{AttributeValue, Attributes, Span, SpanEvent, SpanKind};
pub(super) use trace::{Description, Trace};
pub(crate) use tracer::{SpanQueue, Spans, TraceValues, Tracer};

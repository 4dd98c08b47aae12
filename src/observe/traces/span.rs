//! A finished span as plain data. The exporter writes it in the collector's form.

use std::time::SystemTime;

/// Names and values that describe a span or an event.
pub(crate) type Attributes = Vec<(&'static str, AttributeValue)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttributeValue {
    Text(String),
    Number(i64),
}

/// Part of a span in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// A client's connection or request.
    Server,
    /// A connect, or what is asked of a backend.
    Client,
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub trace_id: u128,
    pub span_id: u64,
    pub parent: Option<u64>,
    pub name: &'static str,
    pub kind: SpanKind,
    pub begin: SystemTime,
    pub end: SystemTime,
    pub attributes: Attributes,
    pub events: Vec<SpanEvent>,
    /// Events beyond the bound.
    pub dropped_events: u32,
    /// Present where the span failed.
    pub error: Option<String>,
}

/// A moment in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpanEvent {
    pub name: &'static str,
    pub at: SystemTime,
    pub attributes: Attributes,
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> AttributeValue {
        AttributeValue::Text(text.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> AttributeValue {
        AttributeValue::Text(text)
    }
}

impl From<u64> for AttributeValue {
    fn from(number: u64) -> AttributeValue {
        AttributeValue::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

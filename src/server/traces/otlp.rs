//! Spans as the messages of OTLP, by the crate that is made of its official definitions.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{
    self as otlp, ResourceSpans, ScopeSpans, Status, span,
};
use prost::Message as _;

use crate::observe::{AttributeValue, Attributes, Span, SpanEvent, SpanKind};

/// Flags of a span: it is recorded, and whether its parent is of another process is known.
const SAMPLED: u32 = 0x01;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Facts of this process, which go along with each request.
pub(super) fn resource(service_name: &str, instance: &str) -> Attributes {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    vec![
        ("service.name", service_name.into()),
        ("service.version", env!("CARGO_PKG_VERSION").into()),
        ("service.instance.id", instance.into()),
        ("host.name", host.trim().into()),
        ("process.pid", u64::from(std::process::id()).into()),
    ]
}

/// Encodes a request with all of these spans.
pub(super) fn encode(resource: &Attributes, spans: &[Span]) -> Bytes {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes(resource),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "evenkeel".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.iter().map(span).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec().into()
}

/// The number of spans that the collector has not taken, and why, by its answer. One that cannot
/// be read says nothing.
pub(super) fn rejected(answer: &[u8]) -> Option<(usize, String)> {
    let answer = ExportTraceServiceResponse::decode(answer).ok()?;
    let partial = answer.partial_success?;
    let count = usize::try_from(partial.rejected_spans).ok()?;
    (count > 0).then_some((count, partial.error_message))
}

fn span(span: &Span) -> otlp::Span {
    let kind = match span.kind {
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Internal => span::SpanKind::Internal,
    };
    // Only the first span of a set-up has a parent that is not of this process.
    let is_remote = span.kind == SpanKind::Server && span.parent.is_some();
    otlp::Span {
        trace_id: span.trace_id.to_be_bytes().into(),
        span_id: span.span_id.to_be_bytes().into(),
        parent_span_id: span
            .parent
            .map_or_else(Vec::new, |id| id.to_be_bytes().into()),
        flags: SAMPLED | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 },
        name: span.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(span.begin),
        end_time_unix_nano: nanoseconds(span.end),
        attributes: attributes(&span.attributes),
        events: span.events.iter().map(event).collect(),
        dropped_events_count: span.dropped_events,
        status: span.error.as_ref().map(|error| Status {
            code: StatusCode::Error.into(),
            message: error.clone(),
        }),
        ..otlp::Span::default()
    }
}

fn event(event: &SpanEvent) -> span::Event {
    span::Event {
        time_unix_nano: nanoseconds(event.at),
        name: event.name.to_owned(),
        attributes: attributes(&event.attributes),
        ..span::Event::default()
    }
}

fn attributes(attributes: &Attributes) -> Vec<KeyValue> {
    let pair = |(name, value): &(&str, AttributeValue)| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue {
            value: Some(match value {
                AttributeValue::Text(text) => Value::StringValue(text.clone()),
                AttributeValue::Number(number) => Value::IntValue(*number),
            }),
        }),
        ..KeyValue::default()
    };
    attributes.iter().map(pair).collect()
}

/// Nanoseconds since the epoch; 0 before it.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

//! `traceparent`: whatever its bytes are, they are read or refused. What is read is written so that it is read the same.

#![no_main]

use evenkeel::wire::trace_context::TraceContext;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(context) = TraceContext::parse(bytes) else {
        return;
    };
    assert!(context.trace_id != 0 && context.span_id != 0, "an id that is none");
    let written = context.to_string();
    assert_eq!(TraceContext::parse(written.as_bytes()), Some(context), "it is written otherwise");
});

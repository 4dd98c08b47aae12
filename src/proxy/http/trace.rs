//! The place of a request in a trace: after the client's, where that is continued, and before the
//! backend's.

use super::connection::HttpConnection;
use super::request_record::RequestRecord;
use crate::observe::TracePlace;
use crate::proxy::route::ListenerSnapshot;
use crate::wire::http::{Edits, RequestHead};
use crate::wire::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};

/// Takes the place of a request in its trace. `None` while traces are off.
pub(super) fn place(
    http: &HttpConnection,
    listener: &ListenerSnapshot,
    head: RequestHead<'_>,
    record: &mut RequestRecord,
) -> Option<TracePlace> {
    let is_trusted = http.connection.is_believed(&listener.config);
    // Of two, none is to be believed.
    let parent = || TraceContext::parse(head.fields().only(TRACEPARENT)?);
    let mut place = None;
    record.note(|record| place = record.place_in_trace(is_trusted, parent));
    place
}

/// Tells a backend the place. What other tracers say of a trace that goes on passes.
pub(super) fn set(edits: &mut Edits<'_>, place: TracePlace) {
    edits.set(TRACEPARENT, place.context.to_string().as_bytes());
    if !place.is_continued {
        edits.remove(TRACESTATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::SampleRequest;

    #[test]
    fn a_backend_is_told_one_place_and_only_the_state_of_that_trace() {
        let context = TraceContext {
            trace_id: 1,
            span_id: 2,
            is_sampled: true,
        };
        let told = "00-00000000000000000000000000000001-0000000000000002-01";
        let sent = [("TraceParent", "00-x"), ("tracestate", "a=b")];
        let request = SampleRequest::get("/", &sent);
        for (is_continued, expected) in [
            (true, &[(TRACESTATE, "a=b"), ("Traceparent", told)][..]),
            (false, &[("Traceparent", told)]),
        ] {
            let mut edits = Edits::default();
            set(
                &mut edits,
                TracePlace {
                    context,
                    is_continued,
                },
            );
            let mut forwarded = request.forwarded(&edits);
            forwarded.sort_by(|one, other| other.cmp(one));
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(forwarded, expected);
        }
    }
}

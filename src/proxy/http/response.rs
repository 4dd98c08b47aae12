//! Responses to a client: a backend's on its way through, or a short one of our own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_VERSION};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::backend::{Driver, Exchange};
use super::gate_state::GateState;
use super::headers::{self, Purpose};
use super::interval::Interval;
use super::request_record::RequestRecord;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::Lease;
use crate::wire::websocket;

/// The body of a response. The request's record ends with it.
pub(super) enum ResponseBody {
    Own(Box<OwnBody>),
    Backend(Box<BackendBody>),
    /// The body of a 101, whose record goes on with the session.
    Empty,
}

/// The body of a response of our own.
pub(super) struct OwnBody {
    text: Option<Bytes>,
    _record: RequestRecord,
}

/// Makes a short response of our own. `detail` tells a client what it did wrong; of a backend's
/// failure it learns nothing.
pub(super) fn own(
    mut record: RequestRecord,
    status: StatusCode,
    end: Termination,
    detail: Option<&str>,
) -> Response<ResponseBody> {
    record.note(|record| record.answered(status.as_u16()));
    record.ends(end);
    let text = match detail {
        Some(detail) => format!("{status}: {detail}\n"),
        None => format!("{status}\n"),
    };
    let mut response = Response::new(ResponseBody::Own(Box::new(OwnBody {
        text: Some(text.into()),
        _record: record,
    })));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::UPGRADE_REQUIRED {
        fields.insert(
            SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static(websocket::VERSION),
        );
    }
    response
}

/// As [`own`], and the connection is closed after it.
pub(super) fn own_and_close(
    record: RequestRecord,
    status: StatusCode,
    end: Termination,
    detail: Option<&str>,
) -> Response<ResponseBody> {
    let mut response = own(record, status, end, detail);
    headers::close(response.headers_mut());
    response
}

/// Passes a backend's response on; everything that the request holds goes with its body.
pub(super) fn stream_back(
    response: Response<Incoming>,
    mut record: RequestRecord,
    exchange: Exchange,
    gate_state: &Arc<GateState>,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    headers::response(&mut parts.headers, Purpose::Ordinary);
    parts.version = Version::HTTP_11;
    record.note(|record| record.answered(parts.status.as_u16()));
    let Exchange {
        connection,
        lease,
        sent,
    } = exchange;
    let streamed = BackendBody {
        body,
        interval: record.clock(),
        record,
        _driver: connection.driver,
        gate_state: Arc::clone(gate_state),
        sent,
        stalled: connection.stalled,
        _lease: lease,
    };
    Response::from_parts(parts, ResponseBody::Backend(Box::new(streamed)))
}

/// A backend's body on its way to the client. It holds what the request holds, to the body's end:
/// dropping it gives the lease back, ends the backend connection and finishes the record.
pub(super) struct BackendBody {
    body: Incoming,
    record: RequestRecord,
    /// Wakes for the interval lines.
    interval: Option<Interval>,
    /// Ends the backend connection with the body.
    _driver: Driver,
    gate_state: Arc<GateState>,
    /// Bytes of the request's body that went to the backend.
    sent: Arc<AtomicU64>,
    /// The exchange was given up because nothing moved.
    stalled: Arc<AtomicBool>,
    _lease: Lease,
}

impl BackendBody {
    fn passed(&mut self, frame: &Frame<Bytes>) {
        self.gate_state.moved();
        if let Some(data) = frame.data_ref() {
            self.record
                .note(|record| record.bytes_from_backend += data.len() as u64);
        }
    }

    fn update_record(&mut self, context: &mut Context<'_>) {
        let Some(interval) = &mut self.interval else {
            return;
        };
        while interval.poll(context) {
            let sent = self.sent.load(Ordering::Relaxed);
            self.record.note(|record| {
                record.bytes_from_client = sent;
                interval.update(record);
            });
        }
    }

    fn ends(&mut self, side: Side, cause: Cause) {
        self.record
            .ends(Termination::new(side, Phase::Request, cause));
    }
}

impl Body for BackendBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let streamed = self.get_mut();
        streamed.update_record(context);
        let poll = Pin::new(&mut streamed.body).poll_frame(context);
        match &poll {
            Poll::Ready(Some(Ok(frame))) => streamed.passed(frame),
            Poll::Ready(None) => streamed.ends(Side::Backend, Cause::Fin),
            Poll::Ready(Some(Err(_))) if streamed.stalled.load(Ordering::Relaxed) => {
                streamed.ends(Side::Evenkeel, Cause::Timeout);
            }
            Poll::Ready(Some(Err(_))) => streamed.ends(Side::Backend, Cause::Rst),
            Poll::Pending => {}
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for BackendBody {
    fn drop(&mut self) {
        // hyper does not ask on once the announced length has come.
        if self.body.is_end_stream() {
            self.ends(Side::Backend, Cause::Fin);
        } else if self.stalled.load(Ordering::Relaxed) {
            self.ends(Side::Evenkeel, Cause::Timeout);
        }
        let sent = self.sent.load(Ordering::Relaxed);
        self.record.note(|record| record.bytes_from_client = sent);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            ResponseBody::Own(own) => {
                Poll::Ready(own.text.take().map(|text| Ok(Frame::data(text))))
            }
            ResponseBody::Backend(streamed) => Pin::new(&mut **streamed).poll_frame(context),
            ResponseBody::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Own(own) => own.text.is_none(),
            ResponseBody::Backend(streamed) => streamed.is_end_stream(),
            ResponseBody::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Own(own) => {
                SizeHint::with_exact(own.text.as_ref().map_or(0, |text| text.len() as u64))
            }
            ResponseBody::Backend(streamed) => streamed.size_hint(),
            ResponseBody::Empty => SizeHint::with_exact(0),
        }
    }
}

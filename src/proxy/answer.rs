//! What is answered to a client: a backend's answer on its way through, or a short one of our own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_VERSION};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::backend_line::Driver;
use super::dialogue::GateState;
use super::forward;
use super::interval::Interval;
use super::ticket::RequestRecord;
use crate::observe::{Cause, Phase, Side, Termination};
use crate::pool::Lease;
use crate::wire::websocket;

/// The body of an answer. The request's ticket ends with it.
pub(super) enum ResponseBody {
    Own(Box<OwnBody>),
    Backend(Box<BackendBody>),
    /// Of a 101: its ticket goes on with the session.
    Empty,
}

/// The body of an answer of our own, and the ticket that ends with it.
pub(super) struct OwnBody {
    text: Option<Bytes>,
    _ticket: RequestRecord,
}

/// A short answer of our own. `detail` tells a client what it did wrong; nothing is told of a backend's failure.
pub(super) fn own(
    mut ticket: RequestRecord,
    status: StatusCode,
    end: Termination,
    detail: Option<&str>,
) -> Response<ResponseBody> {
    ticket.note(|record| record.answered(status.as_u16()));
    ticket.ends(end);
    let text = match detail {
        Some(detail) => format!("{status}: {detail}\n"),
        None => format!("{status}\n"),
    };
    let mut response = Response::new(ResponseBody::Own(Box::new(OwnBody {
        text: Some(text.into()),
        _ticket: ticket,
    })));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(
            SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static(websocket::VERSION),
        );
    }
    response
}

/// As [`own`], and the connection is closed after it.
pub(super) fn own_and_close(
    ticket: RequestRecord,
    status: StatusCode,
    end: Termination,
    detail: Option<&str>,
) -> Response<ResponseBody> {
    let mut response = own(ticket, status, end, detail);
    forward::close(response.headers_mut());
    response
}

/// A backend's body on its way to the client. It holds what the request holds, to the body's end: dropping it gives
/// the lease back, ends the backend connection and finishes the record.
pub(super) struct BackendBody {
    pub body: Incoming,
    pub ticket: RequestRecord,
    /// Rings for the interval lines.
    pub interval: Option<Interval>,
    /// Ends the backend connection with the body.
    pub _driver: Driver,
    pub dialogue: Arc<GateState>,
    /// Bytes of the request's body that went to the backend.
    pub sent: Arc<AtomicU64>,
    /// The exchange was given up because nothing moved.
    pub stalled: Arc<AtomicBool>,
    pub _lease: Lease,
}

impl BackendBody {
    fn passed(&mut self, frame: &Frame<Bytes>) {
        self.dialogue.moved();
        if let Some(data) = frame.data_ref() {
            self.ticket
                .note(|record| record.bytes_from_backend += data.len() as u64);
        }
    }

    fn look(&mut self, context: &mut Context<'_>) {
        let Some(interval) = &mut self.interval else {
            return;
        };
        while interval.poll(context) {
            let sent = self.sent.load(Ordering::Relaxed);
            self.ticket.note(|record| {
                record.bytes_from_client = sent;
                interval.look(record);
            });
        }
    }

    fn ends(&mut self, side: Side, how: Cause) {
        self.ticket
            .ends(Termination::new(side, Phase::Request, how));
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
        streamed.look(context);
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
        self.ticket.note(|record| record.bytes_from_client = sent);
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

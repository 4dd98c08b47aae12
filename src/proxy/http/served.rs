//! The outcome of one request: a response, and after an upgrade a session.

use http::Response;

use super::request_record::RequestRecord;
use super::response::ResponseBody;
use crate::admission::SourcePermit;
use crate::pool::Lease;
use crate::proxy::client::maybe_tls::MaybeTlsStream;
use crate::relay::{Framing, ResumePolicy, SessionLimits};

/// A response, and the session that follows it where it is a verified 101.
pub(super) struct ServedRequest {
    pub response: Response<ResponseBody>,
    pub upgraded: Option<Box<Upgraded>>,
}

impl From<Response<ResponseBody>> for ServedRequest {
    fn from(response: Response<ResponseBody>) -> ServedRequest {
        ServedRequest {
            response,
            upgraded: None,
        }
    }
}

/// A session between the verified 101 and its adoption: all but the client's stream.
pub(super) struct Upgraded {
    pub backend: MaybeTlsStream,
    /// Bytes that the backend sent behind its 101.
    pub backend_read: Vec<u8>,
    pub framing: Framing,
    pub limits: SessionLimits,
    pub record: RequestRecord,
    pub lease: Lease,
    /// Present where the client is another than the one whose connection was let in.
    pub source: Option<SourcePermit>,
    /// Present where the session may outlive its backend.
    pub resume: Option<Box<ResumePolicy>>,
}

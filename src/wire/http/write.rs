//! Heads on their way through: a client's for a backend, and a backend's for a client.
//!
//! Fields keep their order and spelling. Those of one hop end here (RFC 9110 section 7.6.1), and
//! the ones of the next hop are written behind the others.

use std::io::Write;

use super::body::BodyFraming;
use super::edits::Edits;
use super::fields::{HttpVersion, is_alias, is_hop_by_hop};
use super::head_writer::HeadWriter;
use super::request::RequestHead;
use super::response::ResponseHead;

/// Future of the backend connection after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    KeepAlive,
    /// The answer is its last.
    Close,
    /// It is to become a WebSocket.
    Upgrade,
}

/// Writes a client's request for a backend, in origin form: a backend is no proxy.
pub fn write_request(head: RequestHead<'_>, hop: NextHop, edits: &Edits<'_>, out: &mut Vec<u8>) {
    let fields = head.fields();
    let target = head.path_and_query();
    let missing: &[u8] = match target.first() {
        Some(b'/' | b'*') => b"",
        // RFC 9112 section 3.2.4.
        None if head.method() == b"OPTIONS" => b"*",
        _ => b"/",
    };
    let mut writer = HeadWriter::request(out, head.method(), &[missing, target]);
    let is_chunked = head.body() == BodyFraming::Chunked;
    for (name, value) in fields.iter() {
        let ends_here = is_hop_by_hop(name)
            || head.connection().removes(fields, name)
            || is_alias(name)
            // A client of HTTP/1.0 is sent no interim answer (RFC 9110 section 10.1.1).
            || (head.version() == HttpVersion::Http10 && name.eq_ignore_ascii_case(b"expect"))
            || (!is_chunked && name.eq_ignore_ascii_case(b"trailer"));
        if !ends_here {
            edits.write_sent(&mut writer, name, value);
        }
    }
    edits.write_new(&mut writer, fields);
    if is_chunked {
        writer.field(b"Transfer-Encoding", b"chunked");
    }
    match hop {
        NextHop::KeepAlive => {}
        NextHop::Close => writer.field(b"Connection", b"close"),
        NextHop::Upgrade => write_upgrade(&mut writer),
    }
    writer.finish();
}

fn write_upgrade(writer: &mut HeadWriter<'_>) {
    writer.field(b"Connection", b"Upgrade");
    writer.field(b"Upgrade", b"websocket");
}

/// The client that an answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHop {
    /// Version of its request.
    pub version: HttpVersion,
    /// The connection ends with this answer, by the client's wish or ours.
    pub closes: bool,
}

/// Form in which an answer's body goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyTransfer {
    /// All bytes, framing and trailers too.
    Verbatim,
    /// The data alone: HTTP/1.0 has no chunks.
    DataOnly,
    /// The data in chunks, each behind [`chunk_start`]: only their end tells a complete body.
    InChunks,
}

/// Form of the rest of an answer, behind its written head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardedResponse {
    pub transfer: BodyTransfer,
    /// The client connection ends with this answer.
    pub closes: bool,
}

/// Writes a backend's final answer, or its 101, for a client.
pub fn write_response(
    head: ResponseHead<'_>,
    hop: ClientHop,
    edits: &Edits<'_>,
    out: &mut Vec<u8>,
) -> ForwardedResponse {
    let forwarded = ForwardedResponse::of(head, hop);
    let is_chunked = forwarded.is_chunked(head);
    let mut writer = HeadWriter::response(out, head.status(), head.reason());
    let keeps_trailer = is_chunked && forwarded.transfer == BodyTransfer::Verbatim;
    write_fields(head, edits, keeps_trailer, &mut writer);
    edits.write_new(&mut writer, head.fields());
    if is_chunked {
        writer.field(b"Transfer-Encoding", b"chunked");
    }
    match head.status() {
        101 => write_upgrade(&mut writer),
        426 if forwarded.closes => writer.field(b"Connection", b"Upgrade, close"),
        426 => writer.field(b"Connection", b"Upgrade"),
        _ if forwarded.closes => writer.field(b"Connection", b"close"),
        _ if hop.version == HttpVersion::Http10 => writer.field(b"Connection", b"keep-alive"),
        _ => {}
    }
    writer.finish();
    forwarded
}

impl ForwardedResponse {
    fn of(head: ResponseHead<'_>, hop: ClientHop) -> ForwardedResponse {
        let is_old = hop.version == HttpVersion::Http10;
        let (transfer, lasts_until_close) = match head.framing().body {
            BodyFraming::None | BodyFraming::Length(_) => (BodyTransfer::Verbatim, false),
            BodyFraming::Chunked if is_old => (BodyTransfer::DataOnly, true),
            BodyFraming::Chunked => (BodyTransfer::Verbatim, false),
            BodyFraming::UntilClose if is_old => (BodyTransfer::Verbatim, true),
            BodyFraming::UntilClose => (BodyTransfer::InChunks, false),
        };
        ForwardedResponse {
            transfer,
            closes: head.status() != 101 && (hop.closes || lasts_until_close),
        }
    }

    fn is_chunked(self, head: ResponseHead<'_>) -> bool {
        match self.transfer {
            BodyTransfer::Verbatim => head.framing().body == BodyFraming::Chunked,
            BodyTransfer::DataOnly => false,
            BodyTransfer::InChunks => true,
        }
    }
}

/// Writes a 1xx answer other than 101. False: an HTTP/1.0 client is sent none.
pub fn write_interim(head: ResponseHead<'_>, client: HttpVersion, out: &mut Vec<u8>) -> bool {
    if client == HttpVersion::Http10 {
        return false;
    }
    let mut writer = HeadWriter::response(out, head.status(), head.reason());
    write_fields(head, &Edits::default(), false, &mut writer);
    writer.finish();
    true
}

/// Writes the fields that do not end at this hop, and the one length.
fn write_fields(
    head: ResponseHead<'_>,
    edits: &Edits<'_>,
    keeps_trailer: bool,
    writer: &mut HeadWriter<'_>,
) {
    let fields = head.fields();
    let mut length = head.framing().length;
    for (name, value) in fields.iter() {
        if name.eq_ignore_ascii_case(b"content-length") {
            if let Some(length) = length.take() {
                writer.number(name, length);
            }
            continue;
        }
        // The client is to see which protocols it could ask for (RFC 9110 section 15.5.22).
        let is_offer = head.status() == 426 && name.eq_ignore_ascii_case(b"upgrade");
        let ends_here = is_hop_by_hop(name)
            || head.connection().removes(fields, name)
            || (!keeps_trailer && name.eq_ignore_ascii_case(b"trailer"));
        if is_offer || !ends_here {
            edits.write_sent(writer, name, value);
        }
    }
}

/// End of each chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes what stands before a chunk's data. A chunk of no bytes would be the last one.
pub fn chunk_start(length: usize, out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{length:x}\r\n");
}

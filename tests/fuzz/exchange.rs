//! The HTTP exchange against hyper's readers: what is read of a stream and what is written for the
//! other side, hyper reads as the same messages.

#![no_main]

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use evenkeel::wire::http::{
    Asked, BodyTransfer, CHUNK_END, ClientHop, Edits, Event, Fields, HeadLimits, HttpVersion,
    LAST_CHUNK, MAX_FIELDS, NextHop, RequestReader, ResponseReader, chunk_start, write_interim,
    write_request, write_response,
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, client, server};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    side: Side,
    parts: Vec<Part>,
    /// Sizes of the pieces that the reader gets, over and over.
    sizes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Side {
    Client,
    Backend {
        asked: u8,
        is_old_client: bool,
        closes: bool,
    },
}

#[derive(Debug, Arbitrary)]
enum Part {
    Bytes(Vec<u8>),
    /// A line, or a part of one.
    Known(u8),
    /// A whole head up to its fields.
    Start(u8),
    EndOfHead,
    Chunk(u8),
    LastChunk,
    Body(u8),
}

const STARTS_OF_REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST /x?y HTTP/1.1\r\nhost: a\r\n",
    "HEAD http://a HTTP/1.1\r\nHost: a\r\n",
    "GET wss://a/x HTTP/1.1\r\nHost: A\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a:80\r\n",
    "PUT /{\"a\"} HTTP/1.0\r\n",
    "\r\nGET /a HTTP/1.1\r\nHost: [::1]:80\r\n",
];

const STARTS_OF_ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 103 Early Hints\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304\r\n",
    "HTTP/1.1 426 \r\nUpgrade: x\r\n",
    "HTTP/1.1 999 \u{e9}\r\n",
];

const KNOWN: &[&str] = &[
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length: 05, 5\r\n",
    "Content-Length: 6\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:CHUNKED \r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked;a\r\n",
    "Transfer-Encoding: ",
    "chunked",
    "identity",
    "gzip",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: Upgrade, x-a\r\n",
    "Connection: ",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "X-A: 1\r\n",
    "x-a:\t2 \r\n",
    "X-A:\r\n",
    "X-Forwarded-For: 10.0.0.1\r\n",
    "x_forwarded_for: 10.0.0.2\r\n",
    "X-Client-Cert-San: a\r\n",
    "Keep-Alive: timeout=5\r\n",
    "Trailer: T\r\n",
    "TE: trailers\r\n",
    "Cookie: a=1; b=2\r\n",
    "Set-Cookie: a=1\r\n",
    ", ",
    ": ",
    " ",
    "\t",
    "\r\n",
    "\n",
    "\r",
    "5",
    "hello",
    "5\r\nhello\r\n",
    "5;a=\"b\"\r\n",
    "0\r\n",
    "T: v\r\n",
    "Content-Length",
    "\0",
    "\u{b}",
];

fn pick<'a>(list: &[&'a str], index: u8) -> &'a [u8] {
    list[usize::from(index) % list.len()].as_bytes()
}

fn stream_of(case: &Case) -> Vec<u8> {
    let starts = match case.side {
        Side::Client => STARTS_OF_REQUESTS,
        Side::Backend { .. } => STARTS_OF_ANSWERS,
    };
    let mut stream = Vec::new();
    for part in &case.parts {
        match part {
            Part::Bytes(bytes) => stream.extend_from_slice(bytes),
            Part::Known(index) => stream.extend_from_slice(pick(KNOWN, *index)),
            Part::Start(index) => stream.extend_from_slice(pick(starts, *index)),
            Part::EndOfHead => stream.extend_from_slice(b"\r\n"),
            Part::Chunk(0) => {}
            Part::Chunk(length) => {
                stream.extend_from_slice(format!("{length:X}\r\n").as_bytes());
                stream.resize(stream.len() + usize::from(*length), b'\n');
                stream.extend_from_slice(b"\r\n");
            }
            Part::LastChunk => stream.extend_from_slice(b"0\r\n"),
            Part::Body(length) => stream.resize(stream.len() + usize::from(*length % 64), b'b'),
        }
    }
    stream
}

/// Names in small letters, in an order that does not depend on that of different names.
type FieldList = Vec<(String, Vec<u8>)>;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Message {
    start: String,
    fields: FieldList,
    body: Vec<u8>,
    trailers: FieldList,
}

fn list<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> FieldList {
    let mut list: FieldList = fields
        .map(|(name, value)| {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            (name, value.to_vec())
        })
        .collect();
    list.sort_by(|one, other| one.0.cmp(&other.0));
    list
}

fn of_map(fields: &HeaderMap) -> FieldList {
    list(
        fields
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
    )
}

fn of_trailers(section: &[u8]) -> FieldList {
    let text = String::from_utf8_lossy(section);
    assert!(text.ends_with("\r\n"));
    let lines = section.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    list(lines)
}

fuzz_target!(|case: Case| {
    let stream = stream_of(&case);
    match case.side {
        Side::Client => requests(&stream, &case.sizes),
        Side::Backend {
            asked,
            is_old_client,
            closes,
        } => {
            let asked = [Asked::Ordinary, Asked::Head, Asked::Upgrade][usize::from(asked % 3)];
            let hop = ClientHop {
                version: if is_old_client {
                    HttpVersion::Http10
                } else {
                    HttpVersion::Http11
                },
                closes,
            };
            response(&stream, &case.sizes, asked, hop);
        }
    }
});

/// Gives a stream in pieces; calls back with each event and its bytes. True: all was read.
fn walk<E>(
    stream: &[u8],
    sizes: &[u8],
    mut next: impl FnMut(&[u8]) -> Result<Option<Event>, E>,
) -> (Result<(), E>, Vec<u8>) {
    let mut sizes = sizes.iter().cycle();
    let mut buffer = Vec::new();
    let mut rest = stream;
    loop {
        loop {
            match next(&buffer) {
                Ok(Some(event)) => drop(buffer.drain(..event.taken())),
                Ok(None) => break,
                Err(error) => return (Err(error), buffer),
            }
        }
        if rest.is_empty() {
            return (Ok(()), buffer);
        }
        let size = sizes
            .next()
            .map_or(usize::MAX, |&size| usize::from(size).max(1));
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = behind;
    }
}

fn requests(stream: &[u8], sizes: &[u8]) {
    let mut edits = Edits::default();
    edits.remove_prefix("x-client-cert-");
    edits.extend("X-Forwarded-For", b"192.0.2.7");
    edits.set("X-Real-IP", b"192.0.2.7");
    let mut reader = RequestReader::new(HeadLimits::REQUEST);
    let (mut read, mut expected) = (Vec::new(), Vec::new());
    // Up to the end of the last complete request.
    let (mut complete, mut written) = (0, 0);
    let (mut position, mut out, mut persisting) = (0, Vec::new(), true);
    let (mut message, mut trailers, mut persists) = (Message::default(), Vec::new(), true);
    let mut kept = Vec::new();
    let _ = walk(stream, sizes, |input| {
        let event = reader.next(input)?;
        let Some(event) = event else { return Ok(None) };
        let bytes = &input[..event.taken()];
        position += bytes.len();
        match event {
            Event::Interim(_) => panic!("interim request"),
            Event::Skipped(_) => {}
            Event::Head(_) => {
                let head = reader.head(bytes);
                if head.is_upgrade() {
                    return Ok(Some(event));
                }
                let target = String::from_utf8_lossy(head.path_and_query());
                let slash = if target.starts_with(['/', '*']) {
                    ""
                } else {
                    "/"
                };
                let method = String::from_utf8_lossy(head.method());
                message = Message {
                    start: format!("{method} {slash}{target}"),
                    fields: list(head.fields().iter()),
                    ..Message::default()
                };
                persists = head.persists();
                kept = naive_request(head.fields(), head.version());
                write_request(head, NextHop::KeepAlive, &edits, &mut out);
            }
            Event::Data(_) => message.body.extend_from_slice(bytes),
            Event::Trailers(_) => trailers.extend_from_slice(bytes),
            Event::Framing(_) => {}
            Event::End => {
                if !trailers.is_empty() {
                    message.trailers = of_trailers(&std::mem::take(&mut trailers));
                }
                if persisting {
                    read.push(message.clone());
                }
                persisting &= persists;
                let mut forwarded = message.clone();
                forwarded.fields = std::mem::take(&mut kept);
                if forwarded.start == "OPTIONS /" && !out_has_slash(&out[written..]) {
                    forwarded.start = "OPTIONS *".to_owned();
                }
                expected.push(forwarded);
                (complete, written) = (position, out.len());
            }
        }
        if matches!(
            event,
            Event::Data(_) | Event::Framing(_) | Event::Trailers(_)
        ) {
            out.extend_from_slice(bytes);
        }
        Ok::<_, evenkeel::wire::http::RequestError>(Some(event))
    });
    out.truncate(written);
    assert_eq!(served(&stream[..complete], sizes), read, "as it came");
    assert_eq!(served(&out, sizes), expected, "as it goes on");
}

/// RFC 9112 section 3.2.4: the one target that changes.
fn out_has_slash(out: &[u8]) -> bool {
    out.starts_with(b"OPTIONS /")
}

const HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
];

fn decides(name: &str) -> bool {
    let names = [
        "content-length",
        "trailer",
        "host",
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "cookie",
        "set-cookie",
        "authorization",
        "origin",
    ];
    let families = ["sec-websocket-", "x-forwarded-", "x-client-cert-"];
    names.contains(&name) || families.iter().any(|family| name.starts_with(family))
}

/// The fields that are no hop's own.
fn naive_end_to_end(fields: Fields<'_>) -> FieldList {
    let mut fields = list(fields.iter());
    let options: Vec<String> = fields
        .iter()
        .filter(|(name, _)| name == "connection")
        .flat_map(|(_, value)| {
            let value = String::from_utf8_lossy(value).to_ascii_lowercase();
            let options: Vec<String> = value
                .split(',')
                .map(|option| option.trim_ascii().to_owned())
                .collect();
            options
        })
        .filter(|option| !["close", "keep-alive", "upgrade"].contains(&option.as_str()))
        .collect();
    fields.retain(|(name, _)| {
        !HOP.contains(&name.as_str()) && (decides(name) || !options.contains(name))
    });
    fields
}

fn naive_request(fields: Fields<'_>, version: HttpVersion) -> FieldList {
    let is_chunked = fields.has("transfer-encoding");
    let mut kept = naive_end_to_end(fields);
    kept.retain(|(name, _)| {
        let plain: String = name
            .chars()
            .map(|letter| {
                if letter.is_ascii_alphanumeric() {
                    letter
                } else {
                    '-'
                }
            })
            .collect();
        let is_alias = plain != *name && (HOP.contains(&plain.as_str()) || decides(&plain));
        !is_alias
            && !plain.starts_with("x-client-cert-")
            && name != "x-real-ip"
            && (name != "trailer" || is_chunked)
            && (name != "expect" || version == HttpVersion::Http11)
    });
    let mut chain: Vec<Vec<u8>> = kept
        .iter()
        .filter(|(name, _)| name == "x-forwarded-for")
        .map(|(_, value)| value.clone())
        .collect();
    chain.push(b"192.0.2.7".to_vec());
    kept.retain(|(name, _)| name != "x-forwarded-for");
    kept.push(("x-forwarded-for".to_owned(), chain.join(&b", "[..])));
    kept.push(("x-real-ip".to_owned(), b"192.0.2.7".to_vec()));
    if is_chunked {
        kept.push(("transfer-encoding".to_owned(), b"chunked".to_vec()));
    }
    list(
        kept.iter()
            .map(|(name, value)| (name.as_bytes(), &value[..])),
    )
}

/// The complete requests that hyper's server reads.
fn served(stream: &[u8], sizes: &[u8]) -> Vec<Message> {
    let read = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let read = Arc::clone(&read);
        async move {
            let (parts, body) = request.into_parts();
            let target = parts
                .uri
                .path_and_query()
                .map_or("/", |target| target.as_str());
            let mut message = Message {
                start: format!("{} {target}", parts.method),
                fields: of_map(&parts.headers),
                ..Message::default()
            };
            if collect(body, &mut message).await {
                read.lock().unwrap().push(message);
            }
            Ok::<_, io::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = Memory::new(stream, sizes, true);
    let mut builder = server::conn::http1::Builder::new();
    // Some are added on the way.
    builder.half_close(true).max_headers(MAX_FIELDS);
    let mut connection = pin!(builder.serve_connection(io, service));
    drive(|context| connection.as_mut().poll(context).is_ready());
    std::mem::take(&mut *read.lock().unwrap())
}

async fn collect(mut body: Incoming, message: &mut Message) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        match frame.into_data() {
            Ok(data) => message.body.extend_from_slice(&data),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                message.trailers = of_map(&trailers);
            }
        }
    }
    true
}

/// Polls until it is done. All that is waited for is in memory.
fn drive(mut poll: impl FnMut(&mut Context<'_>) -> bool) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if poll(&mut context) {
            return;
        }
    }
    panic!("hyper waits");
}

#[derive(Debug, Default)]
struct Answered {
    interims: Vec<(u16, FieldList)>,
    last: Message,
}

fn response(stream: &[u8], sizes: &[u8], asked: Asked, hop: ClientHop) {
    let mut reader = ResponseReader::new(HeadLimits::RESPONSE, asked);
    let (mut read, mut expected) = (Answered::default(), Answered::default());
    let (mut out, mut position, mut trailers) = (Vec::new(), 0, Vec::new());
    let mut forwarded = None;
    let (result, unread) = walk(stream, sizes, |input| {
        let Some(event) = reader.next(input)? else {
            return Ok(None);
        };
        let bytes = &input[..event.taken()];
        position += bytes.len();
        match event {
            Event::Skipped(_) => panic!("skipped"),
            Event::Interim(_) => {
                let head = reader.head(bytes);
                read.interims
                    .push((head.status(), list(head.fields().iter())));
                if write_interim(head, hop.version, &mut out) {
                    let mut kept = naive_end_to_end(head.fields());
                    kept.retain(|(name, _)| name != "content-length" && name != "trailer");
                    expected.interims.push((head.status(), kept));
                }
            }
            Event::Head(_) => {
                let head = reader.head(bytes);
                read.last.start = head.status().to_string();
                read.last.fields = list(head.fields().iter());
                forwarded = Some(write_response(head, hop, &Edits::default(), &mut out));
                let keeps_trailer = asked != Asked::Head
                    && ![101, 204, 304].contains(&head.status())
                    && hop.version == HttpVersion::Http11
                    && head.fields().has("transfer-encoding");
                expected.last.start.clone_from(&read.last.start);
                expected.last.fields = naive_response(head.fields(), head.status(), keeps_trailer);
            }
            Event::Data(_) => read.last.body.extend_from_slice(bytes),
            Event::Trailers(_) => trailers.extend_from_slice(bytes),
            Event::Framing(_) | Event::End => {}
        }
        let Some(forwarded) = forwarded else {
            return Ok(Some(event));
        };
        match (event, forwarded.transfer) {
            (Event::Data(_), BodyTransfer::InChunks) => {
                chunk_start(bytes.len(), &mut out);
                out.extend_from_slice(bytes);
                out.extend_from_slice(CHUNK_END);
            }
            (Event::Data(_), _)
            | (Event::Framing(_) | Event::Trailers(_), BodyTransfer::Verbatim) => {
                out.extend_from_slice(bytes);
            }
            _ => {}
        }
        Ok::<_, evenkeel::wire::http::ResponseError>(Some(event))
    });
    if result.is_err() || reader.finish(&unread).is_err() {
        return;
    }
    let Some(forwarded) = forwarded else { return };
    if forwarded.transfer == BodyTransfer::InChunks {
        out.extend_from_slice(LAST_CHUNK);
    }
    if !trailers.is_empty() {
        read.last.trailers = of_trailers(&trailers);
    }
    expected.last.body.clone_from(&read.last.body);
    if forwarded.transfer == BodyTransfer::Verbatim {
        expected.last.trailers.clone_from(&read.last.trailers);
    }
    let (came, _) = answered(&stream[..position], sizes, asked);
    assert_eq!(came.last, read.last, "as it came");
    assert_eq!(came.interims, read.interims, "as it came");
    let (mut went, is_kept) = answered(&out, sizes, asked);
    let own = ["connection", "upgrade", "transfer-encoding"];
    let mut fields = std::mem::take(&mut went.last.fields);
    fields.retain(|(name, _)| !own.contains(&name.as_str()));
    went.last.fields = fields;
    assert_eq!(went.last, expected.last, "as it goes on");
    assert_eq!(went.interims, expected.interims, "as it goes on");
    if hop.version == HttpVersion::Http11 && read.last.start != "101" {
        assert_eq!(is_kept, !forwarded.closes, "the connection");
    }
}

fn naive_response(fields: Fields<'_>, status: u16, keeps_trailer: bool) -> FieldList {
    let mut kept = naive_end_to_end(fields);
    let has_length = !fields.has("transfer-encoding") && status >= 200 && status != 204;
    let mut is_first = true;
    kept.retain(|(name, _)| match name.as_str() {
        "content-length" => has_length && std::mem::take(&mut is_first),
        "trailer" => keeps_trailer,
        _ => true,
    });
    for (_, value) in kept.iter_mut().filter(|(name, _)| name == "content-length") {
        let text = String::from_utf8_lossy(value);
        let length: u64 = text
            .split(',')
            .next()
            .unwrap()
            .trim_ascii()
            .parse()
            .unwrap();
        *value = length.to_string().into_bytes();
    }
    kept
}

/// The answer that hyper's client reads, and whether it would use the connection again.
fn answered(stream: &[u8], sizes: &[u8], asked: Asked) -> (Answered, bool) {
    let io = Memory::new(stream, sizes, false);
    let interims = Arc::new(Mutex::new(Vec::new()));
    let mut request = Request::new(Full::<Bytes>::default());
    request.headers_mut().insert("host", "a".parse().unwrap());
    match asked {
        Asked::Ordinary => {}
        Asked::Head => *request.method_mut() = hyper::Method::HEAD,
        Asked::Upgrade => {
            request
                .headers_mut()
                .insert("connection", "Upgrade".parse().unwrap());
            request
                .headers_mut()
                .insert("upgrade", "websocket".parse().unwrap());
        }
    }
    let seen = Arc::clone(&interims);
    hyper::ext::on_informational(&mut request, move |interim| {
        let fields = of_map(interim.headers());
        seen.lock()
            .unwrap()
            .push((interim.status().as_u16(), fields));
    });
    let mut builder = client::conn::http1::Builder::new();
    builder.max_headers(MAX_FIELDS);
    let mut opening = pin!(builder.handshake(io));
    let mut opened = None;
    drive(|context| match opening.as_mut().poll(context) {
        Poll::Ready(ready) => {
            opened = Some(ready.unwrap());
            true
        }
        Poll::Pending => false,
    });
    let (mut sender, connection) = opened.unwrap();
    let mut connection = pin!(connection);
    let mut is_over = false;
    let mut asking = pin!(async {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let mut answer = Message {
            start: parts.status.as_str().to_owned(),
            fields: of_map(&parts.headers),
            ..Message::default()
        };
        assert!(
            collect(body, &mut answer).await,
            "hyper misses a part of the body"
        );
        let mut options = parts.headers.get_all("connection").iter();
        let is_kept = options.all(|value| !value.as_bytes().ends_with(b"close"));
        (answer, is_kept)
    });
    let mut answered = None;
    drive(|context| {
        is_over = is_over || connection.as_mut().poll(context).is_ready();
        match asking.as_mut().poll(context) {
            Poll::Ready(ready) => {
                answered = Some(ready);
                true
            }
            Poll::Pending => false,
        }
    });
    let (last, is_kept) = answered.unwrap();
    let interims = std::mem::take(&mut *interims.lock().unwrap());
    (Answered { interims, last }, is_kept)
}

/// A stream that gives what it holds in pieces, then its end, and forgets what is written.
struct Memory {
    held: Vec<u8>,
    given: usize,
    sizes: Vec<u8>,
    count: usize,
    /// hyper's client takes an answer that comes before its request for an error.
    is_open: bool,
}

impl Memory {
    fn new(held: &[u8], sizes: &[u8], is_open: bool) -> Memory {
        Memory {
            held: held.to_vec(),
            given: 0,
            sizes: sizes.to_vec(),
            count: 0,
            is_open,
        }
    }
}

impl hyper::rt::Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_open {
            return Poll::Pending;
        }
        let size = match self.sizes.len() {
            0 => usize::MAX,
            count => usize::from(self.sizes[self.count % count]).max(1),
        };
        self.count += 1;
        let rest = &self.held[self.given..];
        let length = size.min(rest.len()).min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.given += length;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_open = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

//! Readers and writers on streams in any pieces, and a corpus that parsers were fooled by.

mod answers;
mod bad_answers;
mod bad_requests;
mod chunking;

mod requests;
mod status;
mod writing;

use std::fmt::Debug;

use super::*;

/// The head of a request whose chunked body follows.
const CHUNKED_REQUEST: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Parts of a stream as a reader finds them; neighbours of one kind are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item<E> {
    Head(String),
    Interim(String),
    Bytes(&'static str, String),
    End,
    Failed(E),
    /// What the reader has left, and what it says of the connection.
    Left(usize, String),
}

trait Reader {
    type Error: Debug + Clone + PartialEq;

    fn next(&mut self, input: &[u8]) -> Result<Option<Event>, Self::Error>;
    fn describe(&self, head: &[u8]) -> String;
    fn close(&mut self, unread: &[u8]) -> String;
}

fn describe(fields: Fields<'_>) -> String {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("|{}={}", name.escape_ascii(), value.escape_ascii()));
    lines.collect()
}

impl Reader for RequestReader {
    type Error = RequestError;

    fn next(&mut self, input: &[u8]) -> Result<Option<Event>, RequestError> {
        RequestReader::next(self, input)
    }

    fn describe(&self, head: &[u8]) -> String {
        let head = self.head(head);
        format!(
            "{} {} {:?} {:?} {} {} {}",
            head.method().escape_ascii(),
            head.path_and_query().escape_ascii(),
            head.host().map(|host| &host.name),
            head.body(),
            head.persists(),
            head.is_upgrade(),
            describe(head.fields()),
        )
    }

    fn close(&mut self, unread: &[u8]) -> String {
        format!("idle {} body {}", self.is_idle(unread), self.is_in_body())
    }
}

impl Reader for ResponseReader {
    type Error = ResponseError;

    fn next(&mut self, input: &[u8]) -> Result<Option<Event>, ResponseError> {
        ResponseReader::next(self, input)
    }

    fn describe(&self, head: &[u8]) -> String {
        let head = self.head(head);
        format!(
            "{} {} {:?} {}",
            head.status(),
            head.reason().escape_ascii(),
            head.framing(),
            describe(head.fields()),
        )
    }

    fn close(&mut self, unread: &[u8]) -> String {
        let reusable = self.is_reusable(unread);
        format!("reusable {reusable} {:?}", self.finish(unread))
    }
}

/// The data of all bodies.
fn data_of<E>(items: &[Item<E>]) -> String {
    let data = items.iter().filter_map(|item| match item {
        Item::Bytes("data", text) => Some(text.as_str()),
        _ => None,
    });
    data.collect()
}

/// Reads `stream` in pieces of these sizes, then the rest.
fn read<R: Reader>(
    reader: &mut R,
    stream: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Item<R::Error>> {
    let mut items: Vec<Item<R::Error>> = Vec::new();
    let mut buffer = Vec::new();
    let mut rest = stream;
    let mut sizes = sizes.into_iter();
    loop {
        loop {
            let event = match reader.next(&buffer) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    items.push(Item::Failed(error));
                    return items;
                }
            };
            let taken: Vec<u8> = buffer.drain(..event.taken()).collect();
            let (kind, text) = match event {
                Event::Head(_) => {
                    items.push(Item::Head(reader.describe(&taken)));
                    continue;
                }
                Event::Interim(_) => {
                    items.push(Item::Interim(reader.describe(&taken)));
                    continue;
                }
                Event::End => {
                    items.push(Item::End);
                    continue;
                }
                Event::Skipped(_) => ("skipped", taken.escape_ascii().to_string()),
                Event::Data(_) => ("data", taken.escape_ascii().to_string()),
                Event::Framing(_) => ("framing", taken.escape_ascii().to_string()),
                Event::Trailers(_) => ("trailers", taken.escape_ascii().to_string()),
            };
            match items.last_mut() {
                Some(Item::Bytes(before, joined)) if *before == kind => joined.push_str(&text),
                _ => items.push(Item::Bytes(kind, text)),
            }
        }
        if rest.is_empty() {
            let left = reader.close(&buffer);
            items.push(Item::Left(buffer.len(), left));
            return items;
        }
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, behind) = rest.split_at(size);
        buffer.extend_from_slice(piece);
        rest = behind;
    }
}

fn requests(stream: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<Item<RequestError>> {
    read(&mut RequestReader::new(HeadLimits::REQUEST), stream, sizes)
}

fn response(
    asked: Asked,
    stream: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Vec<Item<ResponseError>> {
    let mut reader = ResponseReader::new(HeadLimits::RESPONSE, asked);
    read(&mut reader, stream, sizes)
}

fn each_byte(stream: &[u8]) -> Vec<usize> {
    vec![1; stream.len()]
}

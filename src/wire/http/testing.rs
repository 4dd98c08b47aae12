//! Heads for tests, parsed of text.

use super::{
    Asked, Edits, Event, Fields, HeadLimits, NextHop, RequestError, RequestHead, RequestReader,
    ResponseHead, ResponseReader, write_request,
};

/// A request's head with its bytes.
pub(crate) struct SampleRequest {
    head: Vec<u8>,
    reader: RequestReader,
}

impl SampleRequest {
    /// Reads a head, to its empty line.
    pub(crate) fn parse(head: &str) -> Result<SampleRequest, RequestError> {
        let mut reader = RequestReader::new(HeadLimits::REQUEST);
        let event = reader.next(head.as_bytes())?;
        assert_eq!(event, Some(Event::Head(head.len())), "{head}");
        Ok(SampleRequest {
            head: head.as_bytes().to_vec(),
            reader,
        })
    }

    pub(crate) fn new(head: &str) -> SampleRequest {
        SampleRequest::parse(head).unwrap_or_else(|error| panic!("{error}: {head}"))
    }

    /// A GET of `target` with these fields and no others.
    pub(crate) fn get(target: &str, fields: &[(&str, &str)]) -> SampleRequest {
        // HTTP/1.0 may come without a Host.
        let is_host = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("host");
        let minor = u8::from(fields.iter().any(is_host));
        let lines = lines(fields);
        SampleRequest::new(&format!("GET {target} HTTP/1.{minor}\r\n{lines}\r\n"))
    }

    pub(crate) fn head(&self) -> RequestHead<'_> {
        self.reader.head(&self.head)
    }

    /// The fields that a backend gets, in their order.
    pub(crate) fn forwarded(&self, edits: &Edits<'_>) -> Vec<(String, String)> {
        let mut out = Vec::new();
        write_request(self.head(), NextHop::KeepAlive, edits, &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines = text.lines().skip(1).filter(|line| !line.is_empty());
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        lines.map(field).collect()
    }
}

/// An answer's head with its bytes.
pub(crate) struct SampleAnswer {
    head: Vec<u8>,
    reader: ResponseReader,
}

impl SampleAnswer {
    /// The answer to an upgrade, with these fields and no others.
    pub(crate) fn new(status: u16, fields: &[(&str, &str)]) -> SampleAnswer {
        let head = format!("HTTP/1.1 {status} OK\r\n{}\r\n", lines(fields));
        let mut reader = ResponseReader::new(HeadLimits::RESPONSE, Asked::Upgrade);
        let event = reader.next(head.as_bytes()).unwrap();
        assert_eq!(event, Some(Event::Head(head.len())), "{head}");
        SampleAnswer {
            head: head.into_bytes(),
            reader,
        }
    }

    pub(crate) fn head(&self) -> ResponseHead<'_> {
        self.reader.head(&self.head)
    }

    pub(crate) fn fields(&self) -> Fields<'_> {
        self.head().fields()
    }
}

fn lines(fields: &[(&str, &str)]) -> String {
    let line = |(name, value): &(&str, &str)| format!("{name}: {value}\r\n");
    fields.iter().map(line).collect()
}

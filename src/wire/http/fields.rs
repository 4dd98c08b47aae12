//! The fields of a parsed head, as places in the caller's buffer, and which of them end at this
//! hop.

use std::mem::MaybeUninit;

use ::http::{HeaderMap, HeaderValue};
use httparse::Header;

use super::scan::HeadError;
use crate::base::head_limits::MAX_FIELDS;

/// A part of a head.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

impl Span {
    /// The place of `part`, which is a slice of `head`.
    pub(super) fn of(head: &[u8], part: &[u8]) -> Span {
        if part.is_empty() {
            return Span::default();
        }
        let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        Span::new(start, part.len())
    }

    /// Heads are far smaller than 4 GiB.
    pub(super) fn new(start: usize, length: usize) -> Span {
        Span {
            start: start as u32,
            length: length as u32,
        }
    }

    pub(super) fn get(self, head: &[u8]) -> &[u8] {
        let (start, length) = (self.start as usize, self.length as usize);
        head.get(start..start + length).unwrap_or_default()
    }
}

/// The places of a head's fields. Kept from head to head, so that none is allocated for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct FieldTable {
    places: Vec<(Span, Span)>,
}

impl FieldTable {
    pub(super) fn fill(&mut self, head: &[u8], fields: &[Header<'_>]) {
        let place = |field: &Header<'_>| {
            let name = Span::of(head, field.name.as_bytes());
            (name, Span::of(head, field.value))
        };
        self.places.clear();
        self.places.extend(fields.iter().map(place));
    }

    pub(super) fn view<'a>(&'a self, head: &'a [u8]) -> Fields<'a> {
        Fields {
            head,
            places: &self.places,
        }
    }
}

/// Calls `parse` with room for `max_fields`: an ordinary head needs a small one.
pub(super) fn with_slots<'b, T>(
    max_fields: usize,
    parse: impl FnOnce(&mut [MaybeUninit<Header<'b>>]) -> T,
) -> T {
    const FEW: usize = 100;
    if max_fields <= FEW {
        let mut slots = [const { MaybeUninit::uninit() }; FEW];
        return parse(slots.get_mut(..max_fields).unwrap_or_default());
    }
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let max_fields = max_fields.min(MAX_FIELDS);
    parse(slots.get_mut(..max_fields).unwrap_or_default())
}

pub(super) fn head_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HeadError::Field,
        httparse::Error::Version => HeadError::Version,
        _ => HeadError::StartLine,
    }
}

/// Version of a message. Others are not served.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpVersion {
    Http10,
    #[default]
    Http11,
}

impl HttpVersion {
    pub(super) fn of_minor(minor: u8) -> HttpVersion {
        if minor == 0 {
            HttpVersion::Http10
        } else {
            HttpVersion::Http11
        }
    }
}

/// The fields of a head in their order, spelled as they were sent.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    head: &'a [u8],
    places: &'a [(Span, Span)],
}

impl<'a> Fields<'a> {
    /// Names and values; a value is without the white space around it.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> {
        let head = self.head;
        self.places
            .iter()
            .map(move |(name, value)| (name.get(head), value.get(head)))
    }

    pub fn len(self) -> usize {
        self.places.len()
    }

    pub fn is_empty(self) -> bool {
        self.places.is_empty()
    }

    /// The values of all fields of that name, in any case.
    pub fn values(self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(sent, _)| sent.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    pub fn has(self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a field that may be there once.
    pub fn only(self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// The elements of a list field, over all its lines; empty ones, too.
    pub fn list(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
    }

    /// True when a list field has the element, in any case.
    pub fn has_token(self, name: &str, token: &str) -> bool {
        self.list(name)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// Fields that are looked up by name, whoever has read them.
pub trait FieldLookup {
    /// The values of all fields of that name, in any case and without the white space around them.
    fn all_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]>;
}

impl FieldLookup for Fields<'_> {
    fn all_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
    }
}

impl FieldLookup for HeaderMap {
    fn all_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// The options of `Connection`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionOptions {
    persistence: Persistence,
    pub(super) has_upgrade: bool,
    /// Lists fields that are to be removed with it.
    has_names: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Persistence {
    #[default]
    OfVersion,
    KeepAlive,
    /// Wins against the other.
    Close,
}

impl ConnectionOptions {
    pub(super) fn of(fields: Fields<'_>) -> ConnectionOptions {
        let mut options = ConnectionOptions::default();
        for option in fields.list("connection") {
            let has_name = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if has_name("close") {
                options.persistence = Persistence::Close;
            } else if has_name("keep-alive") {
                if options.persistence == Persistence::OfVersion {
                    options.persistence = Persistence::KeepAlive;
                }
            } else if has_name("upgrade") {
                options.has_upgrade = true;
            } else if !option.is_empty() {
                options.has_names = true;
            }
        }
        options
    }

    /// True when the sender says itself that it takes another message on the connection.
    pub fn offers_more(self) -> bool {
        self.persistence == Persistence::KeepAlive
    }

    /// True when the sender keeps the connection open after the message (RFC 9112 section 9.3).
    pub(super) fn persists(self, version: HttpVersion) -> bool {
        match self.persistence {
            Persistence::OfVersion => version == HttpVersion::Http11,
            Persistence::KeepAlive => true,
            Persistence::Close => false,
        }
    }

    /// True when the sender wants the field removed, and may.
    pub(super) fn removes(self, fields: Fields<'_>, name: &[u8]) -> bool {
        self.has_names && !is_deciding(name) && {
            let mut options = fields.list("connection");
            options.any(|option| option.eq_ignore_ascii_case(name))
        }
    }
}

/// Fields of one hop, whether or not `Connection` names them (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
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

/// Fields that `Connection` cannot remove: framing, routing, and what a backend decides by. A
/// client behind a trusted proxy would else erase what that proxy has said (the kind of
/// CVE-2022-31813).
const DECIDING: [&str; 10] = [
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

/// Families of such fields.
const DECIDING_PREFIXES: [&str; 3] = ["sec-websocket-", "x-forwarded-", "x-client-cert-"];

pub(super) fn is_hop_by_hop(name: &[u8]) -> bool {
    is_one_of(&HOP_BY_HOP, name)
}

/// True for a field that `Connection` cannot remove.
fn is_deciding(name: &[u8]) -> bool {
    let has_prefix = |prefix: &&str| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    is_one_of(&DECIDING, name) || DECIDING_PREFIXES.iter().any(has_prefix)
}

fn is_one_of(names: &[&str], name: &[u8]) -> bool {
    names
        .iter()
        .any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}

/// True when a backend may read `sent` as `name`: CGI and PHP read `Content_Length` and
/// `Content.Length` as the same variable as `Content-Length`.
pub(super) fn is_read_as(sent: &[u8], name: &str) -> bool {
    sent.len() == name.len() && begins_as(sent, name)
}

/// As [`is_read_as`], of the beginning of `sent`.
pub(super) fn begins_as(sent: &[u8], prefix: &str) -> bool {
    let plain = |byte: u8| {
        if is_odd(byte) {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    sent.len() >= prefix.len()
        && sent
            .iter()
            .zip(prefix.as_bytes())
            .all(|(&sent, &own)| plain(sent) == plain(own))
}

fn is_odd(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'-'
}

/// True for a name such as `Content_Length`, which a backend may take for a field of a hop or one
/// that decides.
pub(super) fn is_alias(name: &[u8]) -> bool {
    name.iter().copied().any(is_odd) && is_special_as_read(name)
}

/// True when a backend may read the name as that of a field of a hop or one that decides.
pub(super) fn is_special_as_read(name: &[u8]) -> bool {
    is_framing_as_read(name)
        || DECIDING.iter().any(|one| is_read_as(name, one))
        || DECIDING_PREFIXES.iter().any(|one| begins_as(name, one))
}

/// True when a receiver may read the name as that of a field of a hop or of the length.
pub(super) fn is_framing_as_read(name: &[u8]) -> bool {
    is_read_as(name, "content-length") || HOP_BY_HOP.iter().any(|one| is_read_as(name, one))
}

#[cfg(test)]
mod tests {
    use ::http::HeaderName;

    use super::*;
    use crate::wire::http::testing::SampleRequest;

    #[test]
    fn a_field_is_found_in_any_case_whoever_has_read_it() {
        fn found(fields: &impl FieldLookup, name: &str) -> Vec<String> {
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            fields.all_values(name).map(text).collect()
        }
        let sample = SampleRequest::get("/", &[("X-A", "1"), ("x-b", "2"), ("x-a", "3")]);
        let mut map = HeaderMap::new();
        for (name, value) in sample.head().fields().iter() {
            let name = HeaderName::from_bytes(name).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        for name in ["X-A", "x-a"] {
            assert_eq!(found(&sample.head().fields(), name), ["1", "3"]);
            assert_eq!(found(&map, name), ["1", "3"]);
        }
        assert!(found(&map, "x-c").is_empty());
    }
}

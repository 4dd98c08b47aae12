//! HTTP/1 (RFC 9110, RFC 9112), pure: requests and answers are read strictly out of a caller's
//! buffer and written for the next hop.
//!
//! [`RequestReader`] and [`ResponseReader`] find heads, bodies and ends in any chunking. Two
//! parsers that disagree on the end of a message allow request smuggling, so doubtful input is
//! refused. `write_*` write a checked head without the fields of one hop and with our [`Edits`].

// Reading.
mod body;
mod chunked;
mod event;
mod fields;
mod host;
mod length;
mod request;
mod request_error;
mod response;
mod scan;
mod status;
mod syntax;

// Writing.
mod edits;
mod head_writer;
mod write;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use body::BodyFraming;
pub use chunked::{ChunkError, MAX_EXTENSION_BYTES, MAX_TRAILER_BYTES};
pub use edits::Edits;
pub use event::Event;
pub use fields::{ConnectionOptions, FieldLookup, Fields, HttpVersion};
pub use head_writer::HeadWriter;
pub(crate) use head_writer::title_case;
pub use host::{Host, parse_host};
pub use length::{LengthError, MAX_LENGTH_BYTES};
pub use request::{ParsedRequest, RequestHead, RequestReader};
pub use request_error::RequestError;
pub use response::{
    Asked, MAX_INTERIM_RESPONSES, ParsedResponse, ResponseError, ResponseFraming, ResponseHead,
    ResponseReader,
};
pub use scan::HeadError;
pub(crate) use status::StatusReader;
pub use syntax::is_token_byte;
pub(crate) use syntax::is_value_byte;
pub use write::{
    BodyTransfer, CHUNK_END, ClientHop, ForwardedResponse, LAST_CHUNK, NextHop, chunk_start,
    write_interim, write_request, write_response,
};

pub use crate::base::head_limits::{HeadLimits, MAX_FIELDS};

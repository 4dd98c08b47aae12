//! Pure parsers: TLS ClientHello, PROXY headers, HTTP/1 heads and bodies, forwarding fields,
//! WebSocket handshakes and frames, the sticky cookie, files of ticket keys, trace contexts,
//! answers of Redis,
//! and the state of a session that moves to another process.
//!
//! Nothing here has a socket, a task or a clock: bytes in, results out. All are fuzzed and property
//! tested.

pub mod client_hello;
pub mod control;
pub mod forwarded;
pub mod frame_filter;
pub mod frames;
pub mod http;
pub mod moved;
pub mod proxy_protocol;
pub mod resp;
pub mod sticky;
pub mod ticket_keys;
pub mod trace_context;
pub mod websocket;

//! What is kept of a session for as long as it lives, so that it can go on with another backend.

use std::sync::atomic::{AtomicU8, AtomicU32};
use std::sync::{Arc, Weak};

use super::handshake::ResumeHandshake;
use crate::net::Peer;
use crate::pool::Pool;
use crate::proxy::connect::outgoing_proxy_header::OutgoingProxyHeader;
use crate::proxy::shared::Proxy;

/// A session's way to another backend, kept as long as the session lives.
pub(in crate::proxy) struct PoolMigrator {
    pub proxy: Arc<Proxy>,
    /// Weak: a silent session of hours must not keep a configuration alive.
    pub pool: Weak<Pool>,
    pub client: Peer,
    pub handshake: ResumeHandshake,
    /// The name of the field that says what is taken over.
    pub header: Arc<str>,
    /// Bounds the wait for a 101; milliseconds.
    pub upgrade_timeout: u32,
    /// The id of the session's record.
    pub id: u64,
    /// Present for the few pools that need it.
    pub more: Option<Box<More>>,
    /// Number of backends that it has lost.
    pub count: AtomicU32,
    /// Number of the latest of them that went as soon as they had come.
    pub short: AtomicU8,
}

/// Facts that a search needs in few pools.
pub(in crate::proxy) struct More {
    /// Present in a pool that sends PROXY headers.
    pub proxy_header: Option<OutgoingProxyHeader>,
    /// The value of the pool's `hash_key`.
    pub key: Option<Box<[u8]>>,
}

// A live session costs this beside its handshake.
const _: () = assert!(size_of::<PoolMigrator>() <= 104);

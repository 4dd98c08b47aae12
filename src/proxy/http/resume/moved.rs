//! A session's way to another backend, as it moves to another process.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use super::handshake::ResumeHandshake;
use super::kept::{More, PoolMigrator};
use crate::config::ProxyVersion;
use crate::observe::{export_peer, import_peer};
use crate::pool::Pool;
use crate::proxy::connect::outgoing_proxy_header::OutgoingProxyHeader;
use crate::proxy::shared::Proxy;
use crate::wire::moved::MovedMigrator;

impl PoolMigrator {
    pub(super) fn moved(&self) -> MovedMigrator {
        let more = self.more.as_deref();
        let header = more.and_then(|more| more.proxy_header.as_ref());
        MovedMigrator {
            handshake: self.handshake.text().to_vec(),
            header: self.header.to_string(),
            upgrade_timeout_ms: self.upgrade_timeout,
            client: export_peer(self.client),
            proxy_header: header.map(|header| header.encode(ProxyVersion::V2, self.id)),
            key: more.and_then(|more| more.key.as_deref().map(<[u8]>::to_vec)),
            count: self.count.load(Ordering::Relaxed),
            short: self.short.load(Ordering::Relaxed),
        }
    }

    /// The way of a session of this id that has come from another process. `None`: what was kept
    /// cannot be read.
    pub(in crate::proxy) fn of_moved(
        moved: &MovedMigrator,
        proxy: &Arc<Proxy>,
        pool: Weak<Pool>,
        id: u64,
    ) -> Option<PoolMigrator> {
        let proxy_header = match &moved.proxy_header {
            Some(header) => Some(OutgoingProxyHeader::decode(header)?),
            None => None,
        };
        let key = moved.key.as_deref().map(Into::into);
        let is_more = proxy_header.is_some() || key.is_some();
        Some(PoolMigrator {
            proxy: Arc::clone(proxy),
            pool,
            client: import_peer(moved.client),
            handshake: ResumeHandshake::of_text(moved.handshake.clone())?,
            header: moved.header.as_str().into(),
            upgrade_timeout: moved.upgrade_timeout_ms,
            id,
            more: is_more.then(|| Box::new(More { proxy_header, key })),
            count: AtomicU32::new(moved.count),
            short: AtomicU8::new(moved.short),
        })
    }
}

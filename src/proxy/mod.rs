//! The data path, from accept to adoption. One function for each protocol says how a connection
//! flows:
//!
//! - `client`: bytes -> who the client is and what it asks for.
//! - `crate::admission`: the client -> permits, or a refusal.
//! - `route`: what it asks for -> a pool.
//! - `connect`: a pool -> a connected backend. Only here is retried and charged.
//! - `http`: requests, one after the other; the last one may upgrade.
//! - `crate::relay`: client and backend, to the session's end.
//!
//! All of this is the set-up plane. A `tcp` listener that needs no byte to route takes a shorter
//! way, on the relay's threads (`accept_on_relay`). A connection sees one configuration: its
//! [`ListenerSnapshot`] is taken at accept, and a reload gives the next one another. Each request
//! of a kept HTTP connection sees the latest, or polling would go on by routes and pools that are
//! gone.

mod accept;
mod accept_on_relay;
mod arrive;
mod client;
mod connect;
mod http;
mod listening;
mod route;
mod shared;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;

use crate::admission::ConnectionPermit;
use crate::config::Protocol;
use crate::net::Stream;
use crate::observe::{ConnectionRecord, Phase, Side, Termination};
use client::identify::{Identified, identify};
use client::{ClientConnection, proxy_header};
use connect::session::{TcpClient, TcpConnect};
use http::connection::HttpConnection;

pub(crate) use client::handshake_limiter::HandshakeLimiter;
pub(crate) use connect::idle::IdleConnections;
pub(crate) use http::hard_stop::HardStop;
pub(crate) use listening::{ListenerOrigin, Listening, StartState};
pub use route::ListenerSnapshot;
pub(crate) use shared::Proxy;

/// Serves an accepted connection to its end, or to its adoption by the relay. It has no permit yet
/// where a PROXY header is to say who the client is.
async fn serve(mut client: ClientConnection, mut stream: Stream, permit: Option<ConnectionPermit>) {
    let mut record = client.record();
    let admitted = match permit {
        Some(permit) => Ok(permit),
        None => admit_proxied(&mut client, &mut stream, &mut record).await,
    };
    let permit = match admitted {
        Ok(permit) => permit,
        Err(end) => return record.finish(end),
    };
    let identified = match identify(&client, stream, &mut record).await {
        Ok(identified) => identified,
        Err(end) => return record.finish(end),
    };
    match client.listener.config.protocol {
        Protocol::Tcp => serve_tcp(client, identified, permit, record).await,
        Protocol::Websocket => serve_http(client, identified, permit, record).await,
    }
}

/// Lets in the client that a PROXY header announces.
async fn admit_proxied(
    client: &mut ClientConnection,
    stream: &mut Stream,
    record: &mut ConnectionRecord,
) -> Result<ConnectionPermit, Termination> {
    let received = {
        let receiving = pin!(proxy_header::receive(client, stream, record));
        client.unless_evicted(Phase::Accept, receiving).await?
    };
    if let Some((announced, proxied)) = received {
        client.announce(announced, proxied, record);
    }
    client.fall_silent();
    client.admit().map_err(|refusal| {
        stream.reset_on_close();
        Termination::new(Side::Evenkeel, Phase::Accept, refusal.how())
    })
}

/// Serves an identified client of a `tcp` listener.
async fn serve_tcp(
    client: ClientConnection,
    identified: Identified,
    permit: ConnectionPermit,
    mut record: ConnectionRecord,
) {
    record.enter(Phase::Route);
    let listener = Arc::clone(&client.listener);
    let ip = client.peer.ip();
    let pool = match listener.select(&identified.route_input(), ip, ip) {
        Ok(pool) => pool,
        Err(refusal) => {
            client.admission.refused(refusal);
            identified.stream.reset_on_close();
            drop(identified);
            let end = Termination::new(Side::Evenkeel, Phase::Route, refusal.how());
            return record.finish(end);
        }
    };
    // This ends set-up: a pool that lets its clients wait must not use up its limit.
    let connect = TcpConnect::of_client(client, pool, &identified);
    if let Some(waiting) = TcpClient::new(identified, record, permit) {
        // On the heap: a client that has sent nothing yet is not to hold memory for it.
        Box::pin(connect.run(waiting)).await;
    }
}

/// Serves an identified client of a `websocket` listener.
async fn serve_http(
    client: ClientConnection,
    identified: Identified,
    permit: ConnectionPermit,
    record: ConnectionRecord,
) {
    let (http, stream) = HttpConnection::new(client, identified, record);
    let http = Arc::new(http);
    http::serve(stream, &http).await.conclude(&http, permit);
}

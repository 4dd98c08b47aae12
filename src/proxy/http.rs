//! A connection of a `websocket` listener: TLS, the gate, hyper's server, and the hand-over to the relay after an upgrade.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::classify::{self, Classified};
use super::gate::{Gate, Times};
use super::ticket::Ticket;
use super::upgrade::Handover;
use super::visit::Visit;
use super::{Arrival, Client};
use crate::net::{Stream, options};
use crate::observe::{End, How, Phase, Record, Side};
use crate::relay::{Leg, Session, Transport};

/// hyper's buffer for one direction of one connection; above the largest head the gate lets through.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How long a truncated answer may take to be delivered before its end is told.
const DELIVER_TIMEOUT: Duration = Duration::from_secs(2);
/// The kernel has no event for a send queue that has emptied.
const DELIVER_INTERVAL: Duration = Duration::from_millis(20);

/// Serves one connection to its end, or to its adoption by the relay.
pub(super) async fn serve(arrival: Arrival, stream: Stream) {
    let mut record = Record::new(&arrival.proxy.journal, &arrival.counters, arrival.peer);
    record.phase = Phase::Tls;
    let classified = match &arrival.rules.tls {
        Some(tls) => classify::terminate(stream, &tls.config, arrival.deadline).await,
        None => Ok(classify::plain(stream)),
    };
    let Classified { client, hello, .. } = match classified {
        Ok(classified) => classified,
        Err(end) => return record.finish(end),
    };
    if let Some(sni) = &hello.sni {
        record.set_sni(sni);
    }
    record.phase = Phase::Head;
    let tls = client.is_tls();
    let visit = Arc::new(Visit::new(arrival, record, hello.sni, tls));
    let ended = converse(client, &visit).await;
    finish(&visit, ended).await;
}

/// Runs hyper's server over the gate until the connection ends or becomes a tunnel.
async fn converse(client: Client, visit: &Arc<Visit>) -> hyper::Result<()> {
    let config = &visit.arrival.rules.config;
    let times = Times {
        first_head: visit.arrival.deadline,
        head: config.handshake_timeout,
        keep_alive: config.keep_alive_timeout,
    };
    let gate = Gate::new(client, times, Arc::clone(&visit.dialogue));
    let service = service_fn(|request| Arc::clone(visit).answer(request));
    let mut connection = Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        .header_read_timeout(None) // the gate's business
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(gate), service)
        .with_upgrades();
    let ended = (&mut connection).await;
    if let Err(error) = &ended
        && error.is_user()
        && let Some(Parts { io, .. }) = connection.into_parts()
    {
        cut_off(io.into_inner()).await;
    }
    ended
}

/// The answer under way has no end: what was sent of it is delivered, then the connection is reset, so that it cannot
/// look complete.
async fn cut_off(gate: Gate<Client>) {
    let (client, _) = gate.into_parts();
    let until = Instant::now() + DELIVER_TIMEOUT;
    while queued_bytes(&client) > 0 && Instant::now() < until {
        tokio::time::sleep(DELIVER_INTERVAL).await;
    }
    client.reset_on_close();
}

fn queued_bytes(client: &Client) -> usize {
    let stream = match client {
        Client::Plain(stream) => stream,
        Client::Tls(stream) => stream.get_ref().0,
    };
    match stream {
        Stream::Tcp(stream) => options::unacknowledged_bytes(stream.as_fd()),
        Stream::Unix(_) => 0,
    }
}

/// Hands an upgraded session over; otherwise the connection has ended.
async fn finish(visit: &Visit, ended: hyper::Result<()>) {
    if let Err(error) = &ended {
        tracing::debug!(listener = %visit.arrival.counters.name, %error, "connection ended");
    }
    if let Some(handover) = visit.take_handover() {
        return adopt(&visit.arrival, handover).await;
    }
    if let Some(record) = visit.unused_record() {
        let (side, how) = match ended {
            _ if visit.dialogue.gave_up() => (Side::Evenkeel, How::Timeout),
            Ok(()) => (Side::Client, How::Fin),
            Err(_) => (Side::Client, How::Rst),
        };
        record.finish(End::new(side, Phase::Head, how));
    }
}

/// Gives the session to the relay with everything that was read already, in order.
async fn adopt(arrival: &Arrival, handover: Handover) {
    let Handover {
        client,
        backend,
        backend_read,
        policy,
        mut ticket,
        lease,
    } = handover;
    let Ok(upgraded) = client.await else {
        return ticket.ends(End::new(Side::Client, Phase::Upgrade, How::Rst));
    };
    let Ok(client) = upgraded.downcast::<TokioIo<Gate<Client>>>() else {
        return cannot_adopt(ticket, "the client stream is of another type");
    };
    let (stream, held) = client.io.into_inner().into_parts();
    let read = [&client.read_buf[..], &held].concat();
    let legs = stream
        .into_leg(read)
        .and_then(|client| Ok((client, backend.into_owned_fd()?)));
    let (client, socket) = match legs {
        Ok(legs) => legs,
        Err(error) => return cannot_adopt(ticket, &error.to_string()),
    };
    let Some(mut record) = ticket.into_record() else {
        return;
    };
    record.opened();
    arrival.slot.adopted();
    arrival.proxy.relay.adopt(Session {
        client,
        backend: Leg {
            socket,
            transport: Transport::Raw,
            read: backend_read,
        },
        policy,
        record: Box::new(record),
        lease: Box::new((lease, Arc::clone(&arrival.slot))),
    });
}

fn cannot_adopt(mut ticket: Ticket, error: &str) {
    tracing::warn!(%error, "a connection cannot be handed to the relay");
    ticket.ends(End::new(Side::Evenkeel, Phase::Upgrade, How::Error));
}

//! A connection of a `tcp` listener: classify, route, dispatch, adopt.

use super::classify::{self, Classified};
use super::dispatch::{DispatchError, Wanted, dispatch};
use super::{Arrival, Client};
use crate::config::{Balance, HashKey, ListenerTls};
use crate::net::Stream;
use crate::observe::{End, How, Phase, Record, Side};
use crate::pool::{Lease, Pool};
use crate::relay::{Leg, Policy, Session, Transport};

/// Serves one connection up to its adoption by the relay.
pub(super) async fn serve(arrival: Arrival, stream: Stream) {
    let mut record = Record::new(&arrival.proxy.journal, &arrival.counters, arrival.peer);
    record.phase = Phase::Tls;
    let classified = match classify(&arrival, stream).await {
        Ok(classified) => classified,
        Err(end) => return record.finish(end),
    };
    if let Some(sni) = &classified.hello.sni {
        record.set_sni(sni);
    }
    record.phase = Phase::Route;
    let Some(pool) = arrival.rules.route(&classified.facts()).cloned() else {
        return refuse(
            &classified.client,
            record,
            End::new(Side::Evenkeel, Phase::Route, How::Refused),
        );
    };
    match connect(&arrival, &pool, &classified, &mut record).await {
        Ok((backend, lease)) => adopt(arrival, &pool, classified, backend, lease, record),
        Err(error) => {
            tracing::debug!(listener = %arrival.counters.name, pool = %pool.name(), %error, "refused");
            refuse(&classified.client, record, error.end());
        }
    }
}

async fn classify(arrival: &Arrival, stream: Stream) -> Result<Classified, End> {
    match (&arrival.rules.config.tls, &arrival.rules.tls) {
        (Some(ListenerTls::Passthrough), _) => classify::peek_hello(stream, arrival.deadline).await,
        (_, Some(tls)) => classify::terminate(stream, &tls.config, arrival.deadline).await,
        _ => Ok(classify::plain(stream)),
    }
}

async fn connect(
    arrival: &Arrival,
    pool: &std::sync::Arc<Pool>,
    classified: &Classified,
    record: &mut Record,
) -> Result<(Stream, Lease), DispatchError> {
    let key = match pool.settings().balance {
        Balance::Hash(HashKey::Sni) => classified.hello.sni.as_deref(),
        _ => None,
    };
    let mut wanted = Wanted {
        client: arrival.peer.ip(),
        key: key.map(str::as_bytes),
        tried: Vec::new(),
    };
    dispatch(pool, &mut wanted, record).await
}

/// A refusal is a RST: nothing must look like an orderly, empty answer.
fn refuse(client: &Client, record: Record, end: End) {
    client.reset_on_close();
    record.finish(end);
}

/// Hands the session to the relay and is done with it.
fn adopt(
    arrival: Arrival,
    pool: &Pool,
    classified: Classified,
    backend: Stream,
    lease: Lease,
    mut record: Record,
) {
    let legs = classified
        .client
        .into_leg(classified.read)
        .and_then(|client| Ok((client, backend_leg(backend)?)));
    let (client, backend) = match legs {
        Ok(legs) => legs,
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be handed to the relay");
            return record.finish(End::new(Side::Evenkeel, Phase::Connect, How::Error));
        }
    };
    record.opened();
    arrival.slot.adopted();
    arrival.proxy.relay.adopt(Session {
        client,
        backend,
        policy: Policy::of(&pool.settings()),
        record: Box::new(record),
        lease: Box::new((lease, arrival.slot)),
    });
}

fn backend_leg(stream: Stream) -> std::io::Result<Leg> {
    Ok(Leg {
        socket: stream.into_owned_fd()?,
        transport: Transport::Raw,
        read: Vec::new(),
    })
}

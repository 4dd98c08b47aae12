//! A connection of a `tcp` listener: classify, route, and send the errand for a backend.

use std::pin::pin;
use std::sync::Arc;

use super::classify::{self, Identified};
use super::dispatch::RetryState;
use super::errand::{TcpClient, TcpConnect};
use super::{ClientConnection, OutgoingProxyHeader};
use crate::config::{Balance, HashKey, ListenerTls};
use crate::net::Stream;
use crate::observe::{Cause, ConnectionRecord, Phase, Refusal, Side, Termination};
use crate::pool::Pool;

/// Serves one connection up to its adoption by the relay.
pub(super) async fn serve(arrival: ClientConnection, stream: Stream, mut record: ConnectionRecord) {
    record.phase = Phase::Tls;
    let classified = {
        let classifying = pin!(classify(&arrival, stream, &mut record));
        arrival.slot.unless_evicted(classifying).await
    };
    let classified = match classified.unwrap_or_else(|| Err(arrival.evicted(record.phase))) {
        Ok(classified) => classified,
        Err(end) => return record.finish(end),
    };
    classified.note(&mut record);
    record.phase = Phase::Route;
    let facts = classified.facts();
    let admitted = arrival
        .rules
        .admits(&facts, arrival.peer.ip(), arrival.peer.ip());
    let pool = arrival.rules.route(&facts).filter(|_| admitted).cloned();
    if !admitted {
        arrival.admissions.refused(Refusal::Denied);
    }
    let key = pool.as_ref().and_then(|pool| key(pool, &classified));
    let introduction = pool
        .as_ref()
        .filter(|pool| pool.settings().send_proxy.is_some())
        .map(|_| Box::new(introduction(&arrival, &classified)));
    let leg = match classified.client.into_leg(classified.read) {
        Ok(leg) => leg,
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be handed to the relay");
            return record.finish(Termination::new(Side::Evenkeel, Phase::Route, Cause::Error));
        }
    };
    let caller = TcpClient {
        leg,
        record,
        place: arrival.slot.place(),
    };
    // A pool that lets its clients wait must not use up the places in set-up of all listeners.
    drop(arrival.slot);
    let Some(pool) = pool else {
        // Whom a rule keeps out is counted by it.
        return match admitted {
            true => caller.refuse_unrouted(),
            false => caller.refuse(Termination::new(
                Side::Evenkeel,
                Phase::Route,
                Cause::Refused,
            )),
        };
    };
    let errand = TcpConnect {
        pool: Arc::downgrade(&pool),
        client: arrival.peer,
        introduction,
        search: RetryState {
            client: arrival.peer.ip(),
            key,
            ..RetryState::default()
        },
        proxy: arrival.proxy,
    };
    errand.run(caller).await;
}

fn introduction(arrival: &ClientConnection, classified: &Identified) -> OutgoingProxyHeader {
    let local = classified.client.local_address();
    let shaken = classified.shaken.as_ref();
    let certificate = shaken.is_some_and(|shaken| shaken.identity.is_some());
    let sni = classified.hello.sni.as_deref();
    let details = classified.client.details(sni, certificate);
    OutgoingProxyHeader::of(arrival, local, details)
}

async fn classify(
    arrival: &ClientConnection,
    stream: Stream,
    record: &mut ConnectionRecord,
) -> Result<Identified, Termination> {
    match (&arrival.rules.config.tls, &arrival.rules.tls) {
        (Some(ListenerTls::Passthrough), _) => {
            classify::peek_hello(stream, arrival.deadline, record).await
        }
        (_, Some(tls)) => classify::terminate(stream, tls, arrival, record).await,
        _ => Ok(classify::plain(stream)),
    }
}

/// The value of the pool's `hash_key`, where a raw connection has it.
fn key(pool: &Pool, classified: &Identified) -> Option<Box<[u8]>> {
    match pool.settings().balance {
        Balance::Hash(HashKey::Sni) => {
            let sni = classified.hello.sni.as_deref()?;
            Some(sni.as_bytes().into())
        }
        _ => None,
    }
}

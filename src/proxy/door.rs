//! A `tcp` listener that needs no byte of a connection to route it: its connections are accepted, routed and connected on
//! the relay's threads, which spares them the way in and out of the set-up plane.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::accept::{AcceptShared, arrive, await_room, kept_out, lost};
use super::dispatch::RetryState;
use super::errand::{TcpClient, TcpConnect};
use super::{ListenerSnapshot, RouteInput};
use crate::admission::ConnectionPermit;
use crate::config::Protocol;
use crate::net::options::reset_on_close;
use crate::net::{Peer, Stream};
use crate::observe::{ConnectionRecord, Phase};
use crate::relay::{NewSession, OnAccept, SocketHandoff, Transport};

/// True where nothing has to be read from a connection to know its pool.
pub(super) fn is_plain(rules: &ListenerSnapshot) -> bool {
    let config = &rules.config;
    config.protocol == Protocol::Tcp && config.tls.is_none() && !config.accept_proxy
}

/// Lets a relay thread accept until `stop`; what the kernel has queued by then is still served.
pub(super) async fn keep(shared: Arc<AcceptShared>, socket: OwnedFd, stop: CancellationToken) {
    // A door that pauses stays so until it is told, so there is never more than one.
    let (pauses, mut paused) = mpsc::channel(1);
    let front = Arc::new(ListenerFront {
        shared: Arc::clone(&shared),
        pauses,
    });
    let door = shared.proxy.relay.listen(socket, front);
    loop {
        // Cancel safe: a pause that came stays in the channel.
        let why = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(why) = paused.recv() => why,
        };
        // Cancel safe: it only waits.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = await_room(&shared, why) => door.resume(),
        }
    }
    door.close(shared.left_behind()).await;
}

/// The listener as the relay's threads see it.
struct ListenerFront {
    shared: Arc<AcceptShared>,
    pauses: mpsc::Sender<Option<io::Error>>,
}

impl OnAccept for ListenerFront {
    fn reserve(&self, anyway: bool) -> bool {
        let limits = &self.shared.proxy.limits;
        if anyway {
            limits.reserve_anyway();
        }
        anyway || limits.reserve()
    }

    fn unreserve(&self) {
        self.shared.proxy.limits.unreserve();
    }

    fn accepted(&self, socket: OwnedFd, peer: Peer) -> Option<NewSession> {
        let shared = &self.shared;
        let rules = shared.rules.load();
        if !is_plain(&rules) {
            self.hand_over(socket, peer);
            // Its slot has counted it once more.
            shared.proxy.limits.unreserve();
            return None;
        }
        shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let place = match shared.admissions.admit(rules.admission(), peer.ip(), false) {
            Ok(admitted) => ConnectionPermit::reserved(admitted),
            Err(refusal) => {
                shared.proxy.limits.release();
                reset_on_close(socket.as_fd());
                drop(socket);
                kept_out(shared, peer, refusal);
                return None;
            }
        };
        let mut record = ConnectionRecord::new(&shared.counters, peer);
        record.phase = Phase::Route;
        let caller = TcpClient {
            leg: SocketHandoff {
                socket,
                transport: Transport::Raw,
                read: Vec::new(),
            },
            record,
            place,
        };
        let Some(pool) = rules.route(&RouteInput::default()) else {
            caller.refuse_unrouted();
            return None;
        };
        let errand = TcpConnect {
            proxy: Arc::clone(&shared.proxy),
            pool: Arc::downgrade(pool),
            client: peer,
            introduction: None,
            search: RetryState {
                client: peer.ip(),
                ..RetryState::default()
            },
        };
        errand.begin(pool, caller)
    }

    fn paused(&self, why: Option<io::Error>) {
        // Full: its keeper has not read the one before, and will resume the door all the same.
        let _ = self.pauses.try_send(why);
    }

    fn lost(&self, error: io::Error) {
        lost(&self.shared, &error);
    }
}

impl ListenerFront {
    /// A reload has changed the listener while this connection came: it goes the new way.
    fn hand_over(&self, socket: OwnedFd, peer: Peer) {
        let shared = Arc::clone(&self.shared);
        let slot = shared.proxy.limits.slot();
        let runtime = shared.proxy.runtime.clone();
        runtime.spawn(async move {
            match Stream::from_owned_fd(socket, peer) {
                Ok(stream) => arrive(&shared, stream, peer, slot),
                Err(error) => lost(&shared, &error),
            }
        });
    }
}

//! Accepting on relay threads. A `tcp` listener that needs no byte of a connection to route it has
//! its connections routed and connected there, a plain `websocket` listener its WebSockets set up,
//! without the way through the set-up plane.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::accept::{self, AcceptShared, Pause};
use super::connect::session::{TcpClient, TcpConnect, raw};
use super::http::RelaySetUp;
use super::route::{AcceptWay, ListenerSnapshot, RouteInput};
use crate::admission::SetupPermit;
use crate::net::options::reset_on_close;
use crate::net::{Peer, Stream};
use crate::observe::{ConnectionRecord, Phase, Refusal};
use crate::relay::{Accepted, OnAccept};

/// Lets a relay thread accept until `stop`. Connections that the kernel has queued by then are
/// still served.
pub(super) async fn accept(
    shared: Arc<AcceptShared>,
    socket: OwnedFd,
    way: AcceptWay,
    stop: CancellationToken,
) {
    // A listener that pauses stays so until it is resumed, so there is never more than one message.
    let (pauses, mut paused) = mpsc::channel(1);
    let front = Arc::new(ListenerFront {
        shared: Arc::clone(&shared),
        pauses,
        way,
    });
    let listener = shared.proxy.relay.listen(socket, front);
    loop {
        // Cancel safe: a pause that came stays in the channel.
        let pause = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(pause) = paused.recv() => pause,
        };
        // Cancel safe: it only waits.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = shared.wait_for_room(pause, way) => listener.resume(),
        }
    }
    listener.close(shared.queued_at_close()).await;
}

/// The listener as the relay's threads see it.
struct ListenerFront {
    shared: Arc<AcceptShared>,
    pauses: mpsc::Sender<Pause>,
    /// As which it counts its connections.
    way: AcceptWay,
}

impl OnAccept for ListenerFront {
    fn reserve(&self, anyway: bool) -> bool {
        let limits = &self.shared.proxy.limits;
        match (self.way, anyway) {
            (AcceptWay::RelayHttp, true) => limits.enter(),
            (AcceptWay::RelayHttp, false) => return limits.try_enter(),
            (_, true) => limits.reserve_anyway(),
            (_, false) => return limits.reserve(),
        }
        true
    }

    fn unreserve(&self) {
        let limits = &self.shared.proxy.limits;
        if self.way == AcceptWay::RelayHttp {
            limits.leave_setup();
        }
        limits.unreserve();
    }

    fn accepted(&self, socket: OwnedFd, peer: Peer) -> Accepted {
        let listener = self.shared.listener.load_full();
        let limits = &self.shared.proxy.limits;
        match self.way {
            AcceptWay::RelayTcp if listener.way() == self.way => {
                self.connect(&listener, socket, peer)
            }
            AcceptWay::RelayHttp if listener.way() == self.way => {
                self.set_up(listener, socket, peer, SetupPermit::of_entered(limits))
            }
            // A reload has changed the listener while the connection came.
            AcceptWay::RelayHttp => {
                self.start_in_setup(socket, peer, SetupPermit::of_entered(limits))
            }
            AcceptWay::RelayTcp | AcceptWay::SetUp => {
                let setup = SetupPermit::acquire_anyway(limits);
                // The permit has counted the connection once more.
                limits.unreserve();
                self.start_in_setup(socket, peer, setup)
            }
        }
    }

    fn paused(&self, why: Option<io::Error>) {
        // Full: the pause before is not handled yet, and its end resumes the listener all the same.
        let limits = &self.shared.proxy.limits;
        let pause = why.map_or_else(|| Pause::Full(limits.reached()), Pause::Short);
        let _ = self.pauses.try_send(pause);
    }

    fn lost(&self, error: io::Error) {
        self.shared.lost(&error);
    }
}

impl ListenerFront {
    /// The path of a `tcp` connection on a relay thread: admit, route, connect.
    fn connect(&self, listener: &ListenerSnapshot, socket: OwnedFd, peer: Peer) -> Accepted {
        let shared = &self.shared;
        shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let admission = &shared.admission;
        let permit = match admission.admit(None, listener.admission(), peer.ip(), false) {
            Ok(permit) => permit,
            Err(refusal) => return self.refuse(socket, peer, refusal),
        };
        let mut record = ConnectionRecord::new(&shared.counters, peer);
        record.enter(Phase::Route);
        let client = TcpClient {
            handoff: raw(socket),
            record,
            permit,
        };
        let Some(pool) = listener.route(&RouteInput::default()) else {
            client.refuse_unrouted();
            return Accepted::Elsewhere;
        };
        let session = TcpConnect::new(&shared.proxy, pool, peer).begin(pool, client);
        session.map_or(Accepted::Elsewhere, |session| {
            Accepted::Session(Box::new(session))
        })
    }

    /// The path of a plain `websocket` connection: admit, then wait for its head.
    fn set_up(
        &self,
        listener: Arc<ListenerSnapshot>,
        socket: OwnedFd,
        peer: Peer,
        setup: SetupPermit,
    ) -> Accepted {
        let shared = &self.shared;
        shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        match shared.admit(&listener, peer, &setup) {
            Ok(Some(permit)) => {
                let client = shared.client(listener, peer, setup);
                // One that is evicted here ends in the set-up plane, when it leaves for it.
                client.fall_silent();
                Accepted::SetUp(socket, Box::new(RelaySetUp::new(client, permit)))
            }
            // A listener with a PROXY header is not the relay's.
            Ok(None) => Accepted::Elsewhere,
            Err(refusal) => self.refuse(socket, peer, refusal),
        }
    }

    fn refuse(&self, socket: OwnedFd, peer: Peer, refusal: Refusal) -> Accepted {
        reset_on_close(socket.as_fd());
        drop(socket);
        self.shared.refused(peer, refusal);
        Accepted::Elsewhere
    }

    /// Starts a connection in the set-up plane: a reload has changed the listener while it came.
    fn start_in_setup(&self, socket: OwnedFd, peer: Peer, setup: SetupPermit) -> Accepted {
        let shared = Arc::clone(&self.shared);
        let runtime = shared.proxy.runtime.clone();
        runtime.spawn(async move {
            match Stream::from_owned_fd(socket, peer) {
                Ok(stream) => accept::start(&shared, stream, peer, setup),
                Err(error) => shared.lost(&error),
            }
        });
        Accepted::Elsewhere
    }
}

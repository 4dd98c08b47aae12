//! Listeners across a reload: `ListenersPlan` binds what is new, then swaps.
//!
//! Everything that can fail (binding) happens in `new` and `listen`; `apply` only swaps. A listener
//! is known by its name, a socket by its address: an address that stays keeps its socket, under
//! whatever name, because closing one loses the connections queued in it. An address that only
//! overlaps the one before is bound beside it.

use std::io;
use std::sync::Arc;

use super::status::{ListenerState, ListenerStatus};
use crate::config::{Bind, Listener, ListenerTls};
use crate::net::{self, BindError, Bound, HALF_OPEN_TIME, Overlap};
use crate::proxy::{ListenerOrigin, ListenerSnapshot, Listening, Proxy};

/// Change of one listener.
enum ListenerChange {
    /// Nothing differs.
    Keep(Arc<Listening>),
    /// The socket stays and gets a new snapshot.
    Update(Arc<Listening>, ListenerSnapshot),
    /// The listener starts on a socket that is new to it.
    Start(Arc<Bound>, ListenerSnapshot),
}

/// Changes that lead to the new listeners, in the order of the file.
pub(super) struct ListenersPlan {
    changes: Vec<ListenerChange>,
    /// Listeners whose certificate files have another content under the same names.
    pub renewed: Vec<String>,
    /// Sockets of `changes` that do not listen yet: until nothing else can fail, connections to
    /// their port go to the sockets before.
    overlaps: Vec<(String, Overlap)>,
}

impl ListenersPlan {
    /// Binds what is new, on sockets that nobody accepts from yet.
    ///
    /// # Errors
    /// Every address that could not be bound; what was bound is closed again.
    pub(super) fn new(
        present: &[Arc<Listening>],
        wanted: Vec<ListenerSnapshot>,
    ) -> Result<ListenersPlan, Vec<String>> {
        let mut errors = Vec::new();
        let mut plan = ListenersPlan {
            changes: Vec::new(),
            renewed: Vec::new(),
            overlaps: Vec::new(),
        };
        let mut given_up = given_up(present, wanted.iter().map(|snapshot| &*snapshot.config));
        for snapshot in wanted {
            let mut stays = present.iter().filter(|old| is_same(old, &snapshot.config));
            if let Some(known) = stays.next() {
                plan.keep_or_update(Arc::clone(known), snapshot);
                continue;
            }
            match socket(&mut given_up, present, &snapshot.config) {
                Ok(socket) => plan.start(socket, snapshot),
                Err(error) => errors.push(format!("listener {}: {error}", snapshot.config.name)),
            }
        }
        if errors.is_empty() {
            Ok(plan)
        } else {
            Err(errors)
        }
    }

    fn keep_or_update(&mut self, known: Arc<Listening>, new: ListenerSnapshot) {
        let old = known.rules();
        if is_renewed(&old, &new) {
            self.renewed.push(new.config.name.clone());
        }
        let is_same = old.config == new.config && fingerprint(&old) == fingerprint(&new);
        self.changes.push(if is_same {
            ListenerChange::Keep(known)
        } else {
            ListenerChange::Update(known, new)
        });
    }

    fn start(&mut self, socket: NewSocket, snapshot: ListenerSnapshot) {
        let bound = match socket {
            NewSocket::Bound(bound) => bound,
            NewSocket::Beside(overlap) => {
                let bound = Arc::clone(overlap.bound());
                self.overlaps.push((snapshot.config.name.clone(), overlap));
                bound
            }
        };
        self.changes.push(ListenerChange::Start(bound, snapshot));
    }

    /// Lets all sockets listen; the last step that may fail.
    ///
    /// # Errors
    /// Another process has taken a port meanwhile.
    pub(super) fn listen(&mut self) -> Result<(), Vec<String>> {
        for (name, overlap) in self.overlaps.drain(..) {
            let listening = overlap.listen();
            listening.map_err(|error| vec![format!("listener {name}: {error}")])?;
        }
        Ok(())
    }

    /// Makes the changes; returns the new listeners, in the order of the file. `first` says how a
    /// listener begins that was not there before.
    pub(super) fn apply(
        self,
        before: &[Arc<Listening>],
        proxy: &Arc<Proxy>,
        first: impl Fn(&str) -> ListenerOrigin<'static>,
    ) -> Vec<Arc<Listening>> {
        let changes = self.changes.into_iter();
        changes
            .map(|change| match change {
                ListenerChange::Keep(known) => known,
                ListenerChange::Update(known, snapshot) => {
                    known.update(snapshot);
                    known
                }
                ListenerChange::Start(bound, snapshot) => {
                    start(proxy, bound, snapshot, before, &first)
                }
            })
            .collect()
    }
}

/// Whether name and address are the same.
fn is_same(old: &Listening, wanted: &Listener) -> bool {
    let old = &old.rules().config;
    old.name == wanted.name && old.bind == wanted.bind
}

/// Reasons why `wanted` could not be bound now. Addresses are tried and let go; paths are not, as
/// the text that names them may come from far away. Not while a reload is prepared: both share
/// ports for a moment.
pub(super) fn bind_errors(present: &[Arc<Listening>], wanted: &[Listener]) -> Vec<String> {
    let mut given_up = given_up(present, wanted.iter());
    let mut errors = Vec::new();
    for wanted in wanted {
        let stays = present.iter().any(|old| is_same(old, wanted));
        if stays || net::is_inherited(&wanted.bind) || take(&mut given_up, wanted).is_some() {
            continue;
        }
        let Bind::Tcp(address) = &wanted.bind else {
            continue;
        };
        if let Err(error) = Overlap::bind(*address, wanted.backlog, &beside(&given_up, wanted)) {
            let why = explain(&error, present, &given_up, &wanted.bind);
            errors.push(format!("listener {}: {why}", wanted.name));
        }
    }
    errors
}

/// Present listeners that are not wanted any more: their addresses become free.
fn given_up<'a>(
    present: &[Arc<Listening>],
    wanted: impl Iterator<Item = &'a Listener> + Clone,
) -> Vec<Arc<Listening>> {
    let goes_on = |old: &Arc<Listening>| wanted.clone().any(|wanted| is_same(old, wanted));
    let given_up = present.iter().filter(|old| !goes_on(old));
    given_up.cloned().collect()
}

/// Whether the content of the same files differs.
fn is_renewed(old: &ListenerSnapshot, new: &ListenerSnapshot) -> bool {
    let terminates = matches!(new.config.tls, Some(ListenerTls::Terminate(_)));
    terminates && old.config.tls == new.config.tls && fingerprint(old) != fingerprint(new)
}

fn fingerprint(rules: &ListenerSnapshot) -> Option<[u8; 32]> {
    rules.tls.as_ref().map(|tls| tls.fingerprint())
}

/// Socket of a new listener.
enum NewSocket {
    Bound(Arc<Bound>),
    /// Beside the sockets of listeners that give their addresses up.
    Beside(Overlap),
}

/// Takes the socket of a listener that gives this address up, or binds a new one.
fn socket(
    given_up: &mut Vec<Arc<Listening>>,
    present: &[Arc<Listening>],
    wanted: &Listener,
) -> Result<NewSocket, String> {
    if let Some(bound) = take(given_up, wanted) {
        return Ok(NewSocket::Bound(bound));
    }
    let beside = beside(given_up, wanted);
    let bound = match &wanted.bind {
        Bind::Tcp(address) if !beside.is_empty() => {
            Overlap::bind(*address, wanted.backlog, &beside).map(NewSocket::Beside)
        }
        bind => {
            let bound = net::bind_with(bind, wanted.backlog, &wanted.file);
            bound.map(|bound| NewSocket::Bound(Arc::new(bound)))
        }
    };
    bound.map_err(|error| explain(&error, present, given_up, &wanted.bind))
}

/// Takes the socket of exactly that address.
fn take(given_up: &mut Vec<Arc<Listening>>, wanted: &Listener) -> Option<Arc<Bound>> {
    let holds = |old: &Arc<Listening>| {
        old.rules().config.bind == wanted.bind || *old.local() == wanted.bind
    };
    let index = given_up.iter().position(holds)?;
    Some(Arc::clone(given_up.swap_remove(index).bound()))
}

/// The sockets whose address covers this one, or is covered by it.
fn beside(given_up: &[Arc<Listening>], wanted: &Listener) -> Vec<Arc<Bound>> {
    let overlapping = given_up
        .iter()
        .filter(|old| old.local().overlaps(&wanted.bind));
    overlapping.map(|old| Arc::clone(old.bound())).collect()
}

/// The error as text; names the own listener whose socket stays and is in the way.
fn explain(
    error: &BindError,
    present: &[Arc<Listening>],
    given_up: &[Arc<Listening>],
    wanted: &Bind,
) -> String {
    let leaves = |old: &Arc<Listening>| given_up.iter().any(|other| Arc::ptr_eq(old, other));
    let in_the_way = |old: &&Arc<Listening>| old.local().overlaps(wanted) && !leaves(old);
    let in_use = error.source.kind() == io::ErrorKind::AddrInUse;
    match present.iter().find(in_the_way).filter(|_| in_use) {
        Some(old) => format!("{error} by listener {}", old.rules().config.name),
        None => error.to_string(),
    }
}

/// Listeners of `before` that are not among `now` any more.
pub(super) fn left_over(
    before: Vec<Arc<Listening>>,
    now: &[Arc<Listening>],
) -> Vec<Arc<Listening>> {
    let is_left = |old: &Arc<Listening>| !now.iter().any(|new| Arc::ptr_eq(old, new));
    before.into_iter().filter(is_left).collect()
}

/// Stops listeners. One whose port stays in use at another address first leaves new connections to
/// that one, and has time for the handshakes under way; without that they would be reset.
pub(super) async fn stop(left: Vec<Arc<Listening>>, now: &[Arc<Listening>]) {
    // A listener under another name has taken the socket over.
    let is_kept = |old: &Arc<Listening>| {
        let bound = old.bound();
        now.iter().any(|new| Arc::ptr_eq(new.bound(), bound))
    };
    let goes_on = |old: &Arc<Listening>| {
        !is_kept(old) && now.iter().any(|new| new.local().overlaps(old.local()))
    };
    let is_left_open = |old: &&Arc<Listening>| old.bound().is_inherited() && !is_kept(old);
    for stays in left.iter().filter(is_left_open) {
        let (listener, address) = (&stays.counters().name, stays.local());
        tracing::warn!(%listener, %address, "the service manager holds the inherited socket open: its clients wait until a listener has it again");
    }
    let (overlapped, gone): (Vec<_>, Vec<_>) = left.into_iter().partition(goes_on);
    for listening in &overlapped {
        if let Err(error) = listening.bound().stop_accepting() {
            let listener = &listening.counters().name;
            tracing::warn!(%listener, %error, "connections that come while the old address closes are reset");
        }
    }
    for listening in gone {
        listening.stop().await;
    }
    if !overlapped.is_empty() {
        tokio::time::sleep(HALF_OPEN_TIME).await;
    }
    for listening in overlapped {
        listening.stop().await;
    }
}

fn start(
    proxy: &Arc<Proxy>,
    bound: Arc<Bound>,
    snapshot: ListenerSnapshot,
    before: &[Arc<Listening>],
    first: &impl Fn(&str) -> ListenerOrigin<'static>,
) -> Arc<Listening> {
    let name = snapshot.config.name.clone();
    // A listener that moved is still the same listener: counters and drain state go with its name.
    let moved = before.iter().find(|old| *old.counters().name == *name);
    let origin = match moved {
        Some(old) => ListenerOrigin::Moved(old),
        None => first(&name),
    };
    let listening = Arc::new(Listening::start(proxy, bound, snapshot, origin));
    tracing::info!(listener = name, address = %listening.local(), "listening");
    listening
}

/// Status of a listener that accepts, or drains.
pub(super) fn present(listening: &Listening) -> ListenerStatus {
    let state = if listening.is_draining() {
        ListenerState::Draining
    } else {
        ListenerState::Listening
    };
    status(listening, state)
}

/// Status of a listener in `state`.
pub(super) fn status(listening: &Listening, state: ListenerState) -> ListenerStatus {
    let snapshot = listening.rules();
    let tls = snapshot.tls.as_ref();
    ListenerStatus {
        name: snapshot.config.name.clone(),
        bind: listening.local().clone(),
        protocol: snapshot.config.protocol,
        state,
        counters: Arc::clone(listening.counters()),
        certificates: tls.map_or_else(Vec::new, |tls| tls.certificates()),
        certificate_error: tls.and_then(|tls| tls.error()),
    }
}

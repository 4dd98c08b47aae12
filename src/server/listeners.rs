//! The step that leads the listeners from one configuration to the next.
//!
//! Everything that can fail (binding) happens in `plan`; `apply` only swaps. A listener is known by its name, a socket by its
//! address: an address that stays keeps its socket, under whatever name, because closing one loses the connections
//! queued in it. An address that only overlaps the one before is bound beside it.

use std::io;
use std::sync::Arc;

use super::status::{ListenerState, ListenerStatus};
use crate::config::{Bind, Listener, ListenerTls};
use crate::net::{self, BindError, Bound, HALF_OPEN_TIME, Overlap};
use crate::observe::ListenerCounters;
use crate::proxy::{ListenerSnapshot, Listening, Proxy};

/// What becomes of one listener of the new configuration.
pub(super) enum ListenerChange {
    /// Nothing about it changed.
    Keep(Arc<Listening>),
    /// Its socket stays and gets new rules.
    Update(Arc<Listening>, ListenerSnapshot),
    /// It starts on a socket that is new to it.
    Start(Arc<Bound>, ListenerSnapshot),
}

/// The steps to the new listeners, in the order of the file.
pub(super) struct ListenersPlan {
    pub steps: Vec<ListenerChange>,
    /// Listeners whose certificate files have another content under the same names.
    pub renewed: Vec<String>,
    /// Sockets of `steps` that do not listen yet: until nothing else can fail, what comes to their
    /// port is for the sockets before.
    overlaps: Vec<(String, Overlap)>,
}

impl ListenersPlan {
    /// Lets all sockets listen; the last step that may fail.
    ///
    /// # Errors
    /// Another process has taken a port meanwhile.
    pub fn listen(&mut self) -> Result<(), Vec<String>> {
        for (name, overlap) in self.overlaps.drain(..) {
            let listening = overlap.listen();
            listening.map_err(|error| vec![format!("listener {name}: {error}")])?;
        }
        Ok(())
    }
}

/// Binds what is new, on sockets that nobody accepts from yet.
///
/// # Errors
/// Every address that could not be bound; what was bound is closed again.
pub(super) fn plan(
    present: &[Arc<Listening>],
    wanted: Vec<ListenerSnapshot>,
) -> Result<ListenersPlan, Vec<String>> {
    let mut errors = Vec::new();
    let mut plan = ListenersPlan {
        steps: Vec::new(),
        renewed: Vec::new(),
        overlaps: Vec::new(),
    };
    let mut given_up = given_up(present, wanted.iter().map(|rules| &*rules.config));
    for rules in wanted {
        let name = rules.config.name.clone();
        let mut stays = present.iter().filter(|old| is_same(old, &rules.config));
        if let Some(known) = stays.next().map(Arc::clone) {
            if is_renewed(&known.rules(), &rules) {
                plan.renewed.push(name);
            }
            plan.steps.push(keep_or_update(known, rules));
            continue;
        }
        match socket(&mut given_up, present, &rules.config) {
            Ok(NewSocket::Bound(bound)) => plan.steps.push(ListenerChange::Start(bound, rules)),
            Ok(NewSocket::Beside(overlap)) => {
                let bound = Arc::clone(overlap.bound());
                plan.steps.push(ListenerChange::Start(bound, rules));
                plan.overlaps.push((name, overlap));
            }
            Err(error) => errors.push(format!("listener {name}: {error}")),
        }
    }
    if errors.is_empty() {
        Ok(plan)
    } else {
        Err(errors)
    }
}

/// Same name, same address.
fn is_same(old: &Listening, wanted: &Listener) -> bool {
    let old = &old.rules().config;
    old.name == wanted.name && old.bind == wanted.bind
}

/// Why `wanted` could not be bound now. Addresses are tried and let go; paths are not, as the text
/// that names them may come from far away. Not while a plan is made: both share ports for a moment.
pub(super) fn preview(present: &[Arc<Listening>], wanted: &[Listener]) -> Vec<String> {
    let mut given_up = given_up(present, wanted.iter());
    let mut refusals = Vec::new();
    for wanted in wanted {
        let stays = present.iter().any(|old| is_same(old, wanted));
        if stays || take(&mut given_up, wanted).is_some() {
            continue;
        }
        let Bind::Tcp(address) = &wanted.bind else {
            continue;
        };
        if let Err(error) = Overlap::bind(*address, wanted.backlog, &beside(&given_up, wanted)) {
            let why = explain(&error, present, &given_up, &wanted.bind);
            refusals.push(format!("listener {}: {why}", wanted.name));
        }
    }
    refusals
}

/// Present listeners that no wanted one goes on as: their addresses become free.
fn given_up<'a>(
    present: &[Arc<Listening>],
    wanted: impl Iterator<Item = &'a Listener> + Clone,
) -> Vec<Arc<Listening>> {
    let goes_on = |old: &Arc<Listening>| wanted.clone().any(|wanted| is_same(old, wanted));
    let given_up = present.iter().filter(|old| !goes_on(old));
    given_up.cloned().collect()
}

fn keep_or_update(known: Arc<Listening>, rules: ListenerSnapshot) -> ListenerChange {
    let old = known.rules();
    if old.config == rules.config && fingerprint(&old) == fingerprint(&rules) {
        ListenerChange::Keep(known)
    } else {
        ListenerChange::Update(known, rules)
    }
}

/// The content of the same files differs.
fn is_renewed(old: &ListenerSnapshot, new: &ListenerSnapshot) -> bool {
    let terminates = matches!(new.config.tls, Some(ListenerTls::Terminate(_)));
    terminates && old.config.tls == new.config.tls && fingerprint(old) != fingerprint(new)
}

fn fingerprint(rules: &ListenerSnapshot) -> Option<[u8; 32]> {
    rules.tls.as_ref().map(|tls| tls.fingerprint())
}

/// The socket of a listener that is not there yet.
enum NewSocket {
    Bound(Arc<Bound>),
    /// Beside the sockets of listeners that give their addresses up.
    Beside(Overlap),
}

/// The socket of a listener that gives this address up, or a new one.
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

/// Takes the socket of the very address.
fn take(given_up: &mut Vec<Arc<Listening>>, wanted: &Listener) -> Option<Arc<Bound>> {
    let holds = |old: &Arc<Listening>| {
        old.rules().config.bind == wanted.bind || *old.local() == wanted.bind
    };
    let place = given_up.iter().position(holds)?;
    Some(Arc::clone(given_up.swap_remove(place).bound()))
}

/// The sockets whose address covers this one, or is covered by it.
fn beside(given_up: &[Arc<Listening>], wanted: &Listener) -> Vec<Arc<Bound>> {
    let overlapping = given_up
        .iter()
        .filter(|old| old.local().overlaps(&wanted.bind));
    overlapping.map(|old| Arc::clone(old.bound())).collect()
}

/// Says so when it is a socket of ours that is in the way and stays.
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

/// Takes the steps; gives the new listeners, in the order of the file.
pub(super) fn apply(
    steps: Vec<ListenerChange>,
    before: &[Arc<Listening>],
    proxy: &Arc<Proxy>,
) -> Vec<Arc<Listening>> {
    steps
        .into_iter()
        .map(|step| match step {
            ListenerChange::Keep(known) => known,
            ListenerChange::Update(known, rules) => {
                known.update(rules);
                known
            }
            ListenerChange::Start(bound, rules) => start(proxy, bound, rules, before),
        })
        .collect()
}

/// Those of `before` that are not among `now` any more.
pub(super) fn left_over(
    before: Vec<Arc<Listening>>,
    now: &[Arc<Listening>],
) -> Vec<Arc<Listening>> {
    let is_left = |old: &Arc<Listening>| !now.iter().any(|new| Arc::ptr_eq(old, new));
    before.into_iter().filter(is_left).collect()
}

/// Stops them. One whose port goes on at another address gives what comes to that one first, and
/// has time for the handshakes under way; without that they would be reset.
pub(super) async fn stop(left: Vec<Arc<Listening>>, now: &[Arc<Listening>]) {
    let goes_on = |old: &Arc<Listening>| now.iter().any(|new| new.local().overlaps(old.local()));
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
    rules: ListenerSnapshot,
    before: &[Arc<Listening>],
) -> Arc<Listening> {
    let name = rules.config.name.clone();
    // A listener that moved is still the same listener: its counters and the operator's word go with its name.
    let moved = before.iter().find(|old| *old.counters().name == *name);
    let counters = match moved {
        Some(old) => Arc::clone(old.counters()),
        None => ListenerCounters::new(&name, &proxy.journal),
    };
    let moved = moved.map(Arc::as_ref);
    let listening = Arc::new(Listening::start(proxy, bound, rules, counters, moved));
    tracing::info!(listener = name, address = %listening.local(), "listening");
    listening
}

/// What is told of a listener that accepts.
pub(super) fn present(listening: &Listening) -> ListenerStatus {
    let state = match listening.is_draining() {
        true => ListenerState::Draining,
        false => ListenerState::Listening,
    };
    status(listening, state)
}

/// What is told of a listener.
pub(super) fn status(listening: &Listening, state: ListenerState) -> ListenerStatus {
    let rules = listening.rules();
    ListenerStatus {
        name: rules.config.name.clone(),
        bind: listening.local().clone(),
        protocol: rules.config.protocol,
        state,
        counters: Arc::clone(listening.counters()),
        server_names: rules
            .tls
            .as_ref()
            .map_or_else(Vec::new, |tls| tls.server_names()),
        certificates: rules
            .tls
            .as_ref()
            .map_or_else(Vec::new, |tls| tls.certificates()),
        certificate_error: rules.tls.as_ref().and_then(|tls| tls.error()),
    }
}

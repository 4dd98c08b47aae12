//! The step that leads the listeners from one configuration to the next.
//!
//! Everything that can fail (binding) happens in `plan`; `apply` only swaps. A listener is known by its name, a socket by its
//! address: an address that stays keeps its socket, under whatever name, because closing one loses the connections
//! queued in it.

use std::io;
use std::sync::Arc;

use super::status::{ListenerState, ListenerStatus};
use crate::config::{Bind, Listener, ListenerTls};
use crate::net::{self, BindError, Bound};
use crate::observe::ListenerCounters;
use crate::proxy::{Listening, Proxy, Rules};

/// What becomes of one listener of the new configuration.
pub(super) enum Step {
    /// Nothing about it changed.
    Keep(Arc<Listening>),
    /// Its socket stays and gets new rules.
    Update(Arc<Listening>, Rules),
    /// It starts on a socket that is new to it.
    Start(Arc<Bound>, Rules),
}

/// The steps to the new listeners, in the order of the file.
pub(super) struct Plan {
    pub steps: Vec<Step>,
    /// Listeners whose certificate files have another content under the same names.
    pub renewed: Vec<String>,
}

/// Binds what is new, on sockets that listen already but that nobody accepts from yet.
///
/// # Errors
/// Every address that could not be bound; what was bound is closed again.
pub(super) fn plan(present: &[Arc<Listening>], wanted: Vec<Rules>) -> Result<Plan, Vec<String>> {
    let mut errors = Vec::new();
    let mut plan = Plan {
        steps: Vec::new(),
        renewed: Vec::new(),
    };
    let mut given_up = given_up(present, &wanted);
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
            Ok(bound) => plan.steps.push(Step::Start(bound, rules)),
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

/// Present listeners that no wanted one goes on as: their addresses become free.
fn given_up(present: &[Arc<Listening>], wanted: &[Rules]) -> Vec<Arc<Listening>> {
    let goes_on = |old: &Arc<Listening>| wanted.iter().any(|rules| is_same(old, &rules.config));
    let given_up = present.iter().filter(|old| !goes_on(old));
    given_up.cloned().collect()
}

fn keep_or_update(known: Arc<Listening>, rules: Rules) -> Step {
    let old = known.rules();
    if old.config == rules.config && fingerprint(&old) == fingerprint(&rules) {
        Step::Keep(known)
    } else {
        Step::Update(known, rules)
    }
}

/// The content of the same files differs.
fn is_renewed(old: &Rules, new: &Rules) -> bool {
    let terminates = matches!(new.config.tls, Some(ListenerTls::Terminate(_)));
    terminates && old.config.tls == new.config.tls && fingerprint(old) != fingerprint(new)
}

fn fingerprint(rules: &Rules) -> Option<[u8; 32]> {
    rules.tls.as_ref().map(|tls| tls.fingerprint())
}

/// The socket of a listener that gives this address up, or a new one.
fn socket(
    given_up: &mut Vec<Arc<Listening>>,
    present: &[Arc<Listening>],
    wanted: &Listener,
) -> Result<Arc<Bound>, String> {
    let holds = |old: &Arc<Listening>| {
        old.rules().config.bind == wanted.bind || *old.local() == wanted.bind
    };
    if let Some(place) = given_up.iter().position(holds) {
        return Ok(Arc::clone(given_up.swap_remove(place).bound()));
    }
    net::bind(&wanted.bind, wanted.backlog)
        .map(Arc::new)
        .map_err(|error| explain(&error, present, &wanted.bind))
}

/// Says so when it is our own socket that is in the way: the old one serves until the new one is bound.
fn explain(error: &BindError, present: &[Arc<Listening>], wanted: &Bind) -> String {
    let overlapping = |old: &&Arc<Listening>| match (old.local(), wanted) {
        (Bind::Tcp(old), Bind::Tcp(wanted)) => old.port() == wanted.port(),
        _ => false,
    };
    let in_use = error.source.kind() == io::ErrorKind::AddrInUse;
    match present.iter().find(overlapping).filter(|_| in_use) {
        Some(old) => format!(
            "{error} by listener {}, which serves until the new address is bound; use another port or restart",
            old.rules().config.name
        ),
        None => error.to_string(),
    }
}

/// Takes the steps; gives the new listeners, in the order of the file.
pub(super) fn apply(
    steps: Vec<Step>,
    before: &[Arc<Listening>],
    proxy: &Arc<Proxy>,
) -> Vec<Arc<Listening>> {
    steps
        .into_iter()
        .map(|step| match step {
            Step::Keep(known) => known,
            Step::Update(known, rules) => {
                known.update(rules);
                known
            }
            Step::Start(bound, rules) => start(proxy, bound, rules, before),
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

fn start(
    proxy: &Arc<Proxy>,
    bound: Arc<Bound>,
    rules: Rules,
    before: &[Arc<Listening>],
) -> Arc<Listening> {
    let name = rules.config.name.clone();
    // A listener that moved is still the same listener: its counters go with its name.
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

/// What is told of a listener.
pub(super) fn status(listening: &Listening, state: ListenerState) -> ListenerStatus {
    let rules = listening.rules();
    ListenerStatus {
        name: rules.config.name.clone(),
        bind: listening.local().clone(),
        protocol: rules.config.protocol,
        state,
        counters: Arc::clone(listening.counters()),
        server_names: rules.tls.as_ref().map_or_else(Vec::new, |tls| tls.names()),
        certificates: rules
            .tls
            .as_ref()
            .map_or_else(Vec::new, |tls| tls.certificates()),
        certificate_error: rules.tls.as_ref().and_then(|tls| tls.error()),
    }
}

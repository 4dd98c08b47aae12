//! Endpoints of the admin side, which follow the reloads of the server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use serde::Deserialize as _;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::api::{AdminState, Api};
use super::endpoint::{BACKLOG, HttpEndpoint};
use super::events::Feed;
use super::guard::EndpointGuard;
use super::refusals::RefusalValues;
use super::sessions::Sessions;
use crate::config::{Bind, Config, FileRights};
use crate::net::{self, BindError, Bound, Overlap};
use crate::server::{Commit, ReloadParticipant, Server};

/// Endpoints of `[admin]` and `[metrics]`, where they are configured.
pub(crate) struct AdminServer {
    state: Arc<AdminState>,
    runtime: Handle,
    bound: Arc<Mutex<Endpoints>>,
}

#[derive(Default)]
struct Endpoints {
    admin: Option<HttpEndpoint>,
    metrics: Option<HttpEndpoint>,
}

/// Effect of a reload on one endpoint.
enum EndpointChange {
    Keep(EndpointGuard, FileRights),
    Open {
        configured: Bind,
        bound: Arc<Bound>,
        guard: EndpointGuard,
    },
    Close,
}

impl AdminServer {
    /// Attaches the endpoints to a prepared server. They are bound when it opens, all or nothing
    /// with its listeners.
    pub(crate) fn attach(server: &Arc<Server>) -> Arc<AdminServer> {
        let admin = Arc::new(AdminServer {
            state: Arc::new(AdminState {
                server: Arc::downgrade(server),
                refused: Arc::default(),
                feed: Feed::new(epoch(server)),
                sessions: Sessions::default(),
            }),
            runtime: server.control_runtime(),
            bound: Arc::default(),
        });
        server.add_participant(Arc::clone(&admin) as Arc<dyn ReloadParticipant>);
        admin
    }

    /// Real address of `[admin]`, where there is one.
    pub(crate) fn local(&self) -> Option<Bind> {
        self.endpoints()
            .admin
            .as_ref()
            .map(|endpoint| endpoint.local.clone())
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        lock(&self.bound)
    }

    fn prepare_admin(&self, config: &Config) -> Result<EndpointChange, String> {
        let Some(admin) = &config.admin else {
            return Ok(EndpointChange::Close);
        };
        let guard = |local: &Bind| EndpointGuard::load(admin, local);
        let endpoints = self.endpoints();
        prepare("admin", (&admin.bind, &admin.file), &endpoints.admin, guard)
    }

    fn prepare_metrics(&self, config: &Config) -> Result<EndpointChange, String> {
        let Some(metrics) = &config.metrics else {
            return Ok(EndpointChange::Close);
        };
        let guard = |_: &Bind| Ok(EndpointGuard::metrics(metrics));
        let endpoints = self.endpoints();
        let bind = (&metrics.bind, &metrics.file);
        prepare("metrics", bind, &endpoints.metrics, guard)
    }
}

/// Prepares one endpoint: keeps the one that is bound to that address, or binds it.
fn prepare(
    what: &str,
    (bind, rights): (&Bind, &FileRights),
    present: &Option<HttpEndpoint>,
    guard: impl Fn(&Bind) -> Result<EndpointGuard, String>,
) -> Result<EndpointChange, String> {
    if let Some(present) = present.as_ref().filter(|one| one.configured == *bind) {
        let guard = guard(&present.local)?;
        return Ok(EndpointChange::Keep(guard, rights.clone()));
    }
    let failed = |error: BindError| format!("{what}: {error}");
    let beside = overlapping(present, bind);
    let (bound, overlap) = match bind {
        Bind::Tcp(address) if !beside.is_empty() => {
            let overlap = Overlap::bind(*address, BACKLOG, &beside).map_err(failed)?;
            (Arc::clone(overlap.bound()), Some(overlap))
        }
        bind => {
            let bound = net::bind_with(bind, BACKLOG, rights).map_err(failed)?;
            (Arc::new(bound), None)
        }
    };
    let guard = guard(bound.local())?;
    if let Some(overlap) = overlap {
        overlap.listen().map_err(failed)?;
    }
    Ok(EndpointChange::Open {
        configured: bind.clone(),
        bound,
        guard,
    })
}

/// Returns the socket of an endpoint, if it overlaps with the address.
fn overlapping(present: &Option<HttpEndpoint>, bind: &Bind) -> Vec<Arc<Bound>> {
    let bound = present.as_ref().and_then(HttpEndpoint::bound);
    let bound = bound.filter(|bound| bound.local().overlaps(bind));
    bound.into_iter().collect()
}

/// Says why an endpoint could not be bound to its new address.
fn preview(what: &str, bind: &Bind, present: &Option<HttpEndpoint>) -> Option<String> {
    let Bind::Tcp(address) = bind else {
        return None;
    };
    let stays = present.as_ref().is_some_and(|one| one.configured == *bind);
    if stays || net::is_inherited(bind) {
        return None;
    }
    let tried = Overlap::bind(*address, BACKLOG, &overlapping(present, bind));
    Some(format!("{what}: {}", tried.err()?))
}

impl ReloadParticipant for AdminServer {
    fn prepare(&self, config: &Config) -> Result<Commit, String> {
        let (admin, metrics) = (self.prepare_admin(config)?, self.prepare_metrics(config)?);
        let (bound, runtime) = (Arc::clone(&self.bound), self.runtime.clone());
        let state = Arc::clone(&self.state);
        Ok(Box::new(move || {
            let mut bound = lock(&bound);
            admin.take("admin", &mut bound.admin, &runtime, &state);
            metrics.take("metrics", &mut bound.metrics, &runtime, &state);
        }))
    }

    fn preview(&self, config: &Config) -> Vec<String> {
        let endpoints = self.endpoints();
        let admin = config.admin.iter();
        let admin = admin.filter_map(|one| preview("admin", &one.bind, &endpoints.admin));
        let metrics = config.metrics.iter();
        let metrics = metrics.filter_map(|one| preview("metrics", &one.bind, &endpoints.metrics));
        admin.chain(metrics).collect()
    }

    fn sockets(&self) -> Vec<(Bind, Arc<Bound>)> {
        let endpoints = self.endpoints();
        let socket = |one: &HttpEndpoint| Some((one.configured.clone(), one.bound()?));
        endpoints.all().filter_map(socket).collect()
    }

    fn leave(&self, is_unused: &dyn Fn(&Arc<Bound>) -> bool) {
        let mut endpoints = self.endpoints();
        for endpoint in endpoints.all_mut() {
            if !endpoint.bound().is_some_and(|bound| is_unused(&bound)) {
                endpoint.leave_to_next();
            }
        }
    }

    fn give_up(&self) {
        *self.endpoints() = Endpoints::default();
    }

    fn resume(&self) {
        let mut endpoints = self.endpoints();
        for endpoint in endpoints.all_mut() {
            endpoint.resume(&self.runtime, Api::new(Arc::clone(&self.state)));
        }
    }

    fn totals(&self) -> serde_json::Value {
        serde_json::to_value(RefusalValues::of(&self.state.refused)).unwrap_or_default()
    }

    fn add_growth(&self, before: &serde_json::Value, now: &serde_json::Value) {
        let read = |value: &serde_json::Value| RefusalValues::deserialize(value).ok();
        if let Some(now) = read(now) {
            now.add_growth(&read(before).unwrap_or_default(), &self.state.refused);
        }
    }
}

impl Endpoints {
    fn all(&self) -> impl Iterator<Item = &HttpEndpoint> {
        self.admin.iter().chain(&self.metrics)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut HttpEndpoint> {
        self.admin.iter_mut().chain(&mut self.metrics)
    }
}

impl EndpointChange {
    fn take(
        self,
        what: &str,
        present: &mut Option<HttpEndpoint>,
        runtime: &Handle,
        state: &Arc<AdminState>,
    ) {
        match (self, present.as_ref()) {
            (EndpointChange::Keep(guard, rights), Some(endpoint)) => {
                follow_tls(&state.server, &guard);
                endpoint.update(guard);
                let set = endpoint.bound().map(|bound| bound.set_rights(&rights));
                if let Some(Err(error)) = set {
                    warn!(listener = what, %error, "owner and mode of the socket's file cannot be set");
                }
            }
            (
                EndpointChange::Open {
                    configured,
                    bound,
                    guard,
                },
                _,
            ) => {
                follow_tls(&state.server, &guard);
                info!(listener = what, address = %bound.local(), "listening");
                let next = HttpEndpoint::start(
                    runtime,
                    configured,
                    bound,
                    Arc::new(ArcSwap::from_pointee(guard)),
                    Api::new(Arc::clone(state)),
                );
                if let Some(before) = present.replace(next) {
                    before.leave(runtime);
                }
            }
            (EndpointChange::Close | EndpointChange::Keep(..), _) => *present = None,
        }
    }
}

/// Names a process in the ids of its events.
fn epoch(server: &Server) -> String {
    let since = server.started_at().duration_since(UNIX_EPOCH);
    format!("{:x}", since.unwrap_or_default().as_micros())
}

/// Lets the server renew the certificate of the endpoint as those of the listeners.
fn follow_tls(server: &Weak<Server>, guard: &EndpointGuard) {
    if let (Some(server), Some(terminator)) = (server.upgrade(), guard.tls()) {
        server.watch_tls(terminator);
    }
}

/// Locks the endpoints. Nothing panics while the lock is held, and they would still be whole.
fn lock(endpoints: &Mutex<Endpoints>) -> MutexGuard<'_, Endpoints> {
    endpoints.lock().unwrap_or_else(PoisonError::into_inner)
}

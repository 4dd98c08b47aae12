//! The admin HTTP endpoint and the metrics endpoint: floor 7, above the server.
//!
//! A request passes `rules` (who may ask), `route` (what is asked), `api` (doing it, `connections` for those); `look` writes down the server
//! as the plain data of `view`, `metrics` as Prometheus text. The endpoint follows reloads: a new address is bound
//! before the old one is given up, rules and tokens change in place.

mod api;
mod body;
mod connections;
mod endpoint;
mod endpoint_connections;
mod guard;
mod jobs;
mod known;
mod listeners;
mod look;
mod metrics;
mod plan;
mod process;
mod query;
mod refused;
mod reply;
mod route;
mod rules;
mod stall;
mod tokens;
pub mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::config::{Bind, Config, FileRights};
use crate::net::{self, BindError, Bound, Overlap};
use crate::server::{Commit, ReloadParticipant, Server};
use api::Api;
pub use api::{MAX_WAIT, MAX_WEIGHT};
use endpoint::{BACKLOG, HttpEndpoint};
use guard::EndpointGuard;
pub use jobs::MAX_TIME;
pub use query::{DEFAULT_LIMIT, network};
use refused::RefusalTotals;

/// The endpoints of `[admin]` and `[metrics]`, where they are configured.
pub struct AdminServer {
    server: Weak<Server>,
    runtime: Handle,
    bound: Arc<Mutex<Endpoints>>,
    refused: Arc<RefusalTotals>,
}

#[derive(Default)]
struct Endpoints {
    admin: Option<HttpEndpoint>,
    metrics: Option<HttpEndpoint>,
}

/// What a reload does to one endpoint.
enum EndpointChange {
    Keep(EndpointGuard, FileRights),
    Open {
        configured: Bind,
        bound: Arc<Bound>,
        gate: EndpointGuard,
    },
    Close,
}

impl AdminServer {
    /// The endpoints of a prepared server: bound when it opens, all or nothing with its listeners.
    pub fn attach(server: &Arc<Server>) -> Arc<AdminServer> {
        let admin = Arc::new(AdminServer {
            server: Arc::downgrade(server),
            runtime: server.control_runtime(),
            bound: Arc::default(),
            refused: Arc::default(),
        });
        server.add_participant(Arc::clone(&admin) as Arc<dyn ReloadParticipant>);
        admin
    }

    /// The real address of `[admin]`, where there is one.
    pub fn local(&self) -> Option<Bind> {
        self.endpoints()
            .admin
            .as_ref()
            .map(|endpoint| endpoint.local.clone())
    }

    /// The real address of `[metrics]`, where there is one.
    pub fn metrics_local(&self) -> Option<Bind> {
        self.endpoints()
            .metrics
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
        if let Some(present) = self
            .endpoints()
            .admin
            .as_ref()
            .filter(|present| present.configured == admin.bind)
        {
            let gate = EndpointGuard::load(admin, &present.local)?;
            return Ok(EndpointChange::Keep(gate, admin.file.clone()));
        }
        let present = self.bound_by(|endpoints| &endpoints.admin);
        let gate = |local: &Bind| EndpointGuard::load(admin, local);
        open("admin", (&admin.bind, &admin.file), present, gate)
    }

    fn prepare_metrics(&self, config: &Config) -> Result<EndpointChange, String> {
        let Some(metrics) = &config.metrics else {
            return Ok(EndpointChange::Close);
        };
        if self
            .endpoints()
            .metrics
            .as_ref()
            .is_some_and(|present| present.configured == metrics.bind)
        {
            return Ok(EndpointChange::Keep(
                EndpointGuard::metrics(metrics),
                metrics.file.clone(),
            ));
        }
        let present = self.bound_by(|endpoints| &endpoints.metrics);
        let gate = |_: &Bind| Ok(EndpointGuard::metrics(metrics));
        open("metrics", (&metrics.bind, &metrics.file), present, gate)
    }

    /// The socket of an endpoint that is there.
    fn bound_by(&self, of: impl Fn(&Endpoints) -> &Option<HttpEndpoint>) -> Option<Arc<Bound>> {
        of(&self.endpoints()).as_ref().and_then(HttpEndpoint::bound)
    }
}

fn open(
    what: &str,
    (bind, rights): (&Bind, &FileRights),
    present: Option<Arc<Bound>>,
    gate: impl Fn(&Bind) -> Result<EndpointGuard, String>,
) -> Result<EndpointChange, String> {
    let failed = |error: BindError| format!("{what}: {error}");
    let beside: Vec<_> = present
        .filter(|old| old.local().overlaps(bind))
        .into_iter()
        .collect();
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
    let gate = gate(bound.local())?;
    if let Some(overlap) = overlap {
        overlap.listen().map_err(failed)?;
    }
    Ok(EndpointChange::Open {
        configured: bind.clone(),
        bound,
        gate,
    })
}

/// Why an endpoint could not be bound where it is to go.
fn preview(what: &str, bind: &Bind, present: Option<(Bind, Option<Arc<Bound>>)>) -> Option<String> {
    let Bind::Tcp(address) = bind else {
        return None;
    };
    let (configured, bound) = present.unzip();
    if configured.as_ref() == Some(bind) {
        return None;
    }
    let beside = bound.flatten().filter(|old| old.local().overlaps(bind));
    let beside: Vec<_> = beside.into_iter().collect();
    let tried = Overlap::bind(*address, BACKLOG, &beside);
    Some(format!("{what}: {}", tried.err()?))
}

impl ReloadParticipant for AdminServer {
    fn prepare(&self, config: &Config) -> Result<Commit, String> {
        let (admin, metrics) = (self.prepare_admin(config)?, self.prepare_metrics(config)?);
        let (bound, runtime) = (Arc::clone(&self.bound), self.runtime.clone());
        let (server, refused) = (Weak::clone(&self.server), Arc::clone(&self.refused));
        Ok(Box::new(move || {
            let mut bound = lock(&bound);
            admin.take("admin", &mut bound.admin, &runtime, (&server, &refused));
            metrics.take("metrics", &mut bound.metrics, &runtime, (&server, &refused));
        }))
    }

    fn preview(&self, config: &Config) -> Vec<String> {
        let endpoints = self.endpoints();
        let present = |endpoint: &Option<HttpEndpoint>| {
            let endpoint = endpoint.as_ref();
            endpoint.map(|endpoint| (endpoint.configured.clone(), endpoint.bound()))
        };
        let admin = config.admin.iter();
        let admin = admin.filter_map(|one| preview("admin", &one.bind, present(&endpoints.admin)));
        let metrics = config.metrics.iter();
        let metrics =
            metrics.filter_map(|one| preview("metrics", &one.bind, present(&endpoints.metrics)));
        admin.chain(metrics).collect()
    }
}

impl EndpointChange {
    fn take(
        self,
        what: &str,
        present: &mut Option<HttpEndpoint>,
        runtime: &Handle,
        (server, refused): (&Weak<Server>, &Arc<RefusalTotals>),
    ) {
        match (self, present.as_ref()) {
            (EndpointChange::Keep(gate, rights), Some(endpoint)) => {
                follow_tls(server, &gate);
                endpoint.update(gate);
                let set = endpoint.bound().map(|bound| bound.set_rights(&rights));
                if let Some(Err(error)) = set {
                    warn!(listener = what, %error, "rights of the socket's file cannot be set");
                }
            }
            (
                EndpointChange::Open {
                    configured,
                    bound,
                    gate,
                },
                _,
            ) => {
                follow_tls(server, &gate);
                info!(listener = what, address = %bound.local(), "listening");
                let next = HttpEndpoint::start(
                    runtime,
                    configured,
                    bound,
                    gate,
                    Api::new(Weak::clone(server), Arc::clone(refused)),
                );
                if let Some(before) = present.replace(next) {
                    before.leave(runtime);
                }
            }
            (EndpointChange::Close | EndpointChange::Keep(..), _) => *present = None,
        }
    }
}

/// Its certificate is renewed as those of the listeners are.
fn follow_tls(server: &Weak<Server>, gate: &EndpointGuard) {
    if let (Some(server), Some(terminator)) = (server.upgrade(), gate.tls()) {
        server.watch_tls(terminator);
    }
}

/// Nothing panics while it is held; were it so, what it guards is whole all the same.
fn lock(endpoints: &Mutex<Endpoints>) -> MutexGuard<'_, Endpoints> {
    endpoints.lock().unwrap_or_else(PoisonError::into_inner)
}

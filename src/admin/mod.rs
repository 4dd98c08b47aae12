//! The admin HTTP endpoint and the metrics endpoint: floor 7, above the server.
//!
//! A request passes `rules` (who may ask), `route` (what is asked), `api` (doing it, `connections` for those); `look` writes down the server
//! as the plain data of `view`, `metrics` as Prometheus text. The endpoint follows reloads: a new address is bound
//! before the old one is given up, rules and tokens change in place.

mod api;
mod body;
mod connections;
mod endpoint;
mod gate;
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
mod room;
mod route;
mod rules;
mod stall;
mod tokens;
pub mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;
use tracing::info;

use crate::config::{Bind, Config};
use crate::net::{self, Bound};
use crate::server::{Commit, Follower, Server};
use api::Api;
pub use api::{MAX_WAIT, MAX_WEIGHT};
use endpoint::{BACKLOG, Endpoint};
use gate::Gate;
pub use jobs::MAX_TIME;
pub use query::network;
use refused::Refused;

/// The endpoints of `[admin]` and `[metrics]`, where they are configured.
pub struct Admin {
    server: Weak<Server>,
    runtime: Handle,
    bound: Arc<Mutex<Endpoints>>,
    refused: Arc<Refused>,
}

#[derive(Default)]
struct Endpoints {
    admin: Option<Endpoint>,
    metrics: Option<Endpoint>,
}

/// What a reload does to one endpoint.
enum Step {
    Keep(Gate),
    Open {
        configured: Bind,
        bound: Bound,
        gate: Gate,
    },
    Close,
}

impl Admin {
    /// The endpoints of a prepared server: bound when it opens, all or nothing with its listeners.
    pub fn attach(server: &Arc<Server>) -> Arc<Admin> {
        let admin = Arc::new(Admin {
            server: Arc::downgrade(server),
            runtime: server.watch(),
            bound: Arc::default(),
            refused: Arc::default(),
        });
        server.follow(Arc::clone(&admin) as Arc<dyn Follower>);
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

    fn prepare_admin(&self, config: &Config) -> Result<Step, String> {
        let Some(admin) = &config.admin else {
            return Ok(Step::Close);
        };
        if let Some(present) = self
            .endpoints()
            .admin
            .as_ref()
            .filter(|present| present.configured == admin.bind)
        {
            return Gate::load(admin, &present.local).map(Step::Keep);
        }
        Admin::open("admin", &admin.bind, |local| Gate::load(admin, local))
    }

    fn prepare_metrics(&self, config: &Config) -> Result<Step, String> {
        let Some(metrics) = &config.metrics else {
            return Ok(Step::Close);
        };
        if self
            .endpoints()
            .metrics
            .as_ref()
            .is_some_and(|present| present.configured == metrics.bind)
        {
            return Ok(Step::Keep(Gate::metrics(metrics)));
        }
        Admin::open("metrics", &metrics.bind, |_| Ok(Gate::metrics(metrics)))
    }

    fn open(
        what: &str,
        bind: &Bind,
        gate: impl Fn(&Bind) -> Result<Gate, String>,
    ) -> Result<Step, String> {
        let bound = net::bind(bind, BACKLOG).map_err(|error| format!("{what}: {error}"))?;
        let gate = gate(bound.local())?;
        Ok(Step::Open {
            configured: bind.clone(),
            bound,
            gate,
        })
    }
}

impl Follower for Admin {
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
}

impl Step {
    fn take(
        self,
        what: &str,
        present: &mut Option<Endpoint>,
        runtime: &Handle,
        (server, refused): (&Weak<Server>, &Arc<Refused>),
    ) {
        match (self, present.as_ref()) {
            (Step::Keep(gate), Some(endpoint)) => {
                follow_tls(server, &gate);
                endpoint.update(gate);
            }
            (
                Step::Open {
                    configured,
                    bound,
                    gate,
                },
                _,
            ) => {
                follow_tls(server, &gate);
                info!(listener = what, address = %bound.local(), "listening");
                *present = Some(Endpoint::start(
                    runtime,
                    configured,
                    bound,
                    gate,
                    Api::new(Weak::clone(server), Arc::clone(refused)),
                ));
            }
            (Step::Close | Step::Keep(_), _) => *present = None,
        }
    }
}

/// Its certificate is renewed as those of the listeners are.
fn follow_tls(server: &Weak<Server>, gate: &Gate) {
    if let (Some(server), Some(terminator)) = (server.upgrade(), gate.tls()) {
        server.follow_tls(terminator);
    }
}

/// Nothing panics while it is held; were it so, what it guards is whole all the same.
fn lock(endpoints: &Mutex<Endpoints>) -> MutexGuard<'_, Endpoints> {
    endpoints.lock().unwrap_or_else(PoisonError::into_inner)
}

//! This server as a member of a cluster: what it tells the others, and what it takes from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::control::drain::DrainRequest;
use super::control::jobs::{DrainRate, JobTarget};
use super::lock::lock;
use super::state::Server;
use super::upgrade::status::UpgradePhase;
use crate::admission::{SharedSources, SourceGauge, SourceKey, keep_most};
use crate::cluster::{
    ClusterHost, ClusterMember, ClusterStatus, OperatorField, OperatorKey, OperatorValue,
    ShareError, SharedDrain, SharedPace,
};
use crate::config::{Cluster, Share};
use crate::pool::{Backend, ClusterExchange, OperatorState, Pool};
use crate::proxy::Listening;
use crate::relay::CloseFrame;

/// Most backends that are told to the others: as many as one answer of theirs is read with.
const MAX_BACKENDS: usize = 20_000;

/// Effect of a state that the operator sets on the other members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SharedAs {
    /// There is no cluster, or it does not share these.
    Unshared,
    /// The store has it.
    Stored,
    /// The others have it once the store does.
    Local,
}

impl Server {
    /// Status of the cluster; `None`: this server is in none.
    pub(crate) fn cluster_status(&self) -> Option<ClusterStatus> {
        self.member().map(|member| member.status())
    }

    fn member(&self) -> Option<Arc<ClusterMember>> {
        lock(&self.cluster).clone()
    }

    fn sharing_member(&self) -> Option<Arc<ClusterMember>> {
        self.member()
            .filter(|member| member.shares(Share::Operator))
    }

    /// Sets a state of a backend at all members but this one, where the caller applies it.
    /// `local`: the store is not waited for.
    ///
    /// # Errors
    /// The store does not have it.
    pub(crate) async fn share_state(
        &self,
        backend: &Backend,
        value: OperatorValue,
        local: bool,
    ) -> Result<SharedAs, ShareError> {
        let Some(member) = self.sharing_member() else {
            return Ok(SharedAs::Unshared);
        };
        let field = match value {
            OperatorValue::Weight(_) => OperatorField::Weight,
            _ => OperatorField::State,
        };
        let key = OperatorKey {
            pool: backend.pool().to_string(),
            backend: backend.name().to_string(),
            field,
        };
        if local {
            member.set_local(&key, value)?;
            return Ok(SharedAs::Local);
        }
        member.set(key, value).await?;
        Ok(SharedAs::Stored)
    }

    /// Waits until all members have applied what the operator has set, at most `limit`. Returns how
    /// many of how many have; `None` without a cluster.
    pub(crate) async fn spread(&self, limit: Duration) -> Option<(usize, usize)> {
        Some(self.sharing_member()?.spread(limit).await)
    }

    /// Joins the cluster of the configuration, leaves the one of before. Blocks on files.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(super) fn join_cluster(self: &Arc<Self>) -> Result<(), String> {
        let config = self.config();
        let before = self.member();
        if before.as_ref().map(|before| before.settings()) == config.cluster.as_ref() {
            return Ok(());
        }
        let joined = config.cluster.as_ref().map(|settings| {
            let host = Box::new(Host(Arc::downgrade(self)));
            let runtime = self.control_runtime();
            ClusterMember::start(settings, host, before.as_deref(), &runtime).map(Arc::new)
        });
        let joined = joined
            .transpose()
            .map_err(|error| format!("cluster: {error}"))?;
        let stays = joined
            .as_ref()
            .zip(before.as_ref())
            .is_some_and(|(now, before)| {
                let place = |one: &Cluster| (one.name.clone(), one.id.clone());
                place(now.settings()) == place(before.settings())
            });
        if joined.is_none() {
            self.pools().iter().for_each(|pool| pool.leave_cluster());
            let listeners = lock(&self.live).listeners.clone();
            listeners
                .iter()
                .for_each(|one| one.admission().set_shared_sources(None));
        }
        let affinity = joined.as_ref().and_then(|member| member.affinity());
        for pool in self.pools() {
            pool.set_affinity_link(affinity.clone());
        }
        *lock(&self.cluster) = joined;
        if let Some(before) = before.filter(|_| !stays) {
            self.control_runtime()
                .spawn(async move { before.leave().await });
        }
        Ok(())
    }

    /// Waits until the states of the cluster are known, as long as an exchange takes: a drained
    /// backend gets no connection of a balancer that starts.
    pub(super) async fn joined_cluster(&self) {
        if let Some(member) = self.member() {
            member.joined().await;
        }
    }

    /// Gives pools that begin to serve the operator's states of the cluster.
    pub(super) fn reconcile_pools<'a>(&self, pools: impl Iterator<Item = &'a Arc<Pool>> + Clone) {
        let Some(member) = self.member() else {
            return;
        };
        for pool in pools.clone() {
            pool.set_affinity_link(member.affinity());
        }
        if member.shares(Share::Operator) {
            let set = |backend: &Arc<Backend>, state| backend.set_operator(state);
            reconcile(&member.values(), pools, &set);
        }
    }

    /// Leaves the cluster at the end of this process, unless another one goes on in its place.
    pub(super) async fn leave_cluster(&self) {
        let member = lock(&self.cluster).take();
        if let Some(member) = member {
            member.leave().await;
        }
    }
}

/// See [`ClusterHost`].
struct Host(Weak<Server>);

impl ClusterHost for Host {
    fn loads(&self) -> Vec<(String, u32)> {
        let mut loads = BTreeMap::new();
        for pool in self.pools() {
            for own in pool.own_loads() {
                let name = format!("{}/{}", pool.name(), own.backend);
                let sum: &mut u64 = loads.entry(name).or_default();
                *sum += own.live;
            }
        }
        let loads = loads.into_iter().take(MAX_BACKENDS);
        loads
            .map(|(name, live)| (name, u32::try_from(live).unwrap_or(u32::MAX)))
            .collect()
    }

    fn take_loads(&self, loads: &BTreeMap<&str, u64>, members: u32) {
        let Some(member) = self.0.upgrade().and_then(|server| server.member()) else {
            return;
        };
        for pool in self.pools() {
            let prefix = format!("{}/", pool.name());
            let of_pool: BTreeMap<&str, u64> = loads
                .range(prefix.as_str()..)
                .map_while(|(name, load)| Some((name.strip_prefix(&prefix)?, *load)))
                .collect();
            pool.set_cluster_loads(&ClusterExchange {
                members,
                others: &|name| of_pool.get(name).copied().unwrap_or_default(),
                shares_load: member.shares(Share::Load),
                shares_drain: member.shares(Share::Drain),
            });
        }
    }

    fn sources(&self, key: [u8; 16], members: u32) -> Vec<(u64, u32)> {
        let mut gauges = Vec::new();
        for listening in self.listeners() {
            let limit = listening.rules().source_limit();
            if limit > 0 {
                let admission = listening.admission();
                gauges.extend(admission.source_gauges(SourceKey(key), limit, members));
            }
        }
        keep_most(&mut gauges);
        gauges
            .into_iter()
            .map(|gauge| (gauge.hash, gauge.live))
            .collect()
    }

    fn take_sources(&self, key: [u8; 16], sources: Vec<(u64, u32)>) {
        let gauges = sources
            .into_iter()
            .map(|(hash, live)| SourceGauge { hash, live });
        let shared = Arc::new(SharedSources::told(SourceKey(key), gauges));
        for listening in self.listeners() {
            listening
                .admission()
                .set_shared_sources(Some(Arc::clone(&shared)));
        }
    }

    fn be_alone(&self, members: u32) {
        self.pools().iter().for_each(|pool| pool.set_alone(members));
        let member = self.0.upgrade().and_then(|server| server.member());
        if member.is_some_and(|member| member.shares(Share::Limits)) {
            let shared = Arc::new(SharedSources::Alone { members });
            for listening in self.listeners() {
                listening
                    .admission()
                    .set_shared_sources(Some(Arc::clone(&shared)));
            }
        }
    }

    fn operate(&self, key: &OperatorKey, value: &OperatorValue) {
        let server = self.0.upgrade();
        let Some(server) = server.filter(|server| !server.is_handing_over()) else {
            return;
        };
        let pool = server.pool(&key.pool);
        let Some((pool, backend)) = pool.and_then(|pool| {
            let backend = pool.backend(&key.backend)?;
            Some((pool, backend))
        }) else {
            return;
        };
        match value {
            OperatorValue::Weight(weight) => backend.set_weight(*weight),
            OperatorValue::Ready => server.set_operator(&backend, OperatorState::Ready),
            OperatorValue::Maint => server.set_operator(&backend, OperatorState::Maint),
            OperatorValue::Drain(drain) => {
                server.set_operator(&backend, OperatorState::Drain);
                let request = drain_request(drain, &pool);
                let target = JobTarget::Backend(Arc::clone(&backend));
                if let Err(error) = server.apply_drain(target, request) {
                    tracing::warn!(pool = key.pool, backend = key.backend, %error, "no drain job");
                }
            }
        }
    }

    fn reconcile(&self, states: &[(OperatorKey, OperatorValue)]) {
        let server = self.0.upgrade();
        if let Some(server) = server.filter(|server| !server.is_handing_over()) {
            let set = |backend: &Arc<Backend>, state| server.set_operator(backend, state);
            reconcile(states, server.pools().iter(), &set);
        }
    }

    fn is_silent(&self) -> bool {
        let Some(server) = self.0.upgrade() else {
            return true;
        };
        // The process before speaks until this one serves.
        let is_early = server.upgrade.inherited().is_some() && !server.accepts();
        is_early || server.upgrade.phase() == UpgradePhase::HandedOver
    }
}

impl Host {
    fn listeners(&self) -> Vec<Arc<Listening>> {
        let server = self.0.upgrade();
        server
            .map(|server| lock(&server.live).listeners.clone())
            .unwrap_or_default()
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.0
            .upgrade()
            .map(|server| server.pools())
            .unwrap_or_default()
    }
}

/// Gives the backends of `pools` the states that they do not have yet.
fn reconcile<'a>(
    states: &[(OperatorKey, OperatorValue)],
    pools: impl Iterator<Item = &'a Arc<Pool>>,
    set: &dyn Fn(&Arc<Backend>, OperatorState),
) {
    if states.is_empty() {
        return;
    }
    let mut known: BTreeMap<(String, String), Arc<Backend>> = BTreeMap::new();
    for pool in pools {
        for backend in pool.backends() {
            let name = (pool.name().to_string(), backend.name().to_string());
            known.insert(name, backend);
        }
    }
    for (key, value) in states {
        let name = (key.pool.clone(), key.backend.clone());
        let Some(backend) = known.get(&name) else {
            continue;
        };
        let wanted = match value {
            OperatorValue::Weight(weight) => {
                if backend.operator_weight() != *weight {
                    backend.set_weight(*weight);
                }
                continue;
            }
            OperatorValue::Ready => OperatorState::Ready,
            OperatorValue::Drain(_) => OperatorState::Drain,
            OperatorValue::Maint => OperatorState::Maint,
        };
        if backend.operator() != wanted {
            set(backend, wanted);
        }
    }
}

/// The drain that a member begins by the word of another one.
fn drain_request(drain: &SharedDrain, pool: &Pool) -> DrainRequest {
    let pace = match drain {
        SharedDrain::Keep => return DrainRequest::Keep,
        SharedDrain::Default => None,
        SharedDrain::Pace(pace) => Some(pace),
    };
    let of_pool = || pool.settings().drain.as_ref().map(DrainRate::from);
    // A rate of a newer version leaves the pool's.
    let rate = pace.and_then(|pace| pace.rate.as_ref().map(|rate| rate.parse()).transpose().ok());
    match (pace, rate) {
        (Some(pace), Some(rate)) => DrainRequest::Rate(DrainRate {
            rate,
            deadline: pace.deadline,
            after: pace.after,
            close_frame: Arc::new(CloseFrame::new(pace.code, &pace.reason)),
            is_local: false,
        }),
        _ => DrainRequest::Default(of_pool()),
    }
}

impl From<&DrainRequest> for SharedDrain {
    fn from(request: &DrainRequest) -> SharedDrain {
        match request {
            DrainRequest::Default(_) => SharedDrain::Default,
            DrainRequest::Keep => SharedDrain::Keep,
            DrainRequest::Rate(rate) => SharedDrain::Pace(SharedPace {
                rate: rate.rate.map(|rate| rate.to_string()),
                deadline: rate.deadline,
                after: rate.after,
                code: rate.close_frame.code,
                reason: rate.close_frame.reason.to_string(),
            }),
        }
    }
}

//! The server and what can be asked of it.

use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::control::failover::guards::FailoverGuards;
use super::control::jobs::Jobs;
use super::control_runtime::ControlRuntime;
use super::lifecycle::{Lifecycle, LifecycleSender, StopStage};
use super::listeners;
use super::live::Live;
use super::lock::lock;
use super::reload::in_force::ConfigurationInForce;
use super::reload::participant::ReloadParticipant;
use super::reload::source::ConfigSource;
use super::status::{ListenerStatus, PoolFileStatus, ReloadStatus};
use super::upgrade::progress::Upgrades;
use super::upgrade::status::{UpgradePhase, UpgradeStatus, UpgradeTotals};
use crate::admission::Limits;
use crate::cluster::ClusterMember;
use crate::config::Config;
use crate::discovery;
use crate::observe::Journal;
use crate::pool::Pool;
use crate::proxy::{HandshakeLimiter, Proxy};
use crate::relay::Relay;
use crate::tls::TlsAcceptor;

/// A running balancer; always in an `Arc`.
pub(crate) struct Server {
    pub(super) source: ConfigSource,
    pub(super) started_at: SystemTime,
    pub(super) proxy: Arc<Proxy>,
    pub(super) live: Mutex<Live>,
    /// Held through a whole reload: one at a time.
    pub(super) reloading: Mutex<()>,
    pub(super) reloads: Mutex<ReloadStatus>,
    pub(super) lifecycle: LifecycleSender,
    /// The text that was loaded or refused last: the file watcher leaves it alone.
    pub(super) attempted: Mutex<String>,
    pub(super) in_force: Mutex<Arc<ConfigurationInForce>>,
    pub(super) participants: Mutex<Vec<Arc<dyn ReloadParticipant>>>,
    /// TLS of endpoints above the server, whose files are watched like those of the listeners.
    pub(super) endpoint_tls: Mutex<Vec<Weak<TlsAcceptor>>>,
    /// State of the files of the pools, as of the latest look.
    pub(super) pool_files: Mutex<Vec<PoolFileStatus>>,
    /// `global.watch`.
    pub(super) watching: watch::Sender<bool>,
    /// Notified of every configuration that begins to serve.
    pub(super) committed: watch::Sender<()>,
    /// Registries that pools ask.
    pub(super) sources: Arc<discovery::SharedSources>,
    pub(super) jobs: Jobs,
    pub(super) failover: FailoverGuards,
    pub(super) upgrade: Upgrades,
    /// The membership of the settings in force, if there are any.
    pub(super) cluster: Mutex<Option<Arc<ClusterMember>>>,
    pub(super) control: ControlRuntime,
}

impl Server {
    /// The runtimes beside the data path.
    pub(super) fn runtimes(&self) -> &ControlRuntime {
        &self.control
    }

    /// The runtime beside the data path: discovery, watchers, admin.
    pub(crate) fn control_runtime(&self) -> Handle {
        self.control.handle()
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.live).config)
    }

    /// Version and text of the configuration in force.
    pub(crate) fn configuration(&self) -> Arc<ConfigurationInForce> {
        Arc::clone(&lock(&self.in_force))
    }

    /// Where the configuration comes from.
    pub(crate) fn source(&self) -> &ConfigSource {
        &self.source
    }

    /// The pools of the present configuration by name, then removed ones with live connections.
    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        lock(&self.live).pools()
    }

    /// The pool of that name, removed ones with live connections included.
    pub(crate) fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pools().into_iter().find(|pool| **pool.name() == *name)
    }

    /// Whether a reload removed that pool.
    pub(crate) fn is_removed(&self, pool: &Pool) -> bool {
        lock(&self.live).is_removed(pool)
    }

    /// Results of the lookups of that pool.
    pub(crate) fn lookups(&self, pool: &str) -> Option<Arc<discovery::LookupStatus>> {
        let live = lock(&self.live);
        let running = live.pools.get(pool)?;
        Some(Arc::clone(&running.lookups))
    }

    /// The listeners in the order of the file.
    pub(crate) fn listeners(&self) -> Vec<ListenerStatus> {
        let live = lock(&self.live);
        let present = live.listeners.iter();
        live.stopped
            .clone()
            .unwrap_or_else(|| present.map(|one| listeners::present(one)).collect())
    }

    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.proxy.journal
    }

    pub(crate) fn relay(&self) -> &Arc<Relay> {
        &self.proxy.relay
    }

    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.proxy.limits
    }

    pub(crate) fn handshakes(&self) -> &HandshakeLimiter {
        &self.proxy.handshakes
    }

    /// Jobs that close or move live connections.
    pub(crate) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Upgrades that this process has begun, and the process before it.
    pub(crate) fn upgrade_status(&self) -> UpgradeStatus {
        self.upgrade.status()
    }

    pub(crate) fn upgrade_totals(&self) -> UpgradeTotals {
        self.upgrade.totals()
    }

    /// Whether nothing may be changed, as an upgrade is under way or done.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.upgrade.phase() != UpgradePhase::None
    }

    /// Returns when another process serves in place of this one: connections that are gone here
    /// may live on there.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(crate) async fn handed_over(&self) {
        self.upgrade.handed_over().await;
    }

    /// Returns when the service manager takes this process for the main one.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub(crate) async fn leads(&self) {
        // The sender lives as long as this.
        let _ = self.upgrade.leading().wait_for(|leads| *leads).await;
    }

    /// A service manager is told of the life of this process.
    pub(crate) fn found_manager(&self) {
        self.upgrade.found_manager();
    }

    /// The service manager was told which process is the main one now.
    pub(crate) fn manager_told(&self) {
        self.upgrade.manager_told.notify_one();
    }

    /// Clients may be sent here: true from `open` until a stop is announced or begins.
    pub(crate) fn ready(&self) -> bool {
        self.accepts() && self.lifecycle.stop_stage() == StopStage::None
    }

    /// Whether a pool with `discover` has had no backend at all since it began.
    pub(crate) fn waits_for_backends(&self) -> bool {
        let live = lock(&self.live);
        let mut pools = live.pools.values().map(|running| &running.pool);
        pools.any(|pool| pool.settings().discover.is_some() && pool.backends().is_empty())
    }

    /// New connections are accepted: true from `open` until the server stops.
    pub(crate) fn accepts(&self) -> bool {
        !lock(&self.live).listeners.is_empty()
    }

    /// Reloads and the stop, as they happen.
    pub(crate) fn lifecycle(&self) -> watch::Receiver<Lifecycle> {
        self.lifecycle.subscribe()
    }

    pub(crate) fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Results of the reloads so far.
    pub(crate) fn reloads(&self) -> ReloadStatus {
        lock(&self.reloads).clone()
    }
}

impl Drop for Server {
    /// The relay's threads hold nothing of the server and would outlive it.
    fn drop(&mut self) {
        self.proxy.relay.shutdown();
    }
}

//! Follows the files that TLS is made of, and those of pools, while `global.watch` is on; warns of certificates that end soon.
//!
//! Only a poll: a link that is swapped in another folder, a network file system or a write within a mapped file raise no event,
//! and two seconds are nothing to a certificate.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::pool_files::PoolFiles;
use super::{Server, lock};
use crate::tls::{CertificateFacts, RefreshOutcome, SETTLE_TIME, TlsAcceptor};

/// Between two looks, as at the configuration file.
const POLL: Duration = Duration::from_secs(2);
/// Between two warnings of the same.
const WARN_SPACING: Duration = Duration::from_secs(24 * 3600);
/// A certificate of three months that is not renewed with two weeks left is not renewed at all: programs renew at a third.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Of one that lives for days only, this part of its life.
const WARN_PART: u32 = 4;

impl Server {
    /// Follows the files of a terminator above the listeners, that of the admin endpoint, for as long as it lives.
    pub fn follow_tls(&self, terminator: &Arc<TlsAcceptor>) {
        let mut above = lock(&self.tls_above);
        above.retain(|known| known.strong_count() > 0);
        above.push(Arc::downgrade(terminator));
    }

    /// Those that [`Server::follow_tls`] was told of.
    pub fn tls_above(&self) -> Vec<Arc<TlsAcceptor>> {
        let above = lock(&self.tls_above);
        above.iter().filter_map(Weak::upgrade).collect()
    }

    /// Starts to follow; ends with the server.
    pub(super) fn follow_tls_files(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        self.watch()
            .spawn(follow(server, self.committed.subscribe()));
    }

    fn terminators(&self) -> Vec<Arc<TlsAcceptor>> {
        let listeners = lock(&self.live).listeners.clone();
        let own = listeners.iter().filter_map(|one| one.rules().tls.clone());
        own.chain(self.tls_above()).collect()
    }

    /// Time until the next look; `None`: there is no file to look at. Blocks on file I/O.
    fn look_at_files(&self, of_pools: &mut PoolFiles) -> Option<Duration> {
        let terminators = self.terminators();
        let unsettled = terminators
            .iter()
            .filter(|one| one.refresh() == RefreshOutcome::Unsettled);
        let unsettled = unsettled.count();
        let wait = match self.look_at_pool_files(of_pools) || unsettled > 0 {
            false => POLL,
            true => SETTLE_TIME,
        };
        let is_none = terminators.is_empty() && of_pools.is_empty();
        (!is_none).then_some(wait)
    }

    fn warn_of_expiry(&self, now: SystemTime) {
        for terminator in self.terminators() {
            for certificate in terminator.certificates() {
                if let Some(left) = ends_soon(&certificate, now) {
                    tracing::warn!(
                        listener = terminator.name(),
                        file = %certificate.cert.display(),
                        name = certificate.subject,
                        days_left = left.as_secs() / (24 * 3600),
                        "certificate ends soon"
                    );
                }
            }
        }
    }
}

async fn follow(server: Weak<Server>, mut committed: watch::Receiver<()>) {
    let mut of_pools = PoolFiles::new();
    let mut warned: Option<Instant> = None;
    loop {
        let Some(running) = server.upgrade() else {
            return;
        };
        if warned.is_none_or(|last| last.elapsed() >= WARN_SPACING) {
            warned = Some(Instant::now());
            running.warn_of_expiry(SystemTime::now());
        }
        let watch = running.watch();
        let is_on = *running.watching.borrow();
        let mut wait = None;
        if is_on {
            let mut looked_at = std::mem::take(&mut of_pools);
            let look = watch.spawn_blocking(move || {
                let wait = running.look_at_files(&mut looked_at);
                (wait, looked_at)
            });
            // A look that panicked is made again.
            (wait, of_pools) = look.await.unwrap_or((Some(POLL), PoolFiles::new()));
        } else {
            drop(running);
        }
        // Behind a reload there may be other files. That the server is gone is seen above.
        let wait = wait.unwrap_or(WARN_SPACING);
        let _ = tokio::time::timeout(wait, committed.changed()).await;
    }
}

/// The time left, when that is little; zero when it is over.
pub(super) fn ends_soon(certificate: &CertificateFacts, now: SystemTime) -> Option<Duration> {
    let end = certificate.not_after;
    let life = end.duration_since(certificate.not_before);
    let least = WARN_BEFORE.min(life.unwrap_or_default() / WARN_PART);
    let left = end.duration_since(now).unwrap_or_default();
    (left <= least).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_is_warned_of_by_what_is_left_of_its_life() {
        let begin = SystemTime::UNIX_EPOCH;
        let soon = |life: u32, age: u32| {
            let certificate = CertificateFacts {
                cert: "a.pem".into(),
                names: Vec::new(),
                subject: String::new(),
                not_before: begin,
                not_after: begin + DAY * life,
            };
            ends_soon(&certificate, begin + DAY * age)
        };
        assert_eq!(soon(90, 75), None);
        assert_eq!(soon(90, 76), Some(DAY * 14));
        assert_eq!(soon(90, 91), Some(Duration::ZERO));
        assert_eq!(soon(8, 5), None);
        assert_eq!(soon(8, 6), Some(DAY * 2));
    }
}

//! Warnings of certificates that expire soon.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use crate::server::state::Server;
use crate::tls::CertificateFacts;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Between two warnings of the same.
const WARN_SPACING: Duration = DAY;
/// A certificate of three months that is not renewed with two weeks left is not renewed at all:
/// programs renew at a third.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Part of its life that is left when a certificate that lives for days only is warned of.
const WARN_PART: u32 = 4;

/// Starts to warn once a day; ends with the server.
pub(super) fn watch(server: &Arc<Server>) {
    let weak = Arc::downgrade(server);
    server.control_runtime().spawn(async move {
        while let Some(server) = weak.upgrade() {
            server.warn_of_expiry(SystemTime::now());
            drop(server);
            sleep(WARN_SPACING).await;
        }
    });
}

impl Server {
    fn warn_of_expiry(&self, now: SystemTime) {
        for acceptor in self.tls_acceptors() {
            for certificate in acceptor.certificates() {
                if let Some(left) = ends_soon(&certificate, now) {
                    tracing::warn!(
                        listener = acceptor.name(),
                        file = %certificate.cert.display(),
                        name = certificate.subject,
                        days_left = left.as_secs() / DAY.as_secs(),
                        "certificate ends soon"
                    );
                }
            }
        }
    }
}

/// Time left of a certificate that expires soon; zero when it has expired.
pub(in crate::server) fn ends_soon(
    certificate: &CertificateFacts,
    now: SystemTime,
) -> Option<Duration> {
    let end = certificate.not_after;
    let life = end.duration_since(certificate.not_before);
    let least = WARN_BEFORE.min(life.unwrap_or_default() / WARN_PART);
    let left = end.duration_since(now).unwrap_or_default();
    (left <= least).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

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

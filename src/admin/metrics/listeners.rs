//! Metrics of the listeners, their ends and their certificates.

use std::fmt;

use prometheus_client::registry::Unit;

use super::CertificateEnd;
use super::page::{Labels, Page, epoch_seconds};
use crate::admin::view::ListenerView;

pub(super) fn encode(
    all: &[ListenerView],
    certificates: &[CertificateEnd],
    page: &mut Page<'_>,
) -> fmt::Result {
    let rows = |value: fn(&ListenerView) -> u64| {
        all.iter()
            .map(move |one| (listener_labels(one), value(one)))
    };
    page.gauge(
        "listener_listening",
        "1 while it accepts",
        None,
        rows(|l| u64::from(l.state == "listening")),
    )?;
    page.gauge(
        "listener_live_connections",
        "Connections and requests in progress",
        None,
        rows(|l| l.live),
    )?;
    page.counter(
        "listener_accepted_connections",
        "Connections accepted",
        None,
        rows(|l| l.accepted),
    )?;
    let help = "Connections closed at once by a limit or a rule";
    page.counter(
        "listener_refused_connections",
        help,
        None,
        rows(|l| l.refused),
    )?;
    let help = "TLS handshakes that failed";
    page.counter(
        "listener_handshake_failures",
        help,
        None,
        rows(|l| l.handshake_failures),
    )?;
    page.counter(
        "listener_requests",
        "HTTP requests answered",
        None,
        rows(|l| l.requests),
    )?;
    page.counter(
        "listener_upgrades",
        "WebSocket upgrades",
        None,
        rows(|l| l.upgrades),
    )?;
    page.counter(
        "listener_lost_frames",
        "WebSockets whose frames broke the protocol and are not followed any more",
        None,
        rows(|l| l.lost_frames),
    )?;
    page.counter(
        "listener_without_close",
        "WebSockets ended here without a Close frame, as none of their frames ended in time",
        None,
        rows(|l| l.without_close),
    )?;
    let bytes = || Some(Unit::Bytes);
    page.counter(
        "listener_from_client",
        "From clients",
        bytes(),
        rows(|l| l.bytes_from_client),
    )?;
    page.counter(
        "listener_from_backend",
        "From backends",
        bytes(),
        rows(|l| l.bytes_from_backend),
    )?;
    let ends = all.iter().flat_map(|listener| {
        listener.ends.iter().map(|end| {
            let (side, phase, how) = (end.side.as_str(), end.phase.as_str(), end.how.as_str());
            (
                vec![
                    ("listener", listener.name.as_str()),
                    ("side", side),
                    ("phase", phase),
                    ("how", how),
                ],
                end.count,
            )
        })
    });
    page.counter(
        "listener_ends",
        "Connections and requests by end",
        None,
        ends,
    )?;
    let expiries = certificates.iter().map(|one| {
        let labels = vec![
            ("listener", one.listener.as_str()),
            ("cert", one.cert.as_str()),
        ];
        (labels, epoch_seconds(one.not_after))
    });
    let help = "End of a certificate's validity, since the epoch";
    page.gauge(
        "certificate_expiry_timestamp",
        help,
        Some(Unit::Seconds),
        expiries,
    )
}

fn listener_labels(listener: &ListenerView) -> Labels<'_> {
    vec![("listener", listener.name.as_str())]
}

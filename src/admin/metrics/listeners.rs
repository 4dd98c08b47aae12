//! Metrics of the listeners and their ends.

use std::fmt;

use prometheus_client::registry::Unit;

use super::page::{Labels, MetricsPage};
use crate::admin::view::ListenerView;

pub(super) fn encode(all: &[ListenerView], page: &mut MetricsPage<'_>) -> fmt::Result {
    let rows = |value: fn(&ListenerView) -> u64| {
        all.iter()
            .map(move |one| (listener_labels(one), value(one)))
    };
    page.gauge(
        "listener_listening",
        "1 while it takes clients: 0 when it drains or has stopped",
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
    let refused = all.iter().flat_map(|listener| {
        listener.refusals.iter().map(|one| {
            let reason = ("reason", one.reason.as_str());
            (
                vec![("listener", listener.name.as_str()), reason],
                one.count,
            )
        })
    });
    let help = "Connections and requests that were turned away";
    page.counter("listener_refused_connections", help, None, refused)?;
    let help = "Connections let in without limits of their source, whose table was full";
    page.counter(
        "listener_untracked_connections",
        help,
        None,
        rows(|l| l.untracked),
    )?;
    let help = "TLS handshakes that failed";
    page.counter(
        "listener_handshake_failures",
        help,
        None,
        rows(|l| l.handshake_failures),
    )?;
    let handshakes = all.iter().flat_map(|listener| {
        let kinds = [
            ("full", listener.full_handshakes),
            ("resumed", listener.resumed_handshakes),
        ];
        kinds.map(|(kind, count)| {
            let labels = vec![("listener", listener.name.as_str()), ("kind", kind)];
            (labels, count)
        })
    });
    let help = "TLS handshakes that succeeded: full ones, and those resumed by a ticket";
    page.counter("listener_handshakes", help, None, handshakes)?;
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
    )
}

fn listener_labels(listener: &ListenerView) -> Labels<'_> {
    vec![("listener", listener.name.as_str())]
}

//! Tables of `evenkeel status`.

use std::time::SystemTime;

use super::ask::connections;
use super::jobs;
use super::layout::{Cell, Style, clean, layout, span};
use crate::admin::view::{
    BackendView, DiscoveryView, ListenerView, PoolView, ProcessView, StatusView,
};
use crate::base::units::readable_size;

/// Writes the whole status, ending with a line end.
pub(super) fn status(status: &StatusView, style: Style) -> String {
    let mut text = heading(status);
    text.push_str("\nlisteners\n");
    text.push_str(&listeners(&status.listeners, style));
    text.push_str(&certificates(&status.listeners, style));
    if !status.jobs.is_empty() {
        text.push_str("\njobs\n");
        text.push_str(&jobs::table(&status.jobs, style));
    }
    for one in &status.pools {
        text.push('\n');
        text.push_str(&pool(one, style));
    }
    text
}

/// Writes one pool, ending with a line end.
pub(super) fn pool(pool: &PoolView, style: Style) -> String {
    pool_heading(pool) + &backends(&pool.backends, style)
}

/// Writes the pools that have backends here, which are not up.
pub(super) fn pools_down(pools: &[PoolView], style: Style) -> String {
    let with_some = pools.iter().filter(|pool| !pool.backends.is_empty());
    let tables: Vec<String> = with_some.map(|one| pool(one, style)).collect();
    if tables.is_empty() {
        "every backend is up\n".to_owned()
    } else {
        tables.join("\n")
    }
}

/// Writes what an upgrade has left, or why the latest one failed.
fn upgrade(status: &StatusView) -> String {
    let mut text = String::new();
    if let Some(old) = &status.upgrade.predecessor {
        text.push_str(&format!(
            "process {} before this one, version {}, still has {}\n",
            old.process,
            clean(&old.version),
            connections(old.connections)
        ));
    }
    if !status.upgrade.last_error.is_empty() {
        text.push_str("the latest upgrade failed:\n");
        let reasons = status.upgrade.last_error.iter();
        reasons.for_each(|why| text.push_str(&format!("  {}\n", clean(why))));
    }
    text
}

fn heading(status: &StatusView) -> String {
    let StatusView {
        version,
        process,
        configuration,
        ..
    } = status;
    let up = span(process.uptime_seconds);
    let state = match (process.ready, process.short_of_memory) {
        (false, _) if process.about_to_stop => "about to stop and still accepting",
        (false, _) => "stopping",
        (true, true) => "not ready",
        (true, false) => "ready",
    };
    let (open, most) = (process.gauges.connections, process.gauges.max_connections);
    let mut text = format!(
        "evenkeel {version}, process {}, up {up}, {state}, {open} of {most} connections\n{}, reloads {} ok, {} refused\n",
        process.id,
        clean(&configuration.file),
        configuration.reloads_ok,
        configuration.reloads_failed
    );
    text.push_str(&shortage(process));
    if let Some(error) = &configuration.last_error {
        text.push_str("the latest reload was refused:\n");
        error
            .lines()
            .for_each(|line| text.push_str(&format!("  {}\n", clean(line))));
    }
    text.push_str(&upgrade(status));
    if let Some(cluster) = &status.cluster {
        text.push_str(&super::cluster::describe(cluster));
    }
    if status.access_log.dropped > 0 {
        text.push_str(&format!(
            "access log: {} lines lost\n",
            status.access_log.dropped
        ));
    }
    if status.traces.dropped > 0 {
        text.push_str(&format!("traces: {} spans lost\n", status.traces.dropped));
    }
    if status.log.dropped > 0 {
        text.push_str(&format!("log: {} lines lost\n", status.log.dropped));
    }
    text
}

/// Says why the process refuses connections.
fn shortage(process: &ProcessView) -> String {
    if !process.short_of_memory {
        return String::new();
    }
    let used = process
        .anonymous_bytes
        .map_or("all".to_owned(), readable_size);
    let most = readable_size(process.gauges.max_memory);
    format!("new connections are refused: memory {used} of {most}, max_memory\n")
}

fn listeners(listeners: &[ListenerView], style: Style) -> String {
    let head = [
        "NAME", "BIND", "PROTOCOL", "STATE", "LIVE", "ACCEPTED", "REFUSED",
    ];
    let rows = listeners.iter().map(|listener| {
        vec![
            Cell::text(&listener.name),
            Cell::text(&listener.bind),
            Cell::text(&listener.protocol),
            Cell::state(&listener.state),
            Cell::number(listener.counters.live),
            Cell::number(listener.counters.accepted),
            Cell::amount(refused(listener)),
        ]
    });
    layout(&head, rows.collect(), style)
}

/// Writes how many were refused, and the main reason.
fn refused(listener: &ListenerView) -> String {
    let total = listener.refused;
    let reasons = listener.refusals.iter().filter(|one| one.count > 0);
    // The first of those that are as many.
    let top = reasons.rev().max_by_key(|one| one.count);
    match top {
        None => total.to_string(),
        Some(top) if top.count >= total => format!("{total} ({})", clean(&top.reason)),
        Some(top) => format!("{total} (mostly {})", clean(&top.reason)),
    }
}

/// Writes the certificates; nothing where TLS is not terminated.
fn certificates(listeners: &[ListenerView], style: Style) -> String {
    let head = ["LISTENER", "NAME", "ENDS", "DAYS", "FILE"];
    let rows = listeners.iter().flat_map(|listener| {
        listener.certificates.iter().map(|certificate| {
            vec![
                Cell::text(&listener.name),
                Cell::text(&certificate.name),
                Cell::text(certificate.not_after.split('T').next().unwrap_or_default()),
                Cell::amount(certificate.days_left.to_string()),
                Cell::text(&certificate.cert),
            ]
        })
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!("\ncertificates\n{}", layout(&head, rows, style));
    for listener in listeners {
        let errors = listener.certificate_error.iter();
        for error in errors.flat_map(|error| error.lines()) {
            let (name, error) = (clean(&listener.name), clean(error));
            text.push_str(&format!("  {name}: {error}; the last good one serves\n"));
        }
    }
    text
}

fn pool_heading(pool: &PoolView) -> String {
    let removed = if pool.removed { ", removed" } else { "" };
    let queued = match pool.queued {
        0 => String::new(),
        queued => format!(", {queued} queued"),
    };
    let mut text = format!(
        "pool {} ({}{removed}{queued})\n",
        clean(&pool.name),
        pool.balance
    );
    if let Some(why) = &pool.panic {
        text.push_str(&format!("  panic mode: {}\n", clean(why)));
    }
    for file in &pool.file_errors {
        let (kind, errors) = (clean(&file.kind), file.error.lines());
        for error in errors.map(clean) {
            text.push_str(&format!(
                "  {kind} files: {error}; the last good one serves\n"
            ));
        }
    }
    if let Some(set) = &pool.discovery {
        text.push_str(&discovery(set));
    }
    for lookup in &pool.failing_lookups {
        text.push_str(&format!(
            "  lookup of {}: {}\n",
            clean(&lookup.name),
            clean(&lookup.error)
        ));
    }
    text
}

/// What is special about a discovered set; nothing while it is as it should be.
fn discovery(set: &DiscoveryView) -> String {
    let source = clean(&set.source);
    let mut text = String::new();
    match (set.state.as_str(), set.held) {
        ("held", Some(left)) => text.push_str(&format!(
            "  discovery by {source}: an answer with {left} of {} backends is held until it is confirmed\n",
            set.ready + set.drain
        )),
        ("waiting", _) => text.push_str(&format!("  discovery by {source}: no answer yet\n")),
        ("stale", _) => text.push_str(&format!(
            "  discovery by {source}: no answer for {} s, its backends get no new connections\n",
            set.age_seconds.unwrap_or_default()
        )),
        _ => {}
    }
    if let Some(first) = &set.first_skipped {
        let (skipped, first) = (set.skipped, clean(first));
        text.push_str(&format!(
            "  discovery by {source}: {skipped} bad entries, such as {first}\n"
        ));
    }
    text
}

fn backends(backends: &[BackendView], style: Style) -> String {
    let head = [
        "BACKEND", "ADDRESS", "STATE", "SINCE", "CHECK", "WEIGHT", "LIVE", "TOTAL", "FAILED",
        "REASON",
    ];
    let rows = backends.iter().map(|backend| {
        vec![
            Cell::text(&backend.name),
            Cell::text(&backend.address),
            Cell::state(&backend.state),
            Cell::text(&ago(&backend.since)),
            Cell::state(&backend.check),
            Cell::number(backend.weight.into()),
            Cell::number(backend.live),
            Cell::number(backend.counters.connections),
            Cell::number(backend.counters.connect_failures),
            Cell::text(&remarks(backend)),
        ]
    });
    layout(&head, rows.collect(), style)
}

/// Writes the reason of the state, and what is special about the backend.
fn remarks(backend: &BackendView) -> String {
    let special = [(backend.backup, "backup"), (backend.removed, "removed")];
    let special = special
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, word)| word.to_owned());
    let reason = Some(backend.reason.clone()).filter(|reason| !reason.is_empty());
    special.chain(reason).collect::<Vec<_>>().join(", ")
}

/// Writes the time since an RFC 3339 stamp.
fn ago(stamp: &str) -> String {
    let Ok(then) = humantime::parse_rfc3339(stamp) else {
        return "-".to_owned();
    };
    let elapsed = SystemTime::now().duration_since(then);
    span(elapsed.unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_that_cannot_be_read_has_no_age() {
        assert_eq!(ago("never"), "-");
    }
}

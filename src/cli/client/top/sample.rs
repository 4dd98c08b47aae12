//! A status for the tests.

use serde_json::{Value, json};

use crate::admin::view::StatusView;

/// Two pools, of which one is lopsided; two listeners; one job.
pub(super) fn status() -> StatusView {
    serde_json::from_value(json!({
        "version": "1.2.3",
        "process": {
            "id": 7, "ready": true, "started_at": "2026-01-01T00:00:00Z", "uptime_seconds": 7_300,
            "open_fds": 9, "max_fds": 99, "connections": 163, "setup_connections": 2,
            "max_connections": 100_000, "anonymous_bytes": null
        },
        "configuration": {
            "file": "balancer.toml", "reloads_ok": 0, "reloads_failed": 0,
            "last_reload_at": null, "last_error": null
        },
        "access_log": { "dropped": 0 },
        "listeners": [
            listener("public", 150, &json!([{ "reason": "denied", "count": 4 }])),
            listener("internal", 13, &json!([]))
        ],
        "pools": [
            pool("chat", &json!([
                backend("chat", "n1", "up", 120, ""),
                backend("chat", "n2", "down", 3, "refused by 10.0.0.2:80")
            ])),
            pool("web", &json!([backend("web", "w1", "up", 40, "")]))
        ],
        "jobs": [{
            "id": 3, "by": "operator", "target": "chat/n2", "phase": "ending", "moves": false,
            "ended": 10, "left": 3, "left_seconds": 5, "pace": "1/s", "code": 1012,
            "started_at": "2026-01-01T00:00:00Z"
        }]
    }))
    .unwrap()
}

fn listener(name: &str, live: u64, refusals: &Value) -> Value {
    let refused: u64 = refusals[0]["count"].as_u64().unwrap_or_default();
    json!({
        "name": name, "bind": "0.0.0.0:80", "protocol": "websocket", "state": "listening",
        "live": live, "accepted": 1_000, "requests": 900, "refused": refused,
        "refusals": refusals, "ends": [], "certificates": [], "certificate_error": null
    })
}

fn pool(name: &str, backends: &Value) -> Value {
    json!({
        "name": name, "balance": "least_conn", "removed": false, "queued": 0, "panic": null,
        "ended_by_health": 0, "failing_lookups": [], "backends": backends
    })
}

fn backend(pool: &str, name: &str, state: &str, live: u64, reason: &str) -> Value {
    json!({
        "pool": pool, "name": name, "address": "10.0.0.1:80", "endpoint": null, "state": state,
        "reason": reason, "since": "2026-01-01T00:00:00Z", "operator": "ready", "check": state,
        "weight": 1, "backup": false, "max_connections": 0, "removed": false, "live": live,
        "connections": 1_000, "last_error": null, "last_error_at": null
    })
}

//! The pool as its users see it. Time is tokio's paused clock; nothing sleeps to wait for
//! something.

mod affinity;
mod all_down;
mod choosing;
mod cluster;
mod probing;
mod queueing;
mod relieving;
mod reloading;
mod states;
mod sticky;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::clock::clock;
use super::{AcquireError, Backend, BackendRequest, Lease, Pool};
use crate::config::{self, Address, Balance, InitState, Outlier};

pub(super) fn node(name: &str) -> config::Backend {
    config::Backend {
        name: name.to_owned(),
        address: Address::Tcp("127.0.0.1:9501".parse().unwrap()),
        weight: 1,
        max_connections: 0,
        backup: false,
        init_state: InitState::Up,
        host: None,
    }
}

pub(super) fn nodes(names: &[&str]) -> Vec<config::Backend> {
    names.iter().map(|name| node(name)).collect()
}

pub(super) fn settings(balance: Balance, backends: Vec<config::Backend>) -> config::Pool {
    config::Pool {
        send_proxy: None,
        dial: config::Dial::default(),
        name: "chat".to_owned(),
        balance,
        backends,
        discover: None,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(3600),
        fin_timeout: Duration::from_secs(30),
        max_lifetime: None,
        activity: config::Activity::Any,
        ping: None,
        drain: None,
        rebalance: None,
        resume: None,
        name_header: None,
        response_timeout: Duration::from_secs(60),
        body_timeout: Duration::from_secs(60),
        http: config::Http::default(),
        retries: 3,
        retry_on: config::RetryOn::default(),
        max_queue: 0,
        queue_timeout: Duration::from_secs(5),
        slow_start: Duration::ZERO,
        when_all_down: config::WhenAllDown::Refuse,
        outlier: Outlier {
            connect_failures: 3,
            window: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(300),
        },
        failover: config::Failover {
            on_down: config::OnDown::Keep,
            grace: Duration::from_secs(30),
            on_up: config::OnUp::Keep,
            max_close_rate: 25,
        },
        tls: None,
        sticky: None,
        affinity: None,
        retry_after: config::RetryAfter {
            min: Duration::from_secs(1),
            max: Duration::from_secs(10),
        },
        check: None,
    }
}

pub(super) fn check() -> config::Check {
    config::Check {
        send_proxy: None,
        kind: config::CheckKind::Tcp,
        interval: Duration::from_secs(2),
        down_interval: Duration::from_secs(2),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        jitter_percent: 10,
        port: None,
        address: None,
        tls: crate::config::CheckTls::Plain,
    }
}

/// A node per limit, and a queue.
pub(super) fn limited(limits: &[u64], max_queue: usize) -> config::Pool {
    let mut backends = Vec::new();
    for (n, limit) in limits.iter().enumerate() {
        backends.push(config::Backend {
            max_connections: *limit,
            ..node(&format!("n{}", n + 1))
        });
    }
    config::Pool {
        max_queue,
        ..settings(Balance::LeastConn, backends)
    }
}

/// An answer that must come without waiting.
pub(super) fn take(pool: &Pool) -> Result<Lease, AcquireError> {
    take_for(pool, &BackendRequest::default())
}

pub(super) fn take_for(pool: &Pool, pick: &BackendRequest<'_>) -> Result<Lease, AcquireError> {
    pool.acquire(pick).now_or_never().expect("it waited")
}

pub(super) fn name(lease: &Lease) -> String {
    lease.backend().name().to_string()
}

pub(super) fn names(pool: &Pool, picks: usize) -> Vec<String> {
    (0..picks).map(|_| name(&take(pool).unwrap())).collect()
}

pub(super) fn backend(pool: &Pool, name: &str) -> Arc<Backend> {
    pool.backend(name).unwrap()
}

pub(super) fn fail(backend: &Backend, times: usize) {
    for _ in 0..times {
        backend.connect_failed(clock(), "connection refused");
    }
}

pub(super) fn client(n: u8) -> BackendRequest<'static> {
    BackendRequest {
        client: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))),
        ..BackendRequest::default()
    }
}

/// Polls `waiting` once, so that it has joined the queue.
pub(super) fn joined<F: Future<Output = Result<Lease, AcquireError>>>(
    waiting: std::pin::Pin<&mut F>,
) {
    assert!(waiting.now_or_never().is_none(), "it did not wait");
}

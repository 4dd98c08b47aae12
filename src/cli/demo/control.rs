//! What the page shows of the nodes, and what its buttons do: drain a node slowly, kill it, bring
//! it back.
//!
//! A server of its own, behind the balancer in the pool `control`: the page reaches it under its
//! own address, with or without TLS, and no node has to be alive for it.
//!
//! | request | does |
//! |---|---|
//! | `GET /demo/nodes` | lists the nodes |
//! | `POST /demo/NODE/drain` | moves the node's sessions away, at [`DRAIN_RATE`] |
//! | `POST /demo/NODE/kill` | ends the node, as a process that dies |
//! | `POST /demo/NODE/back` | starts a dead node, and makes the node ready |

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::listen::{accept, reply, serve_http};
use super::node::Node;
use crate::base::rate::Rate;
use crate::config::{Close, Drain, defaults};
use crate::pool::{Backend, OperatorState};
use crate::server::Server;
use crate::server::jobs::{DrainRate, JobRequest, JobTarget};

/// Pool of the page's sockets.
const POOL: &str = "chat";

/// Pace of "drain slowly": slow enough that each socket is seen to move.
const DRAIN_RATE: Rate = Rate::per_second(3);

/// Type that a browser sends to another site only with that site's consent, which this server never
/// gives: a page of somebody else cannot press these buttons.
const JSON: &str = "application/json";

/// Listening socket of the control, before there is a balancer.
pub(super) struct ControlListener {
    listener: TcpListener,
    pub address: SocketAddr,
}

/// Running control. Dropped, it stops accepting, and its nodes are killed.
pub(super) struct Control {
    _accepting: AbortOnDropHandle<()>,
}

/// What the requests work on.
struct Cluster {
    nodes: Vec<Node>,
    server: Arc<Server>,
}

#[derive(Serialize)]
struct NodesView {
    nodes: Vec<NodeView>,
}

#[derive(Serialize)]
struct NodeView {
    name: String,
    alive: bool,
    /// State in the balancer.
    state: &'static str,
    /// Live connections through the balancer.
    sessions: u64,
}

impl ControlListener {
    /// # Errors
    /// No port could be bound.
    pub(super) async fn bind() -> io::Result<ControlListener> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(ControlListener { listener, address })
    }

    pub(super) fn serve(self, nodes: Vec<Node>, server: Arc<Server>) -> Control {
        let cluster = Arc::new(Cluster { nodes, server });
        let accepting = accept(self.listener, move |stream| {
            let cluster = Arc::clone(&cluster);
            serve_http(stream, move |request| answer(Arc::clone(&cluster), request))
        });
        Control {
            _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)),
        }
    }
}

async fn answer(cluster: Arc<Cluster>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().strip_prefix("/demo/");
    let path = path.unwrap_or_default();
    if request.method() == Method::GET && path == "nodes" {
        return cluster.list().await;
    }
    let Some((name, action)) = path.split_once('/') else {
        return refuse(StatusCode::NOT_FOUND, "not found");
    };
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "POST it");
    }
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != JSON) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "it must be JSON");
    }
    cluster.act(name, action).await
}

fn refuse(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    reply(status, "text/plain", format!("{why}\n"))
}

impl Cluster {
    async fn act(&self, name: &str, action: &str) -> Response<Full<Bytes>> {
        let node = self.nodes.iter().find(|node| *node.name == *name);
        let (Some(node), Some(backend)) = (node, self.backend(name)) else {
            return refuse(StatusCode::NOT_FOUND, "no such node");
        };
        match action {
            "drain" => {
                self.server.set_operator(&backend, OperatorState::Drain);
                let request = JobRequest::drain(JobTarget::Backend(backend), slowly());
                if let Err(error) = self.server.jobs().start(request) {
                    return refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
                }
            }
            "kill" => node.kill().await,
            "back" => {
                if let Err(error) = node.revive().await {
                    let why = format!("start {name}: {error}");
                    return refuse(StatusCode::SERVICE_UNAVAILABLE, &why);
                }
                self.server.set_operator(&backend, OperatorState::Ready);
            }
            _ => return refuse(StatusCode::NOT_FOUND, "not found"),
        }
        self.list().await
    }

    /// Backend of a node; `None` where somebody has taken it out of the demo's file.
    fn backend(&self, name: &str) -> Option<Arc<Backend>> {
        self.server.pool(POOL)?.backend(name)
    }

    async fn list(&self) -> Response<Full<Bytes>> {
        let now = Instant::now();
        let mut nodes = Vec::new();
        for node in &self.nodes {
            let backend = self.backend(&node.name);
            nodes.push(NodeView {
                name: node.name.to_string(),
                alive: node.is_alive().await,
                state: backend
                    .as_ref()
                    .map_or("removed", |backend| backend.state(now).as_str()),
                sessions: backend.map_or(0, |backend| backend.live()),
            });
        }
        match serde_json::to_string(&NodesView { nodes }) {
            Ok(body) => reply(StatusCode::OK, JSON, body),
            Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

fn slowly() -> DrainRate {
    DrainRate::from(&Drain {
        rate: Some(DRAIN_RATE),
        deadline: None,
        after: Duration::ZERO,
        close: Close {
            code: defaults::CLOSE_CODE as u16,
            reason: String::new(),
        },
    })
}

//! Stand-ins for registries over HTTP, written from their documents: one list of backends, in the form of each.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::nodes::{Node, read_request};

/// A backend as a test registers it.
#[derive(Debug, Clone)]
pub struct Registered {
    pub name: String,
    pub address: SocketAddr,
    pub weight: u16,
    pub drained: bool,
}

pub fn registered(name: &str, node: &Node) -> Registered {
    Registered {
        name: name.to_owned(),
        address: node.address,
        weight: 1,
        drained: false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    List,
    Consul,
    Eureka,
    Nacos,
    Kubernetes,
}

impl Kind {
    /// The body for these backends.
    pub fn body(self, all: &[Registered]) -> Value {
        let entries = all.iter().map(|one| self.entry(one));
        let entries: Vec<Value> = entries.collect();
        match self {
            Kind::List => json!({ "backends": entries }),
            Kind::Consul => entries.into(),
            Kind::Eureka => json!({ "application": { "name": "CHAT", "instance": entries } }),
            Kind::Nacos => json!({ "hosts": entries, "cacheMillis": 1000 }),
            Kind::Kubernetes => json!({ "metadata": { "resourceVersion": "1" }, "items": entries }),
        }
    }

    fn entry(self, one: &Registered) -> Value {
        let (ip, port) = (one.address.ip().to_string(), one.address.port());
        match self {
            Kind::List => json!({
                "name": one.name, "address": one.address, "weight": one.weight,
                "state": if one.drained { "drain" } else { "ready" },
            }),
            Kind::Consul => json!({
                "Node": { "Node": "m", "Address": "10.0.0.1" },
                "Service": { "ID": one.name, "Address": ip, "Port": port, "Weights": { "Passing": one.weight, "Warning": 1 } },
                "Checks": if one.drained {
                    json!([{ "CheckID": format!("_service_maintenance:{}", one.name), "Status": "critical" }])
                } else {
                    json!([{ "CheckID": "serfHealth", "Status": "passing" }])
                },
            }),
            Kind::Eureka => json!({
                "instanceId": one.name, "ipAddr": ip, "port": { "$": port, "@enabled": "true" },
                "status": if one.drained { "OUT_OF_SERVICE" } else { "UP" },
                "metadata": { "weight": one.weight.to_string() },
            }),
            Kind::Nacos => json!({
                "ip": ip, "port": port, "healthy": true, "enabled": true,
                "weight": if one.drained { 0.0 } else { f64::from(one.weight) },
            }),
            // A slice has one port for all: here each has a slice of its own.
            Kind::Kubernetes => json!({
                "metadata": { "name": format!("chat-{}", one.name), "resourceVersion": "1" },
                "ports": [{ "name": "ws", "port": port, "protocol": "TCP" }],
                "endpoints": [{
                    "addresses": [ip], "targetRef": { "kind": "Pod", "name": one.name },
                    "conditions": { "ready": !one.drained, "serving": true, "terminating": one.drained },
                }],
            }),
        }
    }

    /// Whether instances have weights.
    pub fn weighs(self) -> bool {
        self != Kind::Kubernetes
    }

    /// An entry that no balancer can use.
    pub fn junk(self) -> Value {
        match self {
            Kind::List => json!(7),
            Kind::Consul => json!({ "Service": { "ID": "junk" } }),
            Kind::Eureka => json!({ "instanceId": "junk", "status": "UP" }),
            Kind::Nacos => json!({ "ip": "0.0.0.0", "port": 0 }),
            Kind::Kubernetes => json!({
                "metadata": { "name": "junk", "resourceVersion": "1" },
                "ports": [{ "name": "ws", "port": 1 }], "endpoints": [{}],
            }),
        }
    }

    /// Adds an entry to a body.
    pub fn with(self, mut body: Value, entry: Value) -> Value {
        let list = match self {
            Kind::List => &mut body["backends"],
            Kind::Consul => &mut body,
            Kind::Eureka => &mut body["application"]["instance"],
            Kind::Nacos => &mut body["hosts"],
            Kind::Kubernetes => &mut body["items"],
        };
        list.as_array_mut().expect("a list").push(entry);
        body
    }

    /// The name that a backend gets.
    pub fn name(self, one: &Registered) -> String {
        match self {
            Kind::Nacos => one.address.to_string(),
            Kind::Consul => format!("m/{}", one.name),
            _ => one.name.clone(),
        }
    }

    /// The keys of `discover` for a registry at this address.
    pub fn keys(self, at: SocketAddr) -> String {
        match self {
            Kind::List => format!("http = \"http://{at}/list\", interval = \"100ms\""),
            Kind::Consul => format!("consul = \"http://{at}\", service = \"chat\""),
            Kind::Eureka => {
                format!(
                    "eureka = [\"http://{at}/eureka\"], service = \"CHAT\", interval = \"100ms\""
                )
            }
            Kind::Kubernetes => {
                format!("kubernetes = \"http://{at}\", service = \"chat\", port_name = \"ws\"")
            }
            Kind::Nacos => {
                format!("nacos = [\"http://{at}\"], service = \"chat\", interval = \"100ms\"")
            }
        }
    }
}

/// What a stand-in says to each request.
#[derive(Debug, Clone)]
pub enum Says {
    Body(String),
    Status(u16),
    /// Half of the body that it announces.
    Cut(String),
    Redirect(SocketAddr),
    /// Nothing.
    Frozen,
}

/// A registry in this process.
pub struct StandIn {
    pub address: SocketAddr,
    says: watch::Sender<(u64, Says)>,
    token: watch::Sender<Option<String>>,
    asked: watch::Receiver<usize>,
    _node: Node,
}

impl StandIn {
    pub async fn start(says: Says) -> StandIn {
        let (says, said) = watch::channel((1, says));
        let (token, wanted) = watch::channel(None);
        let (count, asked) = watch::channel(0);
        let count = Arc::new(count);
        let node = Node::scripted(move |stream, _| {
            serve(stream, said.clone(), wanted.clone(), count.clone())
        })
        .await;
        StandIn {
            address: node.address,
            says,
            token,
            asked,
            _node: node,
        }
    }

    pub fn say(&self, says: Says) {
        self.says.send_modify(|(index, said)| {
            *index += 1;
            *said = says;
        });
    }

    /// From now on only this token is let in.
    pub fn want_token(&self, token: &str) {
        self.token.send_replace(Some(token.to_owned()));
    }

    /// How many requests there were.
    pub fn asked(&self) -> usize {
        *self.asked.borrow()
    }
}

async fn serve(
    mut stream: TcpStream,
    mut said: watch::Receiver<(u64, Says)>,
    wanted: watch::Receiver<Option<String>>,
    count: Arc<watch::Sender<usize>>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        count.send_modify(|count| *count += 1);
        if request.target.contains("watch=1") {
            return watch_slices(stream, said, &request.target).await;
        }
        let index = request.target.split("index=").nth(1);
        let index = index.and_then(|rest| rest.split('&').next()?.parse::<u64>().ok());
        // A blocking query.
        if said
            .wait_for(|(present, _)| Some(*present) != index)
            .await
            .is_err()
        {
            return;
        }
        let (index, says) = said.borrow().clone();
        let says = match says {
            Says::Body(body) if request.target.contains("/endpointslices") => {
                Says::Body(at_version(&body, index))
            }
            other => other,
        };
        let token = wanted.borrow().clone();
        let is_let_in = token.is_none_or(|token| request.head.contains(&token));
        let head = |status: u16, length: usize| {
            format!(
                "HTTP/1.1 {status} X\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\n"
            )
        };
        let answer = match says {
            _ if !is_let_in => head(403, 0) + "\r\n",
            Says::Body(body) => head(200, body.len()) + "\r\n" + &body,
            Says::Status(status) => head(status, 4) + "\r\noops",
            Says::Cut(body) => head(200, body.len()) + "\r\n" + &body[..body.len() / 2],
            Says::Redirect(to) => head(302, 0) + &format!("Location: http://{to}/\r\n\r\n"),
            Says::Frozen => {
                std::future::pending::<()>().await;
                return;
            }
        };
        let sent = stream.write_all(answer.as_bytes()).await;
        // One that is cut ends with the connection.
        if sent.is_err() || answer.len() < announced(&answer) {
            return;
        }
    }
}

/// The length that an answer announces for itself.
fn announced(answer: &str) -> usize {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    let length = head.split("Content-Length: ").nth(1).expect("a length");
    let length = length.split("\r\n").next().expect("a line");
    head.len() + 4 + length.parse::<usize>().expect("a number")
}

/// A watch of Kubernetes: an event for each slice that has changed, until something is no list of slices any more.
/// One from another version than the present one is too old.
async fn watch_slices(mut stream: TcpStream, mut said: watch::Receiver<(u64, Says)>, target: &str) {
    let slices = |said: &watch::Receiver<(u64, Says)>| -> Option<Vec<Value>> {
        let Says::Body(body) = &said.borrow().1 else {
            return None;
        };
        let body: Value = serde_json::from_str(body).ok()?;
        body["items"].as_array().cloned()
    };
    let present = said.borrow_and_update().0;
    let mut before = slices(&said).unwrap_or_default();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let mut lines = head.to_owned();
    if !target.contains(&format!("resourceVersion={present}&")) {
        let status =
            json!({ "kind": "Status", "code": 410, "message": "too old resource version" });
        lines.push_str(&json!({ "type": "ERROR", "object": status }).to_string());
        lines.push('\n');
        let _ = stream.write_all(lines.as_bytes()).await;
        return;
    }
    loop {
        if stream.write_all(lines.as_bytes()).await.is_err() || said.changed().await.is_err() {
            return;
        }
        let Some(now) = slices(&said) else { return };
        let name = |slice: &Value| slice["metadata"]["name"].clone();
        let gone = before
            .iter()
            .filter(|old| !now.iter().any(|new| name(new) == name(old)));
        let gone = gone.map(|old| json!({ "type": "DELETED", "object": old }));
        let changed = now.iter().filter(|new| !before.contains(new));
        let changed = changed.map(|new| json!({ "type": "MODIFIED", "object": new }));
        lines = gone
            .chain(changed)
            .map(|event| format!("{event}\n"))
            .collect();
        before = now;
    }
}

/// GatewayWorker's Register: tells its addresses to each worker with the right secret, and again when they change.
pub async fn register(addresses: watch::Receiver<Vec<String>>, secret: &str) -> Node {
    let secret = secret.to_owned();
    Node::scripted(move |mut stream, _| {
        let (mut addresses, secret) = (addresses.clone(), secret.clone());
        async move {
            let Ok(hello) = crate::clients::read_line(&mut stream).await else {
                return;
            };
            let hello: Value = serde_json::from_str(&hello).expect("JSON");
            if hello["event"] != "worker_connect" || hello["secret_key"] != secret {
                return;
            }
            loop {
                let told = addresses.borrow_and_update().clone();
                let line = json!({ "event": "broadcast_addresses", "addresses": told });
                let line = format!("{line}\n");
                if stream.write_all(line.as_bytes()).await.is_err()
                    || addresses.changed().await.is_err()
                {
                    return;
                }
            }
        }
    })
    .await
}

/// A list of slices with this version.
fn at_version(body: &str, version: u64) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(body) else {
        return body.to_owned();
    };
    if value["items"].is_array() {
        value["metadata"]["resourceVersion"] = version.to_string().into();
    }
    value.to_string()
}

//! Real registries, where they are installed: Consul, etcd, Redis and ZooKeeper through registrations, drains, and losses of the
//! server and of its data. Without them each test says that it was skipped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::clients::echoed;
use crate::discovery::{discovering, pool_until, session_on};
use crate::dns::until_served_by;
use crate::harness::{Answer, Balancer, a_moment, raw_request, within};
use crate::nodes::Node;
use crate::zookeeper_writer;

/// The server of ZooKeeper, as Debian has it.
const ZOOKEEPER: &str = "/usr/share/java/zookeeper.jar";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Consul,
    Etcd,
    Redis,
    ZooKeeper,
}

/// A registry of the machine; it ends with the test.
struct Registry {
    kind: Kind,
    program: PathBuf,
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the system, or one that `.ci/run` has put below `.peers`.
fn found(program: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".peers/consul/usr/bin");
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let found = folders
        .into_iter()
        .chain([own])
        .map(|folder| folder.join(program));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// A port that was free a moment ago, for programs that cannot say which one they were given.
fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    probe.local_addr().expect("its address").port()
}

impl Registry {
    async fn start(kind: Kind) -> Option<Registry> {
        let program = found(match kind {
            Kind::Consul => "consul",
            Kind::Etcd => "etcd",
            Kind::Redis => "redis-server",
            Kind::ZooKeeper if !Path::new(ZOOKEEPER).exists() => {
                eprintln!("SKIPPED: zookeeper is not installed");
                return None;
            }
            Kind::ZooKeeper => "java",
        })?;
        for _ in 0..5 {
            let (child, folder) = spawn(kind, &program, free_port());
            let (child, port) = child;
            let mut registry = Registry {
                kind,
                program: program.clone(),
                port,
                child,
                _folder: folder,
            };
            if registry.is_up().await {
                return Some(registry);
            }
        }
        panic!("{} does not start", program.display());
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Waits until it answers; false when it has ended: somebody else took its port.
    async fn is_up(&mut self) -> bool {
        let answers = async {
            while !self.answers().await {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return false;
                }
                a_moment().await;
            }
            true
        };
        // Borrowed by the future: the patience of a test.
        tokio::time::timeout(crate::harness::PATIENCE, answers)
            .await
            .expect("the registry to answer")
    }

    async fn answers(&self) -> bool {
        if TcpStream::connect(self.address()).await.is_err() {
            return false;
        }
        match self.kind {
            // The leader alone is too early.
            Kind::Consul => {
                let own = self
                    .ask("GET", "/v1/health/service/consul?passing=1", "")
                    .await;
                own.status == 200 && own.body.contains("\"Node\"")
            }
            Kind::Etcd => self.ask("GET", "/health", "").await.body.contains("true"),
            Kind::Redis => self.redis("PING").await.starts_with("+PONG"),
            // `ruok` is answered before it serves.
            Kind::ZooKeeper => {
                // One that it took before it serves may never be answered.
                let patience = std::time::Duration::from_secs(2);
                let said = tokio::time::timeout(patience, self.say("srvr")).await;
                said.is_ok_and(|said| said.contains("Mode:"))
            }
        }
    }

    /// Kills it and starts it again on the same port, without its data.
    async fn lose_everything(&mut self) {
        self.child.kill().expect("kill the registry");
        self.child.wait().expect("its end");
        let ((child, _), folder) = spawn(self.kind, &self.program, self.port);
        self.child = child;
        self._folder = folder;
        assert!(self.is_up().await, "the registry does not come back");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("send a signal");
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address(),
            body.len()
        );
        raw_request(self.address(), request.as_bytes()).await
    }

    async fn redis(&self, command: &str) -> String {
        self.say(&format!("{command}\r\nQUIT\r\n")).await
    }

    /// Sends this and reads to the end.
    async fn say(&self, words: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(self.address()).await.expect("connect");
            stream.write_all(words.as_bytes()).await.expect("write");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        within("an answer of the registry", asked).await
    }

    /// Registers a backend, or changes it.
    async fn register(&self, name: &str, node: &Node, weight: u16, drained: bool) {
        let address = node.address;
        let state = if drained { "drain" } else { "ready" };
        let value = json!({ "address": address, "weight": weight, "state": state });
        match self.kind {
            Kind::Consul => {
                let service = json!({
                    "ID": name, "Name": "chat", "Address": address.ip(), "Port": address.port(),
                    "Weights": { "Passing": weight, "Warning": 1 },
                });
                let path = "/v1/agent/service/register";
                assert_eq!(
                    self.ask("PUT", path, &service.to_string()).await.status,
                    200
                );
                let path = format!("/v1/agent/service/maintenance/{name}?enable={drained}");
                assert_eq!(self.ask("PUT", &path, "").await.status, 200);
            }
            Kind::Etcd => {
                let key = data_encoding::BASE64.encode(format!("/chat/{name}").as_bytes());
                let value = data_encoding::BASE64.encode(value.to_string().as_bytes());
                let body = json!({ "key": key, "value": value }).to_string();
                let answer = self.ask("POST", "/v3/kv/put", &body).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
            }
            Kind::ZooKeeper => {
                let at = self.address();
                zookeeper_writer::write(at, "/chat", "").await;
                zookeeper_writer::write(at, &format!("/chat/{name}"), &value.to_string()).await;
            }
            Kind::Redis => {
                let value = value.to_string().replace('"', "\\\"");
                self.redis(&format!("HSET chat {name} \"{value}\"")).await;
                self.redis("PUBLISH chat changed").await;
            }
        }
    }

    async fn deregister(&self, name: &str) {
        match self.kind {
            Kind::Consul => {
                let path = format!("/v1/agent/service/deregister/{name}");
                assert_eq!(self.ask("PUT", &path, "").await.status, 200);
            }
            Kind::Etcd => {
                let key = data_encoding::BASE64.encode(format!("/chat/{name}").as_bytes());
                let body = json!({ "key": key }).to_string();
                assert_eq!(
                    self.ask("POST", "/v3/kv/deleterange", &body).await.status,
                    200
                );
            }
            Kind::ZooKeeper => {
                zookeeper_writer::delete(self.address(), &format!("/chat/{name}")).await;
            }
            Kind::Redis => {
                self.redis(&format!("HDEL chat {name}")).await;
                self.redis("PUBLISH chat changed").await;
            }
        }
    }

    /// The name that a backend gets.
    fn name(&self, name: &str) -> String {
        match self.kind {
            Kind::Consul => format!("m/{name}"),
            Kind::Etcd | Kind::Redis | Kind::ZooKeeper => name.to_owned(),
        }
    }

    /// Keys of `discover`.
    fn keys(&self) -> String {
        let at = self.address();
        match self.kind {
            Kind::Consul => format!("consul = \"http://{at}\", service = \"chat\""),
            Kind::Etcd => format!("etcd = [\"http://{at}\"], service = \"/chat/\""),
            Kind::ZooKeeper => format!("zookeeper = [\"{at}\"], service = \"/chat\""),
            Kind::Redis => format!("redis = [\"redis://{at}\"], service = \"chat\""),
        }
    }
}

fn spawn(kind: Kind, program: &Path, port: u16) -> ((Child, u16), TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let other = || free_port().to_string();
    let words: Vec<String> = match kind {
        Kind::Consul => [
            "agent",
            "-dev",
            "-node=m",
            "-bind=127.0.0.1",
            "-log-level=err",
            "-grpc-port=-1",
            "-dns-port=-1",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([
            format!("-http-port={port}"),
            format!("-server-port={}", other()),
            format!("-serf-lan-port={}", other()),
            format!("-serf-wan-port={}", other()),
        ])
        .collect(),
        Kind::Etcd => {
            let (client, peer) = (
                format!("http://127.0.0.1:{port}"),
                format!("http://127.0.0.1:{}", other()),
            );
            [
                "--data-dir",
                &path,
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &format!("default={peer}"),
            ]
            .map(str::to_owned)
            .to_vec()
        }
        Kind::ZooKeeper => {
            let file = folder.path().join("zoo.cfg");
            let text = format!(
                "tickTime=2000\ndataDir={path}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
                 4lw.commands.whitelist=*\nadmin.enableServer=false\nmaxClientCnxns=0\n"
            );
            std::fs::write(&file, text).expect("write a configuration");
            let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
            [
                "-Xmx96m",
                "-cp",
                ZOOKEEPER,
                main,
                &file.display().to_string(),
            ]
            .map(str::to_owned)
            .to_vec()
        }
        Kind::Redis => [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            &path,
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    let child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start a registry");
    ((child, port), folder)
}

/// Everything that may happen to a registry, one after the other.
async fn is_followed_through_all(kind: Kind) {
    let Some(mut registry) = Registry::start(kind).await else {
        return;
    };
    let nodes = [
        Node::echo("n1").await,
        Node::echo("n2").await,
        Node::echo("n3").await,
    ];
    let names = ["n1", "n2", "n3"];
    for (name, node) in names.iter().zip(&nodes).take(2) {
        registry.register(name, node, 1, false).await;
    }
    let keys = format!("{}, timeout = \"2s\"", registry.keys());
    let balancer = Balancer::start(&discovering(&keys, ""));
    let address = balancer.address("main").await;
    until_served_by(address, &names[..2]).await;
    registry.register("n3", &nodes[2], 1, false).await;
    until_served_by(address, &names).await;
    let third = registry.name("n3");
    let mut session = session_on(address, "n3").await;

    registry.register("n3", &nodes[2], 5, false).await;
    balancer
        .backend_until("nodes", &third, |seen| seen["weight"] == 5)
        .await;
    registry.register("n3", &nodes[2], 5, true).await;
    balancer
        .backend_until("nodes", &third, |seen| seen["discovery"] == "drain")
        .await;
    until_served_by(address, &names[..2]).await;
    registry.register("n3", &nodes[2], 1, false).await;
    balancer
        .backend_until("nodes", &third, |seen| seen["state"] == "up")
        .await;
    registry.deregister("n3").await;
    balancer
        .backend_until("nodes", &third, |seen| seen["discovery"] == "absent")
        .await;
    echoed(&mut session, b"an absent backend keeps its sessions").await;
    registry.register("n3", &nodes[2], 1, false).await;
    until_served_by(address, &names).await;

    registry.signal(rustix::process::Signal::STOP);
    until_served_by(address, &names).await;
    echoed(&mut session, b"while the registry is frozen").await;
    registry.signal(rustix::process::Signal::CONT);

    let failing = |pool: &Value| pool["discovery"]["state"] == "failing";
    registry.lose_everything().await;
    // A node of ZooKeeper is gone with its children.
    let reason = if kind == Kind::ZooKeeper {
        "status"
    } else {
        "empty"
    };
    let empty = |pool: &Value| {
        let errors = pool["discovery"]["errors"].as_array().expect("errors");
        let told = |one: &Value| one["reason"] == reason && one["count"].as_u64() > Some(0);
        errors.iter().any(told)
    };
    let pool = pool_until(&balancer, "an empty registry", |pool| {
        failing(pool) && empty(pool)
    })
    .await;
    assert_eq!(pool["discovery"]["ready"], 3);
    until_served_by(address, &names).await;

    registry.register("n1", &nodes[0], 1, false).await;
    pool_until(&balancer, "it is held", |pool| {
        pool["discovery"]["state"] == "held"
    })
    .await;
    until_served_by(address, &names).await;
    registry.register("n2", &nodes[1], 1, false).await;
    registry.register("n3", &nodes[2], 1, false).await;
    let whole =
        |pool: &Value| pool["discovery"]["state"] == "good" && pool["discovery"]["ready"] == 3;
    pool_until(&balancer, "it is whole again", whole).await;
    until_served_by(address, &names).await;
    echoed(&mut session, b"through all of it").await;
}

#[tokio::test]
async fn consul_is_followed_through_all() {
    is_followed_through_all(Kind::Consul).await;
}

#[tokio::test]
async fn etcd_is_followed_through_all() {
    is_followed_through_all(Kind::Etcd).await;
}

#[tokio::test]
async fn zookeeper_is_followed_through_all() {
    is_followed_through_all(Kind::ZooKeeper).await;
}

#[tokio::test]
async fn redis_is_followed_through_all() {
    is_followed_through_all(Kind::Redis).await;
}

/// A key whose value is an address, as go-zero registers, and one of gRPC's naming.
#[tokio::test]
async fn keys_of_other_frameworks_are_read_from_etcd() {
    let Some(registry) = Registry::start(Kind::Etcd).await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let naming = json!({ "Op": 0, "Addr": other.address, "Metadata": null }).to_string();
    for (key, value) in [
        ("/chat/7587", one.address.to_string()),
        ("/chat/other", naming),
    ] {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let (key, value) = (
            data_encoding::BASE64.encode(key),
            data_encoding::BASE64.encode(value),
        );
        let body = json!({ "key": key, "value": value }).to_string();
        assert_eq!(registry.ask("POST", "/v3/kv/put", &body).await.status, 200);
    }
    let balancer = Balancer::start(&discovering(&registry.keys(), ""));
    until_served_by(balancer.address("main").await, &["n1", "n2"]).await;
    balancer.backend("nodes", "other").await;
    balancer.backend("nodes", &one.address.to_string()).await;
}

/// The keys of a prefix, each with a time to live, in a database with a password.
#[tokio::test]
async fn a_prefix_of_redis_is_scanned_behind_a_password() {
    let Some(registry) = Registry::start(Kind::Redis).await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    for (name, node) in [("n1", &one), ("n2", &other)] {
        let address = node.address;
        registry
            .redis(&format!("SELECT 3\r\nSET chat:{name} {address} EX 3600"))
            .await;
    }
    registry.redis("CONFIG SET requirepass s3cret").await;
    let launch = crate::harness::Launch::new();
    std::fs::write(launch.path("redis.token"), "wrong").expect("write a password");
    let at = registry.address();
    let keys = format!(
        "redis = [\"redis://{at}/3\"], service = \"chat:*\", token_file = \"redis.token\", start_timeout = \"0s\""
    );
    let balancer = launch.start(&discovering(&keys, ""));
    let address = balancer.address("main").await;
    let denied = |pool: &Value| {
        let errors = pool["discovery"]["errors"].as_array().expect("errors");
        errors
            .iter()
            .any(|one| one["reason"] == "denied" && one["count"].as_u64() > Some(0))
    };
    pool_until(&balancer, "it is denied", denied).await;
    std::fs::write(balancer.path("redis.token"), "s3cret").expect("write a password");
    until_served_by(address, &["n1", "n2"]).await;
}

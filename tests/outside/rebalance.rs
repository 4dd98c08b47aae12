//! After a scale-out connections are moved to the new node: at the rate, down to the shares, nobody twice.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _, stream};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::clients::{Socket, echoed, greeted, node_of, read_to_ending, websocket};
use crate::harness::{Balancer, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool, simple};

/// What a client that comes back went through.
#[derive(Debug, Clone)]
struct Moved {
    code: u16,
    reason: String,
    at: Instant,
    /// How long that connection had been open.
    age: Duration,
}

/// A client that reconnects whenever it is told 1012, as browsers' libraries do.
struct Client {
    moves: Arc<Mutex<Vec<Moved>>>,
    task: JoinHandle<()>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Client {
        let moves: Arc<Mutex<Vec<Moved>>> = Arc::default();
        let seen = Arc::clone(&moves);
        let mut socket = websocket(address, "/").await;
        node_of(&mut socket).await;
        let task = tokio::spawn(async move {
            loop {
                let opened = Instant::now();
                let Some(moved) = closed(&mut socket, opened).await else {
                    return;
                };
                seen.lock().unwrap().push(moved);
                socket = websocket(address, "/").await;
                node_of(&mut socket).await;
            }
        });
        Client { moves, task }
    }

    fn moves(&self) -> Vec<Moved> {
        self.moves.lock().unwrap().clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Stays until the end; `None` when that was no Close frame.
async fn closed(socket: &mut Socket, opened: Instant) -> Option<Moved> {
    let mut moved = None;
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(Some(close)) = message {
            moved = Some(Moved {
                code: close.code.into(),
                reason: close.reason.to_string(),
                at: Instant::now(),
                age: opened.elapsed(),
            });
        }
        let _ = socket.flush().await;
    }
    moved
}

/// Handshakes at once: no storm, in which those that come last would run into the time-out of a handshake.
const TOGETHER: usize = 50;

async fn clients(address: SocketAddr, count: usize) -> Vec<Client> {
    stream::iter(0..count)
        .map(|_| Client::connect(address))
        .buffered(TOGETHER)
        .collect()
        .await
}

fn moves(clients: &[Client]) -> Vec<Vec<Moved>> {
    clients.iter().map(Client::moves).collect()
}

async fn job(balancer: &Balancer) -> Option<Value> {
    let jobs = balancer.get("/api/v1/jobs").await.json();
    jobs["jobs"].as_array()?.last().cloned()
}

async fn job_until(balancer: &Balancer, wanted: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            if let Some(job) = job(balancer).await.filter(&wanted) {
                return job;
            }
            a_moment().await;
        }
    };
    within("the job", looking).await
}

/// Connections of each node.
async fn spread(balancer: &Balancer, count: usize) -> Vec<u64> {
    let mut live = Vec::new();
    for number in 1..=count {
        let node = balancer.backend("nodes", &format!("n{number}")).await;
        live.push(node["live"].as_u64().unwrap());
    }
    live
}

/// `count` connections on three nodes, a fourth is added: it gets a quarter, at so many a second.
async fn a_fourth_node_gets_its_share(balance: &str, count: usize, rate: usize) {
    let (third, quarter) = (count as u64 / 3, count as u64 / 4);
    let nodes = [
        Node::web("n1").await,
        Node::web("n2").await,
        Node::web("n3").await,
        Node::web("n4").await,
    ];
    let all: Vec<&Node> = nodes.iter().collect();
    let keys =
        format!("balance = \"{balance}\"\nrebalance = {{ rate = \"{rate}/s\", min_age = \"1s\" }}");
    let balancer = Balancer::start(&simple("websocket", &keys, &all[..3]));
    let address = balancer.address("main").await;
    let clients = clients(address, count).await;
    assert_eq!(spread(&balancer, 3).await, [third; 3]);
    let (position, reloaded) = (balancer.log.position(), Instant::now());
    balancer.reload(&simple("websocket", &keys, &all)).await;
    let began = balancer
        .event("the beginning", position, |event| {
            event.message().starts_with("moves connections")
        })
        .await;
    assert_eq!(began.level(), "INFO");
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(job["target"], "nodes (rebalance)", "{job}");
    assert_eq!((&job["ended"], &job["left"]), (&quarter.into(), &0.into()));
    // Who was told last is on its way.
    balancer
        .backend_until("nodes", "n4", |node| node["live"] == quarter)
        .await;
    assert_eq!(spread(&balancer, 4).await, [quarter; 4], "{balance}");
    let moves = moves(&clients);
    assert!(moves.iter().all(|moves| moves.len() < 2), "nobody twice");
    let moved: Vec<_> = moves.into_iter().flatten().collect();
    assert_eq!(moved.len() as u64, quarter);
    for one in &moved {
        assert_eq!((one.code, &*one.reason), (1012, "rebalance"));
        assert!(one.age >= Duration::from_secs(1), "{one:?}");
    }
    let last = moved.iter().map(|one| one.at).max().unwrap();
    // The job looks for who is new every two seconds, and begins with the first of them.
    let computed = Duration::from_secs_f64((quarter - 1) as f64 / rate as f64);
    let took = last - reloaded;
    assert!(took >= computed.mul_f64(0.8), "{took:?}");
}

#[tokio::test]
async fn a_fourth_node_gets_its_share_with_least_conn() {
    a_fourth_node_gets_its_share("least_conn", 3_000, 150).await;
}

#[tokio::test]
async fn a_fourth_node_gets_its_share_with_round_robin() {
    a_fourth_node_gets_its_share("round_robin", 300, 15).await;
}

/// Where sessions outlive their backend nobody is told anything.
#[tokio::test]
async fn a_fourth_node_gets_its_share_and_no_client_notices() {
    const COUNT: usize = 3_000;
    const RATE: usize = 150;
    let nodes = [
        Node::web("n1").await,
        Node::web("n2").await,
        Node::web("n3").await,
        Node::web("n4").await,
    ];
    let all: Vec<&Node> = nodes.iter().collect();
    let keys = format!(
        "balance = \"least_conn\"\nresume = {{}}\nrebalance = {{ rate = \"{RATE}/s\", min_age = \"0s\" }}"
    );
    let config = |count: usize| {
        let log = "[access_log]\noutput = \"stdout\"\nlog_at = [\"resume\", \"end\"]\n\n";
        format!("{log}{}", simple("websocket", &keys, &all[..count]))
    };
    let balancer = Balancer::start(&config(3));
    let address = balancer.address("main").await;
    let connecting = stream::iter(0..COUNT).map(async |_| {
        let mut socket = websocket(address, "/").await;
        node_of(&mut socket).await;
        socket
    });
    let mut sockets: Vec<Socket> = connecting.buffered(TOGETHER).collect().await;
    assert_eq!(spread(&balancer, 3).await, [COUNT as u64 / 3; 3]);
    let began = Instant::now();
    balancer.reload(&config(4)).await;
    job_until(&balancer, |job| job["phase"] == "done").await;
    let took = began.elapsed();
    let quarter = COUNT / 4;
    // The job looks for who is new every two seconds, and at the end at what has come of it.
    let computed = Duration::from_secs_f64(quarter as f64 / RATE as f64);
    assert!(took >= computed.mul_f64(0.8), "{took:?}");
    balancer
        .backend_until("nodes", "n4", |node| node["live"] == quarter)
        .await;
    assert_eq!(spread(&balancer, 4).await, [quarter as u64; 4]);
    let mut on = std::collections::HashMap::new();
    for socket in &mut sockets {
        *on.entry(node_of(socket).await).or_insert(0) += 1;
    }
    assert!(
        on.len() == 4 && on.values().all(|count| *count == quarter),
        "{on:?}"
    );
    // Counted at once, written a little later.
    let resumed = || -> Vec<u64> {
        let lines = balancer.stdout.all();
        let lines = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let resumes = lines.filter(|line| line["event"] == "resume");
        resumes.filter_map(|line| line["id"].as_u64()).collect()
    };
    within("the lines of all", async {
        while resumed().len() < quarter {
            a_moment().await;
        }
    })
    .await;
    let ids = resumed();
    let different: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(
        (ids.len(), different.len()),
        (quarter, quarter),
        "nobody twice"
    );
}

/// A node that a name begins to resolve to is as new as one that a reload adds.
#[tokio::test]
async fn a_node_that_is_discovered_gets_its_share() {
    use crate::dns::{NameServer, ip};
    let n1 = Node::web_at((ip(1), 0).into(), "n1").await;
    let port = n1.address.port();
    let _n2 = Node::web_at((ip(2), port).into(), "n2").await;
    let server = NameServer::start().await;
    server.addresses("nodes.test", &[ip(1)]);
    let config = format!(
        "{}[pool.nodes]\nrebalance = {{ rate = \"100/s\", min_age = \"0s\" }}\n\
         discover = {{ dns = \"nodes.test:{port}\", nameservers = [\"{}\"], min_ttl = \"200ms\" }}\n",
        listener("main", "websocket", "nodes"),
        server.address
    );
    let balancer = Balancer::start(&config);
    let clients = clients(balancer.address("main").await, 40).await;
    server.addresses("nodes.test", &[ip(1), ip(2)]);
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(job["ended"], 20, "{job}");
    assert_eq!(moves(&clients).iter().flatten().count(), 20);
}

#[tokio::test]
async fn quiet_ones_are_moved_and_weights_are_kept() {
    let nodes = [Node::web("n1").await, Node::web("n2").await];
    let keys = "rebalance = { rate = \"100/s\", min_age = \"0s\" }";
    let weighted = |count: usize| {
        let all: Vec<&Node> = nodes.iter().take(count).collect();
        let text = simple("websocket", keys, &all);
        text.replacen("\" },", "\", weight = 3 },", 1)
    };
    let balancer = Balancer::start(&weighted(1));
    let address = balancer.address("main").await;
    let quiet = clients(address, 10).await;
    let silent = async {
        let path = "/api/v1/connections?min_idle=1s";
        while balancer.get(path).await.json()["connections"]
            .as_array()
            .map(Vec::len)
            != Some(10)
        {
            a_moment().await;
        }
    };
    within("a second of silence", silent).await;
    let mut busy = Vec::new();
    for _ in 0..30 {
        let mut socket = websocket(address, "/").await;
        node_of(&mut socket).await;
        busy.push(socket);
    }
    balancer.reload(&weighted(2)).await;
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(job["ended"], 10, "{job}");
    balancer
        .backend_until("nodes", "n2", |node| node["live"] == 10)
        .await;
    assert!(moves(&quiet).iter().all(|moves| moves.len() == 1));
    for socket in &mut busy {
        assert_eq!(node_of(socket).await, "n1");
    }
}

#[tokio::test]
async fn young_ones_are_left_alone_until_they_are_old_enough() {
    let nodes = [Node::web("n1").await, Node::web("n2").await];
    let keys = "rebalance = { rate = \"100/s\", min_age = \"5s\" }";
    let balancer = Balancer::start(&simple("websocket", keys, &[&nodes[0]]));
    let clients = clients(balancer.address("main").await, 10).await;
    balancer
        .reload(&simple("websocket", keys, &[&nodes[0], &nodes[1]]))
        .await;
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(job["id"], 1, "{job}");
    balancer
        .backend_until("nodes", "n2", |node| node["live"] == 5)
        .await;
    let moved: Vec<_> = moves(&clients).into_iter().flatten().collect();
    assert_eq!(moved.len(), 5);
    for one in moved {
        // A clock tick of the balancer may be shorter than ours.
        assert!(one.age >= Duration::from_millis(4_900), "{one:?}");
    }
}

#[tokio::test]
async fn raw_sessions_are_moved_only_where_that_is_said() {
    let (n1, n2) = (Node::echo("n1").await, Node::echo("n2").await);
    let keys = "rebalance = { rate = \"100/s\", min_age = \"0s\", tcp = \"close\" }";
    let balancer = Balancer::start(&simple("tcp", keys, &[&n1]));
    let address = balancer.address("main").await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(greeted(address).await.0);
    }
    balancer.reload(&simple("tcp", keys, &[&n1, &n2])).await;
    let job = job_until(&balancer, |job| job["ended"] == 5).await;
    assert_eq!(job["target"], "nodes (rebalance)", "{job}");
    // Told is not ended yet.
    balancer
        .backend_until("nodes", "n1", |node| node["live"] == 5)
        .await;
    let mut ended = 0;
    for stream in &mut streams {
        let mut byte = [0];
        let is_open = matches!(
            stream.try_read(&mut byte),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
        );
        match is_open {
            true => echoed(stream, b"still here").await,
            false => {
                let (rest, end) = read_to_ending(stream).await;
                assert_eq!((rest, format!("{end:?}")), (vec![], "Fin".to_owned()));
                ended += 1;
            }
        }
    }
    assert_eq!(ended, 5);
}

/// The pool has both kinds: the raw ones stand above the share, and stay.
#[tokio::test]
async fn raw_sessions_beside_websockets_are_left_alone() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let keys = "rebalance = { rate = \"100/s\", min_age = \"0s\" }";
    let raw = listener("raw", "tcp", "nodes");
    let config = |nodes: &[&Node]| raw.clone() + &simple("websocket", keys, nodes);
    let balancer = Balancer::start(&config(&[&n1]));
    // A WebSocket of its own through the raw listener: nobody looks into it.
    let address = balancer.address("raw").await;
    let mut untold = Vec::new();
    for _ in 0..8 {
        let mut socket = websocket(address, "/").await;
        node_of(&mut socket).await;
        untold.push(socket);
    }
    let told = clients(balancer.address("main").await, 2).await;
    balancer.reload(&config(&[&n1, &n2])).await;
    job_until(&balancer, |job| job["phase"] == "done").await;
    balancer
        .backend_until("nodes", "n2", |node| node["live"] == 2)
        .await;
    assert!(moves(&told).iter().all(|moves| moves.len() == 1));
    for socket in &mut untold {
        assert_eq!(node_of(socket).await, "n1");
    }
}

#[tokio::test]
async fn an_operator_ends_it_until_somebody_else_is_new() {
    let nodes = [
        Node::web("n1").await,
        Node::web("n2").await,
        Node::web("n3").await,
    ];
    let all: Vec<&Node> = nodes.iter().collect();
    let keys = "rebalance = { rate = \"1/s\", min_age = \"0s\" }";
    let balancer = Balancer::start(&simple("websocket", keys, &all[..1]));
    let clients = clients(balancer.address("main").await, 30).await;
    balancer.reload(&simple("websocket", keys, &all[..2])).await;
    let begun = job_until(&balancer, |job| job["ended"].as_u64() > Some(0)).await;
    assert!(begun["left"].as_u64() > Some(0), "{begun}");
    let admin = balancer.address("admin").await.to_string();
    let (code, out, _) = balancer.command(&["jobs", "--admin", &admin]).await;
    assert!(code == 0 && out.contains("nodes (rebalance)"), "{out}");
    let (code, _, error) = balancer.command(&["abort", "1", "--admin", &admin]).await;
    assert_eq!(code, 0, "{error}");
    let aborted = job_until(&balancer, |job| job["phase"] == "aborted").await;
    let moved = aborted["ended"].as_u64().unwrap() as usize;
    balancer.reload(&simple("websocket", keys, &all)).await;
    let next = job_until(&balancer, |job| job["id"] == 2).await;
    assert_eq!(next["target"], "nodes (rebalance)", "{next}");
    assert!(moves(&clients).iter().flatten().count() >= moved);
}

#[tokio::test]
async fn a_backend_that_comes_back_gets_its_share_again() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let keys = "rebalance = { rate = \"100/s\", min_age = \"0s\" }";
    let balancer = Balancer::start(&simple("websocket", keys, &[&n1, &n2]));
    let operate = async |word: &str| {
        let path = format!("/api/v1/pools/nodes/backends/n2/{word}");
        assert_eq!(balancer.post(&path, "{}").await.status, 200);
    };
    let looked = async |from: usize| {
        let is_look = "other backends take new connections";
        balancer
            .event("a look", from, |event| event.message() == is_look)
            .await
    };
    looked(0).await;
    let position = balancer.log.position();
    operate("maint").await;
    looked(position).await;
    let clients = clients(balancer.address("main").await, 20).await;
    assert_eq!(spread(&balancer, 2).await, [20, 0]);
    operate("ready").await;
    job_until(&balancer, |job| job["phase"] == "done").await;
    balancer
        .backend_until("nodes", "n2", |node| node["live"] == 10)
        .await;
    assert_eq!(moves(&clients).iter().flatten().count(), 10);
}

/// Two pools get a node by one reload, one of them has the setting.
#[tokio::test]
async fn without_the_setting_everybody_stays() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let config = |nodes: &[&Node]| {
        let keys = "rebalance = { rate = \"100/s\", min_age = \"0s\" }";
        let named = nodes.iter().enumerate();
        let backends = named.map(|(i, node)| backend(&format!("n{}", i + 1), node.address));
        listener("moved", "websocket", "moved")
            + &pool("moved", keys, &backends.collect::<Vec<_>>())
            + &simple("websocket", "", nodes)
    };
    let balancer = Balancer::start(&config(&[&n1]));
    let staying = clients(balancer.address("main").await, 10).await;
    let moving = clients(balancer.address("moved").await, 10).await;
    balancer.reload(&config(&[&n1, &n2])).await;
    let job = job_until(&balancer, |job| job["phase"] == "done").await;
    assert_eq!(job["target"], "moved (rebalance)", "{job}");
    assert_eq!(moves(&moving).iter().flatten().count(), 5);
    assert!(moves(&staying).iter().all(Vec::is_empty));
    assert_eq!(spread(&balancer, 2).await, [10, 0]);
}

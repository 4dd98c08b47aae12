//! A reload that keeps a port and changes its address: nobody is refused, and what cannot be bound
//! is told before it is tried.

use std::net::{SocketAddr, TcpListener};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clients::{connect, node_of, read_line, websocket};
use crate::harness::{Balancer, Launch, complete, within};
use crate::nodes::Node;
use crate::settings::{backend, pool};

const THERE_AND_BACK: usize = 4;

fn bound(bind: &str, protocol: &str, node: &Node) -> String {
    format!(
        "[[listener]]\nname = \"main\"\nbind = \"{bind}\"\nprotocol = \"{protocol}\"\npool = \"nodes\"\n"
    ) + &pool("nodes", "", &[backend("n1", node.address)])
}

/// A port that is free on every address, and that the kernel gives to nobody: one of those that it
/// gives away may be taken on another address before it is widened to all.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..30_000);
        if TcpListener::bind(("::", port)).is_ok() {
            return port;
        }
    }
}

/// Clients that connect one after the other until told to stop; none may be refused or reset.
struct Clients {
    stop: watch::Sender<bool>,
    tasks: JoinSet<usize>,
}

impl Clients {
    fn start(address: SocketAddr, protocol: &'static str) -> Clients {
        let (stop, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let stopped = stop.subscribe();
            tasks.spawn(async move {
                let mut served = 0;
                while !*stopped.borrow() {
                    match protocol {
                        "tcp" => {
                            let mut stream = connect(address).await;
                            let greeting = read_line(&mut stream).await;
                            greeting.expect("a connection was lost");
                        }
                        _ => {
                            let mut socket = websocket(address, "/").await;
                            assert_eq!(node_of(&mut socket).await, "n1");
                        }
                    }
                    served += 1;
                }
                served
            });
        }
        Clients { stop, tasks }
    }

    async fn finish(mut self) -> usize {
        self.stop.send_replace(true);
        let mut served = 0;
        while let Some(count) = self.tasks.join_next().await {
            served += count.expect("nobody was refused");
        }
        served
    }
}

/// From `narrow` to `wide` and back on one port, under connects.
async fn there_and_back(wide: &str, protocol: &'static str) {
    let node = match protocol {
        "tcp" => Node::echo("n1").await,
        _ => Node::web("n1").await,
    };
    let narrow = format!("127.0.0.1:{}", free_port());
    let balancer = Balancer::start(&bound(&narrow, protocol, &node));
    let address = balancer.address("main").await;
    let clients = Clients::start(address, protocol);
    for round in 0..THERE_AND_BACK {
        let ip = if round % 2 == 0 { wide } else { "127.0.0.1" };
        let to = format!("{ip}:{}", address.port());
        balancer.reload(&bound(&to, protocol, &node)).await;
        assert_eq!(balancer.address("main").await.to_string(), to);
    }
    assert!(clients.finish().await > 0);
    // Nothing of the sharing is left: a second one cannot take the port.
    assert!(TcpListener::bind(address).is_err());
}

#[tokio::test]
async fn a_plain_listener_widens_and_narrows_its_address_and_nobody_is_refused() {
    there_and_back("0.0.0.0", "tcp").await;
}

#[tokio::test]
async fn a_websocket_listener_widens_and_narrows_its_address_and_nobody_is_refused() {
    there_and_back("0.0.0.0", "websocket").await;
}

#[tokio::test]
async fn an_address_of_both_families_takes_over_one_of_ipv4_and_gives_it_back() {
    there_and_back("[::]", "tcp").await;
}

#[tokio::test]
async fn the_admin_endpoint_moves_on_its_port_and_each_question_is_answered() {
    let node = Node::echo("n1").await;
    let config = |admin: &str| {
        let rest = bound("127.0.0.1:0", "tcp", &node);
        format!("{rest}[metrics]\nbind = \"{admin}\"\n")
    };
    let balancer = Balancer::start(&config(&format!("127.0.0.1:{}", free_port())));
    let metrics = balancer.address("metrics").await;
    let (stop, stopped) = watch::channel(false);
    let asking = tokio::spawn(async move {
        while !*stopped.borrow() {
            let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let answer = crate::harness::raw_request(metrics, request).await;
            assert_eq!(answer.status, 200);
        }
    });
    for round in 0..THERE_AND_BACK {
        let ip = ["0.0.0.0", "127.0.0.1"][round % 2];
        balancer
            .reload(&config(&format!("{ip}:{}", metrics.port())))
            .await;
    }
    stop.send_replace(true);
    within("the last question", asking)
        .await
        .expect("each is answered");
}

// The socket that both had was told to take no connections for the old name: nobody came in any more.
#[tokio::test]
async fn a_renamed_listener_keeps_its_socket_and_is_reached() {
    let node = Node::echo("n1").await;
    let bind = format!("127.0.0.1:{}", free_port());
    let balancer = Balancer::start(&bound(&bind, "tcp", &node));
    let address = balancer.address("main").await;
    let renamed = bound(&bind, "tcp", &node).replace("\"main\"", "\"front\"");
    balancer.reload(&renamed).await;
    for _ in 0..3 {
        let mut stream = connect(address).await;
        assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    }
}

#[tokio::test]
async fn a_plan_tells_what_cannot_be_bound_and_shares_no_port_behind_it() {
    let node = Node::echo("n1").await;
    let narrow = format!("127.0.0.1:{}", free_port());
    let balancer = Balancer::start(&bound(&narrow, "tcp", &node));
    let address = balancer.address("main").await;
    let plan = async |bind: &str| {
        let text = complete(&bound(bind, "tcp", &node));
        let body = json!({ "configuration": text }).to_string();
        balancer.post("/api/v1/plan", &body).await.json()["refusals"].clone()
    };
    assert_eq!(plan(&address.to_string()).await, json!([]));
    assert_eq!(
        plan(&format!("0.0.0.0:{}", address.port())).await,
        json!([])
    );
    assert!(TcpListener::bind(address).is_err());
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("its address");
    let refusal = format!("listener main: bind {taken}: address in use");
    assert_eq!(plan(&taken.to_string()).await, json!([refusal]));
    let file = balancer.path("taken.toml");
    let text = bound(&taken.to_string(), "tcp", &node);
    std::fs::write(&file, text).expect("write a file");
    let admin = balancer.address("admin").await.to_string();
    let words = ["plan", &file.display().to_string(), "--admin", &admin];
    let (code, shown, error) = balancer.command(&words).await;
    assert_eq!(code, 1, "{error}");
    assert!(
        shown.contains("bind") && error.contains(&refusal),
        "{shown}{error}"
    );
    assert_eq!(
        balancer
            .try_reload(&bound(&taken.to_string(), "tcp", &node))
            .await
            .status,
        422
    );
    assert_eq!(balancer.address("main").await, address);
}

#[tokio::test]
async fn check_warns_of_an_address_that_this_machine_has_not() {
    let launch = Launch::new();
    let node = Node::echo("n1").await;
    let file = launch.path("a.toml");
    let check = async |bind: &str| {
        let text = bound(bind, "tcp", &node)
            .replace("backend = [", "check = { type = \"tcp\" }\nbackend = [");
        std::fs::write(&file, text).expect("write a file");
        let words = ["check", &file.display().to_string()];
        crate::harness::run(&words, launch.folder.path()).await
    };
    // An address of documentation (RFC 5737).
    let (code, _, told) = check("192.0.2.1:8080").await;
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("bind 192.0.2.1:8080: no such address on this machine"),
        "{told}"
    );
    assert!(told.contains("a.toml:3:8"), "{told}");
    let (_, _, told) = check("unix:/nowhere/at/all").await;
    assert!(told.contains("/nowhere/at is no folder"), "{told}");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("its address").to_string();
    let (code, _, told) = check(&taken).await;
    assert_eq!(code, 0, "{told}");
    let own = format!("(process {})", std::process::id());
    assert!(
        told.contains(&format!("bind {taken}: address in use by ")) && told.contains(&own),
        "{told}"
    );
    // The balancer that runs has its own.
    let running = Balancer::start(&bound("127.0.0.1:0", "tcp", &node));
    let (code, _, told) = check(&running.address("main").await.to_string()).await;
    assert_eq!((code, told.as_str()), (0, ""));
}

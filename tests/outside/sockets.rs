//! Socket options and source addresses from outside: what `ss` and the nodes see of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::clients::{connect, echoed, greeted, read_line};
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, listener_with, pool, simple};

/// What `ss` says of the sockets from `local` to `peer`.
fn ss(local: SocketAddr, peer: SocketAddr) -> Option<String> {
    let filter = format!("( src {local} and dst {peer} )");
    let output = Command::new("ss").args(["-tinoHO", &filter]).output();
    match output {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => {
            eprintln!("SKIPPED: ss is not installed");
            None
        }
    }
}

/// A node that greets with the address its peer came from.
async fn telling() -> Node {
    Node::scripted(|mut stream, _| async move {
        let peer = stream.peer_addr().expect("an address");
        let _ = stream.write_all(format!("{peer}\n").as_bytes()).await;
        crate::nodes::echo(stream).await;
    })
    .await
}

/// Waits until `ss` shows this: on a relay thread the options of a long life are set a while later, and a timer of what was
/// sent last gives way to that of the silence. `None`: there is no `ss`.
async fn shown(local: SocketAddr, peer: SocketAddr, wanted: &str) -> Option<()> {
    ss(local, peer)?;
    let settled = async {
        while !ss(local, peer).unwrap_or_default().contains(wanted) {
            a_moment().await;
        }
    };
    within(&format!("{wanted} from {local} to {peer}"), settled).await;
    Some(())
}

/// The socket options of both legs of one connection, as the kernel's `ss` shows them. `None`: there is no `ss`.
async fn legs(balancer: &Balancer, node: &Node, wanted: [&str; 2]) -> Option<()> {
    let address = balancer.address("main").await;
    let (mut stream, backend_leg) = greeted(address).await;
    echoed(&mut stream, b"hello").await;
    let own = stream.local_addr().expect("an address");
    let backend_leg: SocketAddr = backend_leg.parse().expect("an address");
    let legs = [(address, own), (backend_leg, node.address)];
    for ((local, peer), wanted) in legs.into_iter().zip(wanted) {
        shown(local, peer, wanted).await?;
    }
    Some(())
}

/// The timer of a silent connection is its keepalive: nearly all of `idle` is left.
#[tokio::test]
async fn without_settings_silence_is_probed_after_a_minute() {
    let node = telling().await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    legs(&balancer, &node, ["timer:(keepalive,5"; 2]).await;
}

#[tokio::test]
async fn keepalive_and_congestion_are_set_on_both_legs() {
    let node = telling().await;
    let keys = "tcp_keepalive = { idle = \"300s\", interval = \"7s\", count = 3 }\ntcp_congestion = \"reno\"";
    let other = "tcp_keepalive = { idle = \"600s\" }\ntcp_congestion = \"cubic\"";
    for protocol in ["tcp", "tls"] {
        let launch = Launch::new();
        let keys = match protocol {
            "tls" => format!("{keys}\naccept_proxy = true\ntrusted = [\"127.0.0.1\"]"),
            _ => keys.to_owned(),
        };
        let config = listener_with("main", "tcp", "nodes", &keys)
            + &pool("nodes", other, &[backend("n1", node.address)]);
        let balancer = launch.start(&config);
        if protocol == "tls" {
            // Through the set-up plane.
            let address = balancer.address("main").await;
            let mut stream = connect(address).await;
            stream.write_all(b"PROXY UNKNOWN\r\n").await.expect("write");
            let leg = read_line(&mut stream).await.expect("a greeting");
            let leg: SocketAddr = leg.parse().expect("an address");
            for wanted in ["timer:(keepalive,9min", " cubic "] {
                if shown(leg, node.address, wanted).await.is_none() {
                    return;
                }
            }
            continue;
        }
        let minutes = ["timer:(keepalive,4min", "timer:(keepalive,9min"];
        if legs(&balancer, &node, minutes).await.is_none() {
            return;
        }
        legs(&balancer, &node, [" reno ", " cubic "]).await;
    }
}

/// A reload changes them for what comes, and an unknown name changes nothing.
#[tokio::test]
async fn a_reload_changes_them_for_new_connections() {
    let node = telling().await;
    let config = |keys: &str| {
        listener_with("main", "tcp", "nodes", keys)
            + &pool("nodes", "", &[backend("n1", node.address)])
    };
    let balancer = Balancer::start(&config("tcp_congestion = \"reno\""));
    let address = balancer.address("main").await;
    let (old, _) = greeted(address).await;
    let refused = balancer
        .try_reload(&config("tcp_congestion = \"nosuch\""))
        .await;
    assert_ne!(refused.status, 200);
    assert!(
        refused.body.contains("nosuch") && refused.body.contains("reno"),
        "{}",
        refused.body
    );
    balancer
        .reload(&config(
            "tcp_keepalive = { idle = \"600s\" }\ntcp_congestion = \"cubic\"",
        ))
        .await;
    let (new, _) = greeted(address).await;
    let peer = |stream: &TcpStream| stream.local_addr().expect("an address");
    if shown(address, peer(&old), " reno ").await.is_some() {
        shown(address, peer(&new), " cubic ").await;
        shown(address, peer(&new), "timer:(keepalive,9min").await;
    }
}

#[tokio::test]
async fn check_refuses_a_congestion_control_that_is_not_there() {
    let launch = Launch::new();
    let file = launch.path("bad.toml");
    let node = Node::echo("n1").await;
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "tcp_congestion = \"nosuch\"",
            &[backend("n1", node.address)],
        );
    std::fs::write(&file, config).expect("write");
    let (code, _, errors) = crate::harness::run(
        &["check", &file.display().to_string()],
        launch.folder.path(),
    )
    .await;
    assert_eq!(code, 1, "{errors}");
    assert!(
        errors.contains("pool.nodes: tcp_congestion \"nosuch\""),
        "{errors}"
    );
    assert!(errors.contains("reno"), "{errors}");
}

/// A silent client is no connection yet; one that says something is.
#[tokio::test]
async fn a_deferred_connection_is_accepted_when_its_client_speaks() {
    let node = Node::web("n1").await;
    let keys = "tcp_defer_accept = \"60s\"";
    let config = listener_with("main", "websocket", "nodes", keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let silent = connect(address).await;
    let mut speaks = connect(address).await;
    let page = crate::clients::http_on(&mut speaks, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(page.status, 200);
    // The later one was served; the earlier one would have been accepted before it.
    let accepted = balancer
        .metric(&["evenkeel_listener_accepted", "main"])
        .await;
    assert_eq!(accepted, 1.0);
    drop(silent);
}

#[tokio::test]
async fn connections_come_from_the_sources_in_turn() {
    let node = telling().await;
    let keys = "source = [\"127.0.0.5\", \"127.0.0.6\", \"::1\"]\n\
                check = { type = \"tcp\", interval = \"100ms\" }";
    // On the relay's threads, and by the set-up plane.
    for protocol in ["tcp", "websocket"] {
        let seen = telling_web(protocol, &node, keys).await;
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["127.0.0.5", "127.0.0.6"]);
    }
}

async fn telling_web(protocol: &str, node: &Node, keys: &str) -> BTreeMap<String, usize> {
    let web = Node::scripted(|mut stream, _| async move {
        let peer = stream.peer_addr().expect("an address").ip().to_string();
        let mut buffer = Vec::new();
        if crate::nodes::read_request(&mut stream, &mut buffer)
            .await
            .is_some()
        {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{peer}",
                peer.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let node = if protocol == "tcp" { node } else { &web };
    let balancer = Balancer::start(&simple(protocol, keys, &[node]));
    let address = balancer.address("main").await;
    let mut seen = BTreeMap::new();
    for _ in 0..64 {
        let source = match protocol {
            "tcp" => {
                let (_, peer) = greeted(address).await;
                let peer: SocketAddr = peer.parse().expect("an address");
                peer.ip().to_string()
            }
            _ => {
                let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                crate::clients::http(address, request).await.body
            }
        };
        *seen.entry(source).or_insert(0) += 1;
    }
    seen
}

/// In a network of its own with 40 ports for outgoing connections: one address carries 40 connections to a backend, three
/// carry more than 100, and when all are used up the backend is not to blame.
#[tokio::test]
async fn more_connections_than_one_address_has_ports_for() {
    const EACH: usize = 40;
    if !may_unshare() {
        return;
    }
    let script = r#"
        set -e
        ip link set lo up
        echo "20000 20039" > /proc/sys/net/ipv4/ip_local_port_range
        exec "$@"
    "#;
    for protocol in ["tcp", "announced"] {
        crowd(script, protocol, EACH).await;
    }
}

fn may_unshare() -> bool {
    let tried = Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && test -w /proc/sys/net/ipv4/ip_local_port_range && python3 -c ''",
        ])
        .stderr(Stdio::null())
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        eprintln!(
            "SKIPPED: no right to make a network namespace, or no `unshare`, `ip` and `python3`"
        );
    }
    may
}

/// Everything that has to be within the namespace is one Python program: node, clients and the counting.
const CROWD: &str = r#"
import json, socket, subprocess, sys, threading, time

binary, folder, each, header = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
node = socket.create_server(("127.0.0.1", 9001), backlog=1024)
seen, lock = {}, threading.Lock()

def serve():
    while True:
        connection, peer = node.accept()
        with lock:
            seen[peer[0]] = seen.get(peer[0], 0) + 1
        held.append(connection)
        connection.sendall(b"hello\n")

held = []
threading.Thread(target=serve, daemon=True).start()
with open(folder + "/balancer.toml", "w") as file:
    file.write(open(folder + "/crowd.toml").read())
balancer = subprocess.Popen([binary, "run", "--config", folder + "/balancer.toml"], stderr=subprocess.DEVNULL)
try:
    for _ in range(3000):
        try:
            # A port that is bound by hand is no port for a connect any more: clients have others.
            socket.create_connection(("127.0.0.1", 9900), source_address=("127.0.0.20", 29000)).close()
            break
        except OSError:
            time.sleep(0.01)
    clients, refused = [], 0
    for number in range(4 * each):
        client = socket.socket()
        client.bind(("127.0.0.20", 30000 + number))
        client.connect(("127.0.0.1", 9000))
        client.settimeout(30)
        try:
            client.sendall(header)
            said = client.recv(100)
        except ConnectionResetError:
            said = b""
        if said:
            clients.append(client)
        else:
            refused += 1
    probe = socket.socket()
    probe.bind(("127.0.0.20", 29001))
    probe.connect(("127.0.0.1", 9900))
    probe.sendall(b"GET /api/v1/pools/nodes/backends/n1 HTTP/1.1\r\nHost: 127.0.0.1:9900\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := probe.recv(65536):
        answer += piece
    backend = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    with lock:
        print(json.dumps({"served": len(clients), "refused": refused, "seen": seen, "backend": backend}))
finally:
    balancer.kill()
    balancer.wait()
"#;

async fn crowd(script: &str, protocol: &str, each: usize) {
    let launch = Launch::new();
    let (keys, header) = match protocol {
        "announced" => (
            "accept_proxy = true\ntrusted = [\"127.0.0.0/8\"]\n",
            "PROXY UNKNOWN\r\n",
        ),
        _ => ("", ""),
    };
    let config = format!(
        "[global]\nwatch = false\n\n[[listener]]\nname = \"main\"\nbind = \"127.0.0.1:9000\"\nprotocol = \"tcp\"\n\
         pool = \"nodes\"\n{keys}\n[pool.nodes]\nsource = [\"127.0.0.5\", \"127.0.0.6\", \"127.0.0.7\"]\n\
         backend = [{{ name = \"n1\", address = \"127.0.0.1:9001\" }}]\n\n[admin]\nbind = \"127.0.0.1:9900\"\n"
    );
    std::fs::write(launch.path("crowd.toml"), config).expect("write a configuration");
    std::fs::write(launch.path("crowd.py"), CROWD).expect("write a program");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", script, "sh", "python3"])
        .arg(launch.path("crowd.py"))
        .arg(env!("CARGO_BIN_EXE_evenkeel"))
        .arg(launch.folder.path())
        .args([&each.to_string(), header])
        .stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = within("the crowd", running).await.expect("no panic");
    let output = output.expect("run the crowd");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"));
    // Three times what one address has.
    assert_eq!(told["served"], 3 * each, "{told}");
    assert_eq!(told["refused"], each, "{told}");
    let sources = ["127.0.0.5", "127.0.0.6", "127.0.0.7"].map(|source| (source, each));
    for (source, count) in sources {
        assert_eq!(told["seen"][source], count, "{told}");
    }
    let backend = &told["backend"];
    assert_eq!(backend["state"], "up", "{told}");
    assert_eq!(backend["connect_failures"], 0, "{told}");
}

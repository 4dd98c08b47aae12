//! Who is let in: access lists, limits of a listener and of a source. Clients are told apart by their loopback address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use crate::certificates::{Certificate, client};
use crate::clients::{Ending, http_on, read_line, read_to_ending, websocket_over};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

/// The client 127.0.0.`number`.
fn client_ip(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))
}

/// A connection from 127.0.0.`number`; a reset may be there before connect has returned.
async fn from(number: u8, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::new(client_ip(number), 0))
        .expect("bind");
    within("a connection", socket.connect(address)).await
}

/// How a connection from there ends at once, without a byte.
async fn ended(number: u8, address: SocketAddr) -> Ending {
    match from(number, address).await {
        Ok(mut stream) => {
            let (bytes, ending) = read_to_ending(&mut stream).await;
            assert_eq!(bytes, b"", "it was answered");
            ending
        }
        Err(_) => Ending::Rst,
    }
}

/// A connection from there that the raw node has greeted.
async fn served(number: u8, address: SocketAddr) -> TcpStream {
    let mut stream = from(number, address).await.expect("connect");
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    stream
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

/// The status of a request from there, and the connection.
async fn asked(number: u8, address: SocketAddr) -> (u16, TcpStream) {
    let mut stream = from(number, address).await.expect("connect");
    let answer = http_on(&mut stream, GET).await;
    (answer.status, stream)
}

/// A raw listener `raw` and a websocket listener `web`, both with these keys.
async fn both(keys: &str) -> (Balancer, [Node; 2]) {
    let nodes = [Node::echo("n1").await, Node::web("n1").await];
    (Balancer::start(&config(keys, &nodes)), nodes)
}

fn config(keys: &str, [raw, web]: &[Node; 2]) -> String {
    "[access_log]\noutput = \"stdout\"\n\n".to_owned()
        + &listener_with("raw", "tcp", "raw", keys)
        + &listener_with("web", "websocket", "web", keys)
        + &pool("raw", "", &[backend("n1", raw.address)])
        + &pool("web", "", &[backend("n1", web.address)])
}

/// Refused by one listener for one reason, by the metrics.
async fn refused(balancer: &Balancer, listener: &str, reason: &str) -> f64 {
    let listener = format!("listener=\"{listener}\"");
    let reason = format!("reason=\"{reason}\"");
    let name = "evenkeel_listener_refused_connections_total";
    balancer.metric(&[name, &listener, &reason]).await
}

/// Waits for the access-log line of a connection that was kept out.
async fn told_of(balancer: &Balancer, listener: &str, how: &str) -> Value {
    let what = format!("the end of one that {listener} kept out");
    balancer
        .access(&what, |line| {
            line["listener"] == listener
                && line["end"]["side"] == "evenkeel"
                && line["end"]["phase"] == "accept"
                && line["end"]["how"] == how
        })
        .await
}

fn warnings(balancer: &Balancer) -> Vec<String> {
    let lines = balancer.log.all();
    let warns = |line: &&String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    lines.iter().filter(warns).cloned().collect()
}

#[tokio::test]
async fn a_denied_client_is_reset_and_counted_and_logged_at_debug_only() {
    let keys = "allow = [\"127.0.0.0/28\"]\ndeny = [\"127.0.0.2\", \"127.0.0.4/31\"]";
    let (balancer, nodes) = both(keys).await;
    let (raw, web) = (balancer.address("raw").await, balancer.address("web").await);
    let _served = served(1, raw).await;
    assert_eq!(asked(1, web).await.0, 200);
    // Denied; denied by network; not among the allowed.
    for client in [2, 5, 16] {
        assert_eq!(ended(client, raw).await, Ending::Rst, "127.0.0.{client}");
        assert_eq!(ended(client, web).await, Ending::Rst, "127.0.0.{client}");
    }
    for listener in ["raw", "web"] {
        let told = told_of(&balancer, listener, "refused").await;
        assert!(
            told["client"]
                .as_str()
                .is_some_and(|at| at.starts_with("127.0.0.")),
            "{told}"
        );
        assert_eq!(refused(&balancer, listener, "denied").await, 3.0);
    }
    assert_eq!(nodes.each_ref().map(Node::accepted), [1, 1]);
    assert_eq!(warnings(&balancer), Vec::<String>::new());
}

#[tokio::test]
async fn access_lists_follow_a_reload_and_live_connections_stay() {
    let (balancer, nodes) = both("").await;
    let raw = balancer.address("raw").await;
    let mut held = served(1, raw).await;
    balancer
        .reload(&config("deny = [\"127.0.0.1\"]", &nodes))
        .await;
    assert_eq!(ended(1, raw).await, Ending::Rst);
    crate::clients::echoed(&mut held, b"still here").await;
    let _other = served(2, raw).await;
}

#[tokio::test]
async fn a_denied_client_of_a_tls_listener_is_reset_before_the_handshake() {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let node = Node::echo("n1").await;
    let keys = format!(
        "tls = {{ certificates = [{}] }}\ndeny = [\"127.0.0.1\"]",
        certificate.toml()
    );
    let text = listener_with("main", "tcp", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&text);
    assert_eq!(ended(1, balancer.address("main").await).await, Ending::Rst);
    assert_eq!(refused(&balancer, "main", "denied").await, 1.0);
}

#[tokio::test]
async fn a_route_that_denies_answers_403_and_no_other_route_is_tried() {
    let node = Node::web("n1").await;
    let route = "[[listener.route]]\npath = \"/a\"\npool = \"web\"\nallow = [\"127.0.0.1\"]\n\
                 [[listener.route]]\npath = \"/\"\npool = \"web\"\n";
    let text = listener_with("web", "websocket", "web", route)
        + &pool("web", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&text);
    let web = balancer.address("web").await;
    assert_eq!(asked(1, web).await.0, 200);
    let (status, mut stream) = asked(2, web).await;
    assert_eq!(status, 403);
    // The connection goes on: another path is not forbidden.
    let other = http_on(&mut stream, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(other.status, 200);
    let upgrade = from(2, web).await.expect("connect");
    let denied = websocket_over(upgrade, &format!("ws://{web}/a")).await;
    let denied = denied.err().map(|error| error.to_string());
    assert!(
        denied.as_ref().is_some_and(|error| error.contains("403")),
        "{denied:?}"
    );
    assert_eq!(refused(&balancer, "web", "denied").await, 2.0);
}

/// Spellings of `/admin` that one server or another takes for it.
const ADMIN: [&str; 21] = [
    "/admin",
    "//admin",
    "/./admin",
    "/%61dmin",
    "/%61%64%6D%69%6e/x",
    "/admin;x=1",
    "/admin;x=1/y",
    "/;x/admin",
    "/x/../admin",
    "/x/%2e%2e/admin",
    "/x/.%2E/./admin",
    "/x/..;/admin",
    "/open/../admin",
    "/../admin",
    "/ADMIN",
    "/Admin/",
    "/%41dmin",
    "/%2561dmin",
    "/%252561dmin",
    "/x/%252e%252e/admin",
    "///x//..//%2e//%61DMIN;a=/x",
];

/// Spellings with a separator that only some servers see.
const HIDDEN: [&str; 7] = [
    "/admin%2f",
    "/admin%2Fx",
    "/x%2f..%2fadmin",
    "/admin%5cx",
    "/x\\..\\admin",
    "/admin%00",
    "/open/..%5C../admin%00.png",
];

/// A listener `web` of pool `open` whose route `/admin` leads 127.0.0.1 alone to pool `admin`, and
/// a listener `plain` with the same route for everybody.
async fn guarded(keys: &str) -> (Balancer, [Node; 2]) {
    let nodes = [Node::web("admin").await, Node::web("open").await];
    let open = "[[listener.route]]\npath = \"/open\"\npool = \"open\"\n";
    let admin = "[[listener.route]]\npath = \"/admin\"\npool = \"admin\"\n";
    let guard = format!("{keys}\n{open}{admin}allow = [\"127.0.0.1\"]\n");
    let text = "[access_log]\noutput = \"stdout\"\n\n".to_owned()
        + &listener_with("web", "websocket", "open", &guard)
        + &listener_with("plain", "websocket", "open", &format!("{open}{admin}"))
        + &pool("admin", "", &[backend("n1", nodes[0].address)])
        + &pool("open", "", &[backend("n1", nodes[1].address)]);
    (Balancer::start(&text), nodes)
}

/// The status for `target` from there, and the node's name and the target that it was sent.
async fn got(number: u8, address: SocketAddr, target: &str) -> (u16, Value) {
    let mut stream = from(number, address).await.expect("connect");
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = http_on(&mut stream, &request).await;
    let page = match answer.status {
        200 => answer.json(),
        _ => Value::Null,
    };
    (answer.status, page)
}

// `/admin` was kept from a client that was let in by `//admin`.
#[tokio::test]
async fn no_spelling_of_a_path_passes_its_guard() {
    let (balancer, [admin, open]) = guarded("").await;
    let web = balancer.address("web").await;
    for target in ADMIN {
        assert_eq!(got(2, web, target).await.0, 403, "{target}");
        let (status, page) = got(1, web, target).await;
        assert_eq!((status, &page["node"]), (200, &"admin".into()), "{target}");
        assert_eq!(page["target"], target, "it goes on as it came");
    }
    // A server that resolves no dot segments, or to which `//` is no `/`, would take these for the guarded path.
    let others = ["/admin/../open", "/admin/..;/x", "/x/../admin//../y"];
    for target in others {
        assert_eq!(got(2, web, target).await.0, 403, "{target}");
    }
    let denied = refused(&balancer, "web", "denied").await;
    assert_eq!(denied, (ADMIN.len() + others.len()) as f64);
    for target in [
        "/",
        "/administrator",
        "/x/admin",
        "/admin/../open",
        "/open/%20",
    ] {
        let (status, page) = got(1, web, target).await;
        assert_eq!((status, &page["node"]), (200, &"open".into()), "{target}");
        assert_eq!(page["target"], target);
    }
    let heads = [admin, open].map(|node| node.heads.lock().expect("heads").len());
    assert_eq!(heads, [ADMIN.len(), 5]);
}

#[tokio::test]
async fn hidden_separators_are_refused_where_a_path_is_guarded() {
    let (balancer, nodes) = guarded("").await;
    let (web, plain) = (
        balancer.address("web").await,
        balancer.address("plain").await,
    );
    for target in HIDDEN.into_iter().chain(["/open/a%2Fb"]) {
        for client in [1, 2] {
            assert_eq!(got(client, web, target).await.0, 400, "{target}");
        }
        // Nobody is kept out by path there.
        let (status, page) = got(2, plain, target).await;
        assert_eq!((status, &page["target"]), (200, &target.into()));
    }
    let told = balancer
        .access("a refused path", |line| line["path"] == "/open/a%2Fb")
        .await;
    assert_eq!(told["end"]["how"], "refused", "{told}");
    assert_eq!(refused(&balancer, "web", "encoded_slash").await, 16.0);
    assert_eq!(refused(&balancer, "plain", "encoded_slash").await, 0.0);
    let heads = nodes
        .each_ref()
        .map(|node| node.heads.lock().expect("heads").len());
    assert_eq!(heads.iter().sum::<usize>(), 8);
    // The connection goes on behind a refused request.
    let mut stream = from(2, web).await.expect("connect");
    let bad = "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(http_on(&mut stream, bad).await.status, 400);
    assert_eq!(http_on(&mut stream, GET).await.status, 200);
}

#[tokio::test]
async fn hidden_separators_pass_where_told_to_but_never_a_guard() {
    let (balancer, _nodes) = guarded("encoded_slash = \"pass\"").await;
    let web = balancer.address("web").await;
    for target in HIDDEN {
        assert_eq!(got(2, web, target).await.0, 403, "{target}");
    }
    let target = "/api/queues/%2f/jobs";
    let (status, page) = got(2, web, target).await;
    assert_eq!((status, &page["node"]), (200, &"open".into()));
    assert_eq!(page["target"], target);
    assert_eq!(refused(&balancer, "web", "encoded_slash").await, 0.0);
}

#[tokio::test]
async fn an_upgrade_by_another_spelling_meets_the_same_guard() {
    let (balancer, nodes) = guarded("").await;
    let web = balancer.address("web").await;
    let upgrade = async |client, path: &str| {
        let stream = from(client, web).await.expect("connect");
        websocket_over(stream, &format!("ws://{web}{path}")).await
    };
    for (path, status) in [
        ("//ADMIN/chat", "403"),
        ("/x/%2e%2e/admin", "403"),
        ("/a%5cb", "400"),
    ] {
        let denied = upgrade(2, path).await.err().map(|error| error.to_string());
        let told = denied.as_ref().is_some_and(|error| error.contains(status));
        assert!(told, "{path}: {denied:?}");
    }
    let (mut session, _) = upgrade(1, "//%61dmin/chat").await.expect("a session");
    assert_eq!(crate::clients::node_of(&mut session).await, "admin");
    let heads = nodes[0].heads.lock().expect("heads").clone();
    assert!(
        heads[0].starts_with("GET //%61dmin/chat HTTP/1.1\r\n"),
        "{heads:?}"
    );
}

#[tokio::test]
async fn a_route_of_a_tcp_listener_that_denies_resets() {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let node = Node::echo("n1").await;
    let keys = format!(
        "tls = {{ certificates = [{}] }}\nroute = [{{ sni = \"a.example\", pool = \"nodes\", deny = [\"127.0.0.1\"] }}]",
        certificate.toml()
    );
    let text = listener_with("main", "tcp", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&text);
    let main = balancer.address("main").await;
    // The handshake is done: the route is known by its name.
    let mut denied = crate::clients::tls(main, "a.example", &client(&[&certificate]))
        .await
        .expect("a handshake");
    let (bytes, ending) = read_to_ending(&mut denied).await;
    assert_eq!((bytes.as_slice(), ending), (&b""[..], Ending::Rst));
    assert_eq!(refused(&balancer, "main", "denied").await, 1.0);
    assert_eq!(node.accepted(), 0);
}

/// At most two live connections by `keys`, which refuse for `reason`.
async fn two_at_once(keys: &str, reason: &str) -> (Balancer, [Node; 2]) {
    let (balancer, nodes) = both(keys).await;
    let (raw, web) = (balancer.address("raw").await, balancer.address("web").await);
    let mut held = vec![served(1, raw).await, served(1, raw).await];
    assert_eq!(ended(1, raw).await, Ending::Rst, "a third");
    drop(held.pop());
    // Its end is known here before it is there.
    within("a place", async {
        loop {
            let mut stream = match from(1, raw).await {
                Ok(stream) => stream,
                Err(_) => continue,
            };
            if read_line(&mut stream).await.is_ok_and(|line| line == "n1") {
                return held.push(stream);
            }
        }
    })
    .await;
    let _kept = [asked(1, web).await, asked(1, web).await];
    assert_eq!(ended(1, web).await, Ending::Rst, "a third");
    let session = from(1, web).await;
    assert!(session.is_err() || read_to_ending(&mut session.expect("open")).await.1 == Ending::Rst);
    assert!(refused(&balancer, "raw", reason).await >= 1.0);
    assert_eq!(refused(&balancer, "web", reason).await, 2.0);
    told_of(&balancer, "raw", "full").await;
    told_of(&balancer, "web", "full").await;
    (balancer, nodes)
}

#[tokio::test]
async fn a_listener_has_a_limit_of_connections() {
    let (balancer, _nodes) = two_at_once("max_connections = 2", "max_connections").await;
    let status = balancer.get("/api/v1/status").await.json();
    let web = &status["listeners"][1];
    assert_eq!(web["refused"], 2, "{web}");
    let warned = warnings(&balancer);
    assert_eq!(warned.len(), 2, "one for each listener: {warned:?}");
    assert!(
        warned
            .iter()
            .all(|line| line.contains("\"limit\":\"max_connections\""))
    );
    let (_, status, _) = balancer
        .command(&[
            "status",
            "--admin",
            &balancer.address("admin").await.to_string(),
        ])
        .await;
    assert!(status.contains("refused"), "{status}");
}

#[tokio::test]
async fn a_source_has_a_limit_of_connections_and_others_do_not_feel_it() {
    let keys = "per_source = { max_connections = 2 }";
    let (balancer, _nodes) = two_at_once(keys, "per_source.max_connections").await;
    let _other = served(2, balancer.address("raw").await).await;
    assert_eq!(asked(2, balancer.address("web").await).await.0, 200);
}

#[tokio::test]
async fn a_source_is_a_network_where_the_operator_says_so() {
    let keys = "per_source = { max_connections = 1, v4_prefix = 30 }";
    let (balancer, _nodes) = both(keys).await;
    let raw = balancer.address("raw").await;
    let _held = served(1, raw).await;
    assert_eq!(ended(2, raw).await, Ending::Rst, "of the same network");
    let _other = served(4, raw).await;
}

// A session's place moves from the set-up plane to the relay, and must be counted once all the while.
#[tokio::test]
async fn a_websocket_session_counts_for_its_source_until_it_ends() {
    let (balancer, _nodes) = both("per_source = { max_connections = 1 }").await;
    let web = balancer.address("web").await;
    let stream = from(1, web).await.expect("connect");
    let (mut session, _) = websocket_over(stream, &format!("ws://{web}/"))
        .await
        .expect("a session");
    assert_eq!(crate::clients::node_of(&mut session).await, "n1");
    assert_eq!(ended(1, web).await, Ending::Rst);
    drop(session);
    within("its place", async {
        loop {
            let stream = from(1, web).await;
            let Ok(stream) = stream else { continue };
            if websocket_over(stream, &format!("ws://{web}/"))
                .await
                .is_ok()
            {
                return;
            }
        }
    })
    .await;
}

/// Of ten that come at once three are served, and a fourth when a third of the time has passed.
async fn three_in_three_seconds(keys: &str, reason: &str) -> (Balancer, [Node; 2]) {
    let (balancer, nodes) = both(keys).await;
    let raw = balancer.address("raw").await;
    let began = Instant::now();
    let mut served = 0;
    for _ in 0..10 {
        if let Ok(mut stream) = from(1, raw).await
            && read_line(&mut stream).await.is_ok_and(|line| line == "n1")
        {
            served += 1;
        }
    }
    let took = began.elapsed();
    assert!(
        served >= 3 && served <= 3 + took.as_secs(),
        "{served} in {took:?}"
    );
    assert!(refused(&balancer, "raw", reason).await >= (10 - served) as f64);
    within("the next one", async {
        while ended_or_served(raw).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    (balancer, nodes)
}

async fn ended_or_served(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = from(1, address).await.ok()?;
    let line = read_line(&mut stream).await.ok()?;
    (line == "n1").then_some(stream)
}

#[tokio::test]
async fn a_listener_has_a_limit_of_its_rate() {
    three_in_three_seconds("max_connection_rate = \"3/3s\"", "max_connection_rate").await;
}

#[tokio::test]
async fn a_source_has_a_limit_of_its_rate_and_others_do_not_feel_it() {
    let keys = "per_source = { max_connection_rate = \"3/3s\" }";
    let (balancer, _nodes) = three_in_three_seconds(keys, "per_source.max_connection_rate").await;
    let _other = served(2, balancer.address("raw").await).await;
}

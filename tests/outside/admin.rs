//! The admin endpoint from outside: every route against every kind of misuse, and what its answers hold.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::{Certificate, client};
use crate::clients::{connect, greeted, http_on, read_answer, read_to_ending, tls};
use crate::harness::{Balancer, Event, Launch, raw_request};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool, simple};

const READS: [&str; 9] = [
    "/api/v1/status",
    "/api/v1/listeners",
    "/api/v1/pools",
    "/api/v1/pools/nodes",
    "/api/v1/pools/nodes/backends/n1",
    "/api/v1/connections",
    "/healthz",
    "/readyz",
    "/metrics",
];

const CHANGES: [(&str, &str, &str); 5] = [
    ("POST", "/api/v1/pools/nodes/backends/n1/drain", "{}"),
    ("POST", "/api/v1/pools/nodes/backends/n1/ready", "{}"),
    ("POST", "/api/v1/pools/nodes/backends/n1/maint", "{}"),
    (
        "PUT",
        "/api/v1/pools/nodes/backends/n1/weight",
        "{\"weight\": 3}",
    ),
    ("POST", "/api/v1/reload", "{}"),
];

/// Every route with its method and a body that it takes.
fn routes() -> Vec<(&'static str, &'static str, &'static str)> {
    READS
        .into_iter()
        .map(|path| ("GET", path, ""))
        .chain(CHANGES)
        .collect()
}

fn request(method: &str, path: &str, host: &str, more: &str, body: &str) -> String {
    let content = if method == "GET" {
        String::new()
    } else {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}{content}Connection: close\r\n\r\n{body}"
    )
}

async fn started() -> (Balancer, SocketAddr, Node) {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let admin = balancer.address("admin").await;
    (balancer, admin, node)
}

/// Nothing was changed by whatever the test sent.
async fn assert_unchanged(balancer: &Balancer) {
    let seen = balancer.backend("nodes", "n1").await;
    assert_eq!(
        (&seen["operator"], &seen["weight"]),
        (&"ready".into(), &1.into()),
        "{seen}"
    );
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["configuration"]["reloads_ok"], 0, "{status}");
}

#[tokio::test]
async fn every_route_answers() {
    let (_balancer, admin, _node) = started().await;
    for (method, path, body) in routes() {
        let answer = raw_request(
            admin,
            request(method, path, &admin.to_string(), "", body).as_bytes(),
        )
        .await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        if path.starts_with("/api/") {
            assert!(
                answer
                    .head
                    .to_ascii_lowercase()
                    .contains("content-type: application/json"),
                "{}",
                answer.head
            );
            answer.json();
        }
    }
}

#[tokio::test]
async fn every_route_refuses_a_foreign_host() {
    let (balancer, admin, _node) = started().await;
    for (method, path, body) in routes() {
        for host in [
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "localhost:1",
            "",
            "10.0.0.1",
        ] {
            let answer = raw_request(admin, request(method, path, host, "", body).as_bytes()).await;
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path} as {host:?}: {}",
                answer.status
            );
        }
        let without = request(method, path, "x", "", body).replace("Host: x\r\n", "");
        let answer = raw_request(admin, without.as_bytes()).await;
        assert!(
            (400..500).contains(&answer.status),
            "{method} {path} without Host: {}",
            answer.status
        );
    }
    assert_unchanged(&balancer).await;
}

#[tokio::test]
async fn every_route_refuses_a_foreign_origin() {
    let (balancer, admin, _node) = started().await;
    let host = admin.to_string();
    for (method, path, body) in routes() {
        for origin in [
            "https://evil.example",
            "http://127.0.0.1:1",
            "null",
            "http://localhost.evil.example",
        ] {
            let more = format!("Origin: {origin}\r\n");
            let answer =
                raw_request(admin, request(method, path, &host, &more, body).as_bytes()).await;
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path} from {origin}: {}",
                answer.status
            );
        }
    }
    assert_unchanged(&balancer).await;
}

#[tokio::test]
async fn no_change_is_made_by_a_get_or_without_json() {
    let (balancer, admin, _node) = started().await;
    let host = admin.to_string();
    for (method, path, body) in CHANGES {
        for wrong in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            let answer = raw_request(
                admin,
                request("GET", path, &host, "", "")
                    .replace("GET", wrong)
                    .as_bytes(),
            )
            .await;
            assert_eq!(answer.status, 405, "{wrong} {path}");
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            let form = request(method, path, &host, "", body).replace("application/json", kind);
            let answer = raw_request(admin, form.as_bytes()).await;
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path} as {kind}: {}",
                answer.status
            );
        }
        let bad = raw_request(
            admin,
            request(method, path, &host, "", "{not json").as_bytes(),
        )
        .await;
        assert!(
            (400..500).contains(&bad.status),
            "{method} {path} with a broken body: {}",
            bad.status
        );
        let unknown = raw_request(
            admin,
            request(method, path, &host, "", "{\"wieght\": 1}").as_bytes(),
        )
        .await;
        assert!(
            (400..500).contains(&unknown.status),
            "{method} {path} with an unknown key: {}",
            unknown.status
        );
    }
    assert_unchanged(&balancer).await;
}

#[tokio::test]
async fn every_route_refuses_an_oversized_body_and_an_oversized_head() {
    let (balancer, admin, _node) = started().await;
    let host = admin.to_string();
    for (method, path, _) in CHANGES {
        let body = format!("{{\"x\": \"{}\"}}", "x".repeat(300_000));
        let answer = raw_request(admin, request(method, path, &host, "", &body).as_bytes()).await;
        assert_eq!(answer.status, 413, "{method} {path}: {}", answer.body);
        let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
        let chunked = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"
        );
        let answer = raw_request(admin, chunked.as_bytes()).await;
        assert_eq!(
            answer.status, 413,
            "{method} {path} in chunks: {}",
            answer.body
        );
    }
    for (method, path, body) in routes() {
        let more = format!("X-Long: {}\r\n", "x".repeat(200_000));
        let answer = raw_request(admin, request(method, path, &host, &more, body).as_bytes()).await;
        assert!(
            answer.status == 431 || answer.status == 400 || answer.status == 0,
            "{method} {path}: {}",
            answer.status
        );
    }
    assert_unchanged(&balancer).await;
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_have_an_end_and_block_nobody() {
    let (balancer, admin, _node) = started().await;
    let mut slow = Vec::new();
    for (method, path, _) in CHANGES {
        let mut stream = connect(admin).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.expect("write");
        slow.push(stream);
    }
    for _ in 0..5 {
        let mut stream = connect(admin).await;
        stream
            .write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: ")
            .await
            .expect("write");
        slow.push(stream);
        // One that says nothing at all.
        slow.push(connect(admin).await);
    }
    assert_eq!(
        balancer.get("/api/v1/status").await.status,
        200,
        "slow clients block the others"
    );
    for mut stream in slow {
        let (answer, _) = read_to_ending(&mut stream).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_unchanged(&balancer).await;
}

// 64 clients that said nothing locked out probes and the operator until their time was over.
#[tokio::test]
async fn silent_connections_give_their_places_to_others() {
    let (balancer, admin, _node) = started().await;
    let mut silent = Vec::new();
    for _ in 0..70 {
        let mut stream = connect(admin).await;
        // Half a head is silence, too.
        stream.write_all(b"GET /heal").await.expect("write");
        silent.push(stream);
    }
    for path in ["/healthz", "/api/v1/status"] {
        assert_eq!(balancer.get(path).await.status, 200, "{path}");
    }
    // The youngest are still there: nobody waited for the time of all of them to be over.
    let mut youngest = silent.pop().expect("a connection");
    let rest = format!("thz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    assert_eq!(http_on(&mut youngest, &rest).await.status, 200);
    let (answer, _) = read_to_ending(&mut silent[0]).await;
    assert_eq!(String::from_utf8_lossy(&answer), "", "the oldest left");
    let left = ["endpoint_refused", "admin", "silent"];
    assert!(balancer.metric(&left).await >= 6.0, "it is counted");
}

// A flood goes on after the places are taken.
#[tokio::test]
async fn a_flood_of_silence_delays_nobody() {
    let (balancer, admin, _node) = started().await;
    let flood = tokio::spawn(async move {
        let mut silent = std::collections::VecDeque::new();
        loop {
            silent.push_back(TcpStream::connect(admin).await);
            if silent.len() > 200 {
                silent.pop_front();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(balancer.get("/healthz").await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{begun:?}");
    flood.abort();
}

/// How a connection from this loopback address is answered; `None`: it is reset.
async fn status_from(number: u8, address: SocketAddr, path: &str) -> Option<u16> {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let source = SocketAddr::from(([127, 0, 0, number], 0));
    socket.bind(source).expect("bind");
    // It may be reset already, before the connect is told of or behind it.
    let mut stream = match socket.connect(address).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
        connected => connected.expect("connect"),
    };
    let text = request("GET", path, &address.to_string(), "", "");
    let _ = stream.write_all(text.as_bytes()).await;
    let (answer, _) = read_to_ending(&mut stream).await;
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn endpoints_take_only_clients_that_their_lists_admit() {
    let node = Node::echo("n1").await;
    let lists = |allowed: u8| {
        simple("tcp", "", &[&node])
            + &format!(
                "[admin]\nbind = \"127.0.0.1:0\"\nallow = [\"127.0.0.1\", \"127.0.0.{allowed}\"]\n\
                 [metrics]\nbind = \"127.0.0.1:0\"\ndeny = [\"127.0.0.{allowed}\"]\n"
            )
    };
    let balancer = Balancer::start(&lists(2));
    let (admin, metrics) = (
        balancer.address("admin").await,
        balancer.address("metrics").await,
    );
    for (client, of_admin, of_metrics) in [
        (1, Some(200), Some(200)),
        (2, Some(200), None),
        (3, None, Some(200)),
    ] {
        let status = status_from(client, admin, "/healthz").await;
        assert_eq!(status, of_admin, "{client}");
        let status = status_from(client, metrics, "/metrics").await;
        assert_eq!(status, of_metrics, "{client}");
    }
    for endpoint in ["admin", "metrics"] {
        let denied = ["endpoint_refused", endpoint, "denied"];
        assert_eq!(balancer.metric(&denied).await, 1.0, "{endpoint}");
    }
    // A reload changes the next connection.
    balancer.reload(&lists(3)).await;
    assert_eq!(status_from(3, admin, "/healthz").await, Some(200));
    assert_eq!(status_from(2, admin, "/healthz").await, None);
    assert_eq!(status_from(3, metrics, "/metrics").await, None);
}

#[tokio::test]
async fn unknown_routes_pools_and_backends_are_404() {
    let (balancer, _, _node) = started().await;
    for path in [
        "/index.html",
        "/api/v2/",
        "/api/v1/nothing",
        "/api/v1/pools/none",
        "/api/v1/pools/nodes/backends/none",
        "/../etc",
    ] {
        let answer = balancer.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
    }
    for path in [
        "/api/v1/pools/none/backends/n1/drain",
        "/api/v1/pools/nodes/backends/none/drain",
    ] {
        assert_eq!(balancer.post(path, "{}").await.status, 404, "{path}");
    }
    let bad = balancer
        .post("/api/v1/pools/nodes/backends/n1/drain?wait=soon", "{}")
        .await;
    assert_eq!(bad.status, 400, "{}", bad.body);
    let heavy = balancer
        .change(
            "PUT",
            "/api/v1/pools/nodes/backends/n1/weight",
            "{\"weight\": 257}",
        )
        .await;
    assert_eq!(heavy.status, 400, "{}", heavy.body);
    assert_unchanged(&balancer).await;
}

#[tokio::test]
async fn waits_are_bounded_in_number_and_others_are_still_answered() {
    let (balancer, admin, _node) = started().await;
    let (live, _) = greeted(balancer.address("main").await).await;
    let wait = request(
        "POST",
        "/api/v1/pools/nodes/backends/n1/drain?wait=60s",
        &admin.to_string(),
        "",
        "{}",
    );
    let mut waiting = Vec::new();
    for _ in 0..300 {
        let Ok(mut stream) = TcpStream::connect(admin).await else {
            break;
        };
        if stream.write_all(wait.as_bytes()).await.is_err() {
            break;
        }
        waiting.push(stream);
    }
    // Not asked for: at the bound a question may find no room either.
    let told = |event: &Event| event.message() == "operator sets the state";
    balancer.event("the drain", 0, told).await;
    drop(live);
    let mut done = 0;
    let mut refused = 0;
    for stream in &mut waiting {
        match read_answer(stream).await.status {
            200 => done += 1,
            429 | 503 => refused += 1,
            0 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(done > 0, "nobody waited");
    assert!(
        refused > 0,
        "300 waits at once were all taken: there is no bound"
    );
}

#[tokio::test]
async fn a_weight_takes_effect_and_is_shown() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let balancer = Balancer::start(&simple("tcp", "", &[&n1, &n2]));
    let address = balancer.address("main").await;
    let answer = balancer
        .change(
            "PUT",
            "/api/v1/pools/nodes/backends/n2/weight",
            "{\"weight\": 3}",
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(balancer.backend("nodes", "n2").await["weight"], 3);
    let mut second = 0;
    let mut held = Vec::new();
    for _ in 0..20 {
        let (stream, name) = greeted(address).await;
        second += usize::from(name == "n2");
        held.push(stream);
    }
    assert_eq!(second, 15);
}

#[tokio::test]
async fn metrics_count_and_name_no_client() {
    let node = Node::web("n1").await;
    let config = simple("websocket", "", &[&node]) + "[metrics]\nbind = \"127.0.0.1:0\"\n";
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut stream = connect(address).await;
    for _ in 0..5 {
        assert_eq!(
            http_on(
                &mut stream,
                "GET /private?token=secret HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            .await
            .status,
            200
        );
    }
    let port = stream.local_addr().expect("an address").port();
    let page = balancer.get("/metrics").await.body;
    assert!(page.contains("# TYPE") && page.contains("# HELP"), "{page}");
    assert!(
        page.lines()
            .any(|line| line.contains("evenkeel_") && line.contains("n1")),
        "{page}"
    );
    for secret in ["/private", "secret", &format!(":{port}")] {
        assert!(!page.contains(secret), "{secret} is on the metrics page");
    }
    let requests = balancer
        .metric(&["evenkeel_", "requests_total", "main"])
        .await;
    assert_eq!(requests, 5.0, "{page}");
    // The same page is open to scrapers on its own address, read-only and nothing else.
    let metrics = balancer.address("metrics").await;
    let scraped = raw_request(
        metrics,
        b"GET /metrics HTTP/1.1\r\nHost: prometheus.internal\r\nConnection: close\r\n\r\n",
    );
    let scraped = scraped.await;
    assert_eq!(scraped.status, 200);
    assert!(scraped.body.contains("evenkeel_"));
    for path in ["/healthz", "/readyz"] {
        let probe =
            format!("GET {path} HTTP/1.1\r\nHost: 10.0.0.1:9901\r\nConnection: close\r\n\r\n");
        assert_eq!(
            raw_request(metrics, probe.as_bytes()).await.status,
            200,
            "{path}"
        );
    }
    for (method, path, body) in CHANGES {
        let answer = raw_request(
            metrics,
            request(method, path, &metrics.to_string(), "", body).as_bytes(),
        )
        .await;
        assert!(
            answer.status == 404 || answer.status == 405,
            "{method} {path}: {}",
            answer.status
        );
    }
    let answer = raw_request(
        metrics,
        request("GET", "/api/v1/status", "x", "", "").as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 404);
}

/// A page was made as a whole before: with many backends it held a thread and megabytes.
#[tokio::test]
async fn metrics_of_many_backends_come_in_chunks_and_can_be_left_out() {
    const COUNT: usize = 2_000;
    let backends: Vec<String> = (0..COUNT)
        .map(|n| backend(&format!("n{n}"), "127.0.0.1:9"))
        .collect();
    let config = listener("main", "tcp", "nodes")
        + &pool("nodes", "", &backends)
        + "[metrics]\nbind = \"127.0.0.1:0\"\nper_backend = false\n";
    let balancer = Balancer::start(&config);
    let whole = balancer.get("/metrics").await;
    let head = whole.head.to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let rows = |page: &str, name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(rows(&whole.body, "evenkeel_backend_weight{"), COUNT);
    assert_eq!(rows(&whole.body, "evenkeel_backend_state{"), 6 * COUNT);
    let metrics = balancer.address("metrics").await;
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let short = raw_request(metrics, request).await;
    assert_eq!(rows(&short.body, "evenkeel_backend_"), 0);
    let up = format!("evenkeel_pool_backends{{pool=\"nodes\",state=\"up\"}} {COUNT}");
    assert!(short.body.lines().any(|line| line == up), "{}", short.body);
    // A scraper that goes away in the middle of its page holds nothing up.
    let mut gone = connect(balancer.address("admin").await).await;
    let half = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n",
        balancer.address("admin").await
    );
    gone.write_all(half.as_bytes()).await.expect("written");
    gone.read_u8().await.expect("the page has begun");
    drop(gone);
    assert_eq!(balancer.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn off_loopback_it_refuses_to_start_without_tls_and_a_token() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]) + "[admin]\nbind = \"0.0.0.0:0\"\n";
    let balancer = Balancer::start(&config);
    assert_eq!(balancer.exit().await.code(), Some(1));
    let log = balancer.log.all().join("\n");
    assert!(log.contains("token") && log.contains("tls"), "{log}");
}

#[tokio::test]
async fn off_loopback_it_answers_over_tls_to_its_token_only() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "admin", &["admin.example"]);
    std::fs::write(launch.path("token"), "correct-horse-battery-staple\n").expect("write");
    let config = simple("tcp", "", &[&node])
        + &format!(
            "[admin]\nbind = \"0.0.0.0:0\"\ntls = {}\ntoken_file = \"token\"\nallowed_hosts = [\"admin.example\"]\n",
            certificate.toml()
        );
    let balancer = launch.start(&config);
    let port = balancer.address("admin").await.port();
    let admin = SocketAddr::from(([127, 0, 0, 1], port));
    let config = client(&[&certificate]);
    for (authorization, status) in [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer correct-horse-battery-stapl\r\n", 401),
        ("Authorization: Basic correct-horse-battery-staple\r\n", 401),
        (
            "Authorization: Bearer correct-horse-battery-staple\r\n",
            200,
        ),
    ] {
        let mut stream = tls(admin, "admin.example", &config).await.expect("TLS");
        let request = request("GET", "/api/v1/status", "admin.example", authorization, "");
        assert_eq!(
            http_on(&mut stream, &request).await.status,
            status,
            "{authorization}"
        );
    }
    let plain = raw_request(
        admin,
        request("GET", "/api/v1/status", "admin.example", "", "").as_bytes(),
    )
    .await;
    assert_ne!(plain.status, 200, "it answers without TLS");
}

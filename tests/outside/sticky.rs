//! The sticky cookie: who it brings back where, and what becomes of one that is worth nothing.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::clients::{http, http_on, node_of, reset};
use crate::harness::{Answer, Balancer, Launch, run, within};
use crate::nodes::{Node, read_request};
use crate::settings::{backend, backend_with, listener, pool};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "//////////////////////////////////////////8=";

/// Answers every request with its name, and what it saw of cookies; one for `/hold` never.
async fn page_node(name: &'static str) -> Node {
    Node::scripted(move |mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            if request.target == "/hold" {
                std::future::pending::<()>().await;
            }
            let cookies = request.header("cookie").unwrap_or("none").to_owned();
            let body = format!("{name} saw {cookies}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

fn sticky(keys: &str, backends: &[String]) -> String {
    let keys = format!("sticky = {{ key_file = \"sticky.key\"{keys} }}");
    listener("main", "websocket", "nodes") + &pool("nodes", &keys, backends)
}

fn three(nodes: &[Node]) -> Vec<String> {
    let names = ["n1", "n2", "n3"];
    let pairs = names.iter().zip(nodes);
    pairs
        .map(|(name, node)| backend(name, node.address))
        .collect()
}

async fn nodes() -> Vec<Node> {
    vec![
        page_node("n1").await,
        page_node("n2").await,
        page_node("n3").await,
    ]
}

fn start(config: &str, key: &str) -> Balancer {
    let launch = Launch::new();
    std::fs::write(launch.path("sticky.key"), key).unwrap();
    launch.start(config)
}

async fn get(address: SocketAddr, cookie: Option<&str>) -> Answer {
    let cookie = cookie.map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
    http(
        address,
        &format!("GET / HTTP/1.1\r\nHost: a\r\n{cookie}Connection: close\r\n\r\n"),
    )
    .await
}

/// The value of our cookie that the answer sets, with its name.
fn set_cookie(answer: &Answer) -> Option<String> {
    let mut lines = answer.head.lines();
    let line = lines.find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie").then_some(value)
    })?;
    line.split(';').next().map(str::to_owned)
}

fn name(answer: &Answer) -> &str {
    answer.body.split(' ').next().unwrap_or_default()
}

#[tokio::test]
async fn a_client_comes_back_through_another_balancer_of_the_same_key() {
    let nodes = nodes().await;
    let config = sticky("", &three(&nodes));
    let (one, two) = (start(&config, KEY), start(&config, KEY));
    let (first, second) = (one.address("main").await, two.address("main").await);
    for _ in 0..6 {
        let fresh = get(first, None).await;
        let cookie = set_cookie(&fresh).unwrap_or_else(|| panic!("{}", fresh.head));
        assert!(
            fresh
                .head
                .contains("; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax\r\n"),
            "{}",
            fresh.head
        );
        for address in [first, second, second, first] {
            let again = get(address, Some(&format!("a=1; {cookie}; b=2"))).await;
            assert_eq!(name(&again), name(&fresh));
            // The backend sees the others alone, and a cookie that is good is not set anew.
            assert!(again.body.ends_with("saw a=1; b=2"), "{}", again.body);
            assert_eq!(set_cookie(&again), None);
            let alone = get(address, Some(&cookie)).await;
            assert!(alone.body.ends_with("saw none"), "{}", alone.body);
        }
    }
    let stranger = start(&config, OTHER_KEY);
    let address = stranger.address("main").await;
    let cookie = set_cookie(&get(first, None).await).unwrap();
    let answer = get(address, Some(&cookie)).await;
    assert_eq!(answer.status, 200);
    assert!(set_cookie(&answer).is_some_and(|new| new != cookie));
}

#[tokio::test]
async fn an_upgrade_gets_the_cookie_and_is_brought_back_by_it() {
    let nodes = [
        Node::web("n1").await,
        Node::web("n2").await,
        Node::web("n3").await,
    ];
    let balancer = start(&sticky("", &three(&nodes)), KEY);
    let address = balancer.address("main").await;
    let upgrade = |cookie: Option<String>| async move {
        let mut request = format!("ws://{address}/").into_client_request().unwrap();
        if let Some(cookie) = cookie {
            let headers = request.headers_mut();
            headers.insert("cookie", cookie.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, response) = client_async(request, stream).await.unwrap();
        let cookie = response.headers().get("set-cookie");
        let cookie = cookie.map(|value| value.to_str().unwrap().to_owned());
        let cookie = cookie.and_then(|value| Some(value.split(';').next()?.to_owned()));
        (node_of(&mut socket).await, cookie, socket)
    };
    let (home, cookie, _kept) = upgrade(None).await;
    assert!(cookie.is_some());
    for _ in 0..5 {
        let (node, renewed, _socket) = upgrade(cookie.clone()).await;
        assert_eq!((node, renewed), (home.clone(), None));
    }
}

#[tokio::test]
async fn a_cookie_that_is_worth_nothing_is_as_none() {
    let nodes = nodes().await;
    let balancer = start(&sticky(", ttl = \"1s\"", &three(&nodes)), KEY);
    let address = balancer.address("main").await;
    let good = set_cookie(&get(address, None).await).unwrap();
    let forged = good
        .replace("evenkeel=AQ", "evenkeel=AR")
        .replace("evenkeel=A", "evenkeel=B");
    let long = format!("evenkeel={}", "A".repeat(8_000));
    for cookie in [&forged, "evenkeel=", "evenkeel=x%00y", "evenkeel=\"", &long] {
        let answer = get(address, Some(cookie)).await;
        assert_eq!(answer.status, 200, "{cookie}");
        assert!(set_cookie(&answer).is_some(), "{cookie}");
    }
    // Behind a worthless one a good one still counts.
    let fresh = get(address, None).await;
    let both = format!("{forged}; {}", set_cookie(&fresh).unwrap());
    assert_eq!(name(&get(address, Some(&both)).await), name(&fresh));
    // In the end the good one has expired.
    let until_expired = async {
        while set_cookie(&get(address, Some(&good)).await).is_none() {
            crate::harness::a_moment().await;
        }
    };
    within("the expiry", until_expired).await;
}

#[tokio::test]
async fn a_cookie_is_renewed_in_time_but_not_on_a_draining_backend() {
    let nodes = nodes().await;
    let balancer = start(&sticky(", ttl = \"4s\"", &three(&nodes)), KEY);
    let address = balancer.address("main").await;
    let fresh = get(address, None).await;
    let (mut cookie, home) = (set_cookie(&fresh).unwrap(), name(&fresh).to_owned());
    let renewed = async {
        loop {
            let answer = get(address, Some(&cookie)).await;
            assert_eq!(name(&answer), home);
            match set_cookie(&answer) {
                Some(renewed) => return renewed,
                None => crate::harness::a_moment().await,
            }
        }
    };
    let renewed = within("a renewal", renewed).await;
    assert_ne!(renewed, cookie);
    cookie = renewed;
    let path = format!("/api/v1/pools/nodes/backends/{home}/drain");
    assert_eq!(balancer.post(&path, "{}").await.status, 200);
    let mut kept = 0;
    let moved = async {
        loop {
            let answer = get(address, Some(&cookie)).await;
            if name(&answer) != home {
                return answer;
            }
            assert_eq!(set_cookie(&answer), None);
            kept += 1;
            crate::harness::a_moment().await;
        }
    };
    let moved = within("the end of its cookie", moved).await;
    assert!(kept > 0 && set_cookie(&moved).is_some());
}

#[tokio::test]
async fn a_draining_backend_keeps_its_clients_and_a_removed_one_loses_them() {
    let nodes = nodes().await;
    let config = sticky("", &three(&nodes));
    let balancer = start(&config, KEY);
    let address = balancer.address("main").await;
    let fresh = get(address, None).await;
    let (cookie, home) = (set_cookie(&fresh).unwrap(), name(&fresh).to_owned());
    let operate = |word: &'static str| {
        let path = format!("/api/v1/pools/nodes/backends/{home}/{word}");
        let balancer = &balancer;
        async move { assert_eq!(balancer.post(&path, "{}").await.status, 200) }
    };
    operate("drain").await;
    for _ in 0..4 {
        assert_eq!(name(&get(address, Some(&cookie)).await), home);
        assert_ne!(name(&get(address, None).await), home);
    }
    operate("maint").await;
    let moved = get(address, Some(&cookie)).await;
    assert_ne!(name(&moved), home);
    assert!(set_cookie(&moved).is_some_and(|new| new != cookie));
    operate("ready").await;
    assert_eq!(name(&get(address, Some(&cookie)).await), home);
    // Where the pool says so, a drain moves them; a reload changes it for one that drains.
    operate("drain").await;
    balancer
        .reload(&sticky(", on_drain = \"repick\"", &three(&nodes)))
        .await;
    assert_ne!(name(&get(address, Some(&cookie)).await), home);
    balancer.reload(&config).await;
    assert_eq!(name(&get(address, Some(&cookie)).await), home);
    let left: Vec<String> = three(&nodes)
        .into_iter()
        .filter(|backend| !backend.contains(&format!("\"{home}\"")))
        .collect();
    balancer.reload(&sticky("", &left)).await;
    let moved = get(address, Some(&cookie)).await;
    assert_ne!(name(&moved), home);
    let cookie = set_cookie(&moved).unwrap();
    assert_eq!(name(&get(address, Some(&cookie)).await), name(&moved));
}

#[tokio::test]
async fn a_full_backend_and_a_dead_one_are_left_for_another() {
    let (one, two) = (page_node("n1").await, page_node("n2").await);
    let backends = [
        backend_with("n1", one.address, "max_connections = 1"),
        backend("n2", two.address),
    ];
    let balancer = start(&sticky("", &backends), KEY);
    let address = balancer.address("main").await;
    let mut cookie = None;
    while cookie.is_none() {
        let answer = get(address, None).await;
        cookie = set_cookie(&answer).filter(|_| name(&answer) == "n1");
    }
    let cookie = cookie.unwrap();
    let mut held = TcpStream::connect(address).await.unwrap();
    let hold = format!("GET /hold HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    held.write_all(hold.as_bytes()).await.unwrap();
    let is_full = |backend: &serde_json::Value| backend["live"] == 1;
    balancer.backend_until("nodes", "n1", is_full).await;
    let moved = get(address, Some(&cookie)).await;
    assert_eq!((moved.status, name(&moved)), (200, "n2"));
    assert!(set_cookie(&moved).is_some());
    // A FIN might still want its answer.
    reset(held);
    let is_empty = |backend: &serde_json::Value| backend["live"] == 0;
    balancer.backend_until("nodes", "n1", is_empty).await;
    assert_eq!(name(&get(address, Some(&cookie)).await), "n1");
    one.kill().await;
    let moved = get(address, Some(&cookie)).await;
    assert_eq!((moved.status, name(&moved)), (200, "n2"));
    assert!(set_cookie(&moved).is_some());
}

#[tokio::test]
async fn a_key_file_is_read_anew_and_a_bad_one_leaves_the_last_good_keys() {
    let nodes = nodes().await;
    let config = sticky("", &three(&nodes));
    let balancer = start(&config, KEY);
    let address = balancer.address("main").await;
    let fresh = get(address, None).await;
    let (cookie, home) = (set_cookie(&fresh).unwrap(), name(&fresh).to_owned());
    let file = balancer.path("sticky.key");
    for (bad, why) in [
        ("", "it has no key"),
        ("short", "line 1"),
        (&format!("{KEY}\n{KEY}"), "line 2"),
    ] {
        std::fs::write(&file, bad).unwrap();
        let refused = balancer.try_reload(&config).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert!(
            refused.body.contains("sticky.key") && refused.body.contains(why),
            "{}",
            refused.body
        );
        assert_eq!(
            balancer.metric(&["evenkeel_configuration_error"]).await,
            1.0
        );
        let again = get(address, Some(&cookie)).await;
        assert_eq!((name(&again), set_cookie(&again)), (home.as_str(), None));
    }
    let toml = balancer.path("balancer.toml");
    let (code, _, error) = check(&toml).await;
    assert_eq!(code, 1);
    assert!(error.contains("sticky.key"), "{error}");
    std::fs::write(&file, format!("{OTHER_KEY}\n{KEY}\n")).unwrap();
    let reloaded = balancer.reload(&config).await;
    assert_eq!(
        reloaded["summary"][0], "pool nodes: sticky keys renewed",
        "{reloaded}"
    );
    // Honoured, and renewed by the key that signs now.
    let again = get(address, Some(&cookie)).await;
    assert_eq!(name(&again), home);
    let renewed = set_cookie(&again).unwrap();
    let again = get(address, Some(&renewed)).await;
    assert_eq!((name(&again), set_cookie(&again)), (home.as_str(), None));
    assert_eq!(check(&toml).await.0, 0);
    std::fs::write(&file, OTHER_KEY).unwrap();
    balancer.reload(&config).await;
    assert!(set_cookie(&get(address, Some(&cookie)).await).is_some());
    assert_eq!(set_cookie(&get(address, Some(&renewed)).await), None);
}

async fn check(file: &Path) -> (i32, String, String) {
    let words = ["check", file.to_str().unwrap()];
    run(&words, file.parent().unwrap()).await
}

/// A kept connection has requests of several clients behind a proxy: each goes by its own cookie.
#[tokio::test]
async fn each_request_of_a_kept_connection_goes_by_its_own_cookie() {
    let nodes = nodes().await;
    let balancer = start(&sticky("", &three(&nodes)), KEY);
    let address = balancer.address("main").await;
    let mut known = Vec::new();
    for _ in 0..3 {
        let answer = get(address, None).await;
        known.push((set_cookie(&answer).unwrap(), name(&answer).to_owned()));
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (cookie, home) in known.iter().chain(&known) {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        assert_eq!(name(&http_on(&mut stream, &request).await), home);
    }
}

/// With `on_drain = "keep"` a client that was told goodbye came back to the draining node, and the drain did not end.
#[tokio::test]
async fn a_paced_drain_lets_no_cookie_bring_a_client_back() {
    let nodes = nodes().await;
    let balancer = start(&sticky("", &three(&nodes)), KEY);
    let address = balancer.address("main").await;
    let fresh = get(address, None).await;
    let (cookie, home) = (set_cookie(&fresh).unwrap(), name(&fresh).to_owned());
    let comes_home = async || {
        let again = get(address, Some(&cookie)).await;
        assert_eq!(set_cookie(&again).is_none(), name(&again) == home);
        name(&again) == home
    };
    let operate = async |word: &str, body: &str| {
        let path = format!("/api/v1/pools/nodes/backends/{home}/{word}");
        let answer = balancer.post(&path, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    operate("drain", "{}").await;
    assert!(comes_home().await);
    // A job that only waits is enough, for one connection; its abort takes that back.
    let mut held = TcpStream::connect(address).await.unwrap();
    let hold = format!("GET /hold HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    held.write_all(hold.as_bytes()).await.unwrap();
    let is = |live: u64| move |backend: &serde_json::Value| backend["live"] == live;
    balancer.backend_until("nodes", &home, is(1)).await;
    let begun = operate("drain", "{\"rate\": \"1/s\", \"after\": \"1h\"}").await;
    assert!(!comes_home().await);
    let abort = format!("/api/v1/jobs/{}/abort", begun["job"]["id"]);
    let aborted = balancer.post(&abort, "{}").await;
    assert_eq!(aborted.status, 200, "{}", aborted.body);
    assert!(comes_home().await);
    operate("drain", "{\"rate\": \"1/s\", \"after\": \"1h\"}").await;
    assert!(!comes_home().await);
    operate("drain", "{\"keep\": true}").await;
    assert!(comes_home().await);
    reset(held);
    balancer.backend_until("nodes", &home, is(0)).await;
    // The node is empty and the job done: nobody fills it again.
    operate("drain", "{\"rate\": \"100/s\"}").await;
    operate("drain?wait=20s", "{}").await;
    assert!(!comes_home().await);
    operate("drain", "{}").await;
    assert!(!comes_home().await);
    operate("ready", "{}").await;
    assert!(comes_home().await);
}

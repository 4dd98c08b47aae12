//! Ordinary HTTP requests on a WebSocket listener: forwarded headers, hop-by-hop headers, bodies, kept connections, and
//! polling through a reload and a drain.

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::certificates::{Certificate, client};
use crate::clients::{Ending, connect, http_on, read_answer, read_to_ending, tls};
use crate::harness::{Answer, Balancer, Launch, within};
use crate::nodes::{Node, read_request};
use crate::settings::{backend, listener_with, pool, simple};

/// The values of a header as a web node was sent them.
pub fn sent(page: &Answer, name: &str) -> Vec<String> {
    let page = page.json();
    let headers = page["headers"].as_array().expect("headers").clone();
    headers
        .iter()
        .filter(|pair| {
            pair[0]
                .as_str()
                .is_some_and(|key| key.eq_ignore_ascii_case(name))
        })
        .map(|pair| pair[1].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The answer to one request of a connection of its own.
pub async fn one(balancer: &Balancer, request: &str) -> Answer {
    let mut stream = connect(balancer.address("main").await).await;
    http_on(&mut stream, request).await
}

#[tokio::test]
async fn forwarded_headers_are_set_and_a_clients_own_are_replaced() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let page = one(
        &balancer,
        "GET /x HTTP/1.1\r\nHost: chat.example.org:8080\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil.example\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n",
    )
    .await;
    assert_eq!(page.status, 200);
    assert_eq!(sent(&page, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(sent(&page, "x-forwarded-proto"), ["http"]);
    assert_eq!(sent(&page, "x-forwarded-host"), ["chat.example.org:8080"]);
    assert_eq!(sent(&page, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(sent(&page, "host"), ["chat.example.org:8080"]);
    assert!(!page.body.contains("6.6.6.6"), "{}", page.body);
}

#[tokio::test]
async fn forwarded_headers_of_a_trusted_network_are_extended() {
    let node = Node::web("n1").await;
    let config = listener_with("main", "websocket", "nodes", "trusted = [\"127.0.0.0/8\"]")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let page = one(
        &balancer,
        "GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: outer.example\r\nX-Real-IP: 203.0.113.9\r\n\r\n",
    )
    .await;
    assert_eq!(
        sent(&page, "x-forwarded-for").join(", "),
        "203.0.113.9, 127.0.0.1"
    );
    assert_eq!(sent(&page, "x-forwarded-proto"), ["https"]);
    assert_eq!(sent(&page, "x-forwarded-host"), ["outer.example"]);
    assert_eq!(sent(&page, "x-real-ip"), ["203.0.113.9"]);
}

#[tokio::test]
async fn hop_by_hop_headers_are_dropped_both_ways() {
    let node = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let Some(request) = read_request(&mut stream, &mut buffer).await else { return };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nConnection: X-Back\r\nX-Back: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\n\
             X-Kept: yes\r\nContent-Length: {}\r\n\r\n{}",
            request.head.len(),
            request.head
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let page = one(
        &balancer,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
         Proxy-Connection: keep-alive\r\nX-CaSe: Kept\r\n\r\n",
    )
    .await;
    let up = page.body.to_ascii_lowercase();
    for name in ["x-hop:", "keep-alive:", "proxy-connection:", "\r\nte:"] {
        assert!(
            !up.contains(name),
            "{name} reached the backend:\n{}",
            page.body
        );
    }
    assert!(
        page.body.contains("X-CaSe: Kept"),
        "header case is kept:\n{}",
        page.body
    );
    let down = page.head.to_ascii_lowercase();
    for name in ["x-back:", "keep-alive:", "proxy-authenticate:"] {
        assert!(
            !down.contains(name),
            "{name} reached the client:\n{}",
            page.head
        );
    }
    assert!(page.head.contains("X-Kept: yes"), "{}", page.head);
}

/// The same fields in an ordinary request and in an upgrade; each is a request of its own.
fn both_ways(fields: &str) -> [String; 2] {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    ["", upgrade].map(|more| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}{more}\r\n"))
}

/// CVE-2022-31813: the proxy in front passes a client's Connection on, which names what that proxy has said.
#[tokio::test]
async fn connection_of_a_client_erases_nothing_that_a_trusted_proxy_said() {
    let node = Node::web("n1").await;
    let config = listener_with("main", "websocket", "nodes", "trusted = [\"127.0.0.0/8\"]")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let said = [
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: outer.example",
        "X-Forwarded-Port: 8443",
        "X-Real-IP: 203.0.113.9",
        "Cookie: session=7",
        "Authorization: Bearer x",
        "Origin: https://a.example",
    ];
    let names = said.map(|line| line.split_once(':').expect("a field").0);
    let fields = format!(
        "{}\r\nConnection: {}, X-Mine\r\nX-Mine: 1\r\n",
        said.join("\r\n"),
        names.join(", ")
    );
    let statuses = [200, 101];
    for (request, status) in both_ways(&fields).iter().zip(statuses) {
        let answer = one(&balancer, request).await;
        assert_eq!(answer.status, status, "{}", answer.head);
        let head = node.heads.lock().unwrap().pop().expect("a request");
        for line in said {
            assert!(head.contains(line), "{line} is missing:\n{head}");
        }
        assert!(
            head.contains("203.0.113.9, 127.0.0.1") && !head.contains("X-Mine"),
            "{head}"
        );
    }
}

/// CGI, PHP and others know a field by its letters: `Content_Length` is Content-Length to them.
#[tokio::test]
async fn aliases_of_fields_that_decide_reach_no_backend() {
    let node = Node::web("n1").await;
    let aliases = [
        "Evenkeel_Resume",
        "evenkeel-RESUME",
        "Evenkeel.Resume",
        "Transfer_Encoding",
        "Content_Length",
        "Sec_WebSocket_Protocol",
        "Sec-WebSocket_Extensions",
        "X_Forwarded_Port",
        "X_Client_Cert_Subject",
    ];
    let fields = aliases.map(|name| format!("{name}: forged\r\n")).concat();
    let fields = fields + "User_Id: 7\r\n";
    for resume in ["", "resume = {}"] {
        let balancer = Balancer::start(&simple("websocket", resume, &[&node]));
        let statuses = [200, 101];
        for (request, status) in both_ways(&fields).iter().zip(statuses) {
            let answer = one(&balancer, request).await;
            assert_eq!(answer.status, status, "{}", answer.head);
            let head = node.heads.lock().unwrap().pop().expect("a request");
            assert!(!head.contains("forged"), "{resume}:\n{head}");
            assert!(head.contains("User_Id: 7"), "{resume}:\n{head}");
        }
    }
}

#[tokio::test]
async fn a_resume_note_of_another_name_cannot_be_forged_either() {
    let node = Node::web("n1").await;
    let keys = "resume = { header = \"X-Back-Again\" }";
    let balancer = Balancer::start(&simple("websocket", keys, &[&node]));
    let fields = "X-Back-Again: forged\r\nX_Back-AGAIN: forged\r\nEvenkeel-Resume: forged\r\n";
    for request in both_ways(fields) {
        one(&balancer, &request).await;
        let head = node.heads.lock().unwrap().pop().expect("a request");
        assert!(!head.contains("forged"), "{head}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_many_requests() {
    let node = Node::web("n1").await;
    let other = Node::web("n2").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node, &other]));
    let mut stream = connect(balancer.address("main").await).await;
    let mut names = Vec::new();
    for number in 0..20 {
        let body = "b".repeat(number * 100);
        let page = http_on(
            &mut stream,
            &format!(
                "POST /{number}?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
        .await;
        assert_eq!(page.status, 200);
        let page = page.json();
        assert_eq!(
            (&page["method"], &page["target"]),
            (&Value::from("POST"), &Value::from(format!("/{number}?q=1")))
        );
        assert_eq!(page["body"], body);
        names.push(page["node"].as_str().expect("a name").to_owned());
    }
    assert_eq!(
        names.iter().filter(|name| *name == "n1").count(),
        10,
        "each request is picked for itself: {names:?}"
    );
}

#[tokio::test]
async fn requests_sent_in_one_piece_are_answered_in_order() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut stream = connect(balancer.address("main").await).await;
    let pipelined: String = (0..5)
        .map(|i| format!("POST /{i} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
        .collect();
    stream.write_all(pipelined.as_bytes()).await.expect("write");
    for number in 0..5 {
        let page = read_answer(&mut stream).await.json();
        assert_eq!(page["target"], format!("/{number}"));
        assert_eq!(page["body"], "abc");
    }
}

#[tokio::test]
async fn an_upgrade_follows_requests_on_the_same_connection() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    let mut stream = connect(address).await;
    for _ in 0..3 {
        assert_eq!(
            http_on(&mut stream, "GET /poll HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .status,
            200
        );
    }
    let (mut socket, _) = crate::clients::websocket_over(stream, &format!("ws://{address}/"))
        .await
        .expect("a WebSocket");
    assert_eq!(crate::clients::node_of(&mut socket).await, "n1");
}

#[tokio::test]
async fn chunked_and_long_answers_come_whole() {
    let node = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            let mut answer = String::new();
            if request.target == "/chunked" {
                answer.push_str("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for _ in 0..50 {
                    answer.push_str(&format!("{:x}\r\n{}\r\n", 1000, "c".repeat(1000)));
                }
                answer.push_str("0\r\n\r\n");
            } else {
                answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{}",
                    "l".repeat(300_000)
                );
            }
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let page = one(&balancer, "GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(page.body, "c".repeat(50_000));
    let page = one(&balancer, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(page.body.len(), 300_000);
}

#[tokio::test]
async fn an_answer_cut_short_never_looks_complete() {
    let node = Node::scripted(|mut stream, number| async move {
        let mut buffer = Vec::new();
        read_request(&mut stream, &mut buffer).await;
        let head = if number == 0 {
            "Content-Length: 100"
        } else {
            "Transfer-Encoding: chunked"
        };
        let part = if number == 0 { "half" } else { "4\r\nhalf\r\n" };
        let _ = stream
            .write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{part}").as_bytes())
            .await;
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    for round in 0..2 {
        let mut stream = connect(balancer.address("main").await).await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .expect("write");
        let (bytes, _) = read_to_ending(&mut stream).await;
        let text = String::from_utf8_lossy(&bytes);
        let complete = text.ends_with("0\r\n\r\n")
            || text.to_ascii_lowercase().contains("content-length: 4\r\n");
        assert!(!complete, "round {round}: {text}");
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let node = Node::scripted(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            let answer = match request.target.as_str() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut stream = connect(balancer.address("main").await).await;
    for (method, target, status) in [
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/", 200),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(crate::clients::read_exactly(&mut stream, 1).await);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{method} {target}: {head}"
        );
    }
}

#[tokio::test]
async fn expect_continue_lets_the_body_come() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let mut stream = connect(balancer.address("main").await).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("write");
    let first = read_answer(&mut stream).await;
    let page = if first.status == 100 {
        stream.write_all(b"hello").await.expect("write");
        read_answer(&mut stream).await
    } else {
        first
    };
    assert_eq!(
        (page.status, page.json()["body"].clone()),
        (200, Value::from("hello"))
    );
}

#[tokio::test]
async fn polling_goes_on_through_a_reload_and_a_drain() {
    let n1 = Node::web("n1").await;
    let n2 = Node::web("n2").await;
    let n3 = Node::web("n3").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&n1, &n2]));
    let address = balancer.address("main").await;
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let polls = tokio::sync::watch::channel(0_usize);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stop, polls) = (stop.subscribe(), polls.0.clone());
        clients.spawn(async move {
            let mut stream = connect(address).await;
            while !*stop.borrow() {
                let page =
                    http_on(&mut stream, "POST /socket.io/?transport=polling HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n2p")
                        .await;
                assert_eq!(page.status, 200, "{}", page.head);
                assert_eq!(page.json()["body"], "2p");
                polls.send_modify(|count| *count += 1);
            }
        });
    }
    let mut count = polls.1;
    let mut more = async |polls: usize| {
        let from = *count.borrow();
        within("polls", count.wait_for(|&seen| seen >= from + polls))
            .await
            .expect("clients");
    };
    more(50).await;
    for _ in 0..10 {
        balancer
            .reload(&simple("websocket", "", &[&n1, &n2, &n3]))
            .await;
        more(10).await;
        balancer
            .reload(&simple(
                "websocket",
                "balance = \"least_conn\"",
                &[&n1, &n2],
            ))
            .await;
        more(10).await;
    }
    balancer
        .reload(&simple("websocket", "", &[&n1, &n2, &n3]))
        .await;
    let answer = balancer
        .post("/api/v1/pools/nodes/backends/n1/drain?wait=20s", "{}")
        .await;
    assert_eq!(
        answer.json()["backend"]["live"],
        0,
        "each request holds its lease and no longer: {}",
        answer.body
    );
    let before = n1.heads.lock().unwrap().len();
    more(50).await;
    assert_eq!(
        n1.heads.lock().unwrap().len(),
        before,
        "a draining backend got a request"
    );
    stop.send(true).expect("clients");
    assert!(stopped.changed().await.is_ok());
    while let Some(client) = clients.join_next().await {
        client.expect("no poll lost");
    }
}

#[tokio::test]
async fn requests_over_tls_are_served_and_only_http_1_is_offered() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let mut offers = (*client(&[&certificate])).clone();
    offers.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut stream = tls(address, "a.example", &std::sync::Arc::new(offers))
        .await
        .expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let page = http_on(&mut stream, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(sent(&page, "x-forwarded-proto"), ["https"]);
    let again = http_on(
        &mut stream,
        "GET /again HTTP/1.1\r\nHost: a.example\r\n\r\n",
    )
    .await;
    assert_eq!(again.json()["target"], "/again");
}

#[tokio::test]
async fn a_connection_between_requests_is_closed_after_its_keep_alive_timeout() {
    let node = Node::web("n1").await;
    let config = listener_with(
        "main",
        "websocket",
        "nodes",
        "keep_alive_timeout = \"500ms\"",
    ) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    assert_eq!(
        http_on(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .status,
        200
    );
    assert_eq!(read_to_ending(&mut stream).await, (vec![], Ending::Fin));
}

#[tokio::test]
async fn a_client_that_leaves_while_its_request_waits_frees_the_backend() {
    let seen = crate::nodes::Seen::default();
    let node = seen.node().await;
    // A FIN may come from a client that still reads, so it has `fin_timeout`; a RST does not wait.
    for (fin_timeout, by_reset) in [("1s", false), ("1h", true)] {
        let keys = format!("fin_timeout = \"{fin_timeout}\"");
        let balancer = Balancer::start(&simple("websocket", &keys, &[&node]));
        let mut stream = connect(balancer.address("main").await).await;
        stream
            .write_all(b"GET /poll HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .expect("write");
        balancer
            .backend_until("nodes", "n1", |seen| seen["live"] == 1)
            .await;
        if by_reset {
            crate::clients::reset(stream);
        } else {
            drop(stream);
        }
        balancer
            .backend_until("nodes", "n1", |seen| seen["live"] == 0)
            .await;
    }
}

/// The kept connections of a removed listener went on with new requests for ever.
#[tokio::test]
async fn a_removed_listener_ends_its_kept_connections() {
    let node = Node::web("n1").await;
    let nodes = pool("nodes", "", &[backend("n1", node.address)]);
    let other = listener_with("other", "websocket", "nodes", "") + &nodes;
    let balancer = Balancer::start(&(listener_with("main", "websocket", "nodes", "") + &other));
    let mut stream = connect(balancer.address("main").await).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(http_on(&mut stream, request).await.status, 200);
    balancer.reload(&other).await;
    assert_eq!(read_to_ending(&mut stream).await, (vec![], Ending::Fin));
}

/// All were cut in the last moment of the stop and recorded as `client request rst`.
#[tokio::test]
async fn waiting_polls_end_spread_over_the_second_half_of_a_stop() {
    const POLLS: usize = 20;
    let seen = crate::nodes::Seen::default();
    let node = seen.node().await;
    let config = format!(
        "[global]\nlog_format = \"json\"\nwatch = false\nhard_stop_after = \"2s\"\n\n[access_log]\noutput = \"stdout\"\n\n{}",
        simple("websocket", "", &[&node])
    );
    let balancer = Balancer::start(&config);
    let mut polls = Vec::new();
    for _ in 0..POLLS {
        let mut stream = connect(balancer.address("main").await).await;
        let poll = b"GET /poll HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(poll).await.expect("write");
        polls.push(stream);
    }
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == POLLS)
        .await;
    let begun = std::time::Instant::now();
    balancer.signal("TERM");
    let ends = futures_util::future::join_all(polls.iter_mut().map(|poll| async {
        read_to_ending(poll).await;
        begun.elapsed().as_millis()
    }))
    .await;
    let (first, last) = (ends.iter().min(), ends.iter().max());
    assert!(first >= Some(&1_000), "{ends:?}");
    // Not all of them at the beginning of the second half.
    assert!(last > Some(&1_300), "{ends:?}");
    let stopped = balancer
        .access("a stopped poll", |line| line["end"]["how"] == "stop")
        .await;
    assert_eq!(stopped["end"]["side"], "evenkeel");
    assert_eq!(stopped["end"]["phase"], "request");
}

/// A day-long event stream was invisible until its end.
#[tokio::test]
async fn an_event_stream_has_interval_lines_while_it_lasts() {
    let node = Node::scripted(|mut stream, _| async move {
        let _ = read_request(&mut stream, &mut Vec::new()).await;
        let begun = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
        let _ = stream.write_all(begun.as_bytes()).await;
        let _ = read_request(&mut stream, &mut Vec::new()).await;
    })
    .await;
    let config = format!(
        "[access_log]\noutput = \"stdout\"\nlog_at = [\"interval\"]\ninterval = \"1s\"\n\n{}",
        simple("websocket", "", &[&node])
    );
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    let request = b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.expect("write");
    for seconds in 1..3 {
        let line = balancer
            .access("an interval line", |line| {
                line["duration_ms"].as_f64() >= Some(f64::from(seconds) * 1_000.0)
            })
            .await;
        assert_eq!(line["event"], "interval");
        assert_eq!(line["bytes_from_backend"], "data: 1\n\n".len());
        assert_eq!(line["path"], "/events");
    }
}

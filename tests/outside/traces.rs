//! Traces: what a collector gets, what nodes and the access log are told, and that a collector that is gone costs nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as AnyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::certificates::{Certificate, client};
use crate::clients::{ask, connect, echoed, http, tls, websocket, websocket_over};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::resume::{RESUME, operate};
use crate::settings::{backend, listener, listener_with, pool};
use crate::upgrade_live::{AT_ONCE, alone, upgraded};

const LOG: &str = "[access_log]\noutput = \"stdout\"\n\n";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector of OTLP over HTTP. It answers with the statuses that it is given, then with 200.
struct Collector {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    count: watch::Receiver<usize>,
}

impl Collector {
    async fn start(statuses: &[u16]) -> Collector {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, count) = watch::channel(0);
        let collector = Collector {
            address: socket.local_addr().unwrap(),
            heads: Arc::default(),
            requests: Arc::default(),
            bodies: Arc::default(),
            count,
        };
        let (heads, requests) = (collector.heads.clone(), collector.requests.clone());
        let bodies = collector.bodies.clone();
        let mut statuses = statuses.to_vec();
        statuses.reverse();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                while let Some((head, body)) = read(&mut stream).await {
                    heads.lock().unwrap().push(head);
                    let status = statuses.pop().unwrap_or(200);
                    if status == 200 {
                        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
                        requests.lock().unwrap().push(request);
                        bodies.lock().unwrap().push(body);
                    }
                    let answer = ExportTraceServiceResponse::default().encode_to_vec();
                    let length = answer.len();
                    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n");
                    let answer = [head.as_bytes(), &answer].concat();
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                    sender.send_modify(|count| *count += 1);
                }
            }
        });
        collector
    }

    fn config(&self, keys: &str) -> String {
        format!(
            "{LOG}[traces]\nendpoint = \"http://{}\"\n{keys}\n\n",
            self.address
        )
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The spans, once one has that name.
    async fn until(&self, name: &str) -> Vec<Span> {
        let mut count = self.count.clone();
        let waiting = async {
            loop {
                let spans = self.spans();
                if spans.iter().any(|span| span.name == name) {
                    return spans;
                }
                count.changed().await.unwrap();
            }
        };
        within(&format!("a span {name}"), waiting).await
    }
}

/// A request with its body.
async fn read(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
            let lower = head.to_lowercase();
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            let mut body = bytes[at + 4..].to_vec();
            while body.len() < length {
                assert!(stream.read_buf(&mut body).await.unwrap() > 0);
            }
            return Some((head, body));
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

fn fact(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|one| one.key == key);
    let value = value.and_then(|one| one.value.clone()?.value);
    match value {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A field of the latest request at a node.
fn told(node: &Node, name: &str) -> Vec<String> {
    let heads = node.heads.lock().unwrap();
    let fields = heads
        .last()
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(": "));
    let fields = fields.filter(|(one, _)| one.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value.to_owned()).collect()
}

#[tokio::test]
async fn a_websocket_over_tls_is_a_trace_of_its_steps_and_of_its_session() {
    let (node, collector) = (Node::web("n1").await, Collector::start(&[]).await);
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = collector.config("sample = \"100%\"\nservice_name = \"edge\"")
        + &listener_with("main", "websocket", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let trusting = client(&[&certificate]);
    let stream = tls(balancer.address("main").await, "a.example", &trusting)
        .await
        .unwrap();
    let (mut socket, _) = websocket_over(stream, "wss://a.example/chat?secret=1")
        .await
        .unwrap();
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
    let spans = collector.until("GET").await;
    assert_eq!(
        names(&spans),
        [
            "GET", "accept", "tls", "head", "route", "queue", "connect", "upgrade"
        ]
    );
    let root = &spans[0];
    assert_eq!(root.kind(), SpanKind::Server);
    assert!(root.parent_span_id.is_empty());
    for step in &spans[1..] {
        assert_eq!(
            (&step.trace_id, &step.parent_span_id),
            (&root.trace_id, &root.span_id)
        );
        assert!(root.start_time_unix_nano <= step.start_time_unix_nano);
        assert!(step.start_time_unix_nano <= step.end_time_unix_nano);
        assert!(step.end_time_unix_nano <= root.end_time_unix_nano);
        assert_eq!(step.status, None);
    }
    assert_eq!(fact(&root.attributes, "url.path"), "/chat");
    assert_eq!(fact(&root.attributes, "server.address"), "a.example");
    assert_eq!(fact(&root.attributes, "http.response.status_code"), "101");
    assert_eq!(fact(&root.attributes, "tls.protocol.version"), "1.3");
    assert_eq!(
        fact(&named(&spans, "connect")[0].attributes, "evenkeel.backend"),
        "n1"
    );
    let (trace, span) = (hex(&root.trace_id), hex(&root.span_id));
    assert_eq!(
        told(&node, "traceparent"),
        [format!("00-{trace}-{span}-01")]
    );
    drop(socket);
    let spans = collector.until("session").await;
    let session = named(&spans, "session")[0];
    assert_eq!(
        (&session.trace_id, &session.parent_span_id),
        (&root.trace_id, &root.span_id)
    );
    assert_eq!(session.events.last().unwrap().name, "end");
    let line = balancer
        .access("the end", |line| line["event"] == "end")
        .await;
    assert_eq!(line["trace_id"], trace);
    let request = collector.requests.lock().unwrap()[0].clone();
    let resource = request.resource_spans[0].resource.clone().unwrap();
    assert_eq!(fact(&resource.attributes, "service.name"), "edge");
    let head = collector.heads.lock().unwrap()[0].to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
}

#[tokio::test]
async fn the_trace_of_a_client_goes_on_and_its_choice_counts() {
    let (node, collector) = (Node::web("n1").await, Collector::start(&[]).await);
    let parts = listener("main", "websocket", "nodes")
        + &listener_with("near", "websocket", "nodes", "trusted = [\"127.0.0.1\"]")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&(collector.config("sample = \"0%\"") + &parts));
    let get = |flags: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-{TRACE}-{PARENT}-{flags}\r\ntracestate: a=b\r\n\
             Connection: close\r\n\r\n"
        )
    };
    let main = balancer.address("main").await;
    assert_eq!(http(main, &get("00")).await.status, 200);
    assert!(told(&node, "traceparent")[0].starts_with(&format!("00-{TRACE}-")));
    assert!(told(&node, "traceparent")[0].ends_with("-00"));
    assert_eq!(http(main, &get("01")).await.status, 200);
    let spans = collector.until("request").await;
    // Only the second is recorded.
    let [root] = named(&spans, "GET")[..] else {
        panic!("{:?}", names(&spans))
    };
    assert_eq!(
        (hex(&root.trace_id), hex(&root.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    let span = hex(&root.span_id);
    assert_eq!(
        told(&node, "traceparent"),
        [format!("00-{TRACE}-{span}-01")]
    );
    assert_eq!(told(&node, "tracestate"), ["a=b"]);
    // Of strangers it is not continued any more.
    let config = collector.config("sample = \"0%\"\nparent = \"trusted\"") + &parts;
    balancer.reload(&config).await;
    assert_eq!(http(main, &get("01")).await.status, 200);
    assert!(!told(&node, "traceparent")[0].contains(TRACE));
    assert!(told(&node, "tracestate").is_empty());
    assert_eq!(
        http(balancer.address("near").await, &get("01"))
            .await
            .status,
        200
    );
    assert!(told(&node, "traceparent")[0].contains(TRACE));
}

#[tokio::test]
async fn each_try_of_a_tcp_client_is_a_step_and_what_failed_says_why() {
    let (node, collector) = (Node::echo("n1").await, Collector::start(&[]).await);
    let backends = [
        backend("gone", "unix:/nowhere/to/be.found"),
        backend("n1", node.address),
    ];
    let config = collector.config("sample = \"100%\"")
        + &listener("main", "tcp", "nodes")
        + &pool("nodes", "retries = 1", &backends);
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    assert_eq!(crate::clients::read_line(&mut stream).await.unwrap(), "n1");
    echoed(&mut stream, b"hello").await;
    drop(stream);
    let spans = collector.until("session").await;
    let tries = named(&spans, "connect");
    let backends = tries
        .iter()
        .map(|one| fact(&one.attributes, "evenkeel.backend"));
    let backends: Vec<_> = backends.collect();
    assert_eq!(backends, ["gone", "n1"]);
    let why = tries[0].status.clone().unwrap().message;
    assert!(why.contains("No such file"), "{why}");
    assert_eq!(tries[1].status, None);
    assert_eq!(named(&spans, "connection").len(), 1);
    let ended = named(&spans, "session")[0];
    assert_eq!(fact(&ended.attributes, "evenkeel.tries"), "2");
    assert_ne!(fact(&ended.attributes, "evenkeel.bytes_from_client"), "0");
}

#[tokio::test]
async fn a_session_that_moves_says_so_in_its_span() {
    let (n1, n2) = (Node::web("n1").await, Node::web("n2").await);
    let collector = Collector::start(&[]).await;
    let backends = [backend("n1", n1.address), backend("n2", n2.address)];
    let config = collector.config("sample = \"100%\"")
        + &listener("main", "websocket", "nodes")
        + &pool(
            "nodes",
            &format!("balance = \"least_conn\"\n{RESUME}"),
            &backends,
        );
    let balancer = Balancer::start(&config);
    operate(&balancer, "n2", "drain").await;
    let mut socket = websocket(balancer.address("main").await, "/").await;
    assert_eq!(ask(&mut socket, "here").await, "n1:here");
    operate(&balancer, "n2", "ready").await;
    let drain = "/api/v1/pools/nodes/backends/n1/drain";
    assert_eq!(
        balancer.post(drain, "{\"rate\": \"100/s\"}").await.status,
        200
    );
    balancer
        .backend_until("nodes", "n1", |node| node["live"] == 0)
        .await;
    assert_eq!(ask(&mut socket, "there").await, "n2:there");
    drop(socket);
    let spans = collector.until("session").await;
    let session = named(&spans, "session")[0];
    let events: Vec<_> = session.events.iter().map(|event| &*event.name).collect();
    assert_eq!(events, ["move", "resume", "end"]);
    let resumed = &session.events[1].attributes;
    assert_eq!(fact(resumed, "evenkeel.from"), "n1");
    assert_eq!(fact(resumed, "evenkeel.backend"), "n2");
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_and_one_that_refuses_loses_spans() {
    let (node, collector) = (
        Node::web("n1").await,
        Collector::start(&[503, 200, 400]).await,
    );
    let launch = Launch::new();
    std::fs::write(launch.path("fields"), "Authorization: Bearer s3cret\n").unwrap();
    let keys = "sample = \"100%\"\nheaders_file = \"fields\"";
    let config = collector.config(keys)
        + &listener("main", "websocket", "nodes")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let address = balancer.address("main").await;
    assert_eq!(http(address, get).await.status, 200);
    let first = collector.until("GET").await.len();
    assert!(collector.heads.lock().unwrap()[0].contains("Bearer s3cret"));
    let counted = async |name: &str, count: f64| {
        let waiting = async {
            while balancer.metric(&[name]).await != count {
                crate::harness::a_moment().await;
            }
        };
        within(name, waiting).await;
    };
    counted("evenkeel_trace_spans_sent_total", first as f64).await;
    counted("evenkeel_trace_export_failures_total", 1.0).await;
    assert_eq!(http(address, get).await.status, 200);
    counted("evenkeel_trace_spans_dropped_total", first as f64).await;
    let log = balancer.log.all().join("\n");
    assert!(
        log.contains("traces cannot be sent") && !log.contains("s3cret"),
        "{log}"
    );
}

#[tokio::test]
async fn spans_beyond_the_queue_are_dropped_and_clients_are_served() {
    let node = Node::web("n1").await;
    // One that takes connections and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = silent.local_addr().unwrap();
    let config = format!(
        "{LOG}[traces]\nendpoint = \"http://{endpoint}\"\nsample = \"100%\"\nmax_queue = 10\n\n{}{}",
        listener("main", "websocket", "nodes"),
        pool("nodes", "", &[backend("n1", node.address)])
    );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    for _ in 0..20 {
        let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(http(address, get).await.status, 200);
    }
    assert!(
        balancer
            .metric(&["evenkeel_trace_spans_dropped_total"])
            .await
            > 100.0
    );
    drop(silent);
}

#[tokio::test]
async fn without_traces_the_fields_of_others_pass_and_a_stop_sends_the_last_spans() {
    let (node, collector) = (Node::web("n1").await, Collector::start(&[]).await);
    let parts =
        listener("main", "websocket", "nodes") + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&format!("{LOG}{parts}"));
    let theirs = format!("00-{TRACE}-{PARENT}-01");
    let get =
        format!("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {theirs}\r\nConnection: close\r\n\r\n");
    let address = balancer.address("main").await;
    assert_eq!(http(address, &get).await.status, 200);
    assert_eq!(told(&node, "traceparent"), [theirs]);
    let line = balancer
        .access("a line", |line| line["event"] == "end")
        .await;
    assert_eq!(line.get("trace_id"), None);
    // A reload turns them on for the next connection.
    let answer = balancer.reload(&(collector.config("") + &parts)).await;
    assert_eq!(
        answer["summary"],
        serde_json::json!(["traces: changed endpoint"])
    );
    let mut socket = {
        let request = websocket_over(connect(address).await, "ws://a/").await;
        request.unwrap().0
    };
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
    assert_eq!(http(address, &get).await.status, 200);
    drop(socket);
    balancer.signal("TERM");
    balancer.exit().await;
    assert!(
        collector
            .spans()
            .iter()
            .any(|span| hex(&span.trace_id) == TRACE)
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_and_nothing_changes() {
    let (node, collector) = (Node::web("n1").await, Collector::start(&[]).await);
    let parts =
        listener("main", "websocket", "nodes") + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&format!("{LOG}{parts}"));
    balancer.address("main").await;
    std::fs::write(balancer.path("fields"), "no field\n").unwrap();
    for (keys, why) in [
        ("headers_file = \"fields\"", "line 1 is no"),
        ("headers_file = \"none\"", "No such file"),
        (
            "tls = { ca = \"none.pem\" }",
            "needs an `endpoint` with https",
        ),
    ] {
        let answer = balancer
            .try_reload(&(collector.config(keys) + &parts))
            .await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(answer.body.contains(why), "{}", answer.body);
    }
    let answer = balancer.get("/api/v1/status").await.json();
    assert_eq!(answer["configuration"]["reloads_failed"], 3);
}

/// Each process has a span of its part of the session.
#[tokio::test]
async fn a_session_that_goes_to_a_new_process_stays_in_its_trace() {
    let (node, collector) = (Node::web("n1").await, Collector::start(&[]).await);
    let config = collector.config("sample = \"100%\"")
        + AT_ONCE
        + &listener("main", "websocket", "nodes")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut socket = websocket(balancer.address("main").await, "/").await;
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
    upgraded(&balancer).await;
    alone(&balancer).await;
    let spans = collector.until("session").await;
    let left = named(&spans, "session")[0].clone();
    assert_eq!(left.events.last().unwrap().name, "handed over");
    assert_eq!(ask(&mut socket, "still").await, "n1:still");
    drop(socket);
    let line = balancer
        .access("the end", |line| line["event"] == "end")
        .await;
    assert_eq!(line["trace_id"], hex(&left.trace_id));
    let ended = async {
        while named(&collector.spans(), "session").len() < 2 {
            crate::harness::a_moment().await;
        }
    };
    within("the session's end", ended).await;
    let spans = collector.spans();
    let last = named(&spans, "session")[1];
    assert_eq!(
        (&last.trace_id, &last.parent_span_id),
        (&left.trace_id, &left.parent_span_id)
    );
    assert_eq!(last.events.last().unwrap().name, "end");
}

/// Another implementation of the official definitions reads the same.
#[tokio::test]
async fn what_is_sent_is_read_by_the_protobufs_of_python() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".peers/python/bin/python");
    let has_module = Command::new(&python)
        .args(["-c", "import opentelemetry.proto"])
        .status();
    if !has_module.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: opentelemetry-proto is not in .peers/python");
        return;
    }
    let (node, collector) = (Node::web("n1").await, Collector::start(&[]).await);
    let config = collector.config("sample = \"100%\"")
        + &listener("main", "websocket", "nodes")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let get = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(http(balancer.address("main").await, get).await.status, 200);
    let spans = collector.until("request").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, &collector.bodies.lock().unwrap()[0]).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/otlp.py");
    let output = Command::new(python).arg(script).arg(file).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&error);
    let theirs = read["spans"].as_array().unwrap().iter();
    let theirs: Vec<_> = theirs.map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(theirs, names(&spans));
    assert_eq!(read["resource"]["service.name"], "evenkeel");
    assert_eq!(read["spans"][0]["attributes"]["url.path"], "/a");
    assert_eq!(read["spans"][0]["trace_id"], hex(&spans[0].trace_id));
    assert_eq!(read["unknown_fields"], 0);
}

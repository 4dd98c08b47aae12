//! Server-sent events of the admin endpoint: what is told, to whom, and how a stream ends and
//! goes on.

use std::collections::VecDeque;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::clients::greeted;
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool, simple};

/// One event as it came.
#[derive(Debug, Clone)]
struct Told {
    id: String,
    kind: String,
    data: Value,
}

/// A viewer of the stream.
struct Stream {
    reader: BufReader<TcpStream>,
    head: String,
    text: String,
    seen: VecDeque<Told>,
}

impl Stream {
    async fn open(balancer: &Balancer, query: &str, fields: &str) -> Stream {
        let admin = balancer.address("admin").await;
        let mut socket = TcpStream::connect(admin).await.expect("connect");
        let request =
            format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: {admin}\r\n{fields}\r\n");
        socket.write_all(request.as_bytes()).await.expect("ask");
        let mut reader = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = within("a head", reader.read_line(&mut head)).await;
            assert!(read.expect("a head") > 0, "{head}");
        }
        Stream {
            reader,
            head,
            text: String::new(),
            seen: VecDeque::new(),
        }
    }

    /// Begins, and is past `hello`: changes from now on are told.
    async fn begin(balancer: &Balancer, query: &str) -> Stream {
        let mut stream = Stream::open(balancer, query, "").await;
        assert_eq!(stream.next().await.expect("hello").kind, "hello");
        stream
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.seen.pop_front() {
                return Some(told);
            }
            let chunk = within("a chunk", self.chunk()).await?;
            self.text.push_str(&chunk);
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                self.seen.extend(told(event));
                self.text = rest.to_owned();
            }
        }
    }

    async fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.reader.read_line(&mut size).await.ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).await.ok()?;
        bytes.truncate(size);
        (size > 0).then(|| String::from_utf8(bytes).expect("UTF-8"))
    }

    /// The next event of that kind that is as `wanted`.
    async fn until(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Told {
        loop {
            let told = self.next().await.unwrap_or_else(|| panic!("no {kind}"));
            if told.kind == kind && wanted(&told.data) {
                return told;
            }
        }
    }

    async fn end(mut self) {
        while self.next().await.is_some() {}
    }
}

fn told(event: &str) -> Option<Told> {
    let field = |name: &str| {
        let mut lines = event.lines();
        lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    let data = field("data: ")?;
    Some(Told {
        id: field("id: ").expect("an id"),
        kind: field("event: ").expect("a type"),
        data: serde_json::from_str(&data).expect("JSON"),
    })
}

#[tokio::test]
async fn a_viewer_is_told_of_states_jobs_and_rates() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let mut stream = Stream::begin(&balancer, "").await;
    assert!(stream.head.contains("text/event-stream"), "{}", stream.head);
    assert!(stream.head.contains("no-store"), "{}", stream.head);
    let main = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(greeted(main).await.0);
    }
    let live = |data: &Value| data["pools"][0]["live"] == 3;
    let rates = stream.until("rates", live).await.data;
    assert_eq!(rates["pools"][0]["backends"][0]["live"], 3, "{rates}");
    assert_eq!(rates["listeners"][0]["name"], "main", "{rates}");
    let path = "/api/v1/pools/nodes/backends/n1/drain";
    balancer.post(path, "{\"rate\": \"1/m\"}").await;
    let state = stream
        .until("backend", |data| data["state"] == "drain")
        .await;
    let wanted = (&json!("up"), &json!("n1"), &json!("nodes"), &json!(1));
    let data = &state.data;
    assert_eq!(
        (
            &data["from"],
            &data["name"],
            &data["pool"],
            &data["changes"]
        ),
        wanted
    );
    let job = stream.until("job", |data| data["phase"] == "ending").await;
    assert_eq!(job.data["target"], "nodes/n1", "{job:?}");
    balancer
        .post(&format!("/api/v1/jobs/{}/abort", job.data["id"]), "{}")
        .await;
    stream.until("job", |data| data["phase"] == "aborted").await;
    let weight = "/api/v1/pools/nodes/backends/n1/weight";
    balancer.change("PUT", weight, "{\"weight\": 7}").await;
    let changed = stream.until("backend", |data| data["weight"] == 7).await;
    assert_eq!(changed.data["changes"], 0, "{changed:?}");
}

#[tokio::test]
async fn checks_are_told_with_their_reason() {
    let node = Node::echo("n1").await;
    let keys = "check = { type = \"tcp\", interval = \"100ms\", rise = 1, fall = 2 }";
    let balancer = Balancer::start(&simple("tcp", keys, &[&node]));
    balancer
        .backend_until("nodes", "n1", |seen| seen["check"] == "up")
        .await;
    let mut stream = Stream::begin(&balancer, "?types=check,backend").await;
    drop(node);
    let check = stream
        .until("check", |data| data["check"] == "down")
        .await
        .data;
    assert_eq!(
        (&check["pool"], &check["backend"]),
        (&json!("nodes"), &json!("n1"))
    );
    assert!(
        check["reason"]
            .as_str()
            .is_some_and(|why| why.contains("refused")),
        "{check}"
    );
}

#[tokio::test]
async fn reloads_and_refusals_are_told() {
    let nodes = [Node::echo("n1").await, Node::echo("n2").await];
    let with = |nodes: &[&Node], keys: &str| {
        simple("tcp", "", nodes).replace("pool = \"nodes\"", &format!("pool = \"nodes\"\n{keys}"))
    };
    let balancer = Balancer::start(&with(&[&nodes[0]], ""));
    let mut stream = Stream::begin(&balancer, "?types=reload,backend,gone,refusals").await;
    balancer
        .reload(&with(&[&nodes[0], &nodes[1]], "deny = [\"127.0.0.1\"]"))
        .await;
    let added = stream
        .until("backend", |data| data["name"] == "n2")
        .await
        .data;
    assert_eq!(added["from"], Value::Null, "{added}");
    let done = stream.until("reload", |data| data["ok"] == true).await.data;
    assert_eq!(done["number"], 2, "{done}");
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["configuration"]["hash"], done["hash"]);
    assert_eq!(balancer.try_reload("nonsense = 1").await.status, 422);
    let refused = stream
        .until("reload", |data| data["ok"] == false)
        .await
        .data;
    assert!(
        refused["error"]
            .as_str()
            .is_some_and(|why| why.contains("nonsense")),
        "{refused}"
    );
    assert_eq!(refused["number"], 2, "the former one serves on");
    let main = balancer.address("main").await;
    // The reset may come before the connect is over here.
    if let Ok(mut denied) = TcpStream::connect(main).await {
        let _ = denied.read(&mut [0]).await;
    }
    let told = stream.until("refusals", |_| true).await.data;
    let wanted = json!([{ "listener": "main", "reason": "denied", "count": 1, "total": 1 }]);
    assert_eq!(told["refusals"], wanted);
    balancer.reload(&with(&[&nodes[0]], "")).await;
    let gone = stream.until("gone", |_| true).await.data;
    assert_eq!(gone, json!({ "part": "backend", "name": "nodes/n2" }));
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_last_id() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let mut stream = Stream::begin(&balancer, "").await;
    let last = stream.until("rates", |_| true).await.id;
    drop(stream);
    balancer
        .post("/api/v1/pools/nodes/backends/n1/drain", "{}")
        .await;
    balancer
        .post("/api/v1/pools/nodes/backends/n1/ready", "{}")
        .await;
    let field = format!("Last-Event-ID: {last}\r\n");
    let mut again = Stream::open(&balancer, "", &field).await;
    let hello = again.next().await.expect("hello");
    assert_eq!((hello.id, &hello.data["resumed"]), (last, &json!(true)));
    let path = "/api/v1/pools/nodes/backends/n1/maint";
    balancer.post(path, "{}").await;
    again
        .until("backend", |data| data["state"] == "maint")
        .await;
    for other in ["0-1", "nonsense", "ffffffff-99"] {
        let field = format!("Last-Event-ID: {other}\r\n");
        let mut fresh = Stream::open(&balancer, "", &field).await;
        let hello = fresh.next().await.expect("hello");
        assert_eq!(hello.data["resumed"], false, "{other}");
    }
}

#[tokio::test]
async fn types_that_are_unknown_are_refused() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    for query in ["?types=nonsense", "?type=job", "?types="] {
        let answer = balancer.get(&format!("/api/v1/events{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert!(answer.body.contains("allowed: "), "{}", answer.body);
    }
}

/// Streams do not take the places of requests, and their number is bounded.
#[tokio::test]
async fn as_many_view_as_may_and_nobody_else_waits_for_them() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let mut streams = Vec::new();
    for _ in 0..128 {
        streams.push(Stream::begin(&balancer, "?types=backend").await);
    }
    let refused = balancer.get("/api/v1/events").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(
        refused.head.to_ascii_lowercase().contains("retry-after"),
        "{}",
        refused.head
    );
    balancer
        .post("/api/v1/pools/nodes/backends/n1/drain", "{}")
        .await;
    for stream in &mut streams {
        stream
            .until("backend", |data| data["state"] == "drain")
            .await;
    }
    drop(streams);
    let comes_back = async {
        while balancer.get("/api/v1/events?types=nonsense").await.status != 400 {}
        Stream::begin(&balancer, "").await
    };
    within("a place", comes_back).await;
}

/// A viewer may view as long as its token is good, and a stop of the balancer ends every stream.
#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_the_process() {
    let launch = Launch::new();
    std::fs::write(launch.path("eyes.token"), "secret-of-eyes").expect("a token");
    std::fs::write(launch.path("hands.token"), "secret-of-hands").expect("a token");
    let node = Node::echo("n1").await;
    let token =
        |name: &str| format!("[[admin.token]]\nname = \"{name}\"\nfile = \"{name}.token\"\n");
    let rest = listener("main", "tcp", "nodes")
        + &pool("nodes", "", &[backend("n1", node.address)])
        + "[admin]\nbind = \"127.0.0.1:0\"\n"
        + &token("hands").replace("file", "role = \"operate\"\nfile");
    let eyes = token("eyes").replace("file", "role = \"read\"\nfile");
    let balancer = launch.start(&format!("{rest}{eyes}"));
    let field = |name: &str| format!("Authorization: Bearer secret-of-{name}\r\n");
    assert_eq!(balancer.get("/api/v1/events").await.status, 401);
    let mut viewers = Vec::new();
    for name in ["eyes", "hands"] {
        let mut stream = Stream::open(&balancer, "", &field(name)).await;
        assert_eq!(stream.next().await.expect("hello").kind, "hello");
        viewers.push(stream);
    }
    balancer.write(&rest);
    balancer.signal("HUP");
    let mut hands = viewers.pop().expect("a stream");
    hands.until("reload", |data| data["ok"] == true).await;
    viewers.pop().expect("a stream").end().await;
    balancer.signal("TERM");
    hands.end().await;
    assert!(balancer.exit().await.success());
}

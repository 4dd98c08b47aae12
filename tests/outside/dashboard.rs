//! The page of the admin endpoint and the sessions of browsers, from outside.

use serde_json::{Value, json};

use crate::harness::{Answer, Balancer, Launch, raw_request};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool, simple};

const DRAIN: &str = "/api/v1/pools/nodes/backends/n1/drain";

/// A balancer with a token that may read and one that may operate, and two nodes.
struct Guarded {
    balancer: Balancer,
    config: String,
    _nodes: [Node; 2],
}

impl Guarded {
    async fn start() -> Guarded {
        let launch = Launch::new();
        for name in ["eyes", "hands", "node-1"] {
            std::fs::write(launch.path(&format!("{name}.token")), secret(name)).expect("a token");
        }
        let nodes = [Node::echo("n1").await, Node::echo("n2").await];
        let backends = [
            backend("n1", nodes[0].address),
            backend("n2", nodes[1].address),
        ];
        let token = |name: &str, rights: &str| {
            format!("[[admin.token]]\nname = \"{name}\"\nfile = \"{name}.token\"\n{rights}\n")
        };
        let config = listener("main", "tcp", "nodes")
            + &pool("nodes", "", &backends)
            + "[admin]\nbind = \"127.0.0.1:0\"\n"
            + &token("hands", "role = \"operate\"")
            + &token("node-1", "role = \"operate\"\nbackend = \"nodes/n1\"")
            + &token("eyes", "role = \"read\"");
        Guarded {
            balancer: launch.start(&config),
            config,
            _nodes: nodes,
        }
    }

    async fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> Answer {
        let admin = self.balancer.address("admin").await;
        let content = match method {
            "GET" => String::new(),
            _ => format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n{content}{fields}\r\n{body}"
        );
        raw_request(admin, request.as_bytes()).await
    }

    async fn log_in(&self, name: &str) -> Browser<'_> {
        let body = json!({ "token": secret(name) }).to_string();
        let answer = self.ask("POST", "/login", "", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let line = field(&answer, "set-cookie").expect("a cookie");
        let (cookie, attributes) = line.split_once(';').expect("attributes");
        Browser {
            guarded: self,
            cookie: cookie.to_owned(),
            attributes: attributes.to_owned(),
            login: answer.json(),
        }
    }
}

/// A browser with a session.
struct Browser<'a> {
    guarded: &'a Guarded,
    cookie: String,
    attributes: String,
    login: Value,
}

impl Browser<'_> {
    async fn get(&self, path: &str) -> Answer {
        let fields = format!("Cookie: theme=dark; {}\r\n", self.cookie);
        self.guarded.ask("GET", path, &fields, "").await
    }

    async fn post(&self, path: &str) -> Answer {
        let csrf = self.login["csrf"].as_str().expect("a value");
        self.post_with(path, &format!("X-Csrf-Token: {csrf}\r\n"))
            .await
    }

    async fn post_with(&self, path: &str, more: &str) -> Answer {
        let fields = format!("Cookie: {}\r\n{more}", self.cookie);
        self.guarded.ask("POST", path, &fields, "{}").await
    }
}

fn secret(name: &str) -> String {
    format!("secret-of-{name}")
}

fn field(answer: &Answer, name: &str) -> Option<String> {
    let mut lines = answer.head.lines().skip(1);
    lines.find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

#[tokio::test]
async fn the_page_needs_no_token_and_is_kept_to_itself() {
    let guarded = Guarded::start().await;
    let page = guarded.ask("GET", "/", "", "").await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(
        field(&page, "content-type").as_deref(),
        Some("text/html; charset=utf-8")
    );
    let policy = field(&page, "content-security-policy").expect("a policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(field(&page, name).as_deref(), Some(value), "{name}");
    }
    let tag = field(&page, "etag").expect("a tag");
    let known = guarded
        .ask("GET", "/", &format!("If-None-Match: {tag}\r\n"), "")
        .await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    let packed = guarded
        .ask("GET", "/", "Accept-Encoding: br, gzip\r\n", "")
        .await;
    assert_eq!(field(&packed, "content-encoding").as_deref(), Some("gzip"));
    // A link of another site leads here; its page may not ask the API.
    let other = "Sec-Fetch-Site: cross-site\r\n";
    assert_eq!(guarded.ask("GET", "/", other, "").await.status, 200);
    assert_eq!(guarded.ask("GET", "/login", other, "").await.status, 403);
    for path in [
        "/assets/",
        "/assets/..%2findex.html",
        "/index.html",
        "/favicon.txt",
    ] {
        let answer = guarded.ask("GET", path, "", "").await;
        assert!(
            [401, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
    }
    // Every file that the page names is there.
    for name in page
        .body
        .split('"')
        .filter(|text| text.starts_with("/assets/"))
    {
        assert_eq!(guarded.ask("GET", name, "", "").await.status, 200, "{name}");
    }
    assert_eq!(
        guarded.ask("GET", "/api/v1/status", "", "").await.status,
        401
    );
}

#[tokio::test]
async fn a_login_begins_a_session_that_may_what_its_token_may() {
    let guarded = Guarded::start().await;
    let nobody = guarded.ask("GET", "/login", "", "").await.json();
    let wanted = json!({ "required": true, "name": null, "role": null, "backend": null, "csrf": null, "left_seconds": null });
    assert_eq!(nobody, wanted);
    let hands = guarded.log_in("hands").await;
    assert_eq!(
        hands.attributes,
        " Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"
    );
    assert_eq!(hands.login["role"], "operate");
    assert_eq!(hands.get("/api/v1/status").await.status, 200);
    assert_eq!(hands.get("/api/v1/configuration").await.status, 200);
    assert_eq!(
        hands.get("/login").await.json()["csrf"],
        hands.login["csrf"]
    );
    assert_eq!(hands.post(DRAIN).await.status, 200);
    let eyes = guarded.log_in("eyes").await;
    assert_eq!(eyes.login["role"], "read");
    assert_eq!(eyes.get("/api/v1/status").await.status, 200);
    assert_eq!(eyes.get("/api/v1/configuration").await.status, 403);
    assert_eq!(eyes.get("/api/v1/configuration/plan").await.status, 403);
    assert_eq!(eyes.post(DRAIN).await.status, 403);
    let node = guarded.log_in("node-1").await;
    assert_eq!(node.login["backend"], "nodes/n1");
    assert_eq!(node.post(DRAIN).await.status, 200);
    assert_eq!(node.post(&DRAIN.replace("n1", "n2")).await.status, 403);
    let done = guarded
        .balancer
        .event("the action", 0, |event| event.message() == "operator acts");
    assert_eq!(done.await.field("token"), Some("hands"));
}

#[tokio::test]
async fn a_change_by_a_session_needs_its_csrf_value() {
    let guarded = Guarded::start().await;
    let (one, other) = (guarded.log_in("hands").await, guarded.log_in("hands").await);
    let foreign = other.login["csrf"].as_str().expect("a value");
    for field in [
        String::new(),
        "X-Csrf-Token: \r\n".to_owned(),
        format!("X-Csrf-Token: {foreign}\r\n"),
        format!("X-Csrf-Token: {foreign}\r\nX-Csrf-Token: {foreign}\r\n"),
    ] {
        let answer = one.post_with(DRAIN, &field).await;
        assert_eq!(answer.status, 403, "{field}: {}", answer.body);
    }
    assert!(one.post_with(DRAIN, "").await.body.contains("x-csrf-token"));
    let origin = "Origin: http://evil.example\r\n";
    assert_eq!(one.post_with(DRAIN, origin).await.status, 403);
    let seen = one.get("/api/v1/pools/nodes/backends/n1").await.json();
    assert_eq!(seen["operator"], "ready", "{seen}");
}

#[tokio::test]
async fn a_wrong_token_begins_no_session() {
    let guarded = Guarded::start().await;
    for body in [
        json!({ "token": "secret-of-nobody" }),
        json!({ "token": "" }),
        json!({ "token": "secret-of-hand" }),
    ] {
        let answer = guarded.ask("POST", "/login", "", &body.to_string()).await;
        assert_eq!(answer.status, 401, "{}", answer.body);
        assert_eq!(field(&answer, "set-cookie"), None);
    }
    for body in ["{}", "[]", "{\"token\": 1}", "{\"token\": \"a\", \"b\": 1}"] {
        assert_eq!(
            guarded.ask("POST", "/login", "", body).await.status,
            400,
            "{body}"
        );
    }
    let forged = "Cookie: evenkeel=1; evenkeel-9900=1\r\n";
    assert_eq!(
        guarded
            .ask("GET", "/api/v1/status", forged, "")
            .await
            .status,
        401
    );
    // A form cannot log anybody in.
    let admin = guarded.balancer.address("admin").await;
    let form = format!(
        "POST /login HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    assert_eq!(raw_request(admin, form.as_bytes()).await.status, 415);
}

#[tokio::test]
async fn a_session_ends_with_a_logout_and_with_its_token() {
    let guarded = Guarded::start().await;
    let (hands, eyes) = (guarded.log_in("hands").await, guarded.log_in("eyes").await);
    let out = hands.post("/logout").await;
    assert_eq!(out.status, 200, "{}", out.body);
    assert!(field(&out, "set-cookie").is_some_and(|line| line.contains("Max-Age=0")));
    assert_eq!(hands.get("/api/v1/status").await.status, 401);
    assert_eq!(eyes.get("/api/v1/status").await.status, 200);
    // The token is another one after the reload.
    std::fs::write(guarded.balancer.path("eyes.token"), "another").expect("a token");
    guarded.balancer.write(&guarded.config);
    let from = guarded.balancer.log.position();
    guarded.balancer.signal("HUP");
    let reloaded = guarded
        .balancer
        .event("a reload", from, |event| event.message() == "reloaded");
    reloaded.await;
    assert_eq!(eyes.get("/api/v1/status").await.status, 401);
}

#[tokio::test]
async fn without_tokens_there_is_no_login() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let login = balancer.get("/login").await.json();
    assert_eq!(
        (&login["required"], &login["role"]),
        (&json!(false), &json!("operate"))
    );
    let answer = balancer.post("/login", "{\"token\": \"any\"}").await;
    assert_eq!((answer.status, field(&answer, "set-cookie")), (200, None));
    assert_eq!(balancer.get("/").await.status, 200);
    assert_eq!(balancer.post(DRAIN, "{}").await.status, 200);
}

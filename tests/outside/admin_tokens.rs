//! Several admin tokens: each with what it may do, each action under its name.

use crate::harness::{Answer, Balancer, Launch, raw_request};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};

const NODE: &str = "/api/v1/pools/nodes/backends";

struct Tokens {
    balancer: Balancer,
    _nodes: [Node; 2],
    config: String,
}

fn token(name: &str, keys: &str) -> String {
    format!("[[admin.token]]\nname = \"{name}\"\nfile = \"{name}.token\"\n{keys}\n\n")
}

impl Tokens {
    async fn start() -> Tokens {
        let launch = Launch::new();
        for name in ["old", "eyes", "hands", "node-1"] {
            std::fs::write(launch.path(&format!("{name}.token")), secret(name)).expect("a token");
        }
        let nodes = [Node::echo("n1").await, Node::echo("n2").await];
        let [n1, n2] = &nodes;
        let backends = [backend("n1", n1.address), backend("n2", n2.address)];
        let config = listener("main", "tcp", "nodes")
            + &pool("nodes", "", &backends)
            + "[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = \"old.token\"\n\n"
            + &token("eyes", "role = \"read\"")
            + &token("hands", "role = \"operate\"")
            + &token("node-1", "role = \"operate\"\nbackend = \"nodes/n1\"");
        Tokens {
            balancer: launch.start(&config),
            _nodes: nodes,
            config,
        }
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let admin = self.balancer.address("admin").await;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        raw_request(admin, request.as_bytes()).await
    }

    async fn operate(&self, name: &str, backend: &str, word: &str) -> u16 {
        let path = format!("{NODE}/{backend}/{word}");
        self.ask(secret(name).trim(), "POST", &path, "{}")
            .await
            .status
    }
}

fn secret(name: &str) -> String {
    format!("secret-of-{name}\n")
}

#[tokio::test]
async fn a_token_may_what_its_role_says() {
    let tokens = Tokens::start().await;
    for name in ["old", "eyes", "hands", "node-1"] {
        for path in ["/api/v1/status", "/api/v1/connections", "/metrics"] {
            let seen = tokens.ask(secret(name).trim(), "GET", path, "").await;
            assert_eq!(seen.status, 200, "{name} {path}");
        }
    }
    assert_eq!(
        tokens
            .ask("nobodys", "GET", "/api/v1/status", "")
            .await
            .status,
        401
    );
    assert_eq!(tokens.operate("eyes", "n1", "drain").await, 403);
    assert_eq!(tokens.operate("old", "n1", "drain").await, 200);
    assert_eq!(tokens.operate("hands", "n1", "ready").await, 200);
    let all = "{\"all\": true}";
    let close = "/api/v1/connections/close";
    let hands = secret("hands");
    assert_eq!(
        tokens.ask(hands.trim(), "POST", close, all).await.status,
        202
    );
    let eyes = secret("eyes");
    let refused = tokens.ask(eyes.trim(), "POST", close, all).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("may only read"), "{}", refused.body);
    let metrics = tokens.ask(eyes.trim(), "GET", "/metrics", "").await.body;
    let row = metrics
        .lines()
        .find(|line| line.contains("reason=\"forbidden\"") && line.contains("endpoint=\"admin\""));
    assert!(row.is_some_and(|row| row.ends_with(" 2")), "{row:?}");
}

#[tokio::test]
async fn a_node_drains_itself_and_nobody_else() {
    let tokens = Tokens::start().await;
    for word in ["drain", "maint", "ready"] {
        assert_eq!(tokens.operate("node-1", "n1", word).await, 200, "{word}");
        assert_eq!(tokens.operate("node-1", "n2", word).await, 403, "{word}");
    }
    let own = secret("node-1");
    let weight = "{\"weight\": 3}";
    let ask = |method: &'static str, path: String, body: &'static str| {
        let (tokens, own) = (&tokens, own.trim());
        async move { tokens.ask(own, method, &path, body).await }
    };
    assert_eq!(
        ask("PUT", format!("{NODE}/n1/weight"), weight).await.status,
        200
    );
    assert_eq!(
        ask("PUT", format!("{NODE}/n2/weight"), weight).await.status,
        403
    );
    for path in [
        "reload",
        "listeners/main/drain",
        "connections/close",
        "jobs/1/abort",
    ] {
        let answer = ask("POST", format!("/api/v1/{path}"), "{}").await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        assert!(answer.body.contains("nodes/n1"), "{path}: {}", answer.body);
    }
    let paced = ask("POST", format!("{NODE}/n1/drain"), "{\"rate\": \"1/s\"}").await;
    assert_eq!(paced.status, 200, "{}", paced.body);
}

#[tokio::test]
async fn each_action_is_logged_with_the_name_and_the_peer() {
    let tokens = Tokens::start().await;
    let plan = "{\"configuration\": \"\"}";
    let eyes = secret("eyes");
    tokens.ask(eyes.trim(), "POST", "/api/v1/plan", plan).await;
    tokens.operate("node-1", "n1", "drain").await;
    tokens.operate("eyes", "n2", "drain").await;
    let balancer = &tokens.balancer;
    let done = balancer
        .event("the action", 0, |event| event.message() == "operator acts")
        .await;
    assert_eq!(done.field("token"), Some("node-1"));
    assert_eq!(
        done.field("path"),
        Some("/api/v1/pools/nodes/backends/n1/drain")
    );
    assert!(
        done.field("peer")
            .is_some_and(|peer| peer.starts_with("127.0.0.1:"))
    );
    let refused = balancer
        .event("the refusal", 0, |event| {
            event.message() == "admin request refused"
        })
        .await;
    assert_eq!(refused.field("token"), Some("eyes"));
    assert_eq!(refused.field("reason"), Some("forbidden"));
}

/// A token that is taken away is good for nothing after the reload, and its new text is.
#[tokio::test]
async fn a_reload_reads_the_tokens_again() {
    let tokens = Tokens::start().await;
    std::fs::write(tokens.balancer.path("hands.token"), "another\n").expect("a token");
    let without_eyes = tokens.config.replace(&token("eyes", "role = \"read\""), "");
    tokens.balancer.write(&without_eyes);
    let old = secret("old");
    let reloaded = tokens.ask(old.trim(), "POST", "/api/v1/reload", "{}").await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    for (token, status) in [
        ("another", 200),
        (secret("hands").trim(), 401),
        (secret("eyes").trim(), 401),
    ] {
        let seen = tokens.ask(token, "GET", "/api/v1/status", "").await;
        assert_eq!(seen.status, status, "{token}");
    }
}

/// The command line takes of the file's tokens what it can read.
#[tokio::test]
async fn the_commands_find_a_token_in_the_file() {
    let tokens = Tokens::start().await;
    let admin = tokens.balancer.address("admin").await;
    let bound = format!("bind = \"{admin}\"");
    let file = tokens
        .config
        .replace("bind = \"127.0.0.1:0\"\ntoken_file = \"old.token\"", &bound);
    assert!(file.contains(&bound));
    std::fs::write(tokens.balancer.path("commands.toml"), file).expect("a file");
    let path = tokens.balancer.path("commands.toml");
    let path = path.to_str().expect("a path");
    let (code, out, err) = tokens
        .balancer
        .command(&["drain", "-c", path, "nodes/n1"])
        .await;
    assert_eq!(code, 0, "{out}{err}");
    let done = tokens
        .balancer
        .event("the action", 0, |event| event.message() == "operator acts")
        .await;
    assert_eq!(done.field("token"), Some("hands"));
}

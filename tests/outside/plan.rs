//! What a reload would do, told before it is done; and a reload that is done only if a condition holds of it.

use serde_json::{Value, json};

use crate::clients::{echoed, greeted};
use crate::harness::{Answer, Balancer, complete};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};

/// Two listeners, one pool each; three connections are live on `one`, one on `two`.
struct Bench {
    balancer: Balancer,
    held: Vec<tokio::net::TcpStream>,
    nodes: [Node; 2],
}

impl Bench {
    async fn start() -> Bench {
        let nodes = [Node::echo("n1").await, Node::echo("n2").await];
        let balancer = Balancer::start(&before(&nodes));
        let mut held = Vec::new();
        for (listener, count) in [("one", 3), ("two", 1)] {
            let address = balancer.address(listener).await;
            for _ in 0..count {
                held.push(greeted(address).await.0);
            }
        }
        Bench {
            balancer,
            held,
            nodes,
        }
    }

    async fn plan(&self, config: &str) -> Answer {
        let body = json!({ "configuration": complete(config) });
        let path = "/api/v1/plan";
        self.balancer.post(path, &body.to_string()).await
    }
}

fn before([one, two]: &[Node; 2]) -> String {
    listener("one", "tcp", "p1")
        + &listener("two", "tcp", "p2")
        + &pool("p1", "", &[backend("n1", one.address)])
        + &pool("p2", "", &[backend("n2", two.address)])
}

/// `two` and its pool are gone, `p1` has another node and another key.
fn after([one, two]: &[Node; 2]) -> String {
    let backends = [backend("n1", one.address), backend("n3", two.address)];
    listener("one", "tcp", "p1") + &pool("p1", "retries = 1", &backends)
}

fn part<'a>(plan: &'a Value, kind: &str, name: &str) -> &'a Value {
    let parts = plan["parts"].as_array().unwrap();
    let mut parts = parts.iter();
    parts
        .find(|part| part["part"] == kind && part["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}: {plan}"))
}

#[tokio::test]
async fn a_plan_says_what_becomes_of_each_part_and_of_its_connections_and_does_nothing() {
    let mut bench = Bench::start().await;
    let plan = bench.plan(&after(&bench.nodes)).await;
    assert_eq!(plan.status, 200, "{}", plan.body);
    let plan = plan.json();
    for (kind, name, fate, keys, live, left) in [
        ("listener", "one", "kept", json!([]), json!(3), 0),
        ("listener", "two", "removed", json!([]), json!(1), 1),
        ("pool", "p1", "changed", json!(["retries"]), json!(3), 0),
        ("backend", "p1/n1", "kept", json!([]), json!(3), 0),
        ("backend", "p1/n3", "added", json!([]), json!(0), 0),
        ("pool", "p2", "removed", json!([]), json!(1), 1),
        ("backend", "p2/n2", "removed", json!([]), json!(1), 1),
    ] {
        let part = part(&plan, kind, name);
        let seen = (
            &part["fate"],
            &part["keys"],
            &part["live"],
            &part["left_behind"],
        );
        assert_eq!(seen, (&json!(fate), &keys, &live, &json!(left)), "{part}");
        assert_eq!(part["closes"], 0);
    }
    let totals =
        json!({ "changes": 5, "adds": 1, "removes": 3, "kept": 2, "closes": 0, "left_behind": 2 });
    assert_eq!(plan["totals"], totals);
    // The file on disk is as it was, and so is what serves.
    let nothing = bench.balancer.reload(&before(&bench.nodes)).await;
    assert_eq!(nothing["changes"], json!([]));
    for stream in &mut bench.held {
        echoed(stream, b"still here").await;
    }
    // A reload of that text does what was told.
    let reloaded = bench.balancer.reload(&after(&bench.nodes)).await;
    assert_eq!(
        reloaded["summary"].as_array().unwrap().len(),
        4,
        "{reloaded}"
    );
    for stream in &mut bench.held {
        echoed(stream, b"still here").await;
    }
}

#[tokio::test]
async fn a_wrong_text_is_told_with_its_lines_and_no_file_that_it_names_is_opened() {
    let bench = Bench::start().await;
    let wrong = after(&bench.nodes).replace("retries = 1", "retries = \"x\"");
    let refused = bench.plan(&wrong).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let error = refused.json()["errors"][0].as_str().unwrap().to_owned();
    assert!(
        error.contains("balancer.toml:") && error.contains("pool.p1.retries"),
        "{error}"
    );
    // Whether a file is there is none of the asker's business.
    let named = bench.balancer.path("secret.pem");
    let tls = format!(
        "pool = \"p1\"\ntls = {{ certificates = [{{ cert = \"{0}\", key = \"{0}\" }}] }}",
        named.display()
    );
    let text = after(&bench.nodes).replace("pool = \"p1\"", &tls);
    let absent = bench.plan(&text).await;
    std::fs::write(&named, "no certificate").unwrap();
    let present = bench.plan(&text).await;
    assert_eq!((absent.status, &absent.body), (200, &present.body));
    for body in [
        "{}",
        "{\"configuration\": 1}",
        "{\"file\": \"/etc/passwd\"}",
    ] {
        let answer = bench.balancer.post("/api/v1/plan", body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
    }
    let large = json!({ "configuration": " ".repeat(9 << 20) }).to_string();
    let answer = bench.balancer.post("/api/v1/plan", &large).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    let larger = json!({ "configuration": " ".repeat(17 << 20) }).to_string();
    let answer = bench.balancer.post("/api/v1/plan", &larger).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
}

#[tokio::test]
async fn the_errors_of_a_text_are_drawn_with_carets() {
    let bench = Bench::start().await;
    let text = after(&bench.nodes).replace("retries = 1", "maxconn = 1");
    let refused = bench.plan(&text).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let drawn = refused.json()["drawn"].as_str().unwrap().to_owned();
    let told = "help: it is `max_connections` of each backend here";
    assert!(
        drawn.contains("maxconn = 1") && drawn.contains('^') && drawn.contains(told),
        "{drawn}"
    );
}

#[tokio::test]
async fn the_file_is_planned_as_it_is_now() {
    let bench = Bench::start().await;
    let plan = || bench.balancer.get("/api/v1/configuration/plan");
    assert_eq!(plan().await.json()["totals"]["changes"], 0);
    let config = after(&bench.nodes);
    bench.balancer.write(&config);
    let planned = plan().await.json();
    assert_eq!(planned, bench.plan(&config).await.json());
    assert_eq!(planned["totals"]["removes"], 3, "{planned}");
    bench.balancer.write("nonsense = 1");
    let refused = plan().await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("nonsense = 1"), "{}", refused.body);
    let status = bench.balancer.get("/api/v1/status").await.json();
    assert_eq!(status["configuration"]["number"], 1, "{status}");
}

#[tokio::test]
async fn a_reload_whose_condition_does_not_hold_changes_nothing() {
    let bench = Bench::start().await;
    let reload = |body: &'static str| bench.balancer.post("/api/v1/reload", body);
    bench.balancer.write(&after(&bench.nodes));
    for (body, why) in [
        (
            "{\"if\": [\"removes=0\"]}",
            "removes=0 does not hold: it would be 3",
        ),
        (
            "{\"if\": [\"closes=0\", \"changes<=4\"]}",
            "changes<=4 does not hold: it would be 5",
        ),
        (
            "{\"if\": [\"left_behind<2\"]}",
            "left_behind<2 does not hold: it would be 2",
        ),
    ] {
        let refused = reload(body).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.body);
        assert!(refused.body.contains(why), "{body}: {}", refused.body);
        assert_eq!(
            bench
                .balancer
                .metric(&["evenkeel_configuration_error"])
                .await,
            1.0
        );
    }
    for body in [
        "{\"if\": [\"removes\"]}",
        "{\"if\": \"removes=0\"}",
        "{\"unless\": []}",
    ] {
        assert_eq!(reload(body).await.status, 400, "{body}");
    }
    greeted(bench.balancer.address("two").await).await;
    let done = reload("{\"if\": [\"closes=0\", \"removes<=3\"]}").await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(done.json()["changes"].as_array().unwrap().len(), 4);
    assert_eq!(
        bench
            .balancer
            .metric(&["evenkeel_configuration_error"])
            .await,
        0.0
    );
}

/// What a reload finds wrong was told without the line that it is about.
#[tokio::test]
async fn a_refused_reload_shows_each_line_with_a_caret_as_check_does() {
    let bench = Bench::start().await;
    let missing = "[[listener]]\nname = \"tls\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p1\"\n\
                   tls = { certificates = [{ cert = \"nowhere.pem\", key = \"nowhere.key\" }] }\n";
    for (config, line, told) in [
        (
            after(&bench.nodes).replace("retries = 1", "maxconn = 1"),
            "maxconn = 1",
            "help: it is `max_connections` of each backend here",
        ),
        (
            missing.to_owned() + &after(&bench.nodes),
            "tls = { certificates = [{ cert = \"nowhere.pem\"",
            "nowhere.pem: ",
        ),
    ] {
        let refused = bench.balancer.try_reload(&config).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        let drawn = refused.json()["drawn"].as_str().unwrap().to_owned();
        let admin = bench.balancer.address("admin").await.to_string();
        let (code, _, shown) = bench.balancer.command(&["reload", "--admin", &admin]).await;
        assert_eq!(code, 1);
        let file = bench.balancer.config.display().to_string();
        let (_, _, checked) = bench.balancer.command(&["check", &file]).await;
        assert!(shown.contains(drawn.trim_end()), "{shown}\n{drawn}");
        assert_eq!(drawn.trim_end(), checked.trim_end());
        assert!(
            drawn.contains(line) && drawn.contains('^') && drawn.contains(told),
            "{drawn}"
        );
    }
}

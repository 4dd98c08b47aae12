//! The commands that talk to a running balancer: `status`, `reload`, `drain`, `ready`, `maint`, `weight`.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::certificates::Certificate;
use crate::clients::greeted;
use crate::harness::{Balancer, Event, Launch, complete, run, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, listener_with, pool, simple};

async fn started() -> (Balancer, String, Node) {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let admin = balancer.address("admin").await.to_string();
    (balancer, admin, node)
}

#[tokio::test]
async fn status_shows_every_listener_and_backend_without_colour_in_a_pipe() {
    let (balancer, admin, node) = started().await;
    let (code, table, error) = balancer.command(&["status", "--admin", &admin]).await;
    assert_eq!(code, 0, "{error}");
    let listener = balancer.address("main").await.to_string();
    for word in [
        "main",
        &listener,
        "pool nodes",
        "n1",
        &node.address.to_string(),
        "up",
    ] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "{table}");
    let (_, json, _) = balancer
        .command(&["status", "-o", "json", "--admin", &admin])
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["pools"][0]["backends"][0]["name"], "n1", "{json}");
}

#[tokio::test]
async fn status_of_one_pool_or_of_what_is_not_up() {
    let (balancer, admin, _node) = started().await;
    let status = async |words: &[&str]| {
        let words = [&["status", "--admin", &admin], words].concat();
        balancer.command(&words).await
    };
    let (code, table, error) = status(&["nodes"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        table.starts_with("pool nodes (") && !table.contains("listeners"),
        "{table}"
    );
    let (code, out, error) = status(&["nope"]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        error.contains("no pool \"nope\"; there are: nodes"),
        "{error}"
    );
    for words in [&["--down"][..], &["nodes", "--down"]] {
        let (code, table, error) = status(words).await;
        let expected = (0, "every backend is up\n");
        assert_eq!((code, table.as_str()), expected, "{error}");
    }
    balancer
        .command(&["drain", "nodes/n1", "--admin", &admin])
        .await;
    let (_, table, _) = status(&["--down"]).await;
    assert!(table.contains("n1") && table.contains("drain"), "{table}");
    let (_, json, _) = status(&["nodes", "--down", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["backends"][0]["state"], "drain", "{json}");
}

#[tokio::test]
async fn a_weight_is_set_and_reset() {
    let (balancer, admin, _node) = started().await;
    let weight = async |words: &[&str]| {
        let words = [&["weight", "--admin", &admin, "nodes/n1"], words].concat();
        balancer.command(&words).await
    };
    for (word, now) in [("7", 7), ("0", 0), ("--reset", 1)] {
        let (code, out, error) = weight(&[word]).await;
        assert_eq!(code, 0, "{error}");
        assert_eq!(out, format!("nodes/n1: weight {now}, up, 0 connections\n"));
        assert_eq!(balancer.backend("nodes", "n1").await["weight"], now);
    }
    for wrong in [&["257"][..], &["-1"], &["x"], &[], &["7", "--reset"]] {
        assert_eq!(weight(wrong).await.0, 2, "{wrong:?}");
    }
}

/// Each was asked of the endpoint and told as a failure.
#[tokio::test]
async fn what_can_be_seen_to_be_wrong_is_wrong_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in [
        &["drain", "nodes/n1", "--wait", "8d"][..],
        &["drain", "nodes/n1", "--code", "99"],
        &["drain", "nodes/n1", "--deadline", "8d"],
        &["close", "--all", "--code", "1005"],
        &["connections", "--client", "1.2.3"],
        &["close", "--client", "10.0.0.0/33"],
        &["close", "7", "--rate", "5/s"],
        &["close"],
        &["move"],
    ] {
        let words = [words, &["--admin", "127.0.0.1:1"]].concat();
        let (code, out, error) = run(&words, folder.path()).await;
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {error}");
        assert!(error.starts_with("error: "), "{words:?}: {error}");
    }
    for admin in ["9900", "localhost", "ftp://127.0.0.1:1", "127.0.0.1:99999"] {
        let words = ["status", "--admin", admin];
        let (code, out, error) = run(&words, folder.path()).await;
        assert_eq!((code, out.as_str()), (2, ""), "{admin}: {error}");
        assert!(error.contains(admin), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_is_no_admin_endpoint_is_told_as_what_it_is() {
    let tcp = Node::echo("n1").await;
    let web = Node::web("w1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let tls = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let nodes = |name: &str, node: &Node| pool(name, "", &[backend("n1", node.address)]);
    let config = listener("tcp", "tcp", "nodes")
        + &listener_with("tls", "tcp", "nodes", &tls)
        + &listener("web", "websocket", "web")
        + &nodes("nodes", &tcp)
        + &nodes("web", &web);
    let balancer = launch.start(&config);
    let admin = balancer.address("admin").await.to_string();
    let of = async |name: &str| balancer.address(name).await.to_string();
    let (tcp, tls, web) = (of("tcp").await, of("tls").await, of("web").await);
    for (address, said) in [
        (
            tcp.clone(),
            "it does not speak HTTP: its answer begins with \"n1\"",
        ),
        (tls, "it speaks TLS; use https://"),
        (web, "which is no admin endpoint's answer"),
        (format!("https://{tcp}"), "does not speak TLS; use http://"),
        (
            format!("https://{admin}"),
            "does not speak TLS; use http://",
        ),
    ] {
        let (code, out, error) = balancer.command(&["status", "--admin", &address]).await;
        assert_eq!((code, out.as_str()), (1, ""), "{address}");
        let here = address.trim_start_matches("https://");
        let expected = format!("no admin endpoint at {here} (from --admin): ");
        assert!(error.contains(&expected) && error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_drain_that_runs_out_of_its_wait_fails_and_one_that_empties_does_not() {
    let (balancer, admin, _node) = started().await;
    let (stream, _) = greeted(balancer.address("main").await).await;
    let ask = |word, wait| ["drain", "nodes/n1", word, wait, "--admin", &admin].map(str::to_owned);
    let words = ask("--wait", "10ms");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (code, out, error) = balancer.command(&words).await;
    assert_eq!((code, out.as_str()), (1, "nodes/n1: drain, 1 connection\n"));
    assert!(
        error.contains("nodes/n1: 1 connection left after 10ms"),
        "{error}"
    );
    drop(stream);
    let words = ask("--wait", "20s");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (code, out, error) = balancer.command(&words).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "nodes/n1: drain, 0 connections\n"),
        "{error}"
    );
}

#[tokio::test]
async fn a_drain_with_a_pace_ends_with_a_job_that_is_done() {
    let (balancer, admin, _node) = started().await;
    let _live = greeted(balancer.address("main").await).await;
    for after in ["0s", "10ms"] {
        let words = [
            "drain", "nodes/n1", "--rate", "100/s", "--after", after, "--wait", "20s", "--admin",
            &admin,
        ];
        let (code, out, error) = balancer.command(&words).await;
        assert_eq!(code, 0, "{error}");
        assert!(out.contains(": done, ") && !out.contains("ending"), "{out}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_as_that() {
    let (balancer, admin, _node) = started().await;
    let command = async |words: &[&str]| {
        let words = [words, &["--admin", &admin]].concat();
        balancer.command(&words).await
    };
    let (code, _, error) = command(&["abort", "99"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("no job 99; `evenkeel jobs`"), "{error}");
    for word in ["abort", "close"] {
        let (code, _, error) = command(&[word, "abc"]).await;
        assert_eq!(code, 2);
        assert!(error.contains("not a number"), "{error}");
    }
    let (code, out, error) = command(&["close", "--tag", "nobody"]).await;
    let nobody = "no connection matches: tag=nobody\n";
    assert_eq!((code, out.as_str()), (0, nobody), "{error}");
    let address = balancer.address("main").await;
    let _live = (greeted(address).await, greeted(address).await);
    for (limit, is_more) in [("1", true), ("2", false)] {
        let words = ["connections", "--sort", "bytes", "--limit", limit];
        let (code, out, error) = command(&words).await;
        assert_eq!(code, 0, "{error}");
        let more = "; there may be more: a higher --limit\n";
        assert_eq!(out.ends_with(more), is_more, "{out}");
    }
}

/// Passes each request on to `admin`, with a `wait` of 10 ms in place of the longest that the endpoint has, and says that it came.
async fn impatient(admin: SocketAddr, came: mpsc::UnboundedSender<String>) -> SocketAddr {
    let gate = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = gate.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = gate.accept().await {
            let mut head = vec![0; 16 * 1024];
            let read = client.read(&mut head).await.expect("a request");
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let _ = came.send(head.lines().next().unwrap_or_default().to_owned());
            let head = head
                .replace("wait=1h", "wait=10ms")
                .replace(&address.to_string(), &admin.to_string());
            let mut endpoint = TcpStream::connect(admin).await.expect("connect");
            endpoint.write_all(head.as_bytes()).await.expect("write");
            let _ = copy_bidirectional(&mut client, &mut endpoint).await;
        }
    });
    address
}

/// It waits for an hour at most, and a longer `--wait` was refused by it.
#[tokio::test]
async fn a_wait_goes_on_when_the_endpoint_waits_no_longer() {
    let (balancer, _, _node) = started().await;
    let (came, mut requests) = mpsc::unbounded_channel();
    let gate = impatient(balancer.address("admin").await, came).await;
    let (stream, _) = greeted(balancer.address("main").await).await;
    let gate = gate.to_string();
    let words = ["drain", "nodes/n1", "--wait", "2h", "--admin", &gate];
    let looks = async {
        let first = within("a drain", requests.recv()).await.expect("a drain");
        let path = "POST /api/v1/pools/nodes/backends/n1/drain?wait=1h ";
        assert!(first.starts_with(path), "{first}");
        // Two looks of two requests each.
        for _ in 0..4 {
            let look = within("a look", requests.recv()).await.expect("a look");
            assert!(look.starts_with("GET "), "{look}");
        }
        drop(stream);
    };
    let ((code, out, error), ()) = tokio::join!(balancer.command(&words), looks);
    let expected = (0, "nodes/n1: drain, 0 connections\n");
    assert_eq!((code, out.as_str()), expected, "{error}");
    assert_eq!(error, "", "nobody looks at it");
}

#[tokio::test]
async fn each_state_is_set_and_an_unknown_backend_is_told_what_there_is() {
    let (balancer, admin, _node) = started().await;
    for (word, operator) in [("maint", "maint"), ("drain", "drain"), ("ready", "ready")] {
        let (code, _, error) = balancer
            .command(&[word, "nodes/n1", "--admin", &admin])
            .await;
        assert_eq!(code, 0, "{error}");
        let seen = balancer.backend("nodes", "n1").await;
        assert_eq!(seen["operator"], operator, "{seen}");
        let is_it = |event: &Event| {
            event.message() == "operator sets the state" && event.field("to") == Some(operator)
        };
        balancer.event("the word in the log", 0, is_it).await;
    }
    let (code, _, error) = balancer
        .command(&["drain", "nodes/n9", "--admin", &admin])
        .await;
    assert_eq!(code, 1);
    assert!(
        error.contains("n9") && error.contains("there are: n1"),
        "{error}"
    );
}

#[tokio::test]
async fn reload_prints_the_changes_or_every_error() {
    let (balancer, admin, node) = started().await;
    let reload = ["reload", "--admin", &admin];
    let (code, out, error) = balancer.command(&reload).await;
    assert_eq!((code, out.as_str()), (0, "nothing changed\n"), "{error}");
    let changed = simple("tcp", "balance = \"least_conn\"", &[&node]);
    balancer.write(&complete(&changed));
    let (code, out, error) = balancer.command(&reload).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "pool nodes: changed balance\n"),
        "{error}"
    );
    let wrong = simple("tcp", "balance = \"least\"\nretries = \"x\"", &[&node]);
    balancer.write(&complete(&wrong));
    let (code, _, error) = balancer.command(&reload).await;
    assert_eq!(code, 1, "{error}");
    assert!(
        error.contains("balance") && error.contains("retries"),
        "{error}"
    );
}

#[tokio::test]
async fn the_configuration_says_where_the_endpoint_is_and_how_to_be_let_in() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "admin", &["admin.example"]);
    std::fs::write(launch.path("token"), "correct-horse\n").expect("write");
    let config = |bind: &str| {
        let tls = certificate.toml();
        let admin = format!("[admin]\nbind = \"{bind}\"\ntls = {tls}\ntoken_file = \"token\"\n");
        simple("tcp", "", &[&node]) + &admin
    };
    let balancer = launch.start(&config("127.0.0.1:0"));
    let admin = balancer.address("admin").await.to_string();
    let file = balancer.path("client.toml");
    std::fs::write(&file, config(&admin)).expect("write");
    for words in [
        ["status", "--config", "client.toml"],
        ["-c", "client.toml", "status"],
    ] {
        let (code, table, error) = balancer.command(&words).await;
        assert_eq!(code, 0, "{error}");
        assert!(table.contains("pool nodes"), "{table}");
    }
    let url = format!("https://{admin}");
    let (code, _, error) = balancer.command(&["status", "--admin", &url]).await;
    assert_eq!(code, 1, "an unknown certificate was taken");
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn over_a_unix_socket() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let bind = format!("unix:{}", launch.path("admin.sock").display());
    let config = simple("tcp", "", &[&node]) + &format!("[admin]\nbind = \"{bind}\"\n");
    let balancer = launch.start(&config);
    balancer
        .event("the admin endpoint", 0, |event| {
            event.message() == "listening" && event.field("listener") == Some("admin")
        })
        .await;
    let (code, table, error) = balancer
        .command(&["status", "--config", "balancer.toml"])
        .await;
    assert_eq!(code, 0, "{error}");
    assert!(table.contains("pool nodes"), "{table}");
}

#[tokio::test]
async fn without_an_endpoint_the_error_says_where_it_looked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("unix:{}", folder.path().join("none.sock").display());
    let (code, out, error) = run(&["status", "--admin", &path], folder.path()).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        error.contains(&path) && error.contains("is evenkeel running"),
        "{error}"
    );
    let (code, ..) = run(&["drain", "nodes", "--admin", &path], folder.path()).await;
    assert_eq!(code, 2, "a wrong name is wrong usage");
}

#[tokio::test]
async fn plan_shows_what_a_file_would_change_or_its_errors_as_check_does() {
    let (balancer, admin, node) = started().await;
    let (_live, _) = greeted(balancer.address("main").await).await;
    let new = balancer.path("new.toml");
    let plan = ["plan", new.to_str().unwrap(), "--admin", &admin];
    std::fs::write(&new, complete(&simple("tcp", "", &[&node]))).unwrap();
    let (code, out, error) = balancer.command(&plan).await;
    assert_eq!(code, 0, "{error}");
    assert_eq!(
        out,
        "nothing would change; 3 kept; 0 connections closed, 0 left behind\n"
    );
    let moved = simple("tcp", "retries = 1", &[&node]).replace("\"n1\"", "\"n2\"");
    std::fs::write(&new, complete(&moved)).unwrap();
    let (code, out, error) = balancer.command(&plan).await;
    assert_eq!(code, 0, "{error}");
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[1],
        ["pool", "nodes", "changed", "retries", "1", "0"],
        "{out}"
    );
    assert_eq!(
        rows[2],
        ["backend", "nodes/n2", "added", "-", "0", "0"],
        "{out}"
    );
    assert_eq!(
        rows[3],
        ["backend", "nodes/n1", "removed", "-", "1", "1"],
        "{out}"
    );
    assert!(
        out.ends_with("3 changes: 1 added, 1 changed, 1 removed; 1 kept; 0 connections closed, 1 left behind\n"),
        "{out}"
    );
    let (_, out, _) = balancer
        .command(&[&plan[..], &["-o", "json"]].concat())
        .await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["totals"]["left_behind"], 1);
    std::fs::write(&new, complete(&simple("tcp", "retries = \"x\"", &[&node]))).unwrap();
    let (code, _, planned) = balancer.command(&plan).await;
    let (_, _, checked) = balancer.command(&["check", plan[1]]).await;
    assert_eq!((code, &planned), (1, &checked));
    assert!(planned.contains("retries"), "{planned}");
}

#[tokio::test]
async fn reload_if_takes_conditions_and_says_which_one_does_not_hold() {
    let (balancer, admin, node) = started().await;
    balancer.write(&complete(&simple("tcp", "retries = 1", &[&node])));
    let reload = |condition: &'static str| {
        let (balancer, admin) = (&balancer, &admin);
        async move {
            let words = [
                "reload", "--if", "closes=0", "--if", condition, "--admin", admin,
            ];
            balancer.command(&words).await
        }
    };
    let (code, _, error) = reload("changes<1").await;
    assert_eq!(code, 1);
    assert!(
        error.contains("changes<1 does not hold: it would be 1"),
        "{error}"
    );
    let (code, _, error) = reload("changed=1").await;
    assert_eq!(code, 2);
    assert!(error.contains("keys: changes, adds"), "{error}");
    let (code, out, error) = reload("changes<=1").await;
    assert_eq!(
        (code, out.as_str()),
        (0, "pool nodes: changed retries\n"),
        "{error}"
    );
}

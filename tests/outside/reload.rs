//! Reload: all or nothing, and what did not change is not touched. Each kind of change a hundred times under traffic, each
//! kind with what must keep its socket, its counter and its state, and files that are no configuration.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::certificates::{Certificate, client};
use crate::clients::{connect, echoed, greeted, read_line, tls};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, backend_with, listener, listener_with, pool, simple};

const RELOADS: usize = 100;

/// The changes of a reload's answer as `kind name` words, e.g. `backend_added nodes n4`.
fn changes(answer: &Value) -> Vec<String> {
    let listed = answer["changes"].as_array().expect("a list of changes");
    listed
        .iter()
        .map(|change| {
            let words = ["change", "listener", "pool", "backend", "key"];
            words
                .iter()
                .filter_map(|word| change[*word].as_str())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

/// New connections, one after the other in several tasks, and live ones that echo; none may fail.
struct Traffic {
    stop: watch::Sender<bool>,
    rounds: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Traffic {
    async fn start(address: std::net::SocketAddr) -> Traffic {
        let (stop, _) = watch::channel(false);
        let rounds: Arc<AtomicUsize> = Arc::default();
        let mut clients = JoinSet::new();
        for number in 0..4 {
            let (stopped, rounds) = (stop.subscribe(), rounds.clone());
            let (mut live, _) = greeted(address).await;
            clients.spawn(async move {
                let mut round = 0_usize;
                while !*stopped.borrow() {
                    let bytes = format!("{number}:{round};");
                    echoed(&mut live, bytes.as_bytes()).await;
                    let mut fresh = connect(address).await;
                    read_line(&mut fresh)
                        .await
                        .expect("a new connection was lost");
                    echoed(&mut fresh, bytes.as_bytes()).await;
                    rounds.fetch_add(1, Ordering::SeqCst);
                    round += 1;
                }
            });
        }
        Traffic {
            stop,
            rounds,
            clients,
        }
    }

    /// Waits for some more rounds.
    async fn goes_on(&self) {
        let from = self.rounds.load(Ordering::SeqCst);
        within("traffic", async {
            while self.rounds.load(Ordering::SeqCst) < from + 2 {
                crate::harness::a_moment().await;
            }
        })
        .await;
    }

    async fn finish(mut self) -> usize {
        self.stop.send(true).expect("clients");
        while let Some(client) = self.clients.join_next().await {
            client.expect("no connection lost");
        }
        self.rounds.load(Ordering::SeqCst)
    }
}

/// Reloads `first` and `second` in turn under traffic on `main`.
async fn reloads_under_traffic(launch: Launch, first: &str, second: &str, expected: &[&str]) {
    let balancer = launch.start(first);
    let address = balancer.address("main").await;
    let traffic = Traffic::start(address).await;
    for round in 0..RELOADS {
        let answer = balancer
            .reload(if round % 2 == 0 { second } else { first })
            .await;
        let seen = changes(&answer);
        let due = if round % 2 == 0 {
            expected[0]
        } else {
            expected[1]
        };
        assert!(
            seen.iter().any(|change| change == due),
            "{due} is not in {answer}"
        );
        if round % 20 == 0 {
            traffic.goes_on().await;
        }
    }
    traffic.goes_on().await;
    assert!(traffic.finish().await > 0);
    assert_eq!(
        balancer.address("main").await,
        address,
        "the listener kept its socket"
    );
}

#[tokio::test]
async fn backends_come_and_go_under_traffic() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let (one, two) = (simple("tcp", "", &[&n1]), simple("tcp", "", &[&n1, &n2]));
    reloads_under_traffic(
        Launch::new(),
        &one,
        &two,
        &["backend_added nodes n2", "backend_removed nodes n2"],
    )
    .await;
}

#[tokio::test]
async fn weights_and_algorithms_change_under_traffic() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let config = |balance: &str, weight: u16| {
        let backends = [
            backend("n1", n1.address),
            backend_with("n2", n2.address, &format!("weight = {weight}")),
        ];
        listener("main", "tcp", "nodes")
            + &pool("nodes", &format!("balance = \"{balance}\""), &backends)
    };
    let (first, second) = (config("round_robin", 1), config("ip_hash", 200));
    reloads_under_traffic(
        Launch::new(),
        &first,
        &second,
        &["backend_changed nodes n2", "pool_changed nodes"],
    )
    .await;
}

#[tokio::test]
async fn checks_and_timeouts_change_under_traffic() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let first = simple(
        "tcp",
        "check = { type = \"tcp\", interval = \"200ms\" }",
        &[&n1, &n2],
    );
    let second = simple(
        "tcp",
        "idle_timeout = \"10m\"\nconnect_timeout = \"3s\"",
        &[&n1, &n2],
    );
    reloads_under_traffic(
        Launch::new(),
        &first,
        &second,
        &["pool_changed nodes", "pool_changed nodes"],
    )
    .await;
}

#[tokio::test]
async fn pools_come_and_go_and_change_places_under_traffic() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let first = listener("main", "tcp", "a") + &pool("a", "", &[backend("n1", n1.address)]);
    let second = listener("main", "tcp", "b") + &pool("b", "", &[backend("n2", n2.address)]);
    reloads_under_traffic(
        Launch::new(),
        &first,
        &second,
        &["pool_added b", "pool_removed b"],
    )
    .await;
}

#[tokio::test]
async fn listeners_come_and_go_under_traffic_on_another() {
    let n1 = Node::echo("n1").await;
    let first = simple("tcp", "", &[&n1]);
    let second = listener("other", "tcp", "nodes") + &first;
    let expected = ["listener_added other", "listener_removed other"];
    reloads_under_traffic(Launch::new(), &first, &second, &expected).await;
}

#[tokio::test]
async fn settings_of_a_listener_change_under_traffic() {
    let n1 = Node::echo("n1").await;
    let config = |keys: &str| {
        listener_with("main", "tcp", "nodes", keys)
            + &pool("nodes", "", &[backend("n1", n1.address)])
    };
    let (first, second) = (config("backlog = 512"), config("backlog = 1024"));
    reloads_under_traffic(
        Launch::new(),
        &first,
        &second,
        &["listener_changed main", "listener_changed main"],
    )
    .await;
}

#[tokio::test]
async fn the_access_log_changes_under_traffic() {
    let n1 = Node::echo("n1").await;
    let launch = Launch::new();
    let log = launch.path("access.log");
    let config = simple("tcp", "", &[&n1]);
    let logged = format!(
        "[access_log]\noutput = \"{}\"\nlog_at = [\"open\", \"end\"]\n\n{config}",
        log.display()
    );
    reloads_under_traffic(
        launch,
        &config,
        &logged,
        &["access_log_changed", "access_log_changed"],
    )
    .await;
}

#[tokio::test]
async fn the_metrics_endpoint_comes_and_goes_under_traffic() {
    let n1 = Node::echo("n1").await;
    let config = simple("tcp", "", &[&n1]);
    let with = format!("{config}[metrics]\nbind = \"127.0.0.1:0\"\n");
    let expected = ["metrics_changed"; 2];
    reloads_under_traffic(Launch::new(), &config, &with, &expected).await;
}

#[tokio::test]
async fn settings_of_the_admin_endpoint_change_under_traffic() {
    let n1 = Node::echo("n1").await;
    let config = |hosts: &str| {
        let admin = format!("[admin]\nbind = \"127.0.0.1:0\"\nallowed_hosts = [{hosts}]\n");
        simple("tcp", "", &[&n1]) + &admin
    };
    let (first, second) = (config(""), config("\"ops.example.org\""));
    let expected = ["admin_changed"; 2];
    reloads_under_traffic(Launch::new(), &first, &second, &expected).await;
}

#[tokio::test]
async fn settings_of_the_process_change_under_traffic() {
    let n1 = Node::echo("n1").await;
    let config = simple("tcp", "", &[&n1]);
    let (first, second) = (
        with_global("max_connections = 500", &config),
        with_global(
            "max_connections = 600\nmax_setup_connections = 300",
            &config,
        ),
    );
    let expected = ["global_changed"; 2];
    reloads_under_traffic(Launch::new(), &first, &second, &expected).await;
}

#[tokio::test]
async fn discovery_comes_and_goes_under_traffic() {
    let n1 = Node::echo("n1").await;
    let discover = format!("discover = {{ dns = \"localhost:{}\" }}", n1.address.port());
    let first = simple("tcp", "", &[&n1]);
    let second = simple("tcp", &discover, &[&n1]);
    let expected = ["pool_changed nodes"; 2];
    reloads_under_traffic(Launch::new(), &first, &second, &expected).await;
}

#[tokio::test]
async fn routes_change_under_traffic() {
    let [n1, n2] = [Node::web("n1").await, Node::web("n2").await];
    let pools = pool("nodes", "", &[backend("n1", n1.address)])
        + &pool("chat", "", &[backend("n2", n2.address)]);
    let first = listener("main", "websocket", "nodes") + &pools;
    let second = listener("main", "websocket", "nodes")
        + "  [[listener.route]]\n  path = \"/chat\"\n  pool = \"chat\"\n\n"
        + &pools;
    let balancer = Balancer::start(&first);
    let address = balancer.address("main").await;
    let mut live = crate::clients::websocket(address, "/chat").await;
    for round in 0..RELOADS {
        let (config, node) = if round % 2 == 0 {
            (&second, "n2")
        } else {
            (&first, "n1")
        };
        assert_eq!(
            changes(&balancer.reload(config).await),
            ["listener_changed main"]
        );
        let mut fresh = crate::clients::websocket(address, "/chat").await;
        assert_eq!(crate::clients::node_of(&mut fresh).await, node);
        assert_eq!(
            crate::clients::node_of(&mut live).await,
            "n1",
            "a live session was moved"
        );
    }
}

#[tokio::test]
async fn timeouts_of_a_listener_change_under_traffic() {
    let n1 = Node::web("n1").await;
    let config = |keys: &str| {
        listener_with("main", "websocket", "nodes", keys)
            + &pool("nodes", "", &[backend("n1", n1.address)])
    };
    let (first, second) = (
        config("handshake_timeout = \"9s\""),
        config("handshake_timeout = \"8s\"\nupgrade_timeout = \"9s\"\nkeep_alive_timeout = \"9s\""),
    );
    let balancer = Balancer::start(&first);
    let address = balancer.address("main").await;
    let mut live = crate::clients::websocket(address, "/chat").await;
    for round in 0..RELOADS {
        let answer = balancer.reload([&second, &first][round % 2]).await;
        assert_eq!(changes(&answer), ["listener_changed main"]);
        let mut fresh = crate::clients::websocket(address, "/chat").await;
        assert_eq!(crate::clients::node_of(&mut fresh).await, "n1");
        assert_eq!(crate::clients::node_of(&mut live).await, "n1");
    }
    assert_eq!(
        balancer.address("main").await,
        address,
        "the listener kept its socket"
    );
}

#[tokio::test]
async fn a_certificate_alone_is_renewed_and_the_listener_keeps_its_socket() {
    let n1 = Node::echo("n1").await;
    let launch = Launch::new();
    let old = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", old.toml());
    let config = listener_with("main", "tcp", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", n1.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let mut live = tls(address, "a.example", &client(&[&old]))
        .await
        .expect("TLS");
    read_line(&mut live).await.expect("a greeting");
    let mut before = old;
    for _ in 0..RELOADS {
        let renewed = Certificate::write(balancer.folder.path(), "c", &["a.example"]);
        assert_eq!(
            changes(&balancer.reload(&config).await),
            ["certificates_changed main"]
        );
        let mut fresh = tls(address, "a.example", &client(&[&renewed]))
            .await
            .expect("the renewed certificate");
        read_line(&mut fresh).await.expect("a greeting");
        assert!(
            tls(address, "a.example", &client(&[&before]))
                .await
                .is_err(),
            "the old certificate is still shown"
        );
        echoed(&mut live, b"still here").await;
        before = renewed;
    }
    assert_eq!(balancer.address("main").await, address);
    let listeners = balancer.get("/api/v1/listeners").await.json();
    let listeners = listeners.get("listeners").unwrap_or(&listeners);
    assert!(
        listeners[0]["accepted"].as_u64() > Some(RELOADS as u64),
        "the listener's counter went on: {listeners}"
    );
}

#[tokio::test]
async fn a_reload_without_a_change_changes_nothing() {
    let n1 = Node::echo("n1").await;
    let config = simple("tcp", "", &[&n1]);
    let balancer = Balancer::start(&config);
    assert_eq!(changes(&balancer.reload(&config).await), [""; 0]);
    assert_eq!(
        changes(&balancer.reload(&format!("# a comment\n{config}")).await),
        [""; 0]
    );
}

#[tokio::test]
async fn states_counters_and_live_connections_stay_over_a_reload() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let balancer = Balancer::start(&simple("tcp", "balance = \"least_conn\"", &[&n1, &n2]));
    let address = balancer.address("main").await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(greeted(address).await);
    }
    balancer
        .post("/api/v1/pools/nodes/backends/n2/drain", "{}")
        .await;
    balancer
        .change(
            "PUT",
            "/api/v1/pools/nodes/backends/n2/weight",
            "{\"weight\": 7}",
        )
        .await;
    let n3 = Node::echo("n3").await;
    balancer
        .reload(&simple(
            "tcp",
            "balance = \"least_conn\"\nidle_timeout = \"2h\"",
            &[&n1, &n2, &n3],
        ))
        .await;
    let seen = balancer.backend("nodes", "n2").await;
    assert_eq!(
        (&seen["state"], &seen["live"], &seen["connections"]),
        (&"drain".into(), &3.into(), &3.into()),
        "{seen}"
    );
    assert_eq!(seen["weight"], 7, "{seen}");
    for (stream, _) in &mut held {
        echoed(stream, b"still here").await;
    }
    // least_conn has not forgotten the live ones: the new backend gets the next.
    assert_eq!(greeted(address).await.1, "n3");
}

#[tokio::test]
async fn a_check_that_took_a_backend_down_keeps_it_down_over_a_reload() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let check = "check = { type = \"tcp\", interval = \"100ms\", fall = 2, rise = 2 }";
    let gone = n2.address;
    let config = |keys: &str| {
        let backends = [backend("n1", n1.address), backend("n2", gone)];
        listener("main", "tcp", "nodes") + &pool("nodes", &format!("{check}\n{keys}"), &backends)
    };
    let balancer = Balancer::start(&config(""));
    n2.kill().await;
    balancer
        .backend_until("nodes", "n2", |seen| seen["state"] == "down")
        .await;
    let changes_before = balancer.backend("nodes", "n2").await["state_changes"].clone();
    balancer.reload(&config("idle_timeout = \"2h\"")).await;
    let seen = balancer.backend("nodes", "n2").await;
    assert_eq!(
        (&seen["state"], &seen["state_changes"]),
        (&"down".into(), &changes_before),
        "{seen}"
    );
}

#[tokio::test]
async fn a_removed_backend_lets_its_connections_end_and_stays_listed_until_then() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let balancer = Balancer::start(&simple("tcp", "", &[&n1, &n2]));
    let address = balancer.address("main").await;
    let mut held: Vec<(TcpStream, String)> = vec![greeted(address).await, greeted(address).await];
    balancer.reload(&simple("tcp", "", &[&n1])).await;
    let seen = balancer.backend("nodes", "n2").await;
    assert_eq!(
        (&seen["removed"], &seen["live"]),
        (&true.into(), &1.into()),
        "{seen}"
    );
    for _ in 0..4 {
        assert_eq!(
            greeted(address).await.1,
            "n1",
            "a removed backend got a new connection"
        );
    }
    for (stream, _) in &mut held {
        echoed(stream, b"still here").await;
    }
    let drained = balancer
        .post("/api/v1/pools/nodes/backends/n2/drain", "{}")
        .await;
    assert_eq!(
        drained.status, 200,
        "a removed backend can be drained: {}",
        drained.body
    );
    held.retain(|(_, name)| name == "n1");
    within("the removed backend to go", async {
        loop {
            let pools = balancer.get("/api/v1/pools").await.json();
            if crate::harness::find_backend(&pools, "nodes", "n2").is_none() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_returns_while_it_has_connections_keeps_its_count() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let both = simple("tcp", "balance = \"least_conn\"", &[&n1, &n2]);
    let balancer = Balancer::start(&both);
    let address = balancer.address("main").await;
    let _held = [greeted(address).await, greeted(address).await];
    balancer
        .reload(&simple("tcp", "balance = \"least_conn\"", &[&n1]))
        .await;
    balancer.reload(&both).await;
    let seen = balancer.backend("nodes", "n2").await;
    assert_eq!(
        (&seen["removed"], &seen["live"]),
        (&false.into(), &1.into()),
        "{seen}"
    );
}

#[tokio::test]
async fn a_removed_listener_lets_its_connections_end_and_refuses_new_ones() {
    let n1 = Node::echo("n1").await;
    let one = simple("tcp", "", &[&n1]);
    let balancer = Balancer::start(&(listener("other", "tcp", "nodes") + &one));
    let other = balancer.address("other").await;
    let (mut live, _) = greeted(other).await;
    assert_eq!(
        changes(&balancer.reload(&one).await),
        ["listener_removed other"]
    );
    let refused = within("a refusal", TcpStream::connect(other)).await;
    assert!(
        refused.is_err(),
        "a removed listener still takes connections"
    );
    echoed(&mut live, b"still here").await;
}

#[tokio::test]
async fn a_rebound_listener_moves_and_its_connections_stay() {
    let n1 = Node::echo("n1").await;
    let config = simple("tcp", "", &[&n1]);
    let balancer = Balancer::start(&config);
    let old = balancer.address("main").await;
    let (mut live, _) = greeted(old).await;
    let position = balancer.log.position();
    let moved = config.replace("bind = \"127.0.0.1:0\"", "bind = \"127.0.0.2:0\"");
    assert_eq!(
        changes(&balancer.reload(&moved).await),
        ["listener_rebound main"]
    );
    let new = balancer.address_since("main", position).await;
    assert_eq!(new.ip().to_string(), "127.0.0.2");
    assert_eq!(greeted(new).await.1, "n1");
    assert!(within("a refusal", TcpStream::connect(old)).await.is_err());
    echoed(&mut live, b"still here").await;
}

fn with_global(keys: &str, config: &str) -> String {
    format!(
        "[global]\nlog_format = \"json\"\nlog_level = \"debug\"\nwatch = false\n{keys}\n\n{config}"
    )
}

#[tokio::test]
async fn the_admin_endpoint_moves_and_nothing_else_is_touched() {
    let n1 = Node::echo("n1").await;
    let config = simple("tcp", "", &[&n1]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let old = balancer.address("admin").await;
    let (mut live, _) = greeted(address).await;
    let position = balancer.log.position();
    let names =
        format!("{config}[admin]\nbind = \"127.0.0.1:0\"\nallowed_hosts = [\"admin.example\"]\n");
    assert_eq!(changes(&balancer.reload(&names).await), ["admin_changed"]);
    let named = b"GET /healthz HTTP/1.1\r\nHost: admin.example\r\nConnection: close\r\n\r\n";
    assert_eq!(
        crate::harness::raw_request(old, named).await.status,
        200,
        "the socket stays, the names are new"
    );
    let moved = format!("{config}[admin]\nbind = \"127.0.0.2:0\"\n");
    assert_eq!(changes(&balancer.reload(&moved).await), ["admin_changed"]);
    let new = balancer.address_since("admin", position).await;
    assert_eq!(new.ip().to_string(), "127.0.0.2");
    let health = format!("GET /healthz HTTP/1.1\r\nHost: {new}\r\nConnection: close\r\n\r\n");
    assert_eq!(
        crate::harness::raw_request(new, health.as_bytes())
            .await
            .status,
        200
    );
    assert!(
        within("a refusal", TcpStream::connect(old)).await.is_err(),
        "the old address still answers"
    );
    echoed(&mut live, b"still here").await;
    assert_eq!(greeted(address).await.1, "n1");
}

#[tokio::test]
async fn the_metrics_endpoint_comes_and_goes() {
    let n1 = Node::echo("n1").await;
    let config = simple("tcp", "", &[&n1]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    let with = format!("{config}[metrics]\nbind = \"127.0.0.1:0\"\n");
    assert_eq!(changes(&balancer.reload(&with).await), ["metrics_changed"]);
    let metrics = balancer.address("metrics").await;
    let scrape = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let page = crate::harness::raw_request(metrics, scrape).await;
    assert_eq!(page.status, 200);
    let accepted = |page: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with("evenkeel_listener_accepted_connections_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .expect("a count")
    };
    let before = accepted(&page.body);
    assert_eq!(
        changes(&balancer.reload(&config).await),
        ["metrics_changed"]
    );
    assert!(
        within("a refusal", TcpStream::connect(metrics))
            .await
            .is_err()
    );
    assert_eq!(
        accepted(&balancer.get("/metrics").await.body),
        before,
        "the counters stay"
    );
    echoed(&mut live, b"still here").await;
}

#[tokio::test]
async fn settings_of_the_process_change_or_say_that_they_need_a_restart() {
    let n1 = Node::echo("n1").await;
    let config = simple("tcp", "", &[&n1]);
    let balancer = Balancer::start(&with_global("hard_stop_after = \"10m\"", &config));
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    let changed = with_global("hard_stop_after = \"1s\"", &config);
    assert_eq!(
        changes(&balancer.reload(&changed).await),
        ["global_changed"]
    );
    let workers = with_global("hard_stop_after = \"1s\"\nworkers = 7", &config);
    assert_eq!(
        changes(&balancer.reload(&workers).await),
        ["needs_restart global.workers"]
    );
    echoed(&mut live, b"still here").await;
    assert_eq!(balancer.backend("nodes", "n1").await["live"], 1);
    // The new time holds: with the old one the stop would last five minutes at least.
    balancer.signal("TERM");
    balancer.exit().await;
}

#[tokio::test]
async fn live_connections_keep_the_timeouts_they_began_with() {
    let n1 = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "idle_timeout = \"1h\"", &[&n1]));
    let address = balancer.address("main").await;
    let (mut old, _) = greeted(address).await;
    balancer
        .reload(&simple("tcp", "idle_timeout = \"1s\"", &[&n1]))
        .await;
    let (mut new, _) = greeted(address).await;
    crate::clients::read_to_ending(&mut new).await;
    echoed(&mut old, b"still here").await;
}

#[tokio::test]
async fn a_bad_configuration_keeps_the_old_one_serving_and_says_why() {
    let n1 = Node::echo("n1").await;
    let good = simple("tcp", "", &[&n1]);
    let balancer = Balancer::start(&good);
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    for (bad, said) in [
        (good.replace("pool = \"nodes\"", "pool = \"nodse\""), "nodes"),
        (good.replace("[pool.nodes]", "[pool.nodes]\nbalanse = \"random\""), "balance"),
        (good.replace("protocol = \"tcp\"", "protocol = \"tpc\""), "tcp"),
        (good.replace("[[listener]]", "[[listener]"), "balancer.toml:"),
        (good.replace("protocol = \"tcp\"", "protocol = \"tcp\"\ntls = { certificates = [{ cert = \"no.pem\", key = \"no.key\" }] }"), "no.pem"),
    ] {
        let answer = balancer.try_reload(&bad).await;
        assert!((400..500).contains(&answer.status), "{}: {}", answer.status, answer.body);
        assert!(answer.body.contains(said), "{said} is not in {}", answer.body);
        assert_eq!(greeted(address).await.1, "n1");
        echoed(&mut live, b"still here").await;
    }
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(status["configuration"]["reloads_failed"], 5, "{status}");
    assert!(
        status["configuration"]["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("no.pem")),
        "{status}"
    );
    balancer.reload(&good).await;
    let status = balancer.get("/api/v1/status").await.json();
    assert_eq!(
        status["configuration"]["last_error"],
        Value::Null,
        "{status}"
    );
}

#[tokio::test]
async fn a_port_in_use_refuses_the_whole_reload() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a taken port");
    let port = taken.local_addr().expect("its address");
    let balancer = Balancer::start(&simple("tcp", "", &[&n1]));
    let address = balancer.address("main").await;
    let blocked = listener("other", "tcp", "nodes").replace("127.0.0.1:0", &port.to_string());
    let answer = balancer
        .try_reload(&(blocked + &simple("tcp", "", &[&n1, &n2])))
        .await;
    assert!(answer.status >= 400, "{}", answer.body);
    assert!(answer.body.contains(&port.to_string()), "{}", answer.body);
    for _ in 0..4 {
        assert_eq!(
            greeted(address).await.1,
            "n1",
            "half of a refused reload was applied"
        );
    }
}

fn long_configuration(node: &Node) -> String {
    let keys = "balance = \"least_conn\"\nidle_timeout = \"1h\"\ncheck = { type = \"tcp\", interval = \"2s\" }";
    crate::harness::complete(&simple("tcp", keys, &[node]))
}

#[tokio::test]
async fn a_configuration_cut_at_any_byte_is_valid_or_an_error_with_a_line() {
    let node = Node::echo("n1").await;
    let text = long_configuration(&node);
    let mut valid = 0;
    for cut in 0..text.len() {
        match evenkeel::config::parse(&text[..cut], Path::new("balancer.toml")) {
            Ok(config) => {
                assert!(
                    !config.listeners.is_empty(),
                    "a file without a listener is not valid: {cut}"
                );
                valid += 1;
            }
            Err(errors) => {
                let messages = errors.messages();
                assert!(
                    !messages.is_empty() && messages.iter().all(|message| message.line >= 1),
                    "{cut}"
                );
                assert!(
                    errors.to_string().contains("balancer.toml"),
                    "{cut}: {errors}"
                );
            }
        }
    }
    assert!(
        valid < text.len() / 4,
        "{valid} of {} cuts are valid",
        text.len()
    );
}

#[tokio::test]
async fn a_cut_file_never_stops_the_old_configuration_from_serving() {
    let node = Node::echo("n1").await;
    let text = long_configuration(&node);
    let balancer = Balancer::start(&text);
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    for cut in 0..text.len() {
        std::fs::write(&balancer.config, &text[..cut]).expect("write");
        let valid = evenkeel::config::parse(&text[..cut], &balancer.config).is_ok();
        if valid {
            continue;
        }
        let answer = balancer.post("/api/v1/reload", "{}").await;
        assert!(
            (400..500).contains(&answer.status),
            "cut at {cut}: {} {}",
            answer.status,
            answer.body
        );
        assert!(
            answer.body.contains("balancer.toml:"),
            "cut at {cut}: no line in {}",
            answer.body
        );
        assert_eq!(greeted(address).await.1, "n1");
        echoed(&mut live, b"still here").await;
    }
}

fn watched(config: &str) -> String {
    format!("[global]\nlog_format = \"json\"\nlog_level = \"debug\"\nwatch = true\n\n{config}")
}

async fn reloads(balancer: &Balancer) -> (u64, u64) {
    let status = balancer.get("/api/v1/status").await.json();
    let count = |name: &str| status["configuration"][name].as_u64().expect("a count");
    (count("reloads_ok"), count("reloads_failed"))
}

async fn until_reloaded(balancer: &Balancer, count: u64) {
    within("a reload by the watcher", async {
        while reloads(balancer).await.0 < count {
            crate::harness::a_moment().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_watcher_acts_on_a_file_that_is_stable_and_not_before() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let balancer = Balancer::start(&watched(&simple("tcp", "", &[&n1])));
    let address = balancer.address("main").await;
    let whole = crate::harness::complete(&watched(&simple("tcp", "", &[&n2])));
    // Written in pieces, as a slow editor does: none of the halves may be acted on.
    let mut written = 0;
    let mut pieces = tokio::time::interval(std::time::Duration::from_millis(150));
    while written < whole.len() {
        pieces.tick().await;
        written = (written + whole.len() / 12).min(whole.len());
        std::fs::write(&balancer.config, &whole[..written]).expect("write");
    }
    until_reloaded(&balancer, 1).await;
    assert_eq!(
        reloads(&balancer).await,
        (1, 0),
        "a half of a file was acted on"
    );
    assert_eq!(greeted(address).await.1, "n2");
}

#[tokio::test]
async fn the_watcher_sees_a_rename_and_a_swapped_link() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let balancer = Balancer::start(&watched(&simple("tcp", "", &[&n1])));
    let address = balancer.address("main").await;
    let second = balancer.path("second.toml");
    std::fs::write(
        &second,
        crate::harness::complete(&watched(&simple("tcp", "", &[&n2]))),
    )
    .expect("write");
    std::fs::rename(&second, &balancer.config).expect("rename");
    until_reloaded(&balancer, 1).await;
    assert_eq!(greeted(address).await.1, "n2");
    let third = balancer.path("third.toml");
    std::fs::write(
        &third,
        crate::harness::complete(&watched(&simple("tcp", "", &[&n1]))),
    )
    .expect("write");
    let link = balancer.path("link");
    std::os::unix::fs::symlink(&third, &link).expect("link");
    std::fs::rename(&link, &balancer.config).expect("swap the link in");
    until_reloaded(&balancer, 2).await;
    assert_eq!(greeted(address).await.1, "n1");
}

#[tokio::test]
async fn the_watcher_keeps_the_old_configuration_when_the_file_is_bad_or_gone() {
    let n1 = Node::echo("n1").await;
    let balancer = Balancer::start(&watched(&simple("tcp", "", &[&n1])));
    let address = balancer.address("main").await;
    std::fs::write(&balancer.config, "[[listener]]\nname = 5\n").expect("write");
    within("a refused reload", async {
        while reloads(&balancer).await.1 < 1 {
            crate::harness::a_moment().await;
        }
    })
    .await;
    assert_eq!(greeted(address).await.1, "n1");
    std::fs::remove_file(&balancer.config).expect("remove");
    assert_eq!(greeted(address).await.1, "n1");
}

/// Moves `[admin]` or `[metrics]` to and fro between `hosts`, which are the test's own: nobody else can be given a port
/// there that was just freed.
async fn moves_under_traffic(endpoint: &str, hosts: [&str; 2]) {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let at = |host: &str| format!("{config}[{endpoint}]\nbind = \"{host}:0\"\n");
    let balancer = Balancer::start(&at(hosts[0]));
    let address = balancer.address("main").await;
    let traffic = Traffic::start(address).await;
    let mut old = balancer.address(endpoint).await;
    for round in 1..=RELOADS {
        let from = balancer.log.position();
        let answer = balancer.reload(&at(hosts[round % 2])).await;
        assert_eq!(changes(&answer), [format!("{endpoint}_changed")]);
        let new = balancer.address_since(endpoint, from).await;
        assert_eq!(new.ip().to_string(), hosts[round % 2]);
        let health = format!("GET /healthz HTTP/1.1\r\nHost: {new}\r\nConnection: close\r\n\r\n");
        let answer = crate::harness::raw_request(new, health.as_bytes()).await;
        assert_eq!(answer.status, 200, "round {round}: {}", answer.body);
        // Whoever accepted there may take a moment to let go of the socket.
        let what = format!("round {round}: {old} to refuse");
        within(&what, async {
            while TcpStream::connect(old).await.is_ok() {}
        })
        .await;
        traffic.goes_on().await;
        old = new;
    }
    assert!(traffic.finish().await > 0);
    assert_eq!(
        balancer.address("main").await,
        address,
        "the listener kept its socket"
    );
}

#[tokio::test]
async fn the_admin_endpoint_moves_under_traffic() {
    moves_under_traffic("admin", ["127.9.1.1", "127.9.1.2"]).await;
}

#[tokio::test]
async fn the_metrics_endpoint_moves_under_traffic() {
    moves_under_traffic("metrics", ["127.9.2.1", "127.9.2.2"]).await;
}

/// Every other bind is of a port of the kernel's choice, so that nothing is asked for twice.
#[tokio::test]
async fn a_listener_is_rebound_under_traffic_on_another() {
    let node = Node::echo("n1").await;
    let moving = listener("moving", "tcp", "nodes");
    let config = simple("tcp", "", &[&node]);
    let at = |bind: &str| config.clone() + &moving.replace("127.0.0.1:0", bind);
    let balancer = Balancer::start(&at("127.0.0.1:0"));
    let traffic = Traffic::start(balancer.address("main").await).await;
    let (mut live, _) = greeted(balancer.address("moving").await).await;
    for round in 0..RELOADS {
        let bind = ["127.0.0.2:0", "127.0.0.1:0"][round % 2];
        let from = balancer.log.position();
        balancer.reload(&at(bind)).await;
        let address = balancer.address_since("moving", from).await;
        let (mut fresh, name) = greeted(address).await;
        assert_eq!(name, "n1", "round {round}");
        echoed(&mut fresh, b"moved").await;
        traffic.goes_on().await;
    }
    echoed(&mut live, b"still here").await;
    assert!(traffic.finish().await > 0);
}

//! Backends from registries and files: what becomes ours, and that no fault of a registry empties a pool or ends a
//! session.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::clients::{echoed, greeted};
use crate::dns::until_served_by;
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::nodes::Node;
use crate::registry_stand_ins::{Kind, Registered, Says, StandIn, registered};
use crate::settings::listener;

/// A balancer of one pool named `nodes`, with these keys of `discover` and of the pool.
pub fn discovering(discover: &str, keys: &str) -> String {
    format!(
        "{}[pool.nodes]\nbalance = \"round_robin\"\n{keys}\ndiscover = {{ {discover} }}\n\n",
        listener("main", "tcp", "nodes")
    )
}

/// The pool as the admin endpoint shows it, once `wanted` holds.
pub async fn pool_until(balancer: &Balancer, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let pool = balancer.get("/api/v1/pools/nodes").await.json();
            if wanted(&pool) {
                return pool;
            }
            a_moment().await;
        }
    };
    within(what, asked).await
}

/// Requests without an answer for this reason.
fn errors(pool: &Value, reason: &str) -> u64 {
    let errors = pool["discovery"]["errors"].as_array().expect("errors");
    let one = errors.iter().find(|one| one["reason"] == reason);
    one.expect("a known reason")["count"]
        .as_u64()
        .expect("a count")
}

/// A session on the backend of that name.
pub async fn session_on(address: SocketAddr, name: &str) -> TcpStream {
    within("a session on it", async {
        loop {
            let (stream, said) = greeted(address).await;
            if said == name {
                return stream;
            }
        }
    })
    .await
}

async fn ended(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // Closed or reset: both are an end.
    let _ = within("its end", stream.read_to_end(&mut rest)).await;
}

async fn three() -> [Node; 3] {
    [
        Node::echo("n1").await,
        Node::echo("n2").await,
        Node::echo("n3").await,
    ]
}

fn registered_all(nodes: &[Node; 3]) -> Vec<Registered> {
    let names = ["n1", "n2", "n3"].iter().zip(nodes);
    names.map(|(name, node)| registered(name, node)).collect()
}

/// What a registry tells of its backends becomes ours.
async fn changes_are_followed(kind: Kind) {
    let nodes = three().await;
    let mut all = registered_all(&nodes);
    let says = |all: &[Registered]| Says::Body(kind.body(all).to_string());
    let registry = StandIn::start(says(&all[..2])).await;
    let balancer = Balancer::start(&discovering(&kind.keys(registry.address), ""));
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2"]).await;
    registry.say(says(&all));
    until_served_by(address, &["n1", "n2", "n3"]).await;

    let third = kind.name(&all[2]);
    let mut session = session_on(address, "n3").await;
    if kind.weighs() {
        all[2].weight = 5;
        registry.say(says(&all));
        balancer
            .backend_until("nodes", &third, |seen| seen["weight"] == 5)
            .await;
    }

    all[2].drained = true;
    registry.say(says(&all));
    let drained = |seen: &Value| {
        seen["state"] == "drain" && seen["discovery"] == "drain" && seen["operator"] == "ready"
    };
    let seen = balancer.backend_until("nodes", &third, drained).await;
    assert_eq!(seen["reason"], "drained by discovery");
    until_served_by(address, &["n1", "n2"]).await;
    echoed(
        &mut session,
        b"a drain by discovery ends no session where the pool has no drain",
    )
    .await;

    all[2].drained = false;
    registry.say(says(&all));
    let seen = balancer
        .backend_until("nodes", &third, |seen| seen["state"] == "up")
        .await;
    let connections = seen["connections"].as_u64().expect("a count");

    registry.say(says(&all[..2]));
    balancer
        .backend_until("nodes", &third, |seen| seen["discovery"] == "absent")
        .await;
    until_served_by(address, &["n1", "n2"]).await;
    echoed(&mut session, b"an absent backend keeps its sessions").await;

    registry.say(says(&all));
    let seen = balancer
        .backend_until("nodes", &third, |seen| seen["state"] == "up")
        .await;
    assert!(
        seen["connections"].as_u64() >= Some(connections),
        "it was forgotten: {seen}"
    );
    echoed(&mut session, b"as if nothing had been").await;
}

/// Faults of a registry change nothing, and are told.
async fn faults_change_nothing(kind: Kind) {
    let nodes = three().await;
    let all = registered_all(&nodes);
    let good = kind.body(&all);
    let registry = StandIn::start(Says::Body(good.to_string())).await;
    let stranger = StandIn::start(Says::Status(500)).await;
    let keys = format!("{}, timeout = \"1s\"", kind.keys(registry.address));
    let balancer = Balancer::start(&discovering(&keys, ""));
    let address = balancer.address("main").await;
    let names = ["n1", "n2", "n3"];
    until_served_by(address, &names).await;
    let mut session = session_on(address, "n2").await;

    let mut faults = vec![
        (Says::Status(500), "status"),
        (Says::Status(404), "status"),
        (Says::Status(403), "denied"),
        (Says::Redirect(stranger.address), "status"),
        (Says::Body("<html>it works</html>".to_owned()), "malformed"),
        (Says::Body(json!({ "a": 1 }).to_string()), "malformed"),
        (Says::Body("[".repeat(99)), "malformed"),
        (Says::Cut(good.to_string()), "unreachable"),
        (Says::Body(kind.body(&[]).to_string()), "empty"),
    ];
    // A blocking query of Consul is given a minute.
    if kind != Kind::Consul {
        faults.push((Says::Frozen, "timeout"));
    }
    for (says, reason) in faults {
        let before = balancer.get("/api/v1/pools/nodes").await.json();
        let before = errors(&before, reason);
        registry.say(says);
        let what = format!("an error of {reason}");
        let failing = pool_until(&balancer, &what, |pool| errors(pool, reason) > before).await;
        assert_eq!(
            failing["discovery"]["state"], "failing",
            "{reason}: {failing}"
        );
        assert_eq!(failing["discovery"]["ready"], 3, "{reason}");
        until_served_by(address, &names).await;
        registry.say(Says::Body(good.to_string()));
        pool_until(&balancer, "a good answer", |pool| {
            pool["discovery"]["state"] == "good"
        })
        .await;
    }
    assert_eq!(stranger.asked(), 0, "a redirect was followed");

    let junk = kind.with(good, kind.junk()).to_string();
    registry.say(Says::Body(junk));
    let pool = pool_until(&balancer, "a junk entry", |pool| {
        pool["discovery"]["skipped"] == 1
    })
    .await;
    assert_eq!(pool["discovery"]["state"], "good");
    until_served_by(address, &names).await;
    echoed(&mut session, b"through all of it").await;
}

#[tokio::test]
async fn changes_of_a_list_are_followed() {
    changes_are_followed(Kind::List).await;
}

#[tokio::test]
async fn changes_of_consul_s_stand_in_are_followed() {
    changes_are_followed(Kind::Consul).await;
}

#[tokio::test]
async fn changes_of_eureka_s_stand_in_are_followed() {
    changes_are_followed(Kind::Eureka).await;
}

#[tokio::test]
async fn changes_of_nacos_stand_in_are_followed() {
    changes_are_followed(Kind::Nacos).await;
}

#[tokio::test]
async fn changes_of_kubernetes_stand_in_are_followed() {
    changes_are_followed(Kind::Kubernetes).await;
}

#[tokio::test]
async fn faults_of_kubernetes_stand_in_change_nothing() {
    faults_change_nothing(Kind::Kubernetes).await;
}

#[tokio::test]
async fn faults_of_a_list_change_nothing() {
    faults_change_nothing(Kind::List).await;
}

#[tokio::test]
async fn faults_of_consul_s_stand_in_change_nothing() {
    faults_change_nothing(Kind::Consul).await;
}

#[tokio::test]
async fn faults_of_eureka_s_stand_in_change_nothing() {
    faults_change_nothing(Kind::Eureka).await;
}

#[tokio::test]
async fn faults_of_nacos_stand_in_change_nothing() {
    faults_change_nothing(Kind::Nacos).await;
}

/// The list of these backends, as a file or a URL has it.
fn list(all: &[Registered]) -> String {
    Kind::List.body(all).to_string()
}

/// Replaces a file as a whole.
fn replace(balancer: &Balancer, text: &str) {
    let (new, file) = (balancer.path("nodes.json.new"), balancer.path("nodes.json"));
    std::fs::write(&new, text).expect("write the list");
    std::fs::rename(new, file).expect("rename the list");
}

fn with_list(text: &str) -> Launch {
    let launch = Launch::new();
    std::fs::write(launch.path("nodes.json"), text).expect("write the list");
    launch
}

#[tokio::test]
async fn an_answer_that_takes_too_much_is_held_until_the_operator_accepts_it() {
    let nodes = three().await;
    let all = registered_all(&nodes);
    let keys = discovering("file = \"nodes.json\", confirm = \"1d\"", "");
    let balancer = with_list(&list(&all)).start(&keys);
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2", "n3"]).await;
    let mut session = session_on(address, "n3").await;

    // A registry that has lost its data, and the first that registers again.
    replace(&balancer, &list(&[]));
    pool_until(&balancer, "an empty answer", |pool| {
        errors(pool, "empty") > 0
    })
    .await;
    replace(&balancer, &list(&all[..1]));
    let held = pool_until(&balancer, "it is held", |pool| {
        pool["discovery"]["state"] == "held"
    })
    .await;
    assert_eq!(held["discovery"]["held"], 1);
    assert_eq!(balancer.metric(&["evenkeel_discovery_held{"]).await, 1.0);
    until_served_by(address, &["n1", "n2", "n3"]).await;
    // The second one: a third is missing, which may be.
    replace(&balancer, &list(&all[..2]));
    until_served_by(address, &["n1", "n2"]).await;
    replace(&balancer, &list(&all));
    until_served_by(address, &["n1", "n2", "n3"]).await;
    echoed(&mut session, b"through the loss of all data").await;

    replace(&balancer, &list(&all[..1]));
    pool_until(&balancer, "it is held", |pool| {
        pool["discovery"]["state"] == "held"
    })
    .await;
    let accept = "/api/v1/pools/nodes/discover/accept";
    let answer = balancer.post(accept, "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["accepted"], 1);
    until_served_by(address, &["n1"]).await;
    assert_eq!(
        balancer
            .metric(&["evenkeel_discovery_entries{", "\"absent\""])
            .await,
        2.0
    );
    assert_eq!(balancer.metric(&["evenkeel_discovery_held{"]).await, 0.0);
    let again = balancer.post(accept, "{}").await;
    assert_eq!(again.status, 409, "{}", again.body);
    echoed(&mut session, b"an absent one keeps its sessions").await;
}

#[tokio::test]
async fn missing_backends_that_the_check_finds_down_are_let_go_at_once() {
    let nodes = three().await;
    let all = registered_all(&nodes);
    let check = "check = { type = \"tcp\", interval = \"100ms\", rise = 1, fall = 1 }";
    let keys = discovering(
        "file = \"nodes.json\", confirm = \"1d\", remove_after = \"1d\"",
        check,
    );
    let balancer = with_list(&list(&all)).start(&keys);
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2", "n3"]).await;
    replace(&balancer, &list(&all[..1]));
    pool_until(&balancer, "it is held", |pool| {
        pool["discovery"]["state"] == "held"
    })
    .await;
    let [_n1, n2, n3] = nodes;
    n2.kill().await;
    n3.kill().await;
    let gone = |pool: &Value| pool["backends"].as_array().map(Vec::len) == Some(1);
    let pool = pool_until(&balancer, "only one is left", gone).await;
    assert_eq!(pool["discovery"]["held"], Value::Null);
    until_served_by(address, &["n1"]).await;
}

#[tokio::test]
async fn sessions_of_an_absent_backend_end_after_remove_after() {
    let nodes = three().await;
    let all = registered_all(&nodes);
    let keys = discovering("file = \"nodes.json\", remove_after = \"100ms\"", "");
    let balancer = with_list(&list(&all)).start(&keys);
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2", "n3"]).await;
    let (mut stays, ends) = (
        session_on(address, "n1").await,
        session_on(address, "n3").await,
    );
    replace(&balancer, &list(&all[..2]));
    ended(ends).await;
    echoed(&mut stays, b"a listed one is left alone").await;
    let job = balancer.get("/api/v1/jobs").await.json();
    assert_eq!(job["jobs"][0]["by"], "discovery", "{job}");
    let gone = |pool: &Value| pool["backends"].as_array().map(Vec::len) == Some(2);
    pool_until(&balancer, "it is gone", gone).await;
}

/// Waits until the latest job is in this phase.
async fn job_is(balancer: &Balancer, phase: &str) {
    let seen = async {
        loop {
            let jobs = balancer.get("/api/v1/jobs").await.json();
            let all = jobs["jobs"].as_array().expect("jobs");
            if all
                .iter()
                .any(|job| job["by"] == "discovery" && job["phase"] == phase)
            {
                return;
            }
            a_moment().await;
        }
    };
    within(&format!("a job that is {phase}"), seen).await;
}

#[tokio::test]
async fn a_drain_by_discovery_has_the_pool_s_pace_and_its_end_keeps_the_sessions() {
    let nodes = three().await;
    let mut all = registered_all(&nodes);
    // The first one ends after an hour.
    let keys = discovering("file = \"nodes.json\"", "drain = { rate = \"1/h\" }");
    let balancer = with_list(&list(&all)).start(&keys);
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2", "n3"]).await;
    let mut session = session_on(address, "n3").await;
    all[2].drained = true;
    replace(&balancer, &list(&all));
    job_is(&balancer, "ending").await;
    all[2].drained = false;
    replace(&balancer, &list(&all));
    balancer
        .backend_until("nodes", "n3", |seen| seen["state"] == "up")
        .await;
    job_is(&balancer, "aborted").await;
    echoed(&mut session, b"kept").await;
}

#[tokio::test]
async fn the_last_good_set_is_kept_over_a_restart_without_the_registry() {
    let nodes = three().await;
    let all = registered_all(&nodes);
    let registry = StandIn::start(Says::Body(list(&all))).await;
    let (http, kept) = (Kind::List.keys(registry.address), "kept.json");
    let keys =
        format!("{http}, snapshot_file = \"{kept}\", start_timeout = \"1s\", timeout = \"500ms\"");
    let config = discovering(&keys, "");
    let balancer = Balancer::start(&config);
    until_served_by(balancer.address("main").await, &["n1", "n2", "n3"]).await;
    let written = async {
        while !std::fs::read_to_string(balancer.path(kept)).is_ok_and(|text| text.contains("n3")) {
            a_moment().await;
        }
    };
    within("the set in its file", written).await;
    let launch = Launch::new();
    std::fs::copy(balancer.path(kept), launch.path(kept)).expect("copy the set");
    drop(balancer);
    registry.say(Says::Frozen);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2", "n3"]).await;
    let pool = balancer.get("/api/v1/pools/nodes").await.json();
    assert_eq!(pool["discovery"]["ready"], 3);
    assert_eq!(balancer.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_pool_that_was_never_filled_is_not_ready() {
    let keys = "file = \"nodes.json\", start_timeout = \"0s\"";
    let balancer = Balancer::start(&discovering(keys, ""));
    balancer.address("main").await;
    assert_eq!(balancer.get("/readyz").await.status, 503);
    let node = Node::echo("n1").await;
    replace(&balancer, &list(&[registered("n1", &node)]));
    let ready = async {
        while balancer.get("/readyz").await.status != 200 {
            a_moment().await;
        }
    };
    within("the first backend", ready).await;
}

#[tokio::test]
async fn a_token_is_read_again_when_it_changes_and_never_shown() {
    let nodes = three().await;
    let all = registered_all(&nodes);
    let registry = StandIn::start(Says::Body(list(&all[..2]))).await;
    registry.want_token("first-secret");
    let keys = format!(
        "{}, token_file = \"registry.token\"",
        Kind::List.keys(registry.address)
    );
    let launch = Launch::new();
    std::fs::write(launch.path("registry.token"), "first-secret\n").expect("write a token");
    let balancer = launch.start(&discovering(&keys, ""));
    let address = balancer.address("main").await;
    until_served_by(address, &["n1", "n2"]).await;
    registry.want_token("second-secret");
    pool_until(&balancer, "it is denied", |pool| errors(pool, "denied") > 0).await;
    std::fs::write(balancer.path("registry.token"), "second-secret\n").expect("write a token");
    registry.say(Says::Body(list(&all)));
    until_served_by(address, &["n1", "n2", "n3"]).await;
    let status = balancer.get("/api/v1/status").await.body;
    let log = balancer.log.all().join("\n");
    assert!(
        !status.contains("-secret") && !log.contains("-secret"),
        "a token is shown"
    );
}

#[tokio::test]
async fn pools_with_the_same_source_ask_it_once() {
    let node = Node::echo("n1").await;
    let body = Kind::Consul.body(&[registered("n1", &node)]).to_string();
    let registry = StandIn::start(Says::Body(body)).await;
    let source = Kind::Consul.keys(registry.address);
    let mut config = discovering(&source, "");
    for pool in 1..20 {
        config.push_str(&format!(
            "[pool.p{pool}]\ndiscover = {{ {source}, weight = {pool} }}\n\n"
        ));
    }
    let balancer = Balancer::start(&config);
    until_served_by(balancer.address("main").await, &["n1"]).await;
    for pool in 1..20 {
        balancer
            .backend_until(&format!("p{pool}"), "m/n1", |seen| seen["state"] == "up")
            .await;
    }
    // The first answer, and the blocking query behind it.
    within("the blocking query", async {
        while registry.asked() < 2 {
            a_moment().await;
        }
    })
    .await;
    assert_eq!(registry.asked(), 2);
}

#[tokio::test]
async fn check_connect_shows_what_a_source_lists() {
    let nodes = three().await;
    let mut all = registered_all(&nodes);
    all[1].drained = true;
    let registry = StandIn::start(Says::Body(Kind::Eureka.body(&all).to_string())).await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = discovering(&Kind::Eureka.keys(registry.address), "");
    std::fs::write(folder.path().join("balancer.toml"), config).expect("write");
    let words = ["check", "--connect", "--config", "balancer.toml"];
    let (code, output, errors) = crate::harness::run(&words, folder.path()).await;
    assert_eq!(code, 0, "{output}{errors}");
    assert!(output.contains("pool nodes, eureka CHAT:"), "{output}");
    let line = format!("n2 at {}, weight 1, drained", nodes[1].address);
    assert!(output.contains(&line), "{output}");
    registry.say(Says::Status(500));
    let (code, output, errors) = crate::harness::run(&words, folder.path()).await;
    assert_eq!(code, 1, "{output}{errors}");
    assert!(output.contains("status 500"), "{output}{errors}");
}

#[tokio::test]
async fn hosts_of_gatewayworker_s_register_are_followed() {
    let node = Node::echo("n1").await;
    let port = node.address.port();
    let tell = |addresses: &[&str]| {
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let (told, addresses) =
        tokio::sync::watch::channel(tell(&["127.0.0.1:2900", "127.0.0.1:2901"]));
    let register = crate::registry_stand_ins::register(addresses, "s3cret").await;
    let at = register.address;
    let keys = format!(
        "gatewayworker = [\"{at}\"], port = {port}, token_file = \"register.token\", start_timeout = \"0s\""
    );
    let launch = Launch::new();
    std::fs::write(launch.path("register.token"), "wrong").expect("write a secret");
    let balancer = launch.start(&discovering(&keys, ""));
    let address = balancer.address("main").await;
    pool_until(&balancer, "it is refused", |pool| {
        errors(pool, "unreachable") > 0
    })
    .await;
    std::fs::write(balancer.path("register.token"), "s3cret").expect("write a secret");
    until_served_by(address, &["n1"]).await;
    let pool = balancer.get("/api/v1/pools/nodes").await.json();
    assert_eq!(
        pool["discovery"]["ready"], 1,
        "processes of one host are one backend"
    );

    let mut session = session_on(address, "n1").await;
    told.send_replace(Vec::new());
    pool_until(&balancer, "no addresses", |pool| errors(pool, "empty") > 0).await;
    until_served_by(address, &["n1"]).await;
    told.send_replace(tell(&["127.0.0.1:2900", "127.0.0.2:2900"]));
    let two = |pool: &Value| pool["discovery"]["ready"] == 2;
    pool_until(&balancer, "another host", two).await;
    balancer
        .backend("nodes", &format!("127.0.0.2:{port}"))
        .await;
    echoed(&mut session, b"through all of it").await;
}

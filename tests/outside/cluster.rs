//! Several balancers over a real Redis: what is said to one holds at all, and the loss of the store or of its data takes
//! nothing away. Without Redis each test says that it was skipped.

use serde_json::Value;
use tokio::net::TcpStream;

use crate::clients::{Ending, echoed, greeted, refused};
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::nodes::Node;
use crate::redis_servers::RedisServer;
use crate::settings::simple;

pub const SECRET: &str = "a secret that all of them have";

/// Configuration of a member whose store is at `store`, which may be more keys.
pub fn member_over(id: &str, store: &str, nodes: &[&Node]) -> String {
    let cluster = format!(
        "[cluster]\n{store}\nname = \"edge\"\nid = \"{id}\"\nsecret_file = \"cluster.key\"\n\
         interval = \"100ms\"\ntimeout = \"2s\"\nexpire = \"3s\"\n\n"
    );
    cluster + &simple("tcp", "balance = \"least_conn\"", nodes)
}

/// Configuration of a member over this server. `keys` stand in `[cluster]`.
fn member(id: &str, store: &RedisServer, keys: &str, nodes: &[&Node]) -> String {
    let store = format!("store = \"redis://{}\"\n{keys}", store.address());
    member_over(id, &store, nodes)
}

pub fn launch_with(secret: &str) -> Launch {
    let launch = Launch::new();
    std::fs::write(launch.path("cluster.key"), secret).expect("write the secret");
    launch
}

fn start(id: &str, store: &RedisServer, nodes: &[&Node]) -> Balancer {
    launch_with(SECRET).start(&member(id, store, "", nodes))
}

/// Three members that know each other.
async fn three(store: &RedisServer, nodes: &[&Node]) -> [Balancer; 3] {
    let all = ["lb1", "lb2", "lb3"].map(|id| start(id, store, nodes));
    for one in &all {
        cluster_until(one, "it sees the others", |cluster| members(cluster) == 2).await;
    }
    all
}

fn members(cluster: &Value) -> usize {
    cluster["members"].as_array().map_or(0, Vec::len)
}

async fn cluster(balancer: &Balancer) -> Value {
    balancer.get("/api/v1/status").await.json()["cluster"].clone()
}

pub async fn cluster_until(
    balancer: &Balancer,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let asked = async {
        loop {
            let seen = cluster(balancer).await;
            if wanted(&seen) {
                return seen;
            }
            a_moment().await;
        }
    };
    within(what, asked).await
}

pub async fn state_until(balancer: &Balancer, backend: &str, state: &str) {
    let is_it = |seen: &Value| seen["operator"] == state;
    balancer.backend_until("nodes", backend, is_it).await;
}

pub fn path(backend: &str, operation: &str) -> String {
    format!("/api/v1/pools/nodes/backends/{backend}/{operation}")
}

/// Connects to each and returns the nodes that greet. No client is refused.
async fn served(balancers: &[Balancer]) -> Vec<String> {
    let mut names = Vec::new();
    for one in balancers {
        names.push(greeted(one.address("main").await).await.1);
    }
    names
}

#[tokio::test]
async fn a_state_that_is_set_on_one_is_set_on_all() {
    let Some(store) = RedisServer::start().await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let all = three(&store, &[&one, &other]).await;
    let answer = all[0].post(&path("n1", "drain?wait=30s"), "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let spread = &answer.json()["cluster"];
    assert_eq!(spread["state"], "stored");
    assert_eq!(
        (spread["applied"].as_u64(), spread["members"].as_u64()),
        (Some(3), Some(3))
    );
    // The answer came when all had applied it.
    for one in &all {
        assert_eq!(one.backend("nodes", "n1").await["operator"], "drain");
    }
    assert_eq!(served(&all).await, ["n2"; 3]);

    let weight = all[1]
        .change("PUT", &path("n2", "weight"), "{\"weight\": 7}")
        .await;
    assert_eq!(weight.status, 200, "{}", weight.body);
    for one in &all {
        one.backend_until("nodes", "n2", |seen| seen["weight"] == 7)
            .await;
    }
    let status = cluster(&all[2]).await;
    let states = status["states"].as_array().expect("states");
    let said: Vec<_> = states
        .iter()
        .map(|one| (one["state"].as_str(), one["by"].as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (Some("drain"), Some("lb1")),
            (Some("weight 7"), Some("lb2"))
        ]
    );
    assert_eq!(all[2].metric(&["evenkeel_cluster_members"]).await, 3.0);
    let table = all[2]
        .command(&[
            "status",
            "--admin",
            &all[2].address("admin").await.to_string(),
        ])
        .await
        .1;
    assert!(table.contains("nodes/n1: drain, said on lb1"), "{table}");

    assert_eq!(all[2].post(&path("n1", "ready"), "{}").await.status, 200);
    for one in &all {
        state_until(one, "n1", "ready").await;
    }
}

#[tokio::test]
async fn a_paced_drain_ends_the_sessions_of_all() {
    let Some(store) = RedisServer::start().await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let all = three(&store, &[&one, &other]).await;
    assert_eq!(
        all[0]
            .post(&path("n2", "drain?wait=30s"), "{}")
            .await
            .status,
        200
    );
    let mut sessions = Vec::new();
    for one in &all {
        let (session, name) = greeted(one.address("main").await).await;
        assert_eq!(name, "n1");
        sessions.push(session);
    }
    assert_eq!(all[0].post(&path("n2", "ready"), "{}").await.status, 200);
    for one in &all {
        state_until(one, "n2", "ready").await;
    }
    let body = "{\"rate\": \"100/s\"}";
    assert_eq!(all[1].post(&path("n1", "drain"), body).await.status, 200);
    for one in &all {
        one.backend_until("nodes", "n1", |seen| seen["live"] == 0)
            .await;
    }
}

#[tokio::test]
async fn each_pick_goes_by_the_sessions_of_all() {
    let Some(store) = RedisServer::start().await else {
        return;
    };
    let nodes = [
        Node::echo("n1").await,
        Node::echo("n2").await,
        Node::echo("n3").await,
    ];
    let all = three(&store, &nodes.iter().collect::<Vec<_>>()).await;
    let mut sessions = Vec::new();
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..30 {
        let (session, name) = greeted(all[round % 3].address("main").await).await;
        sessions.push(session);
        *counts.entry(name).or_insert(0) += 1;
        for (index, one) in all.iter().enumerate() {
            let before = cluster(one).await["exchanges"].as_u64().expect("exchanges");
            let own = (0..=round).filter(|round| round % 3 == index).count();
            let knows_all = |cluster: &Value| {
                let members = cluster["members"].as_array().expect("members");
                let others = members.iter().filter_map(|one| one["connections"].as_u64());
                // One may have been under way.
                let is_new = cluster["exchanges"].as_u64() >= Some(before + 2);
                is_new && others.sum::<u64>() as usize + own == sessions.len()
            };
            cluster_until(one, "it knows of all sessions", knows_all).await;
        }
        let (least, most) = (counts.values().min(), counts.values().max());
        let (least, most) = (*least.expect("one"), *most.expect("one"));
        assert!(counts.len() < 3 || most - least <= 1, "{counts:?}");
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10; 3]);
}

#[tokio::test]
async fn a_member_that_dies_is_gone_and_one_that_stops_leaves() {
    let Some(store) = RedisServer::start().await else {
        return;
    };
    let node = Node::echo("n1").await;
    let [one, dies, stops] = three(&store, &[&node]).await;
    let held = greeted(dies.address("main").await).await;
    let knows = |cluster: &Value| {
        let members = cluster["members"].as_array().expect("members");
        members.iter().any(|member| member["connections"] == 1)
    };
    cluster_until(&one, "it knows of the session", knows).await;
    dies.signal("KILL");
    let gone = |event: &crate::harness::Event| {
        event.message() == "a balancer is gone from the cluster"
            && event.field("member") == Some("lb2")
    };
    one.event("the end of lb2", 0, gone).await;
    cluster_until(&one, "its session is gone", |cluster| {
        !knows(cluster) && members(cluster) == 1
    })
    .await;
    drop(held);
    stops.signal("TERM");
    assert!(stops.exit().await.success());
    let key = "EXISTS ek:{edge}:n:lb3";
    assert!(
        store.ask(key).await.starts_with(":0"),
        "its key is still there"
    );
    cluster_until(&one, "it is the last one", |cluster| members(cluster) == 0).await;
}

#[tokio::test]
async fn nothing_undrains_when_the_store_is_killed_frozen_or_emptied() {
    let Some(mut store) = RedisServer::start().await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let all = three(&store, &[&one, &other]).await;
    let (mut session, _) = greeted(all[0].address("main").await).await;
    assert_eq!(
        all[0].post(&path("n1", "drain?wait=1s"), "{}").await.status,
        200
    );
    let alone = async |wanted: bool| {
        for one in &all {
            cluster_until(one, "it says whether it is alone", |cluster| {
                cluster["alone"] == wanted
            })
            .await;
        }
    };
    let still_drained = async || {
        assert_eq!(served(&all).await, ["n2"; 3]);
        for one in &all {
            assert_eq!(one.backend("nodes", "n1").await["operator"], "drain");
        }
    };
    still_drained().await;
    store.kill();
    still_drained().await;
    alone(true).await;
    still_drained().await;
    assert_eq!(all[1].metric(&["evenkeel_cluster_alone"]).await, 1.0);

    // Nothing is set by halves, and the answer says what goes.
    let refused = all[1].post(&path("n1", "ready"), "{}").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("?local=true") && refused.json()["local"] == true);
    still_drained().await;
    let admin = all[1].address("admin").await.to_string();
    let (code, _, said) = all[1]
        .command(&["maint", "nodes/n1", "--admin", &admin])
        .await;
    assert!(code == 1 && said.contains("--local"), "{said}");
    let (code, _, said) = all[1]
        .command(&["maint", "nodes/n1", "--admin", &admin, "--local"])
        .await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(all[1].backend("nodes", "n1").await["operator"], "maint");
    assert_eq!(all[0].backend("nodes", "n1").await["operator"], "drain");

    // It comes back without its data: they give it theirs, and the local state is everybody's.
    store.restart_empty().await;
    for one in &all {
        state_until(one, "n1", "maint").await;
    }
    alone(false).await;
    assert_eq!(served(&all).await, ["n2"; 3]);
    assert!(store.ask("HLEN ek:{edge}:op").await.starts_with(":1"));

    store.freeze();
    alone(true).await;
    assert_eq!(served(&all).await, ["n2"; 3]);
    store.thaw();
    alone(false).await;
    store.ask("FLUSHALL").await;
    store
        .until("HLEN ek:{edge}:op", |answer| answer.starts_with(":1"))
        .await;
    for one in &all {
        assert_eq!(one.backend("nodes", "n1").await["operator"], "maint");
    }
    echoed(&mut session, b"through all of it").await;
}

#[tokio::test]
async fn without_the_secret_a_writer_drains_nothing() {
    let Some(store) = RedisServer::start().await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let nodes = [&one, &other];
    let honest = start("lb1", &store, &nodes);
    cluster_until(&honest, "an exchange", |cluster| {
        cluster["exchanges"].as_u64() > Some(0)
    })
    .await;
    // A balancer of another secret, and rubbish of every kind.
    let stranger =
        launch_with("the secret of somebody else").start(&member("evil", &store, "", &nodes));
    assert_eq!(stranger.post(&path("n1", "drain"), "{}").await.status, 200);
    for command in [
        "HSET ek:{edge}:op s:nodes/n2 {\"rev\":9,\"by\":\"x\",\"value\":\"maint\"}",
        "HSET ek:{edge}:op nonsense x",
        "SADD ek:{edge}:members ghost",
        "SET ek:{edge}:n:ghost boo",
        "SET ek:{edge}:op:rev 1",
    ] {
        store.ask(command).await;
    }
    let seen = |cluster: &Value| cluster["rejected"].as_u64() > Some(4);
    let status = cluster_until(&honest, "what is not sealed is counted", seen).await;
    assert_eq!(members(&status), 0, "{status}");
    assert_eq!(status["states"].as_array().map(Vec::len), Some(0));
    assert_eq!(honest.backend("nodes", "n1").await["operator"], "ready");
    assert_eq!(honest.backend("nodes", "n2").await["operator"], "ready");
    drop(stranger);
    // Keys that are something else by now are made anew.
    for key in ["op", "op:rev", "members"] {
        store.ask(&format!("DEL ek:{{edge}}:{key}")).await;
        store.ask(&format!("RPUSH ek:{{edge}}:{key} x")).await;
    }
    assert_eq!(honest.post(&path("n1", "drain"), "{}").await.status, 200);
    let late = start("lb2", &store, &nodes);
    state_until(&late, "n1", "drain").await;
    cluster_until(&late, "it sees the other", |cluster| members(cluster) == 1).await;
}

#[tokio::test]
async fn a_balancer_that_starts_knows_the_drains_with_the_store_and_without() {
    let Some(mut store) = RedisServer::start().await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let nodes = [&one, &other];
    let first = start("lb1", &store, &nodes);
    cluster_until(&first, "an exchange", |cluster| {
        cluster["exchanges"].as_u64() > Some(0)
    })
    .await;
    assert_eq!(first.post(&path("n1", "drain"), "{}").await.status, 200);

    let launch = launch_with(SECRET);
    let states = launch.path("cluster.states");
    let keys = "state_file = \"cluster.states\"";
    let text = member("lb2", &store, keys, &nodes);
    let second = launch.start(&text);
    assert_eq!(
        greeted(second.address("main").await).await.1,
        "n2",
        "its first client"
    );
    let kept = async {
        while !states.exists() {
            a_moment().await;
        }
    };
    within("the file of states", kept).await;

    store.kill();
    let launch = launch_with(SECRET);
    std::fs::copy(&states, launch.path("cluster.states")).expect("copy the states");
    let third = launch.start(&text);
    assert_eq!(
        greeted(third.address("main").await).await.1,
        "n2",
        "its first client"
    );
    assert_eq!(third.backend("nodes", "n1").await["operator"], "drain");
}

#[tokio::test]
async fn a_reload_joins_and_leaves_a_cluster() {
    let Some(store) = RedisServer::start().await else {
        return;
    };
    let (one, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let nodes = [&one, &other];
    let first = start("lb1", &store, &nodes);
    cluster_until(&first, "an exchange", |cluster| {
        cluster["exchanges"].as_u64() > Some(0)
    })
    .await;
    assert_eq!(first.post(&path("n1", "maint"), "{}").await.status, 200);
    let single = simple("tcp", "balance = \"least_conn\"", &nodes);
    let second = launch_with(SECRET).start(&single);
    let _: TcpStream = greeted(second.address("main").await).await.0;
    assert_eq!(cluster(&second).await, Value::Null);
    let joined = member("lb2", &store, "", &nodes);
    second.reload(&joined).await;
    state_until(&second, "n1", "maint").await;
    let refused = second
        .try_reload(&joined.replace("cluster.key", "none.key"))
        .await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("none.key"), "{}", refused.body);
    second.reload(&single).await;
    store
        .until("EXISTS ek:{edge}:n:lb2", |answer| answer.starts_with(":0"))
        .await;
    assert_eq!(cluster(&second).await, Value::Null);
}

#[tokio::test]
async fn a_limit_of_a_source_is_that_of_all() {
    let Some(store) = RedisServer::start().await else {
        return;
    };
    let node = Node::echo("n1").await;
    let limited = |id: &str| {
        let limit = "per_source = { max_connections = 4 }\n\n[pool.nodes]";
        member(id, &store, "", &[&node]).replace("\n[pool.nodes]", limit)
    };
    let [one, other] = ["lb1", "lb2"].map(|id| launch_with(SECRET).start(&limited(id)));
    for member in [&one, &other] {
        cluster_until(member, "it sees the other", |cluster| members(cluster) == 1).await;
    }
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(greeted(one.address("main").await).await.0);
    }
    let knows = |cluster: &Value| cluster["members"][0]["connections"] == 4;
    cluster_until(&other, "it knows of the sessions", knows).await;
    let (said, end) = refused(other.address("main").await).await;
    assert_eq!((said.len(), end), (0, Ending::Rst));
    sessions.clear();
    cluster_until(&other, "they are gone", |cluster| {
        cluster["members"][0]["connections"] == 0
    })
    .await;
    greeted(other.address("main").await).await;
}

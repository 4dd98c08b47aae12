//! A cluster over each kind of store: Sentinel, a Redis Cluster, TLS with a user of its own, and one that is split.

use serde_json::Value;

use crate::certificates::Certificate;
use crate::cluster::{SECRET, cluster_until, launch_with, member_over, path, state_until};
use crate::harness::{Balancer, Event};
use crate::nodes::Node;
use crate::redis_servers::{RedisServer, free_port};

fn start(id: &str, store: &str, nodes: &[&Node]) -> Balancer {
    launch_with(SECRET).start(&member_over(id, store, nodes))
}

fn has_exchanged(cluster: &Value) -> bool {
    cluster["exchanges"].as_u64() > Some(0)
}

async fn set(balancer: &Balancer, backend: &str, operation: &str) {
    let answer = balancer.post(&path(backend, operation), "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn members_follow_a_fail_over_of_sentinel() {
    let Some(mut primary) = RedisServer::start().await else {
        return;
    };
    let port = primary.address().port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let replica = replica.expect("a replica");
    replica
        .until("INFO replication", |answer| {
            answer.contains("master_link_status:up")
        })
        .await;
    let sentinel = RedisServer::sentinel(&primary).await;
    sentinel
        .until("SENTINEL replicas primary", |answer| {
            answer.contains("role-reported")
        })
        .await;
    let nodes = [Node::echo("n1").await, Node::echo("n2").await];
    let nodes: Vec<_> = nodes.iter().collect();
    let store = format!(
        "sentinel = [\"redis://{}\"]\nservice = \"primary\"",
        sentinel.address()
    );
    let [one, other] = ["lb1", "lb2"].map(|id| start(id, &store, &nodes));
    cluster_until(&one, "an exchange", has_exchanged).await;
    set(&one, "n1", "drain").await;
    state_until(&other, "n1", "drain").await;

    primary.kill();
    replica
        .until("ROLE", |answer| answer.contains("master"))
        .await;
    // Until the sentinel says so, members ask the one that is gone.
    let port = replica.address().port().to_string();
    sentinel
        .until("SENTINEL get-master-addr-by-name primary", |answer| {
            answer.contains(&port)
        })
        .await;
    replica
        .until("EXISTS ek:{edge}:n:lb2", |answer| answer.starts_with(":1"))
        .await;
    cluster_until(&other, "it is not alone", |cluster| {
        cluster["alone"] == false
    })
    .await;
    assert_eq!(other.backend("nodes", "n1").await["operator"], "drain");
    set(&other, "n1", "ready").await;
    state_until(&one, "n1", "ready").await;
}

#[tokio::test]
async fn members_find_their_slot_in_a_redis_cluster() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        let bus = free_port().to_string();
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "3000",
        ];
        let Some(server) = RedisServer::start_with(&options).await else {
            return;
        };
        servers.push((server, bus));
    }
    for (index, (server, _)) in servers.iter().enumerate() {
        let (first, last) = (
            index * 5_461,
            if index == 2 {
                16_383
            } else {
                index * 5_461 + 5_460
            },
        );
        let added = server
            .ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"))
            .await;
        assert!(added.starts_with("+OK"), "{added}");
        let (known, bus) = &servers[0];
        if index > 0 {
            let port = known.address().port();
            server
                .ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"))
                .await;
        }
    }
    for (server, _) in &servers {
        server
            .until("CLUSTER INFO", |answer| {
                answer.contains("cluster_state:ok") && answer.contains("cluster_known_nodes:3")
            })
            .await;
    }
    let nodes = [Node::echo("n1").await, Node::echo("n2").await];
    let nodes: Vec<_> = nodes.iter().collect();
    let mut members = Vec::new();
    for (id, (server, _)) in servers.iter().enumerate() {
        let store = format!("store = \"redis://{}\"", server.address());
        members.push(start(&format!("lb{id}"), &store, &nodes));
    }
    for one in &members {
        let sees_all = |cluster: &Value| cluster["members"].as_array().map(Vec::len) == Some(2);
        cluster_until(one, "it sees the others", sees_all).await;
    }
    set(&members[0], "n1", "drain").await;
    for one in &members {
        state_until(one, "n1", "drain").await;
    }
}

#[tokio::test]
async fn a_store_with_tls_and_a_user_of_its_own_is_enough() {
    let launch = launch_with(SECRET);
    let certificate = Certificate::write(launch.folder.path(), "redis", &["localhost"]);
    let tls_port = free_port().to_string();
    let (cert, key) = (
        certificate.cert.display().to_string(),
        certificate.key.display().to_string(),
    );
    let options = [
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ];
    let Some(store) = RedisServer::start_with(&options).await else {
        return;
    };
    // As docs/cluster.md has it.
    let user = "ACL SETUSER evenkeel on >s3cret ~ek:{edge}:* resetchannels -@all +set +get +mget +del +sadd +srem \
                +smembers +hget +hset +hdel +hgetall +eval +type +role +select";
    assert!(store.ask(user).await.starts_with("+OK"));
    let nodes = [Node::echo("n1").await, Node::echo("n2").await];
    let nodes: Vec<_> = nodes.iter().collect();
    let secure = format!(
        "store = \"rediss://localhost:{tls_port}\"\nuser = \"evenkeel\"\npassword_file = \"redis.password\"\n\
         tls = {{ ca = \"{cert}\" }}"
    );
    let password = launch.path("redis.password");
    std::fs::write(&password, "wrong").expect("write a password");
    let one = launch.start(&member_over("lb1", &secure, &nodes));
    let denied = |cluster: &Value| {
        let error = cluster["last_error"].as_str();
        error.is_some_and(|error| error.starts_with("WRONGPASS"))
    };
    cluster_until(&one, "it is denied", denied).await;
    std::fs::write(&password, "s3cret").expect("write a password");
    cluster_until(&one, "an exchange", has_exchanged).await;
    set(&one, "n1", "drain").await;
    let plain = format!("store = \"redis://{}\"", store.address());
    let other = start("lb2", &plain, &nodes);
    state_until(&other, "n1", "drain").await;
    cluster_until(&one, "it sees the other", |cluster| {
        cluster["members"].as_array().map(Vec::len) == Some(1) && cluster["failures"] != 0
    })
    .await;
}

#[tokio::test]
async fn halves_of_a_split_store_agree_when_it_is_whole_again() {
    let (Some(one), Some(half)) = (RedisServer::start().await, RedisServer::start().await) else {
        return;
    };
    let nodes = [
        Node::echo("n1").await,
        Node::echo("n2").await,
        Node::echo("n3").await,
    ];
    let nodes: Vec<_> = nodes.iter().collect();
    let store = |server: &RedisServer| format!("store = \"redis://{}\"", server.address());
    let [left, right] =
        [("lb1", &one), ("lb2", &half)].map(|(id, at)| start(id, &store(at), &nodes));
    for member in [&left, &right] {
        cluster_until(member, "an exchange", has_exchanged).await;
    }
    // The same revision on both sides: the stricter word stays. A higher one wins, whatever it says.
    set(&left, "n1", "drain").await;
    set(&right, "n1", "maint").await;
    set(&left, "n2", "drain").await;
    set(&right, "n2", "drain").await;
    set(&right, "n2", "ready").await;
    right
        .reload(&crate::harness::complete(&member_over(
            "lb2",
            &store(&one),
            &nodes,
        )))
        .await;
    for member in [&left, &right] {
        state_until(member, "n1", "maint").await;
        state_until(member, "n2", "ready").await;
    }
    let both = |event: &Event| {
        event.message() == "the operator's state comes from the cluster"
            && event.field("from") == Some("drain")
            && event.field("to") == Some("maint")
            && event.field("by") == Some("lb2")
    };
    left.event("both values in the log", 0, both).await;
}

//! Clients that several balancers know over a real Redis: `affinity` in a cluster. Without Redis each test says that it was
//! skipped.

use crate::clients::greeted;
use crate::cluster::{SECRET, cluster_until, launch_with, member_over, path, state_until};
use crate::harness::Balancer;
use crate::nodes::Node;
use crate::redis_servers::RedisServer;

async fn three(store: &RedisServer, nodes: &[&Node]) -> [Balancer; 3] {
    let start = |id: &str| {
        let store = format!("store = \"redis://{}\"", store.address());
        let text = member_over(id, &store, nodes);
        let affine = "balance = \"least_conn\"\naffinity = { ttl = \"10m\" }";
        launch_with(SECRET).start(&text.replace("balance = \"least_conn\"", affine))
    };
    let all = ["lb1", "lb2", "lb3"].map(start);
    for one in &all {
        let sees_others =
            |cluster: &serde_json::Value| cluster["members"].as_array().map_or(0, Vec::len) == 2;
        cluster_until(one, "it sees the others", sees_others).await;
    }
    all
}

async fn looked_up(balancer: &Balancer, result: &str) -> f64 {
    let parts = ["evenkeel_pool_affinity_lookups_total", result];
    balancer.metric(&parts).await
}

/// Least connections would spread the sessions of this one client over all nodes.
#[tokio::test]
async fn a_client_is_known_to_all_and_stays_when_the_store_is_gone() {
    let Some(mut store) = RedisServer::start().await else {
        return;
    };
    let nodes = [
        Node::echo("n1").await,
        Node::echo("n2").await,
        Node::echo("n3").await,
    ];
    let all = three(&store, &nodes.iter().collect::<Vec<_>>()).await;
    let (first, home) = greeted(all[0].address("main").await).await;
    let mut sessions = vec![first];
    for one in all.iter().chain(&all) {
        let (session, name) = greeted(one.address("main").await).await;
        assert_eq!(name, home);
        sessions.push(session);
    }
    assert_eq!(looked_up(&all[0], "\"new\"").await, 1.0);
    for other in &all[1..] {
        assert_eq!(looked_up(other, "\"known\"").await, 1.0);
    }

    // Its node drains: all balancers learn the next one, whichever the client came to.
    let answer = all[1].post(&path(&home, "drain?wait=30s"), "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for one in &all {
        state_until(one, &home, "drain").await;
    }
    let (session, next) = greeted(all[2].address("main").await).await;
    assert_ne!(next, home);
    sessions.push(session);
    let entry = "SCAN 0 MATCH ek:{edge}:s:nodes:* COUNT 1000";
    assert!(store.ask(entry).await.contains("ek:{edge}:s:nodes:"));

    store.kill();
    for _ in 0..3 {
        assert_eq!(greeted(all[2].address("main").await).await.1, next);
    }
}

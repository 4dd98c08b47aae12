//! A process that has nothing to do does nothing.

use std::time::Duration;

use crate::clients::{echoed, greeted};
use crate::harness::Launch;
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};
use crate::threads::wakes_at_most;

/// Long beside the periods of what used to look about all the time: 250 ms and 2 s.
const WATCHED: Duration = Duration::from_secs(5);
/// Of all threads together, in that time; there were 50.
const MOST: u64 = 5;

/// Failover, rebalance and the files of TLS were looked at ten times a second, whoever had asked for it.
#[tokio::test]
async fn a_process_whose_connections_idle_is_left_asleep() {
    let node = Node::echo("n1").await;
    let text = "[global]\nlog_format = \"json\"\nwatch = false\n\n".to_owned()
        + &listener("main", "tcp", "p")
        + &pool("p", "", &[backend("n1", node.address)]);
    let balancer = Launch::new().start(&text);
    let mut sessions = Vec::new();
    for _ in 0..100 {
        let (mut stream, _) = greeted(balancer.address("main").await).await;
        echoed(&mut stream, b"hello").await;
        sessions.push(stream);
    }
    // What a session needs set for a long life is set by the first sweep, threads that helped at the start end after 10 s.
    wakes_at_most(balancer.pid(), MOST, WATCHED).await;
}

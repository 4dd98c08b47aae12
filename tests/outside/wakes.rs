//! How often a process that follows its files wakes: by what happens to them, not by what others do beside them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::clients::{echoed, greeted};
use crate::harness::{Balancer, Launch, a_moment, complete, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};
use crate::threads::wakes_at_most;

/// Longer than the 2 s between two looks of old, shorter than the 15 s of now.
const WATCHED: Duration = Duration::from_secs(5);
/// Of all threads together in that time: a look that falls into it wakes a thread for its timer and another for the files.
const MOST: u64 = 12;

/// A process with a sticky key file beside its configuration, and the files followed.
async fn following(node: &Node) -> (Balancer, Vec<TcpStream>) {
    let launch = Launch::new();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    std::fs::write(launch.path("sticky.key"), key).expect("write");
    let text = "[global]\nlog_format = \"json\"\nwatch = true\n\n".to_owned()
        + &listener("main", "tcp", "p")
        + &listener("web", "websocket", "w")
        + &pool("p", "", &[backend("n1", node.address)])
        + &pool(
            "w",
            "sticky = { key_file = \"sticky.key\" }",
            &[backend("n1", node.address)],
        );
    let balancer = launch.start(&text);
    let mut sessions = Vec::new();
    for _ in 0..50 {
        let (mut stream, _) = greeted(balancer.address("main").await).await;
        echoed(&mut stream, b"hello").await;
        sessions.push(stream);
    }
    (balancer, sessions)
}

/// Appends lines to a log, both to one that is kept open and as `echo >>` does, for ever.
async fn write_lines(path: &Path, lines: &mut u64) {
    let mut log = File::create(path).expect("a log");
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    loop {
        pace.tick().await;
        log.write_all(b"a line\n").expect("write");
        let mut again = File::options().append(true).open(path).expect("open");
        again.write_all(b"another line\n").expect("write");
        *lines += 2;
    }
}

#[tokio::test]
async fn lines_of_others_beside_our_files_wake_nobody() {
    let node = Node::echo("n1").await;
    let (balancer, _sessions) = following(&node).await;
    wakes_at_most(balancer.pid(), MOST, WATCHED).await;
    let (log, mut lines) = (balancer.path("other.log"), 0);
    tokio::select! {
        () = wakes_at_most(balancer.pid(), MOST, WATCHED) => {}
        () = write_lines(&log, &mut lines) => {}
    }
    assert!(lines > 1000, "{lines} lines");
}

/// A swap as by Kubernetes is told at once at each of its links, and a folder that comes back, too.
#[tokio::test]
async fn a_swapped_folder_and_one_that_comes_back_are_followed() {
    let [n1, n2] = [Node::echo("n1").await, Node::echo("n2").await];
    let launch = Launch::new();
    let of = |node: &Node, name: &str| {
        "[global]\nlog_format = \"json\"\nwatch = true\n\n".to_owned()
            + &listener("main", "tcp", "p")
            + &pool("p", "", &[backend(name, node.address)])
    };
    let put = |folder: &Path, name: &str, text: &str| {
        std::fs::create_dir(folder.join(name)).expect("a version");
        std::fs::write(folder.join(name).join("lb.toml"), complete(text)).expect("write");
        symlink(name, folder.join("..tmp")).expect("link");
        std::fs::rename(folder.join("..tmp"), folder.join("..data")).expect("swap");
    };
    let mounted = launch.path("mounted");
    std::fs::create_dir(&mounted).expect("a folder");
    put(&mounted, "..1", "");
    symlink("..data/lb.toml", mounted.join("lb.toml")).expect("link");
    symlink("mounted/lb.toml", launch.path("balancer.toml")).expect("link");
    let balancer = launch.start(&of(&n1, "n1"));
    let address = balancer.address("main").await;
    assert_eq!(greeted(address).await.1, "n1");
    let follows = async |name: &'static str| {
        within("the change to be followed", async {
            while greeted(address).await.1 != name {
                a_moment().await;
            }
        })
        .await;
    };
    put(&mounted, "..2", &of(&n2, "n2"));
    std::fs::remove_dir_all(mounted.join("..1")).expect("remove");
    follows("n2").await;
    let aside = balancer.path("aside");
    std::fs::rename(&mounted, &aside).expect("take the folder away");
    put(&aside, "..3", &of(&n1, "n1"));
    std::fs::rename(&aside, &mounted).expect("bring it back");
    follows("n1").await;
}

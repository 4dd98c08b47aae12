//! Reload and stop of a whole server in this process, over real sockets: what keeps its identity,
//! and what all or nothing means. Traffic through it is tested from outside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lock::lock;
use super::reload::error::ReloadError;
use super::*;
use crate::config::{self, Bind, Change, Config};
use crate::pool::BackendRequest;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
const POOL: &str = "[pool.p]\nbackend = [{ name = \"n1\", address = \"127.0.0.1:9\" }]\n";

fn listener(name: &str, bind: &str, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\nprotocol = \"tcp\"\npool = \"p\"\n{more}\n"
    )
}

fn one(name: &str) -> String {
    listener(name, "127.0.0.1:0", "") + POOL
}

/// A removed pool stays for as long as a connection may still be in its handshake.
fn with_a_short_grace() -> String {
    let keys = "tls = { passthrough = true }\nhandshake_timeout = \"100ms\"";
    listener("a", "127.0.0.1:0", keys) + POOL
}

async fn start(config: &Config, source: ConfigSource) -> Result<Arc<Server>, StartError> {
    let server = Server::new(config, source)?;
    server.open(None).await?;
    Ok(server)
}

/// A server on a file of its own, not watched.
struct Running {
    server: Arc<Server>,
    folder: tempfile::TempDir,
}

impl Running {
    async fn start(text: &str) -> Running {
        Running::start_in(tempfile::tempdir().unwrap(), text).await
    }

    async fn start_in(folder: tempfile::TempDir, text: &str) -> Running {
        let file = folder.path().join("balancer.toml");
        std::fs::write(&file, unwatched(text)).unwrap();
        let config = config::parse(&unwatched(text), &file).unwrap();
        let server = start(&config, ConfigSource(file)).await.unwrap();
        Running { server, folder }
    }

    async fn reload(&self, text: &str) -> Result<Vec<Change>, ReloadError> {
        std::fs::write(self.server.source().file(), unwatched(text)).unwrap();
        self.server.reload().await
    }

    fn address(&self, name: &str) -> SocketAddr {
        let listeners = self.server.listeners();
        let found = listeners.iter().find(|listener| listener.name == name);
        match &found.unwrap().bind {
            Bind::Tcp(address) => *address,
            Bind::Unix(path) => panic!("{}", path.display()),
        }
    }

    fn names(&self) -> Vec<String> {
        let listeners = self.server.listeners().into_iter();
        listeners.map(|listener| listener.name).collect()
    }
}

fn unwatched(text: &str) -> String {
    format!("[global]\nwatch = false\nhard_stop_after = \"0s\"\nworkers = 1\n{text}")
}

fn shown(changes: Vec<Change>) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_under_another_name_keeps_its_socket() {
    let running = Running::start(&one("before")).await;
    let address = running.address("before");
    let changes = running.reload(&one("after")).await.unwrap();
    let expected = ["listener after: added", "listener before: removed"];
    let mut changes = shown(changes);
    changes.sort();
    assert_eq!(changes, expected);
    assert_eq!(running.names(), ["after"]);
    assert_eq!(running.address("after"), address);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_beside_another_on_any_port_gets_a_socket_of_its_own() {
    let running = Running::start(&one("a")).await;
    let address = running.address("a");
    let both = listener("b", "127.0.0.1:0", "") + &one("a");
    running.reload(&both).await.unwrap();
    assert_eq!(running.names(), ["b", "a"]);
    assert_eq!(running.address("a"), address);
    assert_ne!(running.address("b"), address);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_can_exchange_their_addresses() {
    let running = Running::start(&(listener("a", "127.0.0.1:0", "") + &one("b"))).await;
    let (a, b) = (running.address("a"), running.address("b"));
    let fixed = listener("a", &a.to_string(), "") + &listener("b", &b.to_string(), "") + POOL;
    running.reload(&fixed).await.unwrap();
    assert_eq!((running.address("a"), running.address("b")), (a, b));
    let turned = listener("a", &b.to_string(), "") + &listener("b", &a.to_string(), "") + POOL;
    running.reload(&turned).await.unwrap();
    assert_eq!((running.address("a"), running.address("b")), (b, a));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_our_own_listener_blocks_is_explained_and_nothing_changes() {
    let running = Running::start(&one("a")).await;
    let address = running.address("a");
    let wider = listener("b", &format!("0.0.0.0:{}", address.port()), "");
    let both = listener("a", "127.0.0.1:0", "") + &wider + POOL;
    let error = running.reload(&both).await.unwrap_err().to_string();
    let port = address.port();
    let expected = format!("listener b: bind 0.0.0.0:{port}: address in use by listener a");
    assert_eq!(error, expected);
    assert_eq!(running.address("a"), address);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_listener_keeps_its_counters_and_closes_the_old_address() {
    let running = Running::start(&one("a")).await;
    let (address, counters) = {
        let status = &running.server.listeners()[0];
        (running.address("a"), Arc::clone(&status.counters))
    };
    let moved = listener("a", "127.0.0.2:0", "") + POOL;
    let changes = running.reload(&moved).await.unwrap();
    assert_eq!(shown(changes), ["listener a: bound elsewhere"]);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(Arc::ptr_eq(
        &counters,
        &running.server.listeners()[0].counters
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_files_that_cannot_be_loaded_are_told_at_once() {
    let running = Running::start(&one("a")).await;
    let tls = |name: &str| {
        let more = format!(
            "tls = {{ certificates = [{{ cert = \"{name}.pem\", key = \"{name}.key\" }}] }}"
        );
        listener(name, "127.0.0.1:0", &more)
    };
    let error = running.reload(&(tls("x") + &tls("y") + POOL)).await;
    let messages = error.unwrap_err().messages;
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].starts_with("listener x: "), "{messages:?}");
    assert!(messages[1].contains("y.pem"), "{messages:?}");
    assert_eq!(running.names(), ["a"]);
}

fn write_certificate(folder: &std::path::Path) {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    std::fs::write(folder.join("a.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("a.key"), made.signing_key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_a_change_and_the_socket_stays() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let more = "tls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }";
    let text = listener("a", "127.0.0.1:0", more) + POOL;
    let running = Running::start_in(folder, &text).await;
    let address = running.address("a");
    assert_eq!(running.reload(&text).await.unwrap(), []);
    write_certificate(running.folder.path());
    let changes = running.reload(&text).await.unwrap();
    assert_eq!(shown(changes), ["listener a: certificates renewed"]);
    assert_eq!(running.address("a"), address);
    let status = &running.server.listeners()[0];
    assert_eq!(status.certificates[0].names, ["a.example"]);
    assert_eq!(
        status.certificates[0].cert,
        running.folder.path().join("a.pem")
    );
}

/// Participant that refuses, and notes whether its step was ever taken.
struct Reluctant {
    refuses: bool,
    committed: Arc<AtomicBool>,
}

impl ReloadParticipant for Reluctant {
    fn prepare(&self, _: &Config) -> Result<Commit, String> {
        let committed = Arc::clone(&self.committed);
        if self.refuses {
            return Err("not now".to_owned());
        }
        Ok(Box::new(move || committed.store(true, Ordering::Relaxed)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_cannot_go_along_stops_the_whole_reload() {
    let running = Running::start(&one("a")).await;
    let committed = Arc::new(AtomicBool::new(false));
    for refuses in [false, true] {
        let committed = Arc::clone(&committed);
        running
            .server
            .add_participant(Arc::new(Reluctant { refuses, committed }));
    }
    let more = listener("b", "127.0.0.1:0", "") + &one("a");
    let error = running.reload(&more).await.unwrap_err();
    assert_eq!(error.messages, ["not now"]);
    assert_eq!(running.names(), ["a"]);
    assert!(!committed.load(Ordering::Relaxed));
    assert_eq!(running.server.config().listeners.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_reloads_is_counted_and_the_last_error_kept() {
    let running = Running::start(&one("a")).await;
    running.reload("nonsense = 1").await.unwrap_err();
    let status = running.server.reloads();
    assert_eq!((status.ok, status.failed), (0, 1));
    let error = status.last_error.unwrap();
    let place = running.server.source().file().display().to_string() + ":5:";
    assert!(error.contains(&place), "{error}");
    running.reload(&one("a")).await.unwrap();
    let status = running.server.reloads();
    assert_eq!((status.ok, status.failed), (1, 1));
    assert_eq!(status.last_error, None);
    assert!(status.last_ok_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_text_counts_as_acted_on() {
    let running = Running::start(&one("a")).await;
    running.reload("nonsense = 1").await.unwrap_err();
    let bad = unwatched("nonsense = 1");
    assert_eq!(*lock(&running.server.attempted), bad);
}

fn elsewhere() -> String {
    one("a")
        .replace("\"p\"", "\"q\"")
        .replace("pool.p", "pool.q")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_pool_is_listed_while_it_is_used_and_can_come_back() {
    let running = Running::start(&one("a")).await;
    let pool = running.server.pool("p").unwrap();
    let pick = BackendRequest::default();
    let lease = pool.acquire(&pick).await.unwrap();
    running.reload(&elsewhere()).await.unwrap();
    let names: Vec<String> = running
        .server
        .pools()
        .iter()
        .map(|pool| pool.name().to_string())
        .collect();
    assert_eq!(names, ["q", "p"]);
    assert!(running.server.is_removed(&pool));
    running.reload(&one("a")).await.unwrap();
    let back = running.server.pool("p").unwrap();
    assert!(Arc::ptr_eq(&pool, &back));
    assert!(!running.server.is_removed(&back));
    running.reload(&elsewhere()).await.unwrap();
    drop(lease);
    assert!(running.server.pool("p").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_pool_gets_nothing_new_after_its_grace() {
    let running = Running::start(&with_a_short_grace()).await;
    let pool = running.server.pool("p").unwrap();
    let mut changed = pool.changed();
    running.reload(&elsewhere()).await.unwrap();
    while !pool.backends().is_empty() {
        changed.changed().await.unwrap();
    }
    let pick = BackendRequest::default();
    assert!(pool.acquire(&pick).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_came_back_after_its_grace_serves_again() {
    let short = with_a_short_grace();
    let running = Running::start(&short).await;
    let pool = running.server.pool("p").unwrap();
    let pick = BackendRequest::default();
    let lease = pool.acquire(&pick).await.unwrap();
    let mut changed = pool.changed();
    running.reload(&elsewhere()).await.unwrap();
    while !pool.backends().is_empty() {
        changed.changed().await.unwrap();
    }
    running.reload(&short).await.unwrap();
    let again = pool.acquire(&pick).await.unwrap();
    assert!(Arc::ptr_eq(again.backend(), lease.backend()));
    assert_eq!(again.backend().live(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_closes_its_sockets_and_refuses_reloads() {
    let running = Running::start(&one("a")).await;
    let address = running.address("a");
    running
        .server
        .stop(std::time::Duration::from_secs(30))
        .await;
    assert!(!running.server.ready());
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(running.server.listeners()[0].state, ListenerState::Stopped);
    let error = running.reload(&one("b")).await.unwrap_err();
    assert_eq!(error.messages, ["the server is stopping"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_names_the_listener_and_frees_what_it_bound() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = unwatched(&(listener("a", &address, "") + POOL));
    let file = PathBuf::from("embedded.toml");
    let config = config::parse(&text, &file).unwrap();
    let started = start(&config, ConfigSource(file)).await;
    let error = started.err().unwrap().to_string();
    assert_eq!(error, format!("listener a: bind {address}: address in use"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_file_is_followed_and_watching_can_be_turned_off_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("balancer.toml");
    std::fs::write(&file, one("a")).unwrap();
    let config = config::parse(&one("a"), &file).unwrap();
    let server = start(&config, ConfigSource(file.clone())).await.unwrap();
    let mut watching = server.watching.subscribe();
    assert!(*watching.borrow_and_update());
    std::fs::write(&file, unwatched(&one("b"))).unwrap();
    let turned_off = watching.wait_for(|on| !on);
    tokio::time::timeout(PATIENCE, turned_off)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.listeners()[0].name, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_keeps_a_dropped_server() {
    let running = Running::start(&one("a")).await;
    running.reload(&one("b")).await.unwrap();
    let server = Arc::downgrade(&running.server);
    drop(running);
    // Tasks that end may hold it for a moment.
    let gone = async {
        while server.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

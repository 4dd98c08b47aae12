//! Upgrades to a new process: nobody is refused, connections go on, and nothing that an operator has set or that was
//! counted is lost.

use std::os::unix::fs::FileTypeExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixDatagram, UnixStream};
use tokio::sync::Notify;

use crate::certificates::{Certificate, client};
use crate::clients::{ask, echoed, greeted, read_line, tls, websocket};
use crate::harness::{Balancer, Event, Launch, a_moment, within};
use crate::nodes::{Node, read_request};
use crate::settings::{backend, backend_with, listener, listener_with, pool, simple};

/// No probation: the old process ends with its last connection.
pub const AT_ONCE: &str = "[upgrade]\nprobation = \"0s\"\nhard_stop_after = \"10m\"\n\n";
/// One that no test outlasts.
pub const LONG: &str = "[upgrade]\nprobation = \"10m\"\nhard_stop_after = \"10m\"\n\n";

/// Upgrades, and gives the id of the process that serves.
pub async fn upgraded(balancer: &Balancer) -> u32 {
    let answer = balancer.post("/api/v1/upgrade", "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let process = answer.json()["process"].as_u64().expect("a process");
    // Whoever was in the middle of an answer of the old one: the next is the new one's.
    let serves = async {
        while status(balancer).await["process"]["id"].as_u64() != Some(process) {
            a_moment().await;
        }
    };
    within("the new process to answer", serves).await;
    u32::try_from(process).expect("a process id")
}

pub async fn status(balancer: &Balancer) -> Value {
    balancer.get("/api/v1/status").await.json()
}

/// Waits until the process before the present one is gone.
pub async fn alone(balancer: &Balancer) {
    let gone = async {
        while !status(balancer).await["upgrade"]["predecessor"].is_null() {
            a_moment().await;
        }
    };
    within("the old process to end", gone).await;
}

fn id(process: u32) -> Pid {
    Pid::from_raw(i32::try_from(process).expect("a process id")).expect("not 0")
}

/// Kills a process, and returns when it is dead: until then it may still accept.
async fn kill(process: u32) {
    kill_process(id(process), Signal::KILL).expect("kill a process");
    let dead = async {
        // The state stands behind the name, which is in parentheses.
        let is_alive = |stat: String| {
            let state = stat.rsplit(')').next().map(str::trim_start);
            state.is_some_and(|state| !state.starts_with(['Z', 'X']))
        };
        while std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(is_alive) {
            a_moment().await;
        }
    };
    within("the process to die", dead).await;
}

/// Waits until the process before the present one has nothing left.
async fn all_moved(balancer: &Balancer) {
    let moved = async {
        let left = |status: Value| status["upgrade"]["predecessor"]["connections"].as_u64();
        while left(status(balancer).await) != Some(0) {
            a_moment().await;
        }
    };
    within("the sessions to move", moved).await;
}

/// Clients that connect, one after the other, for as long as this lives.
struct Comers {
    is_over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Comers {
    fn start(address: std::net::SocketAddr) -> Comers {
        let (is_over, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let tasks = (0..4).map(|_| {
            let (is_over, served) = (Arc::clone(&is_over), Arc::clone(&served));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let (mut stream, _) = greeted(address).await;
                    echoed(&mut stream, b"one of many").await;
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Comers {
            tasks: tasks.collect(),
            is_over,
            served,
        }
    }

    /// Waits until so many more were served.
    async fn further(&self, count: usize) {
        let until = self.served.load(Ordering::Relaxed) + count;
        let served = async {
            while self.served.load(Ordering::Relaxed) < until {
                a_moment().await;
            }
        };
        within("further clients", served).await;
    }

    /// None of them was refused or cut, or its task has panicked.
    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every client was served");
        }
    }
}

#[tokio::test]
async fn five_upgrades_in_a_row_refuse_nobody_and_cut_nobody() {
    let (raw, web) = (Node::echo("n1").await, Node::web("w1").await);
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = format!(
        "{AT_ONCE}{}{}{}{}{}",
        listener("main", "tcp", "nodes"),
        listener("chat", "websocket", "web"),
        listener_with("secure", "tcp", "nodes", &keys),
        pool("nodes", "", &[backend("n1", raw.address)]),
        pool("web", "", &[backend("w1", web.address)])
    );
    let balancer = launch.start(&config);
    let main = balancer.address("main").await;
    let chat = balancer.address("chat").await;
    let secure = balancer.address("secure").await;
    let trusting = client(&[&certificate]);
    let (mut streams, mut sockets, mut secured) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..100 {
        streams.push(greeted(main).await.0);
        sockets.push(websocket(chat, "/chat").await);
        let mut stream = tls(secure, "a.example", &trusting).await.expect("TLS");
        read_line(&mut stream).await.expect("a greeting");
        secured.push(stream);
    }
    let comers = Comers::start(main);
    let mut accepted = 0.0;
    for turn in 1..=5_u32 {
        comers.further(20).await;
        let text = format!("turn {turn}");
        // Half of the messages are on their way while the processes change.
        let echoing = async {
            for stream in &mut streams {
                echoed(stream, text.as_bytes()).await;
            }
        };
        let (process, ()) = tokio::join!(upgraded(&balancer), echoing);
        assert_ne!(process, balancer.pid());
        // All move, TLS too.
        let moved = async {
            let left = |status: Value| status["upgrade"]["predecessor"]["connections"].as_u64();
            while left(status(&balancer).await).is_some_and(|left| left > 0) {
                a_moment().await;
            }
        };
        within("the sessions to move", moved).await;
        for stream in &mut streams {
            echoed(stream, &vec![b'x'; 20_000]).await;
        }
        for stream in &mut secured {
            echoed(stream, text.as_bytes()).await;
        }
        for socket in &mut sockets {
            assert_eq!(ask(socket, &text).await, format!("w1:{text}"));
        }
        comers.further(20).await;
        let total = ["evenkeel_listener_accepted_connections_total", "\"main\""];
        let now = balancer.metric(&total).await;
        assert!(now > accepted, "{now} after {accepted}");
        accepted = now;
    }
    comers.end().await;
    assert_eq!(
        balancer
            .metric(&["evenkeel_upgrades_total", "\"ok\""])
            .await,
        5.0
    );
    let moved = ["evenkeel_upgrade_sessions_total", "\"moved\""];
    assert!(balancer.metric(&moved).await >= 1200.0);
    // All count in the last one, wherever they are.
    let live = balancer.metric(&["evenkeel_connections "]).await;
    assert!(live >= 300.0, "{live}");
    drop((streams, sockets, secured));
    assert_eq!(balancer.first_exit().await.code(), Some(0));
    alone(&balancer).await;
    let settled = async {
        while balancer
            .metric(&["evenkeel_listener_live_connections"])
            .await
            > 0.0
        {
            a_moment().await;
        }
    };
    within("the last connection", settled).await;
    greeted(main).await;
}

#[tokio::test]
async fn a_signal_upgrades_and_the_command_says_who_serves() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(AT_ONCE.to_owned() + &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let (live, _) = greeted(address).await;
    balancer.signal("USR2");
    let took_over = |event: &Event| event.message() == "upgrade: took over";
    balancer.event("the new process", 0, took_over).await;
    drop(live);
    assert_eq!(balancer.first_exit().await.code(), Some(0));
    let admin = balancer.address("admin").await.to_string();
    let words = ["upgrade", "--wait", "--admin", &admin];
    let (code, out, error) = balancer.command(&words).await;
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("serves, version"), "{out}");
    assert!(status(&balancer).await["upgrade"]["predecessor"].is_null());
    greeted(address).await;
}

#[tokio::test]
async fn totals_and_what_the_operator_has_set_go_on_in_the_new_process() {
    let (one, two) = (Node::echo("n1").await, Node::echo("n2").await);
    let config = AT_ONCE.to_owned()
        + "[access_log]\noutput = \"stdout\"\n\n"
        + &listener("main", "tcp", "nodes")
        + &listener("other", "tcp", "nodes")
        + &pool(
            "nodes",
            "check = { type = \"tcp\", interval = \"1h\" }",
            &[backend("n1", one.address), backend("n2", two.address)],
        );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (mut live, name) = greeted(address).await;
    balancer
        .post("/api/v1/pools/nodes/backends/n1/drain", "{\"keep\": true}")
        .await;
    let weight = "/api/v1/pools/nodes/backends/n2/weight";
    balancer.change("PUT", weight, "{\"weight\": 7}").await;
    balancer.post("/api/v1/listeners/other/drain", "{}").await;
    balancer
        .backend_until("nodes", "n2", |seen| seen["check"] == "up")
        .await;
    let before = status(&balancer).await;
    upgraded(&balancer).await;
    let after = status(&balancer).await;
    for pool in [&before, &after] {
        let drained = crate::harness::find_backend(pool, "nodes", "n1").expect("n1");
        let weighted = crate::harness::find_backend(pool, "nodes", "n2").expect("n2");
        assert_eq!(drained["operator"], "drain", "{pool}");
        assert_eq!(drained["state"], "drain", "{pool}");
        assert_eq!(weighted["weight"], 7, "{pool}");
        assert_eq!(weighted["check"], "up", "{pool}");
        let live = if name == "n1" { &drained } else { &weighted };
        assert_eq!(live["live"], 1, "{pool}");
    }
    for (old, new) in before["pools"][0]["backends"]
        .as_array()
        .expect("backends")
        .iter()
        .zip(after["pools"][0]["backends"].as_array().expect("backends"))
    {
        for total in ["connections", "checks_ok", "bytes_from_backend"] {
            assert!(new[total].as_u64() >= old[total].as_u64(), "{total}: {new}");
        }
    }
    assert_eq!(after["listeners"][1]["state"], "draining", "{after}");
    assert_eq!(after["listeners"][0]["accepted"], 1, "{after}");
    let (mut next, name) = greeted(address).await;
    assert_eq!(name, "n2");
    echoed(&mut next, b"new").await;
    echoed(&mut live, b"old").await;
    drop(live);
    alone(&balancer).await;
    // One line, of the process that had it last.
    let end = balancer.access("the line of a session", |_| true).await;
    assert_eq!(
        (&end["id"], &end["bytes_from_client"]),
        (&1.into(), &3.into())
    );
    assert_eq!(balancer.stdout.all().len(), 1);
}

#[tokio::test]
async fn a_drain_goes_on_and_ends_connections_of_both_processes() {
    let (one, two) = (Node::echo("n1").await, Node::echo("n2").await);
    let balancer = Balancer::start(&(AT_ONCE.to_owned() + &simple("tcp", "", &[&one, &two])));
    let address = balancer.address("main").await;
    let mut of_n1 = Vec::new();
    for _ in 0..10 {
        let (stream, name) = greeted(address).await;
        if name == "n1" {
            of_n1.push(stream);
        }
    }
    assert!(!of_n1.is_empty());
    // It begins long after the upgrade.
    let drain = "/api/v1/pools/nodes/backends/n1/drain";
    let answer = balancer
        .post(drain, "{\"deadline\": \"1h\", \"after\": \"1h\"}")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let id = status(&balancer).await["jobs"][0]["id"].clone();
    upgraded(&balancer).await;
    let jobs = status(&balancer).await["jobs"].clone();
    assert_eq!(jobs[0]["id"], id, "{jobs}");
    // Another pace, which the old process has to hear of: the connections are there.
    let answer = balancer.post(drain, "{\"rate\": \"1000/s\"}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for mut stream in of_n1 {
        crate::clients::read_to_ending(&mut stream).await;
    }
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 0)
        .await;
}

#[tokio::test]
async fn tickets_of_the_old_process_resume_in_the_new_one() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = AT_ONCE.to_owned()
        + &listener_with("main", "tcp", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let resuming = client(&[&certificate]);
    let mut first = tls(address, "a.example", &resuming).await.expect("TLS");
    read_line(&mut first).await.expect("a greeting");
    echoed(&mut first, b"a ticket came").await;
    upgraded(&balancer).await;
    let mut second = tls(address, "a.example", &resuming).await.expect("TLS");
    read_line(&mut second).await.expect("a greeting");
    let (_, session) = second.get_ref();
    assert_eq!(
        session.handshake_kind(),
        Some(rustls::HandshakeKind::Resumed)
    );
}

#[tokio::test]
async fn a_unix_socket_stays_where_it_is() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let path = launch.path("main.sock");
    let config = AT_ONCE.to_owned()
        + &format!(
            "[[listener]]\nname = \"main\"\nbind = \"unix:{}\"\nprotocol = \"tcp\"\npool = \"nodes\"\n",
            path.display()
        )
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    balancer.address("admin").await;
    upgraded(&balancer).await;
    assert_eq!(balancer.first_exit().await.code(), Some(0));
    alone(&balancer).await;
    let file = std::fs::metadata(&path).expect("the file stays");
    assert!(file.file_type().is_socket());
    let mut stream = UnixStream::connect(&path).await.expect("connect");
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    // The last process owns the file, and takes it along.
    let process = status(&balancer).await["process"]["id"].as_u64().unwrap();
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    drop(stream);
    kill_process(pid, Signal::TERM).expect("stop it");
    let gone = async {
        while path.exists() {
            a_moment().await;
        }
    };
    within("the file to go", gone).await;
}

#[tokio::test]
async fn a_new_process_that_dies_within_the_probation_gives_the_listeners_back() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(LONG.to_owned() + &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    let process = upgraded(&balancer).await;
    greeted(address).await;
    kill(process).await;
    // Whoever comes now waits in the kernel, and is not refused.
    let (mut next, _) = greeted(address).await;
    echoed(&mut next, b"served by the old one").await;
    // What had moved is gone with the process that had it.
    crate::clients::read_to_ending(&mut live).await;
    let after = status(&balancer).await;
    assert_eq!(after["process"]["id"], balancer.pid(), "{after}");
    assert_eq!(after["upgrade"]["failed"], 1, "{after}");
    // It can be tried again, and a reload works.
    let config = LONG.to_owned() + &simple("tcp", "retries = 1", &[&node]);
    balancer.reload(&config).await;
    assert_ne!(upgraded(&balancer).await, balancer.pid());
    greeted(address).await;
}

/// One that hangs holds the sockets, and whoever comes waits: it is ended within the probation.
#[tokio::test]
async fn a_new_process_that_hangs_within_the_probation_gives_the_listeners_back() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(LONG.to_owned() + &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let process = upgraded(&balancer).await;
    kill_process(id(process), Signal::STOP).expect("stop a process");
    let ended = |event: &Event| event.message().contains("does not answer, so it is ended");
    balancer.event("its end", 0, ended).await;
    let (mut next, _) = greeted(address).await;
    echoed(&mut next, b"served by the old one").await;
    let after = status(&balancer).await;
    assert_eq!(after["process"]["id"], balancer.pid(), "{after}");
    let error = after["upgrade"]["last_error"].to_string();
    assert!(error.contains("it did not answer"), "{after}");
    assert_ne!(upgraded(&balancer).await, balancer.pid());
}

/// A listener that the new file lacks is served until the probation is over, and after a new process that failed.
#[tokio::test]
async fn a_listener_that_the_new_process_has_no_use_for_is_kept_for_the_probation() {
    let node = Node::echo("n1").await;
    let less = LONG.to_owned() + &simple("tcp", "", &[&node]);
    let further = listener("further", "tcp", "nodes").replace("127.0.0.1:0", "127.0.0.2:0");
    let balancer = Balancer::start(&(less.clone() + &further));
    let address = balancer.address("further").await;
    balancer.write(&less);
    let process = upgraded(&balancer).await;
    greeted(address).await;
    kill(process).await;
    greeted(balancer.address("main").await).await;
    greeted(address).await;
    let listeners = status(&balancer).await["listeners"].clone();
    assert_eq!(listeners[1]["name"], "further", "{listeners}");
    // The file is what the next upgrade takes, too; then the old process ends, and its listener.
    let at_once = AT_ONCE.to_owned() + &simple("tcp", "", &[&node]);
    balancer.write(&at_once);
    balancer.reload(&(at_once.clone() + &further)).await;
    balancer.write(&at_once);
    let address = balancer.address("further").await;
    upgraded(&balancer).await;
    assert_eq!(balancer.first_exit().await.code(), Some(0));
    assert!(TcpStream::connect(address).await.is_err());
}

/// What ends last in the old process counts in the new one.
#[tokio::test]
async fn the_last_connection_of_the_old_process_is_counted_to_its_end() {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (is_asked, may_answer) = (Arc::clone(&asked), Arc::clone(&answer));
    let node = Node::scripted(move |mut stream, _| {
        let (is_asked, may_answer) = (Arc::clone(&is_asked), Arc::clone(&may_answer));
        async move {
            let mut buffer = Vec::new();
            if read_request(&mut stream, &mut buffer).await.is_none() {
                return;
            }
            is_asked.notify_one();
            may_answer.notified().await;
            let body = "x".repeat(5000);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let balancer = Balancer::start(&(AT_ONCE.to_owned() + &simple("websocket", "", &[&node])));
    let mut client = crate::clients::connect(balancer.address("main").await).await;
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    client.write_all(request).await.expect("ask");
    within("the request", asked.notified()).await;
    upgraded(&balancer).await;
    answer.notify_one();
    let (answered, _) = crate::clients::read_to_ending(&mut client).await;
    assert!(answered.len() > 5000);
    alone(&balancer).await;
    let backend = balancer.backend("nodes", "n1").await;
    let bytes = backend["bytes_from_backend"].as_u64().expect("bytes");
    assert!(bytes >= 5000, "{backend}");
    let ends = balancer.metric(&["evenkeel_listener_ends_total", "\"main\""]);
    assert_eq!(ends.await, 1.0);
}

/// A signal to the process group reaches both processes, and is one request.
#[tokio::test]
async fn a_stop_of_the_process_group_gives_the_sessions_their_time() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(LONG.to_owned() + &simple("tcp", "", &[&node])));
    let (mut live, _) = greeted(balancer.address("main").await).await;
    upgraded(&balancer).await;
    all_moved(&balancer).await;
    kill_process_group(id(balancer.pid()), Signal::INT).expect("a signal to all");
    let stopping = async {
        let stops = |line: &&String| line.contains("stopping: live connections may end");
        while balancer.log.all().iter().filter(stops).count() < 2 {
            a_moment().await;
        }
    };
    within("both processes to stop", stopping).await;
    echoed(&mut live, b"goes on").await;
    drop(live);
    balancer.exit().await;
    let at_once = |line: &String| line.contains("stopping at once");
    assert!(!balancer.log.all().iter().any(at_once));
}

/// The new process watches the file; the old one, which has another text, says nothing of it.
#[tokio::test]
async fn a_file_that_changes_after_an_upgrade_is_the_new_process_s_alone() {
    let node = Node::echo("n1").await;
    let global = "[global]\nlog_format = \"json\"\n\n";
    let config = global.to_owned() + LONG + &simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&config);
    balancer.address("main").await;
    upgraded(&balancer).await;
    for (count, retries) in [(1, "retries = 1"), (2, "retries = 2")] {
        balancer.write(&(global.to_owned() + LONG + &simple("tcp", retries, &[&node])));
        let reloaded = async {
            while status(&balancer).await["configuration"]["reloads_ok"] != count {
                a_moment().await;
            }
        };
        within("the reload in the new process", reloaded).await;
    }
    let refused = |line: &String| line.contains("reload refused");
    assert!(!balancer.log.all().iter().any(refused));
}

#[tokio::test]
async fn an_old_process_that_is_killed_takes_nothing_along_that_has_moved() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(LONG.to_owned() + &simple("tcp", "", &[&node])));
    let address = balancer.address("main").await;
    let (mut old, _) = greeted(address).await;
    upgraded(&balancer).await;
    let (mut new, _) = greeted(address).await;
    all_moved(&balancer).await;
    balancer.signal("KILL");
    alone(&balancer).await;
    echoed(&mut old, b"has moved").await;
    echoed(&mut new, b"goes on").await;
    greeted(address).await;
    balancer
        .backend_until("nodes", "n1", |seen| seen["live"] == 2)
        .await;
}

#[tokio::test]
async fn a_stop_of_the_new_process_stops_the_old_one_too() {
    let node = Node::echo("n1").await;
    let global = "[global]\nlog_format = \"json\"\nwatch = false\nhard_stop_after = \"2s\"\n\n";
    let config = global.to_owned() + AT_ONCE + &simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&config);
    let (_live, _) = greeted(balancer.address("main").await).await;
    let process = upgraded(&balancer).await;
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).expect("stop it");
    // Long before its own ten minutes; and the new one was the last to go.
    balancer.exit().await;
}

/// Within the probation the service manager knows the old process: a signal to it is meant for both.
#[tokio::test]
async fn a_signal_to_the_old_process_within_the_probation_reaches_the_new_one() {
    let node = Node::echo("n1").await;
    let config = LONG.to_owned() + &simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let process = upgraded(&balancer).await;
    balancer.write(&(config + "# changed\n[pool.more]\nbackend = []\n"));
    balancer.signal("HUP");
    let reloaded = async {
        while status(&balancer).await["configuration"]["reloads_failed"] != 1 {
            a_moment().await;
        }
    };
    within("the reload in the new process", reloaded).await;
    assert_eq!(status(&balancer).await["process"]["id"], process);
    balancer.signal("TERM");
    balancer.exit().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_service_manager_hears_of_the_new_main_process_before_that_speaks() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let path = launch.path("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket for the manager");
    let launch = launch.after(&format!("export NOTIFY_SOCKET={}", path.display()));
    let balancer = launch.start(&(AT_ONCE.to_owned() + &simple("tcp", "", &[&node])));
    balancer.address("admin").await;
    let process = upgraded(&balancer).await;
    let mut seen = Vec::new();
    let heard = async {
        let mut buffer = [0; 1024];
        while seen.iter().filter(|one| *one == "READY=1").count() < 2 {
            let length = manager.recv(&mut buffer).await.expect("a message");
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            seen.extend(message.lines().map(str::to_owned));
        }
    };
    within("both processes to be ready", heard).await;
    let place = |line: &str| seen.iter().position(|one| one == line);
    let last_ready = seen.iter().rposition(|one| one == "READY=1");
    let main = place(&format!("MAINPID={process}"));
    assert!(main.is_some() && main < last_ready, "{seen:?}");
}

/// A script stops the node when the wait is over.
#[tokio::test]
async fn a_drain_waits_for_sessions_that_have_moved() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&(LONG.to_owned() + &simple("tcp", "", &[&node])));
    let (mut live, _) = greeted(balancer.address("main").await).await;
    let admin = balancer.address("admin").await.to_string();
    let words = ["drain", "nodes/n1", "--wait", "60s", "--admin", &admin];
    let mut drain = Box::pin(balancer.command(&words));
    let path = "/api/v1/pools/nodes/backends/n1/drain?wait=60s";
    let mut asked = Box::pin(balancer.post(path, "{}"));
    let told = |event: &Event| event.message() == "operator sets the state";
    tokio::select! {
        _ = balancer.event("the first drain", 0, told) => {}
        early = &mut drain => panic!("the wait is over: {early:?}"),
    }
    let from = balancer.log.all().len();
    tokio::select! {
        _ = balancer.event("the second drain", from, told) => {}
        early = &mut asked => panic!("the wait is over: {}", early.body),
    }
    let moved = async {
        upgraded(&balancer).await;
        while status(&balancer).await["upgrade"]["predecessor"]["connections"] != 0 {
            a_moment().await;
        }
    };
    let (answer, ()) = tokio::select! {
        both = async { tokio::join!(asked, moved) } => both,
        early = &mut drain => panic!("the wait is over: {early:?}"),
    };
    // The endpoint itself says that it cannot know, and whom to ask.
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("another process"), "{}", answer.body);
    let still = async {
        echoed(&mut live, b"lives on").await;
        balancer
            .backend_until("nodes", "n1", |seen| seen["live"] == 1)
            .await;
    };
    tokio::select! {
        () = still => {}
        early = &mut drain => panic!("the wait is over: {early:?}"),
    }
    drop(live);
    let (code, out, error) = within("the end of the drain", drain).await;
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("nodes/n1: drain, 0 connections"), "{out}");
}

/// Each session that moves would let one of the clients in who wait in the old process.
#[tokio::test]
async fn a_backend_gets_no_more_than_its_limit_from_both_processes() {
    let node = Node::echo("n1").await;
    let limited = backend_with("n1", node.address, "max_connections = 2");
    let config = LONG.to_owned()
        + &listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "max_queue = 10\nqueue_timeout = \"5s\"",
            &[limited],
        );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (mut first, _) = greeted(address).await;
    let (mut second, _) = greeted(address).await;
    let mut queued = Vec::new();
    for _ in 0..4 {
        queued.push(TcpStream::connect(address).await.expect("connect"));
    }
    let all_wait = async {
        while status(&balancer).await["pools"][0]["queued"] != 4 {
            a_moment().await;
        }
    };
    within("the queue", all_wait).await;
    let process = upgraded(&balancer).await;
    echoed(&mut first, b"moved").await;
    for mut stream in queued {
        let (greeting, _) = crate::clients::read_to_ending(&mut stream).await;
        assert!(greeting.is_empty(), "more than the limit");
    }
    assert_eq!(node.accepted(), 2);
    echoed(&mut second, b"moved").await;
    // Their places are free again when the process that has them is gone.
    kill(process).await;
    crate::clients::read_to_ending(&mut first).await;
    greeted(address).await;
}

/// Nodes come and go, and the sessions of one that went go on to their end.
#[tokio::test]
async fn sessions_of_removed_backends_move_too() {
    let (one, two) = (Node::echo("n1").await, Node::echo("n2").await);
    let nodes = |backends: &[String]| {
        LONG.to_owned() + &listener("main", "tcp", "nodes") + &pool("nodes", "", backends)
    };
    let (n1, n2) = (backend("n1", one.address), backend("n2", two.address));
    let balancer = Balancer::start(&nodes(&[n1]));
    let address = balancer.address("main").await;
    let (mut of_one, _) = greeted(address).await;
    balancer.reload(&nodes(&[n2])).await;
    let (mut of_two, name) = greeted(address).await;
    assert_eq!(name, "n2");
    // One was removed before the upgrade, the other one is with it.
    let third = Node::echo("n3").await;
    balancer.write(&nodes(&[backend("n3", third.address)]));
    upgraded(&balancer).await;
    let moved = async {
        while status(&balancer).await["upgrade"]["predecessor"]["connections"] != 0 {
            a_moment().await;
        }
    };
    within("the sessions to move", moved).await;
    // They do not need the old process any more.
    balancer.signal("KILL");
    alone(&balancer).await;
    for (stream, name) in [(&mut of_one, "n1"), (&mut of_two, "n2")] {
        echoed(stream, b"moved").await;
        let seen = crate::harness::find_backend(&status(&balancer).await, "nodes", name);
        let seen = seen.expect("a removed backend");
        assert_eq!(
            (&seen["removed"], &seen["live"]),
            (&true.into(), &1.into()),
            "{seen}"
        );
    }
    let (_new, name) = greeted(address).await;
    assert_eq!(name, "n3");
    // Each is forgotten with its last connection.
    drop((of_one, of_two));
    let gone = async {
        while crate::harness::find_backend(&status(&balancer).await, "nodes", "n1").is_some()
            || crate::harness::find_backend(&status(&balancer).await, "nodes", "n2").is_some()
        {
            a_moment().await;
        }
    };
    within("the removed backends to go", gone).await;
}

/// Nothing serves any more, and who started the old process is to start another one.
#[tokio::test]
async fn a_new_process_that_dies_later_takes_the_old_one_along_with_its_status() {
    let node = Node::echo("n1").await;
    let limited = backend_with("n1", node.address, "max_connections = 1");
    let config = AT_ONCE.to_owned()
        + &listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "max_queue = 10\nqueue_timeout = \"5m\"",
            &[limited],
        );
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (_live, _) = greeted(address).await;
    // It keeps the old process alive.
    let _queued = TcpStream::connect(address).await.expect("connect");
    let waits = async {
        while status(&balancer).await["pools"][0]["queued"] != 1 {
            a_moment().await;
        }
    };
    within("the queue", waits).await;
    let process = upgraded(&balancer).await;
    let settled = |event: &Event| event.message() == "upgrade: the probation is over";
    balancer.event("the end of the probation", 0, settled).await;
    kill(process).await;
    let status = balancer.exit().await;
    assert_eq!(status.code(), Some(128 + 9));
}

#[tokio::test]
async fn sessions_of_a_listener_that_the_new_process_lacks_stay_and_are_told() {
    let node = Node::echo("n1").await;
    let config = LONG.to_owned() + &simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&config);
    let (mut live, _) = greeted(balancer.address("main").await).await;
    balancer.write(&config.replace("name = \"main\"", "name = \"renamed\""));
    upgraded(&balancer).await;
    let moved = |event: &Event| event.message() == "upgrade: sessions have moved";
    let event = balancer.event("the first pass", 0, moved).await;
    assert_eq!(event.number("declined"), Some(1));
    let told = |event: &Event| event.message() == "upgrade: sessions stay in the process before";
    let event = balancer.event("the reason", 0, told).await;
    assert_eq!(event.field("why"), Some("no listener \"main\""));
    echoed(&mut live, b"goes on there").await;
}

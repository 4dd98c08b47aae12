//! Starts the balancer on a configuration in a folder of its own, follows its log, talks to its admin endpoint,
//! and ends it with the test. On a failed test the log is printed.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long any single wait of a test may take before the test fails: far above what anything here needs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for `future`, and fails the test when it takes longer than [`PATIENCE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing after {PATIENCE:?}"),
    }
}

/// Between two looks at what has no event to wait for: a child's end, an answer of the admin endpoint, a file.
pub async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

/// The lines of one output of the balancer, as they come.
pub struct Lines {
    lines: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
    ended: watch::Sender<bool>,
}

impl Lines {
    fn follow(output: impl Read + Send + 'static) -> Arc<Lines> {
        let lines = Arc::new(Lines {
            lines: Mutex::default(),
            count: watch::channel(0).0,
            ended: watch::channel(false).0,
        });
        let to = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { break };
                to.lines.lock().unwrap().push(line);
                to.count.send_modify(|count| *count += 1);
            }
            to.ended.send_replace(true);
        });
        lines
    }

    /// Waits until the output was read to its end.
    async fn to_end(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// How many lines there are: a position to wait from.
    pub fn position(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn find<T>(&self, from: usize, wanted: &impl Fn(&str) -> Option<T>) -> Option<T> {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .skip(from)
            .find_map(|line| wanted(line))
    }

    fn find_last<T>(&self, wanted: &impl Fn(&str) -> Option<T>) -> Option<T> {
        let lines = self.lines.lock().unwrap();
        lines.iter().rev().find_map(|line| wanted(line))
    }

    /// The first line at or after `from` that `wanted` makes something of; waits for it.
    pub async fn wait<T>(&self, what: &str, from: usize, wanted: impl Fn(&str) -> Option<T>) -> T {
        let mut count = self.count.subscribe();
        let search = async {
            loop {
                if let Some(found) = self.find(from, &wanted) {
                    return found;
                }
                if count.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        within(what, search).await
    }
}

/// One line of the balancer's JSON log.
#[derive(Debug, Clone)]
pub struct Event(Value);

impl Event {
    pub fn parse(line: &str) -> Option<Event> {
        serde_json::from_str(line).ok().map(Event)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.0.get("fields").unwrap_or(&self.0);
        fields.get(name).and_then(Value::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        let fields = self.0.get("fields").unwrap_or(&self.0);
        fields.get(name).and_then(Value::as_u64)
    }

    pub fn message(&self) -> &str {
        self.field("message").unwrap_or("")
    }

    pub fn level(&self) -> &str {
        self.0.get("level").and_then(Value::as_str).unwrap_or("")
    }
}

/// An answer of the admin endpoint.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.body))
    }
}

/// A running balancer.
pub struct Balancer {
    child: Mutex<Child>,
    pub folder: TempDir,
    pub config: PathBuf,
    pub log: Arc<Lines>,
    pub stdout: Arc<Lines>,
}

/// How a balancer is started; [`Balancer::start`] is enough for most tests.
pub struct Launch {
    pub folder: TempDir,
    prefix: Vec<String>,
    program: PathBuf,
    stdin: Stdio,
}

impl Launch {
    pub fn new() -> Launch {
        Launch {
            folder: tempfile::tempdir().expect("a folder for the test"),
            prefix: Vec::new(),
            program: env!("CARGO_BIN_EXE_evenkeel").into(),
            stdin: Stdio::null(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the binary by a shell after `setup`, e.g. `ulimit -n 64`.
    pub fn after(mut self, setup: &str) -> Launch {
        self.prefix = vec![
            "sh".into(),
            "-c".into(),
            format!("{setup}; exec \"$@\""),
            "sh".into(),
        ];
        self
    }

    /// Starts the binary by this path, which an upgrade starts again.
    pub fn by_path(mut self, program: PathBuf) -> Launch {
        self.program = program;
        self
    }

    /// Gives the process this descriptor as its standard input, from where a shell can move it.
    pub fn on_stdin(mut self, descriptor: OwnedFd) -> Launch {
        self.stdin = descriptor.into();
        self
    }

    pub fn start(self, config: &str) -> Balancer {
        let file = self.path("balancer.toml");
        std::fs::write(&file, complete(config)).expect("write the configuration");
        let program = self.program.display().to_string();
        let mut words = self.prefix.clone();
        words.extend([
            program,
            "run".into(),
            "--config".into(),
            file.display().to_string(),
        ]);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            // Of its own: those that upgrades start end with it.
            .process_group(0)
            .current_dir(self.folder.path())
            .stdin(self.stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the balancer");
        let log = Lines::follow(child.stderr.take().expect("its log"));
        let stdout = Lines::follow(child.stdout.take().expect("its output"));
        Balancer {
            child: Mutex::new(child),
            folder: self.folder,
            config: file,
            log,
            stdout,
        }
    }
}

/// Adds what every test wants and leaves what the test says itself.
pub fn complete(config: &str) -> String {
    let mut text = String::new();
    if !config.contains("[global]") {
        text.push_str("[global]\nlog_format = \"json\"\nlog_level = \"debug\"\nwatch = false\n\n");
    }
    text.push_str(config);
    if !config.contains("[admin]") {
        text.push_str("\n[admin]\nbind = \"127.0.0.1:0\"\n");
    }
    text
}

impl Balancer {
    /// Starts on `config`; see [`complete`] for what is added to it.
    pub fn start(config: &str) -> Balancer {
        Launch::new().start(config)
    }

    /// The real address of a listener (or of `admin`, `metrics`), the latest if it was bound again.
    pub async fn address(&self, listener: &str) -> SocketAddr {
        let first = self.address_since(listener, 0).await;
        let latest = self.log.find_last(&|line| bound(listener, line));
        latest.unwrap_or(first)
    }

    /// The address of the first binding of `listener` that the log names at or after `from`.
    pub async fn address_since(&self, listener: &str, from: usize) -> SocketAddr {
        let what = format!("the address of {listener}");
        self.log
            .wait(&what, from, |line| bound(listener, line))
            .await
    }

    /// The first event at or after `from` that satisfies `wanted`.
    pub async fn event(&self, what: &str, from: usize, wanted: impl Fn(&Event) -> bool) -> Event {
        self.log
            .wait(what, from, |line| {
                Event::parse(line).filter(|event| wanted(event))
            })
            .await
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = rustix::process::Pid::from_child(&self.child.lock().unwrap());
        let signal = match name {
            "TERM" => rustix::process::Signal::TERM,
            "INT" => rustix::process::Signal::INT,
            "HUP" => rustix::process::Signal::HUP,
            "USR2" => rustix::process::Signal::USR2,
            "USR1" => rustix::process::Signal::USR1,
            "KILL" => rustix::process::Signal::KILL,
            "STOP" => rustix::process::Signal::STOP,
            "CONT" => rustix::process::Signal::CONT,
            other => panic!("no signal {other}"),
        };
        rustix::process::kill_process(pid, signal).expect("send a signal");
    }

    /// Stops the process, and returns when each of its threads stands: the signal alone does not wait for that.
    pub async fn halt(&self) {
        self.signal("STOP");
        let stands = || {
            let tasks = format!("/proc/{}/task", self.pid());
            std::fs::read_dir(tasks).expect("its threads").all(|task| {
                let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat"));
                // The state stands behind the name, which is in parentheses.
                stat.is_ok_and(|stat| {
                    stat.rsplit(')')
                        .next()
                        .is_some_and(|rest| rest.starts_with(" T"))
                })
            })
        };
        let halted = async {
            while !stands() {
                a_moment().await;
            }
        };
        within("the balancer to stand", halted).await;
    }

    /// Waits for the process that the test has started to end; others of an upgrade may go on.
    pub async fn first_exit(&self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self
                    .child
                    .lock()
                    .unwrap()
                    .try_wait()
                    .expect("wait for the balancer")
                {
                    return status;
                }
                a_moment().await;
            }
        };
        within("the balancer to end", ended).await
    }

    /// Waits for the process to end, and for those of its upgrades.
    pub async fn exit(&self) -> ExitStatus {
        let status = self.first_exit().await;
        // Its last words may still be on their way when the process is gone.
        within("the end of its log", self.log.to_end()).await;
        within("the end of its output", self.stdout.to_end()).await;
        status
    }

    /// Writes another configuration and does not tell the balancer.
    pub fn write(&self, config: &str) {
        std::fs::write(&self.config, complete(config)).expect("write the configuration");
    }

    /// Writes another configuration, reloads it by the admin endpoint, and gives the answer, good or bad.
    pub async fn try_reload(&self, config: &str) -> Answer {
        self.write(config);
        self.post("/api/v1/reload", "{}").await
    }

    /// Writes another configuration and reloads it; gives the list of changes.
    pub async fn reload(&self, config: &str) -> Value {
        let answer = self.try_reload(config).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    pub async fn get(&self, path: &str) -> Answer {
        let admin = self.address("admin").await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        self.raw(request.as_bytes()).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.change("POST", path, body).await
    }

    pub async fn change(&self, method: &str, path: &str, body: &str) -> Answer {
        let admin = self.address("admin").await;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        self.raw(request.as_bytes()).await
    }

    /// Sends these bytes to the admin endpoint and reads to the end.
    pub async fn raw(&self, request: &[u8]) -> Answer {
        raw_request(self.address("admin").await, request).await
    }

    /// One backend as `/api/v1/pools` shows it.
    pub async fn backend(&self, pool: &str, backend: &str) -> Value {
        let pools = self.get("/api/v1/pools").await.json();
        find_backend(&pools, pool, backend)
            .unwrap_or_else(|| panic!("no {pool}/{backend} in {pools}"))
    }

    /// Asks for a backend until `wanted` holds: for what has no event in the log.
    pub async fn backend_until(
        &self,
        pool: &str,
        backend: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let asked = async {
            loop {
                let seen = self.backend(pool, backend).await;
                if wanted(&seen) {
                    return seen;
                }
                a_moment().await;
            }
        };
        within(&format!("{pool}/{backend} to be as wanted"), asked).await
    }

    /// One value of the metrics page: the sum of the samples whose name and labels contain all of `parts`.
    pub async fn metric(&self, parts: &[&str]) -> f64 {
        let page = self.get("/metrics").await.body;
        page.lines()
            .filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits for an access-log line on standard output that satisfies `wanted`.
    pub async fn access(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.stdout
            .wait(what, 0, |line| {
                serde_json::from_str::<Value>(line)
                    .ok()
                    .filter(|line| wanted(line))
            })
            .await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs another command of the binary against this configuration and gives code, output and errors.
    pub async fn command(&self, words: &[&str]) -> (i32, String, String) {
        run(words, self.folder.path()).await
    }
}

/// The address in a line of the log that says that `listener` was bound.
fn bound(listener: &str, line: &str) -> Option<SocketAddr> {
    let event = Event::parse(line)?;
    let is_it = event.message() == "listening" && event.field("listener") == Some(listener);
    let address = || event.field("address").expect("an address");
    is_it.then(|| address().parse().expect("a socket address"))
}

/// Runs the binary to its end.
pub async fn run(words: &[&str], folder: &Path) -> (i32, String, String) {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    let folder = folder.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
    });
    let output = within("the command to end", output)
        .await
        .expect("no panic")
        .expect("run the command");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Finds a backend in the pools page, present or retired.
pub fn find_backend(pools: &Value, pool: &str, backend: &str) -> Option<Value> {
    let pools = pools.get("pools").unwrap_or(pools).as_array()?;
    let pool = pools.iter().find(|entry| entry["name"] == pool)?;
    let named = |list: &str| {
        pool[list]
            .as_array()?
            .iter()
            .find(|entry| entry["name"] == backend)
            .cloned()
    };
    named("backends").or_else(|| named("retired"))
}

/// Sends these bytes to `address`, reads to the end and takes the answer apart.
pub async fn raw_request(address: SocketAddr, request: &[u8]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        // A server may refuse before it has read all: what it said still counts.
        let _ = stream.write_all(request).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    answer(&within("an answer", exchange).await)
}

/// Takes an HTTP/1.1 answer that was read to its end apart.
pub fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Answer {
        status,
        head: head.to_owned(),
        body: if chunked {
            unchunked(body)
        } else {
            body.to_owned()
        },
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else {
            break;
        };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let mut child = self
            .child
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // The group may outlive its first process: upgrades leave others.
        let group = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = child.wait();
        if std::thread::panicking() {
            let lines = self
                .log
                .lines
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            eprintln!("--- log of the balancer");
            for line in lines.iter().rev().take(400).rev() {
                eprintln!("{line}");
            }
        }
    }
}

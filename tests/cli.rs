//! The command line from outside: which command does what, and its exit code. 0 done, 1 bad configuration or a failure,
//! 2 wrong usage.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const CONFIG: &str = r#"
[[listener]]
name = "chat"
bind = "127.0.0.1:0"
protocol = "tcp"
pool = "chat"

[pool.chat]
backend = [{ name = "n1", address = "127.0.0.1:9" }, { name = "n2", address = "127.0.0.1:10" }]
"#;

fn evenkeel(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command
        .current_dir(folder)
        .env_remove("EVENKEEL_CONFIG")
        .env_remove("EVENKEEL_LOG")
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, words: &[&str]) -> Output {
    evenkeel(folder).args(words).output().unwrap()
}

fn folder_with(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("balancer.toml"), config).unwrap();
    folder
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn wrong_usage_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["--no-such-flag"][..],
        &["no-such-command"],
        &["check", "a", "b"],
    ] {
        let output = run(folder.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(stderr(&output).contains("Usage:"), "{words:?}");
    }
    // What does not go together, or would do nothing.
    for words in [
        &["check", "a", "-c", "b"][..],
        &["-c", "a", "check", "b"],
        &["-c", "a", "schema"],
        &["demo", "-c", "a"],
        &["--log-level", "debug", "check"],
    ] {
        let output = run(folder.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let output = run(Path::new("/"), &["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = concat!("evenkeel ", env!("CARGO_PKG_VERSION"), "\n");
    let details = stdout(&output);
    let named: Vec<_> = details
        .lines()
        .filter_map(|line| line.split_once(": "))
        .collect();
    assert!(details.starts_with(version), "{details}");
    let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["commit", "target", "rustls", "aws-lc-rs"]);
    assert!(
        named[1..]
            .iter()
            .all(|(_, value)| !value.starts_with("unknown"))
    );
    let short = run(Path::new("/"), &["-V"]);
    assert_eq!(stdout(&short), version);
}

#[test]
fn the_schema_is_json() {
    let output = run(Path::new("/"), &["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema.get("properties").is_some());
}

/// As `evenkeel schema | head -1`: the reader has gone before all is written.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    // Nothing to warn of.
    let folder = folder_with(&format!("{CONFIG}check = {{ type = \"tcp\" }}\n"));
    for words in [&["schema"][..], &["check"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = evenkeel(folder.path())
            .args(words)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert_eq!(stderr(&output), "", "{words:?}");
    }
}

#[test]
fn check_sums_up_a_good_configuration() {
    let folder = folder_with(CONFIG);
    let expected = "ok, 1 listener, 1 pool, 2 backends\n";
    for words in [
        &["check", "balancer.toml"][..],
        &["check", "--config", "balancer.toml"],
        &["-c", "balancer.toml", "check"],
        &["check"],
    ] {
        let output = run(folder.path(), words);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).ends_with(expected), "{}", stdout(&output));
    }
}

#[test]
fn check_takes_the_file_from_the_environment_unless_one_is_named() {
    let folder = folder_with(CONFIG);
    std::fs::write(folder.path().join("bad.toml"), "nonsense = 1\n").unwrap();
    let check = |words: &[&str]| {
        let mut command = evenkeel(folder.path());
        command.env("EVENKEEL_CONFIG", "bad.toml").args(words);
        command.output().unwrap().status.code()
    };
    assert_eq!(check(&["check"]), Some(1));
    assert_eq!(check(&["check", "balancer.toml"]), Some(0));
    assert_eq!(check(&["check", "--config", "balancer.toml"]), Some(0));
}

#[test]
fn check_and_run_refuse_a_bad_configuration_with_its_line() {
    let folder = folder_with(&CONFIG.replace("protocol = \"tcp\"", "protocol = \"tpc\""));
    for words in [&["check"][..], &["run"], &[]] {
        let output = run(folder.path(), words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let told = stderr(&output);
        assert!(told.contains("balancer.toml:5:12"), "{words:?}: {told}");
        assert!(told.contains("tpc"), "{words:?}: {told}");
    }
}

#[test]
fn check_loads_the_certificates() {
    let tls = "tls = { certificates = [{ cert = \"gone.pem\", key = \"gone.key\" }] }";
    let folder =
        folder_with(&CONFIG.replace("pool = \"chat\"\n", &format!("pool = \"chat\"\n{tls}\n")));
    let output = run(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(
        told.contains("listener[0].tls.certificates[0].cert: "),
        "{told}"
    );
    assert!(told.contains("gone.pem"), "{told}");
}

#[test]
fn check_binds_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder_with(&CONFIG.replace("127.0.0.1:0", &address));
    let output = run(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn run_says_which_files_it_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    if Path::new("/etc/evenkeel/balancer.toml").exists() {
        return;
    }
    let output = run(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("./balancer.toml"), "{told}");
    assert!(told.contains("/etc/evenkeel/balancer.toml"), "{told}");
    let output = run(folder.path(), &["--config", "gone.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("gone.toml"));
}

#[test]
fn run_names_the_listener_whose_port_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder_with(&CONFIG.replace("127.0.0.1:0", &address));
    let output = run(folder.path(), &["run"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("evenkeel: listener chat: bind {address}: address in use\n");
    assert!(stderr(&output).ends_with(&expected), "{}", stderr(&output));
}

#[test]
fn a_bad_log_filter_is_told() {
    let folder = folder_with(CONFIG);
    for (wrong, why) in [("a=b=c", "too many '='"), ("[job]=debug", "spans")] {
        let mut command = evenkeel(folder.path());
        let output = command.env("EVENKEEL_LOG", wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        let named = told.contains(&format!("EVENKEEL_LOG={wrong}: "));
        assert!(named && told.contains(why), "{told}");
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// Until its handlers stood, each of them ended the process.
#[test]
fn signals_that_come_before_the_handlers_wait_for_them() {
    use rustix::process::Signal;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("balancer.toml");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let child = evenkeel(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It opens once the process, which has no handlers yet, reads its configuration.
    let mut writer = std::fs::File::options().write(true).open(&path).unwrap();
    for one in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::WINCH,
        Signal::PIPE,
        Signal::QUIT,
    ] {
        signal(&child, one);
    }
    // What reads the file from now on finds a plain one.
    std::fs::remove_file(&path).unwrap();
    let config = format!("[global]\nwatch = false\n{CONFIG}");
    std::fs::write(&path, &config).unwrap();
    writer.write_all(config.as_bytes()).unwrap();
    drop(writer);
    let output = child.wait_with_output().unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("listening"), "{told}");
    assert!(told.contains("stopped"), "{told}");
}

#[test]
fn a_signal_that_asks_for_nothing_leaves_it_running_and_quit_stops_it() {
    use rustix::process::Signal;
    let folder = folder_with(CONFIG);
    let mut child = evenkeel(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut until = |word: &str| {
        told.find(|line| line.as_ref().is_ok_and(|line| line.contains(word)))
            .unwrap_or_else(|| panic!("it ended without {word:?}"))
            .unwrap()
    };
    until("listening");
    for one in [Signal::WINCH, Signal::PIPE, Signal::ALARM, Signal::USR1] {
        signal(&child, one);
    }
    signal(&child, Signal::USR2);
    until("SIGUSR2 is reserved");
    signal(&child, Signal::QUIT);
    until("stopped");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A demo that ends with the test.
struct Demo(Child);

impl Demo {
    /// Starts it and gives the addresses that it prints.
    fn start() -> (Demo, Value) {
        let mut child = evenkeel(Path::new("/"))
            .args(["demo", "--any-port", "--output", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let printed = child.stdout.take().unwrap();
        BufReader::new(printed).read_line(&mut line).unwrap();
        (Demo(child), serde_json::from_str(&line).unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn authority(url: &Value) -> &str {
    let (_, rest) = url.as_str().unwrap().split_once("://").unwrap();
    rest.split('/').next().unwrap()
}

#[test]
fn the_demo_serves_its_page_and_leaves_nothing_behind() {
    let (mut demo, told) = Demo::start();
    let page = authority(&told["page"]);
    let request = format!("GET / HTTP/1.1\r\nHost: {page}\r\nConnection: close\r\n\r\n");
    let answer = ask(page, &request);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("Evenkeel demo"));
    let mut line = TcpStream::connect(told["tcp"].as_str().unwrap()).unwrap();
    line.write_all(b"hello\n").unwrap();
    line.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    assert!(
        ["n1: hello\n", "n2: hello\n", "n3: hello\n"].contains(&answer.as_str()),
        "{answer}"
    );
    let config = Path::new(told["config"].as_str().unwrap());
    assert!(config.exists());
    demo.signal(rustix::process::Signal::INT);
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    assert!(!config.exists());
}

#[test]
fn demos_run_side_by_side() {
    let (_one, first) = Demo::start();
    let (_other, second) = Demo::start();
    assert_ne!(first["page"], second["page"]);
    let admin = authority(&second["admin"]);
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    assert!(ask(admin, &request).starts_with("HTTP/1.1 200"));
}

/// As systemd does for Type=notify.
#[test]
fn a_service_manager_hears_of_the_start() {
    let folder = folder_with(CONFIG);
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let received = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut child = evenkeel(folder.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "30000000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(received(), "READY=1");
    assert_eq!(received(), "STATUS=0 connections\nWATCHDOG=1");
    child.kill().unwrap();
    child.wait().unwrap();
}

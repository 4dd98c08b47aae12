//! What an operator watches: `top` on a terminal of tmux, `status --watch`, and `explain`.

use std::path::Path;
use std::process::Command;

use crate::clients::{ask, connect, websocket};
use crate::harness::{Balancer, a_moment, run, within};
use crate::nodes::Node;
use crate::settings::simple;

/// A terminal with `top` in it; ends with the test.
struct Screen {
    socket: String,
}

impl Screen {
    /// `None` where tmux is not installed.
    fn start(admin: &str, size: (u16, u16), environment: &str) -> Option<Screen> {
        if !Path::new("/usr/bin/tmux").exists() {
            eprintln!("SKIPPED: tmux is not installed");
            return None;
        }
        let socket = format!(
            "evenkeel-{}-{}",
            std::process::id(),
            admin.replace(':', "-")
        );
        let screen = Screen { socket };
        let top = format!(
            "env {environment} {} top --admin {admin}",
            env!("CARGO_BIN_EXE_evenkeel")
        );
        // What it leaves on the terminal stays to be seen.
        let shell = format!("{top}; echo it ended with $?; cat");
        let (width, height) = (size.0.to_string(), size.1.to_string());
        screen.tmux(&[
            "new-session",
            "-d",
            "-s",
            "top",
            "-x",
            &width,
            "-y",
            &height,
            &shell,
        ]);
        Some(screen)
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket, "-f", "/dev/null"])
            .args(words)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "top"], keys].concat());
    }

    /// The screen once it has all of these.
    async fn until(&self, words: &[&str]) -> String {
        let mut shown = String::new();
        let looking = async {
            loop {
                shown = self.tmux(&["capture-pane", "-p", "-t", "top"]);
                if words.iter().all(|word| shown.contains(word)) {
                    return;
                }
                a_moment().await;
            }
        };
        let looked = tokio::time::timeout(crate::harness::PATIENCE, looking).await;
        assert!(looked.is_ok(), "no {words:?} on\n{shown}");
        shown
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let words = ["-L", &self.socket, "kill-server"];
        let _ = Command::new("tmux").args(words).output();
    }
}

#[tokio::test]
async fn top_shows_a_backend_drains_it_aborts_the_job_and_leaves_the_terminal() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let admin = balancer.address("admin").await.to_string();
    let Some(screen) = Screen::start(&admin, (80, 24), "NO_COLOR=1") else {
        return;
    };
    let mut socket = websocket(balancer.address("main").await, "/").await;
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
    let shown = screen
        .until(&["ready", "nodes/n1", "1 backends 1", "BALANCE"])
        .await;
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    screen.press(&["d"]);
    screen
        .until(&["drain nodes/n1 with 1 connection, at its pool's pace? (y/n)"])
        .await;
    screen.press(&["n"]);
    screen.until(&["nothing was done"]).await;
    assert_eq!(balancer.backend("nodes", "n1").await["state"], "up");
    screen.press(&["d"]);
    screen.until(&["(y/n)"]).await;
    screen.press(&["y"]);
    screen.until(&["nodes/n1: drain"]).await;
    assert_eq!(balancer.backend("nodes", "n1").await["state"], "drain");
    // A job that would take an hour.
    let body = "{\"filter\": {\"pool\": \"nodes\"}, \"after\": \"1h\"}";
    let job = balancer.post("/api/v1/connections/close", body).await;
    assert!(job.status < 300, "{}", job.body);
    screen.press(&["4"]);
    screen.until(&["waiting"]).await;
    screen.press(&["a"]);
    screen.until(&["? 1 connection stay"]).await;
    screen.press(&["y"]);
    screen.until(&["aborted"]).await;
    assert_eq!(ask(&mut socket, "still here").await, "n1:still here");
    // A window of another size, without a word of the balancer.
    screen.tmux(&["resize-window", "-t", "top", "-x", "40", "-y", "10"]);
    screen.press(&["1"]);
    let shown = screen.until(&["nodes/n1"]).await;
    assert!(
        shown.lines().all(|line| line.chars().count() <= 40),
        "{shown}"
    );
    screen.press(&["q"]);
    screen.until(&["it ended with 0"]).await;
}

#[tokio::test]
async fn top_goes_on_when_the_balancer_comes_back() {
    let node = Node::web("n1").await;
    let config = simple("websocket", "", &[&node]);
    let balancer = Balancer::start(&config);
    let admin = balancer.address("admin").await.to_string();
    let Some(screen) = Screen::start(&admin, (100, 30), "TERM=screen-256color") else {
        return;
    };
    screen.until(&["nodes/n1"]).await;
    let escapes = screen.tmux(&["capture-pane", "-p", "-e", "-t", "top"]);
    // Of the 16 colours that every terminal has, or of 256.
    let greens = ["\u{1b}[32m", "\u{1b}[38;5;2m"];
    let is_green = greens.iter().any(|green| escapes.contains(green));
    assert!(is_green, "no green: {escapes:?}");
    balancer.signal("TERM");
    balancer.exit().await;
    screen
        .until(&["no admin endpoint at", "connection refused"])
        .await;
    let again = format!("{config}\n[admin]\nbind = \"{admin}\"\n");
    let again = Balancer::start(&again);
    again.address("main").await;
    let gone = async {
        while screen
            .tmux(&["capture-pane", "-p", "-t", "top"])
            .contains("no admin endpoint")
        {
            a_moment().await;
        }
    };
    within("the balancer to be seen again", gone).await;
    screen.press(&["C-c"]);
    screen.until(&["it ended with 0"]).await;
}

#[tokio::test]
async fn top_without_a_terminal_says_what_to_use() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, error) = run(&["top"], folder.path()).await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.contains("status --watch"), "{error}");
}

#[tokio::test]
async fn status_is_shown_again_and_again_until_nobody_reads() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let admin = balancer.address("admin").await.to_string();
    let ends = async |output: &str, mark: &str| {
        let words = format!(
            "{} status --watch 100ms -o {output} --admin {admin} | grep -m 3 -F '{mark}'",
            env!("CARGO_BIN_EXE_evenkeel")
        );
        let shell = tokio::task::spawn_blocking(move || {
            Command::new("sh").args(["-c", &words]).output().unwrap()
        });
        let output = within("three looks", shell).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // grep ends at the third, and the command at its next write.
    assert_eq!(ends("table", "pool nodes").await.lines().count(), 3);
    assert_eq!(ends("json", "\"started_at\"").await.lines().count(), 3);
    drop(connect(balancer.address("main").await).await);
    let (code, _, error) = balancer.command(&["status", "--watch", "chat"]).await;
    assert_eq!(code, 2);
    assert!(error.contains("such as 2 or 500ms"), "{error}");
}

#[tokio::test]
async fn explain_says_where_each_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[global]\nmax_connections = 500\n[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:80\"\n\
                protocol = \"tcp\"\npool = \"p\"\n[pool.p]\nbackend = [{ address = \"10.0.0.1:80\" }]\n";
    std::fs::write(folder.path().join("a.toml"), text).unwrap();
    let (code, out, error) = run(&["explain", "a.toml"], folder.path()).await;
    assert_eq!(code, 0, "{error}");
    let row = |key: &str| {
        let line = out
            .lines()
            .find(|line| line.trim_start().starts_with(key))
            .unwrap();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(row("max_connections"), "max_connections 500 line 2");
    assert_eq!(row("workers"), "workers 0 default");
    assert_eq!(row("max_lifetime"), "max_lifetime - not set");
    let (_, set, _) = run(&["explain", "--set", "-c", "a.toml"], folder.path()).await;
    assert!(
        set.contains("max_connections") && !set.contains("workers"),
        "{set}"
    );
    let (_, json, _) = run(&["explain", "a.toml", "-o", "json"], folder.path()).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let listener = json
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["table"] == "listener[0]");
    let bind = listener.unwrap()["keys"].as_array().unwrap().iter();
    let bind = bind.clone().find(|key| key["key"] == "bind").unwrap();
    let expected = serde_json::json!({
        "key": "bind", "value": "127.0.0.1:80", "from": "file", "line": 5
    });
    assert_eq!(*bind, expected);
    // The variable stands above the file.
    let words = [
        "-c",
        &format!(
            "EVENKEEL_LOG=debug {} explain a.toml",
            env!("CARGO_BIN_EXE_evenkeel")
        ),
    ];
    let output = Command::new("sh")
        .args(words)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let line = out.lines().find(|line| line.contains("log_level")).unwrap();
    assert!(
        line.contains("debug") && line.ends_with("EVENKEEL_LOG"),
        "{line}"
    );
    // Of a file that is refused nothing is in effect.
    std::fs::write(folder.path().join("a.toml"), "nonsense = 1\n").unwrap();
    let (code, out, error) = run(&["explain", "a.toml"], folder.path()).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("nonsense"), "{error}");
}

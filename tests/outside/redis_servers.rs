//! Servers of Redis for tests: real ones, which are killed, frozen and emptied.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{PATIENCE, a_moment, within};

/// A server on a port of loopback; it ends with the test.
pub struct RedisServer {
    port: u16,
    options: Vec<String>,
    child: Child,
    _folder: TempDir,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago: Redis cannot say which one it was given.
pub fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    probe.local_addr().expect("its address").port()
}

fn spawn(port: u16, options: &[String]) -> (Child, TempDir) {
    let folder = tempfile::tempdir().expect("a folder for Redis");
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.path())
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start redis-server");
    (child, folder)
}

impl RedisServer {
    /// Starts one. `None`: it is not installed, which is said.
    pub async fn start() -> Option<RedisServer> {
        RedisServer::start_with(&[]).await
    }

    pub async fn start_with(options: &[&str]) -> Option<RedisServer> {
        let folders = ["/usr/bin", "/usr/local/bin"];
        if !folders
            .iter()
            .any(|folder| Path::new(folder).join("redis-server").exists())
        {
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        }
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        for _ in 0..5 {
            let port = free_port();
            let (child, folder) = spawn(port, &options);
            let mut server = RedisServer {
                port,
                options: options.clone(),
                child,
                _folder: folder,
            };
            if server.is_up().await {
                return Some(server);
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts a sentinel that looks after this primary, under the name `primary`.
    pub async fn sentinel(primary: &RedisServer) -> RedisServer {
        let folder = tempfile::tempdir().expect("a folder for the sentinel");
        let file = folder.path().join("sentinel.conf");
        let watched = primary.address().port();
        for _ in 0..5 {
            let port = free_port();
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor primary 127.0.0.1 {watched} 1\n\
                 sentinel down-after-milliseconds primary 500\nsentinel failover-timeout primary 2000\n"
            );
            std::fs::write(&file, text).expect("write the configuration");
            let child = Command::new("redis-server")
                .arg(&file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start a sentinel");
            let mut server = RedisServer {
                port,
                options: Vec::new(),
                child,
                _folder: tempfile::tempdir().expect("a folder"),
            };
            if server.is_up().await {
                server._folder = folder;
                return server;
            }
        }
        panic!("the sentinel does not start");
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Waits until it answers; false when it has ended: somebody else took its port.
    async fn is_up(&mut self) -> bool {
        let answers = async {
            while TcpStream::connect(self.address()).await.is_err() {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return false;
                }
                a_moment().await;
            }
            true
        };
        tokio::time::timeout(PATIENCE, answers)
            .await
            .expect("Redis to answer")
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("kill Redis");
        self.child.wait().expect("its end");
    }

    /// Starts it again on the same port, with nothing in it.
    pub async fn restart_empty(&mut self) {
        let (child, folder) = spawn(self.port, &self.options);
        (self.child, self._folder) = (child, folder);
        assert!(self.is_up().await, "Redis does not come back");
    }

    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("stop Redis");
    }

    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("continue Redis");
    }

    /// Sends an inline command and gives what is answered.
    pub async fn ask(&self, command: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(self.address()).await.expect("connect");
            let words = format!("{command}\r\nQUIT\r\n");
            stream.write_all(words.as_bytes()).await.expect("write");
            // A sentinel does not know QUIT.
            stream.shutdown().await.expect("shut down");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        within("an answer of Redis", asked).await
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, command: &str, wanted: impl Fn(&str) -> bool) {
        let asked = async {
            while !wanted(&self.ask(command).await) {
                a_moment().await;
            }
        };
        within(&format!("{command} to be as wanted"), asked).await;
    }
}

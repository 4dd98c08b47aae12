//! Names of `/etc/hosts`, in a network and mount namespace of the test's own.

use std::process::{Command, Stdio};

use crate::harness::{Launch, within};

/// Its own `/etc/hosts` and `/etc/resolv.conf`, then the program.
const NAMESPACE: &str = r#"
set -e
mount --make-rprivate /
ip link set lo up
printf '127.0.0.1 localhost\n127.0.0.3 pinned.example pinned\n' > "$1/hosts"
printf 'nameserver 127.0.0.53\nsearch a.test b.test c.test\noptions ndots:5\n' > "$1/resolv.conf"
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
exec python3 "$1/within.py" "$2" "$1"
"#;

/// A node at each loopback address that is named, a name server that never answers, and one client per listener.
const WITHIN: &str = r#"
import json, socket, subprocess, sys, threading

binary, folder = sys.argv[1], sys.argv[2]
asked = []
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
node = socket.create_server(("127.0.0.3", 9001))

def name_server():
    while True:
        asked.append(server.recvfrom(4096)[0][12:60].hex())

def serve():
    while True:
        connection, _ = node.accept()
        connection.sendall(b"pinned\n")
        connection.close()

for work in (name_server, serve):
    threading.Thread(target=work, daemon=True).start()
balancer = subprocess.Popen([binary, "run", "--config", folder + "/balancer.toml"])
said = {}
try:
    for port in (9100, 9101):
        while port not in said:
            try:
                client = socket.create_connection(("127.0.0.1", port))
                line = client.recv(100)
            except OSError:
                continue
            if line:
                said[port] = line.decode().strip()
    print(json.dumps({"static": said[9100], "discovered": said[9101], "asked": asked}))
finally:
    balancer.kill()
    balancer.wait()
"#;

const CONFIG: &str = r#"
[global]
watch = false

[[listener]]
name = "static"
bind = "127.0.0.1:9100"
protocol = "tcp"
pool = "static"

[[listener]]
name = "discovered"
bind = "127.0.0.1:9101"
protocol = "tcp"
pool = "discovered"

[pool.static]
backend = [{ name = "n1", address = "Pinned:9001" }]

[pool.discovered]
discover = { dns = "pinned.example:9001" }
"#;

#[tokio::test]
async fn a_name_of_the_hosts_file_asks_no_name_server() {
    let may = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c"])
        .arg("mount --make-rprivate / && ip link set lo up && python3 -c ''")
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no right to make namespaces, or no `unshare`, `ip` and `python3`");
        return;
    }
    let launch = Launch::new();
    std::fs::write(launch.path("balancer.toml"), CONFIG).expect("write a configuration");
    std::fs::write(launch.path("within.py"), WITHIN).expect("write a program");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "sh", "-c", NAMESPACE, "sh"])
        .arg(launch.folder.path())
        .arg(env!("CARGO_BIN_EXE_evenkeel"))
        .stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = within("the namespace", running).await.expect("no panic");
    let output = output.expect("run the namespace");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"));
    assert_eq!(told["static"], "pinned", "{told}");
    assert_eq!(told["discovered"], "pinned", "{told}");
    assert_eq!(told["asked"], serde_json::json!([]), "{errors}");
}

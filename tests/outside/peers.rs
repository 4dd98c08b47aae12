//! HAProxy and nginx before and behind the balancer, where they are installed: what they say of a client is understood, and
//! what is said to them. Without them each test says that it was skipped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::certificates::{Certificate, client};
use crate::clients::{connect, echoed, http_on, read_line};
use crate::harness::{Balancer, Launch, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, listener_with, pool};

const ACCESS: &str = "[access_log]\noutput = \"stdout\"\nlog_at = [\"open\", \"end\"]\n\n";
const ACCEPTING: &str = "accept_proxy = true\ntrusted = [\"127.0.0.0/8\"]";

/// A program of the machine; it ends with the test.
struct Peer {
    child: Child,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx's one process and HAProxy without a master end at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn found(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(program));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// nginx with its module for streams.
fn nginx() -> Option<(PathBuf, &'static str)> {
    let program = found("nginx")?;
    let modules = [
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "/usr/share/nginx/modules/ngx_stream_module.so",
        "/usr/lib64/nginx/modules/ngx_stream_module.so",
    ];
    let module = modules.into_iter().find(|path| Path::new(path).exists());
    if module.is_none() {
        eprintln!("SKIPPED: nginx has no stream module (libnginx-mod-stream)");
    }
    Some((program, module?))
}

/// A port that was free a moment ago, for a program that cannot say which one it was given.
fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    probe.local_addr().expect("its address").port()
}

async fn answers(address: SocketAddr) {
    let reached = async {
        while TcpStream::connect(address).await.is_err() {
            a_moment().await;
        }
    };
    within("the peer to listen", reached).await;
}

/// Starts a program on the configuration that `write` makes for its port; a port that somebody else took meanwhile shows as
/// an early end, and another is tried.
async fn start(
    program: &Path,
    arguments: impl Fn(&Path) -> Vec<String>,
    write: impl Fn(u16) -> String,
) -> (Peer, SocketAddr) {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let file = folder.path().join("peer.conf");
        let text = write(port).replace("FOLDER", &folder.path().display().to_string());
        std::fs::write(&file, text).expect("write a configuration");
        let log = std::fs::File::create(folder.path().join("peer.log")).expect("a log");
        let mut child = Command::new(program)
            .args(arguments(&file))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start a peer");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let ended = tokio::select! {
            () = answers(address) => false,
            () = async { while !matches!(child.try_wait(), Ok(Some(_))) { a_moment().await } } => true,
        };
        if !ended {
            let peer = Peer {
                child,
                _folder: folder,
            };
            return (peer, address);
        }
        let said = std::fs::read_to_string(folder.path().join("peer.log")).unwrap_or_default();
        eprintln!("{} ended: {said}", program.display());
    }
    panic!("{} does not start", program.display());
}

async fn haproxy(program: &Path, body: impl Fn(u16) -> String) -> (Peer, SocketAddr) {
    let arguments = |file: &Path| {
        ["-db", "-f", &file.display().to_string()]
            .map(str::to_owned)
            .to_vec()
    };
    let write = |port| {
        format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{}",
            body(port)
        )
    };
    start(program, arguments, write).await
}

async fn start_nginx(
    (program, module): (PathBuf, &'static str),
    body: impl Fn(u16) -> String,
) -> (Peer, SocketAddr) {
    let arguments = |file: &Path| {
        let folder = file.parent().expect("a folder").display().to_string();
        [
            "-p",
            &folder,
            "-e",
            "stderr",
            "-c",
            &file.display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let write = |port| {
        format!(
            "load_module {module};\ndaemon off;\nmaster_process off;\npid FOLDER/nginx.pid;\nerror_log stderr;\n\
             events {{ worker_connections 64; }}\n{}",
            body(port)
        )
    };
    start(&program, arguments, write).await
}

/// A client that comes through `front` is the client in the log.
async fn is_announced(balancer: &Balancer, front: SocketAddr) {
    let mut stream = connect(front).await;
    let own = stream.local_addr().expect("an address").to_string();
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    echoed(&mut stream, b"hello").await;
    let line = balancer
        .access("the client", |line| line["client"] == own)
        .await;
    assert!(line["via"].is_string(), "{line}");
}

async fn accepting() -> (Balancer, SocketAddr, Node) {
    let node = Node::echo("n1").await;
    let config = ACCESS.to_owned()
        + &listener_with("main", "tcp", "nodes", ACCEPTING)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    (balancer, address, node)
}

#[tokio::test]
async fn haproxy_in_front_announces_clients_in_both_versions() {
    let Some(program) = found("haproxy") else {
        return;
    };
    let (balancer, address, _node) = accepting().await;
    let options = [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options authority,unique-id,crc32c",
    ];
    for option in options {
        let (_peer, front) = haproxy(&program, |port| {
            format!(
                "frontend f\n  bind 127.0.0.1:{port}\n  unique-id-format %pid\n  default_backend b\n\
                 backend b\n  server s {address} {option} check inter 100ms\n"
            )
        })
        .await;
        is_announced(&balancer, front).await;
    }
}

/// It ends TLS and says so: the backend's scheme is https, and the SNI comes along.
#[tokio::test]
async fn haproxy_in_front_announces_tls() {
    let Some(program) = found("haproxy") else {
        return;
    };
    let node = Node::web("w1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let both = launch.path("both.pem");
    let text = [&certificate.cert, &certificate.key].map(|file| std::fs::read(file).expect("PEM"));
    std::fs::write(&both, text.concat()).expect("write PEM");
    let config = ACCESS.to_owned()
        + &listener_with("main", "websocket", "nodes", ACCEPTING)
        + &pool("nodes", "", &[backend("w1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let (_peer, front) = haproxy(&program, |port| {
        format!(
            "frontend f\n  bind 127.0.0.1:{port} ssl crt {}\n  default_backend b\n\
             backend b\n  server s {address} send-proxy-v2 proxy-v2-options ssl,cert-cn,authority,unique-id,crc32c\n",
            both.display()
        )
    })
    .await;
    let connector = tokio_rustls::TlsConnector::from(client(&[&certificate]));
    let stream = connect(front).await;
    let own = stream.local_addr().expect("an address");
    let name = "a.example".try_into().expect("a name");
    let mut stream = within("a handshake", connector.connect(name, stream))
        .await
        .expect("handshake");
    let page = http_on(&mut stream, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(page.status, 200);
    let head = node.heads.lock().unwrap().join("").to_ascii_lowercase();
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    assert!(
        head.contains(&format!("x-forwarded-for: {}\r\n", own.ip())),
        "{head}"
    );
    balancer
        .access("the client", |line| line["client"] == own.to_string())
        .await;
}

#[tokio::test]
async fn nginx_in_front_announces_clients() {
    let Some(nginx) = nginx() else { return };
    let (balancer, address, _node) = accepting().await;
    let (_peer, front) = start_nginx(nginx, |port| {
        format!(
            "stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {address}; proxy_protocol on; }} }}\n"
        )
    })
    .await;
    is_announced(&balancer, front).await;
}

/// What the HTTP server behind the balancer was told of the client.
async fn told(balancer: &Balancer) -> (String, String) {
    let mut stream = connect(balancer.address("main").await).await;
    let own = stream.local_addr().expect("an address").to_string();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await
        .expect("write");
    let answer = crate::clients::read_answer(&mut stream).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    (own, answer.head + "\n" + &answer.body)
}

fn sending(version: &str, to: SocketAddr, protocol: &str) -> String {
    let check = "check = { type = \"http\", interval = \"100ms\", rise = 1 }";
    listener("main", protocol, "nodes")
        + &pool(
            "nodes",
            &format!("send_proxy = \"{version}\"\n{check}"),
            &[crate::settings::backend_with(
                "n1",
                to,
                "init_state = \"down\"",
            )],
        )
}

/// Up by checks alone: they have a header, too.
async fn serves(to: SocketAddr) {
    for (version, protocol) in [
        ("v1", "tcp"),
        ("v2", "tcp"),
        ("v1", "websocket"),
        ("v2", "websocket"),
    ] {
        let balancer = Balancer::start(&sending(version, to, protocol));
        balancer
            .backend_until("nodes", "n1", |seen| seen["state"] == "up")
            .await;
        let (own, answer) = told(&balancer).await;
        assert!(
            answer.contains(&format!("client={own}")),
            "{version}, {protocol}: {answer}"
        );
    }
}

#[tokio::test]
async fn haproxy_behind_is_told_of_the_client() {
    let Some(program) = found("haproxy") else {
        return;
    };
    let (_peer, behind) = haproxy(&program, |port| {
        format!(
            "frontend f\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request return status 200 content-type text/plain lf-string \"client=%[src]:%[src_port] \
             id=%[fc_pp_unique_id] authority=%[fc_pp_authority] \"\n"
        )
    })
    .await;
    serves(behind).await;
}

/// The details of version 2, as another reads them.
#[tokio::test]
async fn haproxy_behind_reads_the_id_and_the_name() {
    let Some(program) = found("haproxy") else {
        return;
    };
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let (_peer, behind) = haproxy(&program, |port| {
        format!(
            "frontend f\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request return status 200 content-type text/plain lf-string \"client=%[src]:%[src_port] \
             id=%[fc_pp_unique_id] authority=%[fc_pp_authority] \"\n"
        )
    })
    .await;
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = ACCESS.to_owned()
        + &listener_with("main", "tcp", "nodes", &keys)
        + &pool("nodes", "send_proxy = \"v2\"", &[backend("n1", behind)]);
    let balancer = launch.start(&config);
    let connector = tokio_rustls::TlsConnector::from(client(&[&certificate]));
    let stream = connect(balancer.address("main").await).await;
    let own = stream.local_addr().expect("an address").to_string();
    let name = "a.example".try_into().expect("a name");
    let mut stream = within("a handshake", connector.connect(name, stream))
        .await
        .expect("handshake");
    let page = http_on(&mut stream, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let line = balancer
        .access("its line", |line| line["client"] == own)
        .await;
    let expected = format!("client={own} id={} authority=a.example", line["id"]);
    assert!(page.body.contains(&expected), "{expected}: {}", page.body);
}

#[tokio::test]
async fn nginx_behind_is_told_of_the_client_in_http() {
    let Some(nginx) = nginx() else { return };
    let (_peer, behind) = start_nginx(nginx, |port| {
        format!(
            "http {{ access_log off; client_body_temp_path FOLDER/b; proxy_temp_path FOLDER/p; \
             fastcgi_temp_path FOLDER/f; uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s;\n\
             server {{ listen 127.0.0.1:{port} proxy_protocol;\n  \
             location / {{ return 200 \"client=$proxy_protocol_addr:$proxy_protocol_port \"; }} }} }}\n"
        )
    })
    .await;
    // A check over LOCAL is answered as well: nginx takes the socket's address then.
    serves(behind).await;
}

/// A stream server of nginx takes the header and says in its answer whose it was.
#[tokio::test]
async fn nginx_behind_is_told_of_the_client_in_a_stream() {
    let Some(nginx) = nginx() else { return };
    let (_peer, behind) = start_nginx(nginx, |port| {
        format!(
            "stream {{ server {{ listen 127.0.0.1:{port} proxy_protocol; \
             return \"client=$proxy_protocol_addr:$proxy_protocol_port\\n\"; }} }}\n"
        )
    })
    .await;
    for version in ["v1", "v2"] {
        let config = listener("main", "tcp", "nodes")
            + &pool(
                "nodes",
                &format!("send_proxy = \"{version}\""),
                &[backend("n1", behind)],
            );
        let balancer = Balancer::start(&config);
        let mut stream = connect(balancer.address("main").await).await;
        let own = stream.local_addr().expect("an address");
        let line = read_line(&mut stream).await.expect("a line");
        assert_eq!(line, format!("client={own}"), "{version}");
    }
}

/// Two balancers in a row and nginx at the end: the client survives both hops.
#[tokio::test]
async fn the_client_survives_a_chain() {
    let Some(program) = found("haproxy") else {
        return;
    };
    let Some(nginx) = nginx() else { return };
    let (_last, behind) = start_nginx(nginx, |port| {
        format!(
            "stream {{ server {{ listen 127.0.0.1:{port} proxy_protocol; \
             return \"client=$proxy_protocol_addr:$proxy_protocol_port\\n\"; }} }}\n"
        )
    })
    .await;
    let config = listener_with("main", "tcp", "nodes", ACCEPTING)
        + &pool("nodes", "send_proxy = \"v2\"", &[backend("n1", behind)]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (_first, front) = haproxy(&program, |port| {
        format!(
            "frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s {address} send-proxy-v2\n"
        )
    })
    .await;
    let mut stream = connect(front).await;
    let own = stream.local_addr().expect("an address");
    let line = read_line(&mut stream).await.expect("a line");
    assert_eq!(line, format!("client={own}"));
}

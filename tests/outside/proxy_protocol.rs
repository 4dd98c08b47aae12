//! The PROXY protocol from outside: a client that is announced is the client everywhere, and backends are told of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use evenkeel::wire::proxy_protocol::{
    Addresses, Details, HeaderProgress, Proxied, ProxyHeader, SslDetails, encode_local_v2,
    encode_v2, read,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::certificates::{Certificate, client};
use crate::clients::{
    Ending, connect, echoed, http_on, read_exactly, read_line, read_to_ending, websocket_over,
};
use crate::harness::{Balancer, Launch, PATIENCE, within};
use crate::nodes::{Node, echo};
use crate::settings::{backend, listener, listener_with, pool};

const ACCESS: &str = "[access_log]\noutput = \"stdout\"\nlog_at = [\"open\", \"end\"]\n\n";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 40007 443\r\n";

fn accepting(protocol: &str, keys: &str) -> String {
    let keys = format!("accept_proxy = true\n{keys}");
    ACCESS.to_owned() + &listener_with("main", protocol, "nodes", &keys)
}

const TRUSTED: &str = "trusted = [\"127.0.0.0/8\"]";

fn addresses(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses::Ip {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    })
}

fn v2(source: &str, details: &Details) -> Vec<u8> {
    let destination = match source.starts_with('[') {
        true => "[2001:db8::1]:443",
        false => "198.51.100.1:443",
    };
    encode_v2(addresses(source, destination), details)
}

async fn announced(address: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(header).await.expect("write");
    stream
}

async fn opened(balancer: &Balancer) -> Value {
    balancer
        .access("the line of a connection", |line| line["event"] == "open")
        .await
}

/// The end of a connection without a backend, as the access log has it.
async fn refused(balancer: &Balancer) -> String {
    let line = balancer
        .access("the end of a connection", |line| line["event"] == "end")
        .await;
    let end = &line["end"];
    let word = |name: &str| end[name].as_str().expect("a word").to_owned();
    [word("side"), word("phase"), word("how")].join(" ")
}

#[tokio::test]
async fn the_announced_client_is_logged_listed_and_relayed() {
    let node = Node::echo("n1").await;
    let config = accepting("tcp", TRUSTED) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    let own = stream.local_addr().expect("an address");
    // Any chunking, and what is behind the header belongs to the node.
    for byte in V1 {
        stream.write_all(&[*byte]).await.expect("write");
        stream.flush().await.expect("flush");
    }
    stream.write_all(b"hello").await.expect("write");
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    assert_eq!(read_exactly(&mut stream, 5).await, b"hello");
    let line = opened(&balancer).await;
    assert_eq!(line["client"], "203.0.113.7:40007");
    assert_eq!(line["via"], own.to_string());
    let path = "/api/v1/connections?client=203.0.113.0/24";
    let listed = balancer.get(path).await.json();
    assert_eq!(listed["connections"][0]["client"], "203.0.113.7:40007");
    assert_eq!(listed["connections"][0]["via"], own.to_string());
}

#[tokio::test]
async fn both_versions_and_both_families_are_taken() {
    let node = Node::echo("n1").await;
    let config = accepting("tcp", TRUSTED) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let padding = Details {
        unique_id: Some(vec![b'x'; 128]),
        authority: Some("a".repeat(255)),
        ..Details::default()
    };
    let headers = [
        (V1.to_vec(), "203.0.113.7:40007"),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 40007 443\r\n".to_vec(),
            "[2001:db8::7]:40007",
        ),
        (v2("203.0.113.8:1", &Details::default()), "203.0.113.8:1"),
        (v2("[2001:db8::8]:1", &padding), "[2001:db8::8]:1"),
    ];
    for (header, client) in headers {
        let mut stream = announced(address, &header).await;
        read_line(&mut stream).await.expect("a greeting");
        echoed(&mut stream, b"hello").await;
        drop(stream);
        balancer
            .access(client, |line| line["client"] == client)
            .await;
    }
}

#[tokio::test]
async fn a_connection_of_the_sender_itself_is_its_own() {
    let node = Node::echo("n1").await;
    let config = accepting("tcp", TRUSTED) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    for header in [encode_local_v2(), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut stream = announced(address, &header).await;
        let own = stream.local_addr().expect("an address").to_string();
        read_line(&mut stream).await.expect("a greeting");
        let line = balancer
            .access("its line", |line| line["client"] == own)
            .await;
        assert!(line["via"].is_null(), "{line}");
    }
}

#[tokio::test]
async fn only_trusted_sources_are_let_in() {
    let node = Node::echo("n1").await;
    let config = accepting("tcp", "trusted = [\"192.0.2.0/24\", \"203.0.113.7\"]")
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    // The reset may come before the connect is known to be done.
    let (bytes, ending) = crate::clients::refused(balancer.address("main").await).await;
    assert_eq!((bytes, ending), (Vec::new(), Ending::Rst));
    assert_eq!(refused(&balancer).await, "evenkeel accept refused");
    assert_eq!(node.accepted(), 0);
}

#[tokio::test]
async fn what_is_no_header_is_reset_and_silence_has_an_end() {
    let node = Node::echo("n1").await;
    let keys = format!("{TRUSTED}\nhandshake_timeout = \"300ms\"");
    let nodes = pool("nodes", "", &[backend("n1", node.address)]);
    let mut corrupt = v2("203.0.113.8:1", &Details::default());
    corrupt[17] ^= 1;
    let mut datagram = v2("203.0.113.8:1", &Details::default());
    datagram[13] = 0x12;
    let cases: [(&[u8], &str); 7] = [
        (b"GET / HTTP/1.1\r\n\r\n", "client accept invalid"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "client accept invalid"),
        (&corrupt, "client accept invalid"),
        (&datagram, "client accept invalid"),
        // One byte of a line's end is no end, and no more is waited for.
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "client accept invalid"),
        (b"PROXY UNKNOWN\rx", "client accept invalid"),
        (b"PROXY TCP4 1.2.3.4", "evenkeel accept timeout"),
    ];
    for (bytes, end) in cases {
        let balancer = Balancer::start(&(accepting("tcp", &keys) + &nodes));
        let mut stream = announced(balancer.address("main").await, bytes).await;
        let (answer, ending) = read_to_ending(&mut stream).await;
        assert_eq!((answer, ending), (Vec::new(), Ending::Rst), "{bytes:?}");
        assert_eq!(refused(&balancer).await, end, "{bytes:?}");
    }
    let balancer = Balancer::start(&(accepting("tcp", &keys) + &nodes));
    let mut stream = connect(balancer.address("main").await).await;
    let (answer, ending) = read_to_ending(&mut stream).await;
    assert_eq!((answer, ending), (Vec::new(), Ending::Fin));
    assert_eq!(refused(&balancer).await, "evenkeel accept timeout");
    assert_eq!(node.accepted(), 0);
}

/// The time is one for all: a header a byte at a time does not extend it.
#[tokio::test]
async fn a_header_that_drips_does_not_extend_the_time() {
    let node = Node::echo("n1").await;
    let keys = format!("{TRUSTED}\nhandshake_timeout = \"500ms\"");
    let config = accepting("tcp", &keys) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    let begun = std::time::Instant::now();
    let dripping = async {
        stream.write_all(b"PROXY UNKNOWN ").await?;
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            pace.tick().await;
            stream.write_all(b"x").await?;
        }
    };
    let ended: std::io::Result<()> = within("a reset", dripping).await;
    assert!(ended.is_err() && begun.elapsed() < PATIENCE);
    assert_eq!(refused(&balancer).await, "evenkeel accept timeout");
}

#[tokio::test]
async fn without_accept_proxy_a_header_is_what_a_client_says() {
    let node = Node::scripted(|stream, _| echo(stream)).await;
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    echoed(&mut stream, V1).await;
}

#[tokio::test]
async fn hashes_keep_an_announced_client_on_its_node() {
    let nodes = [Node::echo("n1").await, Node::echo("n2").await];
    let backends = [
        backend("n1", nodes[0].address),
        backend("n2", nodes[1].address),
    ];
    let config = accepting("tcp", TRUSTED) + &pool("nodes", "balance = \"ip_hash\"", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut chosen = std::collections::BTreeMap::new();
    for round in 0..48 {
        let ip = format!("203.0.113.{}", round % 16);
        let header = v2(&format!("{ip}:{}", 1000 + round), &Details::default());
        let mut stream = announced(address, &header).await;
        let name = read_line(&mut stream).await.expect("a greeting");
        assert_eq!(chosen.entry(ip).or_insert(name.clone()), &name);
    }
    let names: std::collections::BTreeSet<_> = chosen.into_values().collect();
    assert_eq!(names.len(), 2, "all on one node");
}

/// Its own address is trusted as a sender; the clients it announces are not.
#[tokio::test]
async fn an_announced_client_is_not_trusted_for_what_its_balancer_is() {
    let node = Node::web("n1").await;
    let config =
        accepting("websocket", TRUSTED) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let details = Details {
        tls: Some(SslDetails {
            over_tls: true,
            ..SslDetails::default()
        }),
        ..Details::default()
    };
    let header = v2("203.0.113.7:40007", &details);
    let mut stream = announced(balancer.address("main").await, &header).await;
    for _ in 0..2 {
        let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
        let page = http_on(&mut stream, request).await;
        assert_eq!(page.status, 200);
    }
    for head in node.heads.lock().unwrap().iter() {
        let head = head.to_ascii_lowercase();
        assert!(head.contains("x-forwarded-for: 203.0.113.7\r\n"), "{head}");
        // It came to the balancer in front over TLS.
        assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    }
    // Of each request, not only of the first.
    let second = balancer
        .access("a request", |line| {
            line["id"] != 1 && line["client"] == "203.0.113.7:40007"
        })
        .await;
    assert_eq!(second["via"], stream.local_addr().unwrap().to_string());
}

#[tokio::test]
async fn an_announced_client_of_a_trusted_network_is_believed() {
    let node = Node::web("n1").await;
    let keys = "trusted = [\"127.0.0.0/8\", \"203.0.113.0/24\"]";
    let config = accepting("websocket", keys) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let mut stream = announced(balancer.address("main").await, V1).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    http_on(&mut stream, request).await;
    let head = node.heads.lock().unwrap().join("").to_ascii_lowercase();
    let expected = "x-forwarded-for: 192.0.2.1, 203.0.113.7\r\n";
    assert!(head.contains(expected), "{head}");
}

/// The sender of the header is trusted to announce clients. Where it announces nobody it may be a balancer that passes
/// what its own clients claim.
#[tokio::test]
async fn fields_behind_a_header_that_announces_nobody_are_replaced() {
    let node = Node::web("n1").await;
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
                  X-Forwarded-Port: 66\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6;host=evil.example\r\n";
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for fields in ["x", "rfc7239", "both"] {
        // Any digits may stand in an id.
        let keys = format!("{TRUSTED}\nrequest_id = false\nforwarded = \"{fields}\"");
        let config =
            accepting("websocket", &keys) + &pool("nodes", "", &[backend("n1", node.address)]);
        let balancer = Balancer::start(&config);
        let address = balancer.address("main").await;
        let unspec = encode_v2(None, &Details::default());
        let v1 = &b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"[..];
        for header in [b"PROXY UNKNOWN\r\n", v1, &encode_local_v2(), &unspec] {
            for (more, status) in [("", 200), (upgrade, 101)] {
                let mut stream = announced(address, header).await;
                let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{claims}{more}\r\n");
                let answer = http_on(&mut stream, &request).await;
                assert_eq!(answer.status, status, "{}", answer.head);
                let head = node.heads.lock().unwrap().pop().expect("a request");
                for word in ["6.6.6.6", "evil", "https", "66"] {
                    assert!(!head.contains(word), "{fields} {header:?} {word}:\n{head}");
                }
                let head = head.to_ascii_lowercase();
                let told = match fields {
                    "rfc7239" => "forwarded: for=127.0.0.1;host=a.example;proto=http\r\n",
                    _ => "x-forwarded-for: 127.0.0.1\r\n",
                };
                assert!(head.contains(told), "{fields} {header:?}:\n{head}");
            }
        }
    }
}

#[tokio::test]
async fn the_forwarded_field_names_an_announced_ipv6_client_in_quotes() {
    let node = Node::web("n1").await;
    let config = accepting("websocket", &format!("{TRUSTED}\nforwarded = \"rfc7239\""))
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = Balancer::start(&config);
    let header = v2("[2001:db8::8]:1", &Details::default());
    let mut stream = announced(balancer.address("main").await, &header).await;
    let claims = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: a.example:80\r\n{claims}\r\n");
    http_on(&mut stream, &request).await;
    let head = node.heads.lock().unwrap().join("").to_ascii_lowercase();
    let expected = "forwarded: for=\"[2001:db8::8]\";host=\"a.example:80\";proto=http\r\n";
    assert!(head.contains(expected), "{head}");
    assert!(
        !head.contains("x-forwarded-for") && !head.contains("6.6.6.6"),
        "{head}"
    );
}

#[tokio::test]
async fn the_header_comes_before_tls_and_before_a_websocket() {
    let node = Node::web("w1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let keys = format!(
        "{TRUSTED}\ntls = {{ certificates = [{}] }}",
        certificate.toml()
    );
    let config = accepting("websocket", &keys) + &pool("nodes", "", &[backend("w1", node.address)]);
    let balancer = launch.start(&config);
    let stream = announced(balancer.address("main").await, V1).await;
    let tls = tls_over(stream, &certificate).await;
    let (mut socket, _) = websocket_over(tls, "ws://a.example/")
        .await
        .expect("upgrade");
    assert_eq!(crate::clients::ask(&mut socket, "hello").await, "w1:hello");
    assert_eq!(opened(&balancer).await["client"], "203.0.113.7:40007");
}

async fn tls_over(
    stream: TcpStream,
    certificate: &Certificate,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connector = tokio_rustls::TlsConnector::from(client(&[certificate]));
    let name = "a.example".try_into().expect("a name");
    within("a handshake", connector.connect(name, stream))
        .await
        .expect("handshake")
}

#[tokio::test]
async fn the_header_comes_before_a_hello_that_is_passed_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = Certificate::write(folder.path(), "a", &["a.example"]);
    let seen = Node::scripted(|stream, _| echo(stream)).await;
    let keys = format!(
        "{TRUSTED}\ntls = {{ passthrough = true }}\nroute = [{{ sni = \"a.example\", pool = \"nodes\" }}]"
    );
    let config = accepting("tcp", &keys).replace("pool = \"nodes\"\naccept", "accept")
        + &pool("nodes", "", &[backend("n1", seen.address)]);
    let balancer = Balancer::start(&config);
    let mut stream = announced(balancer.address("main").await, V1).await;
    let mut hello = Vec::new();
    let config = client(&[&certificate]);
    let name = "a.example".try_into().expect("a name");
    let mut connection = rustls::ClientConnection::new(config, name).expect("a client");
    connection.write_tls(&mut hello).expect("a hello");
    echoed(&mut stream, &hello).await;
    assert_eq!(opened(&balancer).await["sni"], "a.example");
}

#[tokio::test]
async fn a_unix_socket_takes_the_header_too() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let path = launch.path("main.sock");
    let bind = format!("bind = \"unix:{}\"", path.display());
    let config = accepting("tcp", "trusted = [\"unix\"]").replace("bind = \"127.0.0.1:0\"", &bind)
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    balancer
        .event("the listener", 0, |event| {
            event.message() == "listening" && event.field("listener") == Some("main")
        })
        .await;
    let mut stream = UnixStream::connect(&path).await.expect("connect");
    stream.write_all(V1).await.expect("write");
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    let line = opened(&balancer).await;
    assert_eq!(
        (&line["client"], &line["via"]),
        (&"203.0.113.7:40007".into(), &"unix".into())
    );
}

#[tokio::test]
async fn a_reload_turns_it_on_and_off() {
    let node = Node::echo("n1").await;
    let nodes = pool("nodes", "", &[backend("n1", node.address)]);
    let off = ACCESS.to_owned() + &listener("main", "tcp", "nodes") + &nodes;
    let on = accepting("tcp", TRUSTED) + &nodes;
    let balancer = Balancer::start(&off);
    let address = balancer.address("main").await;
    let (mut before, _) = crate::clients::greeted(address).await;
    let changes = balancer.reload(&on).await.to_string();
    assert!(changes.contains("accept_proxy"), "{changes}");
    let mut stream = announced(address, V1).await;
    read_line(&mut stream).await.expect("a greeting");
    balancer
        .access("the client", |line| line["client"] == "203.0.113.7:40007")
        .await;
    balancer.reload(&off).await;
    crate::clients::greeted(address).await;
    echoed(&mut before, b"still there").await;
    echoed(&mut stream, b"still there").await;
}

/// A node that keeps the headers of its connections and echoes what is behind them.
struct Told {
    node: Node,
    headers: watch::Receiver<Vec<ProxyHeader>>,
}

impl Told {
    async fn new() -> Told {
        Told::greeting("").await
    }

    async fn greeting(greeting: &'static str) -> Told {
        let (tell, headers) = watch::channel(Vec::new());
        let tell = Arc::new(tell);
        let node = Node::scripted(move |mut stream, _| {
            let tell = tell.clone();
            async move {
                if let Some((header, behind)) = take_header(&mut stream).await {
                    tell.send_modify(|headers| headers.push(header));
                    let _ = stream.write_all(greeting.as_bytes()).await;
                    let _ = stream.write_all(&behind).await;
                    echo(stream).await;
                }
            }
        })
        .await;
        Told { node, headers }
    }

    /// The first so many headers.
    async fn headers(&self, count: usize) -> Vec<ProxyHeader> {
        let mut headers = self.headers.clone();
        let seen = headers.wait_for(|headers| headers.len() >= count);
        within("headers", seen)
            .await
            .expect("the node lives")
            .clone()
    }

    async fn header(&self) -> Proxied {
        match self.headers(1).await.remove(0) {
            ProxyHeader::Proxied(proxied) => *proxied,
            ProxyHeader::Local => panic!("nobody is announced"),
        }
    }
}

/// The header that a connection begins with, and what came with it.
async fn take_header(stream: &mut TcpStream) -> Option<(ProxyHeader, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        match read(&bytes) {
            HeaderProgress::Header(header, length) => {
                return Some((header, bytes.split_off(length)));
            }
            HeaderProgress::Invalid(reason) => panic!("{reason}: {bytes:?}"),
            HeaderProgress::NeedMore => {}
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn told_over_tcp(version: &str) -> (Proxied, SocketAddr, SocketAddr, Value) {
    let told = Told::new().await;
    let nodes = pool(
        "nodes",
        &format!("send_proxy = \"{version}\""),
        &[backend("n1", told.node.address)],
    );
    let config = ACCESS.to_owned() + &listener("main", "tcp", "nodes") + &nodes;
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let mut stream = connect(address).await;
    echoed(&mut stream, b"hello").await;
    let own = stream.local_addr().expect("an address");
    let line = opened(&balancer).await;
    (told.header().await, own, address, line)
}

#[tokio::test]
async fn a_backend_is_told_of_the_client_in_a_line() {
    let (told, own, address, _) = told_over_tcp("v1").await;
    assert_eq!(
        told.addresses,
        Addresses::Ip {
            source: own,
            destination: address
        }
    );
}

#[tokio::test]
async fn a_backend_is_told_of_the_client_and_the_connection_in_version_2() {
    let (told, own, address, line) = told_over_tcp("v2").await;
    assert_eq!(
        told.addresses,
        Addresses::Ip {
            source: own,
            destination: address
        }
    );
    let id = line["id"].as_u64().expect("an id").to_string();
    assert_eq!(told.details.unique_id, Some(id.into_bytes()));
    assert_eq!((told.details.tls, told.details.authority), (None, None));
}

/// The header goes first even where the client is silent, and a node that speaks first is heard.
#[tokio::test]
async fn a_silent_client_is_announced_at_once() {
    let told = Told::greeting("n1\n").await;
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "send_proxy = \"v2\"",
            &[backend("n1", told.node.address)],
        );
    let balancer = Balancer::start(&config);
    let (mut stream, name) = crate::clients::greeted(balancer.address("main").await).await;
    assert_eq!(name, "n1");
    echoed(&mut stream, b"hello").await;
}

#[tokio::test]
async fn what_was_announced_is_passed_on() {
    let told = Told::new().await;
    let config = accepting("tcp", TRUSTED)
        + &pool(
            "nodes",
            "send_proxy = \"v2\"",
            &[backend("n1", told.node.address)],
        );
    let balancer = Balancer::start(&config);
    let details = Details {
        authority: Some("a.example".into()),
        alpn: Some(b"mqtt".to_vec()),
        unique_id: Some(b"theirs".to_vec()),
        tls: Some(SslDetails {
            over_tls: true,
            version: Some("TLSv1.2".into()),
            ..SslDetails::default()
        }),
        ..Details::default()
    };
    let header = v2("203.0.113.7:40007", &details);
    let mut stream = announced(balancer.address("main").await, &header).await;
    echoed(&mut stream, b"hello").await;
    let header = told.header().await;
    let expected = addresses("203.0.113.7:40007", "198.51.100.1:443");
    assert_eq!(Some(header.addresses), expected);
    assert_ne!(header.details.unique_id, details.unique_id);
    let unique_id = header.details.unique_id.clone();
    assert_eq!(
        header.details,
        Details {
            unique_id,
            ..details
        }
    );
}

/// A header of version 2 with these TLVs, without a checksum.
fn v2_with(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0x9c, 0x47, 1, 187];
    let length = u16::try_from(addresses.len() + tlvs.len()).expect("a header");
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    [fixed, &length.to_be_bytes()[..], &addresses, tlvs].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a value").to_be_bytes();
    [&[kind][..], &length, value].concat()
}

/// As a network balancer of a cloud sends it, with a certificate of the client in front of it: over tcp, and over HTTP for each
/// request.
#[tokio::test]
async fn tlvs_of_the_balancer_in_front_are_passed_on_and_logged() {
    let certificate = tlv(0x28, &[7; 3000]);
    let ssl = [&[1, 0, 0, 0, 18][..], &certificate].concat();
    let vpce = tlv(0xEA, b"\x01vpce-08d2bf15fac5001c9");
    let header = v2_with(&[tlv(0x20, &ssl), tlv(0x04, &[0; 9]), vpce.clone()].concat());
    for protocol in ["tcp", "websocket"] {
        let told = Told::greeting("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let config = accepting(protocol, TRUSTED)
            + &pool(
                "nodes",
                "send_proxy = \"v2\"",
                &[backend("n1", told.node.address)],
            );
        let balancer = Balancer::start(&config);
        let mut stream = connect(balancer.address("main").await).await;
        // The last byte of the header comes by itself.
        let (first, last) = header.split_at(header.len() - 1);
        stream.write_all(first).await.expect("write");
        stream.write_all(last).await.expect("write");
        let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        stream.write_all(request).await.expect("write");
        let details = told.header().await.details;
        assert_eq!(details.others.bytes(), vpce, "{protocol}");
        let tls = details.tls.expect("TLS");
        assert_eq!((tls.verify, tls.others.bytes()), (18, &certificate[..]));
        drop(stream);
        let line = balancer
            .access("its line", |line| line["event"] == "end")
            .await;
        let expected = "aws_vpce_id=vpce-08d2bf15fac5001c9";
        assert_eq!(line["proxy_tlvs"], expected, "{line}");
    }
}

#[tokio::test]
async fn a_header_of_16_kib_is_taken_and_a_longer_one_is_reset() {
    let told = Told::greeting("n1\n").await;
    let nodes = pool(
        "nodes",
        "send_proxy = \"v2\"",
        &[backend("n1", told.node.address)],
    );
    let balancer = Balancer::start(&(accepting("tcp", TRUSTED) + &nodes));
    let address = balancer.address("main").await;
    let sized = |bytes: usize| {
        let noop = tlv(0x04, &vec![0; bytes - v2_with(&[]).len() - 3]);
        let header = v2_with(&noop);
        assert_eq!(header.len(), bytes);
        header
    };
    let mut stream = announced(address, &sized(16 * 1024)).await;
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    echoed(&mut stream, b"hello").await;
    let mut stream = announced(address, &sized(16 * 1024 + 1)).await;
    let (answer, ending) = read_to_ending(&mut stream).await;
    assert_eq!((answer, ending), (Vec::new(), Ending::Rst));
}

#[tokio::test]
async fn a_backend_is_told_of_the_clients_tls() {
    let told = Told::new().await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "a", &["a.example"]);
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "tcp", "nodes", &keys)
        + &pool(
            "nodes",
            "send_proxy = \"v2\"",
            &[backend("n1", told.node.address)],
        );
    let balancer = launch.start(&config);
    let stream = connect(balancer.address("main").await).await;
    let mut stream = tls_over(stream, &certificate).await;
    echoed(&mut stream, b"hello").await;
    let details = told.header().await.details;
    assert_eq!(details.authority.as_deref(), Some("a.example"));
    let tls = details.tls.expect("TLS");
    // Nothing was shown, so nothing was verified.
    assert!(tls.over_tls && tls.verify != 0 && !tls.certificate);
    assert_eq!(tls.version.as_deref(), Some("TLSv1.3"));
}

/// Node 1 resets what it accepts; the other is told of the same client.
#[tokio::test]
async fn another_try_has_a_header_of_its_own() {
    let resetting = Node::scripted(|mut stream, _| async move {
        take_header(&mut stream).await;
        crate::clients::reset(stream);
    })
    .await;
    let told = Told::greeting("n2\n").await;
    let backends = [
        backend("n1", resetting.address),
        backend("n2", told.node.address),
    ];
    let config =
        listener("main", "tcp", "nodes") + &pool("nodes", "send_proxy = \"v1\"", &backends);
    let balancer = Balancer::start(&config);
    let (stream, _) = crate::clients::greeted(balancer.address("main").await).await;
    let own = stream.local_addr().expect("an address");
    let Addresses::Ip { source, .. } = told.header().await.addresses else {
        panic!("addresses")
    };
    assert_eq!(source, own);
    assert_eq!(resetting.accepted(), 1);
}

/// A web node behind headers: keeps the sources, answers each request with its number.
async fn told_web(sources: Arc<Mutex<Vec<String>>>) -> Node {
    Node::scripted(move |mut stream, _| {
        let sources = sources.clone();
        async move {
            let Some((ProxyHeader::Proxied(proxied), mut behind)) = take_header(&mut stream).await
            else {
                return;
            };
            if let Addresses::Ip { source, .. } = proxied.addresses {
                sources.lock().unwrap().push(source.to_string());
            }
            let Some(request) = crate::nodes::read_request(&mut stream, &mut behind).await else {
                return;
            };
            let answer = match request.header("sec-websocket-key") {
                Some(key) => crate::nodes::switching(key),
                None => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            echo(stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn every_request_and_every_upgrade_is_announced() {
    let sources: Arc<Mutex<Vec<String>>> = Arc::default();
    let node = told_web(sources.clone()).await;
    let config = listener("main", "websocket", "nodes")
        + &pool(
            "nodes",
            "send_proxy = \"v2\"",
            &[backend("n1", node.address)],
        );
    let balancer = Balancer::start(&config);
    let mut stream = connect(balancer.address("main").await).await;
    let own = stream.local_addr().expect("an address").to_string();
    for _ in 0..2 {
        let page = http_on(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(page.body, "ok");
    }
    websocket_over(stream, "ws://a/").await.expect("upgrade");
    assert_eq!(*sources.lock().unwrap(), [own.clone(), own.clone(), own]);
}

#[tokio::test]
async fn a_check_of_such_a_pool_announces_nobody() {
    for version in ["v1", "v2"] {
        let told = Told::new().await;
        let keys = format!(
            "send_proxy = \"{version}\"\ncheck = {{ type = \"expect\", send = \"hi\", expect = \"hi\", interval = \"100ms\" }}"
        );
        let config = listener("main", "tcp", "nodes")
            + &pool("nodes", &keys, &[backend("n1", told.node.address)]);
        let balancer = Balancer::start(&config);
        balancer
            .backend_until("nodes", "n1", |seen| {
                seen["checks_ok"].as_u64().is_some_and(|ok| ok > 0)
            })
            .await;
        assert_eq!(told.headers(1).await[0], ProxyHeader::Local);
    }
}

#[tokio::test]
async fn a_check_of_another_port_sends_no_header_unless_told_to() {
    let told = Told::new().await;
    let seen = crate::nodes::Seen::default();
    let plain = seen.node().await;
    let check = |keys: &str| {
        format!(
            "send_proxy = \"v2\"\ncheck = {{ type = \"tcp\", interval = \"100ms\", port = {}{keys} }}",
            plain.address.port()
        )
    };
    let config = |keys: &str| {
        listener("main", "tcp", "nodes")
            + &pool("nodes", &check(keys), &[backend("n1", told.node.address)])
    };
    let balancer = Balancer::start(&config(""));
    plain.reached(2).await;
    assert_eq!(seen.bytes(), 0);
    balancer.reload(&config(", send_proxy = true")).await;
    let sent = async {
        while seen.bytes() == 0 {
            crate::harness::a_moment().await;
        }
    };
    within("a header", sent).await;
}

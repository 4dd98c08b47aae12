//! TLS towards backends: who is trusted, what a handshake that fails costs, and that bytes and ends are carried as on any
//! other leg.

use std::net::Ipv4Addr;
use std::path::Path;

use futures_util::StreamExt as _;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::{Certificate, client};
use crate::clients::{
    Ending, ask, connect, echoed, greeted, http_on, node_of, read_exactly, read_line,
    read_to_ending, refused, reset, tls, websocket_over,
};
use crate::dns::{NameServer, Reply, SRV, service};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::{Node, switching};
use crate::settings::{backend, backend_with, listener, listener_with, pool};
use crate::tls_nodes::{OpenSsl, Secured, front, handed, scripted, server, server_of, telling};

const NAME: &str = "chat.test";

/// A balancer's folder with a certificate for [`NAME`].
fn launch() -> (Launch, Certificate) {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "node", &[NAME]);
    (launch, certificate)
}

/// `tls` of a pool that trusts `certificate`, with further keys.
fn trusting(certificate: &Certificate, keys: &str) -> String {
    let ca = certificate.cert.display();
    format!("tls = {{ sni = \"{NAME}\", ca = \"{ca}\"{keys} }}")
}

/// One plain tcp listener before `addresses`.
fn tcp(keys: &str, addresses: &[std::net::SocketAddr]) -> String {
    let named = |(i, address)| backend(&format!("n{}", i + 1), address);
    let backends: Vec<_> = addresses.iter().enumerate().map(named).collect();
    listener("main", "tcp", "nodes") + &pool("nodes", keys, &backends)
}

/// Connects to the only node, which cannot serve; what the status says of it.
async fn refused_because(balancer: &Balancer) -> String {
    let mut client = connect(balancer.address("main").await).await;
    client.write_all(b"secret").await.expect("write");
    assert_eq!(read_to_ending(&mut client).await, (vec![], Ending::Rst));
    let failed = |seen: &Value| seen["last_error"].is_string();
    let seen = balancer.backend_until("nodes", "n1", failed).await;
    assert!(seen["connect_failures"].as_u64() > Some(0), "{seen}");
    seen["last_error"].as_str().expect("an error").to_owned()
}

/// What a balancer with `keys` says of a node that shows `certificate`.
async fn refusal(launch: Launch, certificate: &Certificate, keys: &str) -> String {
    let node = front(server(certificate), Node::echo("n1").await).await;
    refused_because(&launch.start(&tcp(keys, &[node.address]))).await
}

#[tokio::test]
async fn every_pair_of_legs_carries_bytes_and_ends() {
    for version in [&TLS12, &TLS13] {
        let (launch, certificate) = launch();
        let node = front(server_of(&certificate, &[version]), Node::echo("n1").await).await;
        let terminating = format!("tls = {{ certificates = [{}] }}", certificate.toml());
        let config = String::from("[access_log]\noutput = \"stdout\"\n\n")
            + &listener("plain", "tcp", "nodes")
            + &listener_with("tls", "tcp", "nodes", &terminating)
            + &pool(
                "nodes",
                &trusting(&certificate, ""),
                &[backend("n1", node.address)],
            );
        let balancer = launch.start(&config);
        let (mut plain, name) = greeted(balancer.address("plain").await).await;
        assert_eq!(name, "n1");
        echoed(&mut plain, b"over one TLS leg").await;
        plain.shutdown().await.expect("half-close");
        assert_eq!(read_to_ending(&mut plain).await, (vec![], Ending::Fin));

        let address = balancer.address("tls").await;
        let mut both = tls(address, NAME, &client(&[&certificate])).await.unwrap();
        assert_eq!(read_line(&mut both).await.expect("a greeting"), "n1");
        echoed(&mut both, b"over two").await;
        both.shutdown().await.expect("half-close");
        assert_eq!(read_to_ending(&mut both).await, (vec![], Ending::Fin));
        let spoken = if version == &TLS12 { "1.2" } else { "1.3" };
        for name in ["plain", "tls"] {
            let line = balancer.access("a line", |line| line["listener"] == name);
            assert_eq!(line.await["backend_tls"], spoken);
        }
    }
}

/// 50 MB each way at once, every byte compared, both legs TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_is_byte_exact_over_two_tls_legs() {
    const LENGTH: usize = 50_000_000;
    let (launch, certificate) = launch();
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let terminating = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "tcp", "nodes", &terminating)
        + &pool(
            "nodes",
            &trusting(&certificate, ""),
            &[backend("n1", node.address)],
        );
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let mut stream = tls(address, NAME, &client(&[&certificate])).await.unwrap();
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
    let byte = |at: usize| (at.wrapping_mul(31) ^ (at >> 8)) as u8;
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while sent < LENGTH {
            let chunk: Vec<u8> = (sent..LENGTH.min(sent + 100_000)).map(byte).collect();
            to.write_all(&chunk).await.expect("write");
            sent += chunk.len();
        }
        to.shutdown().await.expect("half-close");
        to
    });
    let (mut seen, mut buffer) = (0, vec![0; 100_000]);
    while let count @ 1.. = within("bulk", from.read(&mut buffer)).await.expect("read") {
        let wanted = (seen..seen + count).map(byte);
        assert!(wanted.eq(buffer[..count].iter().copied()), "after {seen}");
        seen += count;
    }
    assert_eq!(seen, LENGTH);
    sending.await.expect("sent");
}

#[tokio::test]
async fn requests_and_websockets_reach_a_node_over_tls() {
    let (launch, certificate) = launch();
    let node = front(server(&certificate), Node::web("n1").await).await;
    let terminating = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener("plain", "websocket", "nodes")
        + &listener_with("tls", "websocket", "nodes", &terminating)
        + &pool(
            "nodes",
            &trusting(&certificate, ", alpn = [\"http/1.1\"]"),
            &[backend("n1", node.address)],
        );
    let balancer = launch.start(&config);
    let get = "GET /poll HTTP/1.1\r\nHost: a\r\n\r\n";
    let (plain, secured) = (
        balancer.address("plain").await,
        balancer.address("tls").await,
    );
    let trust = client(&[&certificate]);

    let mut stream = connect(plain).await;
    for _ in 0..3 {
        assert_eq!(http_on(&mut stream, get).await.json()["target"], "/poll");
    }
    let (mut socket, _) = websocket_over(connect(plain).await, "ws://a/socket")
        .await
        .unwrap();
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");

    let mut stream = tls(secured, NAME, &trust).await.unwrap();
    for _ in 0..3 {
        assert_eq!(http_on(&mut stream, get).await.json()["node"], "n1");
    }
    let stream = tls(secured, NAME, &trust).await.unwrap();
    let (mut socket, _) = websocket_over(stream, "wss://a/socket").await.unwrap();
    assert_eq!(ask(&mut socket, "hello").await, "n1:hello");
}

/// TLS on both legs, of which one changes.
#[tokio::test]
async fn a_session_outlives_its_node_over_tls() {
    let (launch, certificate) = launch();
    let acceptor = server(&certificate);
    let n1 = front(acceptor.clone(), Node::web("n1").await).await;
    let n2 = front(acceptor, Node::web("n2").await).await;
    let terminating = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener_with("main", "websocket", "nodes", &terminating)
        + &pool(
            "nodes",
            &(trusting(&certificate, "") + "\nresume = {}"),
            &[backend("n1", n1.address), backend("n2", n2.address)],
        );
    let balancer = launch.start(&config);
    let trust = client(&[&certificate]);
    let stream = tls(balancer.address("main").await, NAME, &trust).await;
    let (mut socket, _) = websocket_over(stream.unwrap(), "wss://a/chat")
        .await
        .unwrap();
    let first = node_of(&mut socket).await;
    let drain = format!("/api/v1/pools/nodes/backends/{first}/drain");
    let answer = balancer.post(&drain, r#"{"rate": "100/s"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let empty = |node: &serde_json::Value| node["live"] == 0;
    balancer.backend_until("nodes", &first, empty).await;
    let second = node_of(&mut socket).await;
    assert_ne!(second, first);
    let ready = format!("/api/v1/pools/nodes/backends/{first}/ready");
    assert_eq!(balancer.post(&ready, "{}").await.status, 200);
    match second.as_str() {
        "n1" => n1.kill().await,
        _ => n2.kill().await,
    }
    balancer.backend_until("nodes", &second, empty).await;
    // More than is held in between.
    assert_eq!(node_of(&mut socket).await, first);
    let large = "x".repeat(100_000);
    assert_eq!(ask(&mut socket, &large).await, format!("{first}:{large}"));
}

/// A client that has finished is still answered, and a node that has finished is still spoken to.
#[tokio::test]
async fn either_side_may_finish_first() {
    let (launch, certificate) = launch();
    let (node, mut nodes) = handed(server(&certificate)).await;
    let balancer = launch.start(&tcp(&trusting(&certificate, ""), &[node.address]));
    let address = balancer.address("main").await;

    let mut client = connect(address).await;
    client.write_all(b"question").await.expect("write");
    client.shutdown().await.expect("half-close");
    let mut node = next(&mut nodes).await;
    assert_eq!(
        read_to_ending(&mut node).await,
        (b"question".to_vec(), Ending::Fin)
    );
    node.write_all(b"answer").await.expect("write");
    node.shutdown().await.expect("close_notify");
    assert_eq!(
        read_to_ending(&mut client).await,
        (b"answer".to_vec(), Ending::Fin)
    );

    let mut client = connect(address).await;
    let mut node = next(&mut nodes).await;
    node.write_all(b"goodbye").await.expect("write");
    node.shutdown().await.expect("close_notify");
    assert_eq!(
        read_to_ending(&mut client).await,
        (b"goodbye".to_vec(), Ending::Fin)
    );
    client.write_all(b"late").await.expect("write");
    client.shutdown().await.expect("half-close");
    assert_eq!(
        read_to_ending(&mut node).await,
        (b"late".to_vec(), Ending::Fin)
    );
}

async fn next(nodes: &mut tokio::sync::mpsc::UnboundedReceiver<Secured>) -> Secured {
    within("a node's side", nodes.recv()).await.expect("a node")
}

#[tokio::test]
async fn a_client_that_resets_does_not_look_finished_to_the_node() {
    let (launch, certificate) = launch();
    let (node, mut nodes) = handed(server(&certificate)).await;
    let balancer = launch.start(&tcp(&trusting(&certificate, ""), &[node.address]));
    let mut client = connect(balancer.address("main").await).await;
    client.write_all(b"half a quest").await.expect("write");
    let mut node = next(&mut nodes).await;
    assert_eq!(read_exactly(&mut node, 12).await, b"half a quest");
    reset(client);
    assert_eq!(read_to_ending(&mut node).await, (vec![], Ending::Rst));
}

/// What a node says in one breath with its 101 has been read, and opened, before the relay takes over.
#[tokio::test]
async fn frames_right_behind_a_101_are_not_lost() {
    const FRAMES: usize = 40;
    let (launch, certificate) = launch();
    let node = scripted(server(&certificate), |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("a head");
        let named = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            let is_key = name.eq_ignore_ascii_case("sec-websocket-key");
            is_key.then(|| value.to_owned())
        };
        let key = head.split("\r\n").find_map(named).expect("a key");
        let mut said = switching(&key).into_bytes();
        for number in 0..FRAMES {
            said.extend([0x82, 126, 0x03, 0xe8]);
            said.extend([number as u8; 1_000]);
        }
        stream.write_all(&said).await.expect("write");
        stream.flush().await.expect("flush");
        let _ = stream.read_u8().await;
    })
    .await;
    let keys = trusting(&certificate, "");
    let config = listener("main", "websocket", "nodes")
        + &pool("nodes", &keys, &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let client = connect(balancer.address("main").await).await;
    let (mut socket, _) = websocket_over(client, "ws://a/").await.unwrap();
    for number in 0..FRAMES {
        let message = within("a frame", socket.next()).await.unwrap().unwrap();
        assert!(message.into_data() == vec![number as u8; 1_000], "{number}");
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_reset() {
    let (launch, certificate) = launch();
    let (node, mut nodes) = handed(server(&certificate)).await;
    let balancer = launch.start(&tcp(&trusting(&certificate, ""), &[node.address]));
    let mut client = connect(balancer.address("main").await).await;
    let mut node = next(&mut nodes).await;
    node.write_all(b"half an ans").await.expect("write");
    node.flush().await.expect("flush");
    assert_eq!(read_exactly(&mut client, 11).await, b"half an ans");
    node.get_mut().0.shutdown().await.expect("a bare FIN");
    assert_eq!(read_to_ending(&mut client).await, (vec![], Ending::Rst));
}

/// An answer without a length ends with the connection: only close_notify says that it is whole.
#[tokio::test]
async fn a_truncated_answer_of_a_node_does_not_look_complete() {
    for is_whole in [true, false] {
        let (launch, certificate) = launch();
        let node = scripted(server(&certificate), move |mut stream| async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf";
            let _ = stream.write_all(answer).await;
            let _ = stream.flush().await;
            let _ = match is_whole {
                true => stream.shutdown().await,
                false => stream.get_mut().0.shutdown().await,
            };
        })
        .await;
        let config = listener("main", "websocket", "nodes")
            + &pool(
                "nodes",
                &trusting(&certificate, ""),
                &[backend("n1", node.address)],
            );
        let balancer = launch.start(&config);
        let mut client = connect(balancer.address("main").await).await;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.write_all(request).await.expect("write");
        let (bytes, ending) = read_to_ending(&mut client).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("half"), "{text}");
        let ended = ending == Ending::Fin && text.ends_with("0\r\n\r\n");
        assert_eq!(ended, is_whole, "{text}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (launch, certificate) = launch();
    let keys = trusting(&certificate, "").replace(NAME, "other.test");
    let why = refusal(launch, &certificate, &keys).await;
    let wanted = "connect to n1: TLS: certificate not valid for name \"other.test\"";
    assert!(why.starts_with(wanted), "{why}");
}

#[tokio::test]
async fn without_sni_the_address_is_verified() {
    let (launch, certificate) = launch();
    let keys = trusting(&certificate, "").replace(&format!("sni = \"{NAME}\", "), "");
    let why = refusal(launch, &certificate, &keys).await;
    assert!(why.contains("not valid for name \"127.0.0.1\""), "{why}");

    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "ip", &["127.0.0.1"]);
    let keys = trusting(&certificate, "").replace(&format!("sni = \"{NAME}\", "), "");
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let balancer = launch.start(&tcp(&keys, &[node.address]));
    assert_eq!(greeted(balancer.address("main").await).await.1, "n1");
}

#[tokio::test]
async fn a_backends_host_name_is_verified() {
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "node", &["localhost"]);
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let keys = format!("tls = {{ ca = \"{}\" }}", certificate.cert.display());
    let named = format!("localhost:{}", node.address.port());
    let config = listener("main", "tcp", "nodes") + &pool("nodes", &keys, &[backend("n1", named)]);
    let balancer = launch.start(&config);
    assert_eq!(greeted(balancer.address("main").await).await.1, "n1");
}

/// Found by name, reached by address: the certificate holds the name.
#[tokio::test]
async fn the_name_that_discovery_followed_is_verified() {
    let launch = Launch::new();
    let names = ["all.test", "one.srv.test"];
    let certificate = Certificate::write(launch.folder.path(), "node", &names);
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let port = node.address.port();
    let dns = NameServer::start().await;
    for name in ["all.test", "one.srv.test", "other.test"] {
        dns.addresses(name, &[Ipv4Addr::LOCALHOST]);
    }
    let service = service(0, 1, port, "one.srv.test");
    dns.set("_x._tcp.srv.test", SRV, Reply::Records(vec![service]));
    let found = |name: &str, source: String| {
        let (ca, dns) = (certificate.cert.display(), dns.address);
        listener(name, "tcp", name)
            + &format!("[pool.{name}]\ntls = {{ ca = \"{ca}\" }}\n")
            + &format!("discover = {{ {source}, nameservers = [\"{dns}\"] }}\n\n")
    };
    let config = found("a", format!("dns = \"all.test:{port}\""))
        + &found("srv", "srv = \"_x._tcp.srv.test\"".to_owned())
        + &found("other", format!("dns = \"other.test:{port}\""));
    let balancer = launch.start(&config);
    for name in ["a", "srv"] {
        assert_eq!(greeted(balancer.address(name).await).await.1, "n1");
    }
    let (seen, ending) = refused(balancer.address("other").await).await;
    assert_eq!((seen, ending), (vec![], Ending::Rst));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_though_it_is_trusted() {
    let launch = Launch::new();
    let expired = Certificate::write_with(launch.folder.path(), "old", &[NAME], |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let why = refusal(launch, &expired, &trusting(&expired, "")).await;
    assert!(why.contains("TLS: certificate expired"), "{why}");
}

#[tokio::test]
async fn a_certificate_that_nobody_known_signed_is_refused() {
    let (launch, certificate) = launch();
    let other = Certificate::write_with(launch.folder.path(), "other", &[NAME], |params| {
        let name = rcgen::DnType::CommonName;
        params.distinguished_name.push(name, "another authority");
    });
    let why = refusal(launch, &certificate, &trusting(&other, "")).await;
    assert!(
        why.contains("TLS: certificate of an unknown issuer"),
        "{why}"
    );
}

/// What `openssl req -x509` makes: an authority's certificate, which no chain may end with.
#[tokio::test]
async fn a_nodes_own_certificate_is_trusted_though_it_is_an_authoritys() {
    let launch = Launch::new();
    let own = Certificate::write_with(launch.folder.path(), "own", &[NAME], |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let node = front(server(&own), Node::echo("n1").await).await;
    let balancer = launch.start(&tcp(&trusting(&own, ""), &[node.address]));
    assert_eq!(greeted(balancer.address("main").await).await.1, "n1");
}

#[tokio::test]
async fn without_verification_anybody_is_believed_and_the_log_says_so() {
    let (launch, certificate) = launch();
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let balancer = launch.start(&tcp("tls = { verify = false }", &[node.address]));
    assert_eq!(greeted(balancer.address("main").await).await.1, "n1");
    let warned = balancer.event("a warning", 0, |event| {
        event.message().contains("tls.verify = false") && event.field("pool") == Some("nodes")
    });
    warned.await;
}

#[tokio::test]
async fn no_plaintext_byte_is_accepted_from_a_node() {
    // Instead of a handshake.
    let (launch, certificate) = launch();
    let node = Node::echo("a plain text greeting").await;
    let balancer = launch.start(&tcp(&trusting(&certificate, ""), &[node.address]));
    let why = refused_because(&balancer).await;
    assert_eq!(why, "connect to n1: TLS: the answer is not TLS");

    // Behind it.
    let (launch, certificate) = self::launch();
    let (node, mut nodes) = handed(server(&certificate)).await;
    let balancer = launch.start(&tcp(&trusting(&certificate, ""), &[node.address]));
    let mut client = connect(balancer.address("main").await).await;
    let mut node = next(&mut nodes).await;
    node.write_all(b"sealed").await.expect("write");
    node.flush().await.expect("flush");
    assert_eq!(read_exactly(&mut client, 6).await, b"sealed");
    let bare = &mut node.get_mut().0;
    bare.write_all(b"plain text in the middle")
        .await
        .expect("write");
    assert_eq!(read_to_ending(&mut client).await, (vec![], Ending::Rst));
}

#[tokio::test]
async fn a_node_that_fails_its_handshake_is_charged_and_another_serves() {
    let (launch, certificate) = launch();
    let wrong = Certificate::write(launch.folder.path(), "wrong", &["wrong.test"]);
    let bad = front(server(&wrong), Node::echo("bad").await).await;
    let good = front(server(&certificate), Node::echo("good").await).await;
    let keys = trusting(&certificate, "") + "\noutlier = { base_ejection_time = \"1h\" }";
    let balancer = launch.start(&tcp(&keys, &[bad.address, good.address]));
    let address = balancer.address("main").await;
    for _ in 0..8 {
        assert_eq!(greeted(address).await.1, "good");
    }
    // Three failures eject it.
    let seen = balancer.backend("nodes", "n1").await;
    assert_eq!(seen["connect_failures"], 3, "{seen}");
    assert_eq!(seen["state"], "ejected", "{seen}");
}

#[tokio::test]
async fn a_node_that_stalls_in_its_handshake_is_left_after_connect_timeout() {
    let (launch, certificate) = launch();
    let stalling = Node::scripted(|stream: TcpStream, _| async move {
        // Reads nothing and says nothing, until the balancer hangs up.
        let mut buffer = vec![0; 65_536];
        while let Ok(1..) = {
            stream
                .readable()
                .await
                .and_then(|()| stream.try_read(&mut buffer))
        } {}
        std::future::pending::<()>().await;
    })
    .await;
    let good = front(server(&certificate), Node::echo("good").await).await;
    let keys = trusting(&certificate, "") + "\nconnect_timeout = \"200ms\"";
    let balancer = launch.start(&tcp(&keys, &[stalling.address, good.address]));
    assert_eq!(greeted(balancer.address("main").await).await.1, "good");
    let seen = balancer.backend("nodes", "n1").await;
    let why = "connect to n1: TLS: no answer within 200ms";
    assert_eq!(seen["last_error"], why, "{seen}");
}

/// Both tries go to nodes that accept and hang up behind the handshake: nothing was sent to them.
#[tokio::test]
async fn a_node_that_leaves_behind_its_handshake_gives_its_place_to_another() {
    let (launch, certificate) = launch();
    let leaving = scripted(server(&certificate), |mut stream| async move {
        let _ = stream.shutdown().await;
    })
    .await;
    let good = front(server(&certificate), Node::echo("good").await).await;
    let keys = trusting(&certificate, "");
    let balancer = launch.start(&tcp(&keys, &[leaving.address, good.address]));
    let address = balancer.address("main").await;
    for _ in 0..4 {
        assert_eq!(greeted(address).await.1, "good");
    }
}

#[tokio::test]
async fn a_session_is_resumed_and_alpn_is_offered() {
    let (launch, certificate) = launch();
    let node = telling(server(&certificate)).await;
    let keys = trusting(&certificate, ", alpn = [\"mqtt\"]");
    let balancer = launch.start(&tcp(&keys, &[node.address]));
    let address = balancer.address("main").await;
    let said = || async { String::from_utf8(read_to_ending(&mut connect(address).await).await.0) };
    assert_eq!(said().await.unwrap(), "resumed=false alpn=mqtt\n");
    assert_eq!(said().await.unwrap(), "resumed=true alpn=mqtt\n");
}

#[tokio::test]
async fn a_check_speaks_tls_as_its_pool_unless_told_otherwise() {
    let (launch, certificate) = launch();
    let wrong = Certificate::write(launch.folder.path(), "wrong", &["wrong.test"]);
    let good = front(server(&certificate), Node::web("good").await).await;
    let bad = front(server(&wrong), Node::web("bad").await).await;
    let plain = Node::web("plain").await;
    let check = |keys: &str| {
        format!("\ncheck = {{ type = \"http\", interval = \"100ms\", fall = 1, rise = 1{keys} }}")
    };
    // Each begins in the other state, so that a verdict shows.
    let down = "init_state = \"down\"";
    let config = listener("main", "websocket", "same")
        + &pool(
            "same",
            &(trusting(&certificate, "") + &check("")),
            &[
                backend_with("good", good.address, down),
                backend("bad", bad.address),
                backend("plain", plain.address),
            ],
        )
        + &pool(
            "other",
            &(trusting(&certificate, "") + &check(", tls = false")),
            &[
                backend("good", good.address),
                backend_with("plain", plain.address, down),
            ],
        );
    let balancer = launch.start(&config);
    let up = |seen: &Value| seen["state"] == "up";
    let down = |seen: &Value| seen["state"] == "down";
    balancer.backend_until("same", "good", up).await;
    let bad = balancer.backend_until("same", "bad", down).await;
    let why = bad["reason"].as_str().expect("a reason");
    assert!(why.starts_with("tls: "), "{why}");
    balancer.backend_until("same", "plain", down).await;
    balancer.backend_until("other", "plain", up).await;
    balancer.backend_until("other", "good", down).await;
}

#[tokio::test]
async fn renewed_files_are_taken_at_a_reload_and_broken_ones_are_not() {
    let (launch, certificate) = launch();
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let roots = launch.path("roots.pem");
    let other = Certificate::write(launch.folder.path(), "other", &[NAME]);
    let copy = |from: &Path| std::fs::copy(from, &roots).expect("copy");
    copy(&other.cert);
    let keys = format!("tls = {{ sni = \"{NAME}\", ca = \"roots.pem\" }}");
    let config = tcp(&keys, &[node.address]);
    let balancer = launch.start(&config);
    refused_because(&balancer).await;

    copy(&certificate.cert);
    let changes = balancer.reload(&config).await;
    let told = changes["summary"].to_string();
    assert!(told.contains("pool nodes: files of tls renewed"), "{told}");
    let address = balancer.address("main").await;
    let (mut live, name) = greeted(address).await;
    assert_eq!(name, "n1");

    std::fs::write(&roots, "no certificate").expect("write");
    let answer = balancer.try_reload(&config).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert!(answer.body.contains("pool nodes: tls: "), "{}", answer.body);
    assert_eq!(greeted(address).await.1, "n1");
    copy(&certificate.cert);
    let changes = balancer.reload(&config).await;
    assert_eq!(changes["summary"].as_array().map(Vec::len), Some(0));
    echoed(&mut live, b"still there").await;
}

/// Checks went on with what the files had held when the check was planned.
#[tokio::test]
async fn renewed_files_are_taken_by_checks_too() {
    let (launch, certificate) = launch();
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let roots = launch.path("roots.pem");
    let other = Certificate::write(launch.folder.path(), "other", &[NAME]);
    std::fs::copy(&other.cert, &roots).expect("copy");
    let keys = format!(
        "tls = {{ sni = \"{NAME}\", ca = \"roots.pem\" }}\n\
         check = {{ type = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }}"
    );
    let config = tcp(&keys, &[node.address]);
    let balancer = launch.start(&config);
    let is = |state: &'static str| move |seen: &Value| seen["state"] == state;
    balancer.backend_until("nodes", "n1", is("down")).await;
    std::fs::copy(&certificate.cert, &roots).expect("copy");
    balancer.reload(&config).await;
    balancer.backend_until("nodes", "n1", is("up")).await;
}

/// A reload may begin and end TLS; what is live stays what it is.
#[tokio::test]
async fn tls_may_come_and_go_by_reload() {
    let (launch, certificate) = launch();
    let echo = Node::echo("n1").await;
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let keys = trusting(&certificate, "");
    let balancer = launch.start(&tcp("", &[echo.address]));
    let address = balancer.address("main").await;
    let (mut plain, _) = greeted(address).await;
    balancer.reload(&tcp(&keys, &[node.address])).await;
    let (mut secured, name) = greeted(address).await;
    assert_eq!(name, "n1");
    assert_eq!(node.accepted(), 1);
    balancer.reload(&tcp("", &[echo.address])).await;
    assert_eq!(greeted(address).await.1, "n1");
    assert_eq!(node.accepted(), 1);
    echoed(&mut plain, b"plain").await;
    echoed(&mut secured, b"secured").await;
}

/// Tickets come by themselves; `K` asks for a change of both keys, in the middle of the session.
#[tokio::test]
async fn openssl_sends_tickets_and_changes_its_keys() {
    let (launch, certificate) = launch();
    let Some(mut node) = OpenSsl::start(&certificate, &["-tls1_3"]).await else {
        return;
    };
    let balancer = launch.start(&tcp(&trusting(&certificate, ""), &[node.address]));
    let mut client = connect(balancer.address("main").await).await;
    for round in 0..3 {
        let (up, down) = (format!("up {round}\n"), format!("down {round}\n"));
        client.write_all(up.as_bytes()).await.expect("write");
        node.says(up.trim()).await;
        node.tell(&down);
        assert_eq!(read_line(&mut client).await.expect("a line"), down.trim());
        node.tell("K\n");
    }
    client.write_all(b"last\n").await.expect("write");
    node.says("last").await;
}

#[tokio::test]
async fn openssl_of_tls_1_2_only_is_spoken_to_unless_that_is_too_old() {
    let (launch, certificate) = launch();
    let Some(mut node) = OpenSsl::start(&certificate, &["-tls1_2"]).await else {
        return;
    };
    let keys = trusting(&certificate, "");
    let balancer = launch.start(&tcp(&keys, &[node.address]));
    let mut client = connect(balancer.address("main").await).await;
    client.write_all(b"hello\n").await.expect("write");
    node.says("hello").await;
    node.tell("good day\n");
    assert_eq!(read_line(&mut client).await.expect("a line"), "good day");
    drop(client);

    let keys = trusting(&certificate, ", min_version = \"1.3\"");
    balancer.reload(&tcp(&keys, &[node.address])).await;
    let why = refused_because(&balancer).await;
    assert!(why.contains("connect to n1: TLS: "), "{why}");
}

#[tokio::test]
async fn openssl_that_wants_a_certificate_gets_the_configured_one() {
    let (launch, certificate) = launch();
    let own = Certificate::write(launch.folder.path(), "own", &["balancer.test"]);
    let trusted = own.cert.display().to_string();
    let wants = ["-Verify", "1", "-verify_return_error", "-CAfile", &trusted];
    let Some(mut node) = OpenSsl::start(&certificate, &wants).await else {
        return;
    };
    let (cert, key) = (own.cert.display(), own.key.display());
    let keys = trusting(
        &certificate,
        &format!(", cert = \"{cert}\", key = \"{key}\""),
    );
    let balancer = launch.start(&tcp(&keys, &[node.address]));
    let mut client = connect(balancer.address("main").await).await;
    client.write_all(b"it is me\n").await.expect("write");
    node.says("it is me").await;
    drop(client);

    let keys = trusting(&certificate, "");
    balancer.reload(&tcp(&keys, &[node.address])).await;
    let mut client = connect(balancer.address("main").await).await;
    client.write_all(b"anonymous\n").await.expect("write");
    // TLS 1.3 refuses a client behind the client's end of the handshake.
    assert_eq!(read_to_ending(&mut client).await, (vec![], Ending::Rst));
}

/// Runs a script of another language with the node's files and its port 0; its first line is the port. `None`: there is no
/// such program on this machine.
fn script(program: &str, text: &str, certificate: &Certificate) -> Option<Script> {
    let spawned = std::process::Command::new(program)
        .args([if program == "node" { "-e" } else { "-c" }, text])
        .env("CERT", &certificate.cert)
        .env("KEY", &certificate.key)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        eprintln!("skipped: no {program} on this machine");
        return None;
    };
    let mut port = String::new();
    let output = child.stdout.take().expect("its output");
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut port);
    read.expect("its port");
    let port: u16 = port.trim().parse().expect("a port");
    let address = ([127, 0, 0, 1], port).into();
    Some(Script { child, address })
}

struct Script {
    child: std::process::Child,
    address: std::net::SocketAddr,
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn node_js_serves_requests_over_https() {
    let (launch, certificate) = launch();
    let text = "const fs = require('fs'), https = require('https');\
        const files = { cert: fs.readFileSync(process.env.CERT), key: fs.readFileSync(process.env.KEY) };\
        const server = https.createServer(files, (request, response) => {\
            let length = 0;\
            request.on('data', chunk => length += chunk.length);\
            request.on('end', () => response.end(`${request.url} ${length} ${request.socket.getProtocol()}`));\
        });\
        server.listen(0, '127.0.0.1', () => console.log(server.address().port));";
    let Some(node) = script("node", text, &certificate) else {
        return;
    };
    let keys = trusting(&certificate, "");
    let config = listener("main", "websocket", "nodes")
        + &pool("nodes", &keys, &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let mut client = connect(balancer.address("main").await).await;
    for length in [0, 1, 100_000] {
        let head = format!("POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let answer = http_on(&mut client, &(head + &"x".repeat(length))).await;
        assert_eq!(answer.body, format!("/poll {length} TLSv1.3"));
    }
}

#[tokio::test]
async fn python_echoes_over_its_own_tls() {
    let (launch, certificate) = launch();
    let text = "import os, socket, ssl\n\
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        context.load_cert_chain(os.environ['CERT'], os.environ['KEY'])\n\
        server = socket.create_server(('127.0.0.1', 0))\n\
        print(server.getsockname()[1], flush=True)\n\
        stream = context.wrap_socket(server.accept()[0], server_side=True)\n\
        while data := stream.recv(65536): stream.sendall(data)\n\
        stream.unwrap()\n";
    let Some(node) = script("python3", text, &certificate) else {
        return;
    };
    let balancer = launch.start(&tcp(&trusting(&certificate, ""), &[node.address]));
    let mut client = connect(balancer.address("main").await).await;
    for length in [1, 16_384, 16_385, 100_000] {
        echoed(&mut client, &vec![7; length]).await;
    }
    client.shutdown().await.expect("half-close");
    assert_eq!(read_to_ending(&mut client).await, (vec![], Ending::Fin));
}

//! Where listeners and backends may be: IPv4, IPv6, `[::]` for both, unix sockets; and TLS passed through by its SNI.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::certificates::{Certificate, client};
use crate::clients::{Ending, connect, echoed, greeted, http, read_line, read_to_ending, tls};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool, simple};

#[tokio::test]
async fn ipv6_serves_and_reaches_ipv6() {
    let node = Node::echo_at("[::1]:0".parse().expect("an address"), "n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]).replace("127.0.0.1:0", "[::1]:0"));
    let address = balancer.address("main").await;
    assert!(address.is_ipv6());
    let (mut stream, name) = greeted(address).await;
    assert_eq!(name, "n1");
    echoed(&mut stream, b"six").await;
}

#[tokio::test]
async fn the_ipv6_wildcard_serves_both() {
    let node = Node::web("n1").await;
    let config = simple("websocket", "", &[&node]).replacen("127.0.0.1:0", "[::]:0", 1);
    let balancer = Balancer::start(&config);
    let port = balancer.address("main").await.port();
    for (address, client) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let address: SocketAddr = format!("{address}:{port}").parse().expect("an address");
        let page = http(
            address,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(page.status, 200);
        let forwarded = format!("[\"X-Forwarded-For\",\"{client}\"]").to_lowercase();
        assert!(
            page.body.to_lowercase().contains(&forwarded),
            "mapped addresses are shown as IPv4: {}",
            page.body
        );
    }
}

/// An echo node on a unix socket.
fn unix_node(path: &std::path::Path) {
    let listener = UnixListener::bind(path).expect("bind a unix node");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"unix\n").await;
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[tokio::test]
async fn a_unix_backend_is_reached() {
    let launch = Launch::new();
    let path = launch.path("node.sock");
    unix_node(&path);
    let config = listener("main", "tcp", "nodes")
        + &pool(
            "nodes",
            "",
            &[backend("n1", format!("unix:{}", path.display()))],
        );
    let balancer = launch.start(&config);
    let (mut stream, name) = greeted(balancer.address("main").await).await;
    assert_eq!(name, "unix");
    let bytes = vec![5; 200_000];
    let (mut read, mut write) = stream.split();
    let (written, came) = tokio::join!(
        write.write_all(&bytes),
        crate::clients::read_exactly(&mut read, bytes.len())
    );
    written.expect("write");
    assert!(came == bytes);
    stream.shutdown().await.expect("shut down");
    assert_eq!(
        read_to_ending(&mut stream).await,
        (vec![], Ending::Fin),
        "half-close passes a unix leg"
    );
}

#[tokio::test]
async fn a_unix_listener_serves_and_its_socket_is_taken_over_by_the_next_start() {
    let node = Node::echo("n1").await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("listener.sock");
    let config =
        simple("tcp", "", &[&node]).replacen("127.0.0.1:0", &format!("unix:{}", path.display()), 1);
    for start in 0..2 {
        let balancer = Balancer::start(&config);
        balancer
            .event("the listener", 0, |event| {
                event.message() == "listening" && event.field("listener") == Some("main")
            })
            .await;
        let mut stream = within("a connection", UnixStream::connect(&path))
            .await
            .expect("connect");
        assert_eq!(
            read_line(&mut stream).await.expect("a greeting"),
            "n1",
            "start {start}"
        );
        echoed(&mut stream, b"over a unix socket").await;
        // A start that was killed leaves its socket behind: the next one must take its place.
    }
}

#[tokio::test]
async fn a_unix_listener_does_not_take_the_socket_of_a_living_one() {
    let node = Node::echo("n1").await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("listener.sock");
    let config =
        simple("tcp", "", &[&node]).replacen("127.0.0.1:0", &format!("unix:{}", path.display()), 1);
    let first = Balancer::start(&config);
    first
        .event("the listener", 0, |event| {
            event.message() == "listening" && event.field("listener") == Some("main")
        })
        .await;
    let second = Balancer::start(&config);
    assert_eq!(second.exit().await.code(), Some(1));
    let mut stream = UnixStream::connect(&path).await.expect("connect");
    assert_eq!(read_line(&mut stream).await.expect("a greeting"), "n1");
}

/// A TLS node: terminates with its own certificate and says its name.
async fn tls_node(certificate: &Certificate, name: &'static str) -> Node {
    let pem = |path| std::fs::read(path).expect("a PEM file");
    let chain = vec![certificate.der().clone()];
    let key =
        rustls::pki_types::pem::PemObject::from_pem_slice(&pem(&certificate.key)).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"mqtt".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    Node::scripted(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let _ = stream.write_all(format!("{name}\n").as_bytes()).await;
            let _ = stream.flush().await;
            let mut byte = [0];
            let _ = stream.read(&mut byte).await;
        }
    })
    .await
}

#[tokio::test]
async fn passthrough_routes_by_sni_and_alpn_and_leaves_tls_to_the_node() {
    let launch = Launch::new();
    let one = Certificate::write(launch.folder.path(), "one", &["one.example"]);
    let two = Certificate::write(
        launch.folder.path(),
        "two",
        &["a.two.example", "plain.example"],
    );
    let nodes = [
        tls_node(&one, "one").await,
        tls_node(&two, "two").await,
        tls_node(&two, "mqtt").await,
    ];
    let config = "[[listener]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ntls = { passthrough = true }\n\n"
        .to_owned()
        + "  [[listener.route]]\n  alpn = \"mqtt\"\n  pool = \"mqtt\"\n\n"
        + "  [[listener.route]]\n  sni = \"one.example\"\n  pool = \"one\"\n\n"
        + "  [[listener.route]]\n  sni = \"*.two.example\"\n  pool = \"two\"\n\n"
        + &pool("one", "", &[backend("n1", nodes[0].address)])
        + &pool("two", "", &[backend("n1", nodes[1].address)])
        + &pool("mqtt", "", &[backend("n1", nodes[2].address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let plain = client(&[&one, &two]);
    let mut mqtt = (*plain).clone();
    mqtt.alpn_protocols = vec![b"mqtt".to_vec()];
    let mqtt = std::sync::Arc::new(mqtt);
    for (name, config, node) in [
        ("one.example", &plain, "one"),
        ("a.two.example", &plain, "two"),
        ("a.two.example", &mqtt, "mqtt"),
    ] {
        let mut stream = tls(address, name, config).await.expect(name);
        assert_eq!(
            read_line(&mut stream).await.expect("a greeting"),
            node,
            "{name}"
        );
    }
    assert!(
        tls(address, "plain.example", &plain).await.is_err(),
        "no route and no pool: refused"
    );
}

/// A ClientHello for `one.example`, as rustls writes it.
fn client_hello(certificate: &Certificate) -> Vec<u8> {
    let name = "one.example".try_into().expect("a name");
    let mut tls = rustls::ClientConnection::new(client(&[certificate]), name).expect("a client");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("a hello");
    hello
}

#[tokio::test]
async fn a_client_hello_in_many_records_and_segments_is_put_together() {
    let launch = Launch::new();
    let one = Certificate::write(launch.folder.path(), "one", &["one.example"]);
    let (give, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let node = Node::scripted(move |mut stream, _| {
        let give = give.clone();
        async move {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            let _ = give.send(bytes);
        }
    })
    .await;
    let config = "[[listener]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\ntls = { passthrough = true }\n\n"
        .to_owned()
        + "  [[listener.route]]\n  sni = \"one.example\"\n  pool = \"one\"\n\n"
        + &pool("one", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let hello = client_hello(&one);
    let (head, handshake) = hello.split_at(5);
    for size in [1, 7, 100, handshake.len()] {
        let mut records = Vec::new();
        for part in handshake.chunks(size) {
            records.extend(&head[..3]);
            records.extend((part.len() as u16).to_be_bytes());
            records.extend(part);
        }
        let mut stream = connect(address).await;
        for segment in records.chunks(size.max(13)) {
            stream.write_all(segment).await.expect("write");
        }
        stream.shutdown().await.expect("shut down");
        let came = within("the hello", seen.recv()).await.expect("a node");
        assert!(
            came == records,
            "in records of {size}: {} of {} bytes",
            came.len(),
            records.len()
        );
    }
}

#[tokio::test]
async fn an_unparsable_hello_is_closed_and_never_takes_the_default_pool() {
    let seen = crate::nodes::Seen::default();
    let node = seen.node().await;
    let launch = Launch::new();
    let one = Certificate::write(launch.folder.path(), "one", &["one.example"]);
    let config = listener("main", "tcp", "nodes").replace(
        "pool = \"nodes\"",
        "tls = { passthrough = true }\npool = \"nodes\"",
    ) + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let hello = client_hello(&one);
    let mut bent = hello.clone();
    // The length of the session id: beyond its limit of 32, and into what follows.
    bent[43] = 0xff;
    let mut endless = b"\x16\x03\x01\x40\x00\x01\x00\xff\xff".to_vec();
    endless.resize(40_000, 0);
    for (what, bytes) in [
        ("plain text", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a bent hello", bent),
        ("another record type", [b"\x17", &hello[1..]].concat()),
        ("a hello above 16 KiB", endless),
        ("half a hello", hello[..hello.len() / 2].to_vec()),
    ] {
        let mut stream = connect(address).await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        read_to_ending(&mut stream).await;
        assert_eq!(seen.bytes(), 0, "{what} reached the default pool");
    }
    assert_eq!(node.accepted(), 0);
}

#[tokio::test]
async fn a_tcp_listener_that_terminates_tls_routes_by_sni() {
    let launch = Launch::new();
    let names = ["one.example", "a.two.example", "other.example"];
    let certificate = Certificate::write(launch.folder.path(), "all", &names);
    let nodes = [Node::echo("one").await, Node::echo("two").await];
    let other = Node::echo("other").await;
    let keys = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = crate::settings::listener_with("main", "tcp", "other", &keys)
        + "  [[listener.route]]\n  sni = \"one.example\"\n  pool = \"one\"\n\n"
        + "  [[listener.route]]\n  sni = \"*.two.example\"\n  pool = \"two\"\n\n"
        + &pool("one", "", &[backend("n1", nodes[0].address)])
        + &pool("two", "", &[backend("n1", nodes[1].address)])
        + &pool("other", "", &[backend("n1", other.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let client = client(&[&certificate]);
    for (name, node) in names.into_iter().zip(["one", "two", "other"]) {
        let mut stream = tls(address, name, &client).await.expect(name);
        let greeting = read_line(&mut stream).await.expect("a greeting");
        assert_eq!(greeting, node, "{name}");
        echoed(&mut stream, b"in the clear behind it").await;
    }
}

//! Which certificate a client gets by the name it asks for, and what it hears where there is none, in whole handshakes of
//! `openssl s_client`, which sends any text as a name.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::{Authority, ECDSA, Issued};
use crate::harness::{Balancer, Launch, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

/// What `openssl s_client` prints of a handshake that asks for `name`; it ends behind it.
async fn shake(address: SocketAddr, name: Option<&str>, more: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string()]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    command.args(more).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().expect("openssl"));
    let output = within("openssl to end", output).await.expect("no panic");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Whether this certificate was shown.
fn shows(said: &str, issued: &Issued) -> bool {
    let pem = std::fs::read_to_string(&issued.cert).expect("read");
    let bare = |text: &str| text.split_whitespace().collect::<String>();
    bare(said).contains(&bare(&pem))
}

fn terminating(certificates: &[String], node: &Node) -> String {
    let tls = format!("tls = {{ certificates = [{}] }}", certificates.join(", "));
    "[access_log]\noutput = \"stdout\"\n\n".to_owned()
        + &listener_with("main", "tcp", "nodes", &tls)
        + &pool("nodes", "", &[backend("n1", node.address)])
}

async fn unknown_names(balancer: &Balancer) -> f64 {
    let parts = [
        "listener_refused_connections_total",
        "reason=\"unknown_name\"",
    ];
    balancer.metric(&parts).await
}

#[tokio::test]
async fn a_name_matches_in_any_form_and_an_unknown_one_is_told() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let exact = authority.server("exact", &["chat.example.org"], ECDSA);
    let wild = authority.server("wild", &["*.example.net"], ECDSA);
    let config = terminating(&[exact.toml(), wild.toml()], &node);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, issued) in [
            ("chat.example.org", &exact),
            ("CHAT.Example.ORG", &exact),
            ("chat.example.org.", &exact),
            ("a.example.net", &wild),
            ("my_sub.example.net", &wild),
            ("A_B.EXAMPLE.NET.", &wild),
        ] {
            let said = shake(address, Some(name), &[version]).await;
            assert!(shows(&said, issued), "{name}: {said}");
        }
    }
    assert!((unknown_names(&balancer).await - 0.0).abs() < 0.1);
    for (name, alert) in [
        (Some("unknown.example"), 112),
        (Some("a.b.example.net"), 112),
        (Some("example.net"), 112),
        (None, 109),
    ] {
        let said = shake(address, name, &[]).await;
        let alert = format!("SSL alert number {alert}");
        assert!(said.contains(&alert), "{name:?}: {said}");
    }
    assert!((unknown_names(&balancer).await - 4.0).abs() < 0.1);
    let is_it = |line: &serde_json::Value| line["sni"] == "unknown.example";
    let end = balancer.access("the refusal", is_it).await["end"].clone();
    assert_eq!(
        (&end["side"], &end["phase"], &end["how"]),
        (&"evenkeel".into(), &"tls".into(), &"refused".into())
    );
    let told = balancer.event("the refusal in the log", 0, |event| {
        event.message() == "clients are refused by their server name"
    });
    let told = told.await;
    assert_eq!(told.field("sni"), Some("unknown.example"));
    assert_eq!(told.field("reason"), Some("no certificate is for it"));
    // What is no name is rustls' to refuse; the log has it.
    for name in ["chat.example.org:8443", "-a.example.net"] {
        let said = shake(address, Some(name), &[]).await;
        assert!(said.contains("SSL alert number 47"), "{name}: {said}");
        balancer
            .access("the odd name", |line| line["sni"] == name)
            .await;
    }
}

#[tokio::test]
async fn a_sole_certificate_is_the_default_one() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let issued = authority.server("server", &["chat.example.org"], ECDSA);
    let balancer = launch.start(&terminating(&[issued.toml()], &node));
    let address = balancer.address("main").await;
    for name in [Some("unknown.example"), None] {
        assert!(shows(&shake(address, name, &[]).await, &issued), "{name:?}");
    }
    let strict = issued.toml().replace(" }", ", default = false }");
    balancer.reload(&terminating(&[strict], &node)).await;
    for (name, alert) in [(Some("unknown.example"), 112), (None, 109)] {
        let said = shake(address, name, &[]).await;
        let alert = format!("SSL alert number {alert}");
        assert!(said.contains(&alert), "{name:?}: {said}");
    }
}

/// The records of a ClientHello of this many bytes, which begins as any.
fn large_hello(length: usize) -> Vec<u8> {
    let mut message = vec![0; length];
    message[..4].copy_from_slice(&((1 << 24) | (length as u32 - 4)).to_be_bytes());
    let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
    message.chunks(1 << 14).flat_map(record).collect()
}

#[tokio::test]
async fn a_hello_above_the_bound_is_told_so_and_not_reset() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let issued = authority.server("server", &["chat.example.org"], ECDSA);
    let passing = "tls = { passthrough = true }";
    let config =
        terminating(&[issued.toml()], &node) + &listener_with("raw", "tcp", "nodes", passing);
    let balancer = launch.start(&config);
    for listener in ["main", "raw"] {
        let mut client = TcpStream::connect(balancer.address(listener).await)
            .await
            .expect("connect");
        client.write_all(&large_hello(60_000)).await.expect("write");
        let mut said = Vec::new();
        let end = within("its end", client.read_to_end(&mut said)).await;
        assert!(end.is_ok(), "{listener}: {end:?}");
        assert_eq!(said, [21, 3, 3, 0, 2, 2, 47], "{listener}");
    }
    assert_eq!(node.accepted(), 0);
}

#[tokio::test]
async fn names_that_are_none_pass_through_to_the_listeners_pool() {
    let (node, other) = (Node::echo("n1").await, Node::echo("n2").await);
    let passing =
        "tls = { passthrough = true }\nroute = [{ sni = \"*.example.net\", pool = \"other\" }]";
    let config = listener_with("main", "tcp", "nodes", passing)
        + &pool("nodes", "", &[backend("n1", node.address)])
        + &pool("other", "", &[backend("n2", other.address)]);
    let balancer = Launch::new().start(&config);
    let address = balancer.address("main").await;
    for (name, reached) in [
        ("a.example.net.", &other),
        ("A_B.Example.NET", &other),
        ("a.example.net:443", &node),
        ("-a.example.net", &node),
        ("unknown.example", &node),
    ] {
        let before = reached.accepted();
        shake(address, Some(name), &[]).await;
        assert_eq!(reached.accepted(), before + 1, "{name}");
    }
}

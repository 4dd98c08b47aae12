//! Files that pools are made of, replaced while the balancer runs: what their `tls` names, and the keys of sticky clients.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, ECDSA, Issued};
use crate::certificates::Certificate;
use crate::clients::{Ending, connect, echoed, greeted, http, read_to_ending};
use crate::harness::{Balancer, Event, Launch};
use crate::nodes::Node;
use crate::settings::{backend, listener, pool};
use crate::tls_nodes::{front, scripted, server};

const NAME: &str = "chat.test";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "//////////////////////////////////////////8=";

/// One listener before one node, with the files followed.
fn watched(protocol: &str, keys: &str, node: &Node) -> String {
    "[global]\nlog_format = \"json\"\nlog_level = \"debug\"\nwatch = true\n\n".to_owned()
        + &listener("main", protocol, "nodes")
        + &pool("nodes", keys, &[backend("n1", node.address)])
}

/// Waits for a line of the log behind `from` about the files of this kind.
async fn told(balancer: &Balancer, from: usize, message: &str, kind: &str) -> Event {
    let is_it = |event: &Event| {
        event.message() == message
            && event.field("files") == Some(kind)
            && event.field("pool") == Some("nodes")
    };
    balancer.event(message, from, is_it).await
}

const RENEWED: &str = "pool files renewed";
const BAD: &str = "pool file cannot be used, the last good one goes on";
const GOOD: &str = "every pool file can be used again";

async fn error(balancer: &Balancer, kind: &str) -> f64 {
    let parts = [
        "evenkeel_pool_file_error{",
        "pool=\"nodes\"",
        &format!("kind=\"{kind}\""),
    ];
    balancer.metric(&parts).await
}

fn errors_told(balancer: &Balancer) -> usize {
    let lines = balancer.log.all();
    let errors = lines.iter().filter(|line| line.contains("\"ERROR\""));
    errors.count()
}

#[tokio::test]
async fn the_authorities_of_backends_are_followed_and_a_bad_file_leaves_the_last_good_ones() {
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let certificate = Certificate::write(&folder, "node", &[NAME]);
    let other = Certificate::write(&folder, "other", &[NAME]);
    let node = front(server(&certificate), Node::echo("n1").await).await;
    let roots = launch.path("roots.pem");
    let copy = |from: &Path| std::fs::copy(from, &roots).expect("copy");
    copy(&other.cert);
    let keys = format!("tls = {{ sni = \"{NAME}\", ca = \"roots.pem\" }}");
    let balancer = launch.start(&watched("tcp", &keys, &node));
    let address = balancer.address("main").await;
    let mut refused = connect(address).await;
    assert_eq!(read_to_ending(&mut refused).await, (vec![], Ending::Rst));

    copy(&certificate.cert);
    told(&balancer, 0, RENEWED, "tls").await;
    let (mut live, name) = greeted(address).await;
    assert_eq!(name, "n1");
    assert_eq!(error(&balancer, "tls").await, 0.0);

    std::fs::write(&roots, "no certificate").expect("write");
    let event = told(&balancer, 0, BAD, "tls").await;
    assert!(event.field("error").expect("why").contains("roots.pem"));
    assert_eq!(error(&balancer, "tls").await, 1.0);
    let status = async || {
        let admin = balancer.address("admin").await.to_string();
        balancer.command(&["status", "--admin", &admin]).await.1
    };
    let table = status().await;
    let line = table.lines().find(|line| line.starts_with("  tls files: "));
    let line = line.unwrap_or_else(|| panic!("the error is not in {table}"));
    assert!(line.contains("roots.pem"), "{line}");
    assert_eq!(greeted(address).await.1, "n1");

    copy(&certificate.cert);
    told(&balancer, 0, GOOD, "tls").await;
    assert_eq!(error(&balancer, "tls").await, 0.0);
    assert!(!status().await.contains("tls files"));
    assert_eq!(greeted(address).await.1, "n1");
    echoed(&mut live, b"still there").await;
    assert_eq!(errors_told(&balancer), 1, "one line for a change of state");
}

/// A node that takes clients of this authority only, and says the serial number of whom it sees.
async fn asking(authority: &Path, shown: &Issued, known: Vec<Issued>) -> Node {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority).expect("an authority");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_file(&shown.key).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![shown.der.clone()], key)
        .expect("a pair");
    let known = Arc::new(known);
    scripted(TlsAcceptor::from(Arc::new(config)), move |mut stream| {
        let known = Arc::clone(&known);
        async move {
            let seen = stream.get_ref().1.peer_certificates().expect("one")[0].clone();
            let found = known.iter().find(|one| one.der == seen).expect("a known");
            let said = format!("{}\n", found.serial);
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

#[tokio::test]
async fn who_we_are_to_backends_is_followed_once_key_and_certificate_fit() {
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let authority = Authority::new(&folder, "ca");
    let shown = authority.server("node", &[NAME], ECDSA);
    let ours = authority.client("ours", "one", 7);
    let next = authority.client("next", "two", 8);
    let known = vec![ours.clone(), next.clone()];
    let node = asking(&folder.join("ca.pem"), &shown, known).await;
    let keys = format!(
        "tls = {{ sni = \"{NAME}\", ca = \"ca.pem\", cert = \"{}\", key = \"{}\" }}",
        ours.cert.display(),
        ours.key.display()
    );
    let balancer = launch.start(&watched("tcp", &keys, &node));
    let address = balancer.address("main").await;
    assert_eq!(greeted(address).await.1, "7");
    // Renamed over, as programs do; the key comes later.
    let place = |from: &Path, to: &Path| {
        let beside = to.with_extension("new");
        std::fs::copy(from, &beside).expect("copy");
        std::fs::rename(&beside, to).expect("rename");
    };
    place(&next.cert, &ours.cert);
    let event = told(&balancer, 0, BAD, "tls").await;
    let why = event.field("error").expect("why");
    assert!(why.contains("ours.key does not belong to "), "{why}");
    assert_eq!(greeted(address).await.1, "7");
    place(&next.key, &ours.key);
    told(&balancer, 0, RENEWED, "tls").await;
    assert_eq!(greeted(address).await.1, "8");
    assert_eq!(error(&balancer, "tls").await, 0.0);
}

#[tokio::test]
async fn sticky_keys_are_followed_and_cookies_of_the_old_ones_are_honoured() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    std::fs::write(launch.path("sticky.key"), KEY).expect("write");
    let keys = "sticky = { key_file = \"sticky.key\" }";
    let balancer = launch.start(&watched("websocket", keys, &node));
    let address = balancer.address("main").await;
    let file = balancer.path("sticky.key");
    // The cookie that comes with an answer to one with this.
    let given = async |cookie: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{cookie}Connection: close\r\n\r\n");
        let answer = http(address, &request).await;
        let mut lines = answer.head.lines();
        let set = lines.find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("set-cookie").then_some(value)
        });
        set.and_then(|set| Some(format!("Cookie: {}\r\n", set.split(';').next()?)))
    };
    let first = given("").await.expect("a cookie");
    assert_eq!(given(&first).await, None, "it is good");

    std::fs::write(&file, format!("{OTHER_KEY}\n{KEY}\n")).expect("write");
    told(&balancer, 0, RENEWED, "sticky").await;
    let second = given(&first).await.expect("one of the new key");

    std::fs::write(&file, "short").expect("write");
    told(&balancer, 0, BAD, "sticky").await;
    assert_eq!(error(&balancer, "sticky").await, 1.0);
    assert_eq!(given(&second).await, None, "the last good keys go on");

    let from = balancer.log.position();
    std::fs::write(&file, OTHER_KEY).expect("write");
    told(&balancer, from, RENEWED, "sticky").await;
    told(&balancer, from, GOOD, "sticky").await;
    assert_eq!(given(&second).await, None);
    assert!(given(&first).await.is_some(), "its key is gone");
    assert_eq!(error(&balancer, "sticky").await, 0.0);
    assert_eq!(errors_told(&balancer), 1);
}

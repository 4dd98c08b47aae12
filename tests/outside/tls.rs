//! TLS as a listener terminates it, with OpenSSL, curl and rustls as clients: versions, protocols, kinds of keys, tickets shared by
//! two balancers, client certificates, and files that change while clients shake hands.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConfig, HandshakeKind, NamedGroup, SupportedProtocolVersion};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::authority::{Authority, ECDSA, Issued, RSA};
use crate::clients::{echoed, read_line, tls};
use crate::harness::{Balancer, Event, Launch, a_moment, within};
use crate::nodes::Node;
use crate::settings::{backend, listener_with, pool};

const NAME: &str = "a.example";
const EACH_VERSION: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

fn terminating(protocol: &str, tls: &str, node: &Node) -> String {
    listener_with("main", protocol, "nodes", &format!("tls = {{ {tls} }}"))
        + &pool("nodes", "", &[backend("n1", node.address)])
}

/// The files are followed.
fn watched(config: &str) -> String {
    format!("[global]\nlog_format = \"json\"\nlog_level = \"debug\"\nwatch = true\n\n{config}")
}

fn certificates(issued: &[&Issued]) -> String {
    let issued: Vec<String> = issued.iter().map(|one| one.toml()).collect();
    format!("certificates = [{}]", issued.join(", "))
}

/// What a client sees of one connection that is served.
struct Seen {
    kind: HandshakeKind,
    certificate: Vec<u8>,
    group: Option<NamedGroup>,
}

/// A handshake and the greeting of the node behind it; `None`: refused, before or (TLS 1.3) behind the handshake.
async fn visit(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Option<Seen> {
    let mut stream = tls(address, name, config).await.ok()?;
    read_line(&mut stream).await.ok()?;
    let connection = stream.get_ref().1;
    Some(Seen {
        kind: connection.handshake_kind()?,
        certificate: connection.peer_certificates()?[0].to_vec(),
        group: connection
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
    })
}

/// `evenkeel status` for people.
async fn status(balancer: &Balancer) -> (i32, String, String) {
    let admin = balancer.address("admin").await.to_string();
    balancer.command(&["status", "--admin", &admin]).await
}

/// What `openssl s_client` prints up to the greeting of the node, or to its end.
async fn openssl(address: SocketAddr, words: &[&str]) -> String {
    let address = address.to_string();
    let words: Vec<String> = ["s_client", "-connect", &address, "-servername", NAME]
        .iter()
        .chain(words)
        .map(ToString::to_string)
        .collect();
    let said = tokio::task::spawn_blocking(move || {
        let mut child = Command::new("openssl")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let (input, mut output) = (child.stdin.take(), child.stdout.take().expect("output"));
        let mut said = Vec::new();
        let mut chunk = [0; 4096];
        while !said.ends_with(b"n1\n") {
            match std::io::Read::read(&mut output, &mut chunk).expect("read") {
                0 => break,
                count => said.extend_from_slice(&chunk[..count]),
            }
        }
        drop(input);
        child.wait().expect("its end");
        String::from_utf8_lossy(&said).into_owned()
    });
    within("openssl to end", said).await.expect("no panic")
}

#[tokio::test]
async fn the_least_version_is_kept_to() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let both = terminating("tcp", &server, &node);
    let balancer = launch.start(&both);
    let address = balancer.address("main").await;
    assert!(
        openssl(address, &["-tls1_2"])
            .await
            .contains("New, TLSv1.2, ")
    );
    assert!(
        openssl(address, &["-tls1_3"])
            .await
            .contains("New, TLSv1.3, ")
    );
    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    assert!(openssl(address, &old).await.contains("New, (NONE)"));
    let new = terminating("tcp", &format!("min_version = \"1.3\", {server}"), &node);
    balancer.reload(&new).await;
    assert!(openssl(address, &["-tls1_2"]).await.contains("New, (NONE)"));
    assert!(
        openssl(address, &["-tls1_3"])
            .await
            .contains("New, TLSv1.3, ")
    );
}

#[tokio::test]
async fn a_client_that_can_exchanges_its_key_post_quantum() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let balancer = launch.start(&terminating("tcp", &server, &node));
    let client = Arc::new(authority.trusting(&[&TLS13], None));
    let seen = visit(balancer.address("main").await, NAME, &client)
        .await
        .expect("served");
    assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn a_protocol_is_agreed_on_and_routed_by() {
    let (node, chat) = (Node::echo("n1").await, Node::echo("n2").await);
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let keys = format!(
        "tls = {{ alpn = [\"mqtt\", \"chat\"], {server} }}\nroute = [{{ alpn = \"chat\", pool = \"chat\" }}]"
    );
    let config = listener_with("main", "tcp", "nodes", &keys)
        + &pool("nodes", "", &[backend("n1", node.address)])
        + &pool("chat", "", &[backend("n2", chat.address)]);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let offering = |protocols: &[&str]| {
        let mut client = authority.trusting(ALL_VERSIONS, None);
        client.alpn_protocols = protocols
            .iter()
            .map(|one| one.as_bytes().to_vec())
            .collect();
        Arc::new(client)
    };
    for (offered, agreed, reached) in [
        (&["chat", "mqtt"][..], Some("mqtt"), "n1"),
        (&["x", "chat"], Some("chat"), "n2"),
        (&[], None, "n1"),
    ] {
        let mut stream = tls(address, NAME, &offering(offered)).await.expect("TLS");
        assert_eq!(read_line(&mut stream).await.expect("a greeting"), reached);
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, agreed.map(str::as_bytes), "{offered:?}");
    }
    assert!(visit(address, NAME, &offering(&["x"])).await.is_none());
    let said = openssl(address, &["-alpn", "x,mqtt"]).await;
    assert!(said.contains("ALPN protocol: mqtt"), "{said}");
}

#[tokio::test]
async fn each_client_gets_the_kind_of_key_it_can_verify() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let rsa = authority.server("rsa", &[NAME, "*.wild.example"], RSA);
    let ecdsa = authority.server("ecdsa", &[NAME], ECDSA);
    let config = terminating("tcp", &certificates(&[&rsa, &ecdsa]), &node);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    for version in ["-tls1_2", "-tls1_3"] {
        for (algorithms, kind) in [
            ("ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256", "ECDSA"),
            ("RSA-PSS+SHA256:RSA+SHA256", "RSA"),
        ] {
            let said = openssl(address, &[version, "-sigalgs", algorithms]).await;
            let signed = said
                .lines()
                .find(|line| line.starts_with("Peer signature type"));
            assert!(
                signed.is_some_and(|line| line.contains(kind)),
                "{kind}: {said}"
            );
        }
    }
    let client = Arc::new(authority.trusting(ALL_VERSIONS, None));
    let wild = visit(address, "x.wild.example", &client)
        .await
        .expect("served");
    assert_eq!(wild.certificate, rsa.der.to_vec());
    assert!(visit(address, "unknown.example", &client).await.is_none());
}

/// A line of a file of ticket keys.
fn ticket_key(fill: u8) -> String {
    data_encoding::BASE64.encode(&[fill; 80]) + "\n"
}

fn write_ticket_keys(folder: &Path, fills: &[u8]) -> PathBuf {
    let file = folder.join("tickets.key");
    let lines: String = fills.iter().map(|fill| ticket_key(*fill)).collect();
    std::fs::write(&file, lines).expect("write");
    file
}

#[tokio::test]
async fn a_ticket_is_good_on_every_balancer_that_shares_its_key_and_nowhere_else() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let keys = write_ticket_keys(launch.folder.path(), &[1, 2, 3]);
    let shared = format!("ticket_keys = \"{}\", {server}", keys.display());
    let config = terminating("tcp", &shared, &node);
    let other = listener_with("other", "tcp", "nodes", &format!("tls = {{ {shared} }}"));
    let one = launch.start(&format!("{other}{config}"));
    let two = Balancer::start(&config);
    let alone = Balancer::start(&terminating("tcp", &server, &node));
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let file = one.path("session.pem");
        let session = file.to_str().expect("a path");
        let said = openssl(one.address("main").await, &[version, "-sess_out", session]).await;
        assert!(said.contains(&format!("New, {name}, ")), "{said}");
        let back = async |address| {
            let said = openssl(address, &[version, "-sess_in", session]).await;
            let word = |word: &str| said.contains(&format!("{word}, {name}, "));
            assert!(word("Reused") != word("New"), "{said}");
            word("Reused")
        };
        assert!(back(one.address("main").await).await, "{version}");
        assert!(back(two.address("main").await).await, "{version}");
        assert!(!back(one.address("other").await).await, "{version}");
        assert!(!back(alone.address("main").await).await, "{version}");
    }
    let count = async |kind| {
        let kind = format!("kind=\"{kind}\"");
        let parts = ["listener_handshakes_total", "listener=\"main\"", &kind];
        (one.metric(&parts).await, two.metric(&parts).await)
    };
    assert_eq!(count("full").await, (2.0, 0.0));
    assert_eq!(count("resumed").await, (2.0, 2.0));
}

#[tokio::test]
async fn aes_128_is_agreed_on_unless_the_client_puts_chacha20_first() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let ecdsa = authority.server("ecdsa", &[NAME], ECDSA);
    let rsa = authority.server("rsa", &[NAME], RSA);
    let server = certificates(&[&ecdsa, &rsa]);
    let balancer = launch.start(&terminating("tcp", &server, &node));
    let address = balancer.address("main").await;
    let agrees = async |words: &[&str], suite: &str| {
        let said = openssl(address, words).await;
        let found = said.contains(&format!("Cipher is {suite}\n"));
        assert!(found, "{words:?} {suite}: {said}");
    };
    let (aes128, aes256) = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384");
    let chacha = "TLS_CHACHA20_POLY1305_SHA256";
    for (offered, suite) in [
        ([aes256, chacha, aes128], aes128),
        ([aes128, aes256, chacha], aes128),
        ([chacha, aes256, aes128], chacha),
        ([aes256, chacha, chacha], aes256),
    ] {
        let offered = offered.join(":");
        agrees(&["-tls1_3", "-ciphersuites", &offered], suite).await;
    }
    for (key, scheme) in [("ECDSA", "ECDSA+SHA256"), ("RSA", "RSA-PSS+SHA256")] {
        let aes128 = format!("ECDHE-{key}-AES128-GCM-SHA256");
        let aes256 = format!("ECDHE-{key}-AES256-GCM-SHA384");
        let chacha = format!("ECDHE-{key}-CHACHA20-POLY1305");
        for (offered, suite) in [
            ([&aes256, &chacha, &aes128], &aes128),
            ([&chacha, &aes256, &aes128], &chacha),
        ] {
            let offered = offered.map(String::as_str).join(":");
            let words = ["-tls1_2", "-sigalgs", scheme, "-cipher", &offered];
            agrees(&words, suite).await;
        }
    }
}

#[tokio::test]
async fn a_session_goes_on_whoever_orders_the_cipher_suites() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let balancer = launch.start(&terminating("tcp", &server, &node));
    let address = balancer.address("main").await;
    let file = balancer.path("session.pem");
    let session = file.to_str().expect("a path");
    for (version, key, chacha, unknown) in [
        (
            "-tls1_3",
            "-ciphersuites",
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_AES_128_CCM_SHA256",
        ),
        (
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-ECDSA-AES128-CCM",
        ),
    ] {
        // A suite that is unknown here stands first: the server's order.
        let by_server = format!("{unknown}:{chacha}");
        for (first, then) in [(chacha, &by_server[..]), (&by_server, chacha)] {
            let made = openssl(address, &[version, key, first, "-sess_out", session]).await;
            assert!(made.contains("New, TLSv1."), "{made}");
            let back = openssl(address, &[version, key, then, "-sess_in", session]).await;
            assert!(back.contains("Reused, TLSv1."), "{version}: {back}");
        }
    }
}

#[tokio::test]
async fn ticket_keys_are_rotated_without_a_reload() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let folder = launch.folder.path().to_owned();
    let keys = write_ticket_keys(&folder, &[1, 2, 3]);
    let tls = format!("ticket_keys = \"{}\", {server}", keys.display());
    let balancer = launch.start(&watched(&terminating("tcp", &tls, &node)));
    let address = balancer.address("main").await;
    let client = |versions| Arc::new(authority.trusting(versions, None));
    let (early, late) = (client(ALL_VERSIONS), client(ALL_VERSIONS));
    let kind = async |client| visit(address, NAME, client).await.expect("served").kind;
    assert_ne!(kind(&early).await, HandshakeKind::Resumed);
    assert_ne!(kind(&late).await, HandshakeKind::Resumed);
    let renewed = async |fills: &[u8]| {
        let from = balancer.log.position();
        write_ticket_keys(&folder, fills);
        let is_it = |event: &Event| event.message() == "tls files renewed";
        balancer.event("the new keys", from, is_it).await;
    };
    // The second key sealed; it is still there.
    renewed(&[2, 3, 4]).await;
    assert_eq!(kind(&early).await, HandshakeKind::Resumed);
    // Nonsense leaves the last good keys.
    let from = balancer.log.position();
    std::fs::write(&keys, "no key\n").expect("write");
    let refused = |event: &Event| event.level() == "ERROR";
    let event = balancer.event("the refusal", from, refused).await;
    let error = event.field("error").expect("why");
    assert!(
        error.ends_with("tickets.key: line 1: not valid base64"),
        "{error}"
    );
    assert_eq!(kind(&early).await, HandshakeKind::Resumed);
    // Now it has left the file.
    renewed(&[7, 8, 9]).await;
    assert_ne!(kind(&late).await, HandshakeKind::Resumed);
    assert_eq!(kind(&late).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn clients_without_a_right_certificate_are_refused_and_the_revoked_too() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let authority = Authority::new(&folder, "ca");
    let foreign = Authority::new(&folder, "foreign");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let (good, bad) = (
        authority.client("good", "good", 7),
        authority.client("bad", "bad", 8),
    );
    let stranger = foreign.client("stranger", "good", 7);
    std::fs::write(folder.join("crl.pem"), authority.revocations(&[&bad])).expect("write");
    let with = |mode: &str| {
        let clients =
            format!("client_auth = {{ ca = \"ca.pem\", mode = \"{mode}\", crl = \"crl.pem\" }}");
        let log = "[access_log]\noutput = \"stdout\"\n\n";
        let listener = terminating("tcp", &format!("{clients}, {server}"), &node);
        watched(&format!("{log}{listener}"))
    };
    let balancer = launch.start(&with("required"));
    let address = balancer.address("main").await;
    let client = |version, identity| Arc::new(authority.trusting(version, identity));
    let expect = async |mode: &str, without: bool| {
        for version in EACH_VERSION {
            for (identity, served) in [
                (Some(&good), true),
                (Some(&bad), false),
                (Some(&stranger), false),
                (None, without),
            ] {
                let seen = visit(address, NAME, &client(version, identity)).await;
                let who = identity.map(|one| one.cert.display().to_string());
                assert_eq!(seen.is_some(), served, "{mode}: {who:?}");
            }
        }
    };
    expect("required", false).await;
    balancer.reload(&with("optional")).await;
    expect("optional", true).await;
    // Revoked while it holds a ticket: a session that goes on is not verified again, so the ticket is void.
    for version in EACH_VERSION {
        std::fs::write(folder.join("crl.pem"), authority.revocations(&[&bad])).expect("write");
        balancer.reload(&with("optional")).await;
        let client = client(version, Some(&good));
        assert!(visit(address, NAME, &client).await.is_some());
        let again = visit(address, NAME, &client).await.expect("served");
        assert_eq!(again.kind, HandshakeKind::Resumed);
        let from = balancer.log.position();
        std::fs::write(folder.join("crl.pem"), authority.revocations(&[&good])).expect("write");
        let is_it = |event: &Event| event.message() == "tls files renewed";
        balancer.event("the new list", from, is_it).await;
        assert!(visit(address, NAME, &client).await.is_none(), "{version:?}");
    }
    // Each good visit has its name in the log, the resumed ones too.
    let named = async {
        let is_good = |line: &&String| line.contains("\"client_subject\":\"CN=good,O=Example\"");
        while balancer.stdout.all().iter().filter(is_good).count() < 8 {
            a_moment().await;
        }
    };
    within("eight lines with the name of the client", named).await;
}

#[tokio::test]
async fn who_a_client_is_goes_to_the_log_and_the_backend_and_cannot_be_claimed() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let authority = Authority::new(&folder, "ca");
    let server = certificates(&[&authority.server("server", &[NAME], ECDSA)]);
    let device = authority.client("device", "device, 7\u{1b}", 7);
    let config = |clients: &str| {
        let log = "[access_log]\noutput = \"stdout\"\n\n";
        format!(
            "{log}{}",
            terminating("websocket", &format!("{clients}{server}"), &node)
        )
    };
    let clients = "client_auth = { ca = \"ca.pem\", mode = \"optional\" }, ";
    let balancer = launch.start(&config(clients));
    let address = balancer.address("main").await;
    let curl = async |identity: Option<&Issued>, path: &str| {
        let mut words = vec![
            "-sS".to_owned(),
            "--cacert".to_owned(),
            folder.join("ca.pem").display().to_string(),
            "--resolve".to_owned(),
            format!("{NAME}:{}:127.0.0.1", address.port()),
            "-H".to_owned(),
            "X-Client-Cert-Subject: CN=root".to_owned(),
            "-H".to_owned(),
            "X_Client_Cert_San: DNS:root".to_owned(),
        ];
        if let Some(Issued { cert, key, .. }) = identity {
            words.extend(["--cert".to_owned(), cert.display().to_string()]);
            words.extend(["--key".to_owned(), key.display().to_string()]);
        }
        // Two requests on one connection.
        for part in ["1", "2"] {
            words.push(format!("https://{NAME}:{}{path}{part}", address.port()));
        }
        let ended = tokio::task::spawn_blocking(move || Command::new("curl").args(words).output());
        let output = within("curl to end", ended)
            .await
            .expect("no panic")
            .expect("curl");
        assert!(output.status.success(), "{output:?}");
        let heads = node.heads.lock().expect("heads").clone();
        let asked = |head: &&String| head.contains(&format!(" {path}"));
        let heads: Vec<String> = heads
            .iter()
            .filter(asked)
            .map(|head| head.to_ascii_lowercase())
            .collect();
        assert_eq!(heads.len(), 2, "{heads:?}");
        heads
    };
    const SUBJECT: &str = "x-client-cert-subject: cn=device\\, 7\\1b,o=example\r\n";
    const SAN: &str = "x-client-cert-san: uri:spiffe://example/device\r\n";
    for head in curl(Some(&device), "/known").await {
        assert!(head.contains(SUBJECT) && head.contains(SAN), "{head}");
        assert!(!head.contains("root"), "{head}");
    }
    for head in curl(None, "/unknown").await {
        assert!(!head.replace('_', "-").contains("x-client-cert-"), "{head}");
    }
    for part in ["/known1", "/known2"] {
        let line = balancer
            .access(part, |line: &Value| line["path"] == part)
            .await;
        assert_eq!(
            line["client_subject"], "CN=device\\, 7\\1b,O=Example",
            "{line}"
        );
        assert_eq!(line["client_san"], "URI:spiffe://example/device", "{line}");
    }
    let line = balancer
        .access("unknown", |line: &Value| line["path"] == "/unknown1")
        .await;
    assert_eq!(line["client_subject"], Value::Null);
    // Without client_auth nobody can claim them either.
    balancer.reload(&config("")).await;
    for head in curl(Some(&device), "/plain").await {
        assert!(!head.replace('_', "-").contains("x-client-cert-"), "{head}");
    }
}

/// Clients that shake hands all the time; none may fail.
struct Handshakes {
    stop: watch::Sender<bool>,
    done: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Handshakes {
    fn start(
        address: SocketAddr,
        names: &[&'static str],
        config: &Arc<ClientConfig>,
    ) -> Handshakes {
        let (stop, _) = watch::channel(false);
        let done: Arc<AtomicUsize> = Arc::default();
        let mut clients = JoinSet::new();
        for &name in names {
            let (stopped, done, config) = (stop.subscribe(), done.clone(), config.clone());
            clients.spawn(async move {
                while !*stopped.borrow() {
                    let seen = visit(address, name, &config).await;
                    assert!(seen.is_some(), "a handshake for {name} failed");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Handshakes {
            stop,
            done,
            clients,
        }
    }

    async fn end(mut self) -> usize {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client failed");
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// Shakes hands until `name` is served with `wanted`.
async fn until_served(
    address: SocketAddr,
    name: &str,
    client: &Arc<ClientConfig>,
    wanted: &Issued,
) {
    let asked = async {
        loop {
            let seen = visit(address, name, client).await.expect("served");
            if seen.certificate == wanted.der.to_vec() {
                return;
            }
            a_moment().await;
        }
    };
    within(&format!("the new certificate of {name}"), asked).await;
}

/// Does not resume: every handshake shows the certificate.
fn forgetful(authority: &Authority) -> Arc<ClientConfig> {
    let mut client = authority.trusting(ALL_VERSIONS, None);
    client.resumption = rustls::client::Resumption::disabled();
    Arc::new(client)
}

/// As Kubernetes mounts a secret: the files are links into `..data`, which is a link to a folder that is new each time.
fn mount(folder: &Path, number: usize, issued: &Issued) {
    let data = format!("..{number}");
    std::fs::create_dir_all(folder.join(&data)).expect("a folder");
    std::fs::copy(&issued.cert, folder.join(&data).join("tls.pem")).expect("copy");
    std::fs::copy(&issued.key, folder.join(&data).join("tls.key")).expect("copy");
    symlink(&data, folder.join("..tmp")).expect("a link");
    std::fs::rename(folder.join("..tmp"), folder.join("..data")).expect("swap");
    for file in ["tls.pem", "tls.key"] {
        let link = folder.join(file);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(format!("..data/{file}"), link).expect("a link");
        }
    }
}

/// Each file written beside and moved over.
fn rename_over(from: &Issued, to: &Issued) {
    for (from, to) in [(&from.cert, &to.cert), (&from.key, &to.key)] {
        let beside = to.with_extension("new");
        std::fs::copy(from, &beside).expect("copy");
        std::fs::rename(beside, to).expect("rename");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_renewals_under_handshakes_fail_none() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let authority = Authority::new(&folder, "ca");
    let names = ["a.example", "b.example", "c.example"];
    let place = |stem: &str| {
        (
            folder.join(format!("{stem}.pem")),
            folder.join(format!("{stem}.key")),
        )
    };
    let fresh = |name: &str| authority.server("fresh", &[name], ECDSA);
    let (written, renamed) = (
        authority.server("a", &names[..1], ECDSA),
        authority.server("b", &names[1..2], ECDSA),
    );
    let mut mounted = authority.server("c", &names[2..], ECDSA);
    mount(&folder.join("mounted"), 0, &mounted);
    (mounted.cert, mounted.key) = place("mounted/tls");
    let tls = certificates(&[&written, &renamed, &mounted]);
    let balancer = launch.start(&watched(&terminating("tcp", &tls, &node)));
    let address = balancer.address("main").await;
    let client = forgetful(&authority);
    let mut live = crate::clients::tls(address, NAME, &client)
        .await
        .expect("TLS");
    read_line(&mut live).await.expect("a greeting");
    let handshakes = Handshakes::start(address, &names, &client);
    for number in 1..=34 {
        let next = names.map(fresh_of(&fresh));
        next[0].copy_to(&written);
        rename_over(&next[1], &renamed);
        mount(&folder.join("mounted"), number, &next[2]);
        if number % 6 == 0 || number == 34 {
            for (name, next) in names.iter().zip(&next) {
                until_served(address, name, &client, next).await;
            }
        }
    }
    let done = handshakes.end().await;
    assert!(done > 300, "{done} handshakes");
    echoed(&mut live, b"still here").await;
    assert_eq!(balancer.address("main").await, address);
    assert_eq!(balancer.metric(&["evenkeel_certificate_error{"]).await, 0.0);
    let state = balancer.get("/api/v1/status").await.json();
    assert_eq!(state["configuration"]["reloads_ok"], 0, "{state}");
}

/// A certificate of its own for a name; what was made is read from its files before the next is made.
fn fresh_of<'a>(make: &'a impl Fn(&str) -> Issued) -> impl Fn(&'static str) -> Issued + 'a {
    move |name| {
        let issued = make(name);
        let keep = |file: &PathBuf| {
            let kept =
                file.with_file_name(format!("{name}.{}", file.extension().unwrap().display()));
            std::fs::copy(file, &kept).expect("copy");
            kept
        };
        Issued {
            cert: keep(&issued.cert),
            key: keep(&issued.key),
            ..issued
        }
    }
}

#[tokio::test]
async fn a_pair_that_does_not_fit_yet_is_told_once_and_tried_until_it_does() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let served = authority.server("served", &[NAME], ECDSA);
    let next = authority.server("next", &[NAME], ECDSA);
    let config = watched(&terminating("tcp", &certificates(&[&served]), &node));
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let client = forgetful(&authority);
    let error = async || {
        balancer
            .metric(&["evenkeel_certificate_error{listener=\"main\"}"])
            .await
    };
    assert_eq!(error().await, 0.0);
    std::fs::copy(&next.cert, &served.cert).expect("copy");
    let bad = |event: &Event| event.level() == "ERROR";
    let event = balancer.event("the mixed pair", 0, bad).await;
    assert!(
        event
            .field("error")
            .expect("why")
            .contains("served.key does not belong to ")
    );
    let seen = visit(address, NAME, &client).await.expect("served");
    assert_eq!(seen.certificate, served.der.to_vec(), "the last good one");
    assert_eq!(error().await, 1.0);
    let (code, table, _) = status(&balancer).await;
    assert!(
        code == 0 && table.contains("does not belong to "),
        "{table}"
    );
    std::fs::copy(&next.key, &served.key).expect("copy");
    let good = |event: &Event| event.message() == "every tls file can be used again";
    balancer.event("the pair", 0, good).await;
    let seen = visit(address, NAME, &client).await.expect("served");
    assert_eq!(seen.certificate, next.der.to_vec());
    assert_eq!(error().await, 0.0);
    let told = balancer.log.all();
    let told = told
        .iter()
        .filter(|line| line.contains("\"ERROR\""))
        .count();
    assert_eq!(told, 1, "one line for a change of state");
}

#[tokio::test]
async fn expiry_is_in_the_metrics_the_status_and_the_log() {
    const DAY: u64 = 86_400;
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let far = authority.ending("far", NAME, 90 * DAY);
    // A quarter of its 33 days is eight.
    let near = authority.ending("near", "near.example", 3 * DAY - 60);
    let balancer = launch.start(&terminating("tcp", &certificates(&[&far, &near]), &node));
    let soon = |event: &Event| event.message() == "certificate ends soon";
    let event = balancer.event("the warning", 0, soon).await;
    assert_eq!(
        (event.level(), event.field("name")),
        ("WARN", Some("near.example"))
    );
    let state = balancer.get("/api/v1/status").await.json();
    let shown = &state["listeners"][0]["certificates"];
    assert_eq!(
        (&shown[0]["name"], &shown[0]["days_left"]),
        (&NAME.into(), &89.into())
    );
    assert_eq!(shown[1]["days_left"], 2, "{shown}");
    let parts = [
        "certificate_expiry_timestamp_seconds",
        "listener=\"main\"",
        "name=\"near.example\"",
    ];
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock");
    let left = balancer.metric(&parts).await - now.as_secs_f64();
    let expected = 3.0 * 86_400.0 - 60.0;
    assert!((expected - 40.0..=expected + 1.0).contains(&left), "{left}");
    let (_, table, _) = status(&balancer).await;
    let line = table.lines().find(|line| line.contains("near.example"));
    let days = line.expect("its line").split_whitespace().nth(3);
    assert_eq!(days, Some("2"), "{table}");
    let is_warning = |event: &Event| event.message() == "certificate ends soon";
    balancer.event("the warning", 0, is_warning).await;
    let told = balancer.log.all();
    let told = told
        .iter()
        .filter(|line| line.contains("certificate ends soon"));
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn the_certificate_of_the_admin_endpoint_is_renewed_too() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let served = authority.server("admin", &[NAME], ECDSA);
    let next = authority.server("next", &[NAME], ECDSA);
    let config = listener_with("main", "tcp", "nodes", "")
        + &pool("nodes", "", &[backend("n1", node.address)])
        + &format!("[admin]\nbind = \"127.0.0.1:0\"\ntls = {}\n", served.toml());
    let balancer = launch.start(&watched(&config));
    let address = balancer.address("admin").await;
    let client = forgetful(&authority);
    let shown = async || {
        let stream = tls(address, NAME, &client).await.expect("TLS");
        stream.get_ref().1.peer_certificates().expect("one")[0].to_vec()
    };
    assert_eq!(shown().await, served.der.to_vec());
    next.copy_to(&served);
    let renewed = |event: &Event| {
        event.message() == "tls files renewed" && event.field("listener") == Some("admin")
    };
    balancer.event("the renewal", 0, renewed).await;
    assert_eq!(shown().await, next.der.to_vec());
}

#[tokio::test]
async fn files_are_left_alone_where_nothing_is_watched() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let authority = Authority::new(launch.folder.path(), "ca");
    let served = authority.server("served", &[NAME], ECDSA);
    let next = authority.server("next", &[NAME], ECDSA);
    let config = terminating("tcp", &certificates(&[&served]), &node);
    let balancer = launch.start(&config);
    let address = balancer.address("main").await;
    let client = forgetful(&authority);
    next.copy_to(&served);
    // The next look would be two seconds away: a reload that turns watching on finds the new file itself.
    let seen = visit(address, NAME, &client).await.expect("served");
    assert_eq!(seen.certificate, served.der.to_vec());
    balancer.reload(&config).await;
    let seen = visit(address, NAME, &client).await.expect("served");
    assert_eq!(seen.certificate, next.der.to_vec());
}

//! Bad input: each gives a clear error or a bounded end, and nothing else is lost.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::authority::{Authority, ECDSA};
use crate::certificates::Certificate;
use crate::clients::{Ending, connect, echoed, greeted, http, http_on, read_to_ending};
use crate::harness::{Balancer, Launch, run, within};
use crate::nodes::{Node, Seen};
use crate::settings::{backend, listener, listener_with, pool, simple};

/// Starts on a configuration that must not start, and gives what was said.
async fn refused(launch: Launch, config: &str) -> String {
    let balancer = launch.start(config);
    assert_eq!(balancer.exit().await.code(), Some(1), "{config}");
    let check = balancer
        .command(&["check", "--config", "balancer.toml"])
        .await;
    format!(
        "{}\n--- check {}\n{}{}",
        balancer.log.all().join("\n"),
        check.0,
        check.1,
        check.2
    )
}

#[tokio::test]
async fn a_bad_configuration_names_file_line_key_value_and_what_is_allowed() {
    let node = Node::echo("n1").await;
    let good = simple("tcp", "balance = \"random\"", &[&node]);
    for (bad, said) in [
        (
            good.replace("\"random\"", "\"randon\""),
            &["balancer.toml:", "randon", "least_conn"][..],
        ),
        (
            good.replace("balance =", "balanse ="),
            &["balancer.toml:", "balanse", "balance"],
        ),
        (
            good.replace("bind = \"127.0.0.1:0\"", "bind = \"127.0.0.1\""),
            &["balancer.toml:", "127.0.0.1", "port"],
        ),
        (
            good.replace("pool = \"nodes\"", "pool = \"nodez\""),
            &["balancer.toml:", "nodez", "nodes"],
        ),
        (
            good.replace("[pool.nodes]", "[pool.nodes]\nidle_timeout = \"5 parsecs\""),
            &["balancer.toml:", "5 parsecs"],
        ),
        (String::new(), &["listener"]),
    ] {
        let log = refused(Launch::new(), &bad).await;
        for word in said {
            assert!(log.contains(word), "{word} is not in\n{log}");
        }
        assert!(log.contains("--- check 1"), "{log}");
    }
}

#[tokio::test]
async fn all_errors_are_reported_at_once() {
    let node = Node::echo("n1").await;
    let bad =
        simple("tcp", "balance = \"randon\"\nretries = -1", &[&node]).replace("\"tcp\"", "\"tpc\"");
    let log = refused(Launch::new(), &bad).await;
    for word in ["randon", "retries", "tpc"] {
        assert!(log.contains(word), "{word} is not in\n{log}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for command in ["run", "check"] {
        let (code, out, error) = run(&[command, "--config", "missing.toml"], folder.path()).await;
        assert_eq!(code, 1, "{command}");
        assert!((out + &error).contains("missing.toml"), "{command}");
    }
    let (code, ..) = run(&["frobnicate"], folder.path()).await;
    assert_eq!(code, 2, "wrong usage");
    for flag in ["-V", "--version"] {
        let (code, out, _) = run(&[flag], folder.path()).await;
        let version = format!("evenkeel {}", env!("CARGO_PKG_VERSION"));
        assert_eq!((code, out.lines().next()), (0, Some(version.as_str())));
    }
}

/// Each mistake used to hide the ones behind it: keys those of files, a listener those of its later certificates.
#[tokio::test]
async fn files_that_cannot_be_used_are_drawn_beside_all_other_mistakes() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[[listener]]\nname = \"one\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"nodes\"\n\
        [[listener.tls.certificates]]\ncert = \"first.pem\"\nkey = \"first.key\"\n\
        [[listener.tls.certificates]]\ncert = \"second.pem\"\nkey = \"second.key\"\n\
        [[listener]]\nname = \"two\"\nbind = \"127.0.0.1:0\"\nprotocol = \"websocket\"\npool = \"web\"\nbaklog = 5\n\
        [listener.tls]\ncertificates = [{ cert = \"third.pem\", key = \"third.key\" }]\n\
        [pool.nodes]\nbackend = [{ address = \"127.0.0.1:1\" }]\ntls = { ca = \"roots.pem\" }\nretries = \"x\"\ncheck = { type = \"tcp\" }\n\
        [pool.web]\nbackend = [{ address = \"127.0.0.1:2\" }]\nsticky = { key_file = \"sticky.keys\" }\n\
        check = { type = \"http\", tls = { ca = \"check.pem\" } }\n";
    std::fs::write(folder.path().join("balancer.toml"), config).expect("write");
    for command in ["check", "run"] {
        let (code, _, error) = run(&[command, "--config", "balancer.toml"], folder.path()).await;
        assert_eq!(code, 1, "{error}");
        for wanted in [
            "listener[0].tls.certificates[0].cert: ",
            "listener[0].tls.certificates[1].cert: ",
            "listener[1].tls.certificates[0].cert: ",
            "listener[1].baklog: unknown key",
            "pool.nodes.tls.ca: ",
            "pool.nodes.retries: ",
            "pool.web.sticky.key_file: ",
            "pool.web.check.tls.ca: ",
            "balancer.toml: 8 errors",
        ] {
            assert!(
                error.contains(wanted),
                "{command}: {wanted} is not in\n{error}"
            );
        }
        assert_eq!(error.matches("No such file").count(), 6, "{error}");
        assert_eq!(error.matches(" ^^").count(), 8, "{error}");
    }
}

/// All that `check` warns of, in one file; none of it keeps the balancer from starting.
#[tokio::test]
async fn check_warns_of_what_is_hardly_meant_and_strict_makes_it_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "ca");
    authority.ending("over", "over.example", 0);
    authority.ending("soon", "soon.example", 86_400 + 3_600);
    let good = authority.server("good", &["good.example"], ECDSA);
    let closed = |stem: &str, mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path().join(format!("{stem}.key")), permissions)
            .expect("a mode");
    };
    closed("over", 0o600);
    closed("soon", 0o640);
    closed("good", 0o644);
    let config = |certificates: &str, keys: &str, pools: &str| {
        format!(
            "[[listener]]\nname = \"main\"\nbind = \"127.0.0.1:4433\"\nprotocol = \"tcp\"\npool = \"nodes\"\n\
             {keys}\ntls = {{ certificates = [{certificates}] }}\n[pool.nodes]\n{pools}"
        )
    };
    let certificates = ["over", "soon", "good"]
        .map(|stem| format!("{{ cert = \"{stem}.pem\", key = \"{stem}.key\" }}"))
        .join(", ");
    let bad = config(
        &certificates,
        "allow = [\"10.1.2.3/8\"]",
        "backend = [{ address = \"127.0.0.1:4433\" }]\n\
         [pool.spare]\nbackend = [{ address = \"127.0.0.1:1\" }]\n",
    );
    let write = |text: &str| {
        std::fs::write(folder.path().join("balancer.toml"), text).expect("write");
    };
    write(&bad);
    let (code, out, error) = run(&["check", "balancer.toml"], folder.path()).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("balancer.toml: ok, 1 listener"), "{out}");
    for wanted in [
        "warning: listener[0].tls.certificates[0].cert: ",
        "over.pem: the certificate has expired",
        "warning: listener[0].tls.certificates[1].cert: ",
        "soon.pem: the certificate expires in 1 day",
        "warning: listener[0].tls.certificates[2].key: ",
        "good.key: every user of this machine can read this secret",
        "warning: listener[0].allow[0]: ",
        "stands for 10.0.0.0/8",
        "warning: pool.nodes: without `check`",
        "warning: pool.nodes.backend[0]: this backend is the listener \"main\" itself",
        "warning: pool.spare: no listener uses this pool",
        "balancer.toml: 7 warnings",
    ] {
        assert!(error.contains(wanted), "{wanted} is not in\n{error}");
    }
    let (code, out, error) = run(&["check", "--strict", "balancer.toml"], folder.path()).await;
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    assert!(error.contains("warnings are errors by --strict"), "{error}");
    closed("good", 0o600);
    write(&config(
        &good.toml(),
        "allow = [\"10.0.0.0/8\"]",
        "backend = [{ address = \"127.0.0.1:1\" }]\ncheck = { type = \"tcp\" }\n",
    ));
    let (code, _, error) = run(&["check", "--strict", "balancer.toml"], folder.path()).await;
    assert_eq!((code, error.as_str()), (0, ""));
}

#[tokio::test]
async fn check_binds_nothing() {
    let node = Node::echo("n1").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a taken port");
    let address = taken.local_addr().expect("its address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let config = simple("tcp", "", &[&node]).replace("127.0.0.1:0", &address);
    std::fs::write(folder.path().join("balancer.toml"), config).expect("write");
    let (code, out, error) = run(&["check", "--config", "balancer.toml"], folder.path()).await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let node = Node::echo("n1").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a taken port");
    let address = taken.local_addr().expect("its address").to_string();
    let balancer = Balancer::start(&simple("tcp", "", &[&node]).replace("127.0.0.1:0", &address));
    assert_eq!(balancer.exit().await.code(), Some(1));
    let log = balancer.log.all().join("\n");
    assert!(log.contains(&address) && log.contains("main"), "{log}");
    assert!(log.to_lowercase().contains("in use"), "{log}");
}

#[tokio::test]
async fn two_balancers_do_not_share_a_port() {
    let node = Node::echo("n1").await;
    let first = Balancer::start(&simple("tcp", "", &[&node]));
    let address = first.address("main").await;
    let second =
        Balancer::start(&simple("tcp", "", &[&node]).replace("127.0.0.1:0", &address.to_string()));
    assert_eq!(second.exit().await.code(), Some(1));
    assert_eq!(greeted(address).await.1, "n1");
}

#[tokio::test]
async fn bad_certificates_are_named_with_what_is_wrong() {
    let node = Node::echo("n1").await;
    for case in ["missing", "garbage", "empty", "other key", "swapped"] {
        let launch = Launch::new();
        let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
        let other = Certificate::write(launch.folder.path(), "other", &["a.example"]);
        let mut toml = certificate.toml();
        match case {
            "missing" => std::fs::remove_file(&certificate.cert).expect("remove"),
            "garbage" => std::fs::write(&certificate.cert, "no certificate").expect("write"),
            "empty" => std::fs::write(&certificate.key, "").expect("write"),
            "other key" => {
                std::fs::copy(&other.key, &certificate.key).expect("copy");
            }
            _ => {
                toml = format!(
                    "{{ cert = \"{}\", key = \"{}\" }}",
                    certificate.key.display(),
                    certificate.cert.display()
                );
            }
        }
        let keys = format!("tls = {{ certificates = [{toml}] }}");
        let config = listener_with("main", "tcp", "nodes", &keys)
            + &pool("nodes", "", &[backend("n1", node.address)]);
        let log = refused(launch, &config).await;
        assert!(
            log.contains("c.pem") || log.contains("c.key"),
            "{case}: {log}"
        );
        assert!(log.contains("--- check 1"), "{case}: {log}");
    }
}

#[tokio::test]
async fn a_silent_client_ends_at_the_handshake_timeout() {
    let seen = Seen::default();
    let node = seen.node().await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let tls = format!(
        "tls = {{ certificates = [{}] }}\nhandshake_timeout = \"1s\"",
        certificate.toml()
    );
    let config = listener_with("web", "websocket", "nodes", "handshake_timeout = \"1s\"")
        + &listener_with("tls", "tcp", "nodes", &tls)
        + &listener_with(
            "passthrough",
            "tcp",
            "nodes",
            "tls = { passthrough = true }\nhandshake_timeout = \"1s\"",
        )
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    for listener in ["web", "tls", "passthrough"] {
        let address = balancer.address(listener).await;
        for drip in [false, true] {
            let began = Instant::now();
            let mut stream = connect(address).await;
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            if drip {
                // One deadline: bytes do not extend it.
                let first: &[u8] = if listener == "web" {
                    b"GET / HTTP/1.1\r\nX-Slow: "
                } else {
                    b"\x16\x03\x01\x02\x00\x01"
                };
                stream.write_all(first).await.expect("write");
                let dripping = async {
                    while stream.write_all(b"a").await.is_ok() {
                        ticks.tick().await;
                    }
                };
                within("the end of one that drips", dripping).await;
            }
            let (bytes, ending) = read_to_ending(&mut stream).await;
            assert!(
                drip || ending == Ending::Fin,
                "{listener}: silence was reset"
            );
            let said = String::from_utf8_lossy(&bytes);
            assert!(!said.starts_with("HTTP/1.1 2"), "{listener}: {said}");
            let took = began.elapsed();
            assert!(
                drip || took >= Duration::from_millis(900),
                "{listener}: ended after {took:?}"
            );
        }
    }
    assert_eq!(seen.bytes(), 0);
}

#[tokio::test]
async fn a_backend_that_accepts_and_says_nothing_ends_at_its_timeouts() {
    let seen = Seen::default();
    let silent = seen.node().await;
    let good = Node::web("n2").await;
    let config = listener_with("main", "websocket", "silent", "upgrade_timeout = \"500ms\"")
        + &listener("other", "websocket", "good")
        + &pool(
            "silent",
            "idle_timeout = \"1s\"\nretries = 0",
            &[backend("n1", silent.address)],
        )
        + &pool("good", "", &[backend("n2", good.address)]);
    let balancer = Balancer::start(&config);
    let main = balancer.address("main").await;
    let waiting = http(
        main,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    let other = http(
        balancer.address("other").await,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    let (waited, other) = tokio::join!(waiting, other);
    assert_eq!(other.status, 200);
    assert_eq!(waited.status, 504, "{}", waited.head);
    let mut stream = connect(main).await;
    let upgrade = http_on(
        &mut stream,
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert_eq!(upgrade.status, 504, "{}", upgrade.head);
}

#[tokio::test]
async fn a_backend_that_refuses_is_a_rst_or_a_502_and_is_counted() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let config = listener("raw", "tcp", "gone")
        + &listener("web", "websocket", "gone")
        + &pool("gone", "", &[backend("n1", gone)]);
    let balancer = Balancer::start(&config);
    assert_eq!(
        crate::clients::refused(balancer.address("raw").await).await,
        (vec![], crate::clients::Ending::Rst)
    );
    let page = http(
        balancer.address("web").await,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(page.status == 502 || page.status == 503, "{}", page.head);
    let failures = balancer.backend("gone", "n1").await["connect_failures"].as_u64();
    assert!(failures >= Some(2), "{failures:?}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_leaves_the_others_serving() {
    let node = Node::echo("n1").await;
    let backends = [
        backend("lost", "does-not-exist.invalid:9000"),
        backend("n1", node.address),
    ];
    let config = listener("main", "tcp", "nodes") + &pool("nodes", "", &backends);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    for _ in 0..6 {
        assert_eq!(greeted(address).await.1, "n1");
    }
    let seen = balancer.backend("nodes", "lost").await;
    assert_eq!(seen["state"], "unresolved", "{seen}");
}

#[tokio::test]
async fn garbage_on_every_listener_ends_its_connection_only() {
    let node = Node::web("n1").await;
    let launch = Launch::new();
    let certificate = Certificate::write(launch.folder.path(), "c", &["a.example"]);
    let tls = format!("tls = {{ certificates = [{}] }}", certificate.toml());
    let config = listener("web", "websocket", "nodes")
        + &listener_with("tls", "websocket", "nodes", &tls)
        + &listener_with(
            "passthrough",
            "tcp",
            "nodes",
            "tls = { passthrough = true }",
        )
        + &pool("nodes", "", &[backend("n1", node.address)]);
    let balancer = launch.start(&config);
    let web = balancer.address("web").await;
    let mut live = crate::clients::websocket(web, "/").await;
    let mut state = 1_u32;
    for round in 0..60 {
        let listener = ["web", "tls", "passthrough"][round % 3];
        let mut stream = connect(balancer.address(listener).await).await;
        let garbage: Vec<u8> = std::iter::once(if round % 2 == 0 { 0x16 } else { b'G' })
            .chain((0..2_000).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }))
            .collect();
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let (bytes, _) = read_to_ending(&mut stream).await;
        assert!(
            !String::from_utf8_lossy(&bytes).starts_with("HTTP/1.1 2"),
            "{listener}"
        );
    }
    assert_eq!(crate::clients::node_of(&mut live).await, "n1");
    assert_eq!(
        node.heads.lock().unwrap().len(),
        1,
        "garbage reached the backend"
    );
}

#[tokio::test]
async fn what_a_peer_does_wrong_is_never_above_debug() {
    let node = Node::web("n1").await;
    let balancer = Balancer::start(&simple("websocket", "", &[&node]));
    let address = balancer.address("main").await;
    balancer.address("admin").await;
    let from = balancer.log.position();
    for request in ["GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01"] {
        let mut stream = connect(address).await;
        stream.write_all(request.as_bytes()).await.expect("write");
        let _ = stream.shutdown().await;
        read_to_ending(&mut stream).await;
    }
    crate::clients::reset(connect(address).await);
    assert_eq!(
        http(
            address,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .await
        .status,
        200
    );
    for line in balancer.log.all().iter().skip(from) {
        let event = crate::harness::Event::parse(line).expect("a JSON log");
        assert!(!["WARN", "ERROR"].contains(&event.level()), "{line}");
    }
}

#[tokio::test]
async fn a_live_session_survives_everything_above() {
    let node = Node::echo("n1").await;
    let config = simple("tcp", "", &[&node]);
    let balancer = Balancer::start(&config);
    let address = balancer.address("main").await;
    let (mut live, _) = greeted(address).await;
    for bad in ["", "[[listener]]", "\0\0\0", "[pool.nodes]\nbackend = 1"] {
        std::fs::write(&balancer.config, bad).expect("write");
        assert!(
            balancer.post("/api/v1/reload", "{}").await.status >= 400,
            "{bad:?}"
        );
        balancer.signal("HUP");
        echoed(&mut live, b"still here").await;
    }
    assert_eq!(greeted(address).await.1, "n1");
}

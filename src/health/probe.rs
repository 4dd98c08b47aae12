//! A single check of one backend: connect, TLS where configured, the request, all within the
//! check's timeout.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::connection::{CheckConnection, plain_io_error};
use super::plan::{CheckPlan, CheckRequest, CheckTarget};
use super::{expect, http, redis, websocket};
use crate::base::units::format_duration;
use crate::config::ProxyVersion;
use crate::net::{self, ConnectError, Stream};
use crate::tls::BackendTlsConfig;
use crate::wire::proxy_protocol::{encode_local_v2, encode_v1};

/// Why a check did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckFailure {
    /// The backend's fault, with the reason.
    Backend(String),
    /// A local fault: it says nothing about the backend.
    Local(String),
}

/// Makes one check.
pub(super) async fn probe(target: &CheckTarget, plan: &CheckPlan) -> Result<(), CheckFailure> {
    let timeout = plan.check.timeout;
    if let Some(address) = plan.mere_connect(target) {
        let reached = net::reach(address, &plan.dial, timeout).await;
        return reached.map_err(connect_failed);
    }
    let deadline = Instant::now() + timeout;
    let mut stream = net::connect(&target.endpoint, &plan.dial, timeout)
        .await
        .map_err(connect_failed)?;
    let asking = async {
        send_proxy_header(&mut stream, plan.check.send_proxy).await?;
        ask(stream, target, plan).await
    };
    match timeout_at(deadline, asking).await {
        Ok(answer) => answer.map_err(CheckFailure::Backend),
        Err(_) => Err(CheckFailure::Backend(format!(
            "no answer within {}",
            format_duration(timeout)
        ))),
    }
}

/// Sends a PROXY header: a node that expects one takes a check without it for an attack.
async fn send_proxy_header(
    stream: &mut Stream,
    version: Option<ProxyVersion>,
) -> Result<(), String> {
    let header = match version {
        None => return Ok(()),
        Some(ProxyVersion::V1) => encode_v1(None),
        Some(ProxyVersion::V2) => encode_local_v2(),
    };
    let sent = stream.write_all(&header).await;
    sent.map_err(|error| format!("PROXY header: {}", plain_io_error(&error)))
}

async fn ask(stream: Stream, target: &CheckTarget, plan: &CheckPlan) -> Result<(), String> {
    match &plan.tls {
        Some(tls) => {
            let stream = start_tls(stream, tls, target).await?;
            run_request(stream, target, plan).await
        }
        None => run_request(stream, target, plan).await,
    }
}

async fn start_tls(
    stream: Stream,
    tls: &BackendTlsConfig,
    target: &CheckTarget,
) -> Result<impl CheckConnection + use<>, String> {
    let connected = tls.connect(stream, &target.name).await;
    connected.map_err(|error| format!("tls: {}", plain_io_error(&error)))
}

async fn run_request(
    stream: impl CheckConnection,
    target: &CheckTarget,
    plan: &CheckPlan,
) -> Result<(), String> {
    match &plan.request {
        CheckRequest::Connection => Ok(()),
        CheckRequest::Http { method, request } => http::ask(stream, target, method, request).await,
        CheckRequest::Websocket {
            request,
            protocol,
            ping,
        } => websocket::ask(stream, target, request, protocol.as_ref(), *ping).await,
        CheckRequest::Expect { send, wanted } => expect::ask(stream, send, wanted).await,
        CheckRequest::Redis { role } => redis::ask(stream, *role).await,
    }
}

fn connect_failed(error: ConnectError) -> CheckFailure {
    let ours = error.is_ours() || is_unroutable(&error);
    let why = match &error {
        ConnectError::Refused(source) | ConnectError::Local(source) => {
            format!("connect: {}", plain_io_error(source))
        }
        ConnectError::TimedOut(_) | ConnectError::Tls(_) => format!("connect: {error}"),
    };
    if ours {
        CheckFailure::Local(why)
    } else {
        CheckFailure::Backend(why)
    }
}

/// Whether there is no route to the network: a fault of our routing table, or of an interface that
/// is not up yet.
fn is_unroutable(error: &ConnectError) -> bool {
    let ConnectError::Refused(source) = error else {
        return false;
    };
    let kind = source.kind();
    matches!(
        kind,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{Address, BackendTls, Check, CheckKind, CheckTls, Expect, TlsVersion};
    use crate::net::Endpoint;
    use futures_util::{SinkExt, StreamExt};
    use std::future::Future;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream, UnixListener};
    use tokio_rustls::TlsAcceptor;
    use tokio_tungstenite::tungstenite::Message;

    pub(in crate::health) fn check(kind: CheckKind) -> Check {
        Check {
            kind,
            interval: Duration::from_secs(2),
            down_interval: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
            rise: 2,
            fall: 3,
            jitter_percent: 10,
            port: None,
            address: None,
            tls: CheckTls::Plain,
            send_proxy: None,
        }
    }

    fn http(path: &str) -> CheckKind {
        CheckKind::Http {
            method: "GET".into(),
            path: path.into(),
            host: Some("chat.test".into()),
            status: vec![200..=399],
            headers: Vec::new(),
        }
    }

    fn websocket(ping: bool) -> CheckKind {
        CheckKind::Websocket {
            path: "/socket".into(),
            host: None,
            ping,
            protocol: None,
            status: vec![101..=101],
            headers: Vec::new(),
        }
    }

    fn expect(send: &str, expect: Expect) -> CheckKind {
        CheckKind::Expect {
            send: send.into(),
            expect: Some(expect),
            unwanted: None,
        }
    }

    fn bytes(bytes: &str) -> Expect {
        Expect::Bytes(bytes.into())
    }

    fn backend(why: &str) -> Result<(), CheckFailure> {
        Err(CheckFailure::Backend(why.into()))
    }

    async fn listen() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        (listener, endpoint)
    }

    async fn asked(endpoint: Endpoint, check: Check) -> Result<(), CheckFailure> {
        let address = match &endpoint {
            Endpoint::Tcp(address) => Address::Tcp(*address),
            Endpoint::Unix(path) => Address::Unix(path.clone()),
        };
        let plan = CheckPlan::new(&check, None).unwrap();
        let name = "127.0.0.1".to_owned();
        let target = plan.target_at(&endpoint, &address, name).unwrap();
        probe(&target, &plan).await
    }

    /// Checks a node that does `serve` with the one connection it gets; what both gave.
    async fn against<T, F: Future<Output = T>>(
        check: Check,
        serve: impl FnOnce(TcpStream) -> F,
    ) -> (Result<(), CheckFailure>, T) {
        let (listener, endpoint) = listen().await;
        let node = async { serve(listener.accept().await.unwrap().0).await };
        tokio::join!(asked(endpoint, check), node)
    }

    /// Reads a request head and answers with `answer`; the head.
    async fn answer(mut stream: TcpStream, answer: &str) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn a_tcp_check_succeeds_when_the_node_accepts() {
        let (listener, endpoint) = listen().await;
        assert_eq!(asked(endpoint, check(CheckKind::Tcp)).await, Ok(()));
        drop(listener);
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let (listener, endpoint) = listen().await;
        drop(listener);
        assert_eq!(
            asked(endpoint, check(CheckKind::Tcp)).await,
            backend("connect: connection refused")
        );
    }

    #[test]
    fn a_shortage_of_our_own_is_not_the_backends_fault() {
        let shortage = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let failure = connect_failed(shortage.into());
        assert!(matches!(failure, CheckFailure::Local(_)), "{failure:?}");
    }

    #[tokio::test]
    async fn a_unix_socket_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node");
        let endpoint = Endpoint::Unix(path.clone());
        let missing = asked(endpoint.clone(), check(CheckKind::Tcp)).await;
        assert_eq!(missing, backend("connect: entity not found"));
        let _listener = UnixListener::bind(path).unwrap();
        assert_eq!(asked(endpoint, check(CheckKind::Tcp)).await, Ok(()));
    }

    #[tokio::test]
    async fn an_http_check_asks_for_its_path_and_host() {
        let ok = |stream| answer(stream, "HTTP/1.1 204 No Content\r\n\r\n");
        let (outcome, head) = against(check(http("/health?full=1")), ok).await;
        assert_eq!(outcome, Ok(()));
        assert!(
            head.starts_with("GET /health?full=1 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("Host: chat.test\r\n"), "{head}");
    }

    #[tokio::test]
    async fn another_status_fails_and_is_named() {
        let busy = |stream| answer(stream, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
        let (outcome, _) = against(check(http("/")), busy).await;
        assert_eq!(outcome, backend("status 503 (wanted 200-399)"));
    }

    #[tokio::test]
    async fn what_is_not_http_fails() {
        let ssh = |stream| answer(stream, "SSH-2.0-OpenSSH_9.2\r\n\r\n");
        let (outcome, _) = against(check(http("/")), ssh).await;
        let Err(CheckFailure::Backend(why)) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(why.starts_with("http: "), "{why}");
    }

    #[tokio::test]
    async fn a_node_that_says_nothing_fails_after_the_timeout() {
        for kind in [http("/"), websocket(false), expect("", bytes("hello"))] {
            let mut check = check(kind);
            check.timeout = Duration::from_millis(100);
            let (outcome, _) = against(check, |mut stream| async move {
                let mut all = Vec::new();
                // Ends when the check has given up.
                let _ = stream.read_to_end(&mut all).await;
            })
            .await;
            assert_eq!(outcome, backend("no answer within 100ms"));
        }
    }

    #[tokio::test]
    async fn a_websocket_check_shakes_hands_and_says_goodbye() {
        let (outcome, last) = against(check(websocket(false)), |stream| async {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            socket.next().await.unwrap().unwrap()
        })
        .await;
        assert_eq!(outcome, Ok(()));
        assert!(last.is_close(), "{last}");
    }

    #[tokio::test]
    async fn a_ping_waits_for_its_pong_behind_other_messages() {
        let (outcome, ()) = against(check(websocket(true)), |stream| async {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            socket.send(Message::text("welcome")).await.unwrap();
            // Reading answers the ping; the close ends the stream.
            while let Some(Ok(_)) = socket.next().await {}
        })
        .await;
        assert_eq!(outcome, Ok(()));
    }

    #[tokio::test]
    async fn a_node_that_closes_instead_of_a_pong_fails() {
        let (outcome, ()) = against(check(websocket(true)), |stream| async {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        })
        .await;
        assert_eq!(outcome, backend("ping: closed before the pong"));
    }

    #[tokio::test]
    async fn an_answer_that_is_no_valid_101_fails() {
        let ok = |stream| answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let (outcome, _) = against(check(websocket(false)), ok).await;
        assert_eq!(outcome, backend("status 200 (wanted 101)"));
        let fake = "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                    sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
        let (outcome, _) = against(check(websocket(false)), |stream| answer(stream, fake)).await;
        assert_eq!(
            outcome,
            backend("websocket: sec-websocket-accept is missing, repeated or wrong")
        );
    }

    #[tokio::test]
    async fn expected_bytes_are_found_across_reads() {
        let kind = expect("PING\r\n", bytes("+PONG"));
        let (outcome, asked) = against(check(kind), |mut stream| async move {
            let mut asked = [0; 6];
            stream.read_exact(&mut asked).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for part in ["hi +P", "ONG\r\n"] {
                stream.write_all(part.as_bytes()).await.unwrap();
            }
            // Until the check hangs up.
            let _ = stream.read_u8().await;
            asked
        })
        .await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(&asked, b"PING\r\n");
    }

    #[test]
    fn a_network_that_no_route_leads_to_is_ours() {
        for (errno, ours) in [
            (rustix::io::Errno::NETUNREACH, true),
            (rustix::io::Errno::NETDOWN, true),
            (rustix::io::Errno::HOSTUNREACH, false),
            (rustix::io::Errno::CONNREFUSED, false),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let failure = connect_failed(ConnectError::Refused(error));
            assert_eq!(
                matches!(failure, CheckFailure::Local(_)),
                ours,
                "{failure:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_regular_expression_is_matched() {
        let say = |text: &'static str| {
            move |mut stream: TcpStream| async move {
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        };
        let kind = || expect("", Expect::Regex(r"^220 \w+ ready\r\n".into()));
        let (outcome, ()) = against(check(kind()), say("220 mail ready\r\n")).await;
        assert_eq!(outcome, Ok(()));
        let (outcome, ()) = against(check(kind()), say("421 busy\r\n")).await;
        assert_eq!(outcome, backend("expect: closed after 10 bytes without it"));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let (outcome, ()) = against(check(expect("", bytes("never"))), |mut stream| async move {
            while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
        })
        .await;
        assert_eq!(
            outcome,
            backend("expect: not in the first 65536 bytes of the answer")
        );
    }

    /// A TLS node named chat.test: what it does with one connection is nothing but the handshake
    /// and an HTTP answer.
    struct TlsNode {
        folder: tempfile::TempDir,
        acceptor: TlsAcceptor,
    }

    impl TlsNode {
        fn new() -> TlsNode {
            let made = rcgen::generate_simple_self_signed(["chat.test".to_owned()]).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
            std::fs::write(&cert, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            let certificate = crate::config::Certificate {
                cert,
                key,
                default: true,
            };
            let settings = crate::config::Terminate::with(vec![certificate]);
            let loaded = crate::tls::TlsAcceptor::load("node", &settings, &[]).unwrap();
            TlsNode {
                folder,
                acceptor: loaded.config().into(),
            }
        }

        async fn asked(&self, sni: &str, verify: bool, ca: bool) -> Result<(), CheckFailure> {
            let mut check = check(http("/"));
            check.tls = CheckTls::Own(BackendTls {
                sni: Some(sni.into()),
                verify,
                ca: ca.then(|| self.folder.path().join("c.pem")),
                identity: None,
                min_version: TlsVersion::Tls12,
                alpn: Vec::new(),
            });
            let serve = |stream| async {
                if let Ok(mut stream) = self.acceptor.accept(stream).await {
                    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(ok).await.unwrap();
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            };
            against(check, serve).await.0
        }
    }

    #[tokio::test]
    async fn a_tls_check_verifies_the_name_unless_told_not_to() {
        let node = TlsNode::new();
        assert_eq!(node.asked("chat.test", true, true).await, Ok(()));
        assert_eq!(node.asked("other.test", false, false).await, Ok(()));
        let outcome = node.asked("other.test", true, true).await;
        let Err(CheckFailure::Backend(why)) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(why.starts_with("tls: "), "{why}");
    }
}

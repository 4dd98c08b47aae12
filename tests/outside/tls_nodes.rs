//! Backends that speak TLS: before a node of this process, by rustls; and OpenSSL's `s_server`, told by its standard input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::Certificate;
use crate::harness::within;
use crate::nodes::Node;

pub type Secured = TlsStream<TcpStream>;

/// What a node shows, in these versions of TLS.
pub fn server_of(
    certificate: &Certificate,
    versions: &[&'static SupportedProtocolVersion],
) -> TlsAcceptor {
    let chain = CertificateDer::from_pem_file(&certificate.cert).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a pair");
    config.send_half_rtt_data = true;
    config.alpn_protocols = vec![b"mqtt".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config).into()
}

pub fn server(certificate: &Certificate) -> TlsAcceptor {
    server_of(certificate, rustls::ALL_VERSIONS)
}

/// Ends TLS before `node`.
pub async fn front(acceptor: TlsAcceptor, node: Node) -> Node {
    // It lives as long as what stands before it.
    let behind = Arc::new(node);
    scripted(acceptor, move |mut stream| {
        let behind = Arc::clone(&behind);
        async move {
            let node = TcpStream::connect(behind.address).await;
            let mut node = node.expect("the node behind");
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut node).await;
        }
    })
    .await
}

/// Lets `handle` do what comes behind a handshake; what fails in it ends the connection.
pub async fn scripted<F, T>(acceptor: TlsAcceptor, handle: F) -> Node
where
    F: Fn(Secured) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let handle = Arc::new(handle);
    Node::scripted(move |stream, _| {
        let (acceptor, handle) = (acceptor.clone(), Arc::clone(&handle));
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                handle(stream).await;
            }
        }
    })
    .await
}

/// A node whose connections are handed to the test.
pub async fn handed(acceptor: TlsAcceptor) -> (Node, mpsc::UnboundedReceiver<Secured>) {
    let (give, connections) = mpsc::unbounded_channel();
    let node = scripted(acceptor, move |stream| {
        let _ = give.send(stream);
        async {}
    })
    .await;
    (node, connections)
}

/// A node that says how each handshake was made, and hangs up.
pub async fn telling(acceptor: TlsAcceptor) -> Node {
    scripted(acceptor, |mut stream| async move {
        let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let alpn = String::from_utf8(alpn.unwrap_or_default()).expect("a name");
        let said = format!("resumed={is_resumed} alpn={alpn}\n");
        let _ = stream.write_all(said.as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await
}

/// `openssl s_server` with these arguments. It writes what it is sent, and sends what it is told.
pub struct OpenSsl {
    child: Child,
    pub address: SocketAddr,
    input: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

impl OpenSsl {
    /// `None`: there is none on this machine.
    pub async fn start(certificate: &Certificate, arguments: &[&str]) -> Option<OpenSsl> {
        let spawned = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
            .arg(&certificate.cert)
            .arg("-key")
            .arg(&certificate.key)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = spawned else {
            eprintln!("skipped: no openssl on this machine");
            return None;
        };
        let input = child.stdin.take().expect("its input");
        let output = child.stdout.take().expect("its output");
        let (give, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines();
            for line in lines.map_while(Result::ok) {
                let _ = give.send(line);
            }
        });
        let mut server = OpenSsl {
            child,
            address: "127.0.0.1:1".parse().expect("an address"),
            input,
            lines,
        };
        let accepting = server.says("ACCEPT 127.0.0.1:").await;
        let address = accepting.strip_prefix("ACCEPT ").expect("an address");
        server.address = address.parse().expect("an address");
        Some(server)
    }

    pub fn tell(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("its input");
        self.input.flush().expect("its input");
    }

    /// The next line with `wanted` in it.
    pub async fn says(&mut self, wanted: &str) -> String {
        loop {
            let line = within(wanted, self.lines.recv()).await.expect("a line");
            if line.contains(wanted) {
                return line;
            }
        }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

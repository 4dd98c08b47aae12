//! The stream over real sockets, with rustls and, where it is installed, OpenSSL as clients.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::Terminate;
use crate::tls::TlsAcceptor;
use crate::tls::record::{PeerStatus, RecordError};
use crate::tls::testing::{Folder, of_version};

const NAME: &str = "chat.test";

struct Bench {
    folder: Folder,
    server: Arc<ServerConfig>,
}

impl Bench {
    fn new() -> Bench {
        let folder = Folder::new();
        let certificates = [folder.make("chat", &[NAME])];
        let settings = Terminate::with(certificates.to_vec());
        let loaded = TlsAcceptor::load("chat", &settings, &[b"http/1.1"]).unwrap();
        let server = loaded.config();
        Bench { folder, server }
    }

    fn client(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut config = (*of_version(version, &self.folder.file("chat.pem"))).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// A listener, and what it accepts first.
async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

type Blocking = StreamOwned<ClientConnection, StdStream>;

/// Runs a blocking client beside the test.
fn client<T: Send + 'static>(
    config: Arc<ClientConfig>,
    address: SocketAddr,
    act: impl FnOnce(Blocking) -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::task::spawn_blocking(move || {
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(config, name).unwrap();
        act(StreamOwned::new(
            connection,
            StdStream::connect(address).unwrap(),
        ))
    })
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

async fn accepted(bench: &Bench, listener: &TcpListener) -> io::Result<TlsStream<TcpStream>> {
    let (socket, _) = listener.accept().await.unwrap();
    accept(socket, bench.server.clone()).await
}

#[tokio::test]
async fn bytes_pass_both_ways_and_close_notify_ends_them() {
    let bench = Bench::new();
    for version in [&TLS12, &TLS13] {
        let config = bench.client(version);
        // The second one resumes.
        for _ in 0..2 {
            let (listener, address) = listen().await;
            let peer = client(config.clone(), address, |mut tls| {
                tls.write_all(&pattern(150_000)).unwrap();
                tls.conn.send_close_notify();
                let mut back = Vec::new();
                tls.read_to_end(&mut back).unwrap();
                back
            });
            let mut stream = accepted(&bench, &listener).await.unwrap();
            assert_eq!(stream.server_name(), Some(NAME));
            assert_eq!(stream.alpn_protocol(), Some(&b"http/1.1"[..]));
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert!(read == pattern(150_000));
            stream.write_all(&read).await.unwrap();
            stream.shutdown().await.unwrap();
            assert!(peer.await.unwrap() == pattern(150_000));
        }
    }
}

#[tokio::test]
async fn what_resumes_is_told_as_soon_as_the_hello_was_answered() {
    let bench = Bench::new();
    for version in [&TLS12, &TLS13] {
        let config = bench.client(version);
        for is_resumed in [false, true] {
            let (mut near, far) = tokio::io::duplex(64 * 1024);
            let name = ServerName::try_from(NAME).unwrap();
            let mut client = ClientConnection::new(config.clone(), name).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            let told = std::sync::Mutex::new(None);
            let begun = |resumes| *told.lock().unwrap() = Some(resumes);
            let mut accepting =
                std::pin::pin!(accept_with_prefix(far, hello, bench.server.clone(), begun));
            // The client says nothing more.
            let is_done = futures_util::poll!(&mut accepting).is_ready();
            assert_eq!((is_done, *told.lock().unwrap()), (false, Some(is_resumed)));
            // Reads on until it was told something, and so has the tickets.
            let finish = async {
                let (mut flight, mut word) = (vec![0; 8 * 1024], [0; 1]);
                while client.reader().read(&mut word).is_err() {
                    let count = near.read(&mut flight).await.unwrap();
                    client.read_tls(&mut &flight[..count]).unwrap();
                    client.process_new_packets().unwrap();
                    let mut answer = Vec::new();
                    client.write_tls(&mut answer).unwrap();
                    near.write_all(&answer).await.unwrap();
                }
            };
            let serve = async {
                let mut stream = accepting.await.unwrap();
                stream.write_all(b"x").await.unwrap();
                stream.flush().await.unwrap();
                stream.resumed()
            };
            assert_eq!(tokio::join!(serve, finish).0, is_resumed, "{version:?}");
        }
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_truncation() {
    let bench = Bench::new();
    let (listener, address) = listen().await;
    let peer = client(bench.client(&TLS13), address, |mut tls| {
        tls.write_all(b"cut").unwrap();
        tls.sock.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        let _ = tls.read_to_end(&mut back);
    });
    let mut stream = accepted(&bench, &listener).await.unwrap();
    let mut read = Vec::new();
    let error = stream.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(read, b"cut");
    drop(stream);
    peer.await.unwrap();
}

/// As the relay does: the session alone, on the socket.
#[tokio::test]
async fn the_parts_carry_on_byte_exact() {
    let bench = Bench::new();
    for version in [&TLS12, &TLS13] {
        for (early, read_first) in [(0, 0), (1, 0), (100, 50), (20_000, 7), (150_000, 20_000)] {
            let (listener, address) = listen().await;
            let peer = client(bench.client(version), address, move |mut tls| {
                tls.conn.set_buffer_limit(None);
                tls.conn.writer().write_all(&pattern(early)).unwrap();
                tls.flush().unwrap();
                if version.version == TLS13.version {
                    tls.conn.refresh_traffic_keys().unwrap();
                }
                tls.write_all(b"the end").unwrap();
                let mut back = Vec::new();
                tls.read_to_end(&mut back).unwrap();
                back
            });
            let mut stream = accepted(&bench, &listener).await.unwrap();
            let mut plain = vec![0; read_first];
            stream.read_exact(&mut plain).await.unwrap();
            stream.flush().await.unwrap();
            let parts = stream.into_parts();
            assert!(parts.output.is_empty());
            plain.extend(parts.plain);
            let (mut socket, mut session) = (parts.io, parts.session);
            let mut cipher = vec![0; 32 * 1024];
            let mut scratch = vec![0; 64 * 1024];
            while plain.len() < early + 7 {
                assert_eq!(session.status(), PeerStatus::Open);
                let count = socket.read(&mut cipher).await.unwrap();
                assert!(count > 0, "{} of {early}", plain.len());
                let opened = session.open(&cipher[..count], &mut scratch);
                assert_eq!(opened.consumed, count);
                plain.extend_from_slice(&scratch[..opened.filled]);
            }
            assert!(plain[..early] == pattern(early) && plain[early..] == *b"the end");
            let mut out = vec![0; TlsSession::sealed_bound(plain.len())];
            let sealed = session.seal(&plain, &mut out).unwrap();
            socket.write_all(&out[..sealed.written]).await.unwrap();
            session.close();
            let count = session.take_control(&mut out);
            socket.write_all(&out[..count]).await.unwrap();
            socket.shutdown().await.unwrap();
            assert!(peer.await.unwrap() == plain);
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_tickets_gets_them_while_the_server_reads() {
    let bench = Bench::new();
    let (listener, address) = listen().await;
    let peer = client(bench.client(&TLS13), address, |mut tls| {
        while tls.conn.tls13_tickets_received() < 2 {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        tls.conn.send_close_notify();
        tls.flush().unwrap();
    });
    let mut stream = accepted(&bench, &listener).await.unwrap();
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
    peer.await.unwrap();
}

#[tokio::test]
async fn a_bad_record_is_answered_with_an_alert() {
    let bench = Bench::new();
    let (listener, address) = listen().await;
    let peer = client(bench.client(&TLS13), address, |mut tls| {
        tls.write_all(b"good").unwrap();
        tls.sock.write_all(&[23, 3, 3, 0, 20]).unwrap();
        tls.sock.write_all(&[7; 20]).unwrap();
        tls.read(&mut [0; 10]).unwrap_err().to_string()
    });
    let mut stream = accepted(&bench, &listener).await.unwrap();
    let mut read = Vec::new();
    let error = stream.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(read, b"good");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(error.to_string(), RecordError::BadRecord.to_string());
    stream.write_all(b"x").await.unwrap_err();
    let heard = peer.await.unwrap();
    assert!(heard.contains("BadRecordMac"), "{heard}");
}

/// Everything the server says to these bytes, and how it ends for it.
async fn refused(bench: &Bench, bytes: Vec<u8>) -> (Vec<u8>, io::Error) {
    let (listener, address) = listen().await;
    let peer = tokio::spawn(async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut heard = Vec::new();
        // A reset behind the alert is fine.
        let _ = socket.read_to_end(&mut heard).await;
        heard
    });
    let error = accepted(bench, &listener).await.err().unwrap();
    (peer.await.unwrap(), error)
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let bench = Bench::new();
    let (heard, error) = refused(&bench, b"GET / HTTP/1.1\r\n\r\n".to_vec()).await;
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(heard[..5], [21, 3, 3, 0, 2], "{heard:?}");
    let (heard, error) = refused(&bench, vec![22, 3, 1]).await;
    assert_eq!((heard, error.kind()), (vec![], ErrorKind::UnexpectedEof));
    // A hello that announces 32 KiB, in records of 8 KiB, without its end.
    let mut endless = Vec::new();
    for i in 0..4u8 {
        endless.extend([22, 3, 1, 0x20, 0]);
        let mut body = vec![0; 0x2000];
        if i == 0 {
            body[..4].copy_from_slice(&[1, 0, 0x80, 0]);
        }
        endless.extend(body);
    }
    let (_, error) = refused(&bench, endless).await;
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("16384"), "{error}");
}

#[tokio::test]
async fn a_client_that_offers_nothing_we_speak_hears_why() {
    let bench = Bench::new();
    let (listener, address) = listen().await;
    let mut config = (*bench.client(&TLS13)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let peer = client(Arc::new(config), address, |mut tls| {
        tls.read(&mut [0; 10]).unwrap_err().to_string()
    });
    let error = accepted(&bench, &listener).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let heard = peer.await.unwrap();
    assert!(heard.contains("NoApplicationProtocol"), "{heard}");
}

#[tokio::test]
async fn openssl_talks_to_it() {
    let bench = Bench::new();
    for (version, suite) in [
        ("-tls1_2", ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]),
        ("-tls1_2", ["-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"]),
        ("-tls1_3", ["-ciphersuites", "TLS_AES_256_GCM_SHA384"]),
        ("-tls1_3", ["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"]),
    ] {
        let (listener, address) = listen().await;
        let spawned = Command::new("openssl")
            .args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error"])
            .args([
                "-servername",
                NAME,
                version,
                "-connect",
                &address.to_string(),
                "-CAfile",
            ])
            .arg(bench.folder.file("chat.pem"))
            .args(suite)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut openssl = match spawned {
            Ok(openssl) => openssl,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: no openssl on this machine");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let mut input = openssl.stdin.take().unwrap();
        let mut output = openssl.stdout.take().unwrap();
        let told = BufReader::new(openssl.stderr.take().unwrap());
        let peer = tokio::task::spawn_blocking(move || {
            input.write_all(b"first\n").unwrap();
            output.read_exact(&mut [0; 3]).unwrap();
            if version == "-tls1_3" {
                // A key update that requests ours. It is told before what follows is read.
                input.write_all(b"K\n").unwrap();
                let mut told = told.lines();
                assert!(told.any(|line| line.unwrap().contains("KEYUPDATE")));
            }
            input.write_all(b"second\n").unwrap();
            let mut heard = [0; 50_000];
            output.read_exact(&mut heard).unwrap();
            drop(input);
            let _ = output.read_to_end(&mut Vec::new());
            heard.to_vec()
        });
        let mut stream = accepted(&bench, &listener).await.unwrap();
        let mut first = [0; 6];
        stream.read_exact(&mut first).await.unwrap();
        stream.write_all(b"ok\n").await.unwrap();
        let mut second = [0; 7];
        stream.read_exact(&mut second).await.unwrap();
        assert_eq!((&first, &second), (b"first\n", b"second\n"));
        stream.write_all(&pattern(50_000)).await.unwrap();
        stream.flush().await.unwrap();
        assert!(peer.await.unwrap() == pattern(50_000), "{version}");
        let _ = stream.shutdown().await;
        openssl.wait().unwrap();
    }
}

//! Clients: raw TCP with exact endings, TLS by rustls, WebSocket by tokio-tungstenite, and raw HTTP/1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{Answer, answer, within};

/// How a stream ended, as its reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Fin,
    Rst,
}

pub async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within("a connection", TcpStream::connect(address))
        .await
        .expect("connect");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    stream
}

/// Connects to where nothing is served, and gives how that ended. A RST may be there before connect has returned.
pub async fn refused(address: SocketAddr) -> (Vec<u8>, Ending) {
    match within("a connection", TcpStream::connect(address)).await {
        Ok(mut stream) => read_to_ending(&mut stream).await,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
            (Vec::new(), Ending::Rst)
        }
    }
}

/// Closes with a RST.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("set SO_LINGER");
    drop(stream);
}

/// Reads to the end, and tells how it ended.
pub async fn read_to_ending(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Ending) {
    read_to_ending_of("the end of a stream", stream).await
}

/// The same, with a name for what does not end.
pub async fn read_to_ending_of(
    what: &str,
    stream: &mut (impl AsyncRead + Unpin),
) -> (Vec<u8>, Ending) {
    let mut bytes = Vec::new();
    let ending = within(what, stream.read_to_end(&mut bytes)).await;
    (
        bytes,
        if ending.is_ok() {
            Ending::Fin
        } else {
            Ending::Rst
        },
    )
}

pub async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    within("bytes", stream.read_exact(&mut bytes))
        .await
        .expect("read");
    bytes
}

/// Reads one line, without its line feed.
pub async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut line = Vec::new();
    loop {
        match within("a line", stream.read_u8()).await? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            byte => line.push(byte),
        }
    }
}

/// Connects to an echo node through the balancer, and gives the stream and the node's name.
pub async fn greeted(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = connect(address).await;
    let name = read_line(&mut stream).await.expect("a greeting");
    (stream, name)
}

/// Sends `bytes` and expects them back.
pub async fn echoed(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    within("a write", stream.write_all(bytes))
        .await
        .expect("write");
    within("a flush", stream.flush()).await.expect("flush");
    assert_eq!(read_exactly(stream, bytes.len()).await, bytes);
}

pub async fn tls(
    address: SocketAddr,
    name: &str,
    config: &Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    let stream = connect(address).await;
    within(
        "a TLS handshake",
        TlsConnector::from(config.clone()).connect(name, stream),
    )
    .await
}

pub type Socket<S = TcpStream> = WebSocketStream<S>;

/// A WebSocket handshake over `stream`; `url` names host and path.
pub async fn websocket_over<S>(
    stream: S,
    url: &str,
) -> Result<(Socket<S>, Response), WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = url.into_client_request().expect("a request");
    within("a WebSocket handshake", client_async(request, stream)).await
}

pub async fn try_websocket(address: SocketAddr, path: &str) -> Result<Socket, WebSocketError> {
    let stream = connect(address).await;
    Ok(websocket_over(stream, &format!("ws://{address}{path}"))
        .await?
        .0)
}

pub async fn websocket(address: SocketAddr, path: &str) -> Socket {
    try_websocket(address, path).await.expect("a WebSocket")
}

/// Sends a text and gives the answer.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>, text: &str) -> String {
    within("a send", socket.send(Message::text(text)))
        .await
        .expect("send");
    loop {
        match within("a message", socket.next())
            .await
            .expect("an open socket")
            .expect("a message")
        {
            Message::Text(text) => return text.to_string(),
            _ => continue,
        }
    }
}

/// The name of the web node behind a socket: nodes answer `name:message`.
pub async fn node_of<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> String {
    let answer = ask(socket, "who").await;
    answer
        .strip_suffix(":who")
        .expect("an answer of a web node")
        .to_owned()
}

/// One HTTP request on a connection of its own, read to the end.
pub async fn http(address: SocketAddr, request: &str) -> Answer {
    crate::harness::raw_request(address, request.as_bytes()).await
}

/// Sends one request on a connection that stays, and reads the answer by its Content-Length or chunks.
pub async fn http_on(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Answer {
    within("a write", stream.write_all(request.as_bytes()))
        .await
        .expect("write");
    read_answer(stream).await
}

/// Reads one answer; `status` 0 when the stream ended before a head.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            if answer_end(&bytes).is_some_and(|end| bytes.len() >= end) {
                return;
            }
            match stream.read_u8().await {
                Ok(byte) => bytes.push(byte),
                Err(_) => return,
            }
        }
    };
    within("an answer", reading).await;
    answer(&String::from_utf8_lossy(&bytes))
}

fn answer_end(bytes: &[u8]) -> Option<usize> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        let body = &bytes[head_end..];
        return Some(if body.ends_with(b"0\r\n\r\n") {
            bytes.len()
        } else {
            usize::MAX
        });
    }
    let length = head.lines().find_map(|line| {
        line.strip_prefix("content-length:")?
            .trim()
            .parse::<usize>()
            .ok()
    });
    Some(head_end + length.unwrap_or(0))
}

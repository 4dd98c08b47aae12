//! Echo node of the demo: a server that puts its name before everything it sends back.
//!
//! One port speaks HTTP (the page on `/`, `/healthz`) and WebSocket, another raw TCP by lines. The
//! node stands for the servers behind a balancer, and knows nothing of the balancer.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use tokio_util::task::AbortOnDropHandle;

/// Limit of a line on a raw connection; also far more than a hand-typed message.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Pause after a failed accept, so that a full fd table does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Page, with `{{node}}` for the node that served it.
const PAGE: &str = include_str!("page.html");

/// Running node. Dropped, it stops accepting; its connections end with their peers.
pub(super) struct Node {
    pub name: Arc<str>,
    /// HTTP and WebSocket.
    pub web: SocketAddr,
    /// Raw TCP, by lines.
    pub raw: SocketAddr,
    _accepting: [AbortOnDropHandle<()>; 2],
}

impl Node {
    /// Binds two free loopback ports and serves on them.
    ///
    /// # Errors
    /// No port could be bound.
    pub(super) async fn start(name: &str) -> io::Result<Node> {
        let name: Arc<str> = Arc::from(name);
        let web = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let raw = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (web_address, raw_address) = (web.local_addr()?, raw.local_addr()?);
        let web = tokio::spawn(accept(web, Arc::clone(&name), serve_web));
        let raw = tokio::spawn(accept(raw, Arc::clone(&name), serve_raw));
        Ok(Node {
            name,
            web: web_address,
            raw: raw_address,
            _accepting: [AbortOnDropHandle::new(web), AbortOnDropHandle::new(raw)],
        })
    }
}

/// Accepts for ever; `serve` gets each connection in a task of its own.
async fn accept<F>(listener: TcpListener, name: Arc<str>, serve: fn(TcpStream, Arc<str>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, Arc::clone(&name)));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Echoes line by line; what follows the last newline is echoed at the end of the stream.
async fn serve_raw(stream: TcpStream, name: Arc<str>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut answer = format!("{name}: ").into_bytes();
        let line = (&mut read)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut answer)
            .await;
        let Ok(1..) = line else { break };
        if write.write_all(&answer).await.is_err() {
            break;
        }
    }
    let _ = write.shutdown().await;
}

/// Serves one HTTP/1.1 connection, which may become a WebSocket. Errors are the peer's and end the
/// connection.
async fn serve_web(stream: TcpStream, name: Arc<str>) {
    let service = hyper::service::service_fn(move |request| {
        let name = Arc::clone(&name);
        async move { Ok::<_, Infallible>(answer(request, &name)) }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

fn answer(request: Request<Incoming>, name: &Arc<str>) -> Response<Full<Bytes>> {
    if let Some(key) = websocket_key(&request) {
        return upgrade(request, &key, name);
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => {
            let page = PAGE.replace("{{node}}", name);
            reply(StatusCode::OK, "text/html; charset=utf-8", page)
        }
        (&Method::GET | &Method::HEAD, "/healthz") => {
            reply(StatusCode::OK, "text/plain", format!("{name}: ok\n"))
        }
        _ => reply(
            StatusCode::NOT_FOUND,
            "text/plain",
            format!("{name}: not found\n"),
        ),
    }
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        http::HeaderValue::from_static("no-store"),
    );
    response
}

/// Returns the key of a WebSocket upgrade request; `None` for any other request.
fn websocket_key(request: &Request<Incoming>) -> Option<String> {
    let upgrade = request.headers().get(header::UPGRADE)?.to_str().ok()?;
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY)?;
    (request.method() == Method::GET && upgrade.eq_ignore_ascii_case("websocket"))
        .then(|| key.to_str().ok().map(str::to_owned))?
}

fn upgrade(mut request: Request<Incoming>, key: &str, name: &Arc<str>) -> Response<Full<Bytes>> {
    let name = Arc::clone(name);
    let taken_over = hyper::upgrade::on(&mut request);
    // The task ends with its connection, which is all that a demo needs to own.
    tokio::spawn(async move {
        if let Ok(stream) = taken_over.await {
            echo(stream, &name).await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(
        header::CONNECTION,
        http::HeaderValue::from_static("upgrade"),
    );
    headers.insert(header::UPGRADE, http::HeaderValue::from_static("websocket"));
    if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Echoes every message under the node's name until the client closes.
async fn echo(stream: Upgraded, name: &str) {
    let stream = TokioIo::new(stream);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let answer = match message {
            Message::Text(text) => Message::text(format!("{name}: {text}")),
            Message::Binary(bytes) => {
                Message::binary([format!("{name}: ").as_bytes(), &bytes].concat())
            }
            // tungstenite answers pings and the close by itself while it is read.
            _ => continue,
        };
        if socket.send(answer).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn node() -> Node {
        Node::start("n7").await.unwrap()
    }

    #[tokio::test]
    async fn raw_lines_come_back_under_its_name() {
        let node = node().await;
        let mut stream = TcpStream::connect(node.raw).await.unwrap();
        stream.write_all(b"one\ntwo").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "n7: one\nn7: two");
    }

    #[tokio::test]
    async fn websocket_messages_come_back_under_its_name() {
        let node = node().await;
        let address = format!("ws://{}/socket", node.web);
        let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert_eq!(answer, Message::text("n7: hello"));
        socket.send(Message::binary(vec![0u8, 255])).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert_eq!(answer, Message::binary(b"n7: \x00\xff".to_vec()));
        socket.close(None).await.unwrap();
        assert!(matches!(
            socket.next().await,
            Some(Ok(Message::Close(_))) | None
        ));
    }

    #[tokio::test]
    async fn serves_the_page_with_its_name() {
        let node = node().await;
        let mut stream = TcpStream::connect(node.web).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"));
        assert!(answer.contains("data-node=\"n7\""));
        assert!(!answer.contains("{{"));
    }
}

//! Echo node of the demo: a server that puts its name before everything it sends back.
//!
//! One port speaks HTTP (the page on `/`, `/healthz`) and WebSocket, another raw TCP by lines. The
//! node stands for the servers behind a balancer, and knows nothing of the balancer. It can be
//! killed, and started again on the same ports.

use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::listen::{accept, reply, serve_http};

/// Limit of a line on a raw connection; also far more than a hand-typed message.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Page, with `{{node}}` for the node that served it.
const PAGE: &str = include_str!("page.html");

/// Node with its ports. Dropped, it is killed.
pub(super) struct Node {
    pub name: Arc<str>,
    /// HTTP and WebSocket.
    pub web: SocketAddr,
    /// Raw TCP, by lines.
    pub raw: SocketAddr,
    /// `None`: killed.
    life: Mutex<Option<Life>>,
}

/// What ends when the node is killed.
struct Life {
    /// Ends every connection.
    _connections: DropGuard,
    accepting: [AbortOnDropHandle<()>; 2],
}

/// What a connection knows of its node.
#[derive(Clone)]
struct Owner {
    name: Arc<str>,
    killed: CancellationToken,
}

impl Node {
    /// Binds two free loopback ports and serves on them.
    ///
    /// # Errors
    /// No port could be bound.
    pub(super) async fn start(name: &str) -> io::Result<Node> {
        let name: Arc<str> = Arc::from(name);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (web, raw, life) = Life::begin(&name, [any, any]).await?;
        Ok(Node {
            name,
            web,
            raw,
            life: Mutex::new(Some(life)),
        })
    }

    /// Closes the ports and cuts every connection, as the kernel does for a process that dies.
    pub(super) async fn kill(&self) {
        let mut life = self.life.lock().await;
        let Some(Life {
            _connections,
            accepting,
        }) = life.take()
        else {
            return;
        };
        for task in accepting {
            task.abort();
            // Until the port is closed, it could not be bound again.
            let _ = task.await;
        }
    }

    /// Serves again on the same ports; a node that lives goes on.
    ///
    /// # Errors
    /// Another program has taken a port meanwhile.
    pub(super) async fn revive(&self) -> io::Result<()> {
        let mut life = self.life.lock().await;
        if life.is_none() {
            let (_, _, begun) = Life::begin(&self.name, [self.web, self.raw]).await?;
            *life = Some(begun);
        }
        Ok(())
    }

    pub(super) async fn is_alive(&self) -> bool {
        self.life.lock().await.is_some()
    }
}

impl Life {
    async fn begin(
        name: &Arc<str>,
        [web, raw]: [SocketAddr; 2],
    ) -> io::Result<(SocketAddr, SocketAddr, Life)> {
        let web = TcpListener::bind(web).await?;
        let raw = TcpListener::bind(raw).await?;
        let (web_address, raw_address) = (web.local_addr()?, raw.local_addr()?);
        let owner = Owner {
            name: Arc::clone(name),
            killed: CancellationToken::new(),
        };
        let connections = owner.killed.clone().drop_guard();
        let other = owner.clone();
        let web = accept(web, move |stream| {
            let served = serve_web(stream, owner.clone());
            owner.killed.clone().run_until_cancelled_owned(served)
        });
        let raw = accept(raw, move |stream| {
            let served = serve_raw(stream, other.clone());
            other.killed.clone().run_until_cancelled_owned(served)
        });
        let accepting = [tokio::spawn(web), tokio::spawn(raw)];
        let life = Life {
            _connections: connections,
            accepting: accepting.map(AbortOnDropHandle::new),
        };
        Ok((web_address, raw_address, life))
    }
}

/// Echoes line by line; what follows the last newline is echoed at the end of the stream.
async fn serve_raw(stream: TcpStream, Owner { name, .. }: Owner) {
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

/// Serves one HTTP/1.1 connection, which may become a WebSocket.
async fn serve_web(stream: TcpStream, owner: Owner) {
    serve_http(stream, |request| ready(answer(request, &owner))).await;
}

fn answer(request: Request<Incoming>, owner: &Owner) -> Response<Full<Bytes>> {
    if let Some(key) = websocket_key(&request) {
        return upgrade(request, &key, owner.clone());
    }
    let name = &owner.name;
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

/// Returns the key of a WebSocket upgrade request; `None` for any other request.
fn websocket_key(request: &Request<Incoming>) -> Option<String> {
    let upgrade = request.headers().get(header::UPGRADE)?.to_str().ok()?;
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY)?;
    (request.method() == Method::GET && upgrade.eq_ignore_ascii_case("websocket"))
        .then(|| key.to_str().ok().map(str::to_owned))?
}

fn upgrade(mut request: Request<Incoming>, key: &str, owner: Owner) -> Response<Full<Bytes>> {
    let Owner { name, killed } = owner;
    let taken_over = hyper::upgrade::on(&mut request);
    tokio::spawn(killed.run_until_cancelled_owned(async move {
        if let Ok(stream) = taken_over.await {
            echo(stream, &name).await;
        }
    }));
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
    async fn a_killed_node_cuts_its_sockets_and_comes_back_on_its_ports() {
        let node = node().await;
        let address = format!("ws://{}/socket", node.web);
        let (mut socket, _) = tokio_tungstenite::connect_async(&address).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        socket.next().await.unwrap().unwrap();
        let mut raw = TcpStream::connect(node.raw).await.unwrap();
        raw.write_all(b"one\n").await.unwrap();
        let mut answer = [0; 8];
        raw.read_exact(&mut answer).await.unwrap();
        node.kill().await;
        assert!(!node.is_alive().await);
        // No Close frame: a process that dies says nothing.
        let left = socket.next().await;
        assert!(!matches!(left, Some(Ok(_))), "{left:?}");
        assert!(matches!(raw.read(&mut answer).await, Ok(0) | Err(_)));
        assert!(TcpStream::connect(node.web).await.is_err());
        node.revive().await.unwrap();
        node.revive().await.unwrap();
        let (mut socket, _) = tokio_tungstenite::connect_async(&address).await.unwrap();
        socket.send(Message::text("again")).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert_eq!(answer, Message::text("n7: again"));
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

//! Backends: nodes that name themselves in every answer, and nodes that do what a test tells them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::harness::within;

/// A backend in this process. Dropping it closes its socket and every connection.
pub struct Node {
    pub address: SocketAddr,
    accepted: watch::Receiver<usize>,
    /// Every byte of the heads that a web node was sent, one entry per request.
    pub heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Node {
    /// Accepts and lets `handle` do the rest; `handle` is given the connection and its number, from 0.
    pub async fn scripted<F, T>(handle: F) -> Node
    where
        F: Fn(TcpStream, usize) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        Node::scripted_at("127.0.0.1:0".parse().unwrap(), handle).await
    }

    pub async fn scripted_at<F, T>(address: SocketAddr, handle: F) -> Node
    where
        F: Fn(TcpStream, usize) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("bind a node");
        let address = listener.local_addr().expect("its address");
        let (count, accepted) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let _ = stream.set_nodelay(true);
                        let number = *count.borrow();
                        connections.spawn(handle(stream, number));
                        count.send_modify(|count| *count += 1);
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        });
        Node {
            address,
            accepted,
            heads: Arc::default(),
            task,
        }
    }

    /// Raw TCP: says `name` and a line feed, then echoes to the end and closes when the client has.
    pub async fn echo(name: &str) -> Node {
        Node::echo_at("127.0.0.1:0".parse().unwrap(), name).await
    }

    pub async fn echo_at(address: SocketAddr, name: &str) -> Node {
        let greeting = format!("{name}\n");
        Node::scripted_at(address, move |mut stream, _| {
            let greeting = greeting.clone();
            async move {
                if stream.write_all(greeting.as_bytes()).await.is_ok() {
                    echo(stream).await;
                }
            }
        })
        .await
    }

    /// HTTP/1.1 and WebSocket: answers every request with a JSON page that names itself and repeats what it was sent,
    /// and every text message with `name:message`; binary messages come back as they are.
    pub async fn web(name: &str) -> Node {
        Node::web_at("127.0.0.1:0".parse().unwrap(), name).await
    }

    pub async fn web_at(address: SocketAddr, name: &str) -> Node {
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = heads.clone();
        let name = name.to_owned();
        let mut node = Node::scripted_at(address, move |stream, _| {
            web(stream, name.clone(), seen.clone())
        })
        .await;
        node.heads = heads;
        node
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Waits until `count` connections were accepted.
    pub async fn reached(&self, count: usize) {
        let mut accepted = self.accepted.clone();
        within(
            "connections to a node",
            accepted.wait_for(|&seen| seen >= count),
        )
        .await
        .expect("the node lives");
    }

    /// Closes the listening socket and every connection, and waits until they are closed.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Echoes to the end of the stream, then passes the end on.
pub async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

/// One HTTP/1.1 request as a node read it.
pub struct Request {
    pub head: String,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Reads one head; what came behind it stays in `buffer`. `None` at the end of the stream.
pub async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer.drain(..end).collect::<Vec<_>>()).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Some(Request {
        method,
        target,
        headers,
        head,
    })
}

async fn read_body(
    request: &Request,
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    if request.header("expect").is_some() {
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        stream.write_all(go_on).await.ok()?;
    }
    if request.header("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let line = read_line(stream, buffer).await?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            body.extend(take(stream, buffer, size).await?);
            read_line(stream, buffer).await?;
            if size == 0 {
                return Some(body);
            }
        }
    }
    let length = request
        .header("content-length")
        .map_or(Some(0), |length| length.parse().ok())?;
    take(stream, buffer, length).await
}

async fn read_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
            return Some(
                String::from_utf8_lossy(&buffer.drain(..at + 2).collect::<Vec<_>>()).into_owned(),
            );
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while buffer.len() < count {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(buffer.drain(..count).collect())
}

async fn web(mut stream: TcpStream, name: String, heads: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        heads.lock().unwrap().push(request.head.clone());
        if let Some(key) = request.header("sec-websocket-key") {
            let answer = switching(key);
            if stream.write_all(answer.as_bytes()).await.is_ok() {
                speak(stream, buffer, &name).await;
            }
            return;
        }
        let Some(body) = read_body(&request, &mut stream, &mut buffer).await else {
            return;
        };
        let page = json!({
            "node": name, "method": request.method, "target": request.target,
            "headers": request.headers, "body": String::from_utf8_lossy(&body),
        })
        .to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Node: {name}\r\nContent-Length: {}\r\n\r\n{page}",
            page.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The 101 to a handshake with this key.
pub fn switching(key: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
}

/// Answers each text with `name:text`, and binary messages as they are.
pub async fn speak(stream: TcpStream, read: Vec<u8>, name: &str) {
    let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let answer = match message {
            Message::Text(text) => Message::text(format!("{name}:{text}")),
            Message::Binary(bytes) => Message::Binary(bytes),
            _ => continue,
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}

/// Counts what reaches a node that must see nothing.
#[derive(Clone, Default)]
pub struct Seen(Arc<AtomicUsize>);

impl Seen {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A node that only counts bytes.
    pub async fn node(&self) -> Node {
        let seen = self.clone();
        Node::scripted(move |mut stream, _| {
            let seen = seen.clone();
            async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    seen.0.fetch_add(count, Ordering::SeqCst);
                }
            }
        })
        .await
    }
}

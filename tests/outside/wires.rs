//! HTTP by hand: one end of a connection, and a node whose connections a test reads and answers byte by byte.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::clients::{Ending, connect};
use crate::harness::{Balancer, within};
use crate::nodes::{Node, Request, read_request};
use crate::settings::simple;

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// A request behind which the connection ends.
pub const LAST_GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One end of a connection. What was read beyond the wanted bytes waits for the next read.
pub struct Wire<S = TcpStream> {
    pub stream: S,
    read: Vec<u8>,
}

impl Wire {
    /// A client of the listener `main`.
    pub async fn client(balancer: &Balancer) -> Wire {
        Wire::new(connect(balancer.address("main").await).await)
    }

    /// Closes with a RST.
    pub fn reset(self) {
        crate::clients::reset(self.stream);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Wire<S> {
        let read = Vec::new();
        Wire { stream, read }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the peer takes nothing");
    }

    /// False: the peer has ended the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        within("a write", sent).await.is_ok()
    }

    /// Waits for more bytes; false at the end.
    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.read).await, Ok(1..))
    }

    fn text(&self) -> String {
        self.read.escape_ascii().to_string()
    }

    /// Reads as far as `end` says; `None` at the end of the stream.
    async fn take(&mut self, end: impl Fn(&[u8]) -> Option<usize>) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = end(&self.read) {
                return Some(self.read.drain(..end).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads to the end of `mark`.
    pub async fn until(&mut self, mark: &str) -> String {
        let mark = mark.as_bytes();
        let end = |read: &[u8]| {
            let found = read.windows(mark.len()).position(|window| window == mark);
            found.map(|at| at + mark.len())
        };
        let Some(bytes) = within("bytes to a mark", self.take(end)).await else {
            panic!("ended within {}", self.text());
        };
        bytes.iter().map(|&byte| char::from(byte)).collect()
    }

    /// One head with its empty line; bytes above ASCII are characters of Latin-1.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// One head; `None` when the stream ends in place of it.
    pub async fn try_head(&mut self) -> Option<Vec<u8>> {
        let end = |read: &[u8]| {
            let found = read.windows(4).position(|window| window == b"\r\n\r\n");
            found.map(|at| at + 4)
        };
        self.take(end).await
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let end = |read: &[u8]| (read.len() >= count).then_some(count);
        let Some(bytes) = within("bytes", self.take(end)).await else {
            panic!("ended within {count} bytes: {}", self.text());
        };
        bytes
    }

    /// Everything that still comes, and how it ends.
    pub async fn rest(&mut self) -> (Vec<u8>, Ending) {
        let ended = within(
            "the end of a stream",
            self.stream.read_to_end(&mut self.read),
        );
        let ending = if ended.await.is_ok() {
            Ending::Fin
        } else {
            Ending::Rst
        };
        (std::mem::take(&mut self.read), ending)
    }

    /// The end, with no byte before it.
    pub async fn ended(&mut self) -> Ending {
        let (bytes, ending) = self.rest().await;
        assert_eq!(bytes.escape_ascii().to_string(), "");
        ending
    }

    /// The head of an answer and its two bytes `ok`.
    pub async fn ok(&mut self) -> String {
        let head = self.head().await;
        assert_eq!(status(&head), 200, "{head}");
        assert_eq!(self.exactly(2).await, b"ok");
        head
    }

    /// The next request on a node's connection. The client must not be answered before it.
    pub async fn asked_by<C>(&mut self, client: &mut Wire<C>) -> String
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        tokio::select! {
            biased;
            head = self.head() => head,
            _ = client.more() => panic!("the client got {}", client.text()),
        }
    }
}

/// A node whose connections are handed to the test.
pub struct ManualNode {
    pub node: Node,
    connections: mpsc::UnboundedReceiver<TcpStream>,
}

impl ManualNode {
    pub async fn new() -> ManualNode {
        let (give, connections) = mpsc::unbounded_channel();
        let node = Node::scripted(move |stream, _| {
            let _ = give.send(stream);
            async {}
        })
        .await;
        ManualNode { node, connections }
    }

    /// The next connection.
    pub async fn next(&mut self) -> Wire {
        let stream = within("a connection to the node", self.connections.recv()).await;
        Wire::new(stream.expect("the node lives"))
    }

    /// The next connection and its first request. The client must not be answered before it.
    pub async fn asked_by<C>(&mut self, client: &mut Wire<C>) -> (Wire, String)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let mut wire = tokio::select! {
            biased;
            wire = self.next() => wire,
            _ = client.more() => panic!("the client got {}", client.text()),
        };
        let head = wire.asked_by(client).await;
        (wire, head)
    }
}

/// A manual node and a balancer before it, whose pool has these keys.
pub async fn manual(keys: &str) -> (ManualNode, Balancer) {
    let node = ManualNode::new().await;
    let balancer = Balancer::start(&simple("websocket", keys, &[&node.node]));
    (node, balancer)
}

/// A GET on a new connection of the node, answered. Both ends stay, and the node's is idle.
pub async fn primed(balancer: &Balancer, node: &mut ManualNode) -> (Wire, Wire) {
    let mut client = Wire::client(balancer).await;
    client.send(GET).await;
    let (mut idle, head) = node.asked_by(&mut client).await;
    assert!(!has_element(&head, "connection", "close"), "{head}");
    idle.send(OK).await;
    client.ok().await;
    (client, idle)
}

/// A node that answers each request, once its body of a known length has come, and keeps its connections.
pub async fn answering(
    answer: impl Fn(&Request) -> String + Clone + Send + Sync + 'static,
) -> Node {
    Node::scripted(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            let mut read = Vec::new();
            while let Some(request) = read_request(&mut stream, &mut read).await {
                let length = request.header("content-length");
                let length = length.map_or(0, |length| length.parse().expect("a length"));
                while read.len() < length {
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                read.drain(..length);
                if stream.write_all(answer(&request).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// One exchange as both of its ends saw it.
pub struct Exchanged {
    /// The head that the node was sent.
    pub sent: String,
    /// The node's end of the connection. Gone where it was to close.
    pub backend: Option<Wire>,
    pub head: String,
    pub body: String,
    pub ending: Ending,
}

/// What the node does behind its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stay,
    Close,
}

/// Exchanges the last request of a connection, which the client reads to its end.
pub async fn exchange(
    balancer: &Balancer,
    node: &mut ManualNode,
    request: impl AsRef<[u8]>,
    answer: impl AsRef<[u8]>,
    then: Then,
) -> Exchanged {
    let mut client = Wire::client(balancer).await;
    client.send(request).await;
    let (mut backend, sent) = node.asked_by(&mut client).await;
    backend.send(answer).await;
    let backend = Some(backend).filter(|_| then == Then::Stay);
    let (bytes, ending) = client.rest().await;
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Exchanged {
        sent,
        backend,
        head: format!("{head}\r\n"),
        body: body.to_owned(),
        ending,
    }
}

/// The status of an answer in either version.
pub fn status(head: &str) -> u16 {
    let rest = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(1..5)?.trim_start().parse().ok());
    rest.unwrap_or(0)
}

/// The values of a field of a head, in its order.
pub fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let named = fields.filter(|(sent, _)| sent.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim()).collect()
}

/// Whether a list field has the element.
pub fn has_element(head: &str, name: &str, element: &str) -> bool {
    values(head, name)
        .iter()
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case(element))
}

//! Writes nodes of ZooKeeper, one session each: for tests that register.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::within;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const SET_DATA: i32 = 5;
const OK: i32 = 0;
const NO_NODE: i32 = -101;

fn bytes(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).expect("a length");
    [&length.to_be_bytes(), bytes].concat()
}

/// Makes one request in a session of its own; returns its error.
async fn call(address: SocketAddr, kind: i32, body: &[u8]) -> i32 {
    let called = async {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        // Version, last change seen, time-out, session, password, not read-only.
        let mut hello = Vec::new();
        hello.extend(0_i32.to_be_bytes());
        hello.extend(0_i64.to_be_bytes());
        hello.extend(10_000_i32.to_be_bytes());
        hello.extend(0_i64.to_be_bytes());
        hello.extend(bytes(&[0; 16]));
        hello.push(0);
        stream.write_all(&bytes(&hello)).await.expect("write");
        packet(&mut stream).await;
        let request = [&1_i32.to_be_bytes(), &kind.to_be_bytes(), body].concat();
        stream.write_all(&bytes(&request)).await.expect("write");
        let reply = packet(&mut stream).await;
        i32::from_be_bytes(reply[12..16].try_into().expect("an error"))
    };
    within("an answer of ZooKeeper", called).await
}

async fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let length = stream.read_i32().await.expect("a length");
    let mut packet = vec![0; usize::try_from(length).expect("a length")];
    stream.read_exact(&mut packet).await.expect("a packet");
    packet
}

/// Creates a node, or sets its data.
pub async fn write(address: SocketAddr, path: &str, data: &str) {
    let set = [
        bytes(path.as_bytes()),
        bytes(data.as_bytes()),
        (-1_i32).to_be_bytes().into(),
    ];
    match call(address, SET_DATA, &set.concat()).await {
        OK => return,
        NO_NODE => {}
        other => panic!("set {path}: {other}"),
    }
    // Everybody may do everything; the node stays.
    let create = [
        bytes(path.as_bytes()),
        bytes(data.as_bytes()),
        1_i32.to_be_bytes().into(),
        31_i32.to_be_bytes().into(),
        bytes(b"world"),
        bytes(b"anyone"),
        0_i32.to_be_bytes().into(),
    ];
    assert_eq!(
        call(address, CREATE, &create.concat()).await,
        OK,
        "create {path}"
    );
}

pub async fn delete(address: SocketAddr, path: &str) {
    let delete = [bytes(path.as_bytes()), (-1_i32).to_be_bytes().into()];
    assert_eq!(
        call(address, DELETE, &delete.concat()).await,
        OK,
        "delete {path}"
    );
}

//! A name server for tests: answers from a table that the test changes, over UDP and TCP on one
//! loopback port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// Longest UDP answer; a longer one is truncated, and asked for again over TCP.
const MAX_UDP_BYTES: usize = 512;

#[derive(Clone)]
pub(crate) enum Reply {
    Records(Vec<RData>, u32),
    ServerFailure,
    /// These A records, but a server failure for AAAA.
    V6Failure(Vec<IpAddr>),
    Silence,
    /// A CNAME of this name, in lower case with its trailing dot, and behind it what that name has.
    Alias(String),
    /// These A records and no others, once so many A queries were left unanswered.
    LateBy(usize, Vec<IpAddr>),
}

impl Reply {
    pub(crate) fn records(ips: &[&str], ttl: u32) -> Reply {
        let records = ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap().into());
        Reply::Records(records.collect(), ttl)
    }

    /// Records of (priority, weight, port, target).
    pub(crate) fn services(services: &[(u16, u16, u16, &str)], ttl: u32) -> Reply {
        let records = services.iter().map(|(priority, weight, port, target)| {
            let target = Name::from_ascii(target).unwrap();
            RData::SRV(SRV::new(*priority, *weight, *port, target))
        });
        Reply::Records(records.collect(), ttl)
    }
}

type Table = Arc<Mutex<HashMap<String, Reply>>>;

/// Stops when dropped. A name that is not set does not exist.
pub(crate) struct FakeNameServer {
    address: SocketAddr,
    table: Table,
    queries: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl FakeNameServer {
    pub(crate) async fn start() -> FakeNameServer {
        let (udp, tcp) = bind().await;
        let address = udp.local_addr().unwrap();
        let table = Table::default();
        let queries = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, table.clone(), queries.clone()));
        tasks.spawn(serve_tcp(tcp, table.clone(), queries.clone()));
        FakeNameServer {
            address,
            table,
            queries,
            _tasks: tasks,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `name` in lower case with its trailing dot.
    pub(crate) fn set(&self, name: &str, reply: Reply) {
        self.table.lock().unwrap().insert(name.to_owned(), reply);
    }

    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

async fn bind() -> (UdpSocket, TcpListener) {
    // The port that UDP got may be taken for TCP.
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

async fn serve_udp(socket: UdpSocket, table: Table, queries: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        queries.fetch_add(1, Ordering::Relaxed);
        let query = Message::from_vec(&buffer[..length]).unwrap();
        if let Some(answer) = answer(&table, &query) {
            let mut bytes = answer.to_vec().unwrap();
            if bytes.len() > MAX_UDP_BYTES {
                bytes = answer.truncate().to_vec().unwrap();
            }
            socket.send_to(&bytes, peer).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, table: Table, queries: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let Ok(length) = stream.read_u16().await else {
            continue;
        };
        let mut buffer = vec![0; length.into()];
        stream.read_exact(&mut buffer).await.unwrap();
        queries.fetch_add(1, Ordering::Relaxed);
        let query = Message::from_vec(&buffer).unwrap();
        if let Some(answer) = answer(&table, &query) {
            let bytes = answer.to_vec().unwrap();
            stream.write_u16(bytes.len() as u16).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    }
}

fn answer(table: &Table, query: &Message) -> Option<Message> {
    let question = query.queries.first().unwrap().clone();
    let name = question.name().to_ascii().to_ascii_lowercase();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_query(question.clone());
    let mut table = table.lock().unwrap();
    let mut owner = question.name().clone();
    let mut reply = table.get(&name).cloned();
    while let Some(Reply::Alias(target)) = &reply {
        let target = Name::from_ascii(target).unwrap();
        let alias = RData::CNAME(CNAME(target.clone()));
        answer.add_answer(Record::from_rdata(owner.clone(), 7, alias));
        if question.query_type() == RecordType::CNAME || target == owner {
            return Some(answer);
        }
        reply = table.get(&target.to_ascii()).cloned();
        owner = target;
    }
    let (records, ttl) = match reply {
        None => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            return Some(answer);
        }
        Some(Reply::Silence) => return None,
        Some(Reply::Records(records, ttl)) => (records, ttl),
        Some(Reply::LateBy(left, ips)) if question.query_type() == RecordType::A => {
            if left > 0 {
                table.insert(name, Reply::LateBy(left - 1, ips));
                return None;
            }
            (ips.into_iter().map(RData::from).collect(), 7)
        }
        Some(Reply::LateBy(..) | Reply::Alias(_)) => (Vec::new(), 7),
        Some(Reply::V6Failure(ips)) if question.query_type() == RecordType::A => {
            (ips.into_iter().map(RData::from).collect(), 7)
        }
        Some(Reply::ServerFailure | Reply::V6Failure(_)) => {
            answer.metadata.response_code = ResponseCode::ServFail;
            return Some(answer);
        }
    };
    for data in records {
        if data.record_type() == question.query_type() {
            answer.add_answer(Record::from_rdata(owner.clone(), ttl, data));
        }
    }
    Some(answer)
}

//! User-space costs of a new connection (admission, pick, ClientHello, HTTP head), and of a
//! WebSocket whose frames are followed.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what cannot go on here may panic"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel::balance::{Class, Maglev, Node, Nodes, Pick, Picker, bytes_hash};
use evenkeel::parts::ListenerSnapshot;
use evenkeel::parts::{ConnectionPermit, Limits, ListenerAdmission};
use evenkeel::parts::{Journal, ListenerCounters};
use evenkeel::wire::client_hello::{ClientHelloReader, HelloProgress};
use evenkeel::wire::frames::Walker;
use evenkeel::wire::http::{HeadLimits, RequestReader};
use evenkeel::wire::moved::{
    MovedFilter, MovedFrames, MovedLeg, MovedMigrator, MovedPeer, MovedRate, MovedRecord,
    MovedResume, MovedResumeSettings, MovedSession, MovedTimeouts, decode, encode,
};

/// Equal nodes with some load.
struct Loads(Vec<AtomicU64>);

impl Nodes for Loads {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn node(&self, index: usize) -> Node {
        Node {
            class: Class::Serving,
            weight: 1,
            load: self.0[index].load(Relaxed),
        }
    }
}

/// A pick and the end of its connection. The time must hardly grow with the count of nodes.
fn picks(criterion: &mut Criterion) {
    for count in [10, 1_000, 10_000] {
        let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
        let nodes = Loads((0..count).map(|n| AtomicU64::new(n * 7 % 10)).collect());
        let table = Maglev::new(names.iter().map(|name| (name.as_str(), 1)));
        let algorithms = [
            ("round_robin", Picker::round_robin(&nodes, None)),
            ("least_conn", Picker::least_conn(&nodes)),
            ("random", Picker::random(&nodes)),
            ("maglev", Picker::hash(&nodes, table)),
        ];
        let mut group = criterion.benchmark_group(format!("pick of {count}"));
        for (name, picker) in &algorithms {
            let mut key = 0u64;
            group.bench_function(*name, |bencher| {
                bencher.iter(|| {
                    key += 1;
                    let request = Pick {
                        classes: &[Class::Serving],
                        without: &[],
                        entropy: bytes_hash(&key.to_ne_bytes()),
                    };
                    let taken = picker.take(&nodes, &request, |index| {
                        nodes.0[index].fetch_add(1, Relaxed);
                        Some(index)
                    });
                    if let Some(index) = taken {
                        nodes.0[index].fetch_sub(1, Relaxed);
                        picker.update(&nodes, index);
                    }
                });
            });
        }
    }
}

fn request_head(criterion: &mut Criterion) {
    let upgrade = b"GET /chat HTTP/1.1\r\nHost: chat.example.org\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept-Language: en\r\n\r\n";
    criterion.bench_function("http, an upgrade head", |bencher| {
        bencher.iter(|| RequestReader::new(HeadLimits::REQUEST).next(black_box(upgrade)));
    });
}

/// A client's text message of `length` bytes, in one frame.
fn message(length: u16) -> Vec<u8> {
    let mut bytes = match u8::try_from(length) {
        Ok(short @ ..126) => vec![0x81, 0x80 | short],
        _ => [&[0x81, 0xfe], &length.to_be_bytes()[..]].concat(),
    };
    let head = bytes.len();
    bytes.extend([0x37, 0xfa, 0x21, 0x3d]);
    bytes.resize(head + 4 + usize::from(length), 0x55);
    bytes
}

/// A ClientHello in one record, with so many extensions of no content, each of its own type.
fn hello(extensions: u16) -> Vec<u8> {
    // No type that is known has such a number.
    let listed: Vec<u8> = (0..extensions)
        .flat_map(|number| [(0x4000 + number).to_be_bytes(), [0; 2]].concat())
        .collect();
    let mut body = vec![3, 3];
    body.extend([0; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend((listed.len() as u16).to_be_bytes());
    body.extend(listed);
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    let length = (message.len() as u16).to_be_bytes();
    [&[22, 3, 1], &length[..], &message].concat()
}

/// The time of each extension must not grow with their count.
fn hellos(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("client hello");
    for count in [39, 390, 3900] {
        let bytes = hello(count);
        let is_read = |progress| matches!(progress, HelloProgress::Hello(_));
        assert!(
            is_read(ClientHelloReader::new().feed(&bytes)),
            "{count} extensions"
        );
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(format!("{count} extensions"), |bencher| {
            bencher.iter(|| black_box(ClientHelloReader::new().feed(&bytes)));
        });
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    const CHUNK_BYTES: usize = 64 * 1024;
    let one = message(128);
    let many = one.repeat(CHUNK_BYTES / one.len());
    let tiny = message(4);
    let tinies = tiny.repeat(CHUNK_BYTES / tiny.len());
    // Its payload goes on beyond the chunk.
    let mut big = vec![0x82, 0xff, 0, 0, 0, 0, 0, 16, 0, 0, 1, 2, 3, 4];
    big.resize(CHUNK_BYTES, 0x55);
    let mut group = criterion.benchmark_group("frames");
    for (name, bytes, count) in [
        ("one of 128 B", &one, 1),
        ("64 KiB of 128 B", &many, many.len() / one.len()),
        ("64 KiB of 4 B", &tinies, tinies.len() / tiny.len()),
        ("64 KiB of a big one", &big, 1),
    ] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut walker = black_box(Walker::from_client());
                let walked = walker.walk(black_box(bytes));
                black_box((walker, walked))
            });
        });
    }
    // A message read in two pieces, cut in the middle of its header.
    group.throughput(Throughput::Elements(1));
    group.bench_function("one of 128 B in two pieces", |bencher| {
        let (front, rest) = one.split_at(3);
        bencher.iter(|| {
            let mut walker = black_box(Walker::from_client());
            let walked = [walker.walk(black_box(front)), walker.walk(black_box(rest))];
            black_box((walker, walked))
        });
    });
}

/// A listener with these keys, and its admission.
struct Door {
    limits: Arc<Limits>,
    admission: ListenerAdmission,
    listener: ListenerSnapshot,
}

impl Door {
    /// Lets in a connection, as a relay thread does.
    fn admit(&self, number: u32) -> Option<ConnectionPermit> {
        self.limits.reserve_anyway();
        let rules = self.listener.admission();
        self.admission
            .admit(None, rules, address(number), false)
            .ok()
    }
}

fn door(keys: &str) -> Door {
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p\"\n{keys}\n\
         [pool.p]\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n"
    );
    let config = evenkeel::config::parse(&text, Path::new("bench.toml"))
        .unwrap_or_else(|errors| panic!("{errors}"));
    let journal = Journal::new(&config.access_log).expect("a journal");
    let counters = ListenerCounters::new("l", &journal);
    let limits = Limits::new(&config.global, 0);
    Door {
        admission: ListenerAdmission::new(&limits, &counters),
        listener: ListenerSnapshot::build(&config.listeners[0], &BTreeMap::new())
            .expect("a listener"),
        limits,
    }
}

fn address(number: u32) -> Option<IpAddr> {
    // Neighbours in the order of arrival are strangers in the table.
    Some(IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1))))
}

/// One connection let in, and its end.
fn source_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("source_table");
    let both = "per_source = { max_connections = 50, max_connection_rate = \"1000000/s\" }";
    let slow = "per_source = { max_connection_rate = \"2/1d\" }";
    for (name, keys, sources) in [
        ("without limits", "", 1),
        ("one source", both, 1),
        ("50,000 sources", both, 50_000),
        ("a flood, nothing remembered", both, u32::MAX),
        ("a flood, all remembered", slow, u32::MAX),
    ] {
        let door = door(keys);
        let mut number = 0u32;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                number = number.wrapping_add(1) % sources;
                black_box(door.admit(number).is_some())
            });
        });
    }
    for count in [10u32, 100_000] {
        let networks: Vec<_> = (0..count)
            .filter_map(|number| Some(format!("\"{}/24\"", address(number)?)))
            .collect();
        let door = door(&format!("deny = [{}]", networks.join(", ")));
        let mut number = 0u32;
        group.bench_function(format!("a list of {count} networks"), |bencher| {
            bencher.iter(|| {
                number = number.wrapping_add(1);
                black_box(door.admit(number).is_some())
            });
        });
    }
    // Those that are held keep their places, so that a newcomer finds none.
    let door = door(both);

    let held: Vec<_> = (0..200_000)
        .filter_map(|number| door.admit(number))
        .collect();
    let mut number = 1_000_000u32;
    group.bench_function("a full table of live sources", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(1);
            black_box(door.admit(number).is_some())
        });
    });
    drop(held);
}

/// The state of a raw session.
fn raw_session() -> MovedSession {
    MovedSession {
        record: MovedRecord {
            id: 123_456,
            bytes_from_client: 1 << 30,
            bytes_from_backend: 1 << 31,
            age_us: 7_200_000_000,
            listener: "public".into(),
            pool: Some("chat".into()),
            backend: Some("node-17".into()),
            connect_us: Some(250),
            client: Some(MovedPeer::V4 {
                ip: [192, 0, 2, 1],
                port: 40_000,
            }),
            tries: 1,
            ..MovedRecord::default()
        },
        backend: Some(MovedLeg::default()),
        timeouts: MovedTimeouts {
            idle_ms: 3_600_000,
            fin_ms: 30_000,
            lifetime_ms: None,
        },
        idle_ms: 200,
        ..MovedSession::default()
    }
}

/// The state of a WebSocket that may outlive its backend.
fn resumable_session() -> MovedSession {
    let mut websocket = raw_session();
    let names = [None, Some("GET"), Some("a.example"), Some("/chat/room")];
    websocket.record.names = names.map(|name| name.map(str::to_owned)).to_vec();
    let rate = MovedRate {
        count: 3,
        per_ns: 60_000_000_000,
    };
    websocket.frames = Some(Box::new(MovedFrames {
        client: MovedFilter::default(),
        backend: MovedFilter::default(),
        limits: None,
        pings: None,
        resume: Some(Box::new(MovedResume {
            settings: MovedResumeSettings {
                on: 15,
                settle_ms: 500,
                max: rate,
                max_buffer: 65_536,
                timeout_ms: 10_000,
                header: "evenkeel-resume".into(),
            },
            migrator: MovedMigrator {
                handshake: vec![b'x'; 600],
                header: "evenkeel-resume".into(),
                ..MovedMigrator::default()
            },
            changes_full_in_ns: 0,
            sent_ms: Some(100),
            answered_ms: Some(50),
            takeover: None,
        })),
        messages_only: false,
    }));
    websocket
}

/// States of sessions that move, written and read.
fn moves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state of a session");
    let sessions = [
        ("raw", raw_session()),
        ("resumable websocket", resumable_session()),
    ];
    for (name, session) in sessions {
        let mut bytes = Vec::new();
        encode(&session, &mut bytes);
        println!("{name}: {} bytes", bytes.len());
        group.bench_function(format!("{name}, written"), |bencher| {
            bencher.iter(|| {
                bytes.clear();
                encode(black_box(&session), &mut bytes);
            });
        });
        group.bench_function(format!("{name}, read"), |bencher| {
            bencher.iter(|| decode(black_box(&bytes)).expect("a session"));
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    picks,
    request_head,
    hellos,
    frames,
    moves,
    source_table
);
criterion_main!(benches);

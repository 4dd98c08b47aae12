//! What every new connection pays in user space, the pick and the HTTP gate, and what a WebSocket pays for being followed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel::balance::{Algorithm, Maglev, Nodes, RoundRobin, bytes_hash};
use evenkeel::wire::frames::Walker;
use evenkeel::wire::http::Gate;

/// Ten equal nodes with some load.
struct Ten([u64; 10]);

impl Nodes for Ten {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn weight(&self, _: usize) -> u32 {
        1
    }
    fn live(&self, index: usize) -> u64 {
        self.0[index]
    }
}

fn picks(criterion: &mut Criterion) {
    let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    let nodes = Ten([5, 3, 8, 1, 9, 2, 7, 4, 6, 0]);
    let algorithms = [
        ("round_robin", Algorithm::RoundRobin(RoundRobin::new(10))),
        ("least_conn", Algorithm::LeastConn),
        ("random", Algorithm::Random),
        (
            "maglev",
            Algorithm::Hash(Maglev::new(names.iter().map(|name| (name.as_str(), 1)))),
        ),
    ];
    let mut group = criterion.benchmark_group("pick of 10");
    for (name, algorithm) in &algorithms {
        let mut key = 0u64;
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                key += 1;
                black_box(algorithm.pick(&nodes, bytes_hash(&key.to_ne_bytes())))
            });
        });
    }
}

fn gate(criterion: &mut Criterion) {
    let upgrade = b"GET /chat HTTP/1.1\r\nHost: chat.example.org\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept-Language: en\r\n\r\n";
    criterion.bench_function("http gate, an upgrade head", |bencher| {
        let mut passed = Vec::with_capacity(1024);
        bencher.iter(|| {
            passed.clear();
            black_box(Gate::new().feed(black_box(upgrade), &mut passed))
        });
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

criterion_group!(benches, picks, gate, frames);
criterion_main!(benches);

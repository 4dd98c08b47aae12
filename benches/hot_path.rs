//! What every new connection pays in user space: the pick, the ClientHello, the HTTP gate.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use evenkeel::balance::{Algorithm, Maglev, Nodes, RoundRobin, bytes_hash};
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

criterion_group!(benches, picks, gate);
criterion_main!(benches);

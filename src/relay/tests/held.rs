//! What a session holds for peers that do not take it, and that it goes on.

use super::super::direction::MAX_HELD;
use super::super::model::bench::tls_leg_over;
use super::*;

#[test]
fn what_is_held_for_stalled_readers_is_bounded_and_the_others_go_on() {
    const MAX_HELD: usize = 256 * 1024;
    let bench = Bench::with_max_held(MAX_HELD);
    let stalled: Vec<Ends> = (0..60).map(|_| bench.relayed(policy())).collect();
    let block = vec![7; 64 * 1024];
    for ends in &stalled {
        ends.backend.set_nonblocking(true).unwrap();
        // Until the kernel's queues before and behind the relay are full; what the relay holds is
        // between.
        let mut idle_rounds = 0;
        while idle_rounds < 20 {
            let count = (&ends.backend).write(&block).unwrap_or(0);
            idle_rounds = match count {
                0 => idle_rounds + 1,
                _ => 0,
            };
            std::thread::yield_now();
        }
    }
    assert!(bench.relay.held_bytes() > 0);
    let mut well = bench.relayed(policy());
    let question = numbers(300_000);
    let sent = question.clone();
    let mut sender = well.client.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&sent).unwrap());
    let mut read = vec![0; question.len()];
    well.backend.read_exact(&mut read).unwrap();
    sending.join().unwrap();
    assert!(read == question);
    // A read that was begun below the limit may go beyond it by what it gave.
    assert!(
        bench.relay.held_bytes() <= MAX_HELD as u64,
        "{}",
        bench.relay.held_bytes()
    );
    drop(stalled);
}

/// All of a record of a client's but its end, and the end.
fn cut_record(client: &mut TlsClient, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    client.conn.writer().write_all(message).unwrap();
    let mut record = Vec::new();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut record).unwrap();
    }
    let end = record.split_off(record.len() - 10);
    (record, end)
}

/// A part of a record was kept for each session, whatever was held: 16 KiB of each client.
#[test]
fn records_that_have_not_come_whole_are_left_to_the_kernel_where_too_much_is_held() {
    const MAX_HELD: u64 = 256 * 1024;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let bench = Bench::with_max_held(MAX_HELD as usize);
        let message = numbers(16_000);
        let mut sessions: Vec<_> = (0..40)
            .map(|_| {
                let (leg, client) = tls_leg(version, &[]);
                let (backend, inner) = pair();
                let lease = bench.adopt(leg, raw(inner, &[]), policy());
                (client, backend, lease)
            })
            .collect();
        let check = || {
            let held = bench.relay.held_bytes();
            assert!(held <= MAX_HELD, "{held} are held");
        };
        let ends: Vec<Vec<u8>> = sessions
            .iter_mut()
            .map(|(client, ..)| {
                let (record, end) = cut_record(client, &message);
                client.sock.write_all(&record).unwrap();
                check();
                end
            })
            .collect();
        // Those whose records come whole go on meanwhile.
        let (leg, mut client) = tls_leg(version, &[]);
        let (mut backend, inner) = pair();
        let _lease = bench.adopt(leg, raw(inner, &[]), policy());
        let mut read = vec![0; message.len()];
        for _ in 0..20 {
            client.write_all(&message).unwrap();
            backend.read_exact(&mut read).unwrap();
            assert!(read == message);
            check();
        }
        for ((client, backend, _), end) in sessions.iter_mut().zip(ends) {
            client.sock.write_all(&end).unwrap();
            backend.read_exact(&mut read).unwrap();
            assert!(read == message);
        }
    }
}

/// Sends bulk to a client that takes so much of it and then stalls, until nothing moves any more;
/// `held` is called all the while.
fn stall_behind_bulk(ends: &Ends, mut bytes: usize, held: impl Fn() -> u64) {
    let block = vec![7; 1 << 20];
    let mut sink = vec![0; 50_000];
    ends.backend.set_nonblocking(true).unwrap();
    ends.client.set_nonblocking(true).unwrap();
    let mut idle_rounds = 0;
    while idle_rounds < 100 {
        let mut moved = (&ends.backend).write(&block).unwrap_or(0);
        if bytes > 0 {
            let read = (&ends.client).read(&mut sink).unwrap_or(0);
            bytes = bytes.saturating_sub(read);
            moved += read;
        }
        // While the relay holds nothing it has not met a full queue yet.
        let is_idle = held() > 0 && bytes == 0 && moved == 0;
        idle_rounds = if is_idle { idle_rounds + 1 } else { 0 };
        std::thread::yield_now();
    }
}

/// A pipe takes more in one go than it is to be left with: 256 KiB were held for a reader that
/// stalled at the wrong moment.
#[test]
fn a_reader_that_stalls_behind_bulk_leaves_at_most_64_kib_in_its_pipe() {
    const MOST: u64 = 64 * 1024;
    for round in 1..=10 {
        let bench = Bench::new();
        let ends = bench.relayed(policy());
        stall_behind_bulk(&ends, round * 300_000, || {
            let held = bench.relay.held_bytes();
            assert!(held <= MOST, "{held} in round {round}");
            held
        });
    }
    // And so for each of more readers than there are pipes.
    let bench = Bench::new();
    let mut stalled = Vec::new();
    for round in 1..=12 {
        let ends = bench.relayed(policy());
        stall_behind_bulk(&ends, 300_000, || {
            let held = bench.relay.held_bytes();
            assert!(held <= round * MOST, "{held} in round {round}");
            held
        });
        stalled.push(ends);
    }
}

/// An outer end, raw or a TLS client.
trait Outer: Read + Write {}
impl<T: Read + Write> Outer for T {}

/// The protocol of an outer end.
#[derive(Debug, Clone, Copy)]
enum Speech {
    Raw,
    Tls(&'static rustls::SupportedProtocolVersion),
}

const SPEECHES: [Speech; 3] = [
    Speech::Raw,
    Speech::Tls(&rustls::version::TLS12),
    Speech::Tls(&rustls::version::TLS13),
];

fn outer(speech: Speech) -> (SocketHandoff, Box<dyn Outer>) {
    match speech {
        Speech::Raw => {
            let (outer, inner) = tight_pair();
            outer.set_nonblocking(true).unwrap();
            (raw(inner, &[]), Box::new(outer))
        }
        Speech::Tls(version) => {
            let (leg, client) = tls_leg_over(tight_pair(), version, usize::MAX, &[]);
            client.sock.set_nonblocking(true).unwrap();
            (leg, Box::new(client))
        }
    }
}

/// Two outer ends that are each sent numbers by the other one.
struct Pair {
    bench: Bench,
    ends: [Box<dyn Outer>; 2],
    numbers: Vec<u8>,
    /// Bytes of each end.
    written: [usize; 2],
    read: [usize; 2],
    name: String,
    most: u64,
}

impl Pair {
    fn new(client: Speech, backend: Speech) -> (Pair, SessionEnd) {
        let bench = Bench::new();
        let (client_leg, client_end) = outer(client);
        let (backend_leg, backend_end) = outer(backend);
        let lease = bench.adopt(client_leg, backend_leg, policy());
        let pair = Pair {
            bench,
            ends: [client_end, backend_end],
            numbers: numbers(8 << 20),
            written: [0; 2],
            read: [0; 2],
            name: format!("{client:?} {backend:?}"),
            most: 0,
        };
        (pair, lease)
    }

    /// How much it said.
    fn write(&mut self, side: usize) -> usize {
        let rest = &self.numbers[self.written[side]..];
        let count = self.ends[side].write(&rest[..rest.len().min(100_000)]);
        self.written[side] += count.as_ref().unwrap_or(&0);
        self.check();
        count.unwrap_or(0)
    }

    /// How much it heard.
    fn read(&mut self, side: usize) -> usize {
        let mut bytes = [0; 50_000];
        let count = self.ends[side].read(&mut bytes).unwrap_or(0);
        let expected = &self.numbers[self.read[side]..][..count];
        assert!(bytes[..count] == *expected, "{}: bytes changed", self.name);
        self.read[side] += count;
        self.check();
        count
    }

    fn check(&mut self) {
        let held = self.bench.relay.held_bytes();
        assert!(held <= MAX_HELD as u64, "{}: {held} are held", self.name);
        self.most = self.most.max(held);
    }

    /// Until nothing moves: `sides` write and nobody reads.
    fn stall(&mut self, sides: &[usize]) {
        let mut idle_rounds = 0;
        while idle_rounds < 200 {
            let moved: usize = sides.iter().map(|side| self.write(*side)).sum();
            idle_rounds = if moved == 0 { idle_rounds + 1 } else { 0 };
            std::thread::yield_now();
        }
    }
}

/// Each direction had its own bound, so that a session whose peers both stalled held twice as much.
#[test]
fn peers_that_both_stall_behind_bulk_leave_64_kib_together() {
    for (client, backend) in SPEECHES
        .iter()
        .flat_map(|client| SPEECHES.map(|backend| (*client, backend)))
    {
        let (mut pair, _lease) = Pair::new(client, backend);
        for flowing in [100_000, 1_000_000, 1_700_000] {
            // A flowing bulk both ways, then neither end reads any more.
            while pair.read.iter().any(|read| *read < flowing) {
                for side in [0, 1] {
                    pair.write(side);
                    pair.read(side);
                }
            }
            pair.stall(&[0, 1]);
        }
        assert!(pair.most > 32 * 1024, "{}: {}", pair.name, pair.most);
        // All of it arrives when they read again.
        while pair.read != [pair.written[1], pair.written[0]] {
            for side in [0, 1] {
                // What a TLS client has sealed and not sent goes out with its next call.
                let _ = pair.ends[side].flush();
                pair.read(side);
            }
        }
    }
}

/// The share of a direction that stalls is not all there is: a peer that writes before it reads
/// would wait for ever.
#[test]
fn a_direction_whose_opposite_stalls_goes_on() {
    for (client, backend) in SPEECHES
        .iter()
        .flat_map(|client| SPEECHES.map(|backend| (*client, backend)))
    {
        for stalled in [0, 1] {
            let (mut pair, _lease) = Pair::new(client, backend);
            while pair.read[stalled] < 1_000_000 {
                pair.write(1 - stalled);
                pair.read(stalled);
            }
            pair.stall(&[1 - stalled]);
            let begun = std::time::Instant::now();
            while pair.read[1 - stalled] < 1_000_000 {
                pair.write(stalled);
                pair.read(1 - stalled);
                assert!(begun.elapsed() < LONG, "{} stands still", pair.name);
            }
        }
    }
}

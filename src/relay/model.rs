//! The relay against a model: random operations at both outer ends, and what must hold whatever they were.
//!
//! The model of one way: the reader gets a prefix of what the writer wrote, in order; all of it and an orderly end
//! when the writer finished and nobody reset; a reset, never an orderly end, when the writer reset without finishing.
//! `EVENKEEL_MODEL_SEEDS=5000 cargo test relay::model` runs more seeds; a failure names its seed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::tests::{Bench, numbers, over, pair, policy, raw, tls_session};
use crate::net::options::reset_on_close;

const SEEDS: u64 = 120;
const PATIENCE: Duration = Duration::from_secs(20);

/// One outer end: raw, or a TLS client.
struct End {
    socket: Option<TcpStream>,
    tls: Option<rustls::ClientConnection>,
    written: usize,
    read: Vec<u8>,
    finished: bool,
    reset: bool,
    /// A write has failed: it took the socket's error with it, and the next read gives 0.
    failed: bool,
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Open,
    Fin,
    Reset,
}

impl End {
    fn new(socket: TcpStream, tls: Option<rustls::ClientConnection>) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self {
            socket: Some(socket),
            tls,
            written: 0,
            read: Vec::new(),
            finished: false,
            reset: false,
            failed: false,
            seen: Seen::Open,
        }
    }

    /// Writes what the kernel takes of the next `length` bytes of the numbered stream.
    fn write(&mut self, stream: &[u8], length: usize) {
        if self.finished || self.reset {
            return;
        }
        let end = (self.written + length).min(stream.len());
        let bytes = &stream[self.written..end];
        let count = match (&mut self.tls, &mut self.socket) {
            (Some(tls), _) if tls.wants_write() => 0,
            (Some(tls), _) => tls.writer().write(bytes).unwrap(),
            (None, Some(socket)) => match socket.write(bytes) {
                Ok(count) => count,
                Err(error) => {
                    self.failed |= error.kind() != ErrorKind::WouldBlock;
                    0
                }
            },
            _ => 0,
        };
        self.written += count;
        self.flush();
    }

    /// True when no ciphertext is left.
    fn flush(&mut self) -> bool {
        let (Some(tls), Some(socket)) = (&mut self.tls, &mut self.socket) else {
            return true;
        };
        while tls.wants_write() {
            if let Err(error) = tls.write_tls(socket) {
                self.failed |= error.kind() != ErrorKind::WouldBlock;
                return self.failed;
            }
        }
        true
    }

    fn read(&mut self, length: usize) {
        let mut buffer = vec![0; length.max(1)];
        let Some(socket) = &mut self.socket else {
            return;
        };
        if self.seen != Seen::Open {
            return;
        }
        let result = match &mut self.tls {
            None => socket.read(&mut buffer),
            Some(tls) => match tls.reader().read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => match tls.read_tls(socket) {
                    Ok(0) => Ok(usize::MAX),
                    Ok(_) => {
                        tls.process_new_packets().unwrap();
                        tls.reader().read(&mut buffer)
                    }
                    Err(error) => Err(error),
                },
                other => other,
            },
        };
        match result {
            Ok(0 | usize::MAX) if self.failed => self.seen = Seen::Reset,
            Ok(usize::MAX) => panic!("a tls leg ended without close_notify and without a reset"),
            Ok(0) => self.seen = Seen::Fin,
            Ok(count) => self.read.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.seen = Seen::Reset,
        }
    }

    fn finish(&mut self) {
        if self.reset || self.finished {
            return;
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        let begun = Instant::now();
        while !self.flush() {
            self.read(65536);
            assert!(begun.elapsed() < PATIENCE, "cannot flush");
        }
        if let Some(socket) = &self.socket {
            let _ = socket.shutdown(Shutdown::Write);
        }
        self.finished = true;
    }

    fn reset(&mut self) {
        if let Some(socket) = self.socket.take() {
            reset_on_close(socket.as_fd());
            self.reset = true;
        }
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let bench = Bench::new();
    let stream = numbers(4 << 20);
    let (client, backend, lease) = if seed.is_multiple_of(4) {
        let version = if seed.is_multiple_of(8) {
            &rustls::version::TLS13
        } else {
            &rustls::version::TLS12
        };
        let (client, backend, lease) = tls_session(&bench, version, b"");
        (End::new(client.sock, Some(client.conn)), backend, lease)
    } else {
        let ((client, inner_client), (backend, inner_backend)) = (pair(), pair());
        let lease = bench.adopt(raw(inner_client, &[]), raw(inner_backend, b"hi "), policy());
        (End::new(client, None), backend, lease)
    };
    let mut ends = [client, End::new(backend, None)];
    for _ in 0..random.usize(0..40) {
        let end = &mut ends[random.usize(0..2)];
        match random.u32(0..100) {
            0..40 => end.write(&stream, random.usize(1..100_000)),
            40..75 => end.read(random.usize(1..100_000)),
            75..80 => end.finish(),
            80..83 => end.reset(),
            83..88 => {
                if let (Some(tls), false) = (&mut end.tls, end.finished) {
                    let _ = tls.refresh_traffic_keys();
                }
            }
            _ => std::thread::yield_now(),
        }
    }
    settle(&mut ends);
    over(&lease);
    judge(&ends, &stream, &bench.ends());
    assert_eq!(bench.relay.live(), 0);
}

/// Finishes both ways and reads both to their ends.
fn settle(ends: &mut [End; 2]) {
    let begun = Instant::now();
    for end in ends.iter_mut() {
        // A FIN may be dropped by a reset that overtakes it, so it goes when what is before it has arrived.
        if let (Some(tls), false) = (&mut end.tls, end.finished) {
            tls.send_close_notify();
        }
    }
    while ends
        .iter()
        .any(|end| !end.reset && (end.seen == Seen::Open || !end.finished))
    {
        for end in ends.iter_mut() {
            end.read(65536);
            if end.flush()
                && !end.finished
                && let Some(socket) = &end.socket
            {
                let _ = socket.shutdown(Shutdown::Write);
                end.finished = true;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "a side never saw an end");
    }
}

fn judge(ends: &[End; 2], stream: &[u8], ended: &[String]) {
    for (reader, writer, early) in [(0, 1, 3), (1, 0, 0)] {
        let (reader, writer) = (&ends[reader], &ends[writer]);
        let read = reader.read.get(early..).unwrap_or_default();
        assert!(stream.starts_with(read), "bytes lost or swapped");
        assert!(read.len() <= writer.written, "bytes made up");
        if !ends.iter().any(|end| end.reset) {
            assert_eq!(reader.seen, Seen::Fin);
            assert_eq!(read.len(), writer.written, "bytes lost");
        }
        if writer.reset && !writer.finished && !reader.reset {
            assert_eq!(
                reader.seen,
                Seen::Reset,
                "a reset looked orderly; the records ended {ended:?}"
            );
        }
    }
}

#[test]
fn whatever_the_ends_do_the_other_side_sees_it_in_order() {
    let seeds = std::env::var("EVENKEEL_MODEL_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(SEEDS);
    let first = std::env::var("EVENKEEL_MODEL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    for seed in first..first + seeds {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!(
                "seed {seed} failed: EVENKEEL_MODEL_SEED={seed} EVENKEEL_MODEL_SEEDS=1 cargo test relay::model"
            );
        }
    }
}

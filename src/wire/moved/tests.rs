use fastrand::Rng;
use minicbor::Encoder;
use proptest::prelude::*;

use super::*;
use data_encoding::HEXLOWER;

/// Bytes of format 1, as the first version wrote them. They never change.
const GOLDEN: &str = include_str!("format-1.hex");

fn text(rng: &mut Rng) -> String {
    let length = rng.usize(..40);
    (0..length).map(|_| rng.alphanumeric()).collect()
}

fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let length = rng.usize(..most);
    (0..length).map(|_| rng.u8(..)).collect()
}

fn maybe<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    rng.bool().then(|| make(rng))
}

fn peer(rng: &mut Rng) -> MovedPeer {
    let port = rng.u16(..);
    if rng.bool() {
        MovedPeer::V4 {
            ip: rng.u32(..).to_be_bytes(),
            port,
        }
    } else {
        MovedPeer::V6 {
            ip: rng.u128(..).to_be_bytes(),
            port,
        }
    }
}

fn record(rng: &mut Rng) -> MovedRecord {
    let names = rng.usize(..16);
    MovedRecord {
        id: rng.u64(..),
        bytes_from_client: rng.u64(..),
        bytes_from_backend: rng.u64(..1000),
        age_us: rng.u64(..),
        names: (0..names).map(|_| maybe(rng, text)).collect(),
        listener: text(rng),
        pool: maybe(rng, text),
        backend: maybe(rng, text),
        connect_us: maybe(rng, |rng| rng.u32(..)),
        last_line_seconds: rng.u32(..),
        client: maybe(rng, peer),
        status: rng.choice([0, 101]).unwrap(),
        backend_tls: maybe(rng, |rng| rng.u8(2..4)),
        tries: rng.u8(..),
        heard: rng.bool(),
        trace: maybe(rng, text),
    }
}

fn leg(rng: &mut Rng) -> MovedLeg {
    MovedLeg {
        flags: rng.u8(..),
        fault: maybe(rng, |_| "rst".to_owned()),
        tls: maybe(rng, |rng| Box::new(tls(rng))),
    }
}

fn tls(rng: &mut Rng) -> MovedTls {
    use MovedCipher::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    let ciphers = [Aes128Gcm, Aes256Gcm, Chacha20Poly1305];
    let secret = |rng: &mut Rng| MovedSecret {
        secret: bytes(rng, 49),
        sequence: rng.u64(..),
    };
    MovedTls {
        version: rng
            .choice([MovedVersion::Tls12, MovedVersion::Tls13])
            .unwrap(),
        cipher: rng.choice(ciphers).unwrap(),
        is_server: rng.bool(),
        read: secret(rng),
        write: secret(rng),
        partial_record: bytes(rng, 100),
        partial_message: bytes(rng, 3),
        is_peer_closed: rng.bool(),
        is_finished: rng.bool(),
        pending_update: rng.u8(..3),
        pending_refusal: rng.bool(),
        pending_alert: maybe(rng, |rng| rng.u16(..)),
        empty_records: rng.u8(..32),
        idle_messages: rng.u8(..32),
        warnings: rng.u8(..4),
        is_renegotiation_refused: rng.bool(),
        output: bytes(rng, 100),
    }
}

fn direction(rng: &mut Rng) -> MovedDirection {
    use MovedSource::{Broken, Ended, Finished, Open};
    MovedDirection {
        stalled: bytes(rng, 300),
        source: rng.choice([Open, Ended, Finished, Broken]).unwrap(),
    }
}

fn filter(rng: &mut Rng) -> MovedFilter {
    MovedFilter {
        position: match rng.u8(..4) {
            0 => MovedPosition::Between,
            1 => MovedPosition::Header {
                count: rng.u8(..),
                kept: [rng.u8(..); 10],
            },
            2 => MovedPosition::Payload { left: rng.u64(..) },
            _ => MovedPosition::Lost {
                violation: rng.u8(..),
            },
        },
        is_message_open: rng.bool(),
        output: rng
            .choice([MovedOutput::Open, MovedOutput::Closed])
            .unwrap(),
        source_close: rng.u8(..8),
        close_filter: rng.choice([MovedClose::None, MovedClose::Any]).unwrap(),
        is_guarded: rng.bool(),
        marks: rng.u8(..8),
        edits: maybe(rng, |rng| {
            Box::new(MovedEdits {
                insert: bytes(rng, 50),
                is_close: rng.bool(),
                held: bytes(rng, 20),
                awaited_pong: maybe(rng, |rng| rng.u64(..)),
                ping: maybe(rng, |rng| bytes(rng, 4)),
                close_code: maybe(rng, |rng| rng.u16(..)),
                is_reader_absent: rng.bool(),
                drops_frame: rng.bool(),
                drops_message: rng.bool(),
            })
        }),
    }
}

fn rate(rng: &mut Rng) -> MovedRate {
    MovedRate {
        count: rng.u64(..),
        per_ns: rng.u64(..),
    }
}

fn ping(rng: &mut Rng) -> MovedPing {
    MovedPing {
        is_watched: rng.bool(),
        heard_ms: rng.u64(..1000),
        asked_ms: maybe(rng, |rng| rng.u64(..1000)),
        delivered: rng.u64(..),
    }
}

fn resume(rng: &mut Rng) -> MovedResume {
    MovedResume {
        settings: MovedResumeSettings {
            on: rng.u8(..32),
            settle_ms: rng.u64(..),
            max: rate(rng),
            max_buffer: rng.u32(..),
            timeout_ms: rng.u64(..),
            header: text(rng),
        },
        migrator: MovedMigrator {
            handshake: bytes(rng, 500),
            header: text(rng),
            upgrade_timeout_ms: rng.u32(..),
            client: maybe(rng, peer),
            proxy_header: maybe(rng, |rng| bytes(rng, 60)),
            key: maybe(rng, |rng| bytes(rng, 3)),
            count: rng.u32(..),
            short: rng.u8(..),
        },
        changes_full_in_ns: rng.u64(..),
        sent_ms: maybe(rng, |rng| rng.u64(..)),
        answered_ms: maybe(rng, |rng| rng.u64(..)),
        takeover: maybe(rng, |rng| MovedTakeover {
            since_ms: rng.u64(..),
            from_ms: rng.u64(..),
            lost: maybe(rng, |rng| rng.u32(..)),
        }),
    }
}

fn frames(rng: &mut Rng) -> MovedFrames {
    MovedFrames {
        client: filter(rng),
        backend: filter(rng),
        limits: maybe(rng, |rng| {
            Box::new(MovedLimits {
                max_frame: maybe(rng, |rng| rng.u64(..)),
                max_message: maybe(rng, |rng| rng.u64(..)),
                max_pings: maybe(rng, rate),
                message: rng.u64(..),
                pings_full_in_ns: rng.u64(..),
            })
        }),
        pings: maybe(rng, |rng| {
            Box::new(MovedPings {
                interval_ms: rng.u64(..),
                timeout_ms: rng.u64(..),
                count: rng.u32(..),
                client: ping(rng),
                backend: ping(rng),
            })
        }),
        resume: maybe(rng, |rng| Box::new(resume(rng))),
        messages_only: rng.bool(),
    }
}

fn session(seed: u64) -> MovedSession {
    let rng = &mut Rng::with_seed(seed);
    MovedSession {
        record: record(rng),
        client: leg(rng),
        backend: maybe(rng, leg),
        from_client: direction(rng),
        from_backend: direction(rng),
        timeouts: MovedTimeouts {
            idle_ms: rng.u64(..),
            fin_ms: rng.u64(..),
            lifetime_ms: maybe(rng, |rng| rng.u64(..)),
        },
        idle_ms: rng.u64(..1000),
        unsent_before: rng.u32(..),
        first_fin: maybe(rng, |_| MovedSide::Backend),
        frames: maybe(rng, |rng| Box::new(frames(rng))),
        gap: maybe(rng, |rng| {
            Box::new(MovedGap {
                since_ms: rng.u64(..),
                ended_ms: rng.u64(..),
                held: bytes(rng, 100),
                lost: maybe(rng, |rng| rng.u32(..)),
                cause: "fin".to_owned(),
                was_short: rng.bool(),
            })
        }),
    }
}

fn encoded(session: &MovedSession) -> Vec<u8> {
    let mut out = Vec::new();
    encode(session, &mut out);
    out
}

#[test]
fn a_written_session_is_read_back() {
    for seed in 0..2000 {
        let session = session(seed);
        assert!(decode(&encoded(&session)) == Ok(session), "{seed}");
    }
}

#[test]
fn a_truncated_session_is_refused_wherever_it_ends() {
    for seed in 0..20 {
        let whole = encoded(&session(seed));
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "{seed}: {end}");
        }
    }
}

#[test]
fn bytes_behind_a_session_are_refused() {
    let mut long = encoded(&session(1));
    long.push(0);
    assert_eq!(decode(&long), Err(StateError::Trailing(1)));
}

/// Adds an entry to the map that ends these bytes and begins at `begin`.
fn with_entry(mut bytes: Vec<u8>, begin: usize) -> Vec<u8> {
    assert_eq!(bytes[begin] & 0xe0, 0xa0, "no small map");
    bytes[begin] += 1;
    let mut encoder = Encoder::new(bytes);
    encoder.u32(200).unwrap();
    encoder.array(2).unwrap().str("new").unwrap();
    encoder
        .map(1)
        .unwrap()
        .u8(1)
        .unwrap()
        .bytes(&[7; 9])
        .unwrap();
    encoder.into_writer()
}

#[test]
fn a_field_of_a_later_version_is_skipped() {
    for seed in 0..50 {
        let session = session(seed);
        // Behind the array of two and the array of nothing.
        let later = with_entry(encoded(&session), 2);
        assert!(decode(&later) == Ok(session), "{seed}");
    }
}

#[test]
fn a_field_that_cannot_be_done_without_declines_the_session() {
    let session = session(3);
    let mut out = Vec::new();
    encode_needing(&[0, 9, 10], &session, &mut out);
    assert!(decode(&out) == Ok(session.clone()));
    out.clear();
    encode_needing(&[2, 63], &session, &mut out);
    assert_eq!(decode(&out), Err(StateError::Needs(63)));
    assert!(StateError::Needs(63).to_string().contains("field 63"));
}

/// The seed is one whose session has everything.
#[test]
fn format_1_stays_as_it_was() {
    let session = full();
    let golden = GOLDEN.lines().collect::<String>();
    let written = encoded(&session);
    let lines: Vec<_> = written
        .chunks(40)
        .map(|line| HEXLOWER.encode(line))
        .collect();
    assert!(
        lines.concat() == golden,
        "it is written otherwise:\n{}",
        lines.join("\n")
    );
    let golden = HEXLOWER.decode(golden.as_bytes()).unwrap();
    assert!(decode(&golden) == Ok(session), "it is read otherwise");
}

/// A session in which every field is present.
fn full() -> MovedSession {
    let peer = MovedPeer::V6 {
        ip: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        port: 4711,
    };
    let rate = MovedRate {
        count: 3,
        per_ns: 60_000_000_000,
    };
    let ping = MovedPing {
        is_watched: true,
        heard_ms: 1200,
        asked_ms: Some(200),
        delivered: 77,
    };
    let filter = MovedFilter {
        position: MovedPosition::Header {
            count: 3,
            kept: [0x82, 0x7e, 1, 0, 0, 0, 0, 0, 0, 0],
        },
        is_message_open: true,
        output: MovedOutput::Discarding,
        source_close: 2,
        close_filter: MovedClose::Leaving,
        is_guarded: true,
        marks: 5,
        edits: Some(Box::new(MovedEdits {
            insert: b"\x89\x00".to_vec(),
            is_close: true,
            held: b"\x8a".to_vec(),
            awaited_pong: Some(0x0102_0304_0506_0708),
            ping: Some(Vec::new()),
            close_code: Some(1005),
            is_reader_absent: true,
            drops_frame: true,
            drops_message: true,
        })),
    };
    let payload = MovedFilter {
        position: MovedPosition::Payload { left: 1 << 40 },
        ..MovedFilter::default()
    };
    MovedSession {
        record: MovedRecord {
            id: 42,
            bytes_from_client: 1000,
            bytes_from_backend: 2000,
            age_us: 3_600_000_000,
            names: vec![Some("a.example".into()), None, Some(String::new())],
            listener: "public".into(),
            pool: Some("chat".into()),
            backend: Some("n1".into()),
            connect_us: Some(250),
            last_line_seconds: 3000,
            client: Some(peer),
            status: 101,
            backend_tls: Some(3),
            tries: 2,
            heard: true,
            trace: None,
        },
        client: MovedLeg {
            flags: 0x83,
            fault: Some("rst".into()),
            tls: Some(Box::new(MovedTls {
                version: MovedVersion::Tls13,
                cipher: MovedCipher::Chacha20Poly1305,
                is_server: true,
                read: MovedSecret {
                    secret: vec![0xaa; 32],
                    sequence: 300,
                },
                write: MovedSecret {
                    secret: vec![0xbb; 32],
                    sequence: 0,
                },
                partial_record: b"\x17\x03\x03\x00\x20part".to_vec(),
                partial_message: vec![24],
                is_peer_closed: true,
                is_finished: true,
                pending_update: 2,
                pending_refusal: true,
                pending_alert: Some(0x0100),
                empty_records: 3,
                idle_messages: 4,
                warnings: 1,
                is_renegotiation_refused: true,
                output: b"sealed".to_vec(),
            })),
        },
        backend: Some(MovedLeg::default()),
        from_client: MovedDirection {
            stalled: b"stalled".to_vec(),
            source: MovedSource::Finished,
        },
        from_backend: MovedDirection::default(),
        timeouts: MovedTimeouts {
            idle_ms: 3_600_000,
            fin_ms: 30_000,
            lifetime_ms: Some(86_400_000),
        },
        idle_ms: 10,
        unsent_before: 9,
        first_fin: Some(MovedSide::Client),
        frames: Some(Box::new(MovedFrames {
            client: filter,
            backend: payload,
            limits: Some(Box::new(MovedLimits {
                max_frame: Some(1 << 20),
                max_message: None,
                max_pings: Some(rate),
                message: 12,
                pings_full_in_ns: 34,
            })),
            pings: Some(Box::new(MovedPings {
                interval_ms: 20_000,
                timeout_ms: 10_000,
                count: 8,
                client: ping,
                backend: MovedPing {
                    asked_ms: None,
                    ..ping
                },
            })),
            resume: Some(Box::new(MovedResume {
                settings: MovedResumeSettings {
                    on: 15,
                    settle_ms: 500,
                    max: rate,
                    max_buffer: 65536,
                    timeout_ms: 10_000,
                    header: "evenkeel-resume".into(),
                },
                migrator: MovedMigrator {
                    handshake: b"chat;\nGET / HTTP/1.1\r\n\r\n".to_vec(),
                    header: "evenkeel-resume".into(),
                    upgrade_timeout_ms: 10_000,
                    client: Some(MovedPeer::V4 {
                        ip: [192, 0, 2, 1],
                        port: 0,
                    }),
                    proxy_header: Some(b"\r\n\r\n\0\r\nQUIT\n".to_vec()),
                    key: Some(Vec::new()),
                    count: 2,
                    short: 1,
                },
                changes_full_in_ns: 5,
                sent_ms: Some(6),
                answered_ms: Some(7),
                takeover: Some(MovedTakeover {
                    since_ms: 100,
                    from_ms: 90,
                    lost: Some(1),
                }),
            })),
            messages_only: true,
        })),
        gap: Some(Box::new(MovedGap {
            since_ms: 20,
            ended_ms: 30,
            held: b"held".to_vec(),
            lost: None,
            cause: "fin".into(),
            was_short: true,
        })),
    }
}

#[test]
fn nothing_of_a_session_is_printed() {
    let shown = format!("{:?}", full());
    assert_eq!(shown, "MovedSession { .. }");
    let frames = full().frames.unwrap();
    assert_eq!(format!("{:?}", frames.client), "MovedFilter { .. }");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_changed_byte_is_refused_or_read(seed in 0u64..100, at: prop::sample::Index, byte: u8) {
        let mut bytes = encoded(&session(seed));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = decode(&bytes) {
            prop_assert!(decode(&encoded(&read)) == Ok(read));
        }
    }
}

//! Sessions that are exported and imported at any point: the peer notices nothing.

use super::*;

/// What another process would go on with.
fn moved(session: &TlsSession) -> TlsSession {
    let keys = session.export().unwrap();
    let imported = TlsSession::import(keys.clone()).unwrap();
    assert!(imported.export().unwrap() == keys);
    imported
}

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()
}

/// A server of the handshake in section 3 of RFC 8448, which has sent one record, a ticket.
fn server_of_rfc_8448() -> TlsSession {
    let secret = |hex, sequence| DirectionSecret {
        secret: bytes(hex).into(),
        sequence,
    };
    TlsSession::import(TlsKeys {
        version: crate::config::TlsVersion::Tls13,
        cipher: RecordCipher::Aes128Gcm,
        is_server: true,
        read: secret(
            "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
            0,
        ),
        write: secret(
            "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
            1,
        ),
        partial_record: Vec::new(),
        partial_message: Vec::new(),
        is_peer_closed: false,
        is_finished: false,
        pending: PendingControl::default(),
        counts: MessageCounts::default(),
    })
    .unwrap()
}

#[test]
fn records_are_those_of_rfc_8448() {
    let mut server = server_of_rfc_8448();
    let plain: Vec<u8> = (0..50).collect();
    let from_client = bytes(
        "17030300 43a23f70 54b62c94 d0affafe 8228ba55 cbefacea 42f914aa 66bcab3f 2b9819a8
         a5b46b39 5bd54a9a 20441e2b 62974e1f 5a6292a2 977014bd 1e3deae6 3aeebb21 694915e4",
    );
    assert_eq!(
        opened(&mut server, &from_client, 99),
        (plain.clone(), PeerStatus::Open)
    );
    let from_server = bytes(
        "17030300 432e937e 11ef4ac7 40e538ad 36005fc4 a46932fc 3225d05f 82aa1b36 e30efaf9
         7d90e6df fc602dcb 501a59a8 fcc49c4b f2e5f0a2 1c0047c2 abf33254 0dd032e1 67c2955d",
    );
    assert_eq!(sealed(&mut server, &plain), from_server);
    let close = bytes("17030300 13c98727 60655666 b74d7ff1 153efd6d b6d0b0e3");
    assert_eq!(
        opened(&mut server, &close, 99),
        (vec![], PeerStatus::Closed)
    );
    server.close();
    let close = bytes("17030300 13b58fd6 7166ebf5 99d24720 cfbe7efa 7a8864a9");
    assert_eq!(control(&mut server), close);
}

#[test]
fn a_session_moves_before_every_byte() {
    for &suite in ALL_CIPHER_SUITES {
        let (mut client, mut session) = Ends::new(suite).connect();
        let mut wire = sent(&mut client, b"one");
        let updates = client.refresh_traffic_keys().is_ok();
        wire.extend(sent(&mut client, b"two"));
        let mut plain = Vec::new();
        for byte in wire.chunks(1) {
            session = moved(&session);
            let mut room = vec![0; 1 + session.buffered()];
            let opened = session.open(byte, &mut room);
            assert_eq!(opened.consumed, 1);
            plain.extend_from_slice(&room[..opened.filled]);
        }
        assert_eq!(plain, b"onetwo");
        // The answer to a key update moves, too.
        assert_eq!(session.has_control(), updates);
        session = moved(&session);
        let bytes = sealed(&mut session, b"down");
        session = moved(&session);
        let more = sealed(&mut session, b"stairs");
        assert_eq!(deliver(&mut client, &bytes).unwrap(), b"down");
        assert_eq!(deliver(&mut client, &more).unwrap(), b"stairs");
    }
}

#[test]
fn a_session_moves_within_a_handshake_message_that_comes_in_two_records() {
    let (mut client, mut server) = one_of(true).sessions();
    let mut halves = vec![forged(&mut client, KIND_HANDSHAKE, &[24, 0, 0])];
    halves.push(forged(&mut client, KIND_HANDSHAKE, &[1, 1]));
    client.renew_write();
    halves.push(forged(&mut client, KIND_DATA, b"new"));
    let mut plain = Vec::new();
    for record in halves {
        server = moved(&server);
        plain.extend(opened(&mut server, &record, 99).0);
    }
    assert_eq!(plain, b"new");
    server = moved(&server);
    assert!(server.has_control());
    let bytes = sealed(&mut server, b"answer");
    assert_eq!(opened(&mut client, &bytes, 99).0, b"answer");
}

#[test]
fn both_ends_move_after_any_number_of_key_updates() {
    for suite in of_version(true) {
        let (mut client, mut server) = Ends::new(suite).sessions();
        for _ in 0..9 {
            client.update_keys(true);
            let bytes = sealed(&mut client, b"up");
            assert_eq!(opened(&mut server, &bytes, 5).0, b"up");
            let bytes = sealed(&mut server, b"down");
            assert_eq!(opened(&mut client, &bytes, 5).0, b"down");
            (client, server) = (moved(&client), moved(&server));
        }
    }
}

#[test]
fn an_end_moves() {
    for ends in [one_of(false), one_of(true)] {
        // The peer's.
        let (mut client, mut session) = ends.connect();
        client.send_close_notify();
        let bytes = taken(&mut client);
        opened(&mut session, &bytes, 99);
        session = moved(&session);
        assert_eq!(session.status(), PeerStatus::Closed);
        let bytes = sealed(&mut session, b"down");
        assert_eq!(deliver(&mut client, &bytes).unwrap(), b"down");
        // Ours, before and after it was sealed.
        session.close();
        session = moved(&session);
        let bytes = control(&mut session);
        deliver(&mut client, &bytes).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
        session = moved(&session);
        assert!(!session.has_control());
        assert_eq!(session.seal(b"x", &mut [0; 999]), Err(SealError::Closed));
    }
}

#[test]
fn counts_move() {
    let (mut client, mut server) = one_of(true).sessions();
    for _ in 0..32 {
        let empty = forged(&mut client, KIND_DATA, b"");
        assert_eq!(opened(&mut server, &empty, 99).1, PeerStatus::Open);
        server = moved(&server);
    }
    let empty = forged(&mut client, KIND_DATA, b"");
    let flood = PeerStatus::Failed(RecordError::Flood);
    assert_eq!(opened(&mut server, &empty, 99).1, flood);

    let (mut client, mut server) = one_of(false).sessions();
    let hello = forged(&mut client, KIND_HANDSHAKE, &[1, 0, 0, 1, 0]);
    assert_eq!(opened(&mut server, &hello, 99).1, PeerStatus::Open);
    server = moved(&server);
    let hello = forged(&mut client, KIND_HANDSHAKE, &[1, 0, 0, 1, 0]);
    let refused = PeerStatus::Failed(RecordError::Unexpected);
    assert_eq!(opened(&mut server, &hello, 99).1, refused);
}

#[test]
fn a_failed_session_stays() {
    let (_, mut server) = one_of(true).sessions();
    opened(&mut server, b"GET / HTTP/1.1", 99);
    assert!(matches!(server.status(), PeerStatus::Failed(_)));
    assert!(!server.is_movable());
    assert_eq!(server.export(), None);
}

/// A change to exported keys.
type Change = fn(&mut TlsKeys);

#[test]
fn keys_that_no_session_could_have_are_refused() {
    let cases: &[(Change, ImportError)] = &[
        (
            |keys| keys.read.secret.truncate(31),
            ImportError::Secret {
                length: 31,
                wanted: 32,
            },
        ),
        (
            |keys| keys.write.secret.push(0),
            ImportError::Secret {
                length: 33,
                wanted: 32,
            },
        ),
        (
            |keys| keys.cipher = RecordCipher::Aes256Gcm,
            ImportError::Secret {
                length: 32,
                wanted: 48,
            },
        ),
        (
            |keys| keys.version = crate::config::TlsVersion::Tls12,
            ImportError::Secret {
                length: 32,
                wanted: 28,
            },
        ),
        (
            |keys| keys.write.sequence = u64::MAX,
            ImportError::Sequence(u64::MAX),
        ),
        (
            |keys| keys.partial_record = b"GET".to_vec(),
            ImportError::Record,
        ),
        (
            |keys| keys.partial_record = vec![23, 3, 3, 0, 1, 0, 0],
            ImportError::Record,
        ),
        (
            |keys| keys.partial_record = vec![23, 3, 3, 0xff, 0xff],
            ImportError::Record,
        ),
        (
            |keys| keys.partial_message = vec![4, 0],
            ImportError::Message,
        ),
        (
            |keys| keys.partial_message = vec![24, 0, 0, 1, 0],
            ImportError::Message,
        ),
        (|keys| keys.counts.warnings = 5, ImportError::Counts),
        (|keys| keys.counts.empty_records = 33, ImportError::Counts),
        (|keys| keys.counts.idle_messages = 33, ImportError::Counts),
    ];
    for (change, error) in cases {
        assert_eq!(changed(*change).err(), Some(*error));
    }
}

/// Imports what is left of keys after a change.
fn changed(change: Change) -> Result<TlsSession, ImportError> {
    let mut keys = server_of_rfc_8448().export().unwrap();
    change(&mut keys);
    TlsSession::import(keys)
}

#[test]
fn control_records_that_no_session_could_owe_are_refused() {
    let close: Change = |keys| keys.pending.last = Some((1, 0));
    let update: Change = |keys| keys.pending.key_update = Some(true);
    let finished: Change = |keys| keys.is_finished = true;
    for change in [close, update, finished] {
        assert!(changed(change).is_ok());
    }
    let cases: &[Change] = &[
        |keys| keys.pending.last = Some((2, 40)),
        |keys| keys.pending.last = Some((1, 90)),
        |keys| keys.pending.no_renegotiation = true,
        |keys| {
            keys.pending.last = Some((1, 0));
            keys.pending.key_update = Some(false);
        },
        |keys| {
            keys.is_finished = true;
            keys.pending.key_update = Some(false);
        },
        |keys| {
            keys.is_finished = true;
            keys.pending.last = Some((1, 0));
        },
        |keys| {
            keys.version = crate::config::TlsVersion::Tls12;
            keys.read.secret.truncate(28);
            keys.write.secret.truncate(28);
            keys.pending.key_update = Some(false);
        },
    ];
    for (at, change) in cases.iter().enumerate() {
        assert_eq!(changed(*change).err(), Some(ImportError::Pending), "{at}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let keys = server_of_rfc_8448().export().unwrap();
    assert_eq!(
        format!("{keys:?} {:?}", keys.read),
        "TlsKeys { version: Tls13, cipher: Aes128Gcm, .. } DirectionSecret { .. }"
    );
}

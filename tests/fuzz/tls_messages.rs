//! The record layer against rustls' server, under the keys of a client that seals whatever it likes: data, alerts, key
//! updates, handshake messages and things that do not exist. Both see the same messages; both must make the same of them.

#![no_main]

mod ends;

use std::io::Read;
use std::sync::Arc;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use evenkeel::parts::record::{MAX_CONTROL_BYTES, TlsSession, TrafficSecrets, PeerStatus};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnection, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ConnectionTrafficSecrets, ProtocolVersion};

/// Fewer than either side counts as a flood.
const MAX_MESSAGES: usize = 30;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

#[derive(Debug, Arbitrary)]
struct Case {
    suite: u8,
    resumed: bool,
    piece: u16,
    /// Another process goes on with the session before each piece.
    moves: bool,
    messages: Vec<Message>,
}

#[derive(Debug, Arbitrary)]
enum Message {
    Data {
        content: Vec<u8>,
        padding: u8,
    },
    LongData {
        length: u16,
        padding: u16,
    },
    Alert {
        level: u8,
        description: u8,
    },
    AnyAlert(Vec<u8>),
    /// Without a change of keys it is a lie, and the next record fails.
    KeyUpdate {
        request: u8,
        is_true: bool,
    },
    KeyUpdateInTwo {
        at: u8,
    },
    Handshake {
        kind: u8,
        body: Vec<u8>,
    },
    Any {
        kind: u8,
        content: Vec<u8>,
        padding: u8,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    Closed,
    Failed,
}

fuzz_target!(|case: Case| {
    let ends = ends::ends(case.suite);
    let config = Arc::new(ends.config(case.resumed));
    let ours = by_session(ends, &config, &case);
    let theirs = by_rustls(ends, &config, &case);
    if may_differ(&case) {
        let shorter = ours.0.len().min(theirs.0.len());
        assert!(ours.0[..shorter] == theirs.0[..shorter]);
    } else {
        assert!(
            ours.0 == theirs.0,
            "{} bytes, rustls {}",
            ours.0.len(),
            theirs.0.len()
        );
        assert_eq!(ours.1, theirs.1);
    }
});

/// Where the two read the RFCs differently; each is all right.
fn may_differ(case: &Case) -> bool {
    case.messages.iter().any(|message| match message {
        // A level that does not exist; `user_canceled` as an error.
        Message::Alert { level, description } => (!matches!(level, 1 | 2)) || *description == 90,
        Message::AnyAlert(alert) => !matches!(alert[..], [1 | 2, _]) || alert.last() == Some(&90),
        // A renegotiation is refused before it is parsed.
        Message::Handshake { kind, .. } => *kind == 1,
        // A message that may not come is refused at its first byte, an empty record at once.
        Message::Any {
            kind: ALERT | HANDSHAKE,
            ..
        } => true,
        _ => false,
    })
}

fn by_session(ends: &ends::Ends, config: &Arc<ClientConfig>, case: &Case) -> (Vec<u8>, End) {
    let mut client = UnbufferedClientConnection::new(config.clone(), ends::name()).unwrap();
    let mut server = UnbufferedServerConnection::new(ends.server.clone()).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut secrets = TrafficSecrets::default();
    while client.is_handshaking() || server.is_handshaking() {
        up.extend(advance(&mut client, &mut down));
        down.extend(secrets.during(|| ends::advance(&mut server, &mut up)));
    }
    let bytes = Forger::new(client).forge(&case.messages);
    let mut session = TlsSession::server(server, secrets).unwrap();
    let mut plain = Vec::new();
    for piece in bytes.chunks(usize::from(case.piece).max(1)) {
        if case.moves
            && let Some(keys) = session.export()
        {
            session = TlsSession::import(keys).unwrap();
        }
        let mut room = vec![0; piece.len() + session.buffered()];
        let opened = session.open(piece, &mut room);
        assert_eq!(opened.consumed, piece.len());
        plain.extend(&room[..opened.filled]);
    }
    let _ = session.seal(b"x", &mut [0; 999]);
    session.take_control(&mut [0; MAX_CONTROL_BYTES]);
    assert!(!session.has_control());
    let end = match session.status() {
        PeerStatus::Open => End::Open,
        PeerStatus::Closed => End::Closed,
        PeerStatus::Failed(_) => End::Failed,
    };
    (plain, end)
}

fn by_rustls(ends: &ends::Ends, config: &Arc<ClientConfig>, case: &Case) -> (Vec<u8>, End) {
    let mut client = UnbufferedClientConnection::new(config.clone(), ends::name()).unwrap();
    let mut server = ServerConnection::new(ends.server.clone()).unwrap();
    let mut down = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        let up = advance(&mut client, &mut down);
        server.read_tls(&mut &up[..]).unwrap();
        server.process_new_packets().unwrap();
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
    }
    let bytes = Forger::new(client).forge(&case.messages);
    let mut rest = &bytes[..];
    let mut plain = Vec::new();
    let mut end = End::Open;
    while end == End::Open && !rest.is_empty() {
        if server.read_tls(&mut rest).unwrap() == 0 {
            break;
        }
        end = match server.process_new_packets() {
            Ok(state) if state.peer_has_closed() => End::Closed,
            Ok(_) => End::Open,
            Err(_) => End::Failed,
        };
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = server.reader().read(&mut chunk) {
            plain.extend(&chunk[..count]);
        }
    }
    (plain, end)
}

fn advance(client: &mut UnbufferedClientConnection, input: &mut Vec<u8>) -> Vec<u8> {
    let mut output = Vec::new();
    while client.is_handshaking() || client.wants_write() {
        let UnbufferedStatus { discard, state } = client.process_tls_records(input);
        let blocked = match state.unwrap() {
            ConnectionState::EncodeTlsData(data) => {
                ends::encode(data, &mut output);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            _ => true,
        };
        input.drain(..discard);
        if blocked {
            break;
        }
    }
    output
}

/// Seals anything under a client's keys.
struct Forger {
    kernel: KernelConnection<ClientConnectionData>,
    is_tls13: bool,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    /// Bytes of the nonce that go before the ciphertext.
    explicit: usize,
}

impl Forger {
    fn new(client: UnbufferedClientConnection) -> Forger {
        let (secrets, kernel) = client.dangerous_into_kernel_connection().unwrap();
        let is_tls13 = kernel.protocol_version() == ProtocolVersion::TLSv1_3;
        let (sequence, (key, iv, is_gcm)) = (secrets.tx.0, key(secrets.tx.1));
        Forger {
            kernel,
            is_tls13,
            key,
            iv,
            sequence,
            explicit: if is_gcm && !is_tls13 { 8 } else { 0 },
        }
    }

    fn forge(mut self, messages: &[Message]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages.iter().take(MAX_MESSAGES) {
            match message {
                Message::Data { content, padding } => {
                    out.extend(self.seal(DATA, content, *padding))
                }
                Message::LongData { length, padding } => {
                    let content = vec![7; usize::from(*length) % 18_000];
                    out.extend(self.seal(DATA, &content, *padding % 18_000));
                }
                Message::Alert { level, description } => {
                    out.extend(self.seal(ALERT, &[*level, *description], 0u8));
                }
                Message::AnyAlert(alert) => out.extend(self.seal(ALERT, alert, 0u8)),
                Message::KeyUpdate { request, is_true } => {
                    out.extend(self.seal(HANDSHAKE, &[24, 0, 0, 1, *request], 0u8));
                    if *is_true {
                        self.renew();
                    }
                }
                Message::KeyUpdateInTwo { at } => {
                    let (one, other) = [24, 0, 0, 1, 1].split_at(1 + usize::from(*at) % 4);
                    out.extend(self.seal(HANDSHAKE, one, 0u8));
                    out.extend(self.seal(HANDSHAKE, other, 0u8));
                    self.renew();
                }
                Message::Handshake { kind, body } => {
                    let mut content = vec![*kind];
                    content.extend(&(body.len() as u32).to_be_bytes()[1..]);
                    content.extend(body);
                    out.extend(self.seal(HANDSHAKE, &content, 0u8));
                }
                Message::Any {
                    kind,
                    content,
                    padding,
                } => out.extend(self.seal(*kind, content, *padding)),
            }
        }
        out
    }

    fn renew(&mut self) {
        if self.is_tls13 {
            let (sequence, secrets) = self.kernel.update_tx_secret().unwrap();
            (self.key, self.iv, _) = key(secrets);
            self.sequence = sequence;
        }
    }

    fn seal(&mut self, kind: u8, content: &[u8], padding: impl Into<usize>) -> Vec<u8> {
        let mut inner = content.to_vec();
        if self.is_tls13 {
            inner.push(kind);
            inner.resize(inner.len() + padding.into(), 0);
        }
        let mut nonce = self.iv;
        for (byte, digit) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= digit;
        }
        let outer = if self.is_tls13 { DATA } else { kind };
        let mut record = vec![outer, 3, 3];
        record.extend(((self.explicit + inner.len() + 16) as u16).to_be_bytes());
        let aad = match self.is_tls13 {
            true => record.clone(),
            false => {
                let mut aad = self.sequence.to_be_bytes().to_vec();
                aad.extend([kind, 3, 3]);
                aad.extend((inner.len() as u16).to_be_bytes());
                aad
            }
        };
        record.extend(&nonce[12 - self.explicit..]);
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut inner,
            )
            .unwrap();
        self.sequence += 1;
        record.extend(inner);
        record
    }
}

fn key(secrets: ConnectionTrafficSecrets) -> (LessSafeKey, [u8; 12], bool) {
    let (algorithm, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
        _ => panic!("no such cipher"),
    };
    let iv = iv.as_ref().try_into().unwrap();
    let is_gcm = algorithm != &CHACHA20_POLY1305;
    (
        LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap()),
        iv,
        is_gcm,
    )
}

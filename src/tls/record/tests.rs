//! The session against rustls' buffered client, and against itself where a peer has to misbehave
//! under authentic keys.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, Ticketer, default_provider};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
    SignatureAlgorithm, SupportedCipherSuite,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::io::{Read, Write};

use super::frame::{HEADER_BYTES, KIND_ALERT, KIND_DATA, KIND_HANDSHAKE, MAX_FRAGMENT_BYTES};
use super::suite::MAX_OVERHEAD_BYTES;
use super::*;
use crate::tls::handshake::{Handshake, HandshakeStep};

mod moved;
mod schedule;

const NAME: &str = "chat.test";

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn identity(rsa: bool) -> &'static Identity {
    static MADE: [OnceLock<Identity>; 2] = [OnceLock::new(), OnceLock::new()];
    MADE[usize::from(rsa)].get_or_init(|| {
        let kind = if rsa {
            &PKCS_RSA_SHA256
        } else {
            &PKCS_ECDSA_P256_SHA256
        };
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        Identity {
            certificate: params.self_signed(&key).unwrap().der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    })
}

/// Both ends' configurations, with one suite.
#[derive(Clone)]
struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Ends {
    fn new(suite: SupportedCipherSuite) -> Ends {
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let provider = Arc::new(provider);
        let rsa = !suite.usable_for_signature_algorithm(SignatureAlgorithm::ECDSA);
        let identity = identity(rsa);
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .unwrap();
        server.ticketer = Ticketer::new().unwrap();
        server.enable_secret_extraction = true;
        server.key_log = key_log();
        let mut roots = RootCertStore::empty();
        roots.add(identity.certificate.clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        client.key_log = key_log();
        Ends {
            server: Arc::new(server),
            client: Arc::new(client),
        }
    }

    fn client(&self) -> ClientConnection {
        let mut client = ClientConnection::new(self.client.clone(), name()).unwrap();
        client.set_buffer_limit(None);
        client
    }

    /// A finished handshake, with what the server still has to say delivered.
    fn connect(&self) -> (ClientConnection, TlsSession) {
        let mut client = self.client();
        let (session, output) = shake(self, &mut client, &[], usize::MAX);
        deliver(&mut client, &output).unwrap();
        (client, session)
    }

    /// Two sessions, so that the client's can be made to misbehave.
    fn sessions(&self) -> (TlsSession, TlsSession) {
        let mut client = UnbufferedClientConnection::new(self.client.clone(), name()).unwrap();
        let mut secrets = TrafficSecrets::default();
        let mut server = Handshake::server(self.server.clone()).unwrap();
        let mut to_client = Vec::new();
        let mut done = false;
        while !done || !to_client.is_empty() {
            let to_server = secrets.during(|| advance_client(&mut client, &mut to_client));
            server.input().extend_from_slice(&to_server);
            done = matches!(server.advance().unwrap(), HandshakeStep::Done);
            to_client.append(&mut server.output);
            if done {
                break;
            }
        }
        let server = server.finish().unwrap();
        assert!(server.residue.is_empty());
        // TLS 1.2's last flight ends the client's handshake; TLS 1.3's tickets are for its session.
        if client.is_handshaking() {
            secrets.during(|| advance_client(&mut client, &mut to_client));
        }
        let mut client = TlsSession::client(client, secrets).unwrap();
        let tickets = opened(&mut client, &to_client, 100);
        assert_eq!(tickets, (vec![], PeerStatus::Open));
        (client, server.session)
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

/// Lets an unbuffered client read and returns what it sends. It does not look beyond the end of its
/// handshake.
fn advance_client(client: &mut UnbufferedClientConnection, input: &mut Vec<u8>) -> Vec<u8> {
    let mut output = Vec::new();
    while client.is_handshaking() || client.wants_write() {
        let UnbufferedStatus { discard, state } = client.process_tls_records(input);
        let blocked = match state.unwrap() {
            ConnectionState::EncodeTlsData(mut data) => {
                let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) else {
                    panic!("nothing to encode");
                };
                let end = output.len();
                output.resize(end + size.required_size, 0);
                data.encode(&mut output[end..]).unwrap();
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

/// Makes the handshake; the client's last flight has `early` behind it, everything in pieces of
/// `piece`. Returns the session and the ciphertext for the client.
fn shake(
    ends: &Ends,
    client: &mut ClientConnection,
    early: &[u8],
    piece: usize,
) -> (TlsSession, Vec<u8>) {
    let mut server = Handshake::server(ends.server.clone()).unwrap();
    // Sent as soon as the client is done.
    client.writer().write_all(early).unwrap();
    loop {
        let sent = taken(client);
        let mut pieces = sent.chunks(piece.min(sent.len()).max(1));
        for piece in pieces.by_ref() {
            server.input().extend_from_slice(piece);
            if matches!(server.advance().unwrap(), HandshakeStep::Done) {
                let done = server.finish().unwrap();
                let mut session = done.session;
                let mut rest = done.residue;
                rest.extend(pieces.flatten());
                let (plain, status) = opened(&mut session, &rest, piece.len());
                assert_eq!(status, PeerStatus::Open);
                assert!(plain == early, "{} of {}", plain.len(), early.len());
                return (session, done.output);
            }
        }
        deliver(client, &std::mem::take(&mut server.output)).unwrap();
    }
}

/// Bytes that the client wants to send.
fn taken(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Bytes that the client sends for `plain`.
fn sent(client: &mut ClientConnection, plain: &[u8]) -> Vec<u8> {
    client.writer().write_all(plain).unwrap();
    taken(client)
}

/// The plaintext that the client makes of `bytes`.
fn deliver(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        if client.read_tls(&mut bytes).unwrap() == 0 {
            break;
        }
        client.process_new_packets()?;
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = client.reader().read(&mut chunk) {
            plain.extend_from_slice(&chunk[..count]);
        }
    }
    Ok(plain)
}

/// The plaintext that the session makes of `bytes`, fed in pieces.
fn opened(session: &mut TlsSession, bytes: &[u8], piece: usize) -> (Vec<u8>, PeerStatus) {
    let mut plain = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        let mut room = vec![0; piece.len() + session.buffered()];
        let opened = session.open(piece, &mut room);
        assert_eq!(opened.consumed, piece.len());
        plain.extend_from_slice(&room[..opened.filled]);
    }
    (plain, session.status())
}

fn sealed(session: &mut TlsSession, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; TlsSession::sealed_bound(plain.len())];
    let sealed = session.seal(plain, &mut out).unwrap();
    assert_eq!(sealed.taken, plain.len());
    out.truncate(sealed.written);
    out
}

fn control(session: &mut TlsSession) -> Vec<u8> {
    let mut out = vec![0; MAX_CONTROL_BYTES];
    let written = session.take_control(&mut out);
    assert!(!session.has_control());
    out.truncate(written);
    out
}

/// A record of any type under the session's keys.
fn forged(session: &mut TlsSession, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; content.len() + MAX_OVERHEAD_BYTES];
    let written = session
        .write
        .seal(session.suite, kind, content, &mut out)
        .unwrap();
    out.truncate(written.unwrap());
    out
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| ((i + seed) * 31 % 251) as u8).collect()
}

fn of_version(tls13: bool) -> impl Iterator<Item = SupportedCipherSuite> {
    let suites = ALL_CIPHER_SUITES.iter().copied();
    suites.filter(move |suite| suite.tls13().is_some() == tls13)
}

fn one_of(tls13: bool) -> Ends {
    Ends::new(of_version(tls13).next().unwrap())
}

#[test]
fn every_suite_carries_data_both_ways_resumed_or_not() {
    for &suite in ALL_CIPHER_SUITES {
        let ends = Ends::new(suite);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (mut client, mut session) = ends.connect();
            assert_eq!(client.handshake_kind(), Some(kind), "{suite:?}");
            for length in [0, 1, 16_384, 16_385, 100_000, 7] {
                let plain = pattern(length, 3);
                let bytes = sent(&mut client, &plain);
                assert!(opened(&mut session, &bytes, 9000) == (plain.clone(), PeerStatus::Open));
                let bytes = sealed(&mut session, &plain);
                assert!(deliver(&mut client, &bytes).unwrap() == plain, "{suite:?}");
            }
        }
    }
}

#[test]
fn ten_thousand_records_pass_each_way() {
    for ends in [one_of(false), one_of(true)] {
        let (mut client, mut session) = ends.connect();
        for i in 0..10_000 {
            let plain = pattern(i % 300, i);
            let bytes = sent(&mut client, &plain);
            assert!(opened(&mut session, &bytes, 100) == (plain.clone(), PeerStatus::Open));
            let bytes = sealed(&mut session, &plain);
            assert!(deliver(&mut client, &bytes).unwrap() == plain);
        }
    }
}

#[test]
fn what_stands_behind_the_finished_is_not_lost() {
    for ends in [one_of(false), one_of(true)] {
        for length in [0, 1, 100, 16_384, 17_000, 150_000] {
            for piece in [7, 1000, 4096, usize::MAX] {
                let mut client = ends.client();
                let (mut session, output) = shake(&ends, &mut client, &pattern(length, 1), piece);
                let mut bytes = output;
                bytes.extend(sealed(&mut session, b"hello"));
                assert_eq!(deliver(&mut client, &bytes).unwrap(), b"hello");
            }
        }
    }
}

#[test]
fn a_key_update_right_behind_the_finished_is_answered() {
    let ends = one_of(true);
    let mut client = ends.client();
    let mut server = Handshake::server(ends.server.clone()).unwrap();
    server.input().extend(taken(&mut client));
    assert!(matches!(
        server.advance().unwrap(),
        HandshakeStep::NeedInput
    ));
    deliver(&mut client, &std::mem::take(&mut server.output)).unwrap();
    let mut last = taken(&mut client);
    client.refresh_traffic_keys().unwrap();
    last.extend(sent(&mut client, b"new key"));
    server.input().extend(last);
    assert!(matches!(server.advance().unwrap(), HandshakeStep::Done));
    let done = server.finish().unwrap();
    let mut session = done.session;
    assert!(opened(&mut session, &done.residue, 5).0 == b"new key");
    let mut bytes = done.output;
    bytes.extend(control(&mut session));
    bytes.extend(sealed(&mut session, b"ours too"));
    assert_eq!(deliver(&mut client, &bytes).unwrap(), b"ours too");
}

#[test]
fn keys_are_updated_by_either_side() {
    for suite in of_version(true) {
        let (mut client, mut session) = Ends::new(suite).connect();
        for round in 0..40 {
            match round % 4 {
                0 => client.refresh_traffic_keys().unwrap(),
                1 => session.update_keys(true),
                2 => session.update_keys(false),
                _ => {}
            }
            let bytes = sent(&mut client, b"up");
            assert_eq!(opened(&mut session, &bytes, 11).0, b"up");
            assert_eq!(session.has_control(), round % 4 < 3, "{round}");
            let bytes = sealed(&mut session, b"down");
            assert!(!session.has_control());
            assert_eq!(deliver(&mut client, &bytes).unwrap(), b"down");
        }
    }
}

#[test]
fn many_requests_for_a_key_update_get_one_answer() {
    let (mut client, mut session) = one_of(true).connect();
    let mut bytes = Vec::new();
    for _ in 0..20 {
        client.refresh_traffic_keys().unwrap();
        bytes.extend(taken(&mut client));
    }
    assert_eq!(opened(&mut session, &bytes, 50), (vec![], PeerStatus::Open));
    let answer = control(&mut session);
    assert_eq!(answer.len(), session.suite.overhead() + 5);
    let mut bytes = answer;
    bytes.extend(sealed(&mut session, b"after"));
    assert_eq!(deliver(&mut client, &bytes).unwrap(), b"after");
}

#[test]
fn close_notify_passes_both_ways_and_each_way_alone() {
    for ends in [one_of(false), one_of(true)] {
        let (mut client, mut session) = ends.connect();
        client.send_close_notify();
        let mut bytes = taken(&mut client);
        bytes.extend(b"what follows is ignored");
        assert_eq!(
            opened(&mut session, &bytes, 9),
            (vec![], PeerStatus::Closed)
        );
        let bytes = sealed(&mut session, b"the other way goes on");
        assert_eq!(
            deliver(&mut client, &bytes).unwrap(),
            b"the other way goes on"
        );
        session.close();
        session.close();
        assert_eq!(session.seal(b"x", &mut [0; 999]), Err(SealError::Closed));
        let bytes = control(&mut session);
        deliver(&mut client, &bytes).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
        session.close();
        assert!(!session.has_control());
        assert_eq!(session.seal(b"x", &mut [0; 999]), Err(SealError::Closed));

        let (mut client, mut session) = ends.connect();
        session.close();
        deliver(&mut client, &control(&mut session)).unwrap();
        let bytes = sent(&mut client, b"still heard");
        assert_eq!(
            opened(&mut session, &bytes, 9),
            (b"still heard".to_vec(), PeerStatus::Open)
        );
    }
}

#[test]
fn a_cut_record_gives_nothing_and_is_still_open() {
    for ends in [one_of(false), one_of(true)] {
        let (mut client, mut session) = ends.connect();
        let bytes = sent(&mut client, b"hello");
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(opened(&mut session, cut, 3), (vec![], PeerStatus::Open));
        assert_eq!(session.buffered(), cut.len());
        assert!(session.incomplete().record.capacity() <= bytes.len() + 8);
        let last = &bytes[cut.len()..];
        assert_eq!(
            opened(&mut session, last, 3),
            (b"hello".to_vec(), PeerStatus::Open)
        );
        assert_eq!(session.buffered(), 0);
        assert_eq!(session.incomplete().record.capacity(), 0);
    }
}

#[test]
fn a_flipped_bit_gives_an_alert_and_no_plaintext() {
    for &suite in ALL_CIPHER_SUITES {
        let ends = Ends::new(suite);
        let length = {
            let (mut client, _) = ends.connect();
            sent(&mut client, b"hello").len()
        };
        for at in 0..length {
            let (mut client, mut session) = ends.connect();
            let mut bytes = sent(&mut client, b"hello");
            bytes[at] ^= 1 << (at % 8);
            let (plain, status) = opened(&mut session, &bytes, 1000);
            assert_eq!(plain, b"", "{suite:?} {at}");
            // A longer length waits for its bytes.
            if status == PeerStatus::Open {
                assert!((3..5).contains(&at), "{suite:?} {at}");
                continue;
            }
            assert!(matches!(status, PeerStatus::Failed(_)));
            assert_eq!(session.seal(b"x", &mut [0; 999]), Err(SealError::Closed));
            let alert = control(&mut session);
            let error = deliver(&mut client, &alert).unwrap_err();
            assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
            if at >= HEADER_BYTES {
                assert_eq!(status, PeerStatus::Failed(RecordError::BadRecord));
                assert_eq!(
                    error,
                    rustls::Error::AlertReceived(AlertDescription::BadRecordMac)
                );
            }
        }
    }
}

#[test]
fn data_before_a_bad_record_is_given() {
    let (mut client, mut session) = one_of(true).connect();
    let mut bytes = sent(&mut client, b"good");
    let mut bad = sent(&mut client, b"bad");
    *bad.last_mut().unwrap() ^= 1;
    bytes.extend(bad);
    bytes.extend(sent(&mut client, b"never seen"));
    let failed = PeerStatus::Failed(RecordError::BadRecord);
    assert_eq!(
        opened(&mut session, &bytes, 1000),
        (b"good".to_vec(), failed)
    );
}

#[test]
fn the_confidentiality_limit_renews_the_keys_of_tls13() {
    for suite in of_version(true) {
        let (mut client, mut session) = Ends::new(suite).connect();
        session.key_limit = 2;
        for i in 0..50 {
            let plain = pattern(40_000, i);
            let bytes = sealed(&mut session, &plain);
            assert!(session.write.sequence() < 4);
            assert!(deliver(&mut client, &bytes).unwrap() == plain);
        }
        // The peer's keys were never asked for.
        assert_eq!(session.read.sequence(), 0);
    }
}

#[test]
fn the_confidentiality_limit_ends_tls12_with_close_notify() {
    let (mut client, mut session) = one_of(false).connect();
    session.key_limit = 3;
    let mut out = [0; 1000];
    for _ in session.write.sequence()..7 {
        let sealed = session.seal(b"x", &mut out).unwrap();
        assert_eq!(deliver(&mut client, &out[..sealed.written]).unwrap(), b"x");
    }
    assert_eq!(session.seal(b"x", &mut out), Err(SealError::Exhausted));
    session.close();
    deliver(&mut client, &control(&mut session)).unwrap();
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn a_cooled_session_goes_on() {
    for &suite in ALL_CIPHER_SUITES {
        let (mut client, mut session) = Ends::new(suite).connect();
        for _ in 0..3 {
            let bytes = sent(&mut client, b"up");
            assert_eq!(opened(&mut session, &bytes, 99).0, b"up");
            let bytes = sealed(&mut session, b"down");
            assert_eq!(deliver(&mut client, &bytes).unwrap(), b"down");
            session.drop_keys();
            assert!(session.read.is_dropped() && session.write.is_dropped());
        }
    }
}

#[test]
fn a_client_session_talks_to_a_server_session() {
    for &suite in ALL_CIPHER_SUITES {
        let (mut client, mut server) = Ends::new(suite).sessions();
        for round in 0..6 {
            client.update_keys(round == 2);
            server.update_keys(round == 4);
            let bytes = sealed(&mut client, b"up");
            assert_eq!(
                opened(&mut server, &bytes, 5),
                (b"up".to_vec(), PeerStatus::Open)
            );
            let bytes = sealed(&mut server, b"down");
            assert_eq!(
                opened(&mut client, &bytes, 5),
                (b"down".to_vec(), PeerStatus::Open)
            );
        }
    }
}

/// Content types and contents.
type Records<'a> = &'a [(u8, &'a [u8])];

/// Result of a server whose client sends these records.
fn after(ends: &Ends, records: Records<'_>) -> (Vec<u8>, PeerStatus) {
    let (mut client, mut server) = ends.sessions();
    let bytes: Vec<u8> = records
        .iter()
        .flat_map(|(kind, content)| forged(&mut client, *kind, content))
        .collect();
    let (plain, status) = opened(&mut server, &bytes, usize::MAX);
    // The client hears of every fault but its own.
    let answer = control(&mut server);
    let (_, heard) = opened(&mut client, &answer, usize::MAX);
    if let PeerStatus::Failed(fault) = status {
        let heard_of = fault
            .alert()
            .map(|alert| PeerStatus::Failed(RecordError::Peer(alert)));
        assert_eq!(heard, heard_of.unwrap_or(PeerStatus::Open));
    }
    (plain, status)
}

#[test]
fn misbehaviour_under_tls13_is_refused() {
    let ends = one_of(true);
    let handshake = KIND_HANDSHAKE;
    let long = vec![0; MAX_FRAGMENT_BYTES + 1];
    let empty: Vec<(u8, &[u8])> = vec![(KIND_DATA, b""); 33];
    let updates: Vec<(u8, &[u8])> = vec![(handshake, &[1; 5]); 2];
    let cases: &[(Records<'_>, RecordError)] = &[
        (&[(handshake, &[1, 0, 0, 1, 0])], RecordError::Unexpected), // ClientHello
        (&[(handshake, &[4, 0, 0, 1, 0])], RecordError::Unexpected), // a ticket from a client
        (&[(handshake, &[11])], RecordError::Unexpected), // a certificate nobody asked for
        (&[(handshake, &[24, 0, 0, 2, 0, 0])], RecordError::Malformed),
        (&[(handshake, &[24, 0, 0, 0])], RecordError::Malformed),
        (&[(handshake, &[24, 0, 0, 1, 2])], RecordError::Illegal),
        (
            &[(handshake, &[24, 0, 0, 1, 0, 24])],
            RecordError::Unexpected,
        ),
        (&[(handshake, &[])], RecordError::Unexpected),
        (
            &[(handshake, &[24, 0]), (KIND_DATA, b"x")],
            RecordError::Unexpected,
        ),
        (
            &[(handshake, &[24, 0]), (KIND_ALERT, &[1, 0])],
            RecordError::Unexpected,
        ),
        (&updates, RecordError::Unexpected),
        (&[(KIND_ALERT, &[])], RecordError::Malformed),
        (&[(KIND_ALERT, &[1])], RecordError::Malformed),
        (&[(KIND_ALERT, &[1, 0, 0])], RecordError::Malformed),
        (&[(KIND_ALERT, &[2, 40])], RecordError::Peer(40)),
        (&[(KIND_ALERT, &[1, 40])], RecordError::Peer(40)),
        (&[(KIND_ALERT, &[1, 90][..]); 5], RecordError::Flood),
        (&[(20, &[1])], RecordError::Unexpected),
        (&[(99, &[1])], RecordError::Unexpected),
        (&[(0, &[])], RecordError::Unexpected),
        (&[(0, &[0; 100])], RecordError::Unexpected),
        (&[(KIND_DATA, &long)], RecordError::TooLong),
        (&[(0, &long)], RecordError::TooLong),
        (&empty, RecordError::Flood),
    ];
    for (records, fault) in cases {
        let (plain, status) = after(&ends, records);
        assert_eq!(status, PeerStatus::Failed(*fault), "{records:?}");
        assert_eq!(plain, b"");
    }
}

#[test]
fn what_tls13_allows_is_taken() {
    let ends = one_of(true);
    let handshake = KIND_HANDSHAKE;
    // A key update in two records; the next record is under the new key.
    let (mut client, mut server) = ends.sessions();
    let mut bytes = forged(&mut client, handshake, &[24, 0, 0]);
    bytes.extend(forged(&mut client, handshake, &[1, 0]));
    client.renew_write();
    bytes.extend(forged(&mut client, KIND_DATA, b"new"));
    assert_eq!(
        opened(&mut server, &bytes, 7),
        (b"new".to_vec(), PeerStatus::Open)
    );
    assert!(!server.has_control());
    // Padding, empty records, a cancelled user.
    let mut padded = b"data".to_vec();
    padded.push(KIND_DATA);
    padded.resize(MAX_FRAGMENT_BYTES, 0);
    let records: &[(u8, &[u8])] = &[(0, &padded), (KIND_DATA, b""), (KIND_ALERT, &[1, 90])];
    assert_eq!(after(&ends, records), (b"data".to_vec(), PeerStatus::Open));
    assert_eq!(
        after(&ends, &[(KIND_ALERT, &[2, 0])]),
        (vec![], PeerStatus::Closed)
    );
}

#[test]
fn misbehaviour_under_tls12_is_refused() {
    for suite in [of_version(false).next(), of_version(false).nth(2)] {
        let ends = Ends::new(suite.unwrap());
        let hello: &[u8] = &[1, 0, 0, 1, 0];
        let long = vec![0; MAX_FRAGMENT_BYTES + 1];
        let empty: Vec<(u8, &[u8])> = vec![(KIND_DATA, b""); 33];
        let cases: &[(Records<'_>, RecordError)] = &[
            (
                &[(KIND_HANDSHAKE, hello), (KIND_HANDSHAKE, hello)],
                RecordError::Unexpected,
            ),
            (
                &[(KIND_HANDSHAKE, &[24, 0, 0, 1, 0])],
                RecordError::Unexpected,
            ),
            (
                &[(KIND_HANDSHAKE, &[1, 0, 0x40, 1])],
                RecordError::Malformed,
            ),
            (&[(20, &[1])], RecordError::Unexpected),
            (&[(KIND_ALERT, &[3, 40])], RecordError::Illegal),
            (&[(KIND_ALERT, &[2, 40])], RecordError::Peer(40)),
            (&[(KIND_ALERT, &[1, 40][..]); 5], RecordError::Flood),
            (&[(KIND_DATA, &long)], RecordError::TooLong),
            (&empty, RecordError::Flood),
        ];
        for (records, fault) in cases {
            let (plain, status) = after(&ends, records);
            assert_eq!(status, PeerStatus::Failed(*fault), "{records:?}");
            assert_eq!(plain, b"");
        }
    }
}

#[test]
fn a_renegotiation_is_refused_with_a_warning_and_the_connection_goes_on() {
    let (mut client, mut server) = one_of(false).sessions();
    let mut bytes = forged(&mut client, KIND_HANDSHAKE, &[1, 0]);
    bytes.extend(forged(&mut client, KIND_HANDSHAKE, &[0, 3, 9, 9, 9]));
    bytes.extend(sealed(&mut client, b"data"));
    assert_eq!(
        opened(&mut server, &bytes, 8),
        (b"data".to_vec(), PeerStatus::Open)
    );
    let answer = control(&mut server);
    assert_eq!(opened(&mut client, &answer, 8), (vec![], PeerStatus::Open));
    assert_eq!(client.warnings, 1);
}

#[test]
fn what_is_no_record_is_refused_by_its_header() {
    for (tls13, bytes, fault) in [
        (true, &b"GET / HTTP/1.1"[..], RecordError::Unexpected),
        (true, &[21, 3, 3, 0, 2, 1, 0], RecordError::Unexpected), // an alert in the clear
        (true, &[20, 3, 3, 0, 1, 1], RecordError::Unexpected), // ChangeCipherSpec after the handshake
        (true, &[23, 3, 3, 0x41, 1], RecordError::TooLong),
        (true, &[23, 3, 3, 0, 0], RecordError::BadRecord),
        (false, &b"GET / HTTP/1.1"[..], RecordError::Unexpected),
        (false, &[20, 3, 3, 0, 1, 1], RecordError::Unexpected),
        (false, &[23, 3, 3, 0x48, 1], RecordError::TooLong),
        (false, &[23, 3, 3, 0, 3, 1, 2, 3], RecordError::BadRecord),
    ] {
        for piece in [1, 100] {
            let (_, mut server) = one_of(tls13).sessions();
            let (plain, status) = opened(&mut server, bytes, piece);
            assert_eq!(
                (plain, status),
                (vec![], PeerStatus::Failed(fault)),
                "{bytes:?}"
            );
        }
    }
}

#[test]
fn tickets_that_follow_the_handshake_are_taken_by_a_client_session() {
    let ends = one_of(true);
    let (mut client, mut server) = ends.sessions();
    // A ticket without a lifetime is none that could be used, but well formed.
    let ticket = [4, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0];
    let bytes = forged(&mut server, KIND_HANDSHAKE, &ticket);
    assert_eq!(opened(&mut client, &bytes, 9), (vec![], PeerStatus::Open));
    let bytes = forged(&mut server, KIND_HANDSHAKE, &[4, 0, 0, 1, 0]);
    assert_eq!(
        opened(&mut client, &bytes, 9).1,
        PeerStatus::Failed(RecordError::Malformed)
    );
}

#[test]
fn little_room_takes_little_and_loses_nothing() {
    for ends in [one_of(false), one_of(true)] {
        let (mut client, mut session) = ends.connect();
        let plain = pattern(60_000, 2);
        let bytes = sent(&mut client, &plain);
        let mut room = vec![0; MAX_FRAGMENT_BYTES + 16];
        let (mut rest, mut got) = (&bytes[..], Vec::new());
        while !rest.is_empty() || session.buffered() > 0 {
            let opened = session.open(rest, &mut room);
            assert!(opened.consumed + opened.filled > 0);
            rest = &rest[opened.consumed..];
            got.extend_from_slice(&room[..opened.filled]);
        }
        assert!(got == plain);

        session.update_keys(false);
        let mut out = [0; 300];
        let (mut rest, mut bytes) = (&plain[..], Vec::new());
        while !rest.is_empty() {
            let sealed = session.seal(rest, &mut out).unwrap();
            assert!(sealed.taken + sealed.written > 0);
            rest = &rest[sealed.taken..];
            bytes.extend_from_slice(&out[..sealed.written]);
        }
        assert!(deliver(&mut client, &bytes).unwrap() == plain);
    }
}

/// Run alone, for the figures at the head of `record.rs`.
#[test]
#[ignore = "measures the process"]
fn an_idle_session_is_small() {
    const COUNT: usize = 8000;
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<usize>().unwrap() * 1024
    };
    println!("session {}", size_of::<TlsSession>());
    // Freed memory would be used again.
    let mut all = Vec::new();
    for ends in [one_of(false), one_of(true)] {
        for cool in [false, true] {
            let mut kept = Vec::new();
            let mut before = 0;
            for i in 0..2 * COUNT {
                if i == COUNT {
                    // What handshakes leave behind has been used up by the first half.
                    kept.reserve_exact(COUNT);
                    before = resident();
                }
                let (mut client, mut session) = ends.connect();
                let bytes = sent(&mut client, &pattern(1024, 0));
                opened(&mut session, &bytes, usize::MAX);
                sealed(&mut session, &pattern(1024, 0));
                if cool {
                    session.drop_keys();
                }
                kept.push(Box::new(session));
            }
            let each = (resident() - before) / COUNT;
            println!("{:?}, cool {cool}: {each} bytes", kept[0].suite.version());
            assert!(each < 1600);
            all.push(kept);
        }
    }
}

#[derive(Debug, Clone)]
enum Deed {
    ClientSends(usize),
    ServerSends(usize),
    ClientUpdates,
    ServerUpdates(bool),
    Cools,
    Moves,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0usize..40_000).prop_map(Deed::ClientSends),
        4 => (0usize..40_000).prop_map(Deed::ServerSends),
        4 => (0usize..200).prop_map(Deed::ClientSends),
        4 => (0usize..200).prop_map(Deed::ServerSends),
        1 => Just(Deed::ClientUpdates),
        1 => any::<bool>().prop_map(Deed::ServerUpdates),
        1 => Just(Deed::Cools),
        1 => Just(Deed::Moves),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_traffic_in_any_pieces_arrives(
        suite in 0..ALL_CIPHER_SUITES.len(),
        deeds in prop::collection::vec(deed(), 1..30),
        fragment in 32usize..16_384,
        piece in prop_oneof![1usize..40, 40usize..40_000],
    ) {
        let suite = ALL_CIPHER_SUITES[suite];
        let mut ends = Ends::new(suite);
        let mut config = (*ends.client).clone();
        config.max_fragment_size = Some(fragment);
        ends.client = Arc::new(config);
        let (mut client, mut session) = ends.connect();
        for (i, deed) in deeds.into_iter().enumerate() {
            match deed {
                Deed::ClientSends(length) => {
                    let plain = pattern(length, i);
                    let bytes = sent(&mut client, &plain);
                    prop_assert!(opened(&mut session, &bytes, piece) == (plain, PeerStatus::Open));
                }
                Deed::ServerSends(length) => {
                    let plain = pattern(length, i);
                    let bytes = sealed(&mut session, &plain);
                    prop_assert!(deliver(&mut client, &bytes).unwrap() == plain);
                }
                Deed::ClientUpdates => drop(client.refresh_traffic_keys()),
                Deed::ServerUpdates(request) => session.update_keys(request),
                Deed::Cools => session.drop_keys(),
                Deed::Moves => session = TlsSession::import(session.export().unwrap()).unwrap(),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        tls13 in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        header in prop::option::of(any::<u16>()),
        piece in 1usize..100,
        room in 0usize..600,
    ) {
        let (_, mut session) = one_of(tls13).sessions();
        let mut input = Vec::new();
        if let Some(length) = header {
            input.extend([KIND_DATA, 3, 3]);
            input.extend(length.to_be_bytes());
        }
        input.extend(bytes);
        let mut room = vec![0; room];
        for piece in input.chunks(piece) {
            let opened = session.open(piece, &mut room);
            prop_assert_eq!(opened.filled, 0);
            prop_assert!(opened.consumed <= piece.len());
        }
        let _ = session.take_control(&mut room);
        let _ = session.seal(&input, &mut room);
    }

    #[test]
    fn arbitrary_messages_under_authentic_keys_never_panic(
        tls13 in any::<bool>(),
        client_side in any::<bool>(),
        records in prop::collection::vec(
            (
                prop_oneof![Just(KIND_HANDSHAKE), Just(KIND_ALERT), Just(KIND_DATA), any::<u8>()],
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    prop::collection::vec(0u8..3, 0..8),
                    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(4), Just(24)], 0..8),
                ],
            ),
            1..20,
        ),
        piece in 1usize..100,
    ) {
        let (mut one, mut other) = one_of(tls13).sessions();
        if client_side {
            std::mem::swap(&mut one, &mut other);
        }
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|(kind, content)| forged(&mut one, *kind, content))
            .collect();
        opened(&mut other, &bytes, piece);
        let mut out = vec![0; TlsSession::sealed_bound(10)];
        let _ = other.seal(b"0123456789", &mut out);
        let _ = other.take_control(&mut out);
    }
}

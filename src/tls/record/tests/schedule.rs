//! The own key schedule, with rustls as the judge.

use rustls::client::ClientConnectionData;
use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets};

use super::super::schedule::{Secret, next_secret, traffic_keys};
use super::super::suite::Keying;
use super::*;

const GENERATIONS: usize = 8;

/// A finished handshake, as rustls sees it and as it was captured.
struct Judged<Data> {
    extracted: ExtractedSecrets,
    kernel: KernelConnection<Data>,
    secrets: TrafficSecrets,
}

/// Both ends of a handshake.
fn judged(ends: &Ends) -> (Judged<ClientConnectionData>, Judged<ServerConnectionData>) {
    let mut client = UnbufferedClientConnection::new(ends.client.clone(), name()).unwrap();
    let mut server = UnbufferedServerConnection::new(ends.server.clone()).unwrap();
    let mut secrets = [TrafficSecrets::default(), TrafficSecrets::default()];
    let (mut up, mut down) = (Vec::new(), Vec::new());
    while client.is_handshaking() || server.is_handshaking() {
        up.extend(secrets[0].during(|| advance_client(&mut client, &mut down)));
        down.extend(secrets[1].during(|| advance_server(&mut server, &mut up)));
    }
    let [of_client, of_server] = secrets;
    let (extracted, kernel) = client.dangerous_into_kernel_connection().unwrap();
    let client = Judged {
        extracted,
        kernel,
        secrets: of_client,
    };
    let (extracted, kernel) = server.dangerous_into_kernel_connection().unwrap();
    let server = Judged {
        extracted,
        kernel,
        secrets: of_server,
    };
    (client, server)
}

fn advance_server(server: &mut UnbufferedServerConnection, input: &mut Vec<u8>) -> Vec<u8> {
    let mut output = Vec::new();
    while server.is_handshaking() || server.wants_write() {
        let UnbufferedStatus { discard, state } = server.process_tls_records(input);
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

fn parts(secrets: &ConnectionTrafficSecrets) -> (RecordCipher, &[u8], &[u8]) {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (RecordCipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (RecordCipher::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (RecordCipher::Chacha20Poly1305, key, iv)
        }
        _ => panic!("no such cipher"),
    };
    (cipher, key.as_ref(), iv.as_ref())
}

/// Holds the generations of one direction against those of rustls.
fn assert_same(
    secret: Secret,
    first: &ConnectionTrafficSecrets,
    mut next: impl FnMut() -> Result<(u64, ConnectionTrafficSecrets), Error>,
) {
    let (cipher, ..) = parts(first);
    let mut secret = secret;
    let assert_keys = |secret: &Secret, theirs: &ConnectionTrafficSecrets, generation| {
        let (_, key, iv) = parts(theirs);
        let ours = traffic_keys(cipher, secret).unwrap();
        assert_eq!(&ours.key[..cipher.key_bytes()], key, "{generation}");
        assert_eq!(ours.iv, iv, "{generation}");
    };
    assert_keys(&secret, first, 0);
    for generation in 1..=GENERATIONS {
        secret = next_secret(cipher, &secret).unwrap();
        assert_keys(&secret, &next().unwrap().1, generation);
    }
}

#[test]
fn keys_are_those_of_rustls_over_generations_at_both_ends() {
    for suite in of_version(true) {
        // The second one is resumed.
        let ends = Ends::new(suite);
        for _ in 0..2 {
            let (client, server) = judged(&ends);
            let cipher = parts(&client.extracted.rx.1).0;

            let (read, write) = client.secrets.directions(cipher, false).unwrap();
            let mut kernel = client.kernel;
            assert_same(*read, &client.extracted.rx.1, || kernel.update_rx_secret());
            assert_same(*write, &client.extracted.tx.1, || kernel.update_tx_secret());

            let (read, write) = server.secrets.directions(cipher, true).unwrap();
            let mut kernel = server.kernel;
            assert_same(*read, &server.extracted.rx.1, || kernel.update_rx_secret());
            assert_same(*write, &server.extracted.tx.1, || kernel.update_tx_secret());
        }
    }
}

#[test]
fn keys_last_as_long_as_rustls_says() {
    for &suite in ALL_CIPHER_SUITES {
        let (_, session) = Ends::new(suite).connect();
        let limit = match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        let ours = 1u64.checked_shl(session.key_limit.into());
        assert_eq!(ours.unwrap_or(u64::MAX), limit, "{suite:?}");
    }
}

#[test]
fn handshakes_of_both_sides_tell_their_secrets() {
    for &suite in ALL_CIPHER_SUITES {
        let ends = Ends::new(suite);
        let keying = match suite.tls13() {
            Some(_) => Keying::Tls13,
            None => Keying::Tls12,
        };
        for _ in 0..2 {
            let (client, server) = ends.sessions();
            assert_eq!(client.suite.keying, keying);
            assert_eq!(server.suite.keying, keying);
            // A server needs nothing of rustls; a client keeps it for tickets.
            assert!(server.rustls.is_none());
            assert_eq!(client.rustls.is_some(), keying == Keying::Tls13);
        }
    }
}

#[test]
fn a_handshake_that_begins_anew_tells_its_secrets() {
    let mut ends = one_of(true);
    // The client's first key share is of a group that the server does not have.
    let provider = |groups: Vec<_>| {
        let mut provider = default_provider();
        provider.kx_groups = groups;
        Arc::new(provider)
    };
    let identity = identity(false);
    let mut server = ServerConfig::builder_with_provider(provider(vec![SECP256R1]))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .unwrap();
    server.enable_secret_extraction = true;
    server.key_log = key_log();
    ends.server = Arc::new(server);
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider(vec![X25519, SECP256R1]))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ends.client = Arc::new(client);
    let (mut client, mut session) = ends.connect();
    let kind = client.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
    assert!(session.is_movable());
    session.drop_keys();
    let bytes = sent(&mut client, b"up");
    assert_eq!(opened(&mut session, &bytes, 99).0, b"up");
}

#[test]
fn a_session_without_its_secrets_goes_on_with_the_schedule_of_rustls() {
    let mut ends = one_of(true);
    let mut server = (*ends.server).clone();
    server.key_log = Arc::new(rustls::NoKeyLog);
    ends.server = Arc::new(server);
    let (mut client, mut session) = ends.connect();
    assert_eq!(session.suite.keying, Keying::Tls13ByRustls);
    assert!(!session.is_movable());
    assert_eq!(session.export(), None);
    for round in 0..GENERATIONS {
        client.refresh_traffic_keys().unwrap();
        let bytes = sent(&mut client, b"up");
        assert_eq!(opened(&mut session, &bytes, 11).0, b"up");
        session.update_keys(round % 2 == 0);
        let bytes = sealed(&mut session, b"down");
        assert_eq!(deliver(&mut client, &bytes).unwrap(), b"down");
        session.drop_keys();
    }
}

#[test]
fn secrets_are_told_within_a_step_only() {
    let hook = key_log();
    let label = "CLIENT_TRAFFIC_SECRET_0";
    assert!(!hook.will_log(label));
    // Nobody listens.
    hook.log(label, &[], &[7; 32]);
    let mut secrets = TrafficSecrets::default();
    secrets.during(|| {
        assert!(hook.will_log(label));
        assert!(hook.will_log("SERVER_TRAFFIC_SECRET_0"));
        for other in [
            "CLIENT_RANDOM",
            "EXPORTER_SECRET",
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_EARLY_TRAFFIC_SECRET",
        ] {
            assert!(!hook.will_log(other), "{other}");
        }
        hook.log(label, &[], &[1; 32]);
    });
    assert!(!hook.will_log(label));
    // A step that panics closes the slot, too.
    let panics = std::panic::catch_unwind(|| {
        TrafficSecrets::default().during(|| panic!("within a step"));
    });
    assert!(panics.is_err());
    assert!(!hook.will_log(label));
    // One secret of two is none.
    assert!(secrets.directions(RecordCipher::Aes128Gcm, true).is_none());
}

#[test]
fn a_client_that_has_idled_takes_tickets_and_uses_none() {
    let ends = one_of(true);
    let ticket = [4, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0];
    let with_extension = [
        4, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5, 0, 1, 9, 0, 5, 9, 9, 0, 1, 7,
    ];
    for good in [&ticket[..], &with_extension] {
        let (mut client, mut server) = ends.sessions();
        client.drop_keys();
        assert!(client.rustls.is_none());
        let bytes = forged(&mut server, KIND_HANDSHAKE, good);
        assert_eq!(opened(&mut client, &bytes, 9), (vec![], PeerStatus::Open));
        let bytes = sealed(&mut server, b"down");
        assert_eq!(opened(&mut client, &bytes, 9).0, b"down");
    }
    for length in 0..ticket.len() - 4 {
        let mut cut = ticket[..4 + length].to_vec();
        cut[3] = length as u8;
        for idled in [false, true] {
            let (mut client, mut server) = ends.sessions();
            if idled {
                client.drop_keys();
            }
            let bytes = forged(&mut server, KIND_HANDSHAKE, &cut);
            assert_eq!(
                opened(&mut client, &bytes, 9).1,
                PeerStatus::Failed(RecordError::Malformed)
            );
        }
    }
}

#[test]
fn a_server_sends_all_its_tickets_behind_its_handshake() {
    let ends = one_of(true);
    let (client, session) = ends.connect();
    let tickets = client.tls13_tickets_received() as usize;
    assert_eq!(tickets, ends.server.send_tls13_tickets);
    assert!(tickets > 0 && session.rustls.is_none());
}

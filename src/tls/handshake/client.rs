//! The client side of a handshake, towards a backend.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{ClientConfig, CommonState};
use rustls_pki_types::ServerName;

use super::{Handshake, HandshakeError, HandshakeSide, invalid};
use crate::tls::identity::ClientIdentity;
use crate::tls::record::{TlsSession, TrafficSecrets};

pub(in crate::tls) struct ClientSide(UnbufferedClientConnection);

impl Handshake<ClientSide> {
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
        Ok(Self::new(ClientSide(connection)))
    }
}

impl HandshakeSide for ClientSide {
    type Data = ClientConnectionData;
    /// The server waits for our Finished, whoever speaks first.
    const SENDS_LAST_FLIGHT: bool = true;

    fn state(&self) -> &CommonState {
        &self.0
    }

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.0.process_tls_records(records)
    }

    /// Refuses bytes that are not a record: rustls' error would name the bytes, this one names the
    /// node.
    fn inspect(&mut self, _bytes: &[u8], is_record: bool) -> Result<(), HandshakeError> {
        let refused = HandshakeError::Silent("the answer is not TLS");
        is_record.then_some(()).ok_or(refused)
    }

    fn finish(
        self,
        secrets: TrafficSecrets,
    ) -> Result<(TlsSession, Option<String>, Option<ClientIdentity>), rustls::Error> {
        Ok((TlsSession::client(self.0, secrets)?, None, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Certificate;
    use crate::config::Terminate;
    use crate::tls::TlsAcceptor;
    use crate::tls::handshake::{CompletedHandshake, HEADER_BYTES, HandshakeStep};
    use crate::tls::record::PeerStatus;
    use crate::tls::testing::{Folder, of_version};
    use proptest::prelude::*;
    use rustls::version::{TLS12, TLS13};
    use rustls::{HandshakeKind, ServerConfig, ServerConnection};
    use std::io::Write;

    struct Bench {
        _folder: Folder,
        certificate: Certificate,
        server: Arc<ServerConfig>,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = Folder::new();
            let certificate = folder.make("chat", &["chat.test"]);
            let settings = Terminate::with(vec![certificate.clone()]);
            let loaded = TlsAcceptor::load("chat", &settings, &[]).unwrap();
            let mut server = (*loaded.config()).clone();
            server.send_half_rtt_data = true;
            Bench {
                certificate,
                server: Arc::new(server),
                _folder: folder,
            }
        }

        fn client(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
            let mut config = (*of_version(version, &self.certificate.cert)).clone();
            config.enable_secret_extraction = true;
            config.key_log = crate::tls::record::key_log();
            Arc::new(config)
        }
    }

    fn handshake(config: &Arc<ClientConfig>) -> Handshake<ClientSide> {
        let name = ServerName::try_from("chat.test").unwrap();
        Handshake::client(Arc::clone(config), name).unwrap()
    }

    /// Lets the client talk to a server that says `early` as soon as it may; the client reads
    /// `piece` bytes at a time.
    fn shake(
        bench: &Bench,
        mut client: Handshake<ClientSide>,
        early: &[u8],
        piece: usize,
    ) -> (CompletedHandshake, ServerConnection) {
        let mut server = ServerConnection::new(Arc::clone(&bench.server)).unwrap();
        server.writer().write_all(early).unwrap();
        let mut wire: Vec<u8> = Vec::new();
        loop {
            let step = client.advance().unwrap();
            let output = std::mem::take(&mut client.output);
            let mut output = output.as_slice();
            while !output.is_empty() {
                server.read_tls(&mut output).unwrap();
                server.process_new_packets().unwrap();
            }
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            if matches!(step, HandshakeStep::Done) {
                // What is still on the wire is as good as read already.
                client.input().extend_from_slice(&wire);
                return (client.finish().unwrap(), server);
            }
            let now = piece.min(wire.len());
            assert!(now > 0, "both wait");
            client.input().extend(wire.drain(..now));
        }
    }

    #[test]
    fn what_a_server_says_right_behind_its_handshake_is_for_the_session() {
        let bench = Bench::new();
        for version in [&TLS12, &TLS13] {
            let config = bench.client(version);
            for piece in [1, 7, 600, usize::MAX] {
                let (done, server) = shake(&bench, handshake(&config), b"good day", piece);
                assert!(!server.is_handshaking());
                let mut session = done.session;
                let mut plain = vec![0; done.residue.len()];
                let opened = session.open(&done.residue, &mut plain);
                assert_eq!(opened.status, PeerStatus::Open);
                assert_eq!(
                    &plain[..opened.filled],
                    b"good day",
                    "{version:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn tickets_that_a_session_takes_resume_the_next() {
        let bench = Bench::new();
        for version in [&TLS12, &TLS13] {
            let config = bench.client(version);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (done, server) = shake(&bench, handshake(&config), b"x", usize::MAX);
                assert_eq!(server.handshake_kind(), Some(kind), "{version:?}");
                let mut session = done.session;
                session.open(&done.residue, &mut vec![0; done.residue.len()]);
            }
        }
    }

    #[test]
    fn what_is_not_tls_is_called_so() {
        let bench = Bench::new();
        let mut client = handshake(&bench.client(&TLS13));
        client.advance().unwrap();
        client.input().extend(b"HTTP/1.1 400 Bad Request\r\n");
        let error = client.advance().err().unwrap();
        assert_eq!(error.to_string(), "the answer is not TLS");
    }

    #[test]
    fn a_handshake_without_end_is_cut_off() {
        let bench = Bench::new();
        let mut client = handshake(&bench.client(&TLS13));
        client.advance().unwrap();
        // A server hello that announces 60 KiB, a byte in each record.
        let mut records: Vec<u8> = vec![22, 3, 3, 0, 4, 2, 0, 0xf0, 0];
        for _ in 0..20_000 {
            records.extend([22, 3, 3, 0, 1, 0]);
        }
        client.input().extend(records);
        assert!(client.advance().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_bytes_but_a_servers_end_a_handshake(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            is_record in any::<bool>(),
        ) {
            let bench = Bench::new();
            let mut client = handshake(&bench.client(&TLS13));
            client.advance().unwrap();
            if is_record {
                let length = u8::try_from(bytes.len()).unwrap();
                client.input().extend([22, 3, 3, 0, length]);
            }
            client.input().extend(&bytes);
            prop_assert!(!matches!(client.advance(), Ok(HandshakeStep::Done)));
        }

        #[test]
        fn a_flight_with_one_bit_changed_never_ends_a_handshake(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let bench = Bench::new();
            let mut client = handshake(&bench.client(&TLS13));
            client.advance().unwrap();
            let mut server = ServerConnection::new(Arc::clone(&bench.server)).unwrap();
            server.read_tls(&mut client.output.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).unwrap();
            }
            let at = at.index(flight.len());
            let protected = is_protected(&flight, at);
            flight[at] ^= 1 << bit;
            client.input().extend(flight);
            prop_assert!(!matches!(client.advance(), Ok(HandshakeStep::Done)) || !protected, "byte {at}");
        }
    }

    /// In the body of a record that is part of the handshake: headers are checked by their sense,
    /// and the dummy change_cipher_spec says nothing (RFC 8446 section 5).
    fn is_protected(flight: &[u8], at: usize) -> bool {
        let mut begin = 0;
        while let Some(&[kind, _, _, high, low]) = flight[begin..].first_chunk() {
            let body = begin + HEADER_BYTES;
            begin = body + usize::from(u16::from_be_bytes([high, low]));
            if (body..begin).contains(&at) {
                return kind != 20;
            }
        }
        false
    }
}

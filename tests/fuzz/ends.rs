//! Both ends' configurations, made once per process, and a server's handshake that stops where the handshake does.

use std::sync::{Arc, OnceLock};

use evenkeel::parts::record::key_log;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, Ticketer, default_provider};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureAlgorithm, SupportedCipherSuite};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

const NAME: &str = "chat.test";

pub struct Ends {
    pub server: Arc<ServerConfig>,
    /// Its tickets are kept from run to run, so that all handshakes but the first are resumed.
    resuming: ClientConfig,
    client: ClientConfig,
}

impl Ends {
    pub fn config(&self, resumed: bool) -> ClientConfig {
        match resumed {
            true => self.resuming.clone(),
            false => self.client.clone(),
        }
    }
}

/// One per cipher suite of both versions.
pub fn ends(suite: u8) -> &'static Ends {
    static MADE: OnceLock<Vec<Ends>> = OnceLock::new();
    let made = MADE.get_or_init(|| ALL_CIPHER_SUITES.iter().map(|&suite| make(suite)).collect());
    &made[usize::from(suite) % made.len()]
}

pub fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

fn identity(
    kind: &'static rcgen::SignatureAlgorithm,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate_for(kind).unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let certificate = params.self_signed(&key).unwrap().der().clone();
    (
        certificate,
        PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    )
}

fn make(suite: SupportedCipherSuite) -> Ends {
    let (certificate, key) = identity(
        match suite.usable_for_signature_algorithm(SignatureAlgorithm::ECDSA) {
            true => &PKCS_ECDSA_P256_SHA256,
            false => &PKCS_RSA_SHA256,
        },
    );
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    // The cheapest.
    provider.kx_groups = vec![X25519];
    let provider = Arc::new(provider);
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.ticketer = Ticketer::new().unwrap();
    server.enable_secret_extraction = true;
    server.key_log = key_log();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let resuming = client.clone();
    client.resumption = Resumption::disabled();
    Ends {
        server: Arc::new(server),
        resuming,
        client,
    }
}

/// Goes as far as `input` reaches and returns what is to be sent.
pub fn advance(server: &mut UnbufferedServerConnection, input: &mut Vec<u8>) -> Vec<u8> {
    let mut output = Vec::new();
    while server.is_handshaking() || server.wants_write() {
        let UnbufferedStatus { discard, state } = server.process_tls_records(input);
        let blocked = match state.unwrap() {
            ConnectionState::EncodeTlsData(data) => {
                encode(data, &mut output);
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

pub fn encode<Data>(mut data: EncodeTlsData<'_, Data>, output: &mut Vec<u8>) {
    let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) else {
        panic!("nothing to encode");
    };
    let end = output.len();
    output.resize(end + size.required_size, 0);
    data.encode(&mut output[end..]).unwrap();
}

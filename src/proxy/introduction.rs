//! Who the client of a connection is, and how a backend is told of it.
//!
//! [`receive`] is the one place where "the client" is decided: who connected, or, on a listener with `accept_proxy`, whom
//! a trusted balancer in front announces. [`Arrival::peer`] is the client from then on, for everybody.

use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::time::timeout_at;

use super::ClientConnection;
use crate::config::{ProxyVersion, TlsVersion};
use crate::net::{Peer, Stream};
use crate::observe::{Cause, ConnectionRecord, Phase, Refusal, Side, Termination};
use crate::wire::proxy_protocol::{
    Addresses, Details, HeaderProgress, MAX_HEADER_BYTES, Proxied, ProxyHeader, SslDetails, Tlvs,
    describe, encode_v1, encode_v2, read,
};

/// Room for a header at first: most fit, and it grows to what comes.
const FIRST_HEADER_BYTES: usize = 256;

/// What the balancer in front says of the client, where there is one.
#[derive(Debug)]
pub struct ProxiedClient {
    /// The balancer in front.
    pub via: Peer,
    /// Where the client connected to.
    destination: Option<SocketAddr>,
    details: Details,
    /// What `details` say, for the access log.
    tlvs: Option<Box<str>>,
}

impl ProxiedClient {
    /// What the TLVs of its header say, in one line.
    pub fn tlvs(&self) -> Option<&str> {
        self.tlvs.as_deref()
    }

    /// The client came to the balancer in front over TLS.
    pub fn is_tls(&self) -> bool {
        self.details.tls.as_ref().is_some_and(|tls| tls.over_tls)
    }
}

/// Reads the PROXY header where the listener has `accept_proxy`, and makes the announced client the arrival's. Nothing
/// behind the header is taken from the stream. On an error the record says why, and the connection is reset, but where
/// nothing was said: silence is no mistake.
pub(super) async fn receive(
    arrival: &mut ClientConnection,
    stream: &mut Stream,
    record: &mut ConnectionRecord,
) -> Result<(), Termination> {
    let mut silent = false;
    let received = learn(arrival, stream, record, &mut silent).await;
    if received.is_err() && !silent {
        stream.reset_on_close();
        record.heard();
    }
    received
}

async fn learn(
    arrival: &mut ClientConnection,
    stream: &mut Stream,
    record: &mut ConnectionRecord,
    silent: &mut bool,
) -> Result<(), Termination> {
    let rules = &arrival.rules.config;
    if !rules.accept_proxy {
        return Ok(());
    }
    let sender = arrival.peer;
    if !rules.trusted.iter().any(|one| one.covers(sender.ip())) {
        tracing::debug!(client = %sender, "no trusted source of a PROXY header");
        arrival.admissions.refused(Refusal::Untrusted);
        return Err(end(Side::Evenkeel, Cause::Refused));
    }
    *silent = true;
    let header = match timeout_at(arrival.deadline, header(stream, silent)).await {
        Ok(header) => header?,
        Err(_) => return Err(end(Side::Evenkeel, Cause::Timeout)),
    };
    if let ProxyHeader::Proxied(proxied) = header {
        let Proxied { addresses, details } = *proxied;
        let (client, destination) = match addresses {
            Addresses::Ip {
                source,
                destination,
            } => (Peer::tcp(source), Some(destination)),
            Addresses::Unix => (Peer::Unix, None),
        };
        arrival.peer = client;
        let tlvs = describe(&details).map(String::into_boxed_str);
        record.announce(client, sender, tlvs.as_deref());
        arrival.announced = Some(Box::new(ProxiedClient {
            via: sender,
            destination,
            details,
            tlvs,
        }));
    }
    Ok(())
}

/// Looks at what has come and takes what belongs to the header: all of it until its end is seen.
async fn header(stream: &mut Stream, silent: &mut bool) -> Result<ProxyHeader, Termination> {
    let mut buffer = vec![0; FIRST_HEADER_BYTES];
    let mut length = 0;
    loop {
        if length == buffer.len() {
            buffer.resize((2 * length).min(MAX_HEADER_BYTES), 0);
        }
        let room = buffer.get_mut(length..).unwrap_or_default();
        let seen = match stream.peek(room).await {
            Ok(0) => return Err(end(Side::Client, Cause::Fin)),
            Ok(seen) => {
                *silent = false;
                length + seen
            }
            Err(_) => return Err(end(Side::Client, Cause::Rst)),
        };
        let (header, until) = match read(buffer.get(..seen).unwrap_or_default()) {
            // A header of the full size has its end in sight.
            HeaderProgress::NeedMore => (None, seen),
            HeaderProgress::Header(header, until) => (Some(header), until),
            HeaderProgress::Invalid(reason) => {
                tracing::debug!(%reason, "PROXY header refused");
                return Err(end(Side::Client, Cause::Invalid));
            }
        };
        let taken = buffer.get_mut(length..until).unwrap_or_default();
        if stream.read_exact(taken).await.is_err() {
            return Err(end(Side::Client, Cause::Rst));
        }
        match header {
            Some(header) => return Ok(header),
            None => length = until,
        }
    }
}

fn end(side: Side, how: Cause) -> Termination {
    Termination::new(side, Phase::Accept, how)
}

/// What a backend is told of a connection by a pool that has `send_proxy`.
#[derive(Debug, Clone)]
pub struct OutgoingProxyHeader {
    addresses: Option<Addresses>,
    details: Details,
}

impl OutgoingProxyHeader {
    /// Of a client about whom nothing but its addresses is known; `local` is where it connected to.
    pub fn plain(client: Peer, local: Option<SocketAddr>) -> OutgoingProxyHeader {
        let source = match client {
            Peer::V4(ip, port) => Some(SocketAddr::new(IpAddr::V4(ip), port)),
            Peer::V6(ip, port) => Some(SocketAddr::new(IpAddr::V6(ip), port)),
            Peer::Unix => None,
        };
        let addresses = source.zip(local).map(|(source, local)| Addresses::Ip {
            source,
            destination: SocketAddr::new(local.ip().to_canonical(), local.port()),
        });
        OutgoingProxyHeader {
            addresses,
            details: Details::default(),
        }
    }

    /// Of an arrival whose `client` said what is in `details`. What was announced of it fills the gaps.
    pub fn of(
        arrival: &ClientConnection,
        local: Option<SocketAddr>,
        own: Details,
    ) -> OutgoingProxyHeader {
        let announced = arrival.announced.as_deref();
        let local = announced.and_then(|one| one.destination).or(local);
        let mut introduction = OutgoingProxyHeader::plain(arrival.peer, local);
        let theirs = announced.map(|one| one.details.clone()).unwrap_or_default();
        introduction.details = Details {
            authority: own.authority.or(theirs.authority),
            alpn: own.alpn.or(theirs.alpn),
            tls: own.tls.or(theirs.tls),
            // Ours, set with each header.
            unique_id: None,
            others: theirs.others,
        };
        introduction
    }

    /// The header for a connection of this id.
    pub fn header(&self, version: ProxyVersion, id: u64) -> Vec<u8> {
        match version {
            ProxyVersion::V1 => encode_v1(self.addresses),
            ProxyVersion::V2 => {
                let details = Details {
                    unique_id: Some(id.to_string().into_bytes()),
                    ..self.details.clone()
                };
                encode_v2(self.addresses, &details)
            }
        }
    }
}

/// The client's TLS as a header tells it.
pub(super) fn client_tls(version: TlsVersion, certificate: bool) -> SslDetails {
    SslDetails {
        over_tls: true,
        certificate,
        certificate_in_session: certificate,
        // One that fails ends the handshake; without one nothing was verified.
        verify: u32::from(!certificate),
        // As OpenSSL names it.
        version: Some(match version {
            TlsVersion::Tls12 => "TLSv1.2".to_owned(),
            TlsVersion::Tls13 => "TLSv1.3".to_owned(),
        }),
        others: Tlvs::default(),
    }
}

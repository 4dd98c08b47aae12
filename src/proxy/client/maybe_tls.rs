//! A stream in set-up: plain, or TLS after its handshake.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::config::TlsVersion;
use crate::net::{Io, Stream, delegate_io, options};
use crate::relay::{SocketHandoff, Tls, Transport};
use crate::tls;
use crate::wire::proxy_protocol::{Details, SslDetails, Tlvs};

/// A stream to a client or to a backend.
pub(in crate::proxy) enum MaybeTlsStream {
    Plain(Stream),
    Tls(Box<tls::TlsStream<Stream>>),
}

impl MaybeTlsStream {
    /// Converts the stream for the relay. `read` is the plaintext that was already read from it;
    /// what the TLS connection holds of its own goes along.
    pub(crate) fn into_handoff(self, mut read: Vec<u8>) -> io::Result<SocketHandoff> {
        let (stream, transport) = match self {
            Self::Plain(stream) => (stream, Transport::Raw),
            Self::Tls(stream) => {
                let parts = stream.into_parts();
                read.extend_from_slice(&parts.plain);
                let tls = Tls {
                    session: Box::new(parts.session),
                    output: parts.output,
                };
                (parts.io, Transport::Tls(tls))
            }
        };
        Ok(SocketHandoff {
            socket: stream.into_owned_fd()?,
            transport,
            read,
        })
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &Stream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Makes the coming close a RST, so that nothing looks like an orderly end.
    pub(crate) fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    /// Lets the kernel notice a peer that is gone, on a connection that may last. The relay does so
    /// for its own.
    pub(crate) fn prepare_long_life(&self) {
        if let Stream::Tcp(stream) = self.socket() {
            // Without it the timeouts above end the wait.
            let _ = options::prepare_long_life(stream);
        }
    }

    /// `None`: plain.
    pub(crate) fn tls_version(&self) -> Option<TlsVersion> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.tls_version()),
        }
    }

    /// The address that the client connected to; `None` on a unix socket.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket().local_address()
    }

    /// The client's TLS for a PROXY header. `sni` may be that of a ClientHello that is passed
    /// through; `certificate`: the client has shown one.
    pub(crate) fn details(&self, sni: Option<&str>, certificate: bool) -> Details {
        let (alpn, tls) = match self {
            Self::Plain(_) => (None, None),
            Self::Tls(stream) => (
                stream.alpn_protocol().map(<[u8]>::to_vec),
                Some(client_tls(stream.tls_version(), certificate)),
            ),
        };
        Details {
            authority: sni.map(str::to_owned),
            alpn,
            tls,
            ..Details::default()
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Ciphertext that was written and has not left for the socket.
    pub(crate) fn held_output(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.held_output(),
        }
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut dyn Io> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream as &mut dyn Io),
            Self::Tls(stream) => Pin::new(&mut **stream as &mut dyn Io),
        }
    }
}

/// The client's TLS in the form of a PROXY header.
fn client_tls(version: TlsVersion, certificate: bool) -> SslDetails {
    SslDetails {
        over_tls: true,
        certificate,
        certificate_in_session: certificate,
        // A failed verification ends the handshake; without a certificate nothing was verified.
        verify: u32::from(!certificate),
        // As OpenSSL names it.
        version: Some(match version {
            TlsVersion::Tls12 => "TLSv1.2".to_owned(),
            TlsVersion::Tls13 => "TLSv1.3".to_owned(),
        }),
        others: Tlvs::default(),
    }
}

delegate_io!(MaybeTlsStream);

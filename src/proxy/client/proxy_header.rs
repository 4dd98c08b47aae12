//! The PROXY header that a balancer in front sends before a client's first byte.
//!
//! [`receive`] is where "the client" of a connection is decided: who connected, or, on a listener
//! with `accept_proxy`, whom a trusted balancer announces.

use tokio::io::AsyncReadExt;
use tokio::time::timeout_at;

use super::ClientConnection;
use super::proxied::ProxiedClient;
use super::trust::is_trusted;
use crate::net::{Peer, Stream};
use crate::observe::{Cause, ConnectionRecord, Phase, Refusal, Side, Termination};
use crate::wire::proxy_protocol::{
    Addresses, HeaderProgress, MAX_HEADER_BYTES, Proxied, ProxyHeader, read,
};

/// Room for a header at first: most fit, and it grows to what comes.
const FIRST_HEADER_BYTES: usize = 256;

/// Reads the PROXY header of a trusted peer. Returns the client that it announces, if any. Nothing
/// behind the header is taken from the stream. On an error the record says why, and the connection
/// is reset, except where the peer sent nothing: silence is no mistake.
pub(in crate::proxy) async fn receive(
    client: &ClientConnection,
    stream: &mut Stream,
    record: &mut ConnectionRecord,
) -> Result<Option<(Peer, ProxiedClient)>, Termination> {
    let mut silent = false;
    let received = learn(client, stream, record.id, &mut silent).await;
    if received.is_err() && !silent {
        stream.reset_on_close();
        record.heard();
    }
    received
}

async fn learn(
    client: &ClientConnection,
    stream: &mut Stream,
    id: u64,
    silent: &mut bool,
) -> Result<Option<(Peer, ProxiedClient)>, Termination> {
    let sender = client.peer;
    if !is_trusted(&client.listener.config, sender.ip()) {
        tracing::debug!(id, client = %sender, "no trusted source of a PROXY header");
        client.admission.refused(Refusal::Untrusted);
        return Err(end(Side::Evenkeel, Cause::Refused));
    }
    *silent = true;
    let header = match timeout_at(client.deadline, header(stream, id, silent)).await {
        Ok(header) => header?,
        Err(_) => return Err(end(Side::Evenkeel, Cause::Timeout)),
    };
    let ProxyHeader::Proxied(proxied) = header else {
        return Ok(None);
    };
    let Proxied { addresses, details } = *proxied;
    let (announced, destination) = match addresses {
        Addresses::Ip {
            source,
            destination,
        } => (Peer::tcp(source), Some(destination)),
        Addresses::Unix => (Peer::Unix, None),
    };
    let proxied = ProxiedClient::new(sender, destination, details);
    Ok(Some((announced, proxied)))
}

/// Looks at what has come and takes what belongs to the header: all of it until its end is seen.
async fn header(
    stream: &mut Stream,
    id: u64,
    silent: &mut bool,
) -> Result<ProxyHeader, Termination> {
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
                tracing::debug!(id, %reason, "PROXY header refused");
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

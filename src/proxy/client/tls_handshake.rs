//! The TLS handshake of a client: its ClientHello, the wait for a permit, and the rest.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;

use super::handshake_limiter::HandshakePermit;
use super::{ClientConnection, tls_alert};
use crate::net::Stream;
use crate::observe::{Cause, ConnectionRecord, Phase, Refusal, Side, Termination};
use crate::tls::{self, CipherOrder, TlsAcceptor};
use crate::wire::client_hello::{ClientHello, ClientHelloError, ClientHelloReader, HelloProgress};

/// The longest that one handshake holds its permit: by then our part is done, or soon will be. A
/// network with a longer round trip so leaves 64 / 10 ms = 6,400 handshakes per second and core,
/// above the 5,500 that a core can make.
const MAX_HELD: Duration = Duration::from_millis(10);
/// The longest wait for a permit: a client that is not served by then has given up, or will soon.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A hello without a post-quantum key share; others grow it.
pub(super) const HELLO_BYTES: usize = 1_024;
/// The alert for a name that no certificate is for (RFC 6066 section 3).
const UNRECOGNIZED_NAME: u8 = 112;
/// The alert for no name where one is needed (RFC 8446 section 9.2).
const MISSING_EXTENSION: u8 = 109;

/// A client's TLS connection, how long the client had to wait for a permit, and how long the
/// handshake took from the client's hello, that wait included.
pub(super) struct AcceptedTls {
    pub stream: tls::TlsStream<Stream>,
    pub waited: Duration,
    pub took: Duration,
}

/// Reads the ClientHello, waits for a permit, and makes the handshake, by the client's deadline and
/// the time waited for the permit.
///
/// # Errors
/// The connection's end.
pub(super) async fn accept(
    mut stream: Stream,
    acceptor: &TlsAcceptor,
    client: &ClientConnection,
    record: &mut ConnectionRecord,
) -> Result<AcceptedTls, Termination> {
    let id = record.id;
    let mut alarm = pin!(tokio::time::sleep_until(client.deadline));
    let mut read = Vec::with_capacity(HELLO_BYTES);
    let hello = before(alarm.as_mut(), read_hello(&mut stream, &mut read)).await;
    if !read.is_empty() {
        record.heard();
    }
    let (deadline, greeted) = (alarm.deadline(), Instant::now());
    let (config, permit, is_urgent) = match hello?.map_err(|error| failed(id, &error))? {
        Err(ClientHelloError::TooLarge) => {
            return Err(tls_alert::refuse_too_large(stream, id).await);
        }
        Err(_) if tls_alert::is_plain_http(&read) => {
            return Err(tls_alert::refuse_plain_http(stream, id).await);
        }
        // rustls refuses it, with an alert, before anything that costs.
        Err(_) => (acceptor.config(), None, false),
        Ok((_, hello)) if hello.malformed_name.is_some() => {
            log_malformed_name(client, &hello, record);
            // rustls refuses it, as the last.
            (acceptor.config(), None, false)
        }
        Ok((_, hello)) if !acceptor.serves(hello.sni.as_deref()) => {
            return Err(refuse_name(stream, hello.sni, client, record).await);
        }
        Ok((reader, _)) => {
            let resumes = resumes(&reader, &acceptor.config());
            let permit = wait_for_permit(&stream, (client, id), resumes, alarm.as_mut()).await?;
            // Taken after the wait, in which they may have changed.
            let config = config_for(acceptor, &reader, resumes);
            (config, Some(permit), resumes)
        }
    };
    let waited = alarm.deadline() - deadline;
    let begun = |is_resumed: bool| {
        if is_urgent && !is_resumed {
            client.proxy.handshakes.distrust(client.source());
        }
    };
    // On the heap: a client that has sent nothing yet is not to hold memory for what follows.
    let mut accepting = Box::pin(async {
        let mut stream = tls::accept_with_prefix(stream, read, config, begun).await?;
        // A TLS 1.2 client waits for the last flight, which is not to wait for a backend.
        stream.flush().await?;
        Ok(stream)
    });
    let soon = tokio::time::timeout(MAX_HELD, &mut accepting).await;
    drop(permit);
    let accepted = match soon {
        Ok(accepted) => accepted,
        Err(_) => before(alarm, accepting).await?,
    };
    let stream = accepted.map_err(|error| failed(id, &error))?;
    Ok(AcceptedTls {
        stream,
        waited,
        took: greeted.elapsed(),
    })
}

fn config_for(
    acceptor: &TlsAcceptor,
    reader: &ClientHelloReader,
    resumes: bool,
) -> Arc<ServerConfig> {
    let order = if reader.prefers_chacha() {
        CipherOrder::Client
    } else {
        CipherOrder::Server
    };
    if resumes {
        acceptor.resumption_config(order)
    } else {
        acceptor.config_for(order)
    }
}

/// The output of `step`, if it comes before the alarm.
async fn before<T>(
    alarm: Pin<&mut Sleep>,
    step: impl Future<Output = T>,
) -> Result<T, Termination> {
    tokio::select! {
        biased;
        done = step => Ok(done),
        () = alarm => Err(Termination::new(Side::Evenkeel, Phase::Tls, Cause::Timeout)),
    }
}

/// Waits for a permit. The alarm is set back by the time that takes. A client that has left gets
/// none.
async fn wait_for_permit(
    stream: &Stream,
    (client, id): (&ClientConnection, u64),
    resumes: bool,
    mut alarm: Pin<&mut Sleep>,
) -> Result<HandshakePermit, Termination> {
    let mut left = pin!(stream.read_closed());
    if let Some(error) = left.as_mut().now_or_never() {
        return Err(failed(id, &error));
    }
    let permit = permit(client, resumes);
    let mut permit = pin!(permit.map(|permit| permit.inspect_err(|_| stream.reset_on_close())));
    if let Some(permit) = permit.as_mut().now_or_never() {
        return permit;
    }
    // The client has done its part, and waits for us.
    client.setup.speak();
    let (deadline, begun) = (alarm.deadline(), tokio::time::Instant::now());
    alarm.as_mut().reset(begun + PERMIT_TIMEOUT);
    let permit = tokio::select! {
        biased;
        error = left => return Err(failed(id, &error)),
        permit = before(alarm.as_mut(), permit) => permit??,
    };
    client.fall_silent();
    alarm.reset(deadline + begun.elapsed());
    Ok(permit)
}

async fn permit(client: &ClientConnection, resumes: bool) -> Result<HandshakePermit, Termination> {
    let handshakes = &client.proxy.handshakes;
    let permit = handshakes.acquire(client.source(), resumes).await;
    permit.ok_or_else(|| {
        client.admission.refused(Refusal::HandshakeQueue);
        Termination::new(Side::Evenkeel, Phase::Tls, Refusal::HandshakeQueue.how())
    })
}

fn log_malformed_name(
    client: &ClientConnection,
    hello: &ClientHello,
    record: &mut ConnectionRecord,
) {
    if let Some(name) = &hello.malformed_name {
        record.set_sni(name);
        client
            .admission
            .log_refused_name(name, "it is not a host name");
    }
}

/// Tells the client that no certificate is for its name, or that it has to send one.
async fn refuse_name(
    mut stream: Stream,
    name: Option<String>,
    client: &ClientConnection,
    record: &mut ConnectionRecord,
) -> Termination {
    let (alert, reason) = match name {
        Some(_) => (UNRECOGNIZED_NAME, "no certificate is for it"),
        None => (
            MISSING_EXTENSION,
            "none was sent, and no certificate is the default",
        ),
    };
    let name = name.unwrap_or_default();
    record.set_sni(&name);
    client.admission.log_refused_name(&name, reason);
    client.admission.refused(Refusal::UnknownName);
    tls_alert::send(&mut stream, alert).await;
    Termination::new(Side::Evenkeel, Phase::Tls, Refusal::UnknownName.how())
}

fn failed(id: u64, error: &io::Error) -> Termination {
    tracing::debug!(id, error = tls::describe(error), "tls handshake failed");
    tls_alert::client_failed(error)
}

/// Reads a ClientHello, which may be followed by more.
pub(super) async fn read_hello(
    stream: &mut Stream,
    read: &mut Vec<u8>,
) -> io::Result<Result<(ClientHelloReader, ClientHello), ClientHelloError>> {
    let mut reader = ClientHelloReader::new();
    loop {
        let before = read.len();
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match reader.feed(read.get(before..).unwrap_or_default()) {
            HelloProgress::NeedMore => {}
            HelloProgress::Hello(hello) => return Ok(Ok((reader, hello))),
            HelloProgress::Invalid(reason) => return Ok(Err(reason)),
        }
    }
}

/// Whether a ticket of this client is one that our keys open. That it has one proves nothing:
/// anybody can send bytes.
fn resumes(reader: &ClientHelloReader, config: &ServerConfig) -> bool {
    let opens = |ticket: &[u8]| config.ticketer.decrypt(ticket).is_some();
    config.ticketer.enabled() && reader.tickets().into_iter().any(opens)
}

//! GatewayWorker's Register: JSON lines over TCP. It tells the internal addresses of all processes
//! on every change; a backend is a host of them, at the port that clients are taken on.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout as within};

use super::RELIST_INTERVAL;
use super::driver::{FIRST_RETRY, LASTING, MAX_RETRY, hide};
use crate::base::backoff::Backoff;
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded::{self, MAX_LINE};
use crate::discovery::entry::{Listing, RawEntry, join};
use crate::discovery::fault::{Fault, FaultKind};
use crate::discovery::source::SourcePublisher;
use crate::remote::{RemoteServers, RemoteStream, read_secret};

/// As its own workers: the Register closes silent connections.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const PING: &[u8] = b"{\"event\":\"ping\"}\n";

/// Follows the Register until it is dropped.
pub(super) async fn follow(
    registry: &Registry,
    urls: &[RegistryUrl],
    timeout: Duration,
    publisher: &SourcePublisher,
) {
    let mut servers = RemoteServers::new(urls, registry.tls.as_ref());
    let mut retries = Backoff::new(FIRST_RETRY, MAX_RETRY);
    loop {
        let (began, before) = (Instant::now(), publisher.answers());
        // It tells everything at the beginning: to ask it again is to connect again.
        let ended = tokio::select! {
            ended = session(registry, &mut servers, timeout, publisher) => ended.err(),
            () = publisher.asked() => None,
        };
        if publisher.answers() > before && began.elapsed() >= LASTING {
            retries.reset();
        }
        let Some(fault) = ended else { continue };
        publisher.failed(fault);
        servers.turn();
        tokio::select! {
            () = sleep(retries.next().mul_f64(fastrand::f64())) => {}
            () = publisher.asked() => {}
        }
    }
}

/// Follows one connection until everything is to be told anew.
///
/// # Errors
/// Why it ended before.
async fn session(
    registry: &Registry,
    servers: &mut RemoteServers,
    timeout: Duration,
    publisher: &SourcePublisher,
) -> Result<(), Fault> {
    let secret = registry
        .token_file
        .as_deref()
        .map(read_secret)
        .transpose()?;
    let hello =
        json!({"event": "worker_connect", "secret_key": secret.as_deref().unwrap_or_default()});
    let connected = within(timeout, connect(servers, timeout, &format!("{hello}\n"))).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(fault)) => return Err(fault),
        Err(_) => return Err(Fault::new(FaultKind::Timeout, "no connection in time")),
    };
    let port = registry.port.unwrap_or_default();
    let read = read_lines(stream, timeout, port, publisher).await;
    read.map_err(|fault| hide(fault, secret.as_deref()))
}

async fn connect(
    servers: &mut RemoteServers,
    timeout: Duration,
    hello: &str,
) -> Result<RemoteStream, Fault> {
    let mut stream = servers.connect(timeout).await?;
    let sent = stream.write_all(hello.as_bytes()).await;
    sent.map_err(|error| broken(&error))?;
    Ok(stream)
}

async fn read_lines(
    mut stream: RemoteStream,
    timeout: Duration,
    port: u16,
    publisher: &SourcePublisher,
) -> Result<(), Fault> {
    let mut buffered = Vec::new();
    let mut is_first = true;
    // A lost message stays lost, and a process that hangs is as silent as one without news.
    let until = Instant::now() + RELIST_INTERVAL.mul_f64(0.9 + 0.2 * fastrand::f64());
    loop {
        while let Some(end) = buffered.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffered.drain(..=end).collect();
            if let Some(listing) = read(&line, port)? {
                publisher.answered(listing, "", None);
                is_first = false;
            }
        }
        if buffered.len() > MAX_LINE {
            let what = format!("a line of more than {MAX_LINE} bytes");
            return Err(Fault::new(FaultKind::TooLarge, what));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() && !is_first {
            return Ok(());
        }
        let limit = if is_first {
            timeout
        } else {
            PING_INTERVAL.min(left)
        };
        match within(limit, stream.read_buf(&mut buffered)).await {
            Ok(Ok(0)) => {
                let what = "the Register closed the connection";
                return Err(Fault::new(FaultKind::Unreachable, what));
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(broken(&error)),
            // A wrong secret makes it close, or say nothing.
            Err(_) if is_first => {
                return Err(Fault::new(FaultKind::Timeout, "no addresses in time"));
            }
            Err(_) => {
                let sent = stream.write_all(PING).await;
                sent.map_err(|error| broken(&error))?;
            }
        }
    }
}

fn broken(error: &std::io::Error) -> Fault {
    Fault::new(FaultKind::Unreachable, error.to_string())
}

/// Reads a line; `None`: it is of no addresses.
fn read(line: &[u8], port: u16) -> Result<Option<Listing>, Fault> {
    let value = bounded::json(line)?;
    if value["event"] != "broadcast_addresses" {
        return Ok(None);
    }
    let addresses = value["addresses"].as_array();
    let addresses = addresses.ok_or_else(|| Fault::malformed("no addresses"))?;
    let mut hosts = BTreeSet::new();
    let mut bad = Vec::new();
    for address in addresses {
        match address.as_str().and_then(|text| text.rsplit_once(':')) {
            Some((host, _)) => {
                hosts.insert(host);
            }
            None => bad.push(Err("it is no address".to_owned())),
        }
    }
    let found = hosts.into_iter().map(|host| {
        let address = join(host, u64::from(port));
        Ok(RawEntry::new(address.clone(), address))
    });
    Listing::of(found.chain(bad)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistryKind;
    use crate::discovery::registry::simulation;
    use crate::discovery::source;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    #[test]
    fn processes_of_one_host_are_one_backend() {
        let line = json!({"event": "broadcast_addresses", "addresses": ["10.0.0.2:2901", "10.0.0.1:2900", "10.0.0.2:2900"]});
        let found = read(line.to_string().as_bytes(), 8282).unwrap().unwrap();
        let shown: Vec<_> = found.entries.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(shown, ["10.0.0.1:8282", "10.0.0.2:8282"]);
        assert_eq!(read(b"{\"event\":\"ping\"}", 8282).unwrap(), None);
        assert!(read(b"<html>", 8282).is_err());
    }

    /// A Register that tells everything once on each connection, and nothing more.
    #[tokio::test(start_paused = true)]
    async fn a_silent_register_is_asked_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let line = b"{\"event\":\"broadcast_addresses\",\"addresses\":[\"10.0.0.1:1\"]}\n";
                let _ = stream.write_all(line).await;
                kept.push(stream);
            }
        });
        let urls = vec![RegistryUrl::parse_tcp(&at).unwrap()];
        let registry = Registry {
            port: Some(8282),
            ..simulation::registry(RegistryKind::GatewayWorker(urls.clone()))
        };
        let (publisher, mut follower) = source::source();
        let hour = Duration::from_secs(3600);
        let began = Instant::now();
        let following =
            tokio::spawn(async move { follow(&registry, &urls, hour, &publisher).await });
        let asked = follower.states.wait_for(|state| state.answers >= 3);
        let state = asked.await.unwrap().clone();
        assert_eq!(state.faults.iter().sum::<u64>(), 0, "{:?}", state.fault);
        let elapsed = began.elapsed();
        assert!(elapsed >= RELIST_INTERVAL && elapsed < hour, "{elapsed:?}");
        following.abort();
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(value in crate::discovery::registry::simulation::value(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&bytes, 1);
            let line = json!({"event": "broadcast_addresses", "addresses": value});
            let _ = read(line.to_string().as_bytes(), 1);
        }
    }
}

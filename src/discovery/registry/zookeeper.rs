//! ZooKeeper: the children of a node and their data, read again after each event of a watch and
//! every minute. We create nothing: each connection has a session of its own, and one that is lost
//! loses nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout as within, timeout_at};

use super::RELIST_INTERVAL;
use super::driver::{FIRST_RETRY, LASTING, MAX_RETRY, hide};
use super::jute::{self, JuteReader};
use crate::base::backoff::Backoff;
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded;
use crate::discovery::entry::{Listing, RawEntry, join};
use crate::discovery::fault::{Fault, FaultKind};
use crate::discovery::source::SourcePublisher;
use crate::remote::{RemoteServers, RemoteStream, read_secret};

/// Time-out that we ask for; the server may choose another one.
const SESSION_MILLISECONDS: i32 = 15_000;

/// Events that come within this time are one change.
const QUIET: Duration = Duration::from_millis(100);

/// Requests that are sent before their replies are read.
const PIPELINED: usize = 64;

/// Follows a node until it is dropped.
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
        let secret = registry.token_file.as_deref().map(read_secret).transpose();
        let secret = secret.map_err(Fault::from);
        let ended = match &secret {
            Ok(secret) => {
                let followed = session(
                    registry,
                    secret.as_deref(),
                    &mut servers,
                    timeout,
                    publisher,
                );
                let fault = followed.await.err();
                fault.map(|fault| hide(fault, secret.as_deref()))
            }
            Err(fault) => Some(fault.clone()),
        };
        if publisher.answers() > before && began.elapsed() >= LASTING {
            retries.reset();
        }
        publisher.failed(ended.unwrap_or_else(closed));
        servers.turn();
        tokio::select! {
            () = sleep(retries.next().mul_f64(fastrand::f64())) => {}
            () = publisher.asked() => {}
        }
    }
}

/// A session: its connection, and what is known of its server.
struct ZooKeeperSession {
    stream: RemoteStream,
    buffered: Vec<u8>,
    /// Number of the next request.
    xid: i32,
    /// Between two pings: a third of the session's time-out. Without a word for two thirds of it
    /// the server is lost: only the server tells that a session has expired.
    ping_interval: Duration,
    last_heard: Instant,
    has_changed: bool,
}

async fn session(
    registry: &Registry,
    secret: Option<&str>,
    servers: &mut RemoteServers,
    timeout: Duration,
    publisher: &SourcePublisher,
) -> Result<(), Fault> {
    let late = |_| Fault::new(FaultKind::Timeout, "no answer in time");
    let began = within(timeout, begin(registry, secret, servers, timeout)).await;
    let mut session = began.map_err(late)??;
    loop {
        let read = within(timeout, session.read(&registry.service)).await;
        let listing = read.map_err(late)??;
        publisher.answered(listing, "", None);
        let jitter = 0.9 + 0.2 * fastrand::f64();
        let until = Instant::now() + RELIST_INTERVAL.mul_f64(jitter);
        tokio::select! {
            waited = session.wait(until) => waited?,
            () = publisher.asked() => {}
        }
    }
}

async fn begin(
    registry: &Registry,
    secret: Option<&str>,
    servers: &mut RemoteServers,
    timeout: Duration,
) -> Result<ZooKeeperSession, Fault> {
    let stream = servers.connect(timeout).await?;
    let mut session = ZooKeeperSession {
        stream,
        buffered: Vec::new(),
        xid: 1,
        ping_interval: Duration::from_millis(SESSION_MILLISECONDS.unsigned_abs().into()) / 3,
        last_heard: Instant::now(),
        has_changed: false,
    };
    session
        .send(&jute::connect(SESSION_MILLISECONDS, 0))
        .await?;
    let packet = session.packet().await?;
    let mut reader = JuteReader(&packet);
    let granted = reader.int().and_then(|_| reader.int());
    let granted = granted
        .and_then(|time| u64::try_from(time).ok())
        .filter(|time| *time > 0);
    let granted = granted.ok_or_else(|| Fault::malformed("no session was granted"))?;
    session.ping_interval = Duration::from_millis(granted) / 3;
    if let (Some(user), Some(secret)) = (&registry.user, secret) {
        session
            .send(&jute::auth(format!("{user}:{secret}").as_bytes()))
            .await?;
        let packet = session.packet().await?;
        let head = JuteReader(&packet).head();
        let head = head.ok_or_else(|| Fault::malformed("no reply to the login"))?;
        check(head.error, "the login")?;
    }
    Ok(session)
}

impl ZooKeeperSession {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let sent = self.stream.write_all(bytes).await;
        sent.map_err(|error| broken(&error))
    }

    /// # Cancel safety
    /// Bytes that were read stay for the next call.
    async fn packet(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(packet) = jute::take_packet(&mut self.buffered).map_err(Fault::malformed)? {
                self.last_heard = Instant::now();
                return Ok(packet);
            }
            let read = self.stream.read_buf(&mut self.buffered).await;
            if read.map_err(|error| broken(&error))? == 0 {
                return Err(closed());
            }
        }
    }

    /// The reply to the request of this number, with its error. Events on the way are noted.
    async fn reply(&mut self, xid: i32) -> Result<(i32, Vec<u8>), Fault> {
        loop {
            let packet = self.packet().await?;
            let mut reader = JuteReader(&packet);
            let head = reader
                .head()
                .ok_or_else(|| Fault::malformed("no head of a reply"))?;
            match head.xid {
                jute::EVENT_XID => self.has_changed = true,
                jute::PING_XID | jute::AUTH_XID => {}
                got if got == xid => return Ok((head.error, reader.0.to_vec())),
                _ => return Err(Fault::malformed("a reply to another request")),
            }
        }
    }

    /// Reads the children and their data, and has both watched.
    async fn read(&mut self, path: &str) -> Result<Listing, Fault> {
        self.has_changed = false;
        let xid = self.next_xid();
        self.send(&jute::watched(xid, jute::GET_CHILDREN, path))
            .await?;
        let (error, body) = self.reply(xid).await?;
        check(error, path)?;
        let names = JuteReader(&body).names();
        let names = names.ok_or_else(|| Fault::malformed("no list of children"))?;
        let base = path.trim_end_matches('/');
        let mut found = Vec::new();
        for names in names.chunks(PIPELINED) {
            let first = self.xid;
            for name in names {
                let xid = self.next_xid();
                let path = format!("{base}/{name}");
                self.send(&jute::watched(xid, jute::GET_DATA, &path))
                    .await?;
            }
            for (name, xid) in names.iter().zip(first..) {
                let (error, body) = self.reply(xid).await?;
                if error == jute::NO_NODE {
                    // Gone since the children were listed.
                    continue;
                }
                check(error, name)?;
                let mut reader = JuteReader(&body);
                let data = reader.bytes().ok_or_else(|| Fault::malformed("no data"))?;
                found.push((created(&mut reader), entry(name, data)));
            }
        }
        Listing::of(newest(found))
    }

    fn next_xid(&mut self) -> i32 {
        let xid = self.xid;
        self.xid = self.xid.checked_add(1).unwrap_or(1);
        xid
    }

    /// Waits for an event and the quiet behind it, at most until then. Keeps the session alive.
    async fn wait(&mut self, until: Instant) -> Result<(), Fault> {
        while !self.has_changed {
            let ping_at = Instant::now() + self.ping_interval;
            match timeout_at(until.min(ping_at), self.packet()).await {
                Ok(packet) => self.note(&packet?)?,
                Err(_) if Instant::now() >= until => return Ok(()),
                Err(_) if self.last_heard.elapsed() >= self.ping_interval * 2 => {
                    return Err(Fault::new(FaultKind::Timeout, "no word of the server"));
                }
                Err(_) => self.send(&jute::ping()).await?,
            }
        }
        sleep(QUIET).await;
        Ok(())
    }

    fn note(&mut self, packet: &[u8]) -> Result<(), Fault> {
        let head = JuteReader(packet).head();
        let head = head.ok_or_else(|| Fault::malformed("no head of a reply"))?;
        self.has_changed |= head.xid == jute::EVENT_XID;
        Ok(())
    }
}

fn closed() -> Fault {
    Fault::new(FaultKind::Unreachable, "the server closed the connection")
}

fn broken(error: &std::io::Error) -> Fault {
    Fault::new(FaultKind::Unreachable, error.to_string())
}

fn check(error: i32, what: &str) -> Result<(), Fault> {
    let kind = match error {
        0 => return Ok(()),
        jute::NO_AUTH | jute::AUTH_FAILED => FaultKind::Denied,
        _ => FaultKind::Status,
    };
    let why = match error {
        jute::NO_NODE => "there is no such node".to_owned(),
        jute::NO_AUTH | jute::AUTH_FAILED => "not allowed".to_owned(),
        other => format!("error {other}"),
    };
    Err(Fault::new(kind, format!("{what}: {why}")))
}

/// Time of a node's creation, from its Stat; 0 where there is none.
fn created(reader: &mut JuteReader<'_>) -> i64 {
    let zxids = reader.long().and_then(|_| reader.long());
    zxids.and_then(|_| reader.long()).unwrap_or(0)
}

/// Nodes of a name that is registered anew stand beside the old ones until those expire, and so
/// does a process that has a new name after each start: of a name, and of an address, the newest
/// counts.
fn newest(
    found: Vec<(i64, Result<RawEntry, String>)>,
) -> impl Iterator<Item = Result<RawEntry, String>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (created, entry) in found {
        match entry {
            Ok(raw) => good.push((created, raw)),
            Err(why) => bad.push(Err(why)),
        }
    }
    let named = newest_by(good, |raw| &raw.name);
    let placed = newest_by(named, |raw| &raw.address);
    let good = placed.into_iter().map(|(_, raw)| Ok(raw));
    good.chain(bad)
}

/// The newest of each key. The name decides between two of one time, not the order of the answer.
fn newest_by(found: Vec<(i64, RawEntry)>, key: fn(&RawEntry) -> &str) -> Vec<(i64, RawEntry)> {
    let mut newest: BTreeMap<String, (i64, RawEntry)> = BTreeMap::new();
    for (created, raw) in found {
        let known = newest.get(key(&raw));
        if known.is_none_or(|(at, known)| (*at, &known.name) <= (created, &raw.name)) {
            newest.insert(key(&raw).to_owned(), (created, raw));
        }
    }
    newest.into_values().collect()
}

/// Reads a child: Curator's JSON, our own form, an address as data or as name, or the URL that
/// Dubbo has as name.
fn entry(name: &str, data: &[u8]) -> Result<RawEntry, String> {
    let text = std::str::from_utf8(data).unwrap_or_default().trim();
    if text.starts_with('{') {
        let value = bounded::json(text.as_bytes()).map_err(|fault| format!("{name}: {fault}"))?;
        let is_curator = value["port"].is_u64() || value["sslPort"].is_u64();
        if is_curator {
            return curator(name, &value);
        }
        return RawEntry::read(Some(name), &value);
    }
    let name = percent_decode_str(name).decode_utf8_lossy();
    if let Some((_, url)) = name.split_once("://") {
        return dubbo(url);
    }
    // Dubbo writes an address as data, too, which is not that of the service.
    let address = if text.contains(':') { text } else { &*name };
    Ok(RawEntry::new(&*name, address))
}

fn curator(name: &str, value: &Value) -> Result<RawEntry, String> {
    let host = value["address"].as_str().ok_or("it has no address")?;
    let port = value["port"].as_u64().or_else(|| value["sslPort"].as_u64());
    let port = port.ok_or("it has no port")?;
    let id = value["id"].as_str().unwrap_or(name);
    Ok(RawEntry {
        weight: value["payload"]["weight"].as_f64(),
        is_drained: value["enabled"] == false,
        ..RawEntry::new(id, join(host, port))
    })
}

/// `10.0.0.1:20880/org.example.Chat?weight=100&disabled=true`
fn dubbo(url: &str) -> Result<RawEntry, String> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let address = place.split('/').next().unwrap_or_default();
    let value = |key: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .into_iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    };
    let weight = value("weight").and_then(|weight| weight.parse().ok());
    Ok(RawEntry {
        weight,
        is_drained: value("disabled") == Some("true"),
        ..RawEntry::new(address, address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(name: &str, data: &str) -> String {
        let raw = entry(name, data.as_bytes()).unwrap();
        let drained = if raw.is_drained { " drain" } else { "" };
        format!(
            "{} {} {}{drained}",
            raw.name,
            raw.address,
            raw.weight.unwrap_or(0.0)
        )
    }

    #[test]
    fn children_of_each_form_are_read() {
        let curator = r#"{"name":"chat","id":"7f","address":"10.0.0.1","port":80,"sslPort":null,"payload":{"weight":3},"enabled":true}"#;
        assert_eq!(shown("7f", curator), "7f 10.0.0.1:80 3");
        assert_eq!(
            shown("7f", &curator.replace("true", "false")),
            "7f 10.0.0.1:80 3 drain"
        );
        let dubbo = "dubbo%3A%2F%2F10.0.0.1%3A20880%2Forg.Chat%3Fweight%3D100%26disabled%3Dtrue";
        assert_eq!(
            shown(dubbo, "10.9.9.9"),
            "10.0.0.1:20880 10.0.0.1:20880 100 drain"
        );
        assert_eq!(shown("10.0.0.1:80", ""), "10.0.0.1:80 10.0.0.1:80 0");
        assert_eq!(shown("n1", "10.0.0.1:80\n"), "n1 10.0.0.1:80 0");
        assert_eq!(
            shown("n1", r#"{"address":"10.0.0.1:80","weight":2}"#),
            "n1 10.0.0.1:80 2"
        );
    }

    #[test]
    fn the_newest_of_two_nodes_of_a_name_counts() {
        let raw = |address: &str| Ok(RawEntry::new("a", address));
        let found = vec![
            (7, raw("10.0.0.7:80")),
            (9, raw("10.0.0.9:80")),
            (8, raw("10.0.0.8:80")),
        ];
        let found: Vec<_> = newest(found).map(|one| one.unwrap().address).collect();
        assert_eq!(found, ["10.0.0.9:80"]);
    }

    #[test]
    fn a_process_that_started_anew_is_one_backend() {
        let raw = |name: &str, address: &str| Ok(RawEntry::new(name, address));
        let found = vec![
            (9, raw("new", "10.0.0.1:80")),
            (7, raw("old", "10.0.0.1:80")),
            (8, raw("other", "10.0.0.2:80")),
        ];
        let found: Vec<_> = newest(found).map(|one| one.unwrap().name).collect();
        assert_eq!(found, ["new", "other"]);
    }

    proptest! {
        #[test]
        fn any_child_is_read_or_refused(name in "\\PC{0,40}", data in prop::collection::vec(any::<u8>(), 0..60), value in crate::discovery::registry::simulation::value()) {
            let _ = entry(&name, &data);
            let _ = entry(&name, value.to_string().as_bytes());
            let _ = dubbo(&name);
        }
    }
}

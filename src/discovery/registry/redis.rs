//! Redis: a hash, or the keys of a prefix, read every `interval`. A message on the channel of the
//! same name only has it read sooner: messages get lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout as within};
use tokio_util::task::AbortOnDropHandle;

use super::Publication;
use super::driver::{FIRST_RETRY, MAX_RETRY, hide};
use crate::base::backoff::Backoff;
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded;
use crate::discovery::entry::{Listing, MAX_ENTRIES, RawEntry};
use crate::discovery::fault::{Fault, FaultKind};
use crate::discovery::source::SourcePublisher;
use crate::remote::{RedisConnection, RemoteServers, read_secret};
use crate::wire::resp::{self, RespValue};

/// Between two reads, where the operator says nothing.
const INTERVAL: Duration = Duration::from_secs(2);
/// Least time between two reads, however many messages come.
const SPACING: Duration = Duration::from_millis(200);
/// Keys that one SCAN looks at.
const SCAN_COUNT: &[u8] = b"1000";

/// The protocol of Redis. Pure: commands out, values in.
#[derive(Debug, Clone)]
pub(super) struct RedisSource {
    /// The hash, or the prefix.
    name: String,
    is_prefix: bool,
    user: Option<String>,
    database: Option<String>,
    phase: RedisPhase,
    keys: BTreeSet<Vec<u8>>,
}

/// Command that comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RedisPhase {
    Login,
    Select,
    Read,
    Scan(Vec<u8>),
    /// The values of all keys.
    Values,
}

impl RedisSource {
    fn new(registry: &Registry, url: Option<&RegistryUrl>) -> RedisSource {
        let service = registry.service.as_str();
        let prefix = service.strip_suffix('*');
        let database = url.and_then(|url| url.path.strip_prefix('/'));
        let mut source = RedisSource {
            name: prefix.unwrap_or(service).to_owned(),
            is_prefix: prefix.is_some(),
            user: registry.user.clone(),
            database: database.filter(|text| !text.is_empty()).map(str::to_owned),
            phase: RedisPhase::Login,
            keys: BTreeSet::new(),
        };
        source.phase = source.first(registry.token_file.is_some());
        source
    }

    /// The first phase of a connection.
    fn first(&self, has_secret: bool) -> RedisPhase {
        if has_secret {
            RedisPhase::Login
        } else {
            self.after_login()
        }
    }

    fn after_login(&self) -> RedisPhase {
        match self.database {
            Some(_) => RedisPhase::Select,
            None => RedisPhase::Read,
        }
    }

    fn is_logged_in(&self) -> bool {
        !matches!(self.phase, RedisPhase::Login | RedisPhase::Select)
    }

    /// The next command.
    fn next(&mut self, secret: Option<&str>) -> Vec<u8> {
        let secret = secret.unwrap_or_default().as_bytes();
        match &self.phase {
            RedisPhase::Login => match &self.user {
                Some(user) => resp::command(&[b"AUTH", user.as_bytes(), secret]),
                None => resp::command(&[b"AUTH", secret]),
            },
            RedisPhase::Select => {
                let database = self.database.as_deref().unwrap_or_default();
                resp::command(&[b"SELECT", database.as_bytes()])
            }
            RedisPhase::Read if self.is_prefix => {
                self.keys.clear();
                self.scan(b"0")
            }
            RedisPhase::Read => resp::command(&[b"HGETALL", self.name.as_bytes()]),
            RedisPhase::Scan(cursor) => self.scan(cursor),
            RedisPhase::Values => {
                let keys = self.keys.iter().map(Vec::as_slice);
                let words: Vec<&[u8]> = [b"MGET".as_slice()].into_iter().chain(keys).collect();
                resp::command(&words)
            }
        }
    }

    fn scan(&self, cursor: &[u8]) -> Vec<u8> {
        let pattern = format!("{}*", escape(&self.name));
        resp::command(&[
            b"SCAN",
            cursor,
            b"MATCH",
            pattern.as_bytes(),
            b"COUNT",
            SCAN_COUNT,
        ])
    }

    /// Takes the answer to the last command. `None`: another one follows.
    ///
    /// # Errors
    /// The answer is none.
    fn answered(&mut self, value: RespValue) -> Result<Option<Publication>, Fault> {
        if let RespValue::Error(text) = value {
            let is_denied = ["NOAUTH", "WRONGPASS", "NOPERM", "ERR invalid password"];
            let is_denied = is_denied.iter().any(|begin| text.starts_with(begin));
            let kind = if is_denied {
                FaultKind::Denied
            } else {
                FaultKind::Status
            };
            return Err(Fault::new(kind, crate::discovery::entry::shorten(&text)));
        }
        let (next, listing) = match (&self.phase, value) {
            (RedisPhase::Login, _) => (self.after_login(), None),
            (RedisPhase::Select, _) => (RedisPhase::Read, None),
            (RedisPhase::Read | RedisPhase::Scan(_), RespValue::List(list)) if self.is_prefix => {
                (self.scanned(list)?, None)
            }
            (RedisPhase::Read, RespValue::List(list)) => {
                (RedisPhase::Read, Some(read_hash(&list)?))
            }
            (RedisPhase::Values, RespValue::List(list)) => {
                let listing = read_values(&self.name, &self.keys, &list)?;
                (RedisPhase::Read, Some(listing))
            }
            _ => return Err(Fault::malformed("an answer of the wrong type")),
        };
        // A prefix without a key is an answer, too.
        let is_empty = next == RedisPhase::Values && self.keys.is_empty();
        self.phase = if is_empty { RedisPhase::Read } else { next };
        let listing = if is_empty {
            Some(Listing::default())
        } else {
            listing
        };
        Ok(listing.map(|listing| Publication {
            listing,
            revision: String::new(),
        }))
    }

    fn scanned(&mut self, list: Vec<RespValue>) -> Result<RedisPhase, Fault> {
        let Ok([RespValue::Bytes(cursor), RespValue::List(keys)]) = <[_; 2]>::try_from(list) else {
            return Err(Fault::malformed("a scan without a cursor"));
        };
        for key in keys {
            if let RespValue::Bytes(key) = key {
                self.keys.insert(key);
            }
        }
        if self.keys.len() > MAX_ENTRIES {
            let what = format!("more than {MAX_ENTRIES} keys");
            return Err(Fault::new(FaultKind::TooLarge, what));
        }
        Ok(if cursor == b"0" {
            RedisPhase::Values
        } else {
            RedisPhase::Scan(cursor)
        })
    }
}

/// Escapes what a pattern has a meaning for.
fn escape(prefix: &str) -> String {
    let special = |one: char| matches!(one, '*' | '?' | '[' | ']' | '\\');
    let parts = prefix
        .chars()
        .flat_map(|one| special(one).then_some('\\').into_iter().chain([one]));
    parts.collect()
}

fn read_hash(list: &[RespValue]) -> Result<Listing, Fault> {
    let pairs = list.chunks(2);
    Listing::of(pairs.map(|pair| match pair {
        [RespValue::Bytes(field), RespValue::Bytes(value)] => entry(field, value),
        _ => Err("its field has no value".to_owned()),
    }))
}

fn read_values(
    prefix: &str,
    keys: &BTreeSet<Vec<u8>>,
    values: &[RespValue],
) -> Result<Listing, Fault> {
    if keys.len() != values.len() {
        return Err(Fault::malformed("not as many values as keys"));
    }
    let pairs = keys.iter().zip(values);
    // A key that has run out since it was listed has no value any more.
    let present = pairs.filter(|(_, value)| **value != RespValue::Null);
    Listing::of(present.map(|(key, value)| match value {
        RespValue::Bytes(value) => entry(key.strip_prefix(prefix.as_bytes()).unwrap_or(key), value),
        _ => Err("its value is no string".to_owned()),
    }))
}

/// An entry of a field, or the rest of a key, and its value: an address, or our own form as JSON.
fn entry(name: &[u8], value: &[u8]) -> Result<RawEntry, String> {
    let name = String::from_utf8_lossy(name);
    let text = std::str::from_utf8(value)
        .map_err(|_| format!("{name}: no text"))?
        .trim();
    if !text.starts_with('{') {
        return Ok(RawEntry::new(name, text));
    }
    let value: Value =
        bounded::json(text.as_bytes()).map_err(|fault| format!("{name}: {fault}"))?;
    RawEntry::read(Some(&*name), &value).map_err(|why| format!("{name}: {why}"))
}

/// Reads the registry until it is dropped.
pub(super) async fn follow(
    registry: &Registry,
    urls: &[RegistryUrl],
    timeout: Duration,
    publisher: &SourcePublisher,
) {
    let hinted = Arc::new(Notify::new());
    let hints = listen(
        registry.clone(),
        urls.to_vec(),
        timeout,
        Arc::clone(&hinted),
    );
    let _hints = AbortOnDropHandle::new(tokio::spawn(hints));
    let mut servers = RemoteServers::new(urls, registry.tls.as_ref());
    let mut retries = Backoff::new(FIRST_RETRY, MAX_RETRY);
    let interval = registry.interval.unwrap_or(INTERVAL);
    let mut open = None;
    loop {
        let wait = match read_once(registry, &mut servers, &mut open, timeout).await {
            Ok(publication) => {
                retries.reset();
                publisher.answered(publication.listing, &publication.revision, None);
                interval
            }
            Err(fault) => {
                publisher.failed(fault);
                open = None;
                servers.turn();
                retries.next().mul_f64(fastrand::f64())
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = publisher.asked() => {}
            () = hinted.notified() => sleep(SPACING).await,
        }
    }
}

/// A connection with the state of its protocol.
type OpenRedis = Option<(RedisConnection, RedisSource)>;

async fn read_once(
    registry: &Registry,
    servers: &mut RemoteServers,
    open: &mut OpenRedis,
    timeout: Duration,
) -> Result<Publication, Fault> {
    let secret = registry
        .token_file
        .as_deref()
        .map(read_secret)
        .transpose()?;
    let read = async {
        let mut present = match open.take() {
            Some(present) => present,
            None => connect(registry, servers, timeout).await?,
        };
        let (connection, source) = &mut present;
        loop {
            let command = source.next(secret.as_deref());
            let value = connection.call(&command).await?;
            if let Some(publication) = source.answered(value)? {
                *open = Some(present);
                return Ok(publication);
            }
        }
    };
    let read = within(timeout, read)
        .await
        .unwrap_or_else(|_| Err(Fault::new(FaultKind::Timeout, "no answer in time")));
    read.map_err(|fault| {
        let at = servers.url().map(ToString::to_string).unwrap_or_default();
        let named = format!("{at}: {}", fault.message);
        let is_named = fault.message.starts_with(&at);
        let message = if is_named {
            fault.message.clone()
        } else {
            named
        };
        hide(Fault::new(fault.kind, message), secret.as_deref())
    })
}

async fn connect(
    registry: &Registry,
    servers: &mut RemoteServers,
    timeout: Duration,
) -> Result<(RedisConnection, RedisSource), Fault> {
    let stream = servers.connect(timeout).await?;
    Ok((
        RedisConnection::new(stream),
        RedisSource::new(registry, servers.url()),
    ))
}

/// Notifies `hinted` of each message on the channel of the service. A fault of it is no fault of
/// the source: it is read all the same.
async fn listen(
    registry: Registry,
    urls: Vec<RegistryUrl>,
    timeout: Duration,
    hinted: Arc<Notify>,
) {
    let mut servers = RemoteServers::new(&urls, registry.tls.as_ref());
    let mut retries = Backoff::new(FIRST_RETRY, MAX_RETRY);
    loop {
        if let Ok(Ok(mut connection)) =
            within(timeout, subscribe(&registry, &mut servers, timeout)).await
        {
            retries.reset();
            while connection.read().await.is_ok() {
                hinted.notify_one();
            }
        }
        servers.turn();
        sleep(FIRST_RETRY + retries.next().mul_f64(fastrand::f64())).await;
    }
}

async fn subscribe(
    registry: &Registry,
    servers: &mut RemoteServers,
    timeout: Duration,
) -> Result<RedisConnection, Fault> {
    let secret = registry
        .token_file
        .as_deref()
        .map(read_secret)
        .transpose()?;
    let (mut connection, mut source) = connect(registry, servers, timeout).await?;
    while !source.is_logged_in() {
        let command = source.next(secret.as_deref());
        let value = connection.call(&command).await?;
        source.answered(value)?;
    }
    let command = resp::command(&[b"SUBSCRIBE", source.name.as_bytes()]);
    connection.call(&command).await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(name: &str, is_prefix: bool) -> RedisSource {
        RedisSource {
            name: name.to_owned(),
            is_prefix,
            user: None,
            database: Some("3".to_owned()),
            phase: RedisPhase::Login,
            keys: BTreeSet::new(),
        }
    }

    fn bytes(text: &str) -> RespValue {
        RespValue::Bytes(text.as_bytes().to_vec())
    }

    fn ok() -> RespValue {
        RespValue::Status("OK".into())
    }

    /// Answers and gives the words of the next command.
    fn then(source: &mut RedisSource, value: RespValue) -> String {
        assert_eq!(source.answered(value).unwrap(), None);
        let Ok((RespValue::List(words), _)) = resp::read(&source.next(Some("p"))) else {
            panic!("no command");
        };
        let words = words.into_iter().map(|word| match word {
            RespValue::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_hash_is_read_after_the_login() {
        let mut source = source("chat", false);
        assert!(source.next(Some("p")).ends_with(b"$1\r\np\r\n"));
        assert_eq!(then(&mut source, ok()), "SELECT 3");
        assert_eq!(then(&mut source, ok()), "HGETALL chat");
        let hash = [
            "a",
            "10.0.0.1:80",
            "b",
            "{\"address\":\"10.0.0.2:80\",\"weight\":0}",
        ];
        let found = source
            .answered(RespValue::List(hash.map(bytes).into()))
            .unwrap()
            .unwrap();
        let shown: Vec<_> = found
            .listing
            .entries
            .iter()
            .map(|one| (&*one.name, one.is_drained))
            .collect();
        assert_eq!(shown, [("a", false), ("b", true)]);
        assert!(source.next(None).ends_with(b"HGETALL\r\n$4\r\nchat\r\n"));
    }

    #[test]
    fn a_prefix_is_scanned_to_its_end() {
        let mut source = source("chat[1]:", true);
        then(&mut source, ok());
        let scan = "SCAN 0 MATCH chat\\[1\\]:* COUNT 1000";
        assert_eq!(then(&mut source, ok()), scan);
        let page = |cursor: &str, keys: &[&str]| {
            let keys = keys.iter().map(|key| bytes(key)).collect();
            RespValue::List(vec![bytes(cursor), RespValue::List(keys)])
        };
        assert_eq!(
            then(&mut source, page("7", &["chat[1]:b"])),
            scan.replace(" 0 ", " 7 ")
        );
        let keys = page("0", &["chat[1]:a", "chat[1]:b"]);
        assert_eq!(then(&mut source, keys), "MGET chat[1]:a chat[1]:b");
        let values = RespValue::List(vec![bytes("10.0.0.1:80"), RespValue::Null]);
        let found = source.answered(values).unwrap().unwrap().listing.entries;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "a");
        source.next(None);
        then(&mut source, page("7", &[]));
        let none = source.answered(page("0", &[])).unwrap().unwrap();
        assert!(none.listing.entries.is_empty());
    }

    #[test]
    fn an_error_is_a_fault_of_its_kind() {
        for (text, kind) in [
            ("WRONGPASS no", FaultKind::Denied),
            ("LOADING", FaultKind::Status),
        ] {
            let fault = source("chat", false)
                .answered(RespValue::Error(text.into()))
                .unwrap_err();
            assert_eq!(fault.kind, kind);
        }
    }

    proptest! {
        #[test]
        fn any_values_are_read_or_refused(list in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)) {
            let values: Vec<RespValue> = list.into_iter().map(RespValue::Bytes).collect();
            let _ = read_hash(&values);
            let mut source = source("c", true);
            source.phase = RedisPhase::Read;
            let _ = source.answered(RespValue::List(values));
        }
    }
}

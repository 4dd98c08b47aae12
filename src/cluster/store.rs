//! Connection to the store: one, to the server that takes writes. A server that does not any more
//! loses it, and the next call finds the one that does: by its name, by the sentinels, or by the
//! word of a Redis Cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout as within;

use crate::config::{Cluster, RegistryUrl};
use crate::remote::{RedisConnection, RemoteError, RemoteServers, read_secret};
use crate::wire::resp::{self, RespValue};

/// Between two looks at the role: after a failover the former primary may still take what is
/// written, and lose it.
const ROLE_INTERVAL: Duration = Duration::from_secs(10);
/// Servers of a Redis Cluster that one call may be sent on to.
const MAX_MOVES: usize = 3;
/// Beginnings of errors after which another server is asked.
const UNFIT: [&str; 11] = [
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "OOM",
    "TRYAGAIN",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "MISCONF",
];

/// Why the store gave no answer. The message never holds a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("no answer in time")]
    Timeout,
    /// A server that takes no writes, or not ours.
    #[error("{0}")]
    Unfit(String),
    #[error("no sentinel knows the primary of {0}")]
    NoPrimary(String),
    #[error("an answer of the wrong type")]
    WrongType,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    settings: Arc<Cluster>,
    servers: RemoteServers,
    /// Server that a Redis Cluster has named.
    moved_to: Option<RegistryUrl>,
    connection: Option<RedisConnection>,
    role_due: Instant,
}

impl Store {
    pub(super) fn new(settings: Arc<Cluster>) -> Store {
        Store {
            servers: RemoteServers::new(settings.urls(), settings.tls.as_ref()),
            settings,
            moved_to: None,
            connection: None,
            role_due: Instant::now(),
        }
    }

    /// Sends commands in one piece, over a new connection if there is none, and returns the answer
    /// of each. An answer may be an error that is of this command alone.
    ///
    /// # Errors
    /// The connection is given up: no answer in time, or a server that is of no use.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub(super) async fn call_all(
        &mut self,
        commands: &[Vec<u8>],
    ) -> Result<Vec<RespValue>, StoreError> {
        for _ in 0..=MAX_MOVES {
            let answers = self.try_call(commands).await;
            let answers = answers.inspect_err(|_| self.give_up())?;
            let Some(server) = answers.iter().find_map(moved) else {
                return Ok(answers);
            };
            let (host, port) = server;
            let known = self.servers.url().or(self.settings.urls().first());
            // An empty host is the one that was asked.
            let host = match (host, known) {
                ("", Some(known)) => known.host.clone(),
                (host, _) => host.to_owned(),
            };
            self.moved_to = known.map(|known| known.at(&host, port));
        }
        self.give_up();
        Err(StoreError::Unfit("sent on too often".to_owned()))
    }

    /// Whether the next call goes over the connection of the last one.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    fn give_up(&mut self) {
        self.connection = None;
        self.moved_to = None;
        self.servers.turn();
    }

    async fn try_call(&mut self, commands: &[Vec<u8>]) -> Result<Vec<RespValue>, StoreError> {
        let limit = self.settings.timeout;
        let is_new = self.connection.is_none();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => within(limit, self.connect()).await.map_err(late)??,
        };
        let looks = is_new || Instant::now() >= self.role_due;
        let role = looks.then(|| resp::command(&[b"ROLE"]));
        let all: Vec<_> = role.into_iter().chain(commands.iter().cloned()).collect();
        let answers = within(limit, connection.call_all(&all)).await;
        let mut answers = answers.map_err(late)??;
        if looks {
            refuse_role(&answers.remove(0))?;
            self.role_due = Instant::now() + ROLE_INTERVAL;
        }
        refuse_unfit(&answers)?;
        if answers.iter().all(|answer| moved(answer).is_none()) {
            self.connection = Some(connection);
        }
        Ok(answers)
    }

    async fn connect(&mut self) -> Result<RedisConnection, StoreError> {
        let target = match (self.moved_to.take(), &self.settings.store) {
            (Some(url), _) => Some(url),
            (None, Some(_)) => None,
            (None, None) => Some(self.ask_sentinels().await?),
        };
        let (stream, url) = if let Some(url) = target {
            let urls = std::slice::from_ref(&url);
            let mut servers = RemoteServers::new(urls, self.settings.tls.as_ref());
            (servers.connect(self.settings.timeout).await?, url)
        } else {
            let stream = self.servers.connect(self.settings.timeout).await?;
            let url = self.servers.url().cloned();
            (stream, url.ok_or(StoreError::WrongType)?)
        };
        let mut connection = RedisConnection::new(stream);
        log_in(&self.settings, &mut connection, &url).await?;
        Ok(connection)
    }

    /// Asks one sentinel after the other for the primary.
    async fn ask_sentinels(&mut self) -> Result<RegistryUrl, StoreError> {
        let service = self.settings.service.clone().unwrap_or_default();
        let command = [b"SENTINEL".as_slice(), b"get-master-addr-by-name"];
        let command = resp::command(&[command[0], command[1], service.as_bytes()]);
        // Each has its part of the time.
        let count = self.settings.sentinel.len().max(1);
        let limit = self.settings.timeout / u32::try_from(count).unwrap_or(1);
        for _ in 0..count {
            let asked = within(limit, ask(&mut self.servers, limit, &command)).await;
            if let (Ok(Some((host, port))), Some(url)) = (asked, self.servers.url()) {
                return Ok(url.at(&host, port));
            }
            self.servers.turn();
        }
        Err(StoreError::NoPrimary(service))
    }
}

async fn log_in(
    settings: &Cluster,
    connection: &mut RedisConnection,
    url: &RegistryUrl,
) -> Result<(), StoreError> {
    let mut commands = Vec::new();
    if let Some(file) = &settings.password_file {
        let secret = read_secret(file)?;
        let user = settings.user.iter().map(|user| user.as_bytes());
        let words = [b"AUTH".as_slice()].into_iter().chain(user);
        let words: Vec<_> = words.chain([secret.as_bytes()]).collect();
        commands.push(resp::command(&words));
    }
    let database = url.path.trim_start_matches('/');
    if !matches!(database, "" | "0") {
        commands.push(resp::command(&[b"SELECT", database.as_bytes()]));
    }
    for answer in connection.call_all(&commands).await? {
        if let RespValue::Error(text) = answer {
            return Err(StoreError::Unfit(shorten(&text)));
        }
    }
    Ok(())
}

/// The answer of one sentinel. `None`: it has none.
async fn ask(
    servers: &mut RemoteServers,
    limit: Duration,
    command: &[u8],
) -> Option<(String, u16)> {
    let stream = servers.connect(limit).await.ok()?;
    let mut connection = RedisConnection::new(stream);
    let RespValue::List(list) = connection.call(command).await.ok()? else {
        return None;
    };
    let [RespValue::Bytes(host), RespValue::Bytes(port)] = list.as_slice() else {
        return None;
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some((text(host)?, text(port)?.parse().ok()?))
}

fn late<T>(_: T) -> StoreError {
    StoreError::Timeout
}

/// The server that a Redis Cluster names for the slot of these keys: `MOVED 3999 10.0.0.2:6379`.
fn moved(answer: &RespValue) -> Option<(&str, u16)> {
    let RespValue::Error(text) = answer else {
        return None;
    };
    let mut words = text.split(' ');
    words
        .next()
        .filter(|word| matches!(*word, "MOVED" | "ASK"))?;
    let (host, port) = words.nth(1)?.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// # Errors
/// The server is not a primary. One that may not say so is taken for one: it refuses writes itself.
fn refuse_role(answer: &RespValue) -> Result<(), StoreError> {
    match answer {
        RespValue::List(list) => match list.first() {
            Some(RespValue::Bytes(role)) if role != b"master" => {
                let role = String::from_utf8_lossy(role).into_owned();
                Err(StoreError::Unfit(format!("its role is {}", shorten(&role))))
            }
            _ => Ok(()),
        },
        RespValue::Error(text) if !text.starts_with("NOPERM") => {
            Err(StoreError::Unfit(shorten(text)))
        }
        _ => Ok(()),
    }
}

fn refuse_unfit(answers: &[RespValue]) -> Result<(), StoreError> {
    let is_unfit = |text: &&String| UNFIT.iter().any(|begin| text.starts_with(begin));
    let texts = answers.iter().filter_map(|answer| match answer {
        RespValue::Error(text) => Some(text),
        _ => None,
    });
    match texts.into_iter().find(is_unfit) {
        Some(text) => Err(StoreError::Unfit(shorten(text))),
        None => Ok(()),
    }
}

/// A text of the server for the log: bounded, without control characters.
pub(super) fn shorten(text: &str) -> String {
    const MAX_CHARS: usize = 120;
    let shown = text.chars().filter(|one| !one.is_control());
    shown.take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> RespValue {
        RespValue::Error(text.to_owned())
    }

    #[test]
    fn the_server_of_a_slot_is_read_of_the_answer() {
        assert_eq!(
            moved(&error("MOVED 3999 10.0.0.2:6380")),
            Some(("10.0.0.2", 6380))
        );
        assert_eq!(
            moved(&error("MOVED 3999 fd00::1:6380")),
            Some(("fd00::1", 6380))
        );
        assert_eq!(moved(&error("MOVED 3999 :6380")), Some(("", 6380)));
        for other in ["MOVED", "MOVED 1 x", "ERR MOVED 1 a:1", "MOVED 1 a:99999"] {
            assert_eq!(moved(&error(other)), None, "{other}");
        }
    }

    #[test]
    fn a_server_that_takes_no_writes_is_none_of_ours() {
        for text in [
            "READONLY You can't",
            "OOM command",
            "CLUSTERDOWN x",
            "NOPERM a",
        ] {
            assert!(
                refuse_unfit(&[RespValue::Null, error(text)]).is_err(),
                "{text}"
            );
        }
        assert!(refuse_unfit(&[error("WRONGTYPE x")]).is_ok());
        let role = |role: &[u8]| RespValue::List(vec![RespValue::Bytes(role.to_vec())]);
        assert!(refuse_role(&role(b"slave")).is_err());
        assert!(refuse_role(&role(b"master")).is_ok());
        assert!(refuse_role(&error("NOPERM no")).is_ok());
        assert!(refuse_role(&error("LOADING")).is_err());
    }
}

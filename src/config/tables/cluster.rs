//! `[cluster]`: several balancers that behave as one, over a store.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::backend_tls::BackendTls;
use crate::config::reader::TableReader;
use crate::config::registry_url::RegistryUrl;
use crate::config::spec::{DAY, ValueKind, seconds, text, texts, time};
use crate::config::value_types;
use crate::config::words::words;

table! {
    /// Several balancers that behave as one. They share what `share` says through Redis or Valkey;
    /// without the store each goes on by itself.
    pub struct Cluster {
        /// Server of Redis or Valkey, with the number of a database at its end where that is not 0.
        /// One server of a Redis Cluster is enough. Not beside `sentinel`.
        store: Option<RegistryUrl> = text("a URL such as \"rediss://10.0.0.1:6379\""),
            optional by value_types::text(RegistryUrl::parse_redis);
        /// Sentinels that know the primary of `service`. With `rediss` both are asked over TLS.
        sentinel: Vec<RegistryUrl> = texts("a URL such as \"rediss://10.0.0.1:26379\""),
            empty by value_types::texts(RegistryUrl::parse_redis);
        /// Name of the primary at the sentinels.
        service: Option<String> = text("a name"), optional by value_types::text(read_name);
        /// Name of the cluster: balancers with the same one share. Keys in the store begin with
        /// `ek:{NAME}:`.
        name: String = text(NAME), required by value_types::text(read_name);
        /// Name of this balancer, which no other one of the cluster has. Without it: the host name.
        id: Option<String> = text(NAME), optional by value_types::text(read_name);
        /// User at the store. It needs `password_file`.
        user: Option<String> = text(NAME), optional by value_types::text(read_name);
        /// File with the password at the store. Read again at each connection.
        password_file: Option<PathBuf> = text("the path of a file"), optional;
        /// TLS towards the store. Without it: `rediss` is verified by the system's roots.
        tls: Option<BackendTls>, optional;
        /// File with the secret of the cluster, 16 characters or more, such as `openssl rand
        /// -base64 32` makes. All members have the same: what is not signed with it is ignored, so
        /// that writing to the store is not enough to drain a backend.
        secret_file: PathBuf = text("the path of a file"), required;
        /// File that keeps the operator's states over a restart while the store is away. Without it
        /// there is none.
        state_file: Option<PathBuf> = text("the path of a file that may be written"), optional;
        /// Time between two exchanges with the store.
        ///
        /// Picks bear ten times this; an operator waits for two of them at most.
        interval: Duration = time(100, 60), default(seconds(1));
        /// Time limit of one exchange.
        ///
        /// A store in the same network answers within milliseconds.
        timeout: Duration = time(10, 60), default(Duration::from_millis(500));
        /// Time without a sign after which a member is gone, and after which a balancer that cannot
        /// reach the store is alone. At least three times `interval`.
        ///
        /// Four exchanges may fail before.
        expire: Duration = time(300, DAY), default(seconds(5));
        /// Parts that are shared: states that the operator sets (`operator`), live connections of
        /// each backend (`load`), the rate of drains (`drain`), limits of sources (`limits`), and
        /// where clients belong (`sticky`).
        ///
        /// A cluster is meant to behave as one.
        share: Vec<Share> = ValueKind::Words(words::<Share>), default(Share::ALL.to_vec());
    }
    then verify;
}

words! {
    /// Part of the state that a cluster shares.
    pub enum Share {
        Operator = "operator",
        Load = "load",
        Drain = "drain",
        Limits = "limits",
        Sticky = "sticky",
    }
}

const NAME: &str = "a name of letters, digits, `-`, `_` and `.`, at most 64";
/// Longest name: it is part of every key in the store.
const MAX_NAME: usize = 64;
/// Exchanges that must fit into `expire`: one that is lost, and one that is late.
const MIN_EXCHANGES: u32 = 3;

impl Share {
    const ALL: [Share; 5] = [
        Share::Operator,
        Share::Load,
        Share::Drain,
        Share::Limits,
        Share::Sticky,
    ];
}

impl Cluster {
    pub fn shares(&self, part: Share) -> bool {
        self.share.contains(&part)
    }

    /// The servers that are asked: those of the store, or the sentinels.
    pub fn urls(&self) -> &[RegistryUrl] {
        match &self.store {
            Some(url) => std::slice::from_ref(url),
            None => &self.sentinel,
        }
    }
}

fn read_name(text: &str) -> Result<String, &'static str> {
    let is_fine = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.');
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(is_fine) {
        return Err("it is empty, too long, or has another character");
    }
    Ok(text.to_owned())
}

fn verify(table: &TableReader<'_>, cluster: &mut Cluster) {
    match (table.has("store"), table.has("sentinel")) {
        (true, true) => table.conflict("sentinel", "`store` is given too; give one of them"),
        (false, false) => table.missing("store", "no store", "`store` or `sentinel`"),
        (true, false) => table.conflict("service", "only sentinels are asked for a service"),
        (false, true) if cluster.sentinel.is_empty() => {
            table.conflict("sentinel", "no address of a sentinel");
        }
        (false, true) if cluster.service.is_none() => {
            table.missing("service", "no name of the primary", "`service`");
        }
        (false, true) => {}
    }
    if cluster.user.is_some() && cluster.password_file.is_none() {
        table.missing("password_file", "`user` has no password", "`password_file`");
    }
    if cluster.urls().iter().any(|url| !url.is_tls) {
        table.conflict("tls", "an address of the store is without TLS");
    }
    if cluster.expire < cluster.interval * MIN_EXCHANGES {
        let value = table.value("expire").or_else(|| table.value("interval"));
        if let Some(value) = value {
            let why = "`expire` is less than three times `interval`";
            value.refuse(crate::config::ErrorKind::Conflict, why);
        }
    }
    let is_here = |url: &RegistryUrl| {
        let ip: Option<IpAddr> = url.host.parse().ok();
        url.host == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
    };
    if cluster
        .urls()
        .iter()
        .any(|url| !url.is_tls && !is_here(url))
    {
        table.warn(
            "the store is asked without TLS: who listens on the way sees names and the password; \
             rediss:// is with TLS",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    const FINE: &str = "store = \"redis://127.0.0.1:1\"\nname = \"edge\"\nsecret_file = \"k\"\n";

    fn cluster(keys: &str) -> String {
        format!("{}\n[cluster]\n{keys}\n", pool(""))
    }

    #[test]
    fn a_small_table_gets_its_defaults() {
        let config = right(&cluster(FINE));
        let cluster = config.cluster.unwrap();
        assert_eq!(cluster.expire, seconds(5));
        assert!(cluster.shares(Share::Sticky) && cluster.shares(Share::Operator));
        assert_eq!(cluster.urls()[0].port, 1);
        assert_eq!(right(&pool("")).cluster, None);
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let no_store = "name = \"edge\"\nsecret_file = \"k\"\n";
        let more = |keys: &str| cluster(&format!("{FINE}{keys}"));
        let sentinel = "sentinel = [\"redis://10.0.0.1:26379\"]\n";
        each_refused([
            (cluster(no_store), "cluster.store", ErrorKind::Missing),
            (more(sentinel), "cluster.sentinel", ErrorKind::Conflict),
            (
                more("service = \"m\""),
                "cluster.service",
                ErrorKind::Conflict,
            ),
            (
                cluster(&format!("{no_store}{sentinel}")),
                "cluster.service",
                ErrorKind::Missing,
            ),
            (
                more("user = \"u\""),
                "cluster.password_file",
                ErrorKind::Missing,
            ),
            (more("tls = {}"), "cluster.tls", ErrorKind::Conflict),
            (
                more("expire = \"2s\""),
                "cluster.expire",
                ErrorKind::Conflict,
            ),
            (
                more("interval = \"2s\""),
                "cluster.interval",
                ErrorKind::Conflict,
            ),
            (more("id = \"a b\""), "cluster.id", ErrorKind::Value),
            (
                more("share = [\"all\"]"),
                "cluster.share[0]",
                ErrorKind::Value,
            ),
        ]);
    }

    #[test]
    fn only_a_store_elsewhere_is_warned_of_without_tls() {
        for (store, warns) in [
            ("redis://127.0.0.1", false),
            ("rediss://10.0.0.1", false),
            ("redis://10.0.0.1", true),
        ] {
            let text = cluster(&FINE.replace("redis://127.0.0.1:1", store));
            let draft = crate::config::Draft::read(&text, std::path::Path::new("a.toml"));
            let warned = draft.warnings().map(|found| found.messages());
            let keys = warned.unwrap_or_default().into_iter().map(|one| one.key);
            assert_eq!(
                keys.filter(|key| key == "cluster").count(),
                usize::from(warns)
            );
        }
    }
}

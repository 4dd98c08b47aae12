//! Keys of `discover` for registries: where one is, and what is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::backend_tls::BackendTls;
use crate::config::error::ErrorKind;
use crate::config::reader::TableReader;
use crate::config::registry_url::RegistryUrl;
use crate::config::spec::{DAY, number, text, texts, time};
use crate::config::value::ValueReader;
use crate::config::value_types;

table! {
    /// Where a registry is and what is asked for.
    pub struct RegistrySettings {
        /// File with a list of backends, JSON or TOML, which is followed.
        file: Option<PathBuf> = text("the path of a file, .json or .toml"), optional;
        /// Address that answers with a list of backends in JSON.
        http: Option<RegistryUrl> = text(URL), optional by value_types::text(RegistryUrl::parse);
        /// Agent of Consul.
        consul: Option<RegistryUrl> = text(URL), optional by value_types::text(RegistryUrl::parse);
        /// Members of an etcd cluster.
        etcd: Vec<RegistryUrl> = texts(URL), empty by value_types::texts(RegistryUrl::parse);
        /// Servers of Redis with the same data.
        redis: Vec<RegistryUrl> = texts("a URL such as \"redis://10.0.0.1:6379\""),
            empty by value_types::texts(RegistryUrl::parse_redis);
        /// Servers of Eureka, with their path.
        eureka: Vec<RegistryUrl> = texts(URL), empty by value_types::texts(RegistryUrl::parse);
        /// Servers of Nacos.
        nacos: Vec<RegistryUrl> = texts(URL), empty by value_types::texts(RegistryUrl::parse);
        /// API server of Kubernetes, or `in-cluster` for the one that the pod runs in, with the
        /// token and the roots of its service account.
        kubernetes: Option<RegistryUrl> = text("\"in-cluster\" or a URL such as \"https://10.0.0.1:6443\""),
            optional by value_types::text(RegistryUrl::parse_kubernetes);
        /// Members of a ZooKeeper ensemble.
        zookeeper: Vec<RegistryUrl> = texts("a host and a port such as \"10.0.0.1:2181\""),
            empty by value_types::texts(RegistryUrl::parse_tcp);
        /// Register processes of GatewayWorker. It needs `port`.
        gatewayworker: Vec<RegistryUrl> = texts("a host and a port such as \"10.0.0.1:1236\""),
            empty by value_types::texts(RegistryUrl::parse_tcp);
        /// Service that is asked for: its name in `consul`, `eureka`, `nacos` and `kubernetes`; the
        /// prefix of its keys in `etcd`; the path of its node in `zookeeper`; in `redis` a hash, or
        /// with a `*` at its end the prefix of its keys.
        service: Option<String> = text("a name"), optional by value_types::text(read_name);
        /// Filter expression of `consul`.
        filter: Option<String> = text("an expression"), optional;
        /// Namespace in `nacos` and `kubernetes`. Without it: the default one.
        namespace: Option<String> = text("a name"), optional by value_types::text(read_name);
        /// Group in `nacos`. Without it: `DEFAULT_GROUP`.
        group: Option<String> = text("a name"), optional by value_types::text(read_name);
        /// Name of the port in `kubernetes`. Without it: the first one of TCP.
        port_name: Option<String> = text("a name"), optional by value_types::text(read_name);
        /// Port of clients on the hosts of `gatewayworker`, which tells only internal ones.
        port: Option<u16> = number(1, 65_535), optional;
        /// User at `etcd`, `redis`, `eureka`, `nacos` and `zookeeper`. It needs `token_file`.
        user: Option<String> = text("a name"), optional by value_types::text(read_name);
        /// File with a token, or with the password of `user`. It is read again when it changes.
        token_file: Option<PathBuf> = text("the path of a file"), optional;
        /// TLS towards the registry. Without it: `https` is verified by the system's roots.
        tls: Option<BackendTls>, optional;
        /// Time between two requests to a source that does not tell of changes: `http` 10 s,
        /// `redis` 2 s, `eureka` 30 s, `nacos` as the server says. Without it: these.
        interval: Option<Duration> = time(100, DAY), optional;
    }
}

const URL: &str = "a URL such as \"http://10.0.0.1:8500\"";

/// A service of a registry, or a list of backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    pub kind: RegistryKind,
    /// Empty for `file` and `http`.
    pub service: String,
    pub filter: Option<String>,
    pub namespace: Option<String>,
    pub group: Option<String>,
    pub port_name: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub token_file: Option<PathBuf>,
    pub tls: Option<BackendTls>,
    /// `None`: the kind's own.
    pub interval: Option<Duration>,
}

/// Kind of a registry, with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryKind {
    File(PathBuf),
    Http(RegistryUrl),
    Consul(RegistryUrl),
    Etcd(Vec<RegistryUrl>),
    Redis(Vec<RegistryUrl>),
    Eureka(Vec<RegistryUrl>),
    Nacos(Vec<RegistryUrl>),
    Kubernetes(RegistryUrl),
    ZooKeeper(Vec<RegistryUrl>),
    GatewayWorker(Vec<RegistryUrl>),
}

impl Registry {
    /// Name for logs and the status, such as `consul web`.
    pub fn label(&self) -> String {
        match &self.kind {
            RegistryKind::File(path) => format!("file {}", path.display()),
            RegistryKind::Http(url) => url.to_string(),
            kind => format!("{} {}", kind.word(), self.service),
        }
    }

    /// Longest time between two answers while all is well.
    pub(super) fn longest_period(&self) -> Duration {
        self.interval.unwrap_or(WATCH_PERIOD)
    }

    /// Whether both list the same, wherever and however they are asked.
    pub fn lists_as(&self, other: &Registry) -> bool {
        let is_same_kind = match (&self.kind, &other.kind) {
            // Their addresses alone say what they list.
            (RegistryKind::File(_) | RegistryKind::Http(_), _) => self.kind == other.kind,
            (kind, other) => kind.word() == other.word(),
        };
        let asked = |one: &Registry| {
            let Registry {
                service,
                filter,
                namespace,
                group,
                port_name,
                port,
                ..
            } = one.clone();
            (service, filter, namespace, group, port_name, port)
        };
        is_same_kind && asked(self) == asked(other)
    }
}

impl RegistryKind {
    /// The key of the file.
    pub fn word(&self) -> &'static str {
        match self {
            RegistryKind::File(_) => "file",
            RegistryKind::Http(_) => "http",
            RegistryKind::Consul(_) => "consul",
            RegistryKind::Etcd(_) => "etcd",
            RegistryKind::Redis(_) => "redis",
            RegistryKind::Eureka(_) => "eureka",
            RegistryKind::Nacos(_) => "nacos",
            RegistryKind::Kubernetes(_) => "kubernetes",
            RegistryKind::ZooKeeper(_) => "zookeeper",
            RegistryKind::GatewayWorker(_) => "gatewayworker",
        }
    }

    /// Whether it is the API server of the cluster that the process runs in.
    pub fn is_in_cluster(&self) -> bool {
        matches!(self, RegistryKind::Kubernetes(url) if url.is_in_cluster())
    }

    /// Addresses of the servers; none of a file.
    pub fn urls(&self) -> &[RegistryUrl] {
        match self {
            RegistryKind::File(_) => &[],
            RegistryKind::Http(url) | RegistryKind::Consul(url) | RegistryKind::Kubernetes(url) => {
                std::slice::from_ref(url)
            }
            RegistryKind::Etcd(urls)
            | RegistryKind::Redis(urls)
            | RegistryKind::Eureka(urls)
            | RegistryKind::Nacos(urls)
            | RegistryKind::ZooKeeper(urls)
            | RegistryKind::GatewayWorker(urls) => urls,
        }
    }

    /// Keys of `discover` that have an effect on this kind.
    fn keys(&self) -> &'static [&'static str] {
        match self {
            RegistryKind::File(_) => &[],
            RegistryKind::Http(_) => &["token_file", "tls", "interval"],
            RegistryKind::Consul(_) => &["service", "filter", "token_file", "tls"],
            RegistryKind::Etcd(_) => &["service", "user", "token_file", "tls"],
            RegistryKind::Redis(_) | RegistryKind::Eureka(_) => {
                &["service", "user", "token_file", "tls", "interval"]
            }
            RegistryKind::Nacos(_) => &[
                "service",
                "namespace",
                "group",
                "user",
                "token_file",
                "tls",
                "interval",
            ],
            RegistryKind::Kubernetes(_) => {
                &["service", "namespace", "port_name", "token_file", "tls"]
            }
            RegistryKind::ZooKeeper(_) => &["service", "user", "token_file"],
            RegistryKind::GatewayWorker(_) => &["port", "token_file"],
        }
    }
}

/// Keys that only some registries have.
const OF_SOME: [&str; 10] = [
    "service",
    "filter",
    "namespace",
    "group",
    "port_name",
    "port",
    "user",
    "token_file",
    "tls",
    "interval",
];

/// Makes the registry of the keys that are given, and notes those that have no effect.
pub(super) fn choose(
    table: &TableReader<'_>,
    settings: Option<RegistrySettings>,
    source: &str,
) -> Option<Arc<Registry>> {
    let settings = settings?;
    let Some(kind) = kind(source, &settings) else {
        if ["dns", "srv"].contains(&source) {
            let why = format!("it has no effect on `{source}`");
            table.conflicts(&OF_SOME, &why);
        }
        return None;
    };
    let why = format!("it has no effect on `{source}`");
    let of_others = OF_SOME.into_iter().filter(|key| !kind.keys().contains(key));
    table.conflicts(&of_others.collect::<Vec<_>>(), &why);
    table.conflicts(&["nameservers", "min_ttl", "max_ttl"], &why);
    if kind.keys().contains(&"service") && !table.has("service") {
        table.missing("service", "no service to ask for", "`service`");
    }
    if kind.urls().is_empty() && !matches!(kind, RegistryKind::File(_)) {
        // One that is wrong was noted.
        let list = table.value(source).filter(ValueReader::is_empty_list);
        if let Some(list) = list {
            list.refuse(ErrorKind::Missing, "no address of the registry");
        }
        return None;
    }
    let service = settings.service.as_deref().unwrap_or("/");
    if source == "zookeeper" && !service.starts_with('/') {
        table.conflict(
            "service",
            "it is no path of ZooKeeper: that begins with a slash",
        );
    }
    if source == "gatewayworker" && !table.has("port") {
        table.missing("port", "no port of the clients", "`port`");
    }
    if settings.user.is_some() && settings.token_file.is_none() {
        table.missing("token_file", "`user` has no password", "`token_file`");
    }
    refuse_unlike(table, source, &kind);
    let account = |file: &str| Path::new(SERVICE_ACCOUNT).join(file);
    let is_in_cluster = kind.is_in_cluster();
    let own_token = is_in_cluster.then(|| account("token"));
    let own_tls = is_in_cluster.then(|| BackendTls {
        ca: Some(account("ca.crt")),
        ..BackendTls::default()
    });
    Some(Arc::new(Registry {
        kind,
        service: settings.service.unwrap_or_default(),
        filter: settings.filter,
        namespace: settings.namespace,
        group: settings.group,
        port_name: settings.port_name,
        port: settings.port,
        user: settings.user,
        token_file: settings.token_file.or(own_token),
        tls: settings.tls.or(own_tls),
        interval: settings.interval,
    }))
}

/// Addresses that go neither with `tls` nor with each other.
fn refuse_unlike(table: &TableReader<'_>, source: &str, kind: &RegistryKind) {
    if kind.urls().iter().any(|url| !url.is_tls) {
        table.conflict("tls", "an address of the registry is without TLS");
    }
    if let (key @ ("etcd" | "eureka" | "nacos"), [first, others @ ..]) = (source, kind.urls())
        && others
            .iter()
            .any(|url| url.base_path() != first.base_path())
    {
        table.conflict(
            key,
            "its addresses have different paths: they are servers of one registry",
        );
    }
}

/// Kind of registry that a key asks for; `None` of DNS, or where its value is wrong.
fn kind(source: &str, settings: &RegistrySettings) -> Option<RegistryKind> {
    let list = |urls: &Vec<RegistryUrl>| urls.clone();
    Some(match source {
        "file" => RegistryKind::File(settings.file.clone()?),
        "http" => RegistryKind::Http(settings.http.clone()?),
        "consul" => RegistryKind::Consul(settings.consul.clone()?),
        "etcd" => RegistryKind::Etcd(list(&settings.etcd)),
        "redis" => RegistryKind::Redis(list(&settings.redis)),
        "eureka" => RegistryKind::Eureka(list(&settings.eureka)),
        "nacos" => RegistryKind::Nacos(list(&settings.nacos)),
        "kubernetes" => RegistryKind::Kubernetes(settings.kubernetes.clone()?),
        "zookeeper" => RegistryKind::ZooKeeper(list(&settings.zookeeper)),
        "gatewayworker" => RegistryKind::GatewayWorker(list(&settings.gatewayworker)),
        _ => return None,
    })
}

/// A watch begins anew after a minute and a tenth of it, a blocking query of Consul after less;
/// sources that are polled by a server's word or ours are asked more often.
const WATCH_PERIOD: Duration = Duration::from_secs(66);

/// Where a pod finds its token and its roots.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Longest name; those of all registries are shorter.
const MAX_NAME: usize = 512;

fn read_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err("it is too long, or has a control character");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{each_refused, pool, right};
    use crate::config::{Discover, DiscoverSource};

    fn discover(keys: &str) -> String {
        pool(&format!("discover = {{ {keys} }}"))
    }

    fn read(keys: &str) -> Discover {
        let config = right(&discover(keys));
        config.pools["p"].discover.clone().unwrap()
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused(
            [
                ("consul = \"http://a:1\"", "service", ErrorKind::Missing),
                (
                    "consul = \"a:1\", service = \"s\"",
                    "consul",
                    ErrorKind::Value,
                ),
                (
                    "consul = \"http://u:p@a:1\", service = \"s\"",
                    "consul",
                    ErrorKind::Value,
                ),
                (
                    "consul = \"http://a:1\", service = \"s\", dns = \"a:1\"",
                    "consul",
                    ErrorKind::Conflict,
                ),
                (
                    "consul = \"http://a:1\", service = \"s\", group = \"g\"",
                    "group",
                    ErrorKind::Conflict,
                ),
                (
                    "consul = \"http://a:1\", service = \"s\", min_ttl = \"1s\"",
                    "min_ttl",
                    ErrorKind::Conflict,
                ),
                (
                    "consul = \"http://a:1\", service = \"s\", tls = { ca = \"c\" }",
                    "tls",
                    ErrorKind::Conflict,
                ),
                (
                    "consul = \"http://a:1\", service = \"\"",
                    "service",
                    ErrorKind::Value,
                ),
                (
                    "etcd = [\"http://a:1\"], service = \"s\", user = \"u\"",
                    "token_file",
                    ErrorKind::Missing,
                ),
                (
                    "redis = [\"http://a:1\"], service = \"s\"",
                    "redis[0]",
                    ErrorKind::Value,
                ),
                ("etcd = [], service = \"s\"", "etcd", ErrorKind::Missing),
                (
                    "file = \"a.json\", service = \"s\"",
                    "service",
                    ErrorKind::Conflict,
                ),
                (
                    "dns = \"a:1\", interval = \"1s\"",
                    "interval",
                    ErrorKind::Conflict,
                ),
                (
                    "dns = \"a:1\", max_shrink = \"101%\"",
                    "max_shrink",
                    ErrorKind::Value,
                ),
            ]
            .map(|(keys, key, kind)| {
                let path: &'static str = format!("pool.p.discover.{key}").leak();
                (discover(keys), path, kind)
            }),
        );
    }

    #[test]
    fn a_registry_is_read_with_its_addresses() {
        let found = read(
            "etcd = [\"https://a.test:2379/base\", \"http://[::1]:2379/base/\"], service = \"/chat/\"",
        );
        let DiscoverSource::Registry(registry) = &found.source else {
            panic!("{found:?}")
        };
        let shown: Vec<_> = registry
            .kind
            .urls()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            ["https://a.test:2379/base", "http://[::1]:2379/base/"]
        );
        assert_eq!(registry.label(), "etcd /chat/");
        assert_eq!(found.policy.remove_after.as_secs(), 120);
        assert_eq!(found.policy.max_shrink, 50);
    }

    #[test]
    fn another_address_or_token_lists_the_same_another_service_does_not() {
        let one = "consul = \"http://a.test\", service = \"chat\"";
        let same = "consul = \"https://b.test\", service = \"chat\", token_file = \"t\"";
        let file = |name: &str| format!("file = \"{name}\"");
        let lists_as = |one: &str, other: &str| read(one).source.lists_as(&read(other).source);
        assert!(lists_as(one, same));
        for other in [
            "consul = \"http://a.test\", service = \"api\"",
            "consul = \"http://a.test\", service = \"chat\", filter = \"x\"",
            "etcd = [\"http://a.test\"], service = \"chat\"",
            "dns = \"a.test:1\"",
        ] {
            assert!(!lists_as(one, other), "{other}");
        }
        assert!(lists_as(&file("a.json"), &file("a.json")));
        assert!(!lists_as(&file("a.json"), &file("b.json")));
    }

    #[test]
    fn servers_of_one_registry_have_one_path() {
        let of = |key: &str, other: &str| {
            format!("{key} = [\"http://a.test/base/\", \"http://b.test{other}\"], service = \"s\"")
        };
        for key in ["etcd", "eureka", "nacos"] {
            let path: &'static str = format!("pool.p.discover.{key}").leak();
            each_refused([(discover(&of(key, "/")), path, ErrorKind::Conflict)]);
            read(&of(key, "/base"));
        }
    }

    #[test]
    fn a_set_is_not_stale_between_two_answers() {
        each_refused(
            [
                "consul = \"http://a.test\", service = \"chat\", max_stale = \"131s\"",
                "http = \"http://a.test\", interval = \"1h\", max_stale = \"119m\"",
                "dns = \"a.test:1\", max_ttl = \"1m\", max_stale = \"119s\"",
            ]
            .map(|keys| {
                (
                    discover(keys),
                    "pool.p.discover.max_stale",
                    ErrorKind::Conflict,
                )
            }),
        );
        read("consul = \"http://a.test\", service = \"chat\", max_stale = \"132s\"");
        read("http = \"http://a.test\", interval = \"1s\", max_stale = \"2s\"");
        read("dns = \"a.test:1\", max_ttl = \"1m\", max_stale = \"2m\"");
    }
}

//! `[admin]` and `[metrics]`: the endpoints of the operator.
//!
//! Safety rule: an admin endpoint that others can reach needs TLS and a token.

use super::super::address::host_name;
use super::super::defaults;
use super::super::keys::{Absent, Key, Kind, Section, key};
use super::super::model::{Admin, Bind, Metrics};
use super::super::table::Table;
use super::admin_token::{self, Pools};
use super::admission;
use super::listener::BIND;
use super::listener_tls::{CERT, KEY, certificate};
use super::socket_file::{self, ADMIN_MODE, GROUP, MODE, OWNER};

const ALLOW: Key = key(
    "allow",
    Kind::Texts(admission::NETWORKS),
    Absent::Texts(&[]),
    "Networks whose clients may connect; others are reset before anything is read. Empty: everybody.",
);
const DENY: Key = key(
    "deny",
    Kind::Texts(admission::NETWORKS),
    Absent::Texts(&[]),
    "Networks whose clients may not connect, whatever `allow` says.",
);

pub static ADMIN: Section = Section {
    doc: "The endpoint of the operator.",
    keys: &[
        key(
            "bind",
            Kind::Text(BIND),
            Absent::Required,
            "Where it listens. Off loopback and off a unix socket, `tls` and `token_file` or `token` are required.",
        ),
        ADMIN_MODE,
        OWNER,
        GROUP,
        key(
            "token_file",
            Kind::Text("the path of a file"),
            Absent::None,
            "File that holds the bearer token. It may do everything. Read at start and at reload. Without it and without `token` none is asked for.",
        ),
        key(
            "token",
            Kind::Tables(&admin_token::TOKEN),
            Absent::None,
            "Further bearer tokens, each with a name and what it may do.",
        ),
        key(
            "tls",
            Kind::Table(&ADMIN_TLS),
            Absent::None,
            "Certificate of the endpoint. Without it: plain HTTP.",
        ),
        key(
            "allowed_hosts",
            Kind::Texts("a host name or an IP address, without a port"),
            Absent::Texts(&[]),
            "Host headers that are accepted beside the bound address, `localhost` and loopback addresses.",
        ),
        ALLOW,
        DENY,
    ],
};

static ADMIN_TLS: Section = Section {
    doc: "Certificate of the admin endpoint.",
    keys: &[CERT, KEY],
};

pub static METRICS: Section = Section {
    doc: "`/metrics`, `/healthz` and `/readyz`, read-only, open to probes and scrapers.",
    keys: &[
        key(
            "bind",
            Kind::Text(BIND),
            Absent::Required,
            "Where it listens.",
        ),
        MODE,
        OWNER,
        GROUP,
        ALLOW,
        DENY,
    ],
};

/// Without `pools` the names of pools and backends are not looked up.
pub fn decode(table: &Table<'_>, pools: Option<&Pools<'_>>) -> Option<Admin> {
    let bind = table.text("bind");
    if bind.as_ref().is_some_and(is_reachable_by_others) {
        refuse_unguarded(table);
    }
    if matches!(bind, Some(Bind::Unix(_))) {
        table.conflict(
            "tls",
            "a unix socket has no TLS; the rights of its file guard it",
        );
    }
    let tls = table.maybe_table("tls").map(|tls| certificate(&tls, true));
    let tokens = admin_token::decode(table, pools);
    let mut file = socket_file::decode(table, bind.as_ref());
    if matches!(bind, Some(Bind::Unix(_))) {
        file.mode = file.mode.or(Some(defaults::ADMIN_SOCKET_MODE));
    }
    Some(Admin {
        file,
        token_file: table.path("token_file"),
        tokens: tokens?,
        allowed_hosts: table.texts_by("allowed_hosts", read_host),
        access: admission::access(table, bind.as_ref()),
        tls: super::decoded(tls)?,
        bind: bind?,
    })
}

fn refuse_unguarded(table: &Table<'_>) {
    let missing = |key: &str, needed: &str| {
        let what = format!("an admin endpoint off loopback needs {needed}");
        table.missing(key, &what, needed);
    };
    if !table.has("tls") {
        missing("tls", "`tls`");
    }
    if !table.has("token_file") && !table.has("token") {
        missing("token_file", "`token_file` or `[[admin.token]]`");
    }
}

pub fn decode_metrics(table: &Table<'_>) -> Option<Metrics> {
    let bind = table.text("bind");
    Some(Metrics {
        file: socket_file::decode(table, bind.as_ref()),
        access: admission::access(table, bind.as_ref()),
        bind: bind?,
    })
}

fn is_reachable_by_others(bind: &Bind) -> bool {
    match bind {
        Bind::Tcp(address) => !address.ip().to_canonical().is_loopback(),
        Bind::Unix(_) => false,
    }
}

fn read_host(text: &str) -> Result<String, &'static str> {
    match text.parse::<std::net::IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => host_name(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};

    fn admin(keys: &str) -> String {
        format!("{}[admin]\n{keys}\n", pool(""))
    }

    const GUARDED: &str = "tls = { cert = \"a\", key = \"b\" }\ntoken_file = \"t\"";

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (admin(""), "admin.bind", Fault::Missing),
            (
                admin("bind = \"localhost:9900\""),
                "admin.bind",
                Fault::Value,
            ),
            (
                admin("bind = \"0.0.0.0:9900\"\ntls = { cert = \"a\", key = \"b\" }"),
                "admin.token_file",
                Fault::Missing,
            ),
            (
                admin("bind = \"[::]:9900\"\ntoken_file = \"t\""),
                "admin.tls",
                Fault::Missing,
            ),
            (
                admin("bind = \"10.0.0.1:9900\"\ntoken_file = \"t\""),
                "admin.tls",
                Fault::Missing,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\ntls = { cert = \"a\" }"),
                "admin.tls.key",
                Fault::Missing,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\ntls = true"),
                "admin.tls",
                Fault::Type,
            ),
            (
                admin("bind = \"unix:/run/a\"\ntls = { cert = \"a\", key = \"b\" }"),
                "admin.tls",
                Fault::Conflict,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\nallowed_hosts = [\"a:80\"]"),
                "admin.allowed_hosts[0]",
                Fault::Value,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\nallow = [\"unix\"]"),
                "admin.allow[0]",
                Fault::Value,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\n[metrics]\nbind = \"[::]:1\"\ndeny = [\"x\"]"),
                "metrics.deny[0]",
                Fault::Value,
            ),
            (
                admin("bind = \"127.0.0.1:80\""),
                "admin.bind",
                Fault::Conflict,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\n[metrics]\nbind = \"127.0.0.1:9900\""),
                "metrics.bind",
                Fault::Conflict,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\n[metrics]"),
                "metrics.bind",
                Fault::Missing,
            ),
        ]);
    }

    #[test]
    fn loopback_and_unix_sockets_need_no_guard_and_others_may_have_it() {
        for bind in [
            "127.0.0.1:9900",
            "127.9.9.9:1",
            "[::1]:9900",
            "[::ffff:127.0.0.1]:9900",
            "unix:/run/a.sock",
        ] {
            right(&admin(&format!("bind = \"{bind}\"")));
        }
        let admin = right(&admin(&format!("bind = \"0.0.0.0:9900\"\n{GUARDED}")))
            .admin
            .unwrap();
        assert_eq!(
            admin.token_file.as_deref(),
            Some(std::path::Path::new("/etc/evenkeel/t"))
        );
        assert!(admin.tls.is_some());
    }
}

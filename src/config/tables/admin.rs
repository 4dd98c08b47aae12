//! `[admin]` and `[metrics]`: the endpoints of the operator.
//!
//! Safety rule: an admin endpoint that others can reach needs TLS and a token.

use std::path::PathBuf;

use super::admin_token::{AdminToken, refuse_many};
use super::admission::{Access, refuse_other_clients};
use super::listener::BIND;
use super::listener_tls::{ADMIN_TLS, Certificate};
use super::socket_file::{FileRights, file_rights};
use crate::config::address::{Bind, host_name};
use crate::config::declare::{Declared, Parts, ValueKind};
use crate::config::reader::TableReader;
use crate::config::spec::{text, texts};
use crate::config::value::ValueReader;
use crate::config::value_types::{self, parsed};

/// A client that can connect can drain and close: only the user that runs the process may.
const SOCKET_MODE: u32 = 0o600;

table! {
    /// Endpoint of the operator.
    pub struct Admin {
        /// Address of the endpoint. Off loopback and off a unix socket, `tls` and `token_file` or
        /// `token` are required.
        bind: Bind = text(BIND), required by parsed;
        /// File that holds the bearer token, which may do everything. Read at start and at reload.
        /// Without it and without `token` none is asked for; /healthz and /readyz need none.
        token_file: Option<PathBuf> = text("the path of a file"), optional;
        /// Further bearer tokens, each with a name and its rights.
        tokens as "token": Vec<AdminToken>, empty;
        /// Certificate of the endpoint. Without it: plain HTTP.
        tls: Option<Certificate> = ValueKind::Table(ADMIN_TLS), optional by certificate;
        /// Host headers that are accepted beside the bound address, `localhost` and loopback
        /// addresses.
        allowed_hosts: Vec<String> = texts("a host name or an IP address, without a port"),
            default(Vec::new()) by value_types::texts(read_host);
        /// Clients that are let in.
        access: Access, keys;
        /// Rights of the file of a unix socket.
        file: FileRights, keys by file_rights;
    }
    rules guard;
}

table! {
    /// `/metrics`, `/healthz` and `/readyz`, read-only, open to probes and scrapers.
    pub struct Metrics {
        /// Address of the endpoint.
        bind: Bind = text(BIND), required by parsed;
        /// Whether the page of this endpoint has the metrics of each backend. Those of pools, such
        /// as `evenkeel_pool_backends`, stay. The page of `[admin]` has all of them.
        ///
        /// What is known of a backend should be found where one looks. A page costs about 1.8 KB
        /// for each backend.
        per_backend: bool, default(true);
        /// Clients that are let in.
        access: Access, keys;
        /// Rights of the file of a unix socket.
        file: FileRights, keys by file_rights;
    }
    then refuse_other_scrapers;
}

fn certificate(value: &ValueReader<'_>) -> Option<Certificate> {
    let certificate = Certificate::read(&TableReader::within(value)?)?;
    Some(Certificate {
        default: true,
        ..certificate
    })
}

fn guard(table: &TableReader<'_>, admin: &mut Parts<Admin>) {
    refuse_other_clients(table, admin.bind.as_ref());
    refuse_many(table);
    match &admin.bind {
        Some(Bind::Tcp(address)) if !address.ip().to_canonical().is_loopback() => {
            refuse_unguarded(table);
        }
        Some(Bind::Unix(_)) => {
            let why = "a unix socket has no TLS; the rights of its file guard it";
            table.conflict("tls", why);
            if let Some(file) = &mut admin.file {
                file.mode = file.mode.or(Some(SOCKET_MODE));
            }
        }
        _ => {}
    }
}

fn refuse_unguarded(table: &TableReader<'_>) {
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

fn refuse_other_scrapers(table: &TableReader<'_>, metrics: &mut Metrics) {
    refuse_other_clients(table, Some(&metrics.bind));
}

fn read_host(text: &str) -> Result<String, &'static str> {
    match text.parse::<std::net::IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => host_name(text),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn admin(keys: &str) -> String {
        format!("{}[admin]\n{keys}\n", pool(""))
    }

    const GUARDED: &str = "tls = { cert = \"a\", key = \"b\" }\ntoken_file = \"t\"";

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (admin(""), "admin.bind", ErrorKind::Missing),
            (
                admin("bind = \"localhost:9900\""),
                "admin.bind",
                ErrorKind::Value,
            ),
            (
                admin("bind = \"0.0.0.0:9900\"\ntls = { cert = \"a\", key = \"b\" }"),
                "admin.token_file",
                ErrorKind::Missing,
            ),
            (
                admin("bind = \"[::]:9900\"\ntoken_file = \"t\""),
                "admin.tls",
                ErrorKind::Missing,
            ),
            (
                admin("bind = \"10.0.0.1:9900\"\ntoken_file = \"t\""),
                "admin.tls",
                ErrorKind::Missing,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\ntls = { cert = \"a\" }"),
                "admin.tls.key",
                ErrorKind::Missing,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\ntls = true"),
                "admin.tls",
                ErrorKind::Type,
            ),
            (
                admin("bind = \"unix:/run/a\"\ntls = { cert = \"a\", key = \"b\" }"),
                "admin.tls",
                ErrorKind::Conflict,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\nallowed_hosts = [\"a:80\"]"),
                "admin.allowed_hosts[0]",
                ErrorKind::Value,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\nallow = [\"unix\"]"),
                "admin.allow[0]",
                ErrorKind::Value,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\n[metrics]\nbind = \"[::]:1\"\ndeny = [\"x\"]"),
                "metrics.deny[0]",
                ErrorKind::Value,
            ),
            (
                admin("bind = \"127.0.0.1:80\""),
                "admin.bind",
                ErrorKind::Conflict,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\n[metrics]\nbind = \"127.0.0.1:9900\""),
                "metrics.bind",
                ErrorKind::Conflict,
            ),
            (
                admin("bind = \"127.0.0.1:9900\"\n[metrics]"),
                "metrics.bind",
                ErrorKind::Missing,
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

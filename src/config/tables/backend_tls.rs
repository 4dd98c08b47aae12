//! `pool.tls` and `check.tls`: TLS of the connections that we make.

use std::path::PathBuf;

use super::backend::Backend;
use super::listener_tls::TlsVersion;
use crate::config::address::{Address, host_name};
use crate::config::declare::{Declared, Parts, TableSpec};
use crate::config::reader::TableReader;
use crate::config::spec::{text, texts};
use crate::config::value::ValueReader;
use crate::config::value_types;

/// A ClientHello has room for many more; a list of more is a mistake.
const MAX_ALPN: usize = 16;

table! {
    /// How backends are connected to over TLS.
    #[derive(Eq)]
    pub struct BackendTls: Default {
        /// Name that is asked for and verified. Without it: the backend's host name, or its IP
        /// address.
        sni: Option<String> = text("a host name"), optional by value_types::text(read_name);
        /// Verify the backend's certificate.
        ///
        /// A verified certificate is the reason to use TLS at all.
        verify: bool, default(true);
        /// Certificates that are trusted: roots, or a backend's own. Without it: the system's
        /// roots.
        ca: Option<PathBuf> = text("the path of a PEM file with certificates"), optional;
        /// Oldest version of TLS that is spoken.
        ///
        /// Every peer of the last ten years speaks it; 1.0 and 1.1 are broken and not even built
        /// in.
        min_version: TlsVersion, default(TlsVersion::Tls12);
        /// Protocols offered by ALPN, most wanted first.
        alpn: Vec<String> = texts("the name of a protocol such as \"mqtt\""),
            default(Vec::new()) by value_types::texts(read_alpn);
    }
    parts {
        /// Certificate shown to backends that ask for one, and its intermediates, PEM. It needs
        /// `key`.
        cert: Option<PathBuf> = text("the path of a PEM file with a certificate chain"), optional;
        /// Private key of `cert`, PEM.
        key: Option<PathBuf> = text("the path of a PEM file with a private key"), optional;
    }
    with {
        /// Certificate for backends that ask for one. Default none.
        identity: Option<Identity>,
    }
    rules settle;
}

/// A client's certificate chain and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `check.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckTls {
    Plain,
    /// As the pool's connections, name and all.
    Pool,
    Own(BackendTls),
}

/// The first keys of `tls` of a pool.
pub(super) const CHECK_TLS: &TableSpec = &TableSpec {
    doc: "How TLS of a check is done, in place of the pool's.",
    keys: BackendTls::SPEC.keys.split_at(3).0,
};

/// `true` is a table of defaults.
pub(super) fn tls_or_flag(value: &ValueReader<'_>) -> Option<Option<BackendTls>> {
    if value.is_flag() {
        return Some(value.flag()?.then(BackendTls::default));
    }
    BackendTls::read(&TableReader::within(value)?).map(Some)
}

/// `check.tls` as the file has it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum WantedTls {
    Flag(bool),
    Own(BackendTls),
}

pub(super) fn wanted_tls(value: &ValueReader<'_>) -> Option<WantedTls> {
    if value.is_flag() {
        return value.flag().map(WantedTls::Flag);
    }
    BackendTls::read(&TableReader::within(value)?).map(WantedTls::Own)
}

/// TLS of a check. `elsewhere`: the check asks another address or port than the backend's, where
/// the pool's TLS is a guess.
pub(super) fn of_check(wanted: Option<WantedTls>, pool_has_tls: bool, elsewhere: bool) -> CheckTls {
    match wanted {
        Some(WantedTls::Own(own)) => CheckTls::Own(own),
        Some(WantedTls::Flag(true)) if pool_has_tls => CheckTls::Pool,
        Some(WantedTls::Flag(true)) => CheckTls::Own(BackendTls::default()),
        None if pool_has_tls && !elsewhere => CheckTls::Pool,
        None | Some(WantedTls::Flag(false)) => CheckTls::Plain,
    }
}

/// Refuses a unix socket without a name that could be verified.
pub(super) fn refuse_nameless(
    pool: &TableReader<'_>,
    tls: Option<&BackendTls>,
    backends: &[Backend],
) {
    let is_unix = |backend: &Backend| matches!(backend.address, Address::Unix(_));
    if tls.is_some_and(|tls| tls.sni.is_none()) && backends.iter().any(is_unix) {
        pool.missing(
            "tls.sni",
            "a backend of this pool is a unix socket, which has no name to ask for and to verify",
            "`tls = { sni = \"...\" }`",
        );
    }
}

fn settle(table: &TableReader<'_>, tls: &mut Parts<BackendTls>) {
    if tls.verify == Some(false) {
        table.conflict("ca", "`verify = false` uses no roots");
    }
    if tls.alpn.as_ref().is_some_and(|alpn| alpn.len() > MAX_ALPN) {
        table.conflict("alpn", "more than 16 protocols");
    }
    let missing = |name, what| table.missing(name, what, &format!("`{name}`"));
    tls.identity = match (tls.cert.take().flatten(), tls.key.take().flatten()) {
        (None, None) => Some(None),
        (Some(cert), Some(key)) => Some(Some(Identity { cert, key })),
        (Some(_), None) => {
            missing("key", "a certificate without its private key");
            None
        }
        (None, Some(_)) => {
            missing("cert", "a private key without its certificate");
            None
        }
    };
}

/// A certificate has no trailing dot.
fn read_name(text: &str) -> Result<String, &'static str> {
    host_name(text.strip_suffix('.').unwrap_or(text))
}

fn read_alpn(text: &str) -> Result<String, &'static str> {
    match text.len() {
        1..=255 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err("it is not the name of a protocol"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn read(keys: &str) -> Option<BackendTls> {
        right(&pool(keys)).pools["p"].tls.clone()
    }

    #[test]
    fn tls_is_a_flag_or_a_table() {
        assert_eq!(read(""), None);
        assert_eq!(read("tls = false"), None);
        assert_eq!(read("tls = true"), Some(BackendTls::default()));
        assert_eq!(read("tls = {}"), Some(BackendTls::default()));
        let all = "tls = { sni = \"Chat.Example.org.\", ca = \"roots.pem\", cert = \"c.pem\", key = \"c.key\", \
                   min_version = \"1.3\", alpn = [\"mqtt\"] }";
        let wanted = BackendTls {
            sni: Some("chat.example.org".to_owned()),
            verify: true,
            ca: Some("/etc/evenkeel/roots.pem".into()),
            identity: Some(Identity {
                cert: "/etc/evenkeel/c.pem".into(),
                key: "/etc/evenkeel/c.key".into(),
            }),
            min_version: TlsVersion::Tls13,
            alpn: vec!["mqtt".to_owned()],
        };
        assert_eq!(read(all), Some(wanted));
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let tls = |keys: &str| pool(&format!("tls = {{ {keys} }}"));
        let many = format!("alpn = [{}]", "\"a\", ".repeat(17));
        each_refused([
            (pool("tls = \"yes\""), "pool.p.tls", ErrorKind::Type),
            (tls("sni = \"a b\""), "pool.p.tls.sni", ErrorKind::Value),
            (
                tls("sni = \"10.0.0.1\""),
                "pool.p.tls.sni",
                ErrorKind::Value,
            ),
            (
                tls("verify = false, ca = \"a\""),
                "pool.p.tls.ca",
                ErrorKind::Conflict,
            ),
            (tls("cert = \"a\""), "pool.p.tls.key", ErrorKind::Missing),
            (tls("key = \"a\""), "pool.p.tls.cert", ErrorKind::Missing),
            (
                tls("min_version = \"1.1\""),
                "pool.p.tls.min_version",
                ErrorKind::Value,
            ),
            (tls("alpn = \"mqtt\""), "pool.p.tls.alpn", ErrorKind::Type),
            (tls("alpn = [\"\"]"), "pool.p.tls.alpn[0]", ErrorKind::Value),
            (tls(&many), "pool.p.tls.alpn", ErrorKind::Conflict),
            (
                tls("certificates = []"),
                "pool.p.tls.certificates",
                ErrorKind::UnknownKey,
            ),
            (
                pool("tls = true").replace("10.0.0.1:80", "unix:/run/a"),
                "pool.p.tls.sni",
                ErrorKind::Missing,
            ),
        ]);
        right(&tls("sni = \"a\"").replace("10.0.0.1:80", "unix:/run/a"));
    }

    #[test]
    fn a_check_is_as_its_pool_unless_it_says_otherwise() {
        let check = |pool_keys: &str, keys: &str| {
            let text = pool(&format!(
                "{pool_keys}\ncheck = {{ type = \"tcp\", {keys} }}"
            ));
            let check = right(&text).pools["p"].check.clone();
            check.unwrap().tls
        };
        let tls = "tls = { sni = \"a\" }";
        assert_eq!(check("", "rise = 1"), CheckTls::Plain);
        assert_eq!(
            check("", "tls = true"),
            CheckTls::Own(BackendTls::default())
        );
        assert_eq!(check(tls, "rise = 1"), CheckTls::Pool);
        assert_eq!(check(tls, "tls = true"), CheckTls::Pool);
        assert_eq!(check(tls, "tls = false"), CheckTls::Plain);
        // Another port is another service.
        assert_eq!(check(tls, "port = 81"), CheckTls::Plain);
        assert_eq!(check(tls, "address = \"10.0.0.9\""), CheckTls::Plain);
        assert_eq!(check(tls, "port = 81, tls = true"), CheckTls::Pool);
        let own = BackendTls {
            sni: Some("b".to_owned()),
            ..BackendTls::default()
        };
        assert_eq!(check(tls, "tls = { sni = \"b\" }"), CheckTls::Own(own));
    }
}

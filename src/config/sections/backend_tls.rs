//! `pool.tls` and `check.tls`: TLS of the connections that we make.

use super::super::address::host_name;
use super::super::defaults;
use super::super::keys::{Absent, Key, Kind, Section, key};
use super::super::model::{Address, Backend, BackendTls, CheckTls, Identity, TlsVersion};
use super::super::table::Table;
use super::super::words::words;

/// One ClientHello has room for many more; a list of more is a mistake.
const MAX_ALPN: usize = 16;

const SNI: Key = key(
    "sni",
    Kind::Text("a host name"),
    Absent::None,
    "Name that is asked for and verified. Without it: the backend's host name, or its IP address.",
);

const VERIFY: Key = key(
    "verify",
    Kind::Flag,
    Absent::Flag(defaults::BACKEND_TLS_VERIFY),
    "Verify the backend's certificate.",
);

const CA: Key = key(
    "ca",
    Kind::Text("the path of a PEM file with certificates"),
    Absent::None,
    "Certificates that are trusted: roots, or a backend's own. Without it: the system's roots.",
);

pub static TLS: Section = Section {
    doc: "How backends are connected to over TLS.",
    keys: &[
        SNI,
        VERIFY,
        CA,
        key(
            "cert",
            Kind::Text("the path of a PEM file with a certificate chain"),
            Absent::None,
            "Certificate shown to backends that ask for one, and its intermediates, PEM. It needs `key`.",
        ),
        key(
            "key",
            Kind::Text("the path of a PEM file with a private key"),
            Absent::None,
            "Its private key, PEM.",
        ),
        key(
            "min_version",
            Kind::Word(words::<TlsVersion>),
            Absent::Text(defaults::BACKEND_TLS_MIN_VERSION),
            "Oldest version of TLS that is spoken.",
        ),
        key(
            "alpn",
            Kind::Texts("the name of a protocol such as \"mqtt\""),
            Absent::Texts(&[]),
            "Protocols offered by ALPN, most wanted first.",
        ),
    ],
};

pub static CHECK_TLS: Section = Section {
    doc: "How TLS of a check is done, in place of the pool's.",
    keys: &[SNI, VERIFY, CA],
};

/// `None` when it is wrong, `Some(None)` when there is none.
pub fn decode(pool: &Table<'_>) -> Option<Option<BackendTls>> {
    let Some(entry) = pool.entry("tls") else {
        return Some(None);
    };
    if entry.is_flag() {
        return Some(entry.flag()?.then(plain_yes));
    }
    let table = entry.table()?;
    Some(Some(BackendTls {
        identity: identity(&table)?,
        min_version: table.word("min_version"),
        alpn: alpn(&table),
        ..named(&table)
    }))
}

/// What `check.tls` says, or leaves to the pool. `elsewhere`: the check asks another address or port than the backend's,
/// where the pool's TLS is a guess.
pub fn decode_check(check: &Table<'_>, pool_has_tls: bool, elsewhere: bool) -> Option<CheckTls> {
    let as_pool = |wanted: bool| match (wanted, pool_has_tls) {
        (false, _) => CheckTls::Plain,
        (true, true) => CheckTls::Pool,
        (true, false) => CheckTls::Own(plain_yes()),
    };
    let Some(entry) = check.entry("tls") else {
        return Some(as_pool(pool_has_tls && !elsewhere));
    };
    if entry.is_flag() {
        return entry.flag().map(as_pool);
    }
    Some(CheckTls::Own(named(&entry.table()?)))
}

/// A unix socket has no name that could be verified.
pub fn refuse_nameless(pool: &Table<'_>, tls: Option<&BackendTls>, backends: &[Backend]) {
    let is_unix = |backend: &Backend| matches!(backend.address, Address::Unix(_));
    if tls.is_some_and(|tls| tls.sni.is_none()) && backends.iter().any(is_unix) {
        pool.missing(
            "tls.sni",
            "a backend of this pool is a unix socket, which has no name to ask for and to verify",
            "`tls = { sni = \"...\" }`",
        );
    }
}

/// `tls = true`
fn plain_yes() -> BackendTls {
    BackendTls {
        sni: None,
        verify: defaults::BACKEND_TLS_VERIFY,
        ca: None,
        identity: None,
        min_version: TlsVersion::Tls12,
        alpn: Vec::new(),
    }
}

/// The keys that every table has.
fn named(table: &Table<'_>) -> BackendTls {
    let verify = table.flag("verify");
    if !verify {
        table.conflict("ca", "`verify = false` uses no roots");
    }
    BackendTls {
        sni: table.text_by("sni", read_name),
        verify,
        ca: table.path("ca"),
        ..plain_yes()
    }
}

/// A certificate has no trailing dot.
fn read_name(text: &str) -> Result<String, &'static str> {
    host_name(text.strip_suffix('.').unwrap_or(text))
}

fn identity(table: &Table<'_>) -> Option<Option<Identity>> {
    let missing = |name, what| table.missing(name, what, &format!("`{name}`"));
    match (table.has("cert"), table.has("key")) {
        (false, false) => return Some(None),
        (true, false) => missing("key", "a certificate without its private key"),
        (false, true) => missing("cert", "a private key without its certificate"),
        (true, true) => {}
    }
    let (cert, key) = (table.path("cert"), table.path("key"));
    Some(Some(Identity {
        cert: cert?,
        key: key?,
    }))
}

fn alpn(table: &Table<'_>) -> Vec<String> {
    let alpn = table.texts_by("alpn", |text| match text.len() {
        1..=255 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err("it is not the name of a protocol"),
    });
    if alpn.len() > MAX_ALPN {
        table.conflict("alpn", "more than 16 protocols");
    }
    alpn
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

    fn read(keys: &str) -> Option<BackendTls> {
        right(&pool(keys)).pools["p"].tls.clone()
    }

    #[test]
    fn tls_is_a_flag_or_a_table() {
        assert_eq!(read(""), None);
        assert_eq!(read("tls = false"), None);
        assert_eq!(read("tls = true"), Some(plain_yes()));
        assert_eq!(read("tls = {}"), Some(plain_yes()));
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
            (pool("tls = \"yes\""), "pool.p.tls", Fault::Type),
            (tls("sni = \"a b\""), "pool.p.tls.sni", Fault::Value),
            (tls("sni = \"10.0.0.1\""), "pool.p.tls.sni", Fault::Value),
            (
                tls("verify = false, ca = \"a\""),
                "pool.p.tls.ca",
                Fault::Conflict,
            ),
            (tls("cert = \"a\""), "pool.p.tls.key", Fault::Missing),
            (tls("key = \"a\""), "pool.p.tls.cert", Fault::Missing),
            (
                tls("min_version = \"1.1\""),
                "pool.p.tls.min_version",
                Fault::Value,
            ),
            (tls("alpn = \"mqtt\""), "pool.p.tls.alpn", Fault::Type),
            (tls("alpn = [\"\"]"), "pool.p.tls.alpn[0]", Fault::Value),
            (tls(&many), "pool.p.tls.alpn", Fault::Conflict),
            (
                tls("certificates = []"),
                "pool.p.tls.certificates",
                Fault::UnknownKey,
            ),
            (
                pool("tls = true").replace("10.0.0.1:80", "unix:/run/a"),
                "pool.p.tls.sni",
                Fault::Missing,
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
        assert_eq!(check("", "tls = true"), CheckTls::Own(plain_yes()));
        assert_eq!(check(tls, "rise = 1"), CheckTls::Pool);
        assert_eq!(check(tls, "tls = true"), CheckTls::Pool);
        assert_eq!(check(tls, "tls = false"), CheckTls::Plain);
        // Another port is another service.
        assert_eq!(check(tls, "port = 81"), CheckTls::Plain);
        assert_eq!(check(tls, "address = \"10.0.0.9\""), CheckTls::Plain);
        assert_eq!(check(tls, "port = 81, tls = true"), CheckTls::Pool);
        let own = BackendTls {
            sni: Some("b".to_owned()),
            ..plain_yes()
        };
        assert_eq!(check(tls, "tls = { sni = \"b\" }"), CheckTls::Own(own));
    }
}
